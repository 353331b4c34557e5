"""How a network is pre-trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from TomoSegLib.pretraining.adversary import Game, Objective
from TomoSegLib.training.precision import Precision

OptimizerName = Literal["sgd", "adam"]
Schedule = Literal["plateau", "cosine"]


@dataclass(frozen=True)
class PretrainingOptions:
    """How a network is pre-trained; the defaults are the paper's where it says anything.

    Attributes:
        steps: Optimiser steps.
        batch_size: Cubes of a step.
        optimizer: Of U-Net and heads: the paper's SGD, or Adam, which gets further in the few
            thousand steps that a CPU can do. The discriminator always has SGD.
        learning_rates: For U-Net, heads and discriminator. With the paper's 1 and its weight of 10
            the restoring sigmoid may saturate at the beginning of a short training and never learn
            again.
        momentum: Of SGD. The paper gives none; 0.9 is that of Models Genesis.
        weights: Of the losses by name; the paper's beta is ``restoration``, its alpha ``scale``,
            and ``adversary`` is what its L_adv counts in the encoder's loss. Others count 1.
        game: How the min-max game is played, or None without an adversary.
        objective: The encoder's side of it in the alternating game, see `confusion_loss`.
        discriminator_steps: The discriminator's turns in each step of the alternating game. To
            mislead a discriminator that learns too slowly takes no invariance.
        clip: Largest norm of the gradient of U-Net and heads; 0 does not clip.
        schedule: How all learning rates fall: the paper's ``ReduceLROnPlateau``, or along half a
            cosine to zero at the last step, for trainings that end before any plateau.
        plateau_factor: What `ReduceLROnPlateau` multiplies the learning rates by when the
            validation loss does not fall.
        plateau_patience: Validations that it waits.
        validate_every: Steps between validations and checkpoints.
        validation_cubes: Cubes of a validation at most, always the same ones.
        precision: Of the network's arithmetic, see `Precision`.
        seed: Everything random follows from it.
    """

    steps: int = 20_000
    batch_size: int = 16
    optimizer: OptimizerName = "sgd"
    learning_rates: tuple[float, float, float] = (1.0, 0.1, 0.001)
    momentum: float = 0.9
    weights: Mapping[str, float] = field(
        default_factory=lambda: {"restoration": 10.0, "scale": 1.0, "adversary": 1.0}
    )
    game: Game | None = "alternating"
    objective: Objective = "minimax"
    discriminator_steps: int = 1
    clip: float = 0.0
    schedule: Schedule = "plateau"
    plateau_factor: float = 0.5
    plateau_patience: int = 10
    validate_every: int = 500
    validation_cubes: int = 512
    precision: Precision = "auto"
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For records."""
        return asdict(self)
