"""DICOM series become volumes by their positions alone, or are refused with the reason."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    RLELossless,
    generate_uid,
)

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.dicom import find_series
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.itk import geometry_of
from TomoSegLib.imaging.volume import Geometry, Volume

STUDY = generate_uid(entropy_srcs=["study"])
OBLIQUE = Geometry.from_parts(
    (6, 9, 8),
    (0.7, 1.1, 3.0),
    [[0.8, -0.36, 0.48], [0.6, 0.48, -0.64], [0.0, 0.8, 0.6]],
    (-31.5, 20.25, 700.125),
)


def dataset(array: np.ndarray, series: str, sop_class: str = CTImageStorage) -> FileDataset:
    """A DICOM object with pixels and what every image has."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = generate_uid()
    result = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    result.SOPClassUID, result.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    result.StudyInstanceUID, result.SeriesInstanceUID = STUDY, series
    result.PatientName = "Müller^Jörg"
    result.SpecificCharacterSet = "ISO_IR 192"
    result.Modality, result.SeriesDescription = "CT", "Thorax"
    result.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    result.Rows, result.Columns = array.shape[-2:]
    result.SamplesPerPixel, result.PhotometricInterpretation = 1, "MONOCHROME2"
    result.BitsAllocated = result.BitsStored = 16
    result.HighBit, result.PixelRepresentation = 15, int(array.dtype.kind == "i")
    result.PixelData = array.astype(array.dtype.newbyteorder("<")).tobytes()
    return result


def slices(
    array: np.ndarray, geometry: Geometry, series: str, slope: float = 1, intercept: float = 0
) -> list[FileDataset]:
    """A classic series: one object per plane of the array."""
    result = []
    for k, plane in enumerate(array):
        item = dataset(plane, series)
        item.ImagePositionPatient = [f"{v:.6f}" for v in geometry.index_to_lps([0, 0, k])]
        item.ImageOrientationPatient = [f"{v:.8f}" for v in geometry.direction[:, :2].T.ravel()]
        item.PixelSpacing = [f"{geometry.spacing[1]}", f"{geometry.spacing[0]}"]
        item.SliceThickness = "2"
        item.InstanceNumber = 100 - k
        item.RescaleSlope, item.RescaleIntercept = f"{slope}", f"{intercept}"
        result.append(item)
    return result


def save(items: Sequence[FileDataset], folder: Path, prefix: str = "IM") -> None:
    """Files in an order that has nothing to do with the positions."""
    folder.mkdir(parents=True, exist_ok=True)
    order = np.random.default_rng(3).permutation(len(items))
    for number, index in enumerate(order):
        items[index].save_as(folder / f"{prefix}{number:04d}", enforce_file_format=True)


@pytest.fixture
def stored() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 3000, OBLIQUE.shape).astype(np.uint16)


def failure(path: Path | str) -> TomoSegError:
    with pytest.raises(TomoSegError) as caught:
        read_volume(path)
    assert len(caught.value.hint) > 10
    return caught.value


def test_shuffled_oblique_slices_become_the_volume(stored: np.ndarray, tmp_path: Path) -> None:
    folder = tmp_path / "Müller Jörg 頭"
    save(slices(stored, OBLIQUE, "1.2.3", intercept=-1024), folder)
    volume = read_volume(folder)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, stored.astype(int) - 1024)
    assert volume.geometry.is_close(OBLIQUE, 1e-4)
    assert volume.metadata["Modality"] == "CT"
    assert not any("Müller" in value for value in volume.metadata.values())


def test_a_file_stands_for_its_series(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, "1.2.3"), tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path / "IM0002").array, stored)


def test_itk_reads_the_same_volume(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, "1.2.3", slope=2, intercept=-7), tmp_path)
    volume = read_volume(tmp_path)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path), "1.2.3")
    image = sitk.ReadImage(names)
    assert volume.geometry.is_close(geometry_of(image), 1e-3)
    np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))


def test_slices_against_the_normal_give_a_right_handed_grid(
    stored: np.ndarray, tmp_path: Path
) -> None:
    save(slices(stored[::-1], OBLIQUE, "1.2.3")[::-1], tmp_path)
    affine = OBLIQUE.affine.copy()
    backwards = Geometry(OBLIQUE.shape, affine @ np.diag([1.0, 1, -1, 1]))
    save(slices(stored, backwards, "1.2.4"), tmp_path / "other")
    volume = read_volume(f"{tmp_path}::1.2.4")
    assert np.linalg.det(volume.geometry.direction) == pytest.approx(1)
    np.testing.assert_array_equal(volume.array, stored[::-1])


def test_fractional_and_per_slice_rescaling_gives_floats(
    stored: np.ndarray, tmp_path: Path
) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")
    for k, item in enumerate(items):
        item.RescaleSlope = f"{0.5 + k}"
    save(items, tmp_path)
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.float32
    slopes = 0.5 + np.arange(len(items))
    np.testing.assert_allclose(volume.array, stored * slopes[:, None, None], rtol=1e-6)


def test_values_beyond_16_bits_are_kept(tmp_path: Path) -> None:
    stored = np.full(OBLIQUE.shape, -32000, np.int16)
    stored[2] = 32000
    save(slices(stored, OBLIQUE, "1.2.3", intercept=-1024), tmp_path)
    volume = read_volume(tmp_path)
    assert volume.array.dtype == np.int32
    assert (volume.array.min(), volume.array.max()) == (-33024, 30976)


def test_compressed_slices_are_read(stored: np.ndarray, tmp_path: Path) -> None:
    items = slices(stored, OBLIQUE, "1.2.3", intercept=-1024)
    for item in items:
        item.compress(RLELossless)
    save(items, tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored.astype(int) - 1024)


def test_jpeg_2000_is_decoded(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, "1.2.3", intercept=-1024), tmp_path / "raw")
    (tmp_path / "jpeg").mkdir()
    for path in (tmp_path / "raw").iterdir():
        image = sitk.ReadImage(str(path), imageIO="GDCMImageIO")
        target = tmp_path / "jpeg" / f"{path.name}.dcm"
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(target))
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG2000")
        writer.KeepOriginalImageUIDOn()
        narrow = sitk.Cast(image, sitk.sitkInt16)
        for key in image.GetMetaDataKeys():
            narrow.SetMetaData(key, image.GetMetaData(key))
        writer.Execute(narrow)
    syntax = pydicom.dcmread(next((tmp_path / "jpeg").iterdir())).file_meta.TransferSyntaxUID
    assert "JPEG 2000" in syntax.name
    volume = read_volume(tmp_path / "jpeg")
    np.testing.assert_array_equal(volume.array, stored.astype(int) - 1024)


def test_one_of_several_series_is_chosen_by_its_uid(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, "1.2.3"), tmp_path / "a")
    save(slices(stored + 1, OBLIQUE, "1.2.4"), tmp_path / "b")
    error = failure(tmp_path)
    assert error.code == "dicom-several-series"
    assert "1.2.3" in error.message and "1.2.4" in error.message
    assert f"{tmp_path}::1.2.3" in error.hint
    np.testing.assert_array_equal(read_volume(f"{tmp_path}::1.2.4").array, stored + 1)
    assert failure(f"{tmp_path}::1.2.5").code == "dicom-series-unknown"
    assert [series.uid for series in find_series(tmp_path)] == ["1.2.3", "1.2.4"]


def test_other_files_and_objects_do_not_disturb(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, "1.2.3"), tmp_path)
    (tmp_path / "README.txt").write_text("from the PACS")
    report = dataset(stored[0], "1.2.9")
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    save([report], tmp_path, "SR")
    scout = slices(stored[:1], OBLIQUE, "1.2.8")
    save(scout, tmp_path, "SCOUT")
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored)


@pytest.mark.skipif(os.name != "posix", reason="no named pipes")
def test_a_pipe_in_the_folder_is_not_waited_for(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, generate_uid()), tmp_path)
    os.mkfifo(tmp_path / "pipe")
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored)


def test_localizers_within_the_series_are_left_out(stored: np.ndarray, tmp_path: Path) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")
    localizer = slices(stored[:1, :4, :4], Geometry.from_parts((1, 4, 4), (5, 5, 5)), "1.2.3")[0]
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    save([*items, localizer], tmp_path)
    assert read_volume(tmp_path).geometry.is_close(OBLIQUE, 1e-4)
    localizer.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    save([*items, localizer], tmp_path)
    with pytest.warns(TomoSegWarning, match="dicom-stray-images"):
        volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, stored)


def test_a_series_of_two_orientations_is_refused(stored: np.ndarray, tmp_path: Path) -> None:
    coronal = Geometry.from_parts(OBLIQUE.shape, (1, 1, 1), [[1, 0, 0], [0, 0, 1], [0, -1, 0]])
    save([*slices(stored, OBLIQUE, "1.2.3"), *slices(stored, coronal, "1.2.3")], tmp_path)
    assert failure(tmp_path).code == "dicom-mixed-geometry"


def test_a_missing_slice_is_reported(stored: np.ndarray, tmp_path: Path) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")
    save(items[:3] + items[4:], tmp_path)
    error = failure(tmp_path)
    assert error.code == "dicom-missing-slices"
    assert "6.00 mm" in error.message and "3.00 mm" in error.message


def test_uneven_spacing_is_refused_and_slight_unevenness_reported(
    stored: np.ndarray, tmp_path: Path
) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")

    def shift(millimetres: float) -> None:
        position = OBLIQUE.index_to_lps([0, 0, 2]) + millimetres * OBLIQUE.direction[:, 2]
        items[2].ImagePositionPatient = [f"{v:.6f}" for v in position]
        save(items, tmp_path)

    shift(1.0)
    assert failure(tmp_path).code == "dicom-uneven-spacing"
    shift(0.06)
    with pytest.warns(TomoSegWarning, match="dicom-uneven-spacing"):
        read_volume(tmp_path)
    shift(0.001)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TomoSegWarning)
        read_volume(tmp_path)


def test_gantry_tilt_is_refused(stored: np.ndarray, tmp_path: Path) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")
    for k, item in enumerate(items):
        position = OBLIQUE.index_to_lps([0, 0, k]) + 0.6 * k * OBLIQUE.direction[:, 1]
        item.ImagePositionPatient = [f"{v:.6f}" for v in position]
    save(items, tmp_path)
    error = failure(tmp_path)
    assert error.code == "dicom-gantry-tilt"
    assert "11.3 degrees" in error.message


def test_several_time_points_in_one_series_are_refused(stored: np.ndarray, tmp_path: Path) -> None:
    items = slices(stored, OBLIQUE, "1.2.3") + slices(stored, OBLIQUE, "1.2.3")
    save(items, tmp_path)
    assert failure(tmp_path).code == "dicom-several-volumes"


def test_images_without_position_or_in_colour_are_refused(
    stored: np.ndarray, tmp_path: Path
) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")
    for item in items:
        del item.ImagePositionPatient
    save(items, tmp_path / "captures")
    assert failure(tmp_path / "captures").code == "dicom-no-geometry"
    items = slices(stored, OBLIQUE, "1.2.3")
    for item in items:
        item.SamplesPerPixel = 3
    save(items, tmp_path / "colour")
    assert failure(tmp_path / "colour").code == "volume-not-3d"


def test_a_folder_without_images_is_reported(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    assert failure(tmp_path).code == "dicom-no-images"


def test_a_truncated_slice_is_reported(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored, OBLIQUE, "1.2.3"), tmp_path)
    path = tmp_path / "IM0003"
    path.write_bytes(path.read_bytes()[:-40])
    assert failure(tmp_path).code == "volume-truncated"


def test_a_single_image_is_no_volume(stored: np.ndarray, tmp_path: Path) -> None:
    save(slices(stored[:1], OBLIQUE, "1.2.3"), tmp_path)
    assert failure(tmp_path).code == "volume-not-3d"
    assert read_volume(tmp_path, single_slice=True).array.shape == (1, 9, 8)


def sequence(**values: Any) -> list[Dataset]:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return [item]


def test_an_enhanced_multi_frame_file_is_read(stored: np.ndarray, tmp_path: Path) -> None:
    order = np.random.default_rng(5).permutation(len(stored))
    image = dataset(stored[order], "1.2.3", EnhancedMRImageStorage)
    image.NumberOfFrames = len(stored)
    image.SharedFunctionalGroupsSequence = sequence(
        PlaneOrientationSequence=sequence(
            ImageOrientationPatient=[float(v) for v in OBLIQUE.direction[:, :2].T.ravel()]
        ),
        PixelMeasuresSequence=sequence(PixelSpacing=[1.1, 0.7], SliceThickness=3.0),
    )
    frames = []
    for k in order:
        position = [float(v) for v in OBLIQUE.index_to_lps([0, 0, k])]
        frames += sequence(
            PlanePositionSequence=sequence(ImagePositionPatient=position),
            PixelValueTransformationSequence=sequence(RescaleSlope="2", RescaleIntercept="-5"),
        )
    image.PerFrameFunctionalGroupsSequence = frames
    image.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    for path in (tmp_path, tmp_path / "enhanced.dcm"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, stored.astype(int) * 2 - 5)
        assert volume.geometry.is_close(OBLIQUE, 1e-4)
    del image.PerFrameFunctionalGroupsSequence[-1]
    image.save_as(tmp_path / "enhanced.dcm", enforce_file_format=True)
    assert failure(tmp_path).code == "dicom-no-geometry"


def test_a_volume_without_rescaling_fields_is_read(
    stored: np.ndarray, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")
    for item in items:
        del item.RescaleSlope, item.RescaleIntercept, item.SliceThickness
    save(items, tmp_path)
    np.testing.assert_array_equal(read_volume(tmp_path).array, stored)


@pytest.mark.parametrize("index", [0, 4])
def test_a_first_or_last_slice_that_is_cut_in_its_header_is_named(
    stored: np.ndarray, tmp_path: Path, index: int
) -> None:
    items = slices(stored, OBLIQUE, "1.2.3")[:5]
    for n, item in enumerate(items):
        item.save_as(tmp_path / f"slice{n}.dcm", enforce_file_format=True)
    path = tmp_path / f"slice{index}.dcm"
    content = path.read_bytes()
    pixels = content.rindex(bytes(items[index].PixelData))
    missed = []
    for length in range(140, pixels, 23):
        path.write_bytes(content[:length])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                read_volume(tmp_path)
            except TomoSegError as error:
                told = error.message
            else:
                told = " ".join(str(item.message) for item in caught)
        if path.name not in told:
            missed.append(length)
    assert not missed
