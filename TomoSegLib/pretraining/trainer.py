"""Pre-training step by step: the U-Net and a task's heads against a modality discriminator."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.adversary import (
    ModalityDiscriminator,
    confusion_loss,
    discriminator_loss,
    modality_weights,
    reverse_gradient,
)
from TomoSegLib.pretraining.cubes import CubePool
from TomoSegLib.pretraining.options import PretrainingOptions
from TomoSegLib.pretraining.tasks import SPREAD, CubeDataset, Outcome, PretextTask
from TomoSegLib.training.loader import Batch, load, validation_order
from TomoSegLib.training.precision import place
from TomoSegLib.training.stepwise import LossState, StepwiseTrainer

_LEAST_SPREAD = 1e-4  # of restored intensities in [0, 1]
_SPREAD_STEPS = 8  # in so many steps some batch is not all air


class Pretrainer(StepwiseTrainer):
    """Trains a U-Net on a pretext task.

    Args:
        network: The U-Net.
        task: The task with its heads.
        train: Cubes to train on.
        validation: Cubes for the validation loss; without any the training loss takes its place.
        options: See `PretrainingOptions`.
        device: Where it runs.
        workers: Processes that prepare cubes; 0 prepares them here. Their number changes nothing
            about the result.

    Attributes:
        waited_s: Time that steps have waited for cubes since the trainer was made.
        worked_s: Time that steps have taken in all.
    """

    network: UNet3D
    options: PretrainingOptions
    state: LossState
    remedy = "Choose --optimizer adam --learning-rates 0.001,0.001,0.001, or lower the rates"

    def __init__(
        self,
        network: UNet3D,
        task: PretextTask,
        train: CubePool,
        validation: CubePool,
        options: PretrainingOptions,
        device: torch.device | str = "cpu",
        workers: int = 0,
    ) -> None:
        place(network, device, options.precision, network.dimensions)
        super().__init__(network, options, LossState(), device, workers)
        self.task = task.to(self.device)
        self.train_data = CubeDataset(train, task.prepare, (options.seed, 1))
        self.validation_data = CubeDataset(validation, task.prepare, (options.seed, 2))
        unet_rate, head_rate, discriminator_rate = options.learning_rates
        groups: list[dict[str, Any]] = [{"params": list(network.parameters()), "lr": unet_rate}]
        if heads := list(task.parameters()):
            groups.append({"params": heads, "lr": head_rate})
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.Adam(groups)
            if options.optimizer == "adam"
            else torch.optim.SGD(groups, momentum=options.momentum)
        }
        self.discriminator: ModalityDiscriminator | None = None
        if options.game is not None:
            self.discriminator = ModalityDiscriminator(network.level_channels).to(self.device)
            self._modality_weights = modality_weights(train.table[:, 3]).to(self.device)
            self.optimizers["discriminator"] = torch.optim.SGD(
                self.discriminator.parameters(), lr=discriminator_rate, momentum=options.momentum
            )
        self.schedules: dict[str, ReduceLROnPlateau] = {}
        if options.schedule == "plateau":
            self.schedules = {
                name: ReduceLROnPlateau(
                    optimizer, factor=options.plateau_factor, patience=options.plateau_patience
                )
                for name, optimizer in self.optimizers.items()
            }
        self._first_rates = {
            name: [group["lr"] for group in optimizer.param_groups]
            for name, optimizer in self.optimizers.items()
        }
        self.resumed["task"] = self.task
        if self.discriminator is not None:
            self.resumed["discriminator"] = self.discriminator
        self.resumed |= {f"optimizer-{name}": value for name, value in self.optimizers.items()}
        self.resumed |= {f"schedule-{name}": value for name, value in self.schedules.items()}
        # Of the last steps alone: a mean over all since the last validation still has those in
        # which it lived.
        self._spreads: deque[float] = deque(maxlen=_SPREAD_STEPS)
        self.waited_s = self.worked_s = 0.0

    def step(self) -> dict[str, float]:
        options, state = self.options, self.state
        begun = time.perf_counter()
        batch = self._next_batch(self.train_data, len(self.train_data.pool))
        self.waited_s += time.perf_counter() - begun
        if options.schedule == "cosine":  # of the step alone: nothing to resume
            self._set_rates(0.5 + 0.5 * math.cos(math.pi * state.step / options.steps))
        self.network.train()
        self.task.train()
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        with self._autocast():
            outcome = self.task.run(self.network, batch)
            total = self._weighted(outcome)
        figures = {**outcome.losses, **outcome.figures}
        # As in validation without the adversary's term: the worse the discriminator, the lower it
        # is, and where nothing is held out weights and learning rates go by the total.
        figures["total"] = total
        if self.discriminator is not None:
            term, figures["discriminator"], figures["discriminator accuracy"] = self._game(
                self.discriminator, outcome.levels, batch["modality"]
            )
            total = total + term
        told = {name: float(value.detach()) for name, value in figures.items()}
        self._check_loss(float(total.detach()))
        self.scaler.scale(total).backward()
        if options.clip:
            self.scaler.unscale_(self.optimizers["network"])
            for group in self.optimizers["network"].param_groups:
                nn.utils.clip_grad_norm_(group["params"], options.clip)
        for optimizer in self.optimizers.values():
            # In the alternating game the discriminator has had its turn and has no gradient now.
            if any(p.grad is not None for g in optimizer.param_groups for p in g["params"]):
                self.scaler.step(optimizer)
        self.scaler.update()
        if SPREAD in told:
            self._spreads.append(told[SPREAD])
        for name, figure in told.items():
            state.sums[name] = state.sums.get(name, 0.0) + figure
        self.worked_s += time.perf_counter() - begun
        self._count_step()
        return told

    def _set_rates(self, share: float) -> None:
        """Set all learning rates to a share of what they began with."""
        for name, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._first_rates[name], strict=True):
                group["lr"] = rate * share

    def _game(
        self, discriminator: ModalityDiscriminator, levels: Sequence[Tensor], modality: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The adversary's part in a step.

        Returns:
            What is added to the encoder's loss, the discriminator's loss, and its accuracy.
        """
        options, weights = self.options, self._modality_weights
        weight = options.weights.get("adversary", 1.0)
        # A task may make several pieces of a cube.
        modality = modality.repeat_interleave(len(levels[-1]) // len(modality))
        if options.game == "gradient-reversal":
            with self._autocast():
                logits = discriminator([reverse_gradient(level, weight) for level in levels])
                loss = discriminator_loss(logits, modality, weights)
            return loss, loss, _share_right(logits, modality, weights)
        detached = [level.detach() for level in levels]
        optimizer = self.optimizers["discriminator"]
        for _ in range(options.discriminator_steps):
            with self._autocast():
                logits = discriminator(detached)
                loss = discriminator_loss(logits, modality, weights)
            self.scaler.scale(loss).backward()
            self.scaler.step(optimizer)
            if self.scaler.is_enabled():  # a second step needs the scale's state to be reset
                self.scaler.update()
            optimizer.zero_grad(set_to_none=True)
        # The encoder's turn, against the discriminator as it is now.
        discriminator.requires_grad_(False)
        with self._autocast():
            term = confusion_loss(discriminator(levels), modality, options.objective, weights)
        discriminator.requires_grad_(True)
        return weight * term, loss, _share_right(logits, modality, weights)

    def _seen(self, batch: Batch) -> Tensor:
        return self.task.seen(batch)

    def _validate(self) -> None:
        """Record what the steps since the last time came to; keep the best weights."""
        state = self.state
        self._check_weights()
        self._renew_statistics(self.train_data, len(self.train_data.pool))
        entry = {"step": float(state.step)}
        entry |= {f"train {k}": v / state.counted for k, v in state.sums.items()}
        state.sums, state.counted = {}, 0
        measured = self._measured() if len(self.validation_data.pool) else {}
        entry |= {f"val {k}": v for k, v in measured.items()}
        if max(self._spreads, default=1.0) < _LEAST_SPREAD:
            raise self._diverged(
                f"At step {state.step} the network restores the same value everywhere: its sigmoid "
                "is saturated, and no gradient gets through it any more"
            )
        loss = entry.get("val total", entry["train total"])
        for schedule in self.schedules.values():
            schedule.step(loss)
        entry["learning rate"] = self.optimizers["network"].param_groups[0]["lr"]
        state.history.append(entry)
        if loss < state.best_loss:
            state.best_loss = loss
            self._keep_weights()

    def _measured(self) -> dict[str, float]:
        """Mean losses and figures over the validation cubes, without the adversary's."""
        options = self.options
        batches = validation_order(
            len(self.validation_data.pool),
            options.validation_cubes,
            options.batch_size,
            options.seed,
        )
        sums: dict[str, float] = {}
        self.network.eval()
        self.task.eval()
        with torch.no_grad(), self._autocast():
            for batch, loaded in zip(
                batches, load(self.validation_data, batches, self.workers, self.device), strict=True
            ):
                outcome = self.task.run(self.network, loaded)
                figures = {**outcome.losses, **outcome.figures, "total": self._weighted(outcome)}
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * len(batch)
        count = sum(map(len, batches))
        return {name: value / count for name, value in sums.items()}

    def _weighted(self, outcome: Outcome) -> Tensor:
        weights = self.options.weights
        return torch.stack([weights.get(k, 1.0) * v for k, v in outcome.losses.items()]).sum()


def _share_right(logits: Tensor, modality: Tensor, weights: Tensor) -> Tensor:
    """The balanced accuracy, in the mean over many batches: chance is one half."""
    right = ((logits > 0) == (modality > 0)).float()
    return (weights[modality.long()] * right).mean()
