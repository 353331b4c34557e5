"""The panel: its sections, and what goes between them."""

from __future__ import annotations

from typing import Any

from TomoSegLib.jobs.events import ProgressEvent, WarningEvent
from TomoSegPanel.computingSection import ComputingSection
from TomoSegPanel.job import Run
from TomoSegPanel.maskSection import MaskSection
from TomoSegPanel.methodSection import MethodSection
from TomoSegPanel.modelCards import Card
from TomoSegPanel.modelSection import ModelSection
from TomoSegPanel.parameters import TomoSegParameterNode
from TomoSegPanel.resultSection import ResultSection
from TomoSegPanel.runs import SceneRuns
from TomoSegPanel.runSection import RunSection
from TomoSegPanel.section import Section
from TomoSegPanel.studySection import StudySection
from TomoSegPanel.volumeSection import VolumeSection


class Panel:
    """All sections; it is told of everything and lets them show it.

    Args:
        ui: The widgets of ``TomoSeg.ui`` by name.
        runs: Where runs are started.
        computing: Further arguments of `ComputingSection`, for tests.

    Attributes:
        parameters: The parameter node, None while the scene is closed.
    """

    def __init__(self, ui: Any, runs: SceneRuns, **computing: Any) -> None:
        self.ui, self.runs = ui, runs
        self.parameters: TomoSegParameterNode | None = None
        self._refreshing = False
        self.volume = VolumeSection(self)
        self.models = ModelSection(self)
        self.method = MethodSection(self)
        self.computing = ComputingSection(self, **computing)
        self.run = RunSection(self)
        self.result = ResultSection(self)
        self.mask = MaskSection(self)
        self.study = StudySection(self)
        self.sections: list[Section] = [
            self.volume,
            self.models,
            self.method,
            self.computing,
            self.run,
            self.result,
            self.mask,
            self.study,
        ]
        runs.listener = self

    @property
    def card(self) -> Card | None:
        """The chosen model."""
        return self.models.card(self.parameters.model) if self.parameters is not None else None

    def setParameters(self, parameters: TomoSegParameterNode | None) -> None:
        """Show other parameters, or none."""
        self.parameters = parameters
        self.refresh()

    def refresh(self) -> None:
        """Show the parameters as they are now."""
        if self.parameters is None or self._refreshing:
            return
        self._refreshing = True
        try:
            for section in self.sections:
                section.refresh()
        finally:
            self._refreshing = False

    def sceneClosed(self) -> None:
        """The scene is empty: nothing that ran in it goes on."""
        self.runs.queue.abandon()
        for section in self.sections:
            section.sceneClosed()

    def hidden(self) -> None:
        """The user has gone to another module."""
        for section in self.sections:
            section.hidden()

    def cleanup(self) -> None:
        """The panel goes away, and with it everything that it has started."""
        self.runs.listener = None
        self.runs.queue.abandon()
        for section in self.sections:
            section.cleanup()
        self.parameters = None

    def onRunChanged(self, run: Run) -> None:
        """Of `RunListener`."""
        self.run.onRunChanged(run)

    def onRunProgress(self, run: Run, event: ProgressEvent) -> None:
        """Of `RunListener`."""
        self.run.onRunProgress(run, event)

    def onRunWarning(self, run: Run, event: WarningEvent) -> None:
        """Of `RunListener`."""
        self.run.onRunWarning(run, event)

    def onHeatmapChanged(self, run: Run, heatmap: Any, directions: int | None) -> None:
        """Of `RunListener`: choose a new heatmap, and show that it has changed."""
        if self.parameters is None:
            return
        self.run.onHeatmapChanged(directions)
        self.method.followRun(run, directions)
        if self.parameters.heatmap is not heatmap:
            self.parameters.heatmap = heatmap
        if directions is None:
            self.mask.begin(heatmap)
        self.refresh()
