"""From a model folder to a 2D encoder that gives logits, features and class activation maps.

What a model's file may do:

* ``module``: nothing. The class comes from this package, MONAI or ``torch.nn``; the file holds
  numbers (safetensors) that are checked against the card's hash and the network's shapes.
* ``torchscript`` and ``export``: programs for torch's own interpreters. See
  `TomoSegLib.models.archives` for what is refused and what remains.
"""

from __future__ import annotations

import importlib
import inspect
import json
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.archives import load_exported, load_torchscript
from TomoSegLib.models.card import ModelCard, Network
from TomoSegLib.models.folder import MAX_FILE_BYTES, ModelFolder, verified_bytes
from TomoSegLib.models.store import find_model

ALLOWED_TARGETS = ("TomoSegLib.networks.", "monai.networks.nets.", "torch.nn.")

# Arguments by which classes of MONAI fetch weights from the network or unpickle a file.
_FOREIGN_WEIGHTS = (
    "pretrained",
    "pretrained_url",
    "weights",
    "checkpoint",
    "path_or_repo_id",
    "filename",
)
_MAX_HEADER_BYTES = 16 << 20


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
        try:
            self.network.to(device)
            self.device = torch.device(device)
        except (RuntimeError, AssertionError) as error:
            raise TomoSegError(
                "device-unavailable",
                f"The model cannot be moved to the device {device}: {str(error).splitlines()[0]}",
                "Choose another device, e.g. cpu.",
            ) from None
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
        TomoSegError: ``model-unknown``, ``model-card-invalid``, ``model-hash-mismatch``,
            ``model-target-not-allowed``, ``model-arguments-invalid``, ``model-weights-invalid``,
            ``model-weights-pickle``, ``model-weights-mismatch``, ``model-archive-refused``,
            ``model-network-invalid``, ``device-unavailable`` and those of `verified_bytes`.
    """
    folder = model if isinstance(model, ModelFolder) else find_model(model)
    card = folder.card
    content = verified_bytes(folder, card.network.file)
    layer = None
    if card.network.format == "module":
        network: nn.Module = build_network(card.network)
        fill_network(network, content, card.network.file)
        network.eval()
        if all(parameter.ndim < 5 for parameter in network.parameters()):
            # The layout that convolutions are fastest in: a quarter less time on a CPU.
            network.to(memory_format=torch.channels_last)
        if card.network.features is not None:
            try:
                layer = network.get_submodule(card.network.features)
            except AttributeError:
                raise TomoSegError(
                    "model-network-invalid",
                    f"The network of the model {card.name} has no layer {card.network.features}.",
                    "Correct network.features on the model's card.",
                ) from None
    else:
        load = load_torchscript if card.network.format == "torchscript" else load_exported
        network = load(content, card.network.file)
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise _bad_weights(card.network.file, f"{name} holds values that are not finite")
    return LoadedEncoder(network, card, layer).to(device)


def build_network(spec: Network) -> nn.Module:
    """Build the network of format ``module``, with random weights.

    Raises:
        TomoSegError: ``model-target-not-allowed``, ``model-arguments-invalid``.
    """
    network_class = _target(spec.target or "")
    arguments = dict(spec.arguments)
    parameters = inspect.signature(network_class).parameters
    if "pretrained" in parameters:
        arguments.setdefault("pretrained", False)
    for name in _FOREIGN_WEIGHTS:
        default = parameters[name].default if name in parameters else None
        if arguments.get(name, default):
            raise _bad_arguments(spec, f"{name} is not allowed: weights come from the model's file")
    _check_size(network_class, arguments, spec)
    try:
        network: nn.Module = network_class(**arguments)
    except Exception as error:  # a constructor may raise anything at wrong arguments
        raise _bad_arguments(spec, str(error) or type(error).__name__) from None
    return network.float()


def _check_size(
    network_class: Callable[..., nn.Module], arguments: dict[str, Any], spec: Network
) -> None:
    """Refuse a network that is larger than any file of weights, before memory is taken for it."""
    try:
        with torch.device("meta"), _WithoutInitialisation():
            network = network_class(**arguments)
    except Exception:
        # Some classes cannot be built without memory; wrong arguments show when it is built.
        return
    size = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    if size > MAX_FILE_BYTES:
        raise _bad_arguments(spec, f"its weights would take {size} bytes")


class _WithoutInitialisation(TorchFunctionMode):
    """Leaves parameters as they are allocated.

    There is nothing to fill on the device ``meta``, and to fill it with normal noise would import
    torch's compiler, which takes 1.5 s.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if (
            func in (Tensor.normal_, Tensor.uniform_)
            or getattr(func, "__module__", "") == "torch.nn.init"
        ):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _bad_arguments(spec: Network, reason: str) -> TomoSegError:
    return TomoSegError(
        "model-arguments-invalid",
        f"{spec.target} cannot be built with the card's arguments: {reason.splitlines()[0][:300]}.",
        "Correct network.arguments on the model's card.",
    )


def _target(target: str) -> Callable[..., nn.Module]:
    """The class that a card names, from the modules whose classes may be built."""
    refused = TomoSegError(
        "model-target-not-allowed",
        f"The model's card names the network {target!r}, which is not allowed.",
        f"A network is a class of {', '.join(a.rstrip('.') for a in ALLOWED_TARGETS)}.",
    )
    module_name, _, class_name = target.rpartition(".")
    if not (module_name + ".").startswith(ALLOWED_TARGETS):
        raise refused
    try:
        found = getattr(importlib.import_module(module_name), class_name, None)
    except ImportError:
        raise refused from None
    # A name that such a module merely imported from elsewhere is not one of its classes.
    if (
        not inspect.isclass(found)
        or not issubclass(found, nn.Module)
        or not f"{found.__module__}.".startswith(ALLOWED_TARGETS)
    ):
        raise refused
    return found


def fill_network(network: nn.Module, content: bytes, file: str) -> None:
    """Fill a network with safetensors weights: exactly its own names and shapes, all finite.

    Raises:
        TomoSegError: ``model-weights-pickle``, ``model-weights-invalid``,
            ``model-weights-mismatch``.
    """
    weights = read_weights(content, file)
    expected = network.state_dict()
    missing, unknown = sorted(expected.keys() - weights), sorted(weights.keys() - expected)
    problem = ""
    if missing or unknown:
        problem = f"missing {missing[:3]}, unknown {unknown[:3]}"
    for name in expected.keys() & weights.keys():
        want, have = expected[name], weights[name]
        if want.shape != have.shape:
            problem = f"{name} has shape {tuple(have.shape)}, not {tuple(want.shape)}"
        elif want.is_floating_point() != have.is_floating_point() or (
            not want.is_floating_point() and want.dtype != have.dtype
        ):
            problem = f"{name} has type {have.dtype}, not {want.dtype}"
        elif have.is_floating_point() and not bool(torch.isfinite(have.to(want.dtype)).all()):
            raise _bad_weights(file, f"{name} holds values that are not finite")
    if problem:
        raise TomoSegError(
            "model-weights-mismatch",
            f"The weights in {file} do not fit the network on the model's card: {problem}.",
            "Correct network.target and network.arguments on the model's card.",
        )
    network.load_state_dict(weights, strict=True)


def read_weights(content: bytes, file: str) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        TomoSegError: ``model-weights-pickle``, ``model-weights-invalid``.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    length = int.from_bytes(content[:8], "little")
    # A header begins at once; its length may well begin like a pickle or a zip archive does.
    if content[8:9] != b"{" or length > min(_MAX_HEADER_BYTES, len(content) - 8):
        if content[:2] == b"PK" or content[:1] == b"\x80":
            raise TomoSegError(
                "model-weights-pickle",
                f"{file} is a pickle, which can run any program when it is opened.",
                "Ask the model's authors for its weights as safetensors.",
            )
        raise _bad_weights(file, "it is not a safetensors file, or damaged")
    try:
        header = json.loads(content[8 : 8 + length])
        kinds = {v["dtype"] for k, v in header.items() if k != "__metadata__"}
        if not kinds <= {"F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL"}:
            raise _bad_weights(file, f"it holds numbers of an unusual type, {sorted(kinds)}")
        return load(content)
    except (
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise _bad_weights(file, f"it is not a safetensors file ({error})") from None


def _bad_weights(file: str, reason: str) -> TomoSegError:
    return TomoSegError(
        "model-weights-invalid",
        f"The weights in {file} cannot be used: {reason}.",
        "Get the model again from where it came from.",
    )


def _first_tensor(output: Any) -> Tensor:
    while isinstance(output, (tuple, list)) and output:
        output = output[0]
    if not isinstance(output, Tensor):
        raise RuntimeError(f"the layer gives a {type(output).__name__}, not a tensor")
    return output
