"""A DICOM study is sorted by geometry and time; what is bad is named with its file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    BasicTextSRStorage,
    EnhancedMRImageStorage,
    ExplicitVRLittleEndian,
    MRImageStorage,
    generate_uid,
)
from scipy.spatial.transform import Rotation

from TomoSegLib.errors import TomoSegError
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.study import Study, View

# Base to apex, and the normal of a 4-chamber view, of a usual heart (LPS).
AXIS = np.array([0.6, -0.65, -0.46]) / np.linalg.norm([0.6, -0.65, -0.46])
FRAME_OF_REFERENCE = generate_uid(entropy_srcs=["frame"])
SHAPE = (12, 10)
SPACING = (1.5, 1.25)  # between rows, between columns


def axes_of(normal: np.ndarray, turn: float = 20.0) -> np.ndarray:
    """Columns and rows ``(2, 3)`` of an image with a normal, at some angle in the plane."""
    helper = np.array([0.3, 0.2, 0.93])
    u = np.cross(helper, normal)
    u /= np.linalg.norm(u)
    turned = Rotation.from_rotvec(np.radians(turn) * normal).apply(u)
    return np.stack([turned, np.cross(normal, turned)])


def long_axis_normal(degrees: float) -> np.ndarray:
    """The normal of a long-axis view, turned from the 4-chamber view about the long axis."""
    normal = np.array([0.07, 0.5, -0.86])
    normal -= (normal @ AXIS) * AXIS
    return Rotation.from_rotvec(np.radians(degrees) * AXIS).apply(normal / np.linalg.norm(normal))


def image(
    axes: np.ndarray, center: np.ndarray, value: int, series: str, description: str = ""
) -> FileDataset:
    """One MR image with its middle at a place; its pixels have a value of its own."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.FrameOfReferenceUID = series, FRAME_OF_REFERENCE
    item.PatientID, item.Modality, item.SeriesDescription = "A1", "MR", description
    item.Rows, item.Columns = SHAPE
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit, item.PixelRepresentation = 15, 0
    origin = center - axes[0] * SPACING[1] * (SHAPE[1] - 1) / 2
    origin = origin - axes[1] * SPACING[0] * (SHAPE[0] - 1) / 2
    item.ImagePositionPatient = [f"{v:.8f}" for v in origin]
    item.ImageOrientationPatient = [f"{v:.10f}" for v in axes.ravel()]
    item.PixelSpacing = [str(v) for v in SPACING]
    pixels = np.arange(np.prod(SHAPE)).reshape(SHAPE) + 1000 * value
    item.PixelData = pixels.astype("<u2").tobytes()
    return item


def stack(
    offsets: Sequence[float], phases: int = 1, description: str = "", series: str | None = None
) -> list[FileDataset]:
    """A short-axis cine: ``value = 10 slice + phase``; instance numbers say nothing."""
    uid = generate_uid() if series is None else series
    axes = axes_of(AXIS)
    items = []
    for index, offset in enumerate(offsets):
        for phase in range(phases):
            item = image(axes, AXIS * offset, 10 * index + phase, uid, description)
            item.InstanceNumber = 500 - 10 * index - phase
            if phases > 1:
                item.TriggerTime = f"{phase * 40.0}"
            items.append(item)
    return items


def long_axis(degrees: float, description: str = "", value: int = 90) -> FileDataset:
    return image(axes_of(long_axis_normal(degrees)), 3 * AXIS, value, generate_uid(), description)


def save(items: Sequence[FileDataset], folder: Path) -> Path:
    """Files named in an order that has nothing to do with place or time."""
    folder.mkdir(parents=True, exist_ok=True)
    start = len(list(folder.iterdir()))
    for number, index in enumerate(np.random.default_rng(1).permutation(len(items))):
        items[index].save_as(folder / f"IM{start + number:04d}.dcm", enforce_file_format=True)
    return folder


def view(study: Study, name: str) -> View:
    return next(item for item in study.views if item.name == name)


def values(found: View) -> list[list[int]]:
    """The value of every image, ``[phase][slice]``."""
    return [[int(s.read()[0, 0]) // 1000 for s in row] for row in found.sources]


def codes(study: Study) -> list[str]:
    return [problem.code for problem in study.problems]


def test_a_cine_stack_is_sorted_by_position_and_its_phases_by_time(tmp_path: Path) -> None:
    save(stack([20, 0, 8, -6], phases=3, description="cine_sax"), tmp_path)
    save([long_axis(0, "4CH"), long_axis(60, "2CH")], tmp_path)
    study = read_study(tmp_path)
    assert not study.problems
    assert [item.name for item in study.views] == ["short-axis", "4-chamber", "2-chamber"]
    found = view(study, "short-axis")
    assert values(found) == [[30 + p, 10 + p, 20 + p, p] for p in range(3)]
    locations = found.locations()
    assert locations is not None
    np.testing.assert_allclose(locations, [0, 6 / 26, 14 / 26, 1], atol=1e-6)
    plane = found.planes[1]
    assert plane.shape == SHAPE
    np.testing.assert_allclose(plane.spacing, SPACING[::-1], atol=1e-6)
    np.testing.assert_allclose(plane.center, 0, atol=1e-5)
    assert view(study, "4-chamber").locations() is None


def test_views_without_words_are_recognised_by_orientation(tmp_path: Path) -> None:
    save(stack(range(0, 60, 10), description="cine"), tmp_path)
    save([long_axis(degrees, "cine") for degrees in (5, 52, 112)], tmp_path)
    kinds = sorted(item.kind for item in read_study(tmp_path).views)
    assert kinds == ["2-chamber", "3-chamber", "4-chamber", "short-axis"]


def test_a_study_that_was_turned_front_to_back_is_told_and_read_all_the_same(
    tmp_path: Path,
) -> None:
    """As if LPS had been written where RAS was meant."""
    items = stack(range(0, 60, 10), description="cine sax")
    items += [long_axis(degrees, "cine") for degrees in (0, 60, 120)]
    straight = read_study(save(items, tmp_path / "straight"))
    for item in items:
        turned = np.array([-1, -1, 1])
        item.ImagePositionPatient = (np.array(item.ImagePositionPatient, float) * turned).tolist()
        axes = np.array(item.ImageOrientationPatient, float).reshape(2, 3) * turned
        item.ImageOrientationPatient = axes.ravel().round(10).tolist()
    study = read_study(save(items, tmp_path / "turned"))
    assert not straight.problems and codes(study) == ["contradictory-geometry"]
    assert {v.name for v in study.views} == {v.name for v in straight.views} == {
        "short-axis", "2-chamber", "3-chamber", "4-chamber"
    }  # fmt: skip
    for found in (straight, study):
        stack_view = view(found, "short-axis")
        order = np.argsort(stack_view.locations())
        # From base to apex, as the stack was made.
        assert [values(stack_view)[0][n] for n in order] == [0, 10, 20, 30, 40, 50]


def test_a_knee_is_told_from_a_heart_by_its_planes(tmp_path: Path) -> None:
    for normal in np.eye(3):
        axes = axes_of(Rotation.from_euler("xyz", (6, 4, 3), degrees=True).apply(normal))
        uid = generate_uid()
        save([image(axes, offset * normal, k, uid) for k, offset in enumerate((0, 4, 8))], tmp_path)
    study = read_study(tmp_path)
    assert sorted(item.kind for item in study.views) == ["axial", "coronal", "sagittal"]
    for item in study.views:
        np.testing.assert_allclose(item.locations(), [1, 0, 1], atol=1e-6)


def test_one_series_with_three_planes_becomes_three_views(tmp_path: Path) -> None:
    uid = generate_uid()
    items = [long_axis(degrees, "cine lax") for degrees in (0, 60, 120)]
    for item in items:
        item.SeriesInstanceUID = uid
    study = read_study(save(items, tmp_path))
    assert sorted(item.kind for item in study.views) == ["2-chamber", "3-chamber", "4-chamber"]
    assert len({item.id for item in study.views}) == 3


def test_a_stack_of_one_series_a_slice_is_one_stack(tmp_path: Path) -> None:
    for index, offset in enumerate((0, 10, 20)):
        items = stack([offset], phases=2, description=f"sax_{index + 1}")
        save(items, tmp_path / str(index))
    study = read_study(tmp_path)
    assert [(len(v.planes), v.phases) for v in study.views] == [(3, 2)]


def test_two_stacks_in_one_place_stay_two(tmp_path: Path) -> None:
    save(stack([0, 10, 20], description="sax cine"), tmp_path)
    save(stack([0, 10, 20], description="sax late"), tmp_path)
    study = read_study(tmp_path)
    assert [item.name for item in study.views] == ["short-axis", "short-axis-2"]


def test_phases_come_from_instance_numbers_where_there_is_no_time(tmp_path: Path) -> None:
    items = stack([0, 10], phases=3, description="sax")
    for item in items:
        del item.TriggerTime
    found = read_study(save(items, tmp_path)).views[0]
    assert values(found) == [[p, 10 + p] for p in (2, 1, 0)]


def test_enhanced_frames_are_sorted_by_their_own_time_and_place(tmp_path: Path) -> None:
    axes = axes_of(AXIS)
    item = image(axes, 0 * AXIS, 0, generate_uid(), "SAX")
    item.file_meta.MediaStorageSOPClassUID = item.SOPClassUID = EnhancedMRImageStorage
    frames, pixels = [], []
    for offset, time, value in ((10, 40, 11), (0, 0, 0), (10, 0, 10), (0, 40, 1)):
        frame, position, cardiac = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{v:.6f}" for v in AXIS * offset]
        cardiac.NominalCardiacTriggerDelayTime = float(time)
        frame.PlanePositionSequence = DicomSequence([position])
        frame.CardiacSynchronizationSequence = DicomSequence([cardiac])
        frames.append(frame)
        pixels.append(np.full(SHAPE, 1000 * value, "<u2").tobytes())
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = item.ImageOrientationPatient
    measures.PixelSpacing = item.PixelSpacing
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    shared.PixelMeasuresSequence = DicomSequence([measures])
    item.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    item.SharedFunctionalGroupsSequence = DicomSequence([shared])
    item.NumberOfFrames, item.PixelData = 4, b"".join(pixels)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(item, name)
    found = read_study(save([item], tmp_path)).views[0]
    assert values(found) == [[0, 10], [1, 11]]


def test_missing_and_contradictory_geometry_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    save(stack([0, 10, 20], description="sax"), tmp_path)
    bad = tmp_path / "bad"
    bad.mkdir()
    for name, change in {
        "no-position": lambda d: delattr(d, "ImagePositionPatient"),
        "no-spacing": lambda d: delattr(d, "PixelSpacing"),
        "no-orientation": lambda d: delattr(d, "ImageOrientationPatient"),
        "skew": lambda d: setattr(d, "ImageOrientationPatient", [1, 0, 0, 0.5, 0.8, 0]),
        "not-unit": lambda d: setattr(d, "ImageOrientationPatient", [2, 0, 0, 0, 2, 0]),
        "zero": lambda d: setattr(d, "ImageOrientationPatient", [0, 0, 0, 0, 0, 0]),
        "spacing-zero": lambda d: setattr(d, "PixelSpacing", [0, 0]),
    }.items():
        item = long_axis(0, name)
        change(item)
        item.save_as(bad / f"{name}.dcm")
    study = read_study(tmp_path)
    assert [item.name for item in study.views] == ["short-axis"]
    named = {Path(file).stem: p.code for p in study.problems for file in p.files}
    assert {k: v for k, v in named.items() if k.startswith("no-")} == dict.fromkeys(
        ("no-position", "no-spacing", "no-orientation"), "missing-geometry"
    )
    for name in ("skew", "not-unit", "zero", "spacing-zero"):
        assert named[name] == "contradictory-geometry"


def test_another_patients_images_are_left_out_and_named(tmp_path: Path) -> None:
    save(stack([0, 10, 20], description="sax"), tmp_path)
    stranger = long_axis(0, "4ch")
    stranger.PatientID, stranger.PatientName = "B2", "Doe^Jane"
    stranger.save_as(tmp_path / "stranger.dcm")
    study = read_study(tmp_path)
    assert [item.name for item in study.views] == ["short-axis"]
    problem = next(p for p in study.problems if p.code == "mixed-patients")
    assert problem.files == ("stranger.dcm",)
    assert "Doe" not in str(problem) and "B2" not in str(problem)


def test_as_many_images_of_two_patients_are_refused(tmp_path: Path) -> None:
    one, two = long_axis(0, "4ch"), long_axis(60, "2ch")
    two.PatientID = "B2"
    with pytest.raises(TomoSegError, match="IM0000.dcm") as caught:
        read_study(save([one, two], tmp_path))
    assert caught.value.code == "study-mixed-patients"


def test_patients_without_a_name_are_told_apart_by_their_studies(tmp_path: Path) -> None:
    items, stranger = stack([0, 10, 20], description="sax"), long_axis(0, "4ch")
    for item in (*items, stranger):
        item.PatientID = item.PatientName = ""
        item.StudyInstanceUID = "1.2.3"
    stranger.StudyInstanceUID = "1.2.4"
    stranger.save_as(save(items, tmp_path) / "stranger.dcm")
    study = read_study(tmp_path)
    assert [item.name for item in study.views] == ["short-axis"]
    assert [p.files for p in study.problems if p.code == "mixed-patients"] == [("stranger.dcm",)]


def test_a_name_that_is_written_in_two_ways_is_one_patient(tmp_path: Path) -> None:
    items, view = stack([0, 10, 20], description="sax"), long_axis(0, "4ch")
    for item in items:
        item.PatientName = "Doe^Jane"
    view.PatientName = "DOE^JANE^^^"
    study = read_study(save([*items, view], tmp_path))
    assert len(study.views) == 2 and "mixed-patients" not in codes(study)


def test_what_is_no_scan_is_named_and_left_out(tmp_path: Path) -> None:
    save(stack([0, 10], description="sax"), tmp_path)
    report = long_axis(0, "report")
    report.Modality, report.SOPClassUID = "SR", BasicTextSRStorage
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.save_as(tmp_path / "report.dcm")
    screen = long_axis(0, "screen shot")
    screen.SamplesPerPixel, screen.PhotometricInterpretation = 3, "RGB"
    screen.save_as(tmp_path / "screen.dcm")
    (tmp_path / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"\xff" * 50)
    (tmp_path / "text.dcm").write_bytes(b"no DICOM")
    (tmp_path / "notes.txt").write_text("are no problem")
    study = read_study(tmp_path)
    assert len(study.views) == 1
    named = {file: p.code for p in study.problems for file in p.files}
    assert named["report.dcm"] == named["screen.dcm"] == "not-an-image"
    assert named["text.dcm"] == "unreadable" and "broken.dcm" in named
    assert "notes.txt" not in named


def test_duplicated_positions_keep_the_first_and_name_the_other(tmp_path: Path) -> None:
    items = stack([0, 10, 20], description="sax")
    again = stack([10], description="sax", series=items[0].SeriesInstanceUID)[0]
    again.InstanceNumber = 900
    save(items, tmp_path)
    again.save_as(tmp_path / "again.dcm")
    items[0].save_as(tmp_path / "z-copy.dcm")
    study = read_study(tmp_path)
    assert values(study.views[0]) == [[0, 10, 20]]
    named = {file for p in study.problems if p.code == "duplicate-position" for file in p.files}
    assert named == {"again.dcm", "z-copy.dcm"}


def test_a_stack_that_was_stored_twice_is_no_cine(tmp_path: Path) -> None:
    items = stack([0, 10, 20], description="sax")
    again = stack([0, 10, 20], description="sax", series=items[0].SeriesInstanceUID)
    for number, item in enumerate(again):
        item.InstanceNumber = 900 + number
    save(items, tmp_path)
    for number, item in enumerate(again):
        item.save_as(tmp_path / f"again-{number}.dcm")
    study = read_study(tmp_path)
    assert [view.phases for view in study.views] == [1]
    named = {file for p in study.problems if p.code == "duplicate-position" for file in p.files}
    assert named == {f"again-{n}.dcm" for n in range(3)}


def test_a_slice_of_two_that_was_stored_twice_is_the_one_that_is_named(tmp_path: Path) -> None:
    items = stack([0, 10], description="sax")
    again = stack([10], description="sax", series=items[0].SeriesInstanceUID)[0]
    again.InstanceNumber = 900
    again.save_as(save(items, tmp_path) / "again.dcm")
    study = read_study(tmp_path)
    assert values(study.views[0]) == [[0, 10]]
    assert [p.files for p in study.problems if p.code == "duplicate-position"] == [("again.dcm",)]


@pytest.mark.parametrize("field", ["ImageType", "ComplexImageComponent"])
def test_phase_images_are_a_view_beside_the_magnitude(field: str, tmp_path: Path) -> None:
    items = stack([0, 10, 20], phases=2, description="flow")
    phase = stack([0, 10, 20], phases=2, description="flow", series=items[0].SeriesInstanceUID)
    for item in items:
        item.ImageType = ["ORIGINAL", "PRIMARY", "M", "ND"]
    for item in phase:
        item.ImageType = ["ORIGINAL", "PRIMARY", "P" if field == "ImageType" else "OTHER"]
        if field != "ImageType":
            item.ComplexImageComponent = "PHASE"
    study = read_study(save([*items, *phase], tmp_path))
    assert sorted((len(v.planes), v.phases) for v in study.views) == [(3, 2), (3, 2)]
    assert "duplicate-position" not in codes(study)


@pytest.mark.parametrize("value", ["ORIGINAL", "DERIVED", ""])
def test_an_image_type_of_one_value_says_nothing_of_a_component(value: str, tmp_path: Path) -> None:
    items = stack([0, 10, 20], description="sax")
    items[1].ImageType = value
    study = read_study(save(items, tmp_path))
    assert [len(view.planes) for view in study.views] == [3]


def test_a_slice_with_fewer_phases_takes_the_nearest_in_the_cycle(tmp_path: Path) -> None:
    items = stack([0, 10, 20], phases=4, description="sax")
    short = [item for item in items if int(item.InstanceNumber) not in (499, 497)]
    study = read_study(save(short, tmp_path))
    assert study.views[0].phases == 4
    # Halfway between two phases either would do; the last but one is as near to the next cycle.
    assert [row[0] for row in values(study.views[0])] == [0, 0, 2, 0]
    problem = next(p for p in study.problems if p.code == "phases-differ")
    assert len(problem.files) == 1 and "2 phases" in problem.message


def test_single_views_and_single_slices_are_told(tmp_path: Path) -> None:
    study = read_study(save(stack([0], description="sax"), tmp_path))
    assert {"single-view", "single-slice"} <= set(codes(study))
    assert study.views[0].locations() is None


def test_views_of_another_frame_of_reference_are_told(tmp_path: Path) -> None:
    save(stack([0, 10, 20], description="sax"), tmp_path)
    moved = long_axis(0, "4ch")
    moved.FrameOfReferenceUID = generate_uid()
    moved.save_as(tmp_path / "moved.dcm")
    problem = next(p for p in read_study(tmp_path).problems)
    assert problem.code == "contradictory-geometry" and problem.files == ("moved.dcm",)


def test_a_folder_without_a_usable_image_says_why(tmp_path: Path) -> None:
    item = long_axis(0)
    del item.ImagePositionPatient
    with pytest.raises(TomoSegError, match="IM0000.dcm") as caught:
        read_study(save([item], tmp_path))
    assert caught.value.code == "study-empty"


def test_damaged_pixels_are_found_when_they_are_read(tmp_path: Path) -> None:
    items = stack([0, 10], description="sax")
    items[0].PixelData = items[0].PixelData[:40]
    study = read_study(save(items, tmp_path))
    with pytest.raises(TomoSegError, match="IM0") as caught:
        study.views[0].sources[0][0].read()
    assert caught.value.code == "volume-truncated"
    assert study.views[0].sources[0][1].read().shape == SHAPE


def test_a_file_cut_anywhere_in_its_header_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    whole = stack([0, 8, 16, 24])
    for n, item in enumerate(whole):
        item.save_as(tmp_path / f"{n}.dcm", enforce_file_format=True)
    content = (tmp_path / "0.dcm").read_bytes()
    pixels = content.rindex(whole[0].PixelData)
    for length in range(140, pixels - 12, 5):
        (tmp_path / "0.dcm").write_bytes(content[:length])
        study = read_study(tmp_path)
        named = {file for problem in study.problems for file in problem.files}
        assert "0.dcm" in named or len(study.views[0].planes) == 4, length
