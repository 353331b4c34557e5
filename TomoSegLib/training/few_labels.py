"""What fine-tunings with few labels share: options, the optimiser, and what is kept of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import Dataset

from TomoSegLib.training.loader import Batch
from TomoSegLib.training.precision import Precision
from TomoSegLib.training.stepwise import StepState, StepwiseTrainer

Loss = Literal["dice", "dice-ce", "noise-tolerant"]


@dataclass(frozen=True)
class FinetuningOptions:
    """How a network is fine-tuned; the defaults are the paper's where it says anything.

    Attributes:
        steps: Optimiser steps.
        batch_size: Patches of a step.
        patch: ``(k, j, i)`` voxels of a patch, and of the sliding window; k is 1 for a 2D network.
        loss: ``dice``: mean over the labels of one minus their soft Dice in the batch;
            ``dice-ce``: with cross-entropy added; ``noise-tolerant``: see `NoiseTolerantLoss`.
        learning_rate: Of Adam; all layers are trained.
        last_layer_factor: How many times faster the last layer learns, which begins anew. None: 10
            when starting from pre-trained weights, whose features it has to weigh before anything
            else makes sense; 1 from scratch, where all layers are new.
        plateau_factor: What `ReduceLROnPlateau` multiplies the rates by.
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
    last_layer_factor: float | None = None
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
class FinetuningState(StepState):
    """What a fine-tuning has come to.

    Attributes:
        best_score: Highest score of the validation cases so far; without any, the least
            training loss, negative.
        loss_sum: Sum of the losses since the last validation.
    """

    best_score: float = -math.inf
    loss_sum: float = 0.0


class FewLabelsTrainer(StepwiseTrainer):
    """Trains a network on labelled cases, with a last layer that may learn faster.

    Without validation cases the last weights are kept, else those with the highest score.

    Args:
        network: The network, on its device.
        data: What batches are drawn from.
        items: How many items it has.
        validated: Whether there are validation cases.
        options: See `FinetuningOptions`.
        device: Where it runs.
        workers: Processes that prepare batches; their number changes nothing about the result.
        is_new: Whether a weight of that name begins anew.

    Attributes:
        score: Name of the figure of the validation cases that is best when it is highest.
    """

    score: ClassVar[str]
    options: FinetuningOptions
    state: FinetuningState

    def __init__(
        self,
        network: nn.Module,
        data: Dataset[Batch],
        items: int,
        validated: bool,
        options: FinetuningOptions,
        device: torch.device | str,
        workers: int,
        is_new: Callable[[str], bool],
    ) -> None:
        super().__init__(network, options, FinetuningState(), device, workers)
        self._data, self._items, self._validated = data, items, validated
        layers: dict[bool, list[nn.Parameter]] = {False: [], True: []}
        for name, parameter in network.named_parameters():
            layers[is_new(name)].append(parameter)
        rate = options.learning_rate
        self.optimizer = torch.optim.Adam(
            [
                {"params": layers[False], "lr": rate},
                {"params": layers[True], "lr": rate * (options.last_layer_factor or 1.0)},
            ]
        )
        self.schedule = ReduceLROnPlateau(
            self.optimizer,
            mode="max",
            factor=options.plateau_factor,
            patience=options.plateau_patience,
        )
        self.resumed |= {"optimizer": self.optimizer, "schedule": self.schedule}

    @abstractmethod
    def _loss(self, batch: Batch) -> Tensor:
        """The loss of a batch."""

    @abstractmethod
    def _measured(self) -> dict[str, float]:
        """Figures of the validation cases, `score` among them."""

    def step(self) -> dict[str, float]:
        batch = self._next_batch(self._data, self._items)
        self.network.train()
        loss = self._loss(batch)
        value = float(loss.detach())
        self._check_loss(value)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.state.loss_sum += value
        self._count_step()
        return {"loss": value}

    def _validate(self) -> None:
        state = self.state
        self._check_weights()
        self._renew_statistics(self._data, self._items)
        entry = {"step": float(state.step), "train loss": state.loss_sum / state.counted}
        state.loss_sum, state.counted = 0.0, 0
        if self._validated:
            entry |= self._measured()
        score = entry.get(self.score, -entry["train loss"])
        self.schedule.step(score)
        entry["learning rate"] = self.optimizer.param_groups[0]["lr"]
        state.history.append(entry)
        # Without validation cases a lower training loss says nothing: the last weights are kept.
        if score > state.best_score or not self._validated:
            state.best_score = max(score, state.best_score)
            self._keep_weights()
