"""Which device a job computes on."""

from __future__ import annotations

from TomoSegLib.errors import TomoSegError


def choose_device(name: str) -> str:
    """The device for a job's ``device`` setting.

    Args:
        name: ``auto`` (a GPU if one works, else the CPU), ``cpu``, ``cuda``, ``cuda:N`` or
            ``mps``.

    Returns:
        ``cpu``, ``cuda:N`` or ``mps``.

    Raises:
        TomoSegError: ``device-unavailable``: it is not there, or does not compute.
    """
    import torch

    if name == "cpu":
        return name
    if name == "auto":
        for candidate in ("cuda", "mps"):
            try:
                return choose_device(candidate)
            except TomoSegError:
                continue
        return "cpu"
    kind, _, index = name.partition(":")
    if kind == "mps":
        if torch.backends.mps.is_available():
            return name
        raise _unavailable(name, "this is no Mac with an Apple GPU, or torch cannot use it")
    if not torch.cuda.is_available():
        reason = (
            "the installed torch is a build without CUDA"
            if torch.version.cuda is None
            else "no NVIDIA GPU with a working driver is found"
        )
        raise _unavailable(name, reason)
    if int(index or 0) >= torch.cuda.device_count():
        raise _unavailable(name, f"this machine has {torch.cuda.device_count()} of them")
    device = f"cuda:{int(index or 0)}"
    try:  # a GPU that this build of torch is too new or too old for is listed all the same
        torch.ones(1, device=device).add_(1).item()
    except RuntimeError as error:
        raise _unavailable(name, str(error).strip().splitlines()[0]) from None
    return device


def device_title(device: str) -> str:
    """What the device is called by its maker, e.g. for ``result.json``."""
    import platform

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return platform.processor() or platform.machine()


def _unavailable(name: str, reason: str) -> TomoSegError:
    return TomoSegError(
        "device-unavailable",
        f"The device '{name}' cannot be used: {reason}.",
        "Use --device cpu or --device auto; 'tomoseg doctor' shows what is there.",
    )
