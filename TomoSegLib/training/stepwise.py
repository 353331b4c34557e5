"""What trainings that go step by step share: batches, best weights, checkpoints and curves."""

from __future__ import annotations

import math
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import update_bn
from torch.utils.data import Dataset

from TomoSegLib.errors import TomoSegError
from TomoSegLib.training.checkpoint import (
    CheckpointParts,
    all_finite,
    load_checkpoint,
    save_checkpoint,
)
from TomoSegLib.training.curves import EventFiles, draw_history
from TomoSegLib.training.loader import Batch, load, order
from TomoSegLib.training.precision import Precision, arithmetic

_CURVES_EVERY = 20  # steps between the points of TensorBoard's curves, in short trainings fewer
_LEAST_POINTS = 50

_STATISTICS_IMAGES = 96
_STATISTICS_BATCHES = 8  # at least

Stage = Literal["read", "train", "test"]
Progress = Callable[[Stage, int, int, Mapping[str, float]], None]
"""Receives the stage, what is done of it and in all, and figures of a step."""

T = TypeVar("T")


class StepOptions(Protocol):
    """What all options of such a training have; the frozen dataclasses say what it means."""

    @property
    def steps(self) -> int: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def validate_every(self) -> int: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def seed(self) -> int: ...


@dataclass
class StepState:
    """What a training has come to.

    Attributes:
        step: Steps done.
        best_step: Step of the weights that are kept.
        history: One entry a validation.
        counted: Steps since the last validation.
    """

    step: int = 0
    best_step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    counted: int = 0


@dataclass
class LossState(StepState):
    """The same where the lowest loss is best.

    Attributes:
        best_loss: Least validation loss so far.
        sums: Sums of the figures of the steps since the last validation.
    """

    best_loss: float = math.inf
    sums: dict[str, float] = field(default_factory=dict)


class StepwiseTrainer(ABC):
    """Trains a network step by step, such that it goes on exactly where it was.

    Args:
        network: On its device.
        options: How it is trained.
        state: Of the beginning.
        device: Where it runs.
        workers: Processes that prepare batches; their number changes nothing about the result.

    Attributes:
        best: The weights that are kept.
        resumed: Modules, optimisers and schedules by their names in a checkpoint.
        remedy: What is said when a loss or a weight is no longer a number.
    """

    remedy = "Lower --learning-rate"

    def __init__(
        self,
        network: nn.Module,
        options: StepOptions,
        state: StepState,
        device: torch.device | str,
        workers: int,
    ) -> None:
        self.network: nn.Module = network
        self.options, self.state, self.workers = options, state, workers
        self.device = torch.device(device)
        self._autocast, self.scaler = arithmetic(options.precision, self.device)
        self.best = {k: v.detach().clone() for k, v in network.state_dict().items()}
        self.resumed: dict[str, nn.Module | Optimizer | ReduceLROnPlateau] = {"network": network}
        self._batches: Iterator[Batch] | None = None

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.state.step >= self.options.steps

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One optimiser step, and a validation where it is due.

        Returns:
            Losses and other figures of the step.

        Raises:
            TomoSegError: ``training-diverged`` if the loss or a weight is not finite.
        """

    @abstractmethod
    def _validate(self) -> None:
        """Record what the steps since the last time came to; keep the best weights."""

    def _next_batch(self, data: Dataset[Batch], items: int) -> Batch:
        options = self.options
        if self._batches is None:
            steps = order(items, options.batch_size, options.seed, self.state.step, options.steps)
            self._batches = load(data, steps, self.workers, self.device)
        return next(self._batches)

    def _renew_statistics(self, data: Dataset[Batch], items: int) -> None:
        """Batch norm's mean and variance with the weights as they are now.

        The running ones come from the last steps, of few images each, in which the weights still
        moved: after a short training that costs more than all else.
        """
        size, seed, last = self.options.batch_size, self.options.seed, self.options.steps
        # With 16 images the same weights' Dice changed by several points. More than the training
        # itself has seen would take longer than it.
        count = min(math.ceil(_STATISTICS_IMAGES / size), self.state.step)
        count = max(_STATISTICS_BATCHES, count)
        batches = order(items, size, seed, last, last + count)  # of no training step
        with self._autocast():
            images = (self._seen(batch) for batch in load(data, batches, 0, self.device))
            update_bn(images, self.network, self.device)

    def _seen(self, batch: Batch) -> Tensor:
        """What the network is given of a batch."""
        return batch["image"]

    def _check_loss(self, loss: float) -> None:
        if not math.isfinite(loss):
            raise self._diverged(f"The loss is no longer a number at step {self.state.step + 1}")

    def _check_weights(self) -> None:
        if not self.is_sound():
            raise self._diverged(f"Weights are no longer numbers at step {self.state.step}")

    def is_sound(self) -> bool:
        """Whether all weights are numbers."""
        return all_finite(self.network.state_dict())

    def _diverged(self, what: str) -> TomoSegError:
        hint = (
            f"{self.remedy}, and give another --output, or --overwrite. The folder keeps the "
            "last checkpoint in which all was well."
        )
        return TomoSegError("training-diverged", f"{what}.", hint)

    def _count_step(self) -> None:
        self.state.step += 1
        self.state.counted += 1
        if self.state.step % self.options.validate_every == 0 or self.finished:
            self._validate()

    def _keep_weights(self) -> None:
        self.state.best_step = self.state.step
        self.best = {k: v.detach().clone() for k, v in self.network.state_dict().items()}

    def parts(self) -> CheckpointParts:
        """Everything that the next step depends on."""
        parts = CheckpointParts()
        for name, value in self.resumed.items():
            if isinstance(value, nn.Module):
                parts.put(name, value.state_dict())
            elif isinstance(value, Optimizer):
                parts.put_optimizer(name, value)
            else:
                parts.put_schedule(name, value)
        parts.put("best", self.best)
        parts.record["scaler"] = self.scaler.state_dict()
        parts.record["state"] = asdict(self.state)
        return parts

    def restore(self, parts: CheckpointParts) -> None:
        """Go on from where `parts` was called, see `Resumable`."""
        for name, value in self.resumed.items():
            if isinstance(value, nn.Module):
                value.load_state_dict(parts.get(name))
            elif isinstance(value, Optimizer):
                parts.get_optimizer(name, value)
            else:
                parts.get_schedule(name, value)
        parts.fill("best", self.best)
        if parts.record["scaler"]:
            self.scaler.load_state_dict(parts.record["scaler"])
        self.state = type(self.state)(**parts.record["state"])
        self._batches = None


def train_steps(
    trainer: StepwiseTrainer,
    output: Path,
    identity: Mapping[str, Any],
    overwrite: bool,
    tell: Callable[[int, int, Mapping[str, float]], None],
    stop: Callable[[], bool],
    results: Sequence[str] = (),
) -> bool:
    """Train from the last checkpoint on, with checkpoints, ``curves.png`` and TensorBoard's files.

    Args:
        trainer: A new one.
        output: Folder of the run.
        identity: See `save_checkpoint`.
        overwrite: Start again.
        tell: Called after every step with steps done, their number and the step's figures.
        stop: Whether to stop before the next step.
        results: What will be in the folder at the end, see `remove_earlier`: whoever starts again
            does not want to find an earlier training's there if this one is stopped.

    Returns:
        Whether all steps are done.
    """
    folder = output / "checkpoint"
    if overwrite:
        remove_earlier(output, results)
    else:
        load_checkpoint(trainer, folder, identity)
    options, state = trainer.options, trainer.state
    every = max(1, min(_CURVES_EVERY, options.steps // _LEAST_POINTS))
    with EventFiles(output / "tensorboard", state.step) as events:
        while not trainer.finished and not stop():
            figures = trainer.step()
            if state.step % every == 0:
                events.add(figures, state.step, "train")
            if state.history and state.history[-1]["step"] == state.step:
                validated = {
                    name.removeprefix("val "): value
                    for name, value in state.history[-1].items()
                    if name != "step" and not name.startswith("train ")
                }
                events.add(validated, state.step, "validation")
                draw_history(state.history, output / "curves.png")
            tell(state.step, options.steps, figures)
            # Before the first validation, too, more and more rarely: a training that diverges at
            # once leaves something behind.
            early = state.step < options.validate_every and state.step.bit_count() == 1
            if state.step % options.validate_every == 0 or (early and trainer.is_sound()):
                save_checkpoint(trainer, folder, identity)
                events.flush()  # a run that is killed leaves a smaller gap in its curves
    # Not after an error: the last checkpoint is sound, the state in the middle of a step is not.
    if trainer.is_sound():
        save_checkpoint(trainer, folder, identity)
    return trainer.finished


def remove_earlier(output: Path, results: Sequence[str]) -> None:
    """Remove what an earlier training left in its folder, before it starts again.

    Args:
        output: The folder. Without a checkpoint or the first of the results in it, it is no
            training's, and nothing is removed.
        results: Names of files and folders, first one that shows whose folder it is.

    Raises:
        TomoSegError: ``output-unwritable``.
    """
    if not any((output / name).exists() for name in ("checkpoint", *results[:1])):
        return
    for name in (*results, "tensorboard", "checkpoint"):
        old = output / name
        try:
            if old.is_dir() and not old.is_symlink():
                aside = output / f".{name}.{os.getpid()}"  # none is left half removed
                os.replace(old, aside)
                shutil.rmtree(aside)
            else:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise TomoSegError(
                "output-unwritable",
                f"What an earlier training left in {old} cannot be removed: {error.strerror}.",
                "Close what uses it, or choose another --output.",
            ) from None


class _Stopped(Exception):
    """It was asked to stop while nothing was left half done."""


def stoppable(
    work: Callable[[Progress, Callable[[], bool]], T | None],
    on_progress: Progress | None,
    should_stop: Callable[[], bool] | None,
) -> T | None:
    """Do what tells its progress; between two cases it can be stopped.

    Args:
        work: Gets the function to tell, and the one to ask whether to stop while training.
        on_progress: Whom to tell.
        should_stop: Whether to stop.

    Returns:
        What ``work`` returns; None if it was stopped.
    """
    stop = should_stop or (lambda: False)

    def tell(stage: Stage, done: int, total: int, figures: Mapping[str, float]) -> None:
        if on_progress is not None:
            on_progress(stage, done, total, figures)
        if stage != "train" and stop():
            raise _Stopped

    try:
        return work(tell, stop)
    except _Stopped:
        return None
