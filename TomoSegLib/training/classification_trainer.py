"""Fine-tuning a classifier of stacks: cross-entropy in which all classes count alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from TomoSegLib.imaging.crop import middle_of_slices
from TomoSegLib.networks.stack_classifier import StackClassifier, is_new_weight
from TomoSegLib.training.classification_data import PreparedStack, StackDataset
from TomoSegLib.training.classification_scores import balanced_accuracy
from TomoSegLib.training.few_labels import FewLabelsTrainer
from TomoSegLib.training.loader import Batch
from TomoSegLib.training.precision import Precision, place


@dataclass(frozen=True)
class ClassifierOptions:
    """How a classifier is fine-tuned.

    Attributes:
        steps: Optimiser steps.
        batch_size: Stacks of a step.
        slices: Slices of a stack that a step sees; a finished model sees all.
        size: Rows and columns of the slices' middle that is seen, pixels; the paper's.
        learning_rate: Of Adam; all layers are trained.
        last_layer_factor: How many times faster the last layer learns, which always begins anew.
        plateau_factor: What `ReduceLROnPlateau` multiplies the rates by.
        plateau_patience: Validations without a gain before it does.
        averaged: Share of the steps, the last ones, over which the weights are averaged, see
            `FewLabelsTrainer`.
        validate_every: Steps between validations and checkpoints.
        flips: Axes (0 for k, 1 for j, 2 for i) that stacks are flipped along.
        augmentation: Strength of changes of intensity; 0 for none.
        rotation: Largest random turn of stacks in their slices' plane, degrees.
        zoom: Largest random zoom of stacks along rows and columns, as a factor; its inverse is the
            least. Where classes are a matter of size it takes away what tells them apart.
        precision: Of the network's arithmetic, see `TomoSegLib.training.precision`.
        seed: Everything random follows from it.
    """

    steps: int = 2000
    batch_size: int = 4
    slices: int = 8
    size: tuple[int, int] = (224, 224)
    learning_rate: float = 1e-3
    last_layer_factor: float = 10.0
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    averaged: float = 0.0
    validate_every: int = 100
    flips: tuple[int, ...] = (0, 1, 2)
    augmentation: float = 1.0
    rotation: float = 0.0
    zoom: float = 1.0
    precision: Precision = "auto"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For records."""
        return asdict(self)


class ClassifierTrainer(FewLabelsTrainer):
    """Trains a classifier on stacks.

    Kept are the weights with the least cross-entropy of the validation cases, the mean over their
    classes: with few cases their accuracy has few values.

    Args:
        network: The network.
        train: Stacks to train on, at least one of each class.
        validation: Stacks for validation; without any the last weights are kept.
        classes: Number of classes.
        background: Value beyond a slice.
        options: See `ClassifierOptions`.
        device: Where it runs.
        workers: Processes that draw slices; their number changes nothing about the result.
    """

    network: StackClassifier
    options: ClassifierOptions
    score, sign = "val loss", -1

    def __init__(
        self,
        network: StackClassifier,
        train: Sequence[PreparedStack],
        validation: Sequence[PreparedStack],
        classes: int,
        background: float,
        options: ClassifierOptions,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        place(network, device, options.precision, 2)
        data = StackDataset(
            train,
            options.size,
            options.slices,
            options.flips,
            options.augmentation,
            options.seed,
            options.rotation,
            options.zoom,
        )
        super().__init__(
            network,
            data,
            len(train),
            bool(validation),
            options,
            device,
            workers,
            is_new_weight,
            options.averaged,
        )
        self.validation, self.classes, self.background = validation, classes, background
        counts = np.bincount([stack.number for stack in train], minlength=classes)
        # A class of few cases weighs as much as one of many; a class without any not at all.
        self._weights = torch.tensor(
            len(train) / (np.maximum(counts, 1) * classes), dtype=torch.float32, device=self.device
        )

    def _loss(self, batch: Batch) -> Tensor:
        with self._autocast():
            logits = self.network(batch["image"])
        numbers = batch["class"]
        losses = F.cross_entropy(logits.float(), numbers, reduction="none")
        # Not the weighted mean of torch, whose weights cancel in a batch of one class.
        return (losses * self._weights[numbers]).mean()

    @torch.no_grad()
    def _measured(self) -> dict[str, float]:
        self.network.eval()
        size = self.options.size
        losses: dict[int, list[float]] = {}
        predicted = []
        for stack in self.validation:
            seen = middle_of_slices(stack.image, size, self.background).astype(np.float32)
            with self._autocast():
                logits = self.network(torch.from_numpy(seen)[None].to(self.device))
            number = torch.tensor([stack.number], device=self.device)
            loss = float(F.cross_entropy(logits.float(), number))
            losses.setdefault(stack.number, []).append(loss)
            predicted.append(int(logits[0].argmax()))
        true = [stack.number for stack in self.validation]
        return {
            "val loss": float(np.mean([np.mean(of_class) for of_class in losses.values()])),
            "val balanced accuracy": balanced_accuracy(true, predicted),
        }
