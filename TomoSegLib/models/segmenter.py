"""From a model folder to a segmenter that gives logits of windows."""

from __future__ import annotations

import os
from functools import partial

import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.answers import checked_logits, refuse_dependent
from TomoSegLib.models.building import load_network, move_network
from TomoSegLib.models.card import ModelCard, SlidingWindow
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.models.store import find_model
from TomoSegLib.models.tasks import wrong_task
from TomoSegLib.networks.by_slice import by_slice


class LoadedSegmenter:
    """A network in evaluation mode, in single precision, with frozen parameters.

    Args:
        network: ``(B, C, *roi_size)`` windows to logits ``(B, K, *roi_size)``; a 2D network, of a
            card with ``preprocessing.in_plane``, maps them without their axis ``k``.
        card: The model's card, of the task ``segmentation``.

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
    def window(self) -> SlidingWindow:
        """How it is moved over a scan."""
        assert self.card.sliding_window is not None, "not a segmenter"
        return self.card.sliding_window

    def to(self, device: torch.device | str) -> LoadedSegmenter:
        """Move the network; returns self.

        Raises:
            TomoSegError: ``device-unavailable``.
        """
        self.device = move_network(self.network, device)
        return self

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """``(B, C, *roi_size)`` float32 windows to ``(B, K, *roi_size)`` float32 logits.

        Raises:
            TomoSegError: ``model-network-invalid`` if it fails, or gives something else;
                ``response-not-finite``.
            MemoryError, RuntimeError: Memory does not suffice (see `is_out_of_memory`).
        """
        flat = self.card.preprocessing.in_plane
        return checked_logits(
            partial(by_slice, self.network) if flat else self.network,
            x,
            (len(x), len(self.card.outputs), *x.shape[2:]),
            self.card,
            self._invalid,
            pieces="windows",
            seen="a part of the scan",
        )

    def check(self) -> None:
        """Whether the network takes the card's windows and answers each by itself.

        Raises:
            TomoSegError: As `logits`, and ``out-of-memory``.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(self.card.channels), *self.window.roi_size)
        windows = torch.randn(shape, generator=generator).to(self.device)
        windows[1] *= 4  # unlike the other, which it would disturb if anything can
        refuse_dependent(
            lambda: (self.logits(windows), self.logits(windows[:1])),
            self.card,
            self._invalid,
            pieces="windows",
            smaller="with smaller windows",
        )

    def _invalid(self, reason: str) -> TomoSegError:
        return TomoSegError(
            "model-network-invalid",
            f"The network of the model {self.card.name} cannot be used: {reason}.",
            "Correct the network, channels, labels or sliding_window on the model's card.",
        )


def load_segmenter(
    model: ModelFolder | str | os.PathLike[str], device: torch.device | str = "cpu"
) -> LoadedSegmenter:
    """Load a segmenter's network. What it answers is looked at when it is used, or by `check`.

    Args:
        model: A model, or what `find_model` finds it by.
        device: Where it shall lie.

    Raises:
        TomoSegError: ``model-unknown``, ``model-card-invalid``, ``model-task``,
            ``device-unavailable`` and those of `load_network`.
    """
    folder = model if isinstance(model, ModelFolder) else find_model(model)
    if folder.card.task != "segmentation":
        raise wrong_task(folder.card, "segmentation")
    return LoadedSegmenter(load_network(folder), folder.card).to(device)
