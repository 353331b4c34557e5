"""What is really there: interpreter, packages, devices, memory, models."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

PACKAGES = (
    "tomoseg",
    "numpy",
    "scipy",
    "torch",
    "monai",
    "SimpleITK",
    "pydicom",
    "pydantic",
    "safetensors",
    "scikit-image",
    "matplotlib",
    "nibabel",
    "psutil",
)


def package_versions() -> dict[str, str | None]:
    """Installed versions, without importing anything; None where a package is missing."""
    versions: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def probe() -> dict[str, Any]:
    """A description of this machine as far as TomoSeg is concerned; never raises.

    Returns:
        ``python``, ``platform``, ``packages``, ``cpu`` (cores, memory), ``torch`` (version, CUDA
        version, or the error that its import gave), ``devices`` (those that work, best first) and
        ``models``.
    """
    return {
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "packages": package_versions(),
        "cpu": _cpu(),
        **_torch(),
        "models": _models(),
    }


def _cpu() -> dict[str, Any]:
    has_affinity = hasattr(os, "sched_getaffinity")
    found: dict[str, Any] = {
        "cores": len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count()
    }
    with contextlib.suppress(ImportError):
        import psutil

        memory = psutil.virtual_memory()
        found.update(memory_mb=memory.total // 2**20, available_mb=memory.available // 2**20)
    return found


def _torch() -> dict[str, Any]:
    try:
        import torch
    except Exception as error:
        return {"torch": {"error": f"{type(error).__name__}: {error}"}, "devices": []}
    devices: list[dict[str, Any]] = []
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        device: dict[str, Any] = {"name": f"cuda:{index}"}
        try:
            device["title"] = torch.cuda.get_device_name(index)
            torch.ones(1, device=device["name"]).add_(1).item()  # does it really compute?
            free, total = torch.cuda.mem_get_info(index)
            device.update(memory_mb=total // 2**20, available_mb=free // 2**20, works=True)
        except RuntimeError as error:
            device.update(works=False, error=str(error).splitlines()[0])
        devices.append(device)
    if torch.backends.mps.is_available():
        devices.append({"name": "mps", "title": "Apple GPU", "works": True})
    devices.append(
        {"name": "cpu", "title": platform.processor() or platform.machine(), "works": True}
    )
    return {
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda,
            "threads": torch.get_num_threads(),
        },
        "devices": devices,
    }


def _models() -> dict[str, Any]:
    try:
        from TomoSegLib.models.store import list_models, shipped_models_folder, user_models_folder

        return {
            "folders": [str(shipped_models_folder()), str(user_models_folder())],
            "names": [model.card.name for model in list_models()],
        }
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
