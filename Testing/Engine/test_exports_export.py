"""A run's mask in the formats of other programs, read back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
import vtk
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from vtk.util.numpy_support import vtk_to_numpy

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.exports.dicom_seg import write_dicom_seg
from TomoSegLib.exports.export import export_result
from TomoSegLib.exports.surface import surface, surface_area_mm2, write_stl
from TomoSegLib.exports.terminology import Code, terminology_of
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.events import ResultEvent
from TomoSegLib.models.card import Label

TUMOUR = Label(
    name="Tumour core, left",
    value=1,
    color=(1.0, 0.0, 0.0),
    terminology="DICOM master list~SCT^49755003^Morphologically Altered Structure"
    "~SCT^86049000^Neoplasm, Primary~SCT^7771000^Left~DICOM anatomy~SCT^12738006^Brain~^^",
)
OEDEMA = Label(name="Oedema", value=2)
OBLIQUE = ((0.8, -0.36, 0.48), (0.6, 0.48, -0.64), (0.0, 0.8, 0.6))


def series(folder: Path, shape: tuple[int, int, int] = (18, 24, 26)) -> Path:
    """An oblique, anisotropic MR series with a bright blob; files in an order of no meaning."""
    folder.mkdir(parents=True)
    geometry = Geometry.from_parts(shape, (1.5, 2.0, 2.5), OBLIQUE, (-20, 10, 30))
    k, j, i = np.indices(shape)
    points = geometry.index_to_lps(np.stack([i, j, k], axis=-1)) - geometry.center
    array = np.where(np.linalg.norm(points, axis=-1) < 22, 200, 0)
    array = array + 200 * (np.linalg.norm(points - [4, -3, 2], axis=-1) < 7)
    array = array + np.random.default_rng(0).integers(0, 20, shape) * (array > 0)
    study, uid, frame = generate_uid(), generate_uid(), generate_uid()
    for plane in range(shape[0]):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        item.StudyInstanceUID, item.SeriesInstanceUID = study, uid
        item.FrameOfReferenceUID = frame
        item.PatientID, item.PatientName = "P1", "Test"
        item.Modality, item.SeriesDescription = "MR", "FLAIR"
        item.SeriesNumber, item.InstanceNumber = 3, shape[0] - plane
        item.Rows, item.Columns = shape[1:]
        item.PixelSpacing, item.SliceThickness = [2.0, 1.5], 2.5
        item.ImageOrientationPatient = [float(v) for v in geometry.direction[:, :2].T.ravel()]
        item.ImagePositionPatient = [float(v) for v in geometry.index_to_lps((0, 0, plane))]
        item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
        item.BitsAllocated = item.BitsStored = 16
        item.HighBit, item.PixelRepresentation = 15, 0
        item.PixelData = array[plane].astype("<u2").tobytes()
        item.save_as(folder / f"{(plane * 7) % shape[0]:03}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("export äö")
    series(folder / "series")
    job = {
        "kind": "run",
        "input": str(folder / "series"),
        "model": "tiny-blob",
        "directions": "icosahedral:1",
        "threads": 1,
        "output": str(folder / "result"),
    }
    outcome = run_job(job)
    assert isinstance(outcome, ResultEvent), outcome
    return folder


def test_terminology_is_taken_apart() -> None:
    codes = terminology_of(TUMOUR)
    assert codes.type == Code("86049000", "SCT", "Neoplasm, Primary")
    assert codes.modifier == Code("7771000", "SCT", "Left")
    assert codes.region == Code("12738006", "SCT", "Brain")
    assert codes.region_modifier is None


@pytest.mark.parametrize("entry", ["", "~~~", "nonsense", "a~b^c^d~^^", "x" * 4000])
def test_a_label_without_codes_is_a_lesion(entry: str) -> None:
    codes = terminology_of(Label(name="x", terminology=entry))
    assert codes.type == Code("52988006", "SCT", "Lesion")


def test_a_dicom_segmentation_has_the_masks_voxels_where_they_are(place: Path) -> None:
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
    done = export_result(place / "result", ["dicom-seg"], output=place / "seg")
    seg = highdicom.seg.segread(done.files[0])
    mask = read_volume(place / "result" / "mask.nii.gz")
    volume = seg.get_volume(combine_segments=True)
    index = np.argwhere(volume.array)
    lps = index @ volume.affine[:3, :3].T + volume.affine[:3, 3]
    expected = mask.geometry.index_to_lps(np.argwhere(mask.array)[:, ::-1])
    assert len(lps) == len(expected) > 100
    assert np.allclose(np.sort(lps, axis=0), np.sort(expected, axis=0), atol=1e-3)
    nearest = np.abs(lps[:, None] - expected[None]).max(axis=-1).min(axis=1)
    assert nearest.max() < 1e-3


def test_a_dicom_segmentation_refers_to_its_series_and_keeps_the_codes(place: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    source = place / "series"
    labelmap = np.zeros(read_volume(source).array.shape, np.uint8)
    labelmap[4:9, 5:10, 6:12] = 1
    path = place / "codes.dcm"
    write_dicom_seg(path, labelmap, [OEDEMA, TUMOUR], source, algorithm="m", version="1.2.3")
    seg = pydicom.dcmread(path)
    images = [pydicom.dcmread(file) for file in sorted(source.iterdir())]
    assert seg.StudyInstanceUID == images[0].StudyInstanceUID
    assert seg.FrameOfReferenceUID == images[0].FrameOfReferenceUID
    referred = {
        item.ReferencedSOPInstanceUID
        for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == images[0].SeriesInstanceUID
    assert referred <= {image.SOPInstanceUID for image in images}
    assert len(seg.SegmentSequence) == 1  # the empty one is left out
    segment = seg.SegmentSequence[0]
    assert segment.SegmentLabel == TUMOUR.name
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("86049000", "SCT")
    modifier = kind.SegmentedPropertyTypeModifierCodeSequence[0]
    assert modifier.CodeMeaning == "Left"
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert segment.AnatomicRegionSequence[0].CodeMeaning == "Brain"
    assert seg.NumberOfFrames == 5
    for frame in seg.PerFrameFunctionalGroupsSequence:
        reference = frame.DerivationImageSequence[0].SourceImageSequence[0]
        image = next(i for i in images if i.SOPInstanceUID == reference.ReferencedSOPInstanceUID)
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(position, image.ImagePositionPatient, atol=1e-4)


def test_a_mask_of_a_converted_scan_comes_back_to_its_series(place: Path, tmp_path: Path) -> None:
    """As converters do, the scan's rows were flipped."""
    highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed")
    volume = read_volume(place / "series")
    affine = volume.geometry.affine.copy()
    affine[:3, 3] = volume.geometry.index_to_lps((0, volume.array.shape[1] - 1, 0))
    affine[:3, 1] *= -1
    flipped = type(volume)(volume.array[:, ::-1].copy(), Geometry(volume.array.shape, affine))
    write_volume(flipped, tmp_path / "scan.nii.gz")
    job = {
        "kind": "run",
        "input": str(tmp_path / "scan.nii.gz"),
        "model": "tiny-blob",
        "directions": "icosahedral:1",
        "threads": 1,
        "output": str(tmp_path / "result"),
    }
    assert isinstance(run_job(job), ResultEvent)
    with pytest.raises(TomoSegError) as caught:
        export_result(tmp_path / "result", ["dicom-seg"])
    assert caught.value.code == "export-source"
    done = export_result(tmp_path / "result", ["dicom-seg"], source=place / "series")
    mask = read_volume(tmp_path / "result" / "mask.nii.gz")
    found = highdicom.seg.segread(done.files[0]).get_volume(combine_segments=True)
    assert np.count_nonzero(found.array) == np.count_nonzero(mask.array)
    assert "nearest neighbour" in done.notes[0]


def test_a_surface_encloses_the_masks_volume_in_lps(tmp_path: Path) -> None:
    geometry = Geometry.from_parts((24, 30, 40), (1.0, 1.5, 2.0), OBLIQUE, (-20, 10, 30))
    points = geometry.index_to_lps(np.argwhere(np.ones(geometry.shape))[:, ::-1])
    mask = (np.linalg.norm(points - geometry.center, axis=1) < 18).reshape(geometry.shape)
    write_stl(tmp_path / "a.stl", *surface(mask, geometry), "Tumour", terminology_of(TUMOUR))
    reader = vtk.vtkSTLReader()
    reader.SetFileName(str(tmp_path / "a.stl"))
    reader.Update()
    assert reader.GetHeader().startswith("SPACE=LPS")
    assert "SCT:86049000" in reader.GetHeader()
    properties = vtk.vtkMassProperties()
    properties.SetInputConnection(reader.GetOutputPort())
    expected = np.count_nonzero(mask) * geometry.voxel_volume_ml
    assert properties.GetVolume() / 1000 == pytest.approx(expected, rel=0.03)
    assert properties.GetSurfaceArea() == pytest.approx(4 * np.pi * 18**2, rel=0.06)
    vertices = vtk_to_numpy(reader.GetOutput().GetPoints().GetData())
    distances = np.linalg.norm(vertices - geometry.center, axis=1)
    assert distances.max() < 18 + 2
    assert distances.min() > 18 - 2
    edges = vtk.vtkFeatureEdges()
    edges.SetInputConnection(reader.GetOutputPort())
    edges.FeatureEdgesOff()
    edges.ManifoldEdgesOff()
    edges.Update()
    assert edges.GetOutput().GetNumberOfCells() == 0  # closed


def test_each_segment_gets_a_surface(place: Path, tmp_path: Path) -> None:
    done = export_result(place / "result", ["stl"], output=tmp_path)
    assert [path.name for path in done.files] == ["bright-blob.stl"]
    assert done.files[0].stat().st_size > 84


@pytest.mark.parametrize("flip", [1, -1])
def test_triangles_face_outwards_on_grids_of_either_hand(flip: int) -> None:
    geometry = Geometry.from_parts((20, 20, 20), (1, 1, 1), np.diag([flip, 1, 1]), (5, 6, 7))
    k, j, i = np.indices(geometry.shape)
    ball = (k - 10) ** 2 + (j - 10) ** 2 + (i - 10) ** 2 < 49
    vertices, triangles = surface(ball, geometry)
    a, b, c = (vertices[triangles[:, n]] for n in range(3))
    normals = np.cross(b - a, c - a)
    outwards = (a + b + c) / 3 - geometry.index_to_lps((10, 10, 10))
    assert np.mean(np.einsum("ij,ij->i", normals, outwards) > 0) > 0.99
    assert surface_area_mm2(vertices, triangles) == pytest.approx(4 * np.pi * 7**2, rel=0.05)


def test_a_mask_at_the_volumes_border_has_a_closed_surface() -> None:
    geometry = Geometry.from_parts((4, 5, 6), (1, 1, 1))
    vertices, triangles = surface(np.ones(geometry.shape, bool), geometry)
    edges = np.sort(triangles[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    assert set(np.unique(edges, axis=0, return_counts=True)[1]) == {2}
    assert vertices.min() >= -1


def test_statistics_say_what_numpy_says(place: Path) -> None:
    done = export_result(place / "result", ["csv"], output=place / "csv")
    with done.files[0].open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    mask = read_volume(place / "result" / "mask.nii.gz")
    image = read_volume(place / "series").array[mask.array > 0]
    assert len(rows) == 1
    row = rows[0]
    assert int(row["voxels"]) == np.count_nonzero(mask.array)
    assert float(row["volume_ml"]) == pytest.approx(
        np.count_nonzero(mask.array) * 7.5 / 1000, rel=1e-4
    )
    assert float(row["image_mean"]) == pytest.approx(image.mean(), rel=1e-4)
    assert float(row["image_maximum"]) == image.max()
    centroid = mask.geometry.index_to_lps(np.argwhere(mask.array)[:, ::-1]).mean(axis=0)
    found = [float(row[f"centroid_{axis}_mm"]) for axis in "lps"]
    assert np.allclose(found, centroid, rtol=1e-4)
    assert "^SCT^" in row["type"]


def test_nothing_is_overwritten_unasked(place: Path, tmp_path: Path) -> None:
    export_result(place / "result", ["csv"], output=tmp_path)
    before = (tmp_path / "statistics.csv").stat().st_mtime_ns
    with pytest.raises(TomoSegError) as caught:
        export_result(place / "result", ["stl", "csv"], output=tmp_path)
    assert caught.value.code == "output-exists"
    assert [path.name for path in tmp_path.iterdir()] == ["statistics.csv"]
    assert (tmp_path / "statistics.csv").stat().st_mtime_ns == before
    export_result(place / "result", ["csv"], output=tmp_path, overwrite=True)


def test_a_mask_that_was_changed_is_refused(place: Path, tmp_path: Path) -> None:
    for name in ("result.json", "mask.seg.nrrd"):
        (tmp_path / name).write_bytes((place / "result" / name).read_bytes())
    with (tmp_path / "mask.seg.nrrd").open("ab") as file:
        file.write(b"x")
    with pytest.raises(TomoSegError) as caught:
        export_result(tmp_path, ["csv"])
    assert caught.value.code == "result-changed"


def test_an_empty_mask_gives_statistics_but_no_segmentation(place: Path, tmp_path: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed")
    empty = np.zeros(read_volume(place / "series").array.shape, np.uint8)
    with pytest.raises(TomoSegError) as caught:
        write_dicom_seg(
            tmp_path / "x.dcm", empty, [OEDEMA], place / "series", algorithm="m", version="1"
        )
    assert caught.value.code == "export-empty"
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "highdicom", None)
    with pytest.raises(TomoSegError) as caught:
        export_result(place / "result", ["dicom-seg"], output=tmp_path)
    assert caught.value.code == "dependency-missing"


def test_the_command_says_what_it_wrote(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["export", str(place / "result"), "--stl", "--csv", "--output", str(tmp_path)]
    assert main(arguments) == 0
    assert capsys.readouterr().out.count("written") == 2
    assert main(["export", str(place / "result")]) == 2
    assert "[usage]" in capsys.readouterr().err
