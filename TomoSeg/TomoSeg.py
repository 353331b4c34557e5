"""TomoSeg: heatmaps and masks of lesions in 3D scans; this file wires what does the work."""

import os
import sys
from pathlib import Path

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

_HERE = Path(__file__).resolve().parent
if not (_HERE / "TomoSegLib").is_dir() and str(_HERE.parent) not in sys.path:
    sys.path.append(str(_HERE.parent))  # run from the source tree, where the engine is a sibling

from TomoSegPanel import sequences  # noqa: E402
from TomoSegPanel.comparison import describeLayout  # noqa: E402
from TomoSegPanel.panel import Panel  # noqa: E402
from TomoSegPanel.parameters import TomoSegParameterNode  # noqa: E402
from TomoSegPanel.runs import SceneRuns  # noqa: E402
from TomoSegPanel.sampleData import registerSampleData  # noqa: E402
from TomoSegPanel.volumeSection import shownScan  # noqa: E402


class TomoSeg(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent):
        super().__init__(parent)
        self.parent.title = _("TomoSeg")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = []
        self.parent.contributors = ["The TomoSeg contributors"]
        self.parent.helpText = _(
            "Finds lesions in 3D scans with networks that were only ever told whether a scan has "
            "one: a 2D network looks at slices in many directions, and an inverse Radon transform "
            "turns its answers into a heatmap, and that into a segment. For research; not a "
            'medical device. See <a href="{url}">the documentation</a>.'
        ).format(url="https://github.com/tomoseg/TomoSeg")
        self.parent.acknowledgementText = _(
            "ToNNO: tomographic reconstruction of a neural network's output (2024)."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", describeLayout)


class TomoSegWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel."""

    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self.panel = None
        self._parameterNode = None
        self._guiTag = None

    def setup(self):
        """Build the panel; called when it is opened for the first time."""
        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/TomoSeg.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = TomoSegLogic()
        self.panel = Panel(self.ui, self.logic.runs)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndImport)
        self._initializeParameterNode()
        self.panel.computing.probe()

    def enter(self):
        """The user opens the panel."""
        self._initializeParameterNode()

    def exit(self):
        """The user goes to another module; runs go on."""
        if self.panel is not None:
            self.panel.hidden()

    def cleanup(self):
        """The module goes away."""
        self._setParameterNode(None)
        self.removeObservers()
        if self.panel is not None:
            self.panel.cleanup()

    def onSceneStartClose(self, caller, event):
        """Let go of the nodes before they go."""
        self._setParameterNode(None)
        self.panel.sceneClosed()

    def onSceneEndClose(self, caller, event):
        """Begin anew, if the panel is shown."""
        if self.parent.isEntered:
            self._initializeParameterNode()

    def onSceneEndImport(self, caller, event):
        """Show the settings and the results that came with a scene."""
        sequences.restore()
        if self.parent.isEntered:
            self._initializeParameterNode()

    def _initializeParameterNode(self):
        parameterNode = self.logic.getParameterNode()
        if parameterNode.inputVolume is None:
            shown = shownScan()
            if shown is not None:
                parameterNode.inputVolume = shown
        self._setParameterNode(parameterNode)

    def _setParameterNode(self, parameterNode):
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(
                self._parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified
            )
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(
                parameterNode.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified
            )
        if self.panel is not None:
            self.panel.setParameters(parameterNode)

    def _onModified(self, caller=None, event=None):
        self.panel.refresh()


class TomoSegLogic(ScriptedLoadableModuleLogic):
    """The module without its panel: parameters in the scene, and runs."""

    def __init__(self):
        ScriptedLoadableModuleLogic.__init__(self)
        self.runs = SceneRuns()

    def getParameterNode(self):
        """The module's parameter node, in the scene."""
        return TomoSegParameterNode(super().getParameterNode())


class TomoSegTest(ScriptedLoadableModuleTest):
    """What the panel must do: all of `TomoSegPanel.scenarios`, with real workers."""

    def runTest(self, only=""):
        """Run the scenarios; one that cannot run fails.

        Args:
            only: Run those alone whose titles contain this text; by default that of the environment
                variable ``TOMOSEG_SCENARIOS``, if there is one.
        """
        from TomoSegPanel.scenarios import runScenarios

        failed = runScenarios(only or os.environ.get("TOMOSEG_SCENARIOS", ""))
        if failed:
            self.fail("; ".join(failed))
