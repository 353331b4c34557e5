"""Training an encoder-decoder on the plane tasks, step by step, so that it can be resumed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError
from TomoSegLib.networks.unet2d import EncoderDecoder, LocationNetwork
from TomoSegLib.pretraining.planes_data import PlaneDataset, PlaneExample
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.training.checkpoint import CheckpointParts, all_finite
from TomoSegLib.training.loader import Batch, load, order, validation_order
from TomoSegLib.training.precision import Precision, arithmetic

TASKS = ("orientation", "location")


@dataclass(frozen=True)
class PlaneTraining:
    """How a network is pre-trained on planes; the defaults are the paper's where it says anything.

    Attributes:
        tasks: ``orientation``, ``location`` or both; losses are added with weight 1.
        steps: Optimiser steps.
        batch_size: Images of a step.
        learning_rate: Of Adam.
        validate_every: Steps between validations and checkpoints.
        validation_images: Images of a validation at most, always the same ones.
        precision: Of the network's arithmetic, see `PretrainingOptions`.
        seed: Everything random follows from it.
    """

    tasks: tuple[str, ...] = TASKS
    steps: int = 2000
    batch_size: int = 8
    learning_rate: float = 1e-3
    validate_every: int = 200
    validation_images: int = 128
    precision: Precision = "auto"
    seed: int = 0


@dataclass
class PlaneTrainingState:
    """What a training has come to.

    Attributes:
        step: Steps done.
        best_loss: Least validation loss so far.
        best_step: Step of the weights that are kept.
        history: One entry a validation.
        sums: Sums of the losses of the steps since the last validation.
        counted: Their number.
    """

    step: int = 0
    best_loss: float = math.inf
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    counted: int = 0


def orientation_loss(maps: Tensor, heatmaps: Tensor, known: Tensor) -> Tensor:
    """Mean squared error over the pixels of the channels that have a target.

    Args:
        maps: ``(B, C, H, W)`` of the network.
        heatmaps: ``(B, C, H, W)``.
        known: ``(B, C)``, 1 where there is a target. Without any the loss is zero.
    """
    errors = (maps - heatmaps).square().mean(dim=(-2, -1))
    return (errors * known).sum() / known.sum().clamp_min(1.0)


def location_loss(locations: Tensor, targets: Tensor, located: Tensor) -> Tensor:
    """Mean squared error over the images that have a location; all ``(B,)``."""
    return ((locations - targets).square() * located).sum() / located.sum().clamp_min(1.0)


class PlaneTrainer:
    """Trains a network on the plane tasks.

    Args:
        network: With as many output channels as there are kinds.
        train: Images to train on.
        validation: Images for the validation loss; without any the training loss takes its place.
        options: How images and targets are made.
        training: How it is trained.
        device: Where it runs.
        workers: Processes that prepare images; 0 prepares them here. Their number changes nothing
            about the result.
    """

    def __init__(
        self,
        network: EncoderDecoder,
        train: Sequence[PlaneExample],
        validation: Sequence[PlaneExample],
        options: PlaneOptions,
        training: PlaneTraining,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        self.training, self.workers = training, workers
        self.device = torch.device(device)
        self.network = LocationNetwork(network).to(self.device)
        # Convolutions with few channels are faster in this layout, on CPUs too.
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.train_data = PlaneDataset(train, options, (training.seed, 1))
        self.validation_data = PlaneDataset(validation, options)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=training.learning_rate)
        self._autocast, self.scaler = arithmetic(training.precision, self.device)
        self.state = PlaneTrainingState()
        self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self._batches: Iterator[Batch] | None = None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.state.step >= self.training.steps

    def step(self) -> dict[str, float]:
        """One step of the optimiser, and a validation where it is due.

        Returns:
            The step's losses.

        Raises:
            TomoSegError: ``training-diverged`` if the loss or a weight is not finite.
        """
        training, state = self.training, self.state
        if self._batches is None:
            steps = order(
                len(self.train_data), training.batch_size, training.seed, state.step, training.steps
            )
            self._batches = load(self.train_data, steps, self.workers, self.device)
        self.network.train()
        with self._autocast():
            losses = self._losses(next(self._batches))
            total = torch.stack(list(losses.values())).sum()
        told = {name: float(value.detach()) for name, value in losses.items()}
        told["total"] = float(total.detach())
        if not math.isfinite(told["total"]):
            raise _diverged(f"The loss is no longer a number at step {state.step + 1}")
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        state.step += 1
        for name, figure in told.items():
            state.sums[name] = state.sums.get(name, 0.0) + figure
        state.counted += 1
        if state.step % training.validate_every == 0 or state.step == training.steps:
            self._validate()
        return told

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        images = batch["image"].contiguous(memory_format=torch.channels_last)
        losses = {}
        if "orientation" in self.training.tasks:
            maps, locations = self.network(images)
            losses["orientation"] = orientation_loss(
                maps.float(), batch["heatmaps"], batch["known"]
            )
        else:
            locations = self.network.locate(images)
        if "location" in self.training.tasks:
            losses["location"] = location_loss(
                locations.float(), batch["location"], batch["located"]
            )
        return losses

    def _validate(self) -> None:
        """Record what the steps since the last time came to; keep the best weights."""
        state = self.state
        if not all_finite(self.network.state_dict()):
            raise _diverged(f"Weights are no longer numbers at step {state.step}")
        entry = {"step": float(state.step)}
        entry |= {f"train {k}": v / state.counted for k, v in state.sums.items()}
        state.sums, state.counted = {}, 0
        if len(self.validation_data):
            entry |= {f"val {k}": v for k, v in self._measured().items()}
        state.history.append(entry)
        loss = entry.get("val total", entry["train total"])
        if loss < state.best_loss:
            state.best_loss, state.best_step = loss, state.step
            self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def _measured(self) -> dict[str, float]:
        """Mean losses over the validation images."""
        training = self.training
        batches = validation_order(
            len(self.validation_data),
            training.validation_images,
            training.batch_size,
            training.seed,
        )
        sums: dict[str, float] = {}
        self.network.eval()
        with torch.no_grad(), self._autocast():
            for keys, loaded in zip(
                batches, load(self.validation_data, batches, self.workers, self.device), strict=True
            ):
                for name, value in self._losses(loaded).items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(keys)
        count = sum(map(len, batches))
        means = {name: value / count for name, value in sums.items()}
        return means | {"total": sum(means.values())}

    def parts(self) -> CheckpointParts:
        """Everything that the next step depends on."""
        parts = CheckpointParts()
        parts.put("network", self.network.state_dict())
        parts.put("best", self.best)
        parts.put_optimizer("optimizer", self.optimizer)
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
        if parts.record["scaler"]:
            self.scaler.load_state_dict(parts.record["scaler"])
        state: dict[str, Any] = parts.record["state"]
        self.state = PlaneTrainingState(**state)
        self._batches = None


def _diverged(what: str) -> TomoSegError:
    return TomoSegError(
        "training-diverged",
        f"{what}.",
        "Lower --learning-rate; the last checkpoint holds the last good state.",
    )
