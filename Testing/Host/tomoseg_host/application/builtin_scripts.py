"""Scripted modules of Slicer that a panel talks to: the segment editor, sample data."""

import sys
import types
from pathlib import Path
from urllib.parse import unquote, urlparse

import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget


class SegmentEditor(ScriptedLoadableModule):
    """The module that edits segments."""


class SegmentEditorWidget(ScriptedLoadableModuleWidget):
    """Its panel: ``editor`` is what other modules hand over to."""

    def setup(self):
        """Make the editor and its node."""
        super().setup()
        self.editor = slicer.qMRMLSegmentEditorWidget()
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.layout.addWidget(self.editor)
        self.selectParameterNode()

    def enter(self):
        """The panel is shown; a closed scene has taken the editor's node with it."""
        self.selectParameterNode()

    def selectParameterNode(self):  # noqa: N802
        """Find the editor's node in the scene, or make it."""
        tag, name = "SegmentEditor", "vtkMRMLSegmentEditorNode"
        node = slicer.mrmlScene.GetSingletonNode(tag, name)
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass(name)
            node.UnRegister(None)
            node.SetName(tag)
            node.SetSingletonTag(tag)
            node = slicer.mrmlScene.AddNode(node)
        self.parameterSetNode = node
        if self.editor.mrmlSegmentEditorNode() is not node:
            self.editor.setMRMLSegmentEditorNode(node)


class SampleDataSource:
    """One entry of the sample data."""

    def __init__(self, **what: object):
        self.__dict__.update(what)


class SampleDataLogic:
    """Registers and loads sample data (the host loads local files only)."""

    @staticmethod
    def registerCustomSampleDataSource(category="Custom", **what):  # noqa: N802
        """Enter a source under a category."""
        sources = slicer.modules.__dict__.setdefault("sampleDataSources", {})
        sources.setdefault(category, []).append(SampleDataSource(category=category, **what))

    @staticmethod
    def sourceForSampleName(name):  # noqa: N802
        """The source of a name, or None."""
        for sources in getattr(slicer.modules, "sampleDataSources", {}).values():
            for source in sources:
                if source.sampleName == name:
                    return source
        return None

    def downloadSample(self, name):  # noqa: N802
        """Load a sample; the first node."""
        source = self.sourceForSampleName(name)
        uris = source.uris if isinstance(source.uris, list | tuple) else [source.uris]
        nodes = []
        for uri in uris:
            parts = urlparse(uri)
            if parts.scheme not in ("", "file"):
                raise RuntimeError(f"the host loads no {parts.scheme} sources: {uri}")
            nodes.append(slicer.util.loadVolume(unquote(parts.path)))
        return nodes[0] if len(nodes) == 1 else nodes


def sample_data_module() -> types.ModuleType:
    """What ``import SampleData`` gives."""
    module = types.ModuleType("SampleData", "Sample data, as far as the host has it.")
    module.SampleDataLogic, module.SampleDataSource = SampleDataLogic, SampleDataSource
    module.downloadSample = lambda name: SampleDataLogic().downloadSample(name)
    return module


def install(manager: object) -> None:
    """Add the modules."""
    from ..bridge.pyside import find

    sys.modules.setdefault("SampleData", sample_data_module())
    editor = find("qSlicerScriptedLoadableModule")(manager)
    editor.name_text, editor.path_text = "SegmentEditor", str(Path(__file__))
    editor.python = sys.modules[__name__]
    editor.title_text = "Segment Editor"
    manager.add(editor)
