"""The section Computing: what there is to compute with, and how to get what is missing."""

from __future__ import annotations

import html
from collections.abc import Callable
from typing import Any

import slicer
from slicer.i18n import tr as _

from TomoSegLib.jobs.events import ErrorEvent
from TomoSegPanel import dependencies
from TomoSegPanel.section import Section, fillCombo, selectData


class ComputingSection(Section):
    """Shows the devices and chooses one.

    Args:
        panel: The panel.
        makeProbe: Makes a `dependencies.Probe`; tests put others in its place.
        install: Installs what the probe's answer lacks.
    """

    def __init__(
        self,
        panel: Any,
        makeProbe: Callable[[Callable[[Any], None]], Any] = dependencies.Probe,
        install: Callable[[Any], bool] = dependencies.install,
    ) -> None:
        super().__init__(panel)
        self.answer: dict[str, Any] | ErrorEvent | None = None
        self._probe = makeProbe(self._onAnswer)
        self._install = install
        self._failure = ""
        self.ui.probeButton.connect("clicked()", self.probe)
        self.ui.installButton.connect("clicked()", self.install)
        self.ui.deviceCombo.connect("currentIndexChanged(int)", self._choose)
        sizes = [(str(2**power), str(2**power)) for power in range(8)]
        fillCombo(self.ui.batchSizeCombo, [("0", _("Automatic")), *sizes], "0")
        self.ui.batchSizeCombo.connect("currentIndexChanged(int)", self._chooseBatchSize)
        self.ui.installButton.setVisible(False)

    @property
    def problem(self) -> str:
        """Why no run can be made, as far as is known; "" where nothing speaks against it."""
        if self.answer is None:
            return ""
        if not dependencies.isReady(self.answer):
            return _("Something that runs need is missing: see the section Computing.")
        chosen = self.parameters.device if self.parameters is not None else "auto"
        if chosen not in ["auto", *(name for name, _title in self._devices())]:
            return _("The device {device} is not there: choose another.").format(device=chosen)
        return ""

    @property
    def freeMemoryMb(self) -> int | None:
        """The memory that was free when it was last looked at, MiB, where it is known."""
        return dependencies.freeMemoryMb(self.answer)

    def probe(self) -> None:
        """Ask a subprocess what is there."""
        self.ui.deviceNote.setText(_("Looking for PyTorch and graphics cards…"))
        self.ui.probeButton.setEnabled(False)
        self._probe.start()

    def install(self) -> None:
        """Install what is missing, then look again."""
        self._failure = ""
        self.ui.installButton.setEnabled(False)
        try:
            installed = self._install(self.answer)
        except Exception as error:
            self._failure = _(
                "The Python packages could not be installed: {error} Check the connection to the "
                "internet; behind a proxy, set HTTPS_PROXY before Slicer is started."
            ).format(error=_sentence(error))
            slicer.util.errorDisplay(self._failure)
            installed = True  # some may be
        finally:
            self.ui.installButton.setEnabled(True)
        if installed:
            self.probe()

    def refresh(self) -> None:
        """Of `Section`."""
        devices = self._devices()
        chosen = self.parameters.device
        items = [("auto", _("Automatic")), *devices]
        if chosen not in [name for name, _title in items]:
            # Saved with the scene on another machine: shown, so that the user sees what is wrong.
            items.append((chosen, _("{device} (not found here)").format(device=chosen)))
        fillCombo(self.ui.deviceCombo, items, chosen)
        selectData(self.ui.batchSizeCombo, str(self.parameters.batchSize))

    def cleanup(self) -> None:
        """Of `Section`."""
        self._probe.abandon()

    def _devices(self) -> list[tuple[str, str]]:
        return [] if self.answer is None else dependencies.usableDevices(self.answer)

    def _choose(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.device = self.ui.deviceCombo.itemData(index)

    def _chooseBatchSize(self, index: int) -> None:
        if self.parameters is not None:
            self.parameters.batchSize = int(self.ui.batchSizeCombo.itemData(index))

    def _onAnswer(self, answer: dict[str, Any] | ErrorEvent) -> None:
        self.answer = answer
        ready = dependencies.isReady(answer)
        failure = f"<p><b>✖ {html.escape(self._failure)}</b></p>" if self._failure else ""
        self.ui.deviceNote.setText(failure + dependencies.describe(answer))
        self.ui.probeButton.setEnabled(True)
        self.ui.installButton.setVisible(not ready)
        if not ready:
            self.ui.computingSection.collapsed = False
        self.panel.refresh()


def _sentence(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text if text.endswith((".", "!", "?")) else text + "."
