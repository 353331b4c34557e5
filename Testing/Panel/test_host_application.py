"""The stand-in application: modules, forms, parameter nodes, files, views, processes."""

import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
sys.path.insert(0, str(HOST))

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import ctk  # noqa: E402
import qt  # noqa: E402
import slicer  # noqa: E402

MODULE = """
import enum
from typing import Annotated, Optional
import slicer, qt
from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import *
from slicer.parameterNodeWrapper import *
from slicer.util import VTKObservationMixin

class Kind(enum.Enum):
    PLAIN = 1
    FANCY = 2
    def label(self):
        return self.name.title()

@parameterNodeWrapper
class Parameters:
    volume: slicer.vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(0, 1)] = 0.25
    count: Annotated[int, WithinRange(1, 50)] = 5
    invert: bool = False
    kind: Kind = Kind.FANCY
    note: str = "hello"
    names: list[str] = []

class Probe(ScriptedLoadableModule):
    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("Probe module")
        parent.categories = ["Testing"]
        slicer.app.connect("startupCompleted()", lambda: None)

class ProbeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.log = []

    def setup(self):
        super().setup()
        widget = slicer.util.loadUI(self.resourcePath("UI/Probe.ui"))
        self.layout.addWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.logic = ProbeLogic()
        self.node = Parameters(self.logic.getParameterNode())
        self.tag = self.node.connectGui(self.ui)
        self.ui.run.connect("clicked(bool)", lambda: self.log.append("run"))
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onClose)

    def enter(self):
        self.log.append("enter")

    def exit(self):
        self.log.append("exit")

    def cleanup(self):
        self.log.append("cleanup")
        self.node.disconnectGui(self.tag)
        self.removeObservers()

    def onClose(self, caller, event):
        self.log.append("closed")

class ProbeLogic(ScriptedLoadableModuleLogic):
    pass

class ProbeTest(ScriptedLoadableModuleTest):
    ran = 0
    def test_something(self):
        ProbeTest.ran += 1
"""

FORM = """<?xml version="1.0" encoding="UTF-8"?>
<ui version="4.0"><class>Probe</class>
<widget class="qMRMLWidget" name="Probe"><layout class="QVBoxLayout" name="outer">
 <item><widget class="ctkCollapsibleButton" name="inputs">
  <property name="text"><string>Inputs</string></property>
  <layout class="QFormLayout" name="form">
   <item row="0" column="0"><widget class="QLabel" name="label">
     <property name="text"><string>Volume:</string></property></widget></item>
   <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="selector">
     <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist>
     </property>
     <property name="noneEnabled"><bool>true</bool></property>
     <property name="addEnabled"><bool>false</bool></property>
     <property name="SlicerParameterName" stdset="0"><string>volume</string></property>
   </widget></item>
   <item row="1" column="1"><widget class="ctkSliderWidget" name="threshold">
     <property name="singleStep"><double>0.05</double></property>
     <property name="SlicerParameterName" stdset="0"><string>threshold</string></property>
   </widget></item>
   <item row="2" column="1"><widget class="QSpinBox" name="count">
     <property name="SlicerParameterName" stdset="0"><string>count</string></property>
   </widget></item>
   <item row="3" column="1"><widget class="QCheckBox" name="invert">
     <property name="SlicerParameterName" stdset="0"><string>invert</string></property>
   </widget></item>
   <item row="4" column="1"><widget class="QComboBox" name="kind">
     <property name="SlicerParameterName" stdset="0"><string>kind</string></property>
   </widget></item>
   <item row="5" column="1"><widget class="QLineEdit" name="note">
     <property name="SlicerParameterName" stdset="0"><string>note</string></property>
   </widget></item>
   <item row="6" column="1"><widget class="ctkPathLineEdit" name="path">
     <property name="filters"><set>ctkPathLineEdit::Files</set></property>
   </widget></item>
   <item row="7" column="1"><widget class="ctkDoubleSlider" name="slider">
     <property name="orientation"><enum>Qt::Horizontal</enum></property>
   </widget></item>
   <item row="8" column="1"><widget class="ctkNoSuchWidget" name="unknown"/></item>
  </layout></widget></item>
 <item><widget class="QPushButton" name="run"><property name="text"><string>Run</string></property>
  </widget></item>
</layout></widget>
<customwidgets>
 <customwidget><class>qMRMLWidget</class><extends>QWidget</extends><container>1</container>
 </customwidget>
 <customwidget><class>ctkCollapsibleButton</class><extends>QWidget</extends>
  <container>1</container></customwidget>
 <customwidget><class>qMRMLNodeComboBox</class><extends>QWidget</extends></customwidget>
 <customwidget><class>ctkSliderWidget</class><extends>QWidget</extends></customwidget>
 <customwidget><class>ctkPathLineEdit</class><extends>QWidget</extends></customwidget>
 <customwidget><class>ctkDoubleSlider</class><extends>QWidget</extends></customwidget>
 <customwidget><class>ctkNoSuchWidget</class><extends>QLabel</extends></customwidget>
</customwidgets>
<connections><connection><sender>Probe</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
 <receiver>selector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections>
</ui>
"""


@pytest.fixture
def scene():
    """An empty scene; at the end no handler may have raised."""
    slicer.mrmlScene.Clear(False)
    host.errors.clear()
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(False)
    host.process()
    assert host.errors == []


@pytest.fixture
def probe(scene, tmp_path):
    """The probe module, loaded and selected."""
    folder = tmp_path / "Probe"
    (folder / "Resources" / "UI").mkdir(parents=True)
    (folder / "Probe.py").write_text(textwrap.dedent(MODULE), encoding="utf-8")
    (folder / "Resources" / "UI" / "Probe.ui").write_text(FORM, encoding="utf-8")
    host.load_module(folder / "Probe.py")
    yield host.select("Probe")
    host.modules.unload("Probe")
    host.process()


def volume(name="v", shape=(20, 24, 28)):
    """A volume with a bright box."""
    array = np.zeros(shape)
    array[5:15, 6:18, 7:21] = 100
    return slicer.util.addVolumeFromArray(array, name=name)


def test_slicer_has_its_objects_and_not_the_names_of_util():
    assert type(slicer.app).__name__ == "qSlicerApplication"
    assert slicer.app.mrmlScene() is slicer.mrmlScene
    assert slicer.util.mainWindow().inherits("qSlicerMainWindow")
    assert not hasattr(slicer, "loadVolume")
    assert slicer.util.getModuleLogic("Volumes").IsA("vtkSlicerVolumesLogic")
    with pytest.raises(AttributeError):
        slicer.app.noSuchThing()


def test_a_module_is_set_up_lazily_and_entered_and_left(scene, tmp_path):
    folder = tmp_path / "Lazy"
    folder.mkdir()
    (folder / "Lazy.py").write_text(
        textwrap.dedent("""
        from slicer.ScriptedLoadableModule import *
        class Lazy(ScriptedLoadableModule):
            pass
        class LazyWidget(ScriptedLoadableModuleWidget):
            calls = []
            def setup(self):
                self.calls.append("setup")
            def enter(self):
                self.calls.append("enter")
            def exit(self):
                self.calls.append("exit")
            def cleanup(self):
                self.calls.append("cleanup")
    """)
    )
    module = host.load_module(folder / "Lazy.py")
    calls = sys.modules["Lazy"].LazyWidget.calls
    assert type(module).__name__ == "qSlicerScriptedLoadableModule"
    assert module.name == "Lazy" and slicer.modules.lazy is module
    assert calls == []
    host.select("Lazy")
    assert calls == ["setup", "enter"]
    slicer.util.selectModule("Volumes")
    assert calls == ["setup", "enter", "exit"]
    host.modules.unload("Lazy")
    assert calls[-1] == "cleanup" and not hasattr(slicer.modules, "lazy")


def test_the_form_has_its_widgets_properties_and_connections(probe, capsys):
    ui = probe.ui
    assert type(ui.inputs) is ctk.ctkCollapsibleButton and ui.inputs.text == "Inputs"
    assert type(ui.selector) is slicer.qMRMLNodeComboBox
    assert ui.selector.nodeTypes == ("vtkMRMLScalarVolumeNode",)
    assert ui.selector.noneEnabled and not ui.selector.addEnabled
    assert ui.selector.mrmlScene() is slicer.mrmlScene  # by the form's connection
    assert ui.path.filters == ctk.ctkPathLineEdit.Files
    assert ui.slider.orientation == qt.Qt.Horizontal
    assert type(ui.unknown) is qt.QLabel
    assert ui.threshold.property("SlicerParameterName") == "threshold"
    assert not hasattr(ui, "noSuch")


def test_a_collapsed_section_hides_what_comes_into_it(scene, tmp_path):
    form = FORM.replace(
        '<property name="text"><string>Inputs</string></property>',
        '<property name="collapsed"><bool>true</bool></property>',
    )
    path = tmp_path / "collapsed.ui"
    path.write_text(form, encoding="utf-8")
    widget = slicer.util.loadUI(str(path))
    ui = slicer.util.childWidgetVariables(widget)
    widget.show()
    host.process(0.05)
    assert ui.inputs.collapsed and not ui.count.isVisible()
    # Widgets of Qt itself keep their classes there.
    assert type(ui.count) is qt.QSpinBox and ui.count.setMinimum(2) is None
    ui.inputs.collapsed = False
    assert ui.count.isVisible()
    ui.label.hide()
    ui.inputs.collapsed = True
    assert not ui.count.isVisible()
    ui.inputs.collapsed = False
    assert ui.count.isVisible() and not ui.label.isVisible()
    widget.close()


def test_a_missing_form_is_an_error():
    with pytest.raises(RuntimeError):
        slicer.util.loadUI("/nowhere/at/all.ui")


def test_widgets_show_and_change_the_parameter_node(probe):
    node, ui = probe.node, probe.ui
    assert ui.threshold.value == 0.25 and ui.threshold.maximum == 1.0
    assert ui.kind.currentText == "Fancy" and ui.note.text == "hello"
    ui.threshold.value = 0.5
    ui.invert.checked = True
    ui.kind.currentIndex = 0
    ui.count.value = 7
    assert (node.threshold, node.invert, node.kind.name, node.count) == (0.5, True, "PLAIN", 7)
    node.note = "changed"
    assert ui.note.text == "changed"
    image = volume()
    node.volume = image
    assert ui.selector.currentNode() is image
    with pytest.raises(ValueError):
        node.threshold = 3.0
    with pytest.raises(TypeError):
        node.note = 5
    node.names = ["a"]
    node.names.append("b")
    assert list(node.names) == ["a", "b"]
    node.disconnectGui(probe.tag)
    ui.note.text = "alone"
    assert node.note == "changed"


def test_clicks_reach_handlers_and_closing_the_scene_reaches_observers(probe):
    from PySide6 import QtCore, QtTest

    button = probe.ui.run._peer_
    QtTest.QTest.mouseClick(button, QtCore.Qt.MouseButton.LeftButton)
    assert probe.log == ["enter", "run"]
    host.close_scene()
    assert probe.log[-1] == "closed"


def test_settings_survive_saving_and_opening_the_scene(probe, tmp_path):
    probe.node.threshold = 0.75
    probe.node.volume = volume("kept")
    path = tmp_path / "scène with space.mrb"
    assert slicer.util.saveScene(str(path))
    host.close_scene()
    slicer.util.loadScene(str(path))
    restored = sys.modules["Probe"].Parameters(probe.logic.getParameterNode())
    assert restored.threshold == 0.75
    assert restored.volume.GetName() == "kept"


def test_the_modules_own_test_runs(probe):
    slicer.selfTests["Probe"]()
    assert sys.modules["Probe"].ProbeTest.ran == 1


def test_volumes_and_segmentations_come_back_from_files(scene, tmp_path):
    image = volume("image")
    matrix = np.diag([2.0, 3.0, 4.0, 1.0])
    matrix[:3, 3] = (-10, 20, 5)
    image.SetIJKToRASMatrix(slicer.util.vtkMatrixFromArray(matrix))
    for ending in (".nrrd", ".nii.gz"):
        path = tmp_path / f"image{ending}"
        assert slicer.util.saveNode(image, str(path))
        read = slicer.util.loadVolume(str(path))
        assert np.array_equal(slicer.util.arrayFromVolume(read), slicer.util.arrayFromVolume(image))
        found = slicer.util.arrayFromVTKMatrix(_ijk_to_ras(read))
        assert np.allclose(found, matrix)
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segments")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    identifier = node.GetSegmentation().AddEmptySegment("lesion", "Lesion", [1, 0, 0])
    mask = (slicer.util.arrayFromVolume(image) > 50).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, identifier, image)
    assert slicer.util.saveNode(node, str(tmp_path / "s.seg.nrrd"))
    read = slicer.util.loadSegmentation(str(tmp_path / "s.seg.nrrd"))
    again = slicer.util.arrayFromSegmentBinaryLabelmap(
        read, read.GetSegmentation().GetNthSegmentID(0), image
    )
    assert again.sum() == mask.sum() > 0
    with pytest.raises(RuntimeError):
        slicer.util.loadVolume(str(tmp_path / "missing.nrrd"))


def _ijk_to_ras(node):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return matrix


def test_slice_views_show_the_volume_and_the_3d_view_a_model(scene, tmp_path):
    import vtk
    from PySide6 import QtGui

    manager = slicer.app.layoutManager()
    view = manager.sliceWidget("Red").sliceView()
    view.forceRender()
    assert _brightest(view) == 0
    image = volume()
    slicer.util.setSliceViewerLayers(background=image, fit=True)
    manager.sliceWidget("Red").sliceLogic().SetSliceOffset(10)
    host.process(0.05)
    view.forceRender()
    assert _brightest(view) > 100
    before = _picture(manager.threeDWidget(0).threeDView())
    source = vtk.vtkSphereSource()
    source.SetRadius(60)
    source.Update()
    model = scene.AddNewNodeByClass("vtkMRMLModelNode", "ball")
    model.SetAndObservePolyData(source.GetOutput())
    model.CreateDefaultDisplayNodes()
    model.GetDisplayNode().SetColor(1, 0, 0)
    host.process(0.05)
    slicer.util.resetThreeDViews()
    after = _picture(manager.threeDWidget(0).threeDView())
    assert (after != before).any()
    red = (after[..., 0] > 150) & (after[..., 1] < 90) & (after[..., 2] < 90)
    assert red.sum() > 200
    path = host.screenshot(tmp_path / "window.png")
    assert QtGui.QImage(str(path)).width() >= 1000


def _picture(view) -> np.ndarray:
    """What a view shows, as an array of rows of RGB."""
    view.forceRender()
    image = view._peer_._image
    data = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), -1)
    return data[:, : image.width() * 3].reshape(image.height(), image.width(), 3).copy()


def _brightest(view) -> int:
    picture = _picture(view)
    height, width = picture.shape[:2]
    # The corners hold texts.
    middle = picture[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4]
    return int(middle.max())


def test_the_wheel_moves_the_slice(scene):
    slicer.util.setSliceViewerLayers(background=volume(), fit=True)
    widget = slicer.app.layoutManager().sliceWidget("Red")
    widget.sliceLogic().SetSliceOffset(8)
    interactor = widget.sliceView().interactor()
    interactor.SetEventInformationFlipY(50, 50, 0, 0, chr(0), 0, None)
    interactor.InvokeEvent("EnterEvent")
    interactor.InvokeEvent("MouseWheelForwardEvent")
    assert widget.sliceLogic().GetSliceOffset() == pytest.approx(9)


def test_a_described_layout_makes_its_views_and_goes_again(scene):
    manager = slicer.app.layoutManager()
    layout_node, before = manager.layoutLogic().GetLayoutNode(), manager.layout
    view = (
        '<item><view class="vtkMRMLSliceNode" singletontag="Test{0}">'
        '<property name="orientation" action="default">{0}</property></view></item>'
    )
    rows = view.format("Axial") + view.format("Coronal")
    layout_node.AddLayoutDescription(901, f'<layout type="horizontal">{rows}</layout>')
    told = []
    manager.connect("layoutChanged(int)", told.append)
    manager.setLayout(901)
    host.process()
    assert told == [901] and layout_node.GetViewArrangement() == 901
    shown, red = manager.sliceWidget("TestCoronal"), manager.sliceWidget("Red")
    assert shown.visible and not red.visible
    assert shown.mrmlSliceNode().GetOrientation() == "Coronal"
    assert shown.sliceLogic().GetSliceCompositeNode().GetLayoutName() == "TestCoronal"
    layout_node.SetViewArrangement(before)  # the node leads
    host.process()
    assert manager.layout == before
    assert red.visible and not shown.visible


def test_layouts_show_the_views_that_they_name(scene):
    manager = slicer.app.layoutManager()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    host.process()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    assert manager.sliceWidget("Red").isVisible()
    assert not manager.sliceWidget("Green").isVisible()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    host.process()
    assert manager.sliceWidget("Green").isVisible() and manager.threeDViewCount == 1


def test_node_selectors_follow_the_scene(scene):
    combo = slicer.qMRMLNodeComboBox()
    combo.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    combo.noneEnabled = True
    seen = []
    combo.connect("currentNodeChanged(vtkMRMLNode*)", seen.append)
    combo.setMRMLScene(scene)
    assert combo.currentNode() is None and combo.nodeCount() == 0
    image = volume("one")
    assert combo.nodeCount() == 1 and combo.currentNode() is None
    combo.setCurrentNode(image)
    assert seen == [image]
    image.SetName("renamed")
    inner = combo._peer_.combo_box()
    assert inner.currentText() == "renamed"
    scene.RemoveNode(image)
    assert combo.currentNode() is None and seen[-1] is None
    hidden = volume("hidden")
    hidden.SetHideFromEditors(True)
    combo.showHidden = False
    assert combo.nodeCount() == 0


def test_background_processes_report_through_the_event_loop(tmp_path):
    import shutil

    assert shutil.which("PythonSlicer")
    assert "PythonSlicer" not in str(slicer.util.startupEnvironment().get("PATH", "")).split("/")
    lines = []
    process = qt.QProcess()
    process.connect("readyReadStandardOutput()",
                    lambda: lines.append(process.readAllStandardOutput().data()))  # fmt: skip
    finished = []
    process.connect("finished(int,QProcess::ExitStatus)", lambda *a: finished.append(a))
    process.start("PythonSlicer", ["-c", "print('from the worker')"])
    assert host.wait_for(lambda: finished, 60)
    assert finished[0] == (0, qt.QProcess.NormalExit)
    assert b"".join(lines).strip() == b"from the worker"


def test_errors_in_handlers_are_noted_and_go_no_further():
    button = qt.QPushButton("x")
    button.clicked.connect(lambda: 1 / 0)
    button.click()
    assert [type(error) for error in host.errors] == [ZeroDivisionError]
    host.errors.clear()


def test_nothing_is_installed_and_what_was_asked_for_is_known():
    from slicer import packaging

    assert packaging.pip_check("numpy>=1.0")
    assert not packaging.pip_check("no-such-package-at-all>=1")
    packaging.pip_ensure(["numpy>=1.0"])
    with pytest.raises(RuntimeError):
        packaging.pip_ensure(["no-such-package-at-all>=1"])
    assert packaging.requested[-1] == "no-such-package-at-all>=1"


def test_the_segment_editor_takes_what_is_handed_over(scene):
    image = volume()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    node.CreateDefaultDisplayNodes()
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.SegmentEditorWidget.editor
    if editor.mrmlSegmentEditorNode() is None or editor.mrmlSegmentEditorNode().GetScene() is None:
        settings = scene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
        editor.setMRMLSegmentEditorNode(settings)
    editor.setSegmentationNode(node)
    editor.setSourceVolumeNode(image)
    assert editor.segmentationNode() is node
    assert editor.sourceVolumeNode() is image
    slicer.util.selectModule("Volumes")
