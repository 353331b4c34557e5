"""From a model folder to a 2D encoder that gives logits, features and class activation maps."""

from __future__ import annotations

import os
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.models.building import build_network, load_network, move_network
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.models.store import find_model
from TomoSegLib.models.tasks import wrong_task

__all__ = ["EncoderWithMap", "LinearHead", "LoadedEncoder", "build_network", "load_encoder"]


@runtime_checkable
class EncoderWithMap(Protocol):
    """A network that knows its own class activation map.

    ``head(features(x))`` is ``forward(x)``, and the sum of ``class_activation_map(features)``
    over pixels plus a constant is the logit.
    """

    def features(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` slices to ``(B, F, h, w)`` features."""

    def head(self, features: Tensor) -> Tensor:
        """``(B, F, h, w)`` features to ``(B,)`` logits."""

    def class_activation_map(self, features: Tensor) -> Tensor:
        """``(B, F, h, w)`` features to ``(B, h, w)`` maps."""


class LinearHead(NamedTuple):
    """``logit = weights . pooled features + bias``, pooled over all pixels by mean or sum.

    Attributes:
        weights: ``(F,)``.
        bias: The logit of features that are zero everywhere.
        pooling: How features are pooled.
    """

    weights: Tensor
    bias: float
    pooling: Literal["mean", "sum"]


class LoadedEncoder:
    """A 2D encoder in evaluation mode, in single precision, with frozen parameters.

    Args:
        network: ``(B, C, H, W)`` to logits ``(B,)`` or ``(B, K)``, or, without a feature layer of
            its own, to the pair of logits and the features ``(B, F, h, w)`` that the head is
            given.
        card: The model's card.
        layer: The submodule whose output is the features, or None.

    Attributes:
        network: The torch module.
        card: The model's card.
        device: Where it lies.
    """

    def __init__(self, network: nn.Module, card: ModelCard, layer: nn.Module | None = None) -> None:
        self.network = network
        self.card = card
        self.device = torch.device("cpu")
        self._layer = layer
        self._own = network if layer is None and isinstance(network, EncoderWithMap) else None
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        self._pair = False
        self._check()

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return len(self.card.channels)

    @property
    def supports_cam(self) -> bool:
        """Whether there are features, hence gradient-based class activation maps."""
        return self._own is not None or self._layer is not None or self._pair

    @property
    def supports_linear_cam(self) -> bool:
        """Whether `class_activation_map` works: plain CAM without gradients."""
        return self._own is not None or self.linear_head() is not None

    def to(self, device: torch.device | str) -> LoadedEncoder:
        """Move the network; returns self.

        Raises:
            TomoSegError: ``device-unavailable``.
        """
        self.device = move_network(self.network, device)
        return self

    @torch.no_grad()
    def logits(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` float32 slices to ``(B,)`` logits, without gradients."""
        return self._forward(x)[0]

    def forward_with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and the features they follow from, with the gradient of one by the other.

        ``torch.autograd.grad(logits.sum(), features)`` gives ``(B, F, h, w)`` gradients, one slice
        independent of the other. What lies before the features keeps no graph where the features
        are a layer's output.

        Args:
            x: ``(B, C, H, W)`` float32 slices.

        Returns:
            ``(B,)`` logits and ``(B, F, h, w)`` features.

        Raises:
            TomoSegError: ``model-without-features``.
        """
        if self._own is not None:
            with torch.no_grad():
                features = self._own.features(x)
            features = features.detach().requires_grad_(True)
            with torch.enable_grad():
                return self._select(self._own.head(features)), features
        if self._layer is not None:
            seen: list[Tensor] = []

            def cut(_module: nn.Module, _inputs: Any, output: Any) -> Tensor:
                # A layer of a network that changes it in place afterwards would spoil the
                # features, so the network goes on with a copy.
                seen.append(_first_tensor(output).detach().requires_grad_(True))
                return seen[-1].clone()

            handle = self._layer.register_forward_hook(cut)
            try:
                with torch.enable_grad():
                    logits = self._forward(x)[0]
            finally:
                handle.remove()
            if len(seen) != 1:
                raise self._invalid(f"its feature layer runs {len(seen)} times in a pass")
            return logits, seen[0]
        if not self._pair:
            raise TomoSegError(
                "model-without-features",
                f"The model {self.card.name} gives logits only, no features for activation maps.",
                "Use the method tonno, or name the feature layer on the model's card.",
            )
        with torch.enable_grad():
            logits, pair = self._forward(x.detach().requires_grad_(True))
        assert pair is not None
        return logits, pair

    def linear_head(self) -> LinearHead | None:
        """The head after the features, if it is linear after global mean or sum pooling.

        It is found by probing the head, see `_linear`; None where it is not linear or there are
        no features. Where a network has a class activation map of its own, that one counts.
        """
        return self._linear

    def class_activation_map(self, features: Tensor) -> Tensor:
        """The linear class activation map of ``(B, F, h, w)`` features: ``(B, h, w)``, signed.

        Its sum over pixels plus a constant is the logit.

        Raises:
            TomoSegError: ``model-head-not-linear``.
        """
        if self._own is not None:
            return self._own.class_activation_map(features)
        if self._linear is None:
            raise TomoSegError(
                "model-head-not-linear",
                f"The model {self.card.name} has no linear head after global pooling, which "
                "plain CAM needs.",
                "Use another kind of class activation map, e.g. gradcam.",
            )
        head = self._linear
        pixels = features.shape[2] * features.shape[3] if head.pooling == "mean" else 1
        return torch.einsum("bfhw,f->bhw", features, head.weights.to(features) / pixels)

    @cached_property
    def _linear(self) -> LinearHead | None:
        """The head, found by probing it.

        It is linear after pooling if the gradient of the logit by the features is the same
        in every pixel and for every input: true of every format of network, whatever its modules
        are called.
        """
        if not self.supports_cam:
            return None
        found: list[tuple[Tensor, Tensor, int]] = []
        for seed, size in enumerate((self._probe_sizes * 2)[:2]):
            logits, features = self.forward_with_features(self._probe(2, size, seed))
            (gradient,) = torch.autograd.grad(logits.sum(), features)
            weights = gradient[0, :, 0, 0]
            scale = gradient.abs().max()
            if not torch.allclose(
                gradient,
                weights[None, :, None, None].expand_as(gradient),
                rtol=1e-4,
                atol=1e-5 * float(scale),
            ):
                return None
            bias = logits.detach() - torch.einsum("bfhw,f->b", features.detach(), weights)
            found.append((weights, bias, features.shape[2] * features.shape[3]))
        (w0, b0, n0), (w1, b1, n1) = found
        tolerance = 1e-3 * max(1.0, float(b0.abs().max()))
        if not torch.allclose(torch.cat([b0, b1]), b0[0].expand(4), rtol=0, atol=tolerance):
            return None
        if torch.allclose(w0 * n0, w1 * n1, rtol=1e-3, atol=1e-5 * float((w0 * n0).abs().max())):
            return LinearHead((w0 * n0).cpu(), float(b0[0]), "mean")
        if torch.allclose(w0, w1, rtol=1e-3, atol=1e-5 * float(w0.abs().max())):
            return LinearHead(w0.cpu(), float(b0[0]), "sum")
        return None

    @property
    def _probe_sizes(self) -> list[tuple[int, int]]:
        """The card's one size of slices, or two sizes that it allows."""
        if self.card.slices.size:
            return [(self.card.slices.size,) * 2]
        multiple = self.card.slices.multiple
        side = multiple * -(-64 // multiple)
        return [(side, side), (side, side + 2 * multiple)]

    def _probe(self, batch: int, size: tuple[int, int], seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.channels, *size, generator=generator).to(self.device)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        output = self.network(x)
        features = None
        if isinstance(output, (tuple, list)) and len(output) == 2:
            output, features = output
        if not isinstance(output, Tensor):
            raise self._invalid(f"it returns a {type(output).__name__}, not logits")
        return self._select(output), features

    def _select(self, logits: Tensor) -> Tensor:
        """``(B,)`` from ``(B,)`` or ``(B, K)``."""
        index = self.card.network.output
        if logits.ndim == 2 and index < logits.shape[1]:
            return logits[:, index]
        if logits.ndim == 1 and index == 0:
            return logits
        raise self._invalid(f"it returns {tuple(logits.shape)}, which has no logit {index}")

    def _check(self) -> None:
        """Whether the network takes the card's slices and answers each by itself with a number."""
        side = self.card.slices.size
        first, *others = self._probe_sizes
        slices = self._probe(3, first, 0)
        slices[2] *= 4  # a slice unlike the others, which would disturb them if anything can
        try:
            with torch.no_grad():
                logits, features = self._forward(slices)
                again, _ = self._forward(slices[:2])
                for size in others:
                    self._forward(self._probe(2, size, 0))
        except TomoSegError:
            raise
        except Exception as error:  # anything that a foreign network may raise
            if is_out_of_memory(error):
                raise
            size_words = f"{side} x {side}" if side else "different sizes in"
            raise self._invalid(
                f"it fails on slices of {self.channels} channels and {size_words} pixels: "
                f"{(str(error) or type(error).__name__).strip().splitlines()[0][:300]}"
            ) from None
        if logits.shape != (3,) or not bool(torch.isfinite(logits).all()):
            raise self._invalid("its logits are not one finite number per slice")
        # An exported program keeps the mode it was exported in: in training mode, batch norm
        # mixes the slices of a batch and dropout is random.
        tolerance = 1e-3 * max(1.0, float(logits.abs().max()))
        if again.shape != (2,) or float((logits[:2] - again).abs().max()) > tolerance:
            raise self._invalid(
                "its logits depend on the other slices or on chance; was it exported in "
                "training mode?"
            )
        if features is not None and (not isinstance(features, Tensor) or features.ndim != 4):
            raise self._invalid("its second output is not features (B, F, h, w)")
        self._pair = features is not None
        if self.supports_cam:
            self._check_features(slices[:2])

    def _check_features(self, slices: Tensor) -> None:
        try:
            logits, features = self.forward_with_features(slices)
            torch.autograd.grad(logits.sum(), features)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[0][:300]
            raise self._invalid(f"its logits do not follow from its features: {reason}") from None
        if features.ndim != 4:
            raise self._invalid(f"its features have the axes {tuple(features.shape)}, not 4")

    def _invalid(self, reason: str) -> TomoSegError:
        return TomoSegError(
            "model-network-invalid",
            f"The network of the model {self.card.name} cannot be used: {reason}.",
            "Correct the network, channels or slices on the model's card.",
        )


def load_encoder(
    model: ModelFolder | str | os.PathLike[str], device: torch.device | str = "cpu"
) -> LoadedEncoder:
    """Load a model's 2D encoder.

    Args:
        model: A model, or what `find_model` finds it by.
        device: Where it shall lie.

    Raises:
        TomoSegError: ``model-unknown``, ``model-card-invalid``, ``model-task``,
            ``model-network-invalid``, ``device-unavailable`` and those of `load_network`.
    """
    folder = model if isinstance(model, ModelFolder) else find_model(model)
    card = folder.card
    if card.task != "heatmap":
        raise wrong_task(card, "heatmap")
    network = load_network(folder)
    layer = None
    if card.network.format == "module":
        if all(parameter.ndim < 5 for parameter in network.parameters()):
            # The layout that convolutions are fastest in: a quarter less time on a CPU.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if card.network.features is not None:
            try:
                layer = network.get_submodule(card.network.features)
            except AttributeError:
                raise TomoSegError(
                    "model-network-invalid",
                    f"The network of the model {card.name} has no layer {card.network.features}.",
                    "Correct network.features on the model's card.",
                ) from None
    return LoadedEncoder(network, card, layer).to(device)


def _first_tensor(output: Any) -> Tensor:
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise RuntimeError(f"the layer gives a {type(output).__name__}, not a tensor")
    return output
