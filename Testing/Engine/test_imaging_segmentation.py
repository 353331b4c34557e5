"""Segmentations keep names, colours, terminology and grid, and Slicer reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.segmentation import (
    DEFAULT_TERMINOLOGY,
    read_segmentation,
    write_segmentation,
)
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import Label

TUMOUR_TERMINOLOGY = (
    "Segmentation category and type - 3D Slicer General Anatomy list"
    "~SCT^49755003^Morphologically Altered Structure~SCT^86049000^Neoplasm, Primary~^^"
    "~Anatomic codes - DICOM master list~SCT^12738006^Brain~^^"
)
LABELS = [
    Label(name="Tumör, ganz", value=2, color=(0.9, 0.3, 0.2), terminology=TUMOUR_TERMINOLOGY),
    Label(name="oedema", value=5, color=(0, 0.5, 1)),
    Label(name="necrosis", value=9),
]


def labelmap(geometry: Geometry) -> np.ndarray:
    result = np.zeros(geometry.shape, np.uint8)
    result[1:4, 3:6, 4:9] = 2
    result[5, 7, 2] = 5
    return result


def test_labels_and_grid_survive(any_geometry: Geometry, tmp_path: Path) -> None:
    path = tmp_path / "Maske ä 頭.seg.nrrd"
    write_segmentation(path, labelmap(any_geometry), any_geometry, LABELS, "scan.nii.gz")
    volume, labels = read_segmentation(path)
    np.testing.assert_array_equal(volume.array, labelmap(any_geometry))
    assert volume.array.dtype == np.uint8
    assert volume.geometry.is_close(any_geometry, 1e-9)
    assert labels[0] == LABELS[0]
    assert [label.name for label in labels] == ["Tumör, ganz", "oedema", "necrosis"]
    assert labels[1].terminology == DEFAULT_TERMINOLOGY
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_other_programs_read_it_as_a_label_map(any_geometry: Geometry, tmp_path: Path) -> None:
    path = tmp_path / "mask.seg.nrrd"
    write_segmentation(path, labelmap(any_geometry), any_geometry, LABELS, "scan.nii.gz")
    image = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labelmap(any_geometry))
    assert image.GetMetaData("Segment0_Extent") == "4 8 3 5 1 3"
    assert image.GetMetaData("Segment2_Extent") == "0 -1 0 -1 0 -1"
    assert read_volume(path).geometry.is_close(any_geometry, 1e-9)


def test_slicer_reads_names_colours_values_and_voxels(
    any_geometry: Geometry, tmp_path: Path
) -> None:
    slicer = pytest.importorskip("slicer", reason="Slicer's modules (slicer-core) are not here")
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    path = tmp_path / "mask ä.seg.nrrd"
    array = labelmap(any_geometry)
    write_segmentation(path, array, any_geometry, LABELS, "scan.nii.gz")
    scene = slicer.vtkMRMLScene()
    node = scene.AddNode(slicer.vtkMRMLSegmentationNode())
    storage = scene.AddNode(slicer.vtkMRMLSegmentationStorageNode())
    storage.SetFileName(str(path))
    assert storage.ReadData(node) == 1
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == len(LABELS)
    for index, label in enumerate(LABELS):
        segment = segmentation.GetNthSegment(index)
        assert segment.GetName() == label.name
        assert segment.GetColor() == pytest.approx(label.color)
        assert segment.GetLabelValue() == label.value
        tag = vtk.reference("")
        assert segment.GetTag("TerminologyEntry", tag)
        assert str(tag) == (label.terminology or DEFAULT_TERMINOLOGY)
        image = slicer.vtkOrientedImageData()
        node.GetBinaryLabelmapRepresentation(segmentation.GetNthSegmentID(index), image)
        voxels = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(
            image.GetDimensions()[::-1]
        )
        i0, i1, j0, j1, k0, k1 = image.GetExtent()
        here = array[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] == label.value
        np.testing.assert_array_equal(voxels != 0, here)
        assert np.count_nonzero(here) == np.count_nonzero(array == label.value)
        matrix = vtk.vtkMatrix4x4()
        image.GetImageToWorldMatrix(matrix)
        ras = np.array([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)])
        np.testing.assert_allclose(np.diag([-1, -1, 1, 1]) @ ras, any_geometry.affine, atol=1e-9)


def test_slicers_own_file_is_read(tmp_path: Path) -> None:
    slicer = pytest.importorskip("slicer", reason="Slicer's modules (slicer-core) are not here")
    vtk = pytest.importorskip("vtk")
    scene = slicer.vtkMRMLScene()
    node = scene.AddNode(slicer.vtkMRMLSegmentationNode())
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(4, 3, 2)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(0)
    image.SetScalarComponentFromDouble(1, 1, 0, 0, 1)
    image.SetScalarComponentFromDouble(2, 1, 1, 0, 1)
    image.SetSpacing(1, 2, 3)
    image.SetOrigin(4, 5, 6)
    segment = slicer.vtkSegment()
    segment.SetName("lesion")
    segment.SetColor(0.25, 0.5, 0.75)
    segment.AddRepresentation("Binary labelmap", image)
    node.GetSegmentation().AddSegment(segment, "a")
    storage = scene.AddNode(slicer.vtkMRMLSegmentationStorageNode())
    storage.SetFileName(str(tmp_path / "slicer.seg.nrrd"))
    assert storage.WriteData(node) == 1
    volume, labels = read_segmentation(tmp_path / "slicer.seg.nrrd")
    assert [(label.name, label.value, label.color) for label in labels] == [
        ("lesion", 1, (0.25, 0.5, 0.75))
    ]
    assert "SCT^85756007^Tissue" in labels[0].terminology  # Slicer's own default
    voxels = {
        tuple(p)
        for p in np.round(volume.geometry.index_to_lps(np.argwhere(volume.array == 1)[:, ::-1]), 6)
    }
    # RAS (4 + i, 5 + 2 j, 6 + 3 k) with x and y negated.
    assert voxels == {(-5.0, -7.0, 6.0), (-6.0, -7.0, 9.0)}


def test_a_value_without_a_label_is_a_mistake_of_the_caller(
    any_geometry: Geometry, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="without a label"):
        write_segmentation(
            tmp_path / "m.seg.nrrd", labelmap(any_geometry), any_geometry, LABELS[:1], "scan"
        )
    assert not any(tmp_path.iterdir())


def test_only_its_own_suffix_is_written(any_geometry: Geometry, tmp_path: Path) -> None:
    with pytest.raises(TomoSegError) as caught:
        write_segmentation(tmp_path / "m.nrrd", labelmap(any_geometry), any_geometry, LABELS, "x")
    assert caught.value.code == "output-format"


def test_overlapping_segments_are_refused_with_a_hint(tmp_path: Path) -> None:
    layers = sitk.GetImageFromArray(np.zeros((5, 6, 7, 2), np.uint8), isVector=True)
    sitk.WriteImage(layers, str(tmp_path / "two.seg.nrrd"))
    with pytest.raises(TomoSegError) as caught:
        read_segmentation(tmp_path / "two.seg.nrrd")
    assert caught.value.code == "segmentation-overlapping"


def test_a_broken_description_is_refused(any_geometry: Geometry, tmp_path: Path) -> None:
    image = sitk.GetImageFromArray(labelmap(any_geometry))
    image.SetMetaData("Segment0_ID", "a")
    image.SetMetaData("Segment0_Color", "red")
    sitk.WriteImage(image, str(tmp_path / "bad.seg.nrrd"))
    with pytest.raises(TomoSegError) as caught:
        read_segmentation(tmp_path / "bad.seg.nrrd")
    assert caught.value.code == "segmentation-invalid"
