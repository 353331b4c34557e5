"""Slicer's scene and logics, brought up in the order that they need."""

from pathlib import Path

import slicer
import vtk

from . import share

#: Displayable managers of slice views and of 3D views, by class name.
SLICE_MANAGERS = (
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLScalarBarDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager2D",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLThreeDReformatDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager3D",
    "vtkMRMLOrientationMarkerDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLColorLegendDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLTransformsDisplayableManager3D",
    "vtkMRMLVolumeRenderingDisplayableManager",
)

#: Module name -> class of its logic, in an order that lets later ones find earlier ones.
LOGICS = {
    "Units": "vtkSlicerUnitsLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "ViewControllers": "vtkSlicerViewControllersLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Models": "vtkSlicerModelsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "SceneViews": "vtkSlicerSceneViewsModuleLogic",
    "Reformat": "vtkSlicerReformatLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
}


class SceneContext:
    """The scene with everything that belongs to it.

    Attributes:
        scene: the one scene.
        application_logic: the application's logic.
        module_logics: module name -> logic.
    """

    def __init__(self, home: Path):
        """``home``: a folder of this run, for what Slicer keeps beside its installation."""
        self.home = home
        for folder in ("temporary", "cache"):
            (home / folder).mkdir(parents=True, exist_ok=True)
        share.write(home / "share")
        logic = self.application_logic = slicer.vtkSlicerApplicationLogic()
        logic.SetHomeDirectory(str(home))
        logic.SetShareDirectory("share")  # relative to the home folder
        logic.SetTemporaryPath(str(home / "temporary"))
        self.scene = slicer.vtkMRMLScene()
        self._connect_files()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        crosshair.SetSingletonTag("default")
        self.scene.AddNode(crosshair)
        logic.SetMRMLScene(self.scene)
        self._add_singletons()
        self._start_colors()
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        self._register_managers()
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        self.module_logics: dict[str, object] = {"Colors": self.color_logic}
        for name, class_name in LOGICS.items():
            self._start_logic(name, class_name)

    def _add_singletons(self) -> None:
        """Displayable managers expect these nodes before they start."""
        logic = self.application_logic
        for name, setter in (
            ("vtkMRMLSelectionNode", "SetSelectionNode"),
            ("vtkMRMLInteractionNode", "SetInteractionNode"),
        ):
            node = self.scene.GetSingletonNode("Singleton", name)
            if node is None:
                node = getattr(slicer, name)()
                node.SetSingletonTag("Singleton")
                node = self.scene.AddNode(node)
            if hasattr(logic, setter):
                getattr(logic, setter)(node)

    def _connect_files(self) -> None:
        """Reading and writing of files needs these two (bundles do not load without them)."""
        self._remote = slicer.vtkMRMLRemoteIOLogic()
        self._data_io = slicer.vtkDataIOManagerLogic()
        self._remote.GetCacheManager().SetRemoteCacheDirectory(str(self.home / "cache"))
        self._data_io.SetMRMLApplicationLogic(self.application_logic)
        self._data_io.SetAndObserveDataIOManager(self._remote.GetDataIOManager())
        self.application_logic.SetMRMLSceneDataIO(self.scene, self._remote, self._data_io)

    def _start_colors(self) -> None:
        self.color_logic = slicer.vtkSlicerColorLogic()
        self.color_logic.SetMRMLApplicationLogic(self.application_logic)
        self.color_logic.SetMRMLScene(self.scene)
        self.application_logic.SetColorLogic(self.color_logic)
        # The logics of volumes and models look for it under its module's name.
        self.application_logic.SetModuleLogic("Colors", self.color_logic)

    def _register_managers(self) -> None:
        kinds = (
            (slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance(), SLICE_MANAGERS),
            (slicer.vtkMRMLThreeDViewDisplayableManagerFactory.GetInstance(), THREE_D_MANAGERS),
        )
        for factory, names in kinds:
            factory.SetMRMLApplicationLogic(self.application_logic)
            for name in names:
                if hasattr(slicer, name) and not factory.IsDisplayableManagerRegistered(name):
                    factory.RegisterDisplayableManager(name)

    def _start_logic(self, name: str, class_name: str) -> None:
        cls = getattr(slicer, class_name, None)
        if cls is None:
            return
        logic = cls()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(str(self.home / "share" / name))
        logic.SetMRMLApplicationLogic(self.application_logic)
        logic.SetMRMLScene(self.scene)
        self.application_logic.SetModuleLogic(name, logic)
        self.module_logics[name] = logic
