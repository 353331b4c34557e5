"""From a model folder to its torch module, whatever the model is for.

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
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.models.archives import load_exported, load_torchscript
from TomoSegLib.models.card import Network
from TomoSegLib.models.folder import MAX_FILE_BYTES, ModelFolder, verified_bytes

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


def load_network(folder: ModelFolder) -> nn.Module:
    """Load a model's network in evaluation mode, in single precision, on the CPU.

    Raises:
        TomoSegError: ``model-hash-mismatch``, ``model-target-not-allowed``,
            ``model-arguments-invalid``, ``model-weights-invalid``, ``model-weights-pickle``,
            ``model-weights-mismatch``, ``model-archive-refused`` and those of `verified_bytes`.
    """
    spec = folder.card.network
    content = verified_bytes(folder, spec.file)
    if spec.format == "module":
        network = build_network(spec)
        fill_network(network, content, spec.file)
        network.eval()
    else:
        load = load_torchscript if spec.format == "torchscript" else load_exported
        network = load(content, spec.file)
        for name, tensor in (*network.named_parameters(), *network.named_buffers()):
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise _bad_weights(spec.file, f"{name} holds values that are not finite")
    return network


def move_network(network: nn.Module, device: torch.device | str) -> torch.device:
    """Move a network to a device.

    Raises:
        TomoSegError: ``device-unavailable``.
        RuntimeError: The device's memory does not suffice (see `is_out_of_memory`).
    """
    try:
        network.to(device)
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        raise TomoSegError(
            "device-unavailable",
            f"The model cannot be moved to the device {device}: {str(error).splitlines()[0]}",
            "Choose another device, e.g. cpu.",
        ) from None
    return torch.device(device)


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
