"""Training a 2D encoder from one yes or no per volume.

The paper's setting (Schmidt-Mengin et al., 2024): slices of random orientation, each with the
label of its volume, binary cross-entropy. Slices of a positive volume that miss the finding are
label noise; `slice_loss` offers remedies for it as switches, and the plain setting is the default.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from TomoSegLib.errors import TomoSegError
from TomoSegLib.networks.encoders import EvidenceEncoder
from TomoSegLib.training.checkpoint import CheckpointParts
from TomoSegLib.training.slices import SliceSampler, augment

NoiseRemedy = Literal["none", "mil", "top-k", "small-loss"]


@dataclass(frozen=True)
class TrainingOptions:
    """How an encoder is trained.

    Attributes:
        steps: Optimiser steps at most.
        volumes_per_step: Volumes in a batch, half of them positive, which is how an imbalance
            of the classes is met.
        slices_per_volume: Random slices of each.
        learning_rate: Peak of a warm-up and cosine schedule of AdamW.
        weight_decay: Of AdamW.
        augmentation: Strength of the intensity augmentation, 0 for none.
        noise_remedy: ``none`` (the paper's plain setting), ``mil`` (the cross-entropy of a
            soft maximum over the volume's slices), ``top-k`` (of a positive volume's slices only
            the highest ``kept`` fraction counts) or ``small-loss`` (of them the fraction
            ``kept`` with the smallest loss counts; Jiang et al. 2018, Han et al. 2018).
        kept: See above.
        local_weight: Weight of a second cross-entropy, of each position's evidence against the
            volume's label. The evidence then tends to the log odds of what is seen there, which
            fills a finding; a slice's loss alone is content with its rim. Needs a network with
            an evidence map (`EvidenceEncoder`); 0 is the paper's plain setting.
        validate_every: Steps between validations.
        patience: Validations without a better AUC after which training stops.
        tolerance: Differences of the AUC that count as a tie. With n volumes of each class its
            standard error is about sqrt(AUC (1 - AUC) / n): smaller differences say nothing, and
            of tied states the longer trained one is kept.
        average: Decay of the exponential moving average of the weights that is validated and
            kept; 0 switches it off.
        seed: Everything random follows from it.
    """

    steps: int = 2000
    volumes_per_step: int = 16
    slices_per_volume: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 1e-3
    augmentation: float = 1.0
    noise_remedy: NoiseRemedy = "none"
    kept: float = 0.5
    local_weight: float = 0.0
    validate_every: int = 200
    patience: int = 10
    tolerance: float = 0.02
    average: float = 0.99
    seed: int = 0

    def as_dict(self) -> dict[str, object]:
        """For the record on the card."""
        return asdict(self)


def slice_loss(logits: Tensor, labels: Tensor, remedy: NoiseRemedy, kept: float) -> Tensor:
    """The loss of a batch of slices whose labels are those of their volumes.

    Args:
        logits: ``(V, P)``, P slices of each of V volumes.
        labels: ``(V,)`` float 0 or 1.
        remedy: See `TrainingOptions`.
        kept: See `TrainingOptions`.

    Returns:
        A scalar.
    """
    volumes, slices = logits.shape
    if remedy == "mil":
        # log-mean-exp: between the mean and the maximum of the slices' logits.
        pooled = torch.logsumexp(logits, dim=1) - math.log(slices)
        return F.binary_cross_entropy_with_logits(pooled, labels)
    losses = F.binary_cross_entropy_with_logits(
        logits, labels[:, None].expand_as(logits), reduction="none"
    )
    if remedy == "none":
        return losses.mean()
    # A positive slice's loss falls as its logit rises: within one volume the two remedies agree.
    # They differ in the pool they rank: top-k within each volume, small-loss over the batch.
    positive = labels > 0.5
    if not positive.any():
        return losses.mean()
    ranked = losses[positive] if remedy == "top-k" else losses[positive].reshape(1, -1)
    count = max(1, round(kept * ranked.shape[1]))
    chosen = torch.topk(ranked, count, dim=1, largest=False).values
    negative = losses[~positive].mean() if (~positive).any() else losses.new_zeros(())
    share = positive.float().mean()
    return share * chosen.mean() + (1 - share) * negative


def _local_loss(evidence: Tensor, foreground: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every position's evidence against its volume's label.

    Args:
        evidence: ``(B, h, w)``.
        foreground: ``(B, 1, H, W)`` in [0, 1]; positions count as far as they are covered.
        labels: ``(B,)`` float 0 or 1.
    """
    weight = F.adaptive_avg_pool2d(foreground, (evidence.shape[-2], evidence.shape[-1]))[:, 0]
    losses = F.binary_cross_entropy_with_logits(
        evidence, labels[:, None, None].expand_as(evidence), reduction="none"
    )
    return (losses * weight).sum() / weight.sum().clamp_min(1.0)


def volume_scores(
    network: nn.Module,
    sampler: SliceSampler,
    directions: Tensor,
    per_direction: int,
    batch: int = 64,
) -> Tensor:
    """A score of each volume: the mean of the highest tenth of its slices' logits.

    Args:
        network: Slices ``(B, C, H, W)`` to logits ``(B,)`` or ``(B, 1)``; in evaluation mode.
        sampler: The volumes.
        directions: ``(D, 3)`` unit normals ``(k, j, i)``.
        per_direction: Slices of each direction, spread over the foreground.
        batch: Slices at a time.

    Returns:
        ``(N,)`` on the CPU.
    """
    # Any frame will do: a perpendicular to the normal and their cross product.
    helper = torch.where(
        directions[:, :1].abs() < 0.9, torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0])
    )
    columns = F.normalize(torch.linalg.cross(directions, helper), dim=1)
    rows = torch.linalg.cross(directions, columns)
    places = (torch.arange(per_direction) + 0.5) / per_direction * 2 - 1
    scores = []
    for n in range(len(sampler.labels)):
        reach = (directions * sampler.radii[n]).norm(dim=1)
        offset = (reach[:, None] * places).reshape(-1)
        repeat = per_direction
        middle = sampler.centers[n] + offset[:, None] * directions.repeat_interleave(repeat, 0)
        logits = []
        for start in range(0, len(middle), batch):
            part = slice(start, start + batch)
            planes, _ = sampler.sample(
                torch.tensor([n]),
                middle[part][None],
                columns.repeat_interleave(repeat, 0)[part][None],
                rows.repeat_interleave(repeat, 0)[part][None],
            )
            logits.append(network(planes[0]).float().reshape(-1))
        joined = torch.cat(logits)
        scores.append(torch.topk(joined, max(1, len(joined) // 10)).values.mean())
    return torch.stack(scores).cpu()


def area_under_curve(scores: Tensor, labels: Tensor) -> float:
    """Area under the ROC curve: the share of pairs that are ranked right (Mann-Whitney U)."""
    positive, negative = scores[labels == 1], scores[labels == 0]
    if len(positive) == 0 or len(negative) == 0:
        raise ValueError("the AUC needs both classes")
    difference = positive[:, None] - negative[None, :]
    return float((difference > 0).double().mean() + 0.5 * (difference == 0).double().mean())


@dataclass
class TrainingState:
    """What a run of training has come to.

    Attributes:
        step: Steps done.
        best_auc: Highest AUC of the validation volumes so far.
        best_step: Step of the state that is kept.
        validations_without_gain: Validations since it last rose.
        history: One entry a validation: step, mean training loss since the last one, AUC.
    """

    step: int = 0
    best_auc: float = -1.0
    best_step: int = 0
    validations_without_gain: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def kept_auc(self) -> float:
        """AUC of the state that is kept: up to the tolerance below the highest."""
        return next(entry["auc"] for entry in self.history if entry["step"] == self.best_step)


class Trainer:
    """Trains an encoder on sampled slices, step by step.

    Every step draws its randomness from a generator seeded with the run's seed and the step's
    number, so that a run that was killed goes on exactly as it would have.

    Args:
        network: The encoder; moved to the samplers' device.
        train: Sampler of the training volumes.
        validation: Sampler of the validation volumes.
        directions: ``(D, 3)`` fixed normals of the validation slices.
        options: See `TrainingOptions`.
    """

    def __init__(
        self,
        network: nn.Module,
        train: SliceSampler,
        validation: SliceSampler,
        directions: Tensor,
        options: TrainingOptions,
    ) -> None:
        if options.local_weight and not isinstance(network, EvidenceEncoder):
            raise TomoSegError(
                "template-invalid",
                "The local loss needs a network with an evidence map.",
                "Use EvidenceEncoder in the template, or --local-weight 0.",
            )
        self.options = options
        self.device = train.device
        self.train_sampler, self.validation_sampler = train, validation
        self.directions = directions
        # Convolutions with few channels are about twice as fast in this layout, on CPUs too.
        self.network: nn.Module = network.to(train.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.best = {k: v.clone() for k, v in self.averaged.items()}
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=options.learning_rate, weight_decay=options.weight_decay
        )
        self.state = TrainingState()
        self._positive = (train.labels == 1).nonzero()[:, 0]
        self._negative = (train.labels == 0).nonzero()[:, 0]
        self.pending_losses: list[Tensor] = []

    @property
    def finished(self) -> bool:
        """Whether all steps are done or patience has run out."""
        state, options = self.state, self.options
        return state.step >= options.steps or state.validations_without_gain >= options.patience

    def learning_rate(self, step: int) -> float:
        """Linear warm-up over the first 5 %, then half a cosine to zero."""
        options = self.options
        warmup = max(1, round(0.05 * options.steps))
        if step < warmup:
            return options.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, options.steps - warmup)
        return options.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    def step(self) -> None:
        """One optimiser step, and a validation where it is due.

        Raises:
            TomoSegError: ``training-diverged`` if the loss is not finite; the best state stays.
        """
        options, state = self.options, self.state
        seed = int(np.random.SeedSequence((options.seed, state.step)).generate_state(1)[0])
        generator = torch.Generator().manual_seed(seed)
        torch.manual_seed(seed)  # dropout and noise that are drawn on the device
        self.network.train()
        half = options.volumes_per_step // 2
        indices = torch.cat(
            [
                group[torch.randint(len(group), (count,), generator=generator)]
                for group, count in (
                    (self._positive, half),
                    (self._negative, options.volumes_per_step - half),
                )
            ]
        )
        slices, foreground = self.train_sampler.draw(indices, options.slices_per_volume, generator)
        volumes, per_volume = slices.shape[:2]
        slices, foreground = slices.flatten(0, 1), foreground.flatten(0, 1)
        if options.augmentation:
            slices = augment(
                slices, foreground, self.train_sampler.background, options.augmentation, generator
            )
        labels = self.train_sampler.labels[indices].float().to(slices.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(state.step)
        slices = slices.contiguous(memory_format=torch.channels_last)
        if options.local_weight:
            network = cast(EvidenceEncoder, self.network)
            evidence = network.class_activation_map(network.features(slices)).float()
            logits = evidence.sum(dim=(-2, -1)) + network.bias
        else:
            logits = self.network(slices).float()
        loss = slice_loss(
            logits.view(volumes, per_volume), labels, options.noise_remedy, options.kept
        )
        if options.local_weight:
            local = _local_loss(
                evidence / network.scale, foreground, labels.repeat_interleave(per_volume)
            )
            loss = loss + options.local_weight * local
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        self.optimizer.step()
        self._average()
        self.pending_losses.append(loss.detach())
        state.step += 1
        if state.step % options.validate_every == 0 or state.step == options.steps:
            self._validate()

    def _average(self) -> None:
        # A young average would remember the random start: its decay grows with the step.
        decay = min(self.options.average, (1 + self.state.step) / (10 + self.state.step))
        for name, value in self.network.state_dict().items():
            if value.dtype.is_floating_point:
                self.averaged[name].lerp_(value.detach(), 1 - decay)
            else:
                self.averaged[name].copy_(value)

    def _validate(self) -> None:
        state, options = self.state, self.options
        loss = float(torch.stack(self.pending_losses).mean())
        self.pending_losses.clear()
        if not math.isfinite(loss):
            raise TomoSegError(
                "training-diverged",
                f"The training loss is no longer a number at step {state.step}.",
                "Lower --learning-rate, or look for volumes with extreme intensities; the best "
                "state so far is kept.",
            )
        current = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.averaged)
        self.network.eval()
        with torch.inference_mode():
            scores = volume_scores(self.network, self.validation_sampler, self.directions, 12)
        self.network.load_state_dict(current)
        auc = area_under_curve(scores, self.validation_sampler.labels)
        state.history.append({"step": state.step, "loss": loss, "auc": auc})
        if auc > state.best_auc:
            state.best_auc, state.validations_without_gain = auc, 0
        else:
            state.validations_without_gain += 1
        # Within the tolerance it is a tie, and the longer trained state is kept.
        if auc >= state.best_auc - options.tolerance:
            state.best_step = state.step
            self.best = {k: v.clone() for k, v in self.averaged.items()}

    def run(
        self,
        on_step: Callable[[TrainingState], None] | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> None:
        """Steps until finished, or until asked to stop."""
        while not self.finished:
            if should_stop is not None and should_stop():
                return
            self.step()
            if on_step is not None:
                on_step(self.state)

    def parts(self) -> CheckpointParts:
        """Everything that the next step depends on; learning rates follow from the step."""
        parts = CheckpointParts(record=asdict(self.state))
        parts.put("network", self.network.state_dict())
        parts.put("averaged", self.averaged)
        parts.put("best", self.best)
        parts.put_moments("optimizer", self.optimizer)
        if self.pending_losses:
            parts.tensors["losses"] = torch.stack(self.pending_losses)
        return parts

    def restore(self, parts: CheckpointParts) -> None:
        """Go on from where `parts` was called, see `Resumable`."""
        self.network.load_state_dict(parts.get("network"))
        parts.fill("averaged", self.averaged)
        parts.fill("best", self.best)
        parts.get_moments("optimizer", self.optimizer)
        self.state = TrainingState(**parts.record)
        if "losses" in parts.tensors:
            self.pending_losses = list(parts.tensors["losses"].to(self.device))
