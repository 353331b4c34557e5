"""What fine-tunings with few labels share: the optimiser, a step, and what is kept of them."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import Dataset

from TomoSegLib.training.loader import Batch
from TomoSegLib.training.stepwise import StepOptions, StepState, StepwiseTrainer


class FewLabelsOptions(StepOptions, Protocol):
    """What their options have beside; the frozen dataclasses say what it means."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def last_layer_factor(self) -> float: ...
    @property
    def plateau_factor(self) -> float: ...
    @property
    def plateau_patience(self) -> int: ...
    def as_dict(self) -> dict[str, Any]: ...


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
    """Trains a network on labelled cases with Adam; the last layer may learn faster.

    Without validation cases the last weights are kept, else those with the highest score. Where
    it is asked for, what is judged and kept in the last part of the training is the mean of the
    weights after each of its steps so far: P. Izmailov et al., "Averaging weights leads to wider
    optima and better generalization", UAI 2018. Weights from before that may still score higher.

    Args:
        network: The network, on its device.
        data: What batches are drawn from.
        items: How many items it has.
        validated: Whether there are validation cases.
        options: How it is trained.
        device: Where it runs.
        workers: Processes that prepare batches; their number changes nothing about the result.
        is_new: Whether a weight of that name belongs to the last layer, which begins anew.
        averaged: Share of the steps, the last ones, whose weights are averaged.

    Attributes:
        score: Name of the figure of the validation cases that says which weights are kept.
        sign: 1 where a higher figure is better, -1 where a lower one is.
    """

    score: ClassVar[str]
    sign: ClassVar[int] = 1
    state: FinetuningState

    def __init__(
        self,
        network: nn.Module,
        data: Dataset[Batch],
        items: int,
        validated: bool,
        options: FewLabelsOptions,
        device: torch.device | str,
        workers: int,
        is_new: Callable[[str], bool],
        averaged: float = 0.0,
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
                {"params": layers[True], "lr": rate * options.last_layer_factor},
            ]
        )
        self.schedule = ReduceLROnPlateau(
            self.optimizer,
            mode="max",
            factor=options.plateau_factor,
            patience=options.plateau_patience,
            threshold_mode="abs",  # a share of a negative score would count the wrong way round
        )
        self.resumed |= {"optimizer": self.optimizer, "schedule": self.schedule}
        self._average: AveragedModel | None = None
        self._averaged_from = min(round((1 - averaged) * options.steps), options.steps - 1)
        if averaged:
            self._average = self.resumed["average"] = AveragedModel(network)

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
        if self._average is not None and self.state.step >= self._averaged_from:
            self._average.update_parameters(self.network)
        self.state.loss_sum += value
        self._count_step()
        return {"loss": value}

    def _validate(self) -> None:
        self._check_weights()
        if self._average is None or not self._average.n_averaged:
            self._judge()
            return
        last = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self._average.module.state_dict())
        self._judge()
        self.network.load_state_dict(last)

    def _judge(self) -> None:
        """Measure the weights as they are, and keep them if they are the best."""
        state = self.state
        self._renew_statistics(self._data, self._items)
        entry = {"step": float(state.step), "train loss": state.loss_sum / state.counted}
        state.loss_sum, state.counted = 0.0, 0
        score = -entry["train loss"]
        if self._validated:
            entry |= self._measured()
            score = self.sign * entry[self.score]
        self.schedule.step(score)
        entry["learning rate"] = self.optimizer.param_groups[0]["lr"]
        state.history.append(entry)
        # Without validation cases a lower training loss says nothing: the last weights are kept.
        # (Rates that fall towards the end made both scratch and pre-trained starts worse in short
        # trainings of simulated hearts: they cost more steps than they take noise away.)
        if score > state.best_score or not self._validated:
            state.best_score = max(score, state.best_score)
            self._keep_weights()
