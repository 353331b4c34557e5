"""From a model folder to a network that gives probabilities of classes of stacks."""

from __future__ import annotations

import os

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.crop import middle_of_slices
from TomoSegLib.models.answers import checked_logits, refuse_dependent
from TomoSegLib.models.building import load_network, move_network
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.models.store import find_model
from TomoSegLib.models.tasks import wrong_task

_CHECKED_SLICES = 3


class LoadedClassifier:
    """A network in evaluation mode, in single precision, with frozen parameters.

    Args:
        network: ``(B, C, K, *size)`` stacks to logits ``(B, N)``.
        card: The model's card, of the task ``classification``.

    Attributes:
        network: The torch module.
        card: The model's card.
        device: Where it lies.
    """

    def __init__(self, network: nn.Module, card: ModelCard) -> None:
        self.network = network
        self.card = card
        self.device = torch.device("cpu")
        for parameter in network.parameters():
            parameter.requires_grad_(False)

    @property
    def classes(self) -> list[str]:
        """Names of the classes in the order of the logits."""
        return [label.name for label in self.card.labels]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the slices that it sees."""
        assert self.card.stack is not None, "not a classifier"
        return self.card.stack.size

    def to(self, device: torch.device | str) -> LoadedClassifier:
        """Move the network; returns self.

        Raises:
            TomoSegError: ``device-unavailable``.
        """
        self.device = move_network(self.network, device)
        return self

    def probabilities(self, image: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Probability of each class.

        Args:
            image: ``(C, K, J, I)`` prepared slices of any size, see `prepare`.

        Returns:
            ``(N,)``, of sum 1.

        Raises:
            TomoSegError: As `logits`.
        """
        seen = middle_of_slices(image, self.size, self.card.preprocessing.background)
        stack = torch.from_numpy(np.ascontiguousarray(seen, dtype=np.float32))[None]
        logits = self.logits(stack.to(self.device))[0].double()
        return np.asarray(torch.softmax(logits, dim=0).cpu().numpy(), dtype=np.float64)

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """``(B, C, K, *size)`` float32 stacks to ``(B, N)`` float32 logits.

        Raises:
            TomoSegError: ``model-network-invalid`` if it fails, or gives something else;
                ``response-not-finite``.
            MemoryError, RuntimeError: Memory does not suffice (see `is_out_of_memory`).
        """
        return checked_logits(
            self.network,
            x,
            (len(x), len(self.card.labels)),
            self.card,
            self._invalid,
            pieces="stacks",
            seen="the scan",
        )

    def check(self) -> None:
        """Whether the network takes stacks of one slice and more, and answers each by itself.

        Raises:
            TomoSegError: As `logits`, and ``out-of-memory``.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(self.card.channels), _CHECKED_SLICES, *self.size)
        stacks = torch.randn(shape, generator=generator).to(self.device)
        stacks[1] *= 4  # unlike the other, which it would disturb if anything can

        def ask() -> tuple[Tensor, Tensor]:
            self.logits(stacks[:, :, :1])
            return self.logits(stacks), self.logits(stacks[:1])

        refuse_dependent(
            ask, self.card, self._invalid, pieces="stacks", smaller="that sees smaller slices"
        )

    def _invalid(self, reason: str) -> TomoSegError:
        return TomoSegError(
            "model-network-invalid",
            f"The network of the model {self.card.name} cannot be used: {reason}.",
            "Correct the network, channels, labels or stack on the model's card.",
        )


def load_classifier(
    model: ModelFolder | str | os.PathLike[str], device: torch.device | str = "cpu"
) -> LoadedClassifier:
    """Load a classifier's network. What it answers is looked at when it is used, or by `check`.

    Args:
        model: A model, or what `find_model` finds it by.
        device: Where it shall lie.

    Raises:
        TomoSegError: ``model-unknown``, ``model-card-invalid``, ``model-task``,
            ``device-unavailable`` and those of `load_network`.
    """
    folder = model if isinstance(model, ModelFolder) else find_model(model)
    if folder.card.task != "classification":
        raise wrong_task(folder.card, "classification")
    return LoadedClassifier(load_network(folder), folder.card).to(device)
