"""Fine-tuning a 3D U-Net step by step: Dice loss on patches, sliding windows for validation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from TomoSegLib.errors import TomoSegError
from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.training.checkpoint import CheckpointParts, all_finite
from TomoSegLib.training.loader import Batch, load, order
from TomoSegLib.training.precision import Precision, arithmetic
from TomoSegLib.training.pseudo_labels import UNSURE
from TomoSegLib.training.segmentation_data import PatchDataset, PreparedLabels

Loss = Literal["dice", "dice-ce", "noise-tolerant"]


@dataclass(frozen=True)
class FinetuningOptions:
    """How a segmenter is fine-tuned; the defaults are the paper's where it says anything.

    Attributes:
        steps: Optimiser steps.
        batch_size: Patches of a step.
        patch: ``(k, j, i)`` voxels of a patch, and of the sliding window.
        loss: ``dice``: mean over the labels of one minus their soft Dice in the batch;
            ``dice-ce``: with cross-entropy added; ``noise-tolerant``: see `NoiseTolerantLoss`.
        learning_rate: Of Adam; all layers are trained.
        plateau_factor: What `ReduceLROnPlateau` multiplies it by.
        plateau_patience: Validations without a gain before it does.
        validate_every: Steps between validations and checkpoints.
        overlap: Of sliding windows, as a fraction of their sides.
        flips: Axes (0 for k, 1 for j, 2 for i) that patches are flipped along.
        augmentation: Strength of changes of intensity; 0 for none.
        precision: Of the network's arithmetic, see `TomoSegLib.training.precision`.
        seed: Everything random follows from it.
    """

    steps: int = 2000
    batch_size: int = 4
    patch: tuple[int, int, int] = (32, 64, 64)
    loss: Loss = "dice"
    learning_rate: float = 1e-3
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    validate_every: int = 100
    overlap: float = 0.5
    flips: tuple[int, ...] = (0, 1, 2)
    augmentation: float = 1.0
    precision: Precision = "auto"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For records."""
        return asdict(self)


@dataclass
class FinetuningState:
    """What a fine-tuning has come to.

    Attributes:
        step: Steps done.
        best_score: Highest mean Dice of the validation cases so far; without any, the least
            training loss, negative.
        best_step: Step of the weights that are kept.
        history: One entry a validation.
        loss_sum: Sum of the losses since the last validation.
        counted: Their number.
    """

    step: int = 0
    best_score: float = -math.inf
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    loss_sum: float = 0.0
    counted: int = 0


class Finetuner:
    """Trains a U-Net on labelled cases.

    Args:
        network: The U-Net, one output for the background and one a label.
        train: Cases to train on.
        validation: Cases for validation; without any the last weights are kept.
        label_names: Names of the labels.
        background: Value outside a case.
        options: See `FinetuningOptions`.
        device: Where it runs.
        workers: Processes that draw patches; their number changes nothing about the result.
    """

    def __init__(
        self,
        network: UNet3D,
        train: Sequence[PreparedLabels],
        validation: Sequence[PreparedLabels],
        label_names: Sequence[str],
        background: float,
        options: FinetuningOptions,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        from monai.losses import DiceCELoss, DiceLoss

        from TomoSegLib.training.noise_tolerant import NoiseTolerantLoss

        self.options, self.workers, self.background = options, workers, background
        self.device = torch.device(device)
        # In this layout convolutions take a third less time on a CPU.
        self.network: UNet3D = network.to(self.device, memory_format=torch.channels_last_3d)
        self.validation, self.label_names = validation, label_names
        self.patches = PatchDataset(
            train, options.patch, background, options.flips, options.augmentation, options.seed
        )
        self._cases = len(train)
        self.loss: nn.Module
        if options.loss == "noise-tolerant":
            self.loss = NoiseTolerantLoss()
        else:
            kind = DiceLoss if options.loss == "dice" else DiceCELoss
            # Over the whole batch: a patch without a label would count as wrong for one voxel.
            self.loss = kind(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
        self.schedule = ReduceLROnPlateau(
            self.optimizer,
            mode="max",
            factor=options.plateau_factor,
            patience=options.plateau_patience,
        )
        self._autocast, self.scaler = arithmetic(options.precision, self.device)
        self.state = FinetuningState()
        self.best = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self._batches: Iterator[Batch] | None = None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.state.step >= self.options.steps

    def step(self) -> float:
        """One optimiser step, and a validation where it is due.

        Returns:
            The loss.

        Raises:
            TomoSegError: ``training-diverged`` if the loss or a weight is not finite.
        """
        options, state = self.options, self.state
        if self._batches is None:
            steps = order(self._cases, options.batch_size, options.seed, state.step, options.steps)
            self._batches = load(self.patches, steps, self.workers, self.device)
        batch = next(self._batches)
        self.network.train()
        with self._autocast():
            logits = self.network(batch["image"])
        loss = self.loss(logits.float(), batch["classes"])
        value = float(loss.detach())
        if not math.isfinite(value):
            raise _diverged(f"The loss is no longer a number at step {state.step + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        state.step += 1
        state.loss_sum += value
        state.counted += 1
        if state.step % options.validate_every == 0 or state.step == options.steps:
            self._validate()
        return value

    def _validate(self) -> None:
        state = self.state
        if not all_finite(self.network.state_dict()):
            raise _diverged(f"Weights are no longer numbers at step {state.step}")
        entry = {"step": float(state.step), "train loss": state.loss_sum / state.counted}
        state.loss_sum, state.counted = 0.0, 0
        if self.validation:
            dice = np.array([self._dice(case) for case in self.validation])
            for name, column in zip(self.label_names, dice.T, strict=True):
                if not np.isnan(column).all():
                    entry[f"Dice {name}"] = float(np.nanmean(column))
            found = [value for name, value in entry.items() if name.startswith("Dice ")]
            entry["mean Dice"] = float(np.mean(found)) if found else 0.0
        score = entry.get("mean Dice", -entry["train loss"])
        self.schedule.step(score)
        entry["learning rate"] = self.optimizer.param_groups[0]["lr"]
        state.history.append(entry)
        # Without validation cases a lower training loss says nothing: the last weights are kept.
        if score > state.best_score or not self.validation:
            state.best_score, state.best_step = max(score, state.best_score), state.step
            self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    @torch.no_grad()
    def _dice(self, case: PreparedLabels) -> list[float]:
        """Dice of each label in a case on the model's grid; NaN where the case has none of it.

        Voxels that are `UNSURE` do not count.
        """
        from monai.inferers import sliding_window_inference

        self.network.eval()
        image = torch.from_numpy(case.image.astype(np.float32))[None].to(self.device)
        with self._autocast():
            logits = sliding_window_inference(
                image,
                self.options.patch,
                max(1, self.options.batch_size),
                self.network,
                overlap=self.options.overlap,
                mode="gaussian",
                cval=self.background,
            )
        predicted = logits[0].argmax(dim=0).cpu().numpy()
        predicted[case.classes == UNSURE] = UNSURE
        values = []
        for number in range(1, len(self.label_names) + 1):
            mask, reference = predicted == number, case.classes == number
            total = int(mask.sum() + reference.sum())
            values.append(
                2 * int((mask & reference).sum()) / total if reference.any() else float("nan")
            )
        return values

    def parts(self) -> CheckpointParts:
        """Everything that the next step depends on."""
        parts = CheckpointParts()
        parts.put("network", self.network.state_dict())
        parts.put("best", self.best)
        parts.put_optimizer("optimizer", self.optimizer)
        parts.put_schedule("schedule", self.schedule)
        parts.record["scaler"] = self.scaler.state_dict()
        parts.record["state"] = asdict(self.state)
        return parts

    def restore(self, parts: CheckpointParts) -> None:
        """Go on from where `parts` was called.

        Raises:
            RuntimeError, KeyError, TypeError, ValueError: The parts are not of this training.
        """
        self.network.load_state_dict(parts.get("network"))
        parts.fill("best", self.best)
        parts.get_optimizer("optimizer", self.optimizer)
        parts.get_schedule("schedule", self.schedule)
        if parts.record["scaler"]:
            self.scaler.load_state_dict(parts.record["scaler"])
        self.state = FinetuningState(**parts.record["state"])
        self._batches = None


def _diverged(what: str) -> TomoSegError:
    return TomoSegError(
        "training-diverged",
        f"{what}.",
        "Lower --learning-rate; the last checkpoint holds the last good state.",
    )
