"""``slicer.app.coreIOManager()``: reading and writing of nodes and scenes."""

import os
from pathlib import Path

import vtk
from PySide6 import QtCore

from ..bridge.pyside import implements

#: Ending -> file type, the longest endings first.
_TYPES = {
    ".seg.nrrd": "SegmentationFile",
    ".seg.nhdr": "SegmentationFile",
    ".nii.gz": "VolumeFile",
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".nii": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".obj": "ModelFile",
    ".ply": "ModelFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".h5": "TransformFile",
    ".tfm": "TransformFile",
    ".mrk.json": "MarkupsFile",
    ".txt": "TextFile",
}

#: Class of a node -> file type and what its files end with.
_WRITERS = {
    "vtkMRMLSegmentationNode": ("SegmentationFile", ".seg.nrrd"),
    "vtkMRMLVolumeNode": ("VolumeFile", ".nrrd"),
    "vtkMRMLModelNode": ("ModelFile", ".vtk"),
    "vtkMRMLTableNode": ("TableFile", ".tsv"),
    "vtkMRMLTransformNode": ("TransformFile", ".h5"),
    "vtkMRMLMarkupsNode": ("MarkupsFile", ".mrk.json"),
    "vtkMRMLColorNode": ("ColorTableFile", ".txt"),
    "vtkMRMLTextNode": ("TextFile", ".txt"),
}


@implements("qSlicerCoreIOManager")
class CoreIOManager(QtCore.QObject):
    """Reads and writes with the logics of slicer-core."""

    newFileLoaded = QtCore.Signal(object)
    fileSaved = QtCore.Signal(object)

    def start(self, context: object) -> None:
        """Work on a scene (`scene.SceneContext`)."""
        self._context = context

    # -- types -------------------------------------------------------------------------------------

    def fileType(self, path: str) -> str:  # noqa: N802
        """The type of a file by its ending, "NoFile" where none fits."""
        name = os.path.basename(path).lower()
        for ending in sorted(_TYPES, key=len, reverse=True):
            if name.endswith(ending):
                return _TYPES[ending]
        return "NoFile"

    def fileTypes(self, path: str) -> list[str]:  # noqa: N802
        """All types that a file may have."""
        return [self.fileType(path)]

    def fileWriterFileType(self, node: object, _: str = "") -> str:  # noqa: N802
        """The type in which a node is written."""
        for name, (type_, _ending) in _WRITERS.items():
            if node is not None and node.IsA(name):
                return type_
        return "NoFile"

    def fileWriterExtensions(self, node: object) -> list[str]:  # noqa: N802
        """The endings in which a node can be written."""
        return [f"({ending})" for name, (_, ending) in _WRITERS.items() if node.IsA(name)]

    def extractKnownExtension(self, name: str, _: object = None) -> str:  # noqa: N802
        """The ending of a name, as far as it is known."""
        for ending in sorted(_TYPES, key=len, reverse=True):
            if name.lower().endswith(ending):
                return name[-len(ending) :]
        return ""

    def stripKnownExtension(self, name: str, node: object = None) -> str:  # noqa: N802
        """A name without its known ending."""
        return name.removesuffix(self.extractKnownExtension(name, node) or "\0")

    def forceFileNameValidCharacters(self, name: str) -> str:  # noqa: N802
        """A name without what file systems refuse."""
        return "".join(c if c.isalnum() or c in " ._-+=@(){}[]" else "_" for c in name)

    # -- reading -----------------------------------------------------------------------------------

    def loadNodes(  # noqa: N802
        self, type_: str, properties: dict, loaded: object = None, messages: object = None
    ) -> bool:
        """Read a file into the scene; the nodes go into ``loaded``."""
        path = str(properties.get("fileName", ""))
        reader = getattr(self, f"_load_{type_}", None)
        problem = ""
        if not os.path.exists(path):
            problem = f"File does not exist: {path}"
        elif reader is None:
            problem = f"The host has no reader for {type_}"
        if problem:
            _tell(messages, problem)
            return False
        nodes = reader(path, properties, messages)
        if nodes is None:
            _tell(messages, f"Reading {path} failed")
            return False
        for node in nodes:
            if loaded is not None:
                loaded.AddItem(node)
        self.newFileLoaded.emit({**properties, "fileType": type_})
        return True

    def loadScene(self, path: str, clear: bool = True, messages: object = None) -> bool:  # noqa: N802
        """Open a scene."""
        return self.loadNodes("SceneFile", {"fileName": path, "clear": clear}, None, messages)

    def loadFile(self, path: str, messages: object = None) -> bool:  # noqa: N802
        """Read a file by its ending."""
        return self.loadNodes(self.fileType(path), {"fileName": path}, None, messages)

    def _load_VolumeFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        logic = self._context.module_logics["Volumes"]
        name = properties.get("name") or Path(self.stripKnownExtension(path)).name
        options = 0
        for bit, key in (
            (1, "labelmap"),
            (2, "center"),
            (4, "singleFile"),
            (16, "discardOrientation"),
        ):
            options |= bit if properties.get(key) else 0
        if "autoWindowLevel" in properties and properties["autoWindowLevel"]:
            options |= 8
        node = logic.AddArchetypeVolume(path, name, options)
        if node is None:
            return None
        if properties.get("show", True):
            self._show(node)
        return [node]

    def _show(self, node: object) -> None:
        """Show a new volume in all slice views, as the application does."""
        selection = self._context.application_logic.GetSelectionNode()
        if selection is None:
            return
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(node.GetID())
        else:
            selection.SetActiveVolumeID(node.GetID())
        self._context.application_logic.PropagateVolumeSelection(1)

    def _load_SegmentationFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        logic = self._context.module_logics["Segmentations"]
        name = properties.get("name") or Path(self.stripKnownExtension(path)).name
        node = logic.LoadSegmentationFromFile(path, True, name)
        return None if node is None else [node]

    def _load_ModelFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        node = self._context.module_logics["Models"].AddModel(path)
        return None if node is None else [node]

    def _load_TableFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        name = properties.get("name") or Path(path).stem
        node = self._context.module_logics["Tables"].AddTable(path, name)
        return None if node is None else [node]

    def _load_TransformFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        node = self._context.module_logics["Transforms"].AddTransform(path, self._context.scene)
        return None if node is None else [node]

    def _load_ColorTableFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        node = self._context.color_logic.LoadColorFile(path)
        return None if node is None else [node]

    def _load_SceneFile(self, path: str, properties: dict, messages: object) -> list | None:  # noqa: N802
        scene, clear = self._context.scene, bool(properties.get("clear", True))
        before = {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}
        if path.lower().endswith(".mrb"):
            read = scene.ReadFromMRB(path, clear)
        else:
            scene.SetURL(path)
            read = bool(scene.Connect() if clear else scene.Import())
        if not read:
            return None
        nodes = (scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes()))
        return [node for node in nodes if clear or node.GetID() not in before]

    # -- writing -----------------------------------------------------------------------------------

    def saveNodes(  # noqa: N802
        self, type_: str, properties: dict, messages: object = None, scene: object = None
    ) -> bool:
        """Write a node, or with "SceneFile" the scene."""
        path = str(properties.get("fileName", ""))
        if type_ == "SceneFile":
            saved = self._save_scene(path, properties.get("screenShot"))
        else:
            node = self._context.scene.GetNodeByID(str(properties.get("nodeID", "")))
            saved = node is not None and self._save_node(node, path, properties)
        if not saved:
            _tell(messages, f"Writing {path} failed")
            return False
        self.fileSaved.emit({**properties, "fileType": type_})
        return True

    def saveScene(self, path: str, screenshot: object, messages: object = None) -> bool:  # noqa: N802
        """Write the scene."""
        return self.saveNodes("SceneFile", {"fileName": path, "screenShot": screenshot}, messages)

    def _save_node(self, node: object, path: str, properties: dict) -> bool:
        storage = node.GetStorageNode()
        if storage is None:
            storage = self.createAndAddDefaultStorageNode(node)
        if storage is None:
            return False
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(bool(properties["useCompression"]))
        return bool(storage.WriteData(node))

    def createAndAddDefaultStorageNode(self, node: object) -> object:  # noqa: N802
        """Give a node its usual storage node."""
        node.AddDefaultStorageNode()
        return node.GetStorageNode()

    def addDefaultStorageNodes(self) -> None:  # noqa: N802
        """Give all nodes that are saved their usual storage nodes."""
        scene = self._context.scene
        for index in range(scene.GetNumberOfNodes()):
            node = scene.GetNthNode(index)
            if node.IsA("vtkMRMLStorableNode") and node.GetSaveWithScene():
                node.AddDefaultStorageNode()

    def _save_scene(self, path: str, screenshot: object = None) -> bool:
        scene = self._context.scene
        if path.lower().endswith(".mrml"):
            scene.SetURL(path)
            scene.SetRootDirectory(os.path.dirname(os.path.abspath(path)))
            return bool(scene.Commit(path))
        picture = vtk.vtkImageData() if screenshot is not None else None
        if path.lower().endswith(".mrb"):
            return bool(scene.WriteToMRB(path, picture))
        os.makedirs(path, exist_ok=True)
        return bool(scene.SaveSceneToSlicerDataBundleDirectory(path, picture))


def _tell(messages: object, text: str) -> None:
    """Add an error to a collection of messages."""
    if messages is not None:
        messages.AddMessage(vtk.vtkCommand.ErrorEvent, text)
