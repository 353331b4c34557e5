"""Training an encoder-decoder on the plane tasks, step by step, so that it can be resumed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from TomoSegLib.networks.unet2d import EncoderDecoder, LocationNetwork
from TomoSegLib.pretraining.planes_baselines import (
    BASELINES,
    QUARTER_TURNS,
    ROTATION,
    BaselineDataset,
    baseline_loss,
)
from TomoSegLib.pretraining.planes_data import PlaneDataset, PlaneExample, balanced
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.training.loader import Batch, load, validation_order
from TomoSegLib.training.precision import Precision, place
from TomoSegLib.training.stepwise import LossState, StepwiseTrainer

TASKS = ("orientation", "location")


@dataclass(frozen=True)
class PlaneTraining:
    """How a network is pre-trained on planes; the defaults are the paper's where it says anything.

    Attributes:
        tasks: ``orientation``, ``location`` or both, whose losses are added with weight 1; or one
            of `BASELINES`.
        steps: Optimiser steps.
        batch_size: Images of a step.
        learning_rate: Of Adam in the beginning; it falls to zero along half a cosine, for what is
            learned in the end is what is transferred.
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

    @property
    def baseline(self) -> str:
        """The baseline that is trained instead of the plane tasks, or nothing."""
        return next((task for task in self.tasks if task in BASELINES), "")


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


class PlaneTrainer(StepwiseTrainer):
    """Trains a network on the plane tasks.

    Args:
        network: With as many output channels as there are kinds; for a baseline, one.
        train: Images to train on.
        validation: Images for the validation loss; without any the training loss takes its place.
        options: How images and targets are made.
        training: How it is trained.
        device: Where it runs.
        workers: Processes that prepare images; 0 prepares them here. Their number changes nothing
            about the result.
    """

    network: LocationNetwork
    options: PlaneTraining
    state: LossState

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
        baseline = training.baseline
        answers = QUARTER_TURNS if baseline == ROTATION else 1
        both = LocationNetwork(network, answers)
        place(both, device, training.precision, 2)
        super().__init__(both, training, LossState(), device, workers)
        self.train_data = _dataset(balanced(train), options, baseline, (training.seed, 1))
        self.validation_data = _dataset(validation, options, baseline)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=training.learning_rate)
        self.resumed["optimizer"] = self.optimizer

    def step(self) -> dict[str, float]:
        state = self.state
        batch = self._next_batch(self.train_data, len(self.train_data))
        share = 0.5 + 0.5 * math.cos(math.pi * state.step / self.options.steps)
        for group in self.optimizer.param_groups:  # of the step alone: nothing to resume
            group["lr"] = self.options.learning_rate * share
        self.network.train()
        with self._autocast():
            losses = self._losses(batch)
            total = torch.stack(list(losses.values())).sum()
        told = {name: float(value.detach()) for name, value in losses.items()}
        told["total"] = float(total.detach())
        self._check_loss(told["total"])
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for name, figure in told.items():
            state.sums[name] = state.sums.get(name, 0.0) + figure
        self._count_step()
        return told

    def _losses(self, batch: Batch) -> dict[str, Tensor]:
        images = batch["image"]
        baseline = self.options.baseline
        if baseline:
            return {baseline: baseline_loss(self.network, baseline, batch)}
        losses = {}
        if "orientation" in self.options.tasks:
            maps, locations = self.network(images)
            losses["orientation"] = orientation_loss(
                maps.float(), batch["heatmaps"], batch["known"]
            )
        else:
            locations = self.network.locate(images)
        if "location" in self.options.tasks:
            losses["location"] = location_loss(
                locations.float(), batch["location"], batch["located"]
            )
        return losses

    def _validate(self) -> None:
        """Record what the steps since the last time came to; keep the best weights."""
        state = self.state
        self._check_weights()
        self._renew_statistics(self.train_data, len(self.train_data))
        entry = {"step": float(state.step)}
        entry |= {f"train {k}": v / state.counted for k, v in state.sums.items()}
        state.sums, state.counted = {}, 0
        if len(self.validation_data):
            entry |= {f"val {k}": v for k, v in self._measured().items()}
        state.history.append(entry)
        loss = entry.get("val total", entry["train total"])
        if loss < state.best_loss:
            state.best_loss = loss
            self._keep_weights()

    def _measured(self) -> dict[str, float]:
        """Mean losses over the validation images."""
        training = self.options
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


def _dataset(
    examples: Sequence[PlaneExample],
    options: PlaneOptions,
    baseline: str,
    seed: tuple[int, ...] | None = None,
) -> PlaneDataset:
    if baseline:
        return BaselineDataset(examples, options, baseline, seed)
    return PlaneDataset(examples, options, seed)
