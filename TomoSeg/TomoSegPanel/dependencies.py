"""What the worker needs of Python: found out in a subprocess, installed only with consent."""

from __future__ import annotations

import html
import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, ResultEvent
from TomoSegPanel.smallJob import MakeWorker, SmallJob
from TomoSegPanel.worker import WorkerProcess

# The engine's own ranges (pyproject.toml), for what a run in Slicer imports. torch is not here: the
# PyTorch extension knows which build fits the machine.
REQUIREMENTS = (
    "matplotlib>=3.7",
    "monai>=1.4",
    "nibabel>=5.1",
    "psutil>=5.9",
    "pydantic>=2.7",
    "pydicom>=3.0",
    "safetensors>=0.4.3",
    "scikit-image>=0.22",
    "scipy>=1.11",
    "SimpleITK>=2.4",
)
TORCH = ">=2.4"
_CONSTRAINTS = Path(__file__).resolve().parents[1] / "Resources" / "constraints.txt"


class Probe:
    """Asks a worker what is really there: packages, devices, memory.

    Args:
        onAnswer: Called with the answer of the worker's ``probe`` job, or with its error.
        makeWorker: Makes the worker of a document; tests put others in its place.
    """

    def __init__(
        self,
        onAnswer: Callable[[dict[str, Any] | ErrorEvent], None],
        makeWorker: MakeWorker = WorkerProcess,
    ) -> None:
        def ended(event: ResultEvent | ErrorEvent) -> None:
            onAnswer(event.data if isinstance(event, ResultEvent) else event)

        self._job = SmallJob(ended, makeWorker=makeWorker)

    def start(self) -> None:
        """Ask, unless the question is already asked; returns at once."""
        self._job.start({"kind": "probe"})

    def abandon(self) -> None:
        """The panel goes away."""
        self._job.abandon()


def isReady(answer: dict[str, Any] | ErrorEvent) -> bool:
    """Whether runs can be made with what the probe has found."""
    return (
        not isinstance(answer, ErrorEvent)
        and not unmetRequirements(answer)
        and not torchProblem(answer)
        and bool(usableDevices(answer))
    )


def unmetRequirements(answer: dict[str, Any]) -> list[str]:
    """Requirements that what is there does not meet, torch apart."""
    packages = answer.get("packages", {})
    unmet = []
    for requirement in REQUIREMENTS:
        name, _separator, minimum = requirement.partition(">=")
        if name in packages and _isOlder(packages[name], minimum):
            unmet.append(requirement)
    return unmet


def torchProblem(answer: dict[str, Any]) -> str:
    """What is wrong with PyTorch: ``missing``, ``broken``, ``old``, or "" for nothing."""
    torch = answer.get("torch", {})
    if "error" in torch:
        there = answer.get("packages", {}).get("torch") is not None
        return "broken" if there else "missing"
    return "old" if _isOlder(torch.get("version"), TORCH.removeprefix(">=")) else ""


def freeMemoryMb(answer: dict[str, Any] | ErrorEvent | None) -> int | None:
    """The memory that is free, MiB, where it is known."""
    if answer is None or isinstance(answer, ErrorEvent):
        return None
    free = answer.get("cpu", {}).get("available_mb")
    return int(free) if isinstance(free, (int, float)) else None


def describe(answer: dict[str, Any] | ErrorEvent) -> str:
    """What is there, as HTML, and what to do about what is not."""
    if isinstance(answer, ErrorEvent):
        return f"<b>✖ {html.escape(answer.message)}</b><br>{html.escape(answer.hint)}"
    wrong, right = [], []
    torch = answer.get("torch", {})
    problem = torchProblem(answer)
    if problem:
        texts = {
            "missing": _("PyTorch is not installed."),
            "broken": _("PyTorch is installed, but does not work: {error}").format(
                error=torch.get("error")
            ),
            "old": _("PyTorch {version} is too old, {wanted} is needed.").format(
                version=torch.get("version"), wanted=TORCH
            ),
        }
        wrong.append(texts[problem])
    else:
        cuda = torch.get("cuda")
        cudaText = _("CUDA {version}").format(version=cuda) if cuda else _("without CUDA")
        right.append(f"PyTorch {torch.get('version')}, {cudaText}")
    unmet = unmetRequirements(answer)
    if unmet:
        wrong.append(_("Missing or too old: {names}.").format(names=", ".join(unmet)))
    for device in answer.get("devices", []):
        (right if device.get("works") else wrong).append(_deviceText(device))
    cpu = answer.get("cpu", {})
    if cpu:
        right.append(
            _("{cores} processor cores, {free} of {total} GB memory free").format(
                cores=cpu.get("cores"),
                free=_gigabytes(cpu.get("available_mb")),
                total=_gigabytes(cpu.get("memory_mb")),
            )
        )
    lines = [f"<b>✖ {html.escape(text)}</b>" for text in wrong]
    if problem or unmet:
        lines.append(html.escape(_("'Install packages' below does what is needed.")))
    return "<br>".join(lines + [f"✓ {html.escape(text)}" for text in right])


def usableDevices(answer: dict[str, Any] | ErrorEvent) -> list[tuple[str, str]]:
    """Names and titles of the devices that work, best first."""
    if isinstance(answer, ErrorEvent):
        return []
    devices = [device for device in answer.get("devices", []) if device.get("works")]
    return [(device["name"], _deviceText(device)) for device in devices]


def install(answer: dict[str, Any] | ErrorEvent | None) -> bool:
    """Install what is missing, after asking the user.

    Args:
        answer: What the probe has found; where it could not answer, because a package is missing
            that it needs itself, Slicer's own list of packages is looked at.

    Returns:
        Whether something was installed; not if the user does not want it.

    Raises:
        RuntimeError: The PyTorch extension is missing, or an installation failed.
    """
    found = answer if isinstance(answer, dict) else _installedHere()
    torch, needed = torchProblem(found), unmetRequirements(found)
    utilities = _torchUtilities() if torch else None  # before asking: without it there is no way
    names = [f"torch {TORCH}"] if torch else []
    names += needed
    if not names:
        return False
    question = _(
        "TomoSeg needs Python packages that are not part of Slicer:\n\n{names}\n\nThey are "
        "downloaded from the Python Package Index and pytorch.org into Slicer's own folder. That "
        "takes several minutes and, with PyTorch, up to several gigabytes."
    ).format(names=", ".join(names))
    if torch in ("broken", "old"):
        question += "\n\n" + _("The PyTorch that is there is removed first.")
    if not slicer.util.confirmOkCancelDisplay(question, windowTitle=_("Install Python packages")):
        return False
    with slicer.util.WaitCursor():
        if utilities is not None:
            _installTorch(utilities.PyTorchUtilsLogic(), remove=torch in ("broken", "old"))
        if needed:
            _installPackages(needed)
    return True


def _installedHere() -> dict[str, Any]:
    """The versions of what is installed in Slicer, in the form of the probe's answer."""
    versions: dict[str, str | None] = {}
    for name in ("torch", *(requirement.partition(">=")[0] for requirement in REQUIREMENTS)):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    torch = versions["torch"]
    return {"packages": versions, "torch": {"version": torch} if torch else {"error": ""}}


def _torchUtilities() -> Any:
    """The module of the PyTorch extension, which knows which build fits the machine."""
    try:
        import PyTorchUtils
    except ImportError:
        raise RuntimeError(
            _(
                "The extension PyTorch is missing. Install it (View, Extensions Manager, search "
                "for PyTorch), restart Slicer, and come back here."
            )
        ) from None
    return PyTorchUtils


def _installTorch(logic: Any, remove: bool) -> None:
    # Not logic.torchInstalled(): it imports torch into Slicer, and a broken one raises.
    if remove:
        logic.uninstallTorch()
    if logic.installTorch(torchVersionRequirement=TORCH) is None:
        raise RuntimeError(_("PyTorch could not be installed; the Python console says why."))


def _installPackages(requirements: list[str]) -> None:
    try:
        from slicer.packaging import pip_ensure
    except ImportError:  # before Slicer 5.12
        slicer.util.pip_install(["--constraint", str(_CONSTRAINTS), *requirements])
    else:
        pip_ensure(
            requirements,
            constraints=_CONSTRAINTS,
            prompt_install=False,  # the user has been asked
            requester="TomoSeg",
        )


def _isOlder(version: str | None, minimum: str) -> bool:
    """Whether a version is missing or below a minimum, by its leading numbers."""
    if version is None:
        return True
    found, wanted = ([int(n) for n in re.findall(r"\d+", v)[:3]] for v in (version, minimum))
    return found < wanted[: len(found)]


def _deviceText(device: dict[str, Any]) -> str:
    name = f"{device['name']}: {device.get('title', '')}".rstrip(": ")
    if not device.get("works"):
        return _("{device} does not work: {error}").format(
            device=name, error=device.get("error", _("unknown reason"))
        )
    if "memory_mb" in device:
        return _("{device}, {free} of {total} GB free").format(
            device=name,
            free=_gigabytes(device.get("available_mb")),
            total=_gigabytes(device.get("memory_mb")),
        )
    return name


def _gigabytes(megabytes: float | None) -> str:
    return "?" if megabytes is None else f"{megabytes / 1024:.1f}"
