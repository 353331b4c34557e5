"""Fine-tuning a U-Net step by step: Dice loss on patches, sliding windows for validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor, nn

from TomoSegLib.networks.by_slice import by_slice
from TomoSegLib.networks.unet import is_output_weight
from TomoSegLib.networks.unet2d import EncoderDecoder
from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.training.few_labels import FewLabelsTrainer
from TomoSegLib.training.loader import Batch
from TomoSegLib.training.precision import Precision, place
from TomoSegLib.training.pseudo_labels import UNSURE
from TomoSegLib.training.segmentation_data import PatchDataset, PreparedLabels

Loss = Literal["dice", "dice-ce", "noise-tolerant"]


@dataclass(frozen=True)
class FinetuningOptions:
    """How a segmenter is fine-tuned; the defaults are the paper's where it says anything.

    Attributes:
        steps: Optimiser steps.
        batch_size: Patches of a step.
        patch: ``(k, j, i)`` voxels of a patch, and of the sliding window; k is 1 for a 2D network.
        loss: ``dice``: mean over the labels of one minus their soft Dice in the batch;
            ``dice-ce``: with cross-entropy added; ``noise-tolerant``: see `NoiseTolerantLoss`.
        learning_rate: Of Adam; all layers are trained.
        last_layer_factor: How many times faster the last layer learns, which always begins anew:
            in short trainings it may otherwise never cross one half. The same for every start, or
            starts could not be compared.
        plateau_factor: What `ReduceLROnPlateau` multiplies the rates by.
        plateau_patience: Validations without a gain before it does.
        averaged: Share of the steps, the last ones, over which the weights are averaged, see
            `FewLabelsTrainer`.
        validate_every: Steps between validations and checkpoints.
        overlap: Of sliding windows, as a fraction of their sides.
        flips: Axes (0 for k, 1 for j, 2 for i) that patches are flipped along.
        augmentation: Strength of changes of intensity; 0 for none.
        rotation: Largest random turn of patches about each axis, degrees; in the plane for a 2D
            network.
        zoom: Largest random zoom of patches along each axis by itself, as a factor; its inverse
            is the least.
        precision: Of the network's arithmetic, see `TomoSegLib.training.precision`.
        seed: Everything random follows from it.
    """

    steps: int = 2000
    batch_size: int = 4
    patch: tuple[int, int, int] = (32, 64, 64)
    loss: Loss = "dice"
    learning_rate: float = 1e-3
    last_layer_factor: float = 10.0
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    averaged: float = 0.0
    validate_every: int = 100
    overlap: float = 0.5
    flips: tuple[int, ...] = (0, 1, 2)
    augmentation: float = 1.0
    rotation: float = 0.0
    zoom: float = 1.0
    precision: Precision = "auto"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For records."""
        return asdict(self)


class Finetuner(FewLabelsTrainer):
    """Trains a U-Net on labelled cases.

    Args:
        network: The U-Net, 3D, or 2D with patches of one slice; one output for the background and
            one a label.
        train: Cases to train on.
        validation: Cases for validation; without any the last weights are kept.
        label_names: Names of the labels.
        background: Value outside a case.
        options: See `FinetuningOptions`.
        device: Where it runs.
        workers: Processes that draw patches; their number changes nothing about the result.
    """

    network: UNet3D | EncoderDecoder
    options: FinetuningOptions
    score = "mean Dice"

    def __init__(
        self,
        network: UNet3D | EncoderDecoder,
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

        place(network, device, options.precision, 3 if isinstance(network, UNet3D) else 2)
        patches = PatchDataset(
            train,
            options.patch,
            background,
            options.flips,
            options.augmentation,
            options.seed,
            options.rotation,
            options.zoom,
        )
        super().__init__(
            network,
            patches,
            len(train),
            bool(validation),
            options,
            device,
            workers,
            is_output_weight,
            options.averaged,
        )
        self.background = background
        self.validation, self.label_names = validation, label_names
        self.loss: nn.Module
        if options.loss == "noise-tolerant":
            self.loss = NoiseTolerantLoss()
        else:
            kind = DiceLoss if options.loss == "dice" else DiceCELoss
            # Over the whole batch: a patch without a label would count as wrong for one voxel.
            self.loss = kind(include_background=False, to_onehot_y=True, softmax=True, batch=True)

    def _logits(self, x: Tensor) -> Tensor:
        """``(B, C, k, j, i)`` patches to ``(B, L + 1, k, j, i)``."""
        network = self.network
        found = network(x) if isinstance(network, UNet3D) else by_slice(network, x)
        return cast(Tensor, found)

    def _loss(self, batch: Batch) -> Tensor:
        with self._autocast():
            logits = self._logits(batch["image"])
        return cast(Tensor, self.loss(logits.float(), batch["classes"]))

    def _seen(self, batch: Batch) -> Tensor:
        image = batch["image"]
        if isinstance(self.network, UNet3D):
            return image
        return image.transpose(1, 2).flatten(0, 1)

    def _measured(self) -> dict[str, float]:
        entry: dict[str, float] = {}
        dice = np.array([self._dice(case) for case in self.validation])
        for name, column in zip(self.label_names, dice.T, strict=True):
            if not np.isnan(column).all():
                entry[f"Dice {name}"] = float(np.nanmean(column))
        entry["mean Dice"] = float(np.mean(list(entry.values()))) if entry else 0.0
        return entry

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
                self._logits,
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
