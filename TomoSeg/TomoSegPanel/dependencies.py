"""What the worker needs of Python: found out in a subprocess, installed only with consent."""

from __future__ import annotations

import html
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent, Event, ResultEvent
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


class Probe:
    """Asks a worker what is really there: packages, devices, memory.

    Args:
        onAnswer: Called with the answer of the worker's ``probe`` job, or with its error.
        makeWorker: Makes the worker of a document; tests put others in its place.
    """

    def __init__(
        self,
        onAnswer: Callable[[dict[str, Any] | ErrorEvent], None],
        makeWorker: Callable[[str, Callable[[Event], None]], Any] = WorkerProcess,
    ) -> None:
        self._onAnswer = onAnswer
        self._makeWorker = makeWorker
        self._worker: Any = None
        self._folder: Path | None = None

    @property
    def isRunning(self) -> bool:
        """Whether an answer is still to come."""
        return self._worker is not None

    def start(self) -> None:
        """Ask, unless the question is already asked; returns at once."""
        if self.isRunning:
            return
        self._folder = Path(tempfile.mkdtemp(prefix="tomoseg-", dir=slicer.app.temporaryPath))
        document = self._folder / "probe.json"
        document.write_text(json.dumps({"kind": "probe"}), encoding="utf-8")
        self._worker = self._makeWorker(str(document), self._onEvent)
        self._worker.start()

    def abandon(self) -> None:
        """The panel goes away."""
        if self._worker is not None:
            self._worker.abandon()
            self._end()

    def _onEvent(self, event: Event) -> None:
        if isinstance(event, ResultEvent):
            self._end()
            self._onAnswer(event.data)
        elif isinstance(event, ErrorEvent):
            self._end()
            self._onAnswer(event)

    def _end(self) -> None:
        self._worker = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None


def isReady(answer: dict[str, Any] | ErrorEvent) -> bool:
    """Whether runs can be made with what the probe has found."""
    return (
        not isinstance(answer, ErrorEvent)
        and not missingPackages(answer)
        and any(device.get("works") for device in answer.get("devices", []))
    )


def missingPackages(answer: dict[str, Any]) -> list[str]:
    """Packages that are needed and not there, torch apart."""
    packages = answer.get("packages", {})
    names = [requirement.split(">")[0] for requirement in REQUIREMENTS]
    return [name for name in names if name in packages and packages[name] is None]


def describe(answer: dict[str, Any] | ErrorEvent) -> str:
    """What is there, as HTML, and what to do about what is not."""
    if isinstance(answer, ErrorEvent):
        return f"<p><b>{html.escape(answer.message)}</b><br>{html.escape(answer.hint)}</p>"
    lines = []
    torch = answer.get("torch", {})
    if "error" in torch:
        lines.append(
            "<b>{}</b> {}".format(
                html.escape(_("PyTorch cannot be used: {error}").format(error=torch["error"])),
                html.escape(_("Install it with the button below.")),
            )
        )
    else:
        cuda = torch.get("cuda")
        cudaText = _("CUDA {version}").format(version=cuda) if cuda else _("without CUDA")
        lines.append(html.escape(f"PyTorch {torch.get('version')}, {cudaText}"))
    for device in answer.get("devices", []):
        lines.append(html.escape(_deviceText(device)))
    missing = missingPackages(answer)
    if missing:
        lines.append(
            "<b>{}</b>".format(
                html.escape(_("Missing packages: {names}").format(names=", ".join(missing)))
            )
        )
    cpu = answer.get("cpu", {})
    if cpu:
        lines.append(
            html.escape(
                _("{cores} processor cores, {free} of {total} GB memory free").format(
                    cores=cpu.get("cores"),
                    free=_gigabytes(cpu.get("available_mb")),
                    total=_gigabytes(cpu.get("memory_mb")),
                )
            )
        )
    return "<br>".join(lines)


def usableDevices(answer: dict[str, Any] | ErrorEvent) -> list[tuple[str, str]]:
    """Names and titles of the devices that work, best first."""
    if isinstance(answer, ErrorEvent):
        return []
    devices = [device for device in answer.get("devices", []) if device.get("works")]
    return [(device["name"], _deviceText(device)) for device in devices]


def install() -> None:
    """Install what is missing; Slicer asks for consent and shows the progress.

    Raises:
        RuntimeError: The PyTorch extension is missing, or an installation failed.
    """
    if not slicer.util.confirmOkCancelDisplay(
        _(
            "TomoSeg needs Python packages that are not part of Slicer: PyTorch and {packages}. "
            "They are downloaded from the Python Package Index into Slicer's own folder and may "
            "take several gigabytes."
        ).format(packages=", ".join(name.split(">")[0] for name in REQUIREMENTS)),
        windowTitle=_("Install Python packages"),
    ):
        return
    _installTorch()
    try:
        from slicer.packaging import pip_ensure
    except ImportError:  # before Slicer 5.12
        slicer.util.pip_install(" ".join(f'"{requirement}"' for requirement in REQUIREMENTS))
    else:
        pip_ensure(list(REQUIREMENTS))


def _installTorch() -> None:
    try:
        import PyTorchUtils
    except ImportError:
        raise RuntimeError(
            _("Install the extension PyTorch first (View, Extensions Manager), and restart Slicer.")
        ) from None
    logic = PyTorchUtils.PyTorchUtilsLogic()
    if not logic.torchInstalled() and not logic.installTorch(torchVersionRequirement=TORCH):
        raise RuntimeError(_("PyTorch could not be installed; the Python console says why."))


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
