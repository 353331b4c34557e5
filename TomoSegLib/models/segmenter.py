"""From a model folder to a segmenter that gives logits of windows."""

from __future__ import annotations

import os

import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError, is_out_of_memory
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
        try:
            flat = self.card.preprocessing.in_plane
            output = by_slice(self.network, x) if flat else self.network(x)
        except Exception as error:  # anything that a foreign network may raise
            if is_out_of_memory(error):
                raise
            reason = (str(error) or type(error).__name__).strip().splitlines()[0][:300]
            raise self._invalid(
                f"it fails on windows of {x.shape[1]} channels and "
                f"{' x '.join(map(str, x.shape[2:]))} voxels: {reason}"
            ) from None
        if not isinstance(output, Tensor):
            raise self._invalid(f"it returns a {type(output).__name__}, not logits")
        expected = (len(x), len(self.card.outputs), *x.shape[2:])
        if output.shape != expected:
            raise self._invalid(f"it returns {tuple(output.shape)} where {expected} is expected")
        if not bool(torch.isfinite(output).all()):
            raise TomoSegError(
                "response-not-finite",
                f"The answer of the model {self.card.name} to a part of the scan is not finite.",
                "Check that the scan is of the kind that the model's card asks for.",
            )
        return output.float()

    def check(self) -> None:
        """Whether the network takes the card's windows and answers each by itself.

        Raises:
            TomoSegError: As `logits`, and ``out-of-memory``.
        """
        generator = torch.Generator().manual_seed(0)
        shape = (2, len(self.card.channels), *self.window.roi_size)
        windows = torch.randn(shape, generator=generator).to(self.device)
        windows[1] *= 4  # unlike the other, which it would disturb if anything can
        try:
            both, alone = self.logits(windows), self.logits(windows[:1])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TomoSegError(
                "out-of-memory",
                f"There is not enough memory for two windows of the model {self.card.name}.",
                "Close other programs, or use a model with smaller windows.",
            ) from None
        # An exported program keeps the mode it was exported in: in training mode, batch norm
        # mixes the windows of a batch and dropout is random.
        tolerance = 1e-3 * max(1.0, float(both.abs().max()))
        if float((both[:1] - alone).abs().max()) > tolerance:
            raise self._invalid(
                "its logits depend on the other windows or on chance; was it exported in "
                "training mode?"
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
