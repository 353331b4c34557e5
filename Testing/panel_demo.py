"""The main job through the panel, in the stand-in for 3D Slicer, with pictures of every section.

    python Testing/panel_demo.py [--output Demo] [--model flair-lesion] [--offscreen]

It does what a user would do: load the sample, choose the model, run, look at the highest peak, make
the segment, save the scene. A window shows it where there is a display; the pictures are the same
without one. Needs slicer-core and PySide6 (pyproject's extra ``panel-test``).
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent / "Host"))

SAMPLE = "TomoSegSimulatedFLAIR"
TRUTH = ROOT / "Resources" / "Samples" / "simulated-flair-mask.nii.gz"
#: How far a run is when its picture is taken.
HALFWAY = 0.4
#: The window's size in pixels: that of a common screen of today, less the desktop's bars.
SIZE = (1600, 1000)
PICTURES = "panel"
SCENE = "scene.mrb"


class DemoFailed(Exception):
    """A step did not lead where it should; the message says which."""


class Demo:
    """The panel in its application, and the folder that takes what it leaves.

    Args:
        output: Folder for the scene; the pictures go into its subfolder ``panel``.
    """

    def __init__(self, output: Path) -> None:
        from tomoseg_host.application import host as application

        self.output = output
        self.pictures = output / PICTURES
        self.pictures.mkdir(parents=True, exist_ok=True)
        self.host = application.start(modules=[ROOT / "TomoSeg" / "TomoSeg.py"])
        self.host.use_style(dark=False)
        self.host.main_window.resize(*SIZE)
        self.widget = self.host.select("TomoSeg")
        self.ui = self.widget.ui

    def load_sample(self) -> Any:
        """Load the sample as the module Sample Data does, and choose it in the panel."""
        import SampleData
        import slicer

        volume = SampleData.SampleDataLogic().downloadSample(SAMPLE)
        slicer.util.setSliceViewerLayers(background=volume, fit=True)
        self.ui.inputSelector.setCurrentNode(volume)
        # One slice in the 3D view too, so that it can be seen where everything is.
        layout = slicer.app.layoutManager()
        layout.sliceWidget("Red").mrmlSliceNode().SetSliceVisible(True)
        self.host.process(0.1)
        return volume

    def scroll_to_lesion(self) -> None:
        """Scroll to where the lesion of the sample was put, for all pictures of it."""
        import numpy as np
        import slicer
        import vtk

        truth = slicer.util.loadVolume(str(TRUTH), {"labelmap": True, "show": False})
        middle = np.argwhere(slicer.util.arrayFromVolume(truth)).mean(axis=0)[::-1]
        matrix = vtk.vtkMatrix4x4()
        truth.GetIJKToRASMatrix(matrix)
        place = matrix.MultiplyPoint([*map(float, middle), 1.0])[:3]
        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *place)
        slicer.mrmlScene.RemoveNode(truth)
        self.host.process(0.1)

    def choose_model(self, name: str) -> None:
        """Choose a model in the list."""
        import qt

        models = self.ui.modelListWidget
        for row in range(models.count):
            if models.item(row).data(qt.Qt.UserRole) == name:
                models.setCurrentItem(models.item(row))
                self.host.process(0.1)
                return
        raise DemoFailed(f"there is no model {name} in the panel's list")

    def choose_directions(self, kind: str) -> None:
        """Choose a direction set in place of the model's."""
        combo = self.ui.directionsCombo
        row = next((row for row in range(combo.count) if combo.itemData(row) == kind), None)
        if row is None:
            raise DemoFailed(f"the panel offers no direction set {kind}")
        combo.setCurrentIndex(row)

    def run(self, seconds: float) -> None:
        """Click on Run and wait; a picture is taken when a good part of the angles is done."""
        # Until then it is not known whether there is a PyTorch to run with.
        self._wait(lambda: self.ui.runButton.enabled and self.ui.probeButton.enabled, 120)
        self.ui.runButton.click()
        run = self.widget.panel.runs.queue.current
        shown = since = time.monotonic()
        previewed = False
        while not run.state.isOver:
            self.host.process(0.05)
            now = time.monotonic()
            bar = self.ui.progressBar
            far = bar.maximum > 0 and bar.value >= HALFWAY * bar.maximum
            if not previewed and far and self.widget._parameterNode.heatmap is not None:
                previewed = True
                self._show(self.ui.runSection)
                self.window("window-running")
            if now - shown > 5:
                shown = now
                print(f"  {now - since:3.0f} s  {self.ui.stageNote.text}", flush=True)
            if now - since > seconds:
                self.ui.cancelButton.click()
                self._wait(lambda: run.state.isOver, 10)
                raise DemoFailed(f"the run took longer than {seconds:.0f} s")
        if run.state.name != "FINISHED":
            raise DemoFailed(f"the run has not finished:\n{run.report()}")
        self.host.process(0.2)
        if not previewed:
            print("  It was over too soon for a picture of it.")

    def look_at_peak(self) -> None:
        """Click on the highest peak: the slice views jump there."""
        tree = self.ui.peaksTree
        if tree.topLevelItemCount:
            tree.setCurrentItem(tree.topLevelItem(0))
        self.host.process(0.1)

    def make_segment(self) -> Any:
        """Make the segment, and show it in the 3D view; returns its segmentation."""
        import slicer

        self.ui.makeSegmentButton.click()
        self._wait(lambda: self.ui.makeSegmentButton.enabled, 30)
        segmentation = self.widget._parameterNode.segmentation
        if segmentation is None:
            raise DemoFailed("no segment was made")
        segmentation.CreateClosedSurfaceRepresentation()
        slicer.app.layoutManager().resetThreeDViews()
        self.turn(azimuth=0, elevation=0, closer=1.4)
        self.host.process(0.2)
        return segmentation

    def turn(self, azimuth: float, elevation: float, closer: float) -> None:
        """Turn the 3D view by degrees and come closer, as with the mouse."""
        import slicer

        view = slicer.app.layoutManager().threeDWidget(0).threeDView()
        camera = view.cameraNode().GetCamera()
        camera.Azimuth(azimuth)
        camera.Elevation(elevation)
        camera.Dolly(closer)
        camera.OrthogonalizeViewUp()
        view.cameraNode().ResetClippingRange()

    def save_scene(self) -> Path:
        """Save everything; returns the file."""
        import slicer

        path = self.output / SCENE
        if not slicer.util.saveScene(str(path)):
            raise DemoFailed(f"{path} could not be written")
        return path

    # -- pictures ------------------------------------------------------------------------------

    def sections(self) -> list[Any]:
        """The panel's sections from top to bottom."""
        found = self._panel().findChildren("ctkCollapsibleButton")
        return sorted(found, key=lambda section: section.mapTo(self._panel(), _origin()).y())

    def window(self, name: str) -> Path:
        """A picture of the whole application."""
        return self.host.screenshot(self.pictures / f"{name}.png")

    def whole_panel(self, name: str = "panel") -> Path:
        """A picture of the panel from top to bottom, all sections open, as wide as it is shown."""
        for section in self.sections():
            section.collapsed = False
        self.host.process(0.1)
        return self.host.screenshot(self.pictures / f"{name}.png", self._panel())

    def section_pictures(self) -> list[Path]:
        """A picture of every section."""
        made = []
        for number, section in enumerate(self.sections(), start=1):
            section.collapsed = False
            self.host.process(0.05)
            name = f"section-{number}-{section.objectName.removesuffix('Section')}"
            made.append(self.host.screenshot(self.pictures / f"{name}.png", section))
        return made

    def show_only(self, *names: str) -> None:
        """Open these sections and close the others."""
        for section in self.sections():
            section.collapsed = section.objectName not in names
        self.host.process(0.1)
        self.host.main_window.scroll_area().verticalScrollBar().setValue(0)

    def _panel(self) -> Any:
        return self.ui.TomoSeg

    def _show(self, section: Any) -> None:
        """Open a section and scroll to it."""
        section.collapsed = False
        self.host.process(0.05)
        self.host.main_window.scroll_area().ensureWidgetVisible(section._peer_)

    def _wait(self, condition: Any, seconds: float) -> None:
        if not self.host.wait_for(condition, seconds):
            raise DemoFailed(f"the panel cannot run: {self.ui.runButton.toolTip}")


def _origin() -> Any:
    import qt

    return qt.QPoint(0, 0)


def demonstrate(options: argparse.Namespace) -> None:
    """Do it all, and say what is done."""
    demo = Demo(options.output.absolute())
    demo.load_sample()
    demo.scroll_to_lesion()
    demo.choose_model(options.model)
    if options.directions:
        demo.choose_directions(options.directions)
    demo.show_only("volumeSection", "modelSection", "methodSection")
    demo.ui.showDirectionsCheckBox.setChecked(True)
    demo.host.process(2.0)
    import slicer

    slicer.app.layoutManager().resetThreeDViews()
    demo.turn(azimuth=-40, elevation=40, closer=1.3)
    demo.window("window-before")
    demo.ui.showDirectionsCheckBox.setChecked(False)
    print("The panel runs it in the background:", flush=True)
    demo.show_only("volumeSection", "modelSection", "runSection", "resultSection")
    demo.run(options.limit)
    demo.show_only("runSection", "resultSection")
    demo.look_at_peak()
    demo.window("window-result")
    demo.show_only("resultSection", "maskSection")
    demo.make_segment()
    print(f"  segment  {demo.ui.statisticsNote.text}")
    demo.window("window-segment")
    demo.section_pictures()
    demo.whole_panel()
    demo.host.use_style(dark=True)
    demo.whole_panel("panel-dark")
    demo.show_only("resultSection", "maskSection")
    demo.window("window-dark")
    demo.save_scene()
    if demo.host.errors:
        raise DemoFailed(f"a handler raised {demo.host.errors[0]!r}")


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments and go; the exit status is 1 where a step failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "Demo", help="folder of the results")
    parser.add_argument("--model", default="flair-lesion", help="name of a model")
    parser.add_argument("--directions", help="direction set, in place of the model's")
    parser.add_argument("--offscreen", action="store_true", help="show no window")
    parser.add_argument("--limit", type=float, default=900, help="longest run, in seconds")
    options = parser.parse_args(argv)
    if options.offscreen:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    try:
        demonstrate(options)
    except DemoFailed as error:
        print(f"The panel's demo has failed: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    from tomoseg_host.application.host import leave

    leave(status or 0)
