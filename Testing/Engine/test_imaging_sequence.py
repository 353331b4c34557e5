"""Sequences are read and written frame by frame, in each format, with what tells frames apart."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import open_sequence, read_volume
from TomoSegLib.imaging.nifti import nifti_header
from TomoSegLib.imaging.sequence import FrameIndex, VolumeSequence, chosen_frames, hash_sequence
from TomoSegLib.imaging.sequence_nifti import NiftiSequenceWriter
from TomoSegLib.imaging.sequence_nrrd import SequenceWriter
from TomoSegLib.imaging.volume import Geometry

INDEX = FrameIndex("time", "ms", ("0", "33.5", "67"))


def frames(geometry: Geometry) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(3, *geometry.shape)).astype(np.float32)


def write(path: Path, geometry: Geometry, index: FrameIndex = INDEX) -> npt.NDArray[np.float32]:
    values = frames(geometry)
    kind = NiftiSequenceWriter if path.name.endswith(".nii.gz") else SequenceWriter
    with kind(path, geometry, index, np.float32) as writer:
        for values_of_frame in values:
            writer.append(values_of_frame)
    return values


def opened(path: Path) -> VolumeSequence:
    sequence = open_sequence(path)
    assert sequence is not None
    return sequence


def code(call: Callable[[], object]) -> str:
    with pytest.raises(TomoSegError) as raised:
        call()
    assert raised.value.hint
    return raised.value.code


@pytest.mark.parametrize("name", ["a.seq.nrrd", "a.nii.gz"])
def test_what_was_written_comes_back_on_any_grid(
    name: str, any_geometry: Geometry, tmp_path: Path
) -> None:
    values = write(tmp_path / name, any_geometry)
    sequence = opened(tmp_path / name)
    assert sequence.index == INDEX
    assert sequence.geometry.is_close(any_geometry)
    chosen = list(sequence.frames([0, 2]))
    assert [volume.name for volume in chosen] == [f"{name}, frame 0", f"{name}, frame 2"]
    np.testing.assert_array_equal([volume.array for volume in chosen], values[[0, 2]])


def test_both_formats_have_one_hash_and_it_is_that_of_the_frames(tmp_path: Path) -> None:
    geometry = Geometry.from_parts((4, 5, 6), (1, 1.5, 2))
    for name in ("a.seq.nrrd", "b.nii.gz"):
        write(tmp_path / name, geometry)
    a, b = opened(tmp_path / "a.seq.nrrd"), opened(tmp_path / "b.nii.gz")
    assert hash_sequence(a, [0, 1, 2]) == hash_sequence(b, [0, 1, 2])
    assert hash_sequence(a, [0, 1]) != hash_sequence(a, [0, 2])


def test_itk_and_nibabel_read_the_same_voxels(tmp_path: Path) -> None:
    geometry = Geometry.from_parts((4, 5, 6), (1, 1.5, 2))
    values = write(tmp_path / "a.seq.nrrd", geometry)
    write(tmp_path / "a.nii.gz", geometry)
    image = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "a.seq.nrrd")))
    np.testing.assert_array_equal(np.moveaxis(image, -1, 0), values)
    stored = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj).T, values)
    assert stored.header.get_zooms()[3] == pytest.approx(33.5)


def test_uneven_times_are_kept_where_the_format_can(tmp_path: Path) -> None:
    geometry = Geometry.from_parts((4, 5, 6), (1, 1, 1))
    index = FrameIndex("time", "ms", ("0", "40", "95"))
    for name in ("a.seq.nrrd", "a.nii.gz"):
        write(tmp_path / name, geometry, index)
    assert opened(tmp_path / "a.seq.nrrd").index == index
    # NIfTI has one distance for all frames: they are counted rather than given false times.
    assert opened(tmp_path / "a.nii.gz").index == FrameIndex.of_numbers(3)


def test_words_as_index_come_back(tmp_path: Path) -> None:
    index = FrameIndex("contrast", "", ("before it", "at 50%", "after"), numeric=False)
    write(tmp_path / "a.seq.nrrd", Geometry.from_parts((4, 5, 6), (1, 1, 1)), index)
    assert opened(tmp_path / "a.seq.nrrd").index == index


def test_metaimage_with_four_axes_is_a_sequence(tmp_path: Path) -> None:
    values = frames(Geometry.from_parts((4, 5, 6), (1, 1, 1)))
    image = sitk.JoinSeries([sitk.GetImageFromArray(array) for array in values])
    image.SetSpacing((1, 2, 3, 40))
    sitk.WriteImage(image, str(tmp_path / "a.mha"), useCompression=True)
    sequence = opened(tmp_path / "a.mha")
    assert sequence.index.values == ("0", "40", "80")
    np.testing.assert_allclose(sequence.geometry.spacing, (1, 2, 3))
    np.testing.assert_array_equal([f.array for f in sequence.frames([1, 2])], values[1:])


def test_scaled_nifti_frames_are_scaled(tmp_path: Path) -> None:
    stored = np.arange(2 * 3 * 4 * 2, dtype=np.int16).reshape(2, 3, 4, 2)
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(0.5, 3)
    image.header.set_xyzt_units("mm", "sec")
    raw = tmp_path / "raw.nii"
    nibabel.save(image, raw)
    sequence = opened(raw)
    assert sequence.index.unit == "s"
    expected = np.asarray(nibabel.load(raw).dataobj)[..., 1].T
    np.testing.assert_allclose(next(sequence.frames([1])).array, expected)


def test_a_single_volume_is_no_sequence(tmp_path: Path) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.ones((3, 4, 5, 1), np.int16), np.eye(4)), tmp_path / "a.nii"
    )
    sitk.WriteImage(sitk.Image(3, 4, 5, sitk.sitkInt16), str(tmp_path / "a.nrrd"))
    vector = sitk.Image([3, 4, 5], sitk.sitkVectorFloat32, 3)
    sitk.WriteImage(vector, str(tmp_path / "vector.nrrd"))
    for name in ("a.nii", "a.nrrd", "vector.nrrd", "none.nrrd"):
        assert open_sequence(tmp_path / name) is None


def test_commands_for_one_volume_say_how_a_sequence_is_run(tmp_path: Path) -> None:
    write(tmp_path / "a.nii.gz", Geometry.from_parts((4, 5, 6), (1, 1, 1)))
    with pytest.raises(TomoSegError, match="4D image") as raised:
        read_volume(tmp_path / "a.nii.gz")
    assert raised.value.code == "volume-not-3d"


@pytest.mark.parametrize("name", ["a.seq.nrrd", "a.nii.gz"])
def test_a_file_that_is_cut_off_is_named_as_such(name: str, tmp_path: Path) -> None:
    write(tmp_path / name, Geometry.from_parts((14, 15, 16), (1, 1, 1)))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    assert code(lambda: list(opened(tmp_path / name).frames([0, 1, 2]))) == "volume-truncated"


def test_a_wrong_checksum_is_noticed_at_the_last_frame(tmp_path: Path) -> None:
    geometry = Geometry.from_parts((4, 5, 6), (1, 1, 1))
    header = nifti_header(geometry, np.dtype(np.float32), (3,))
    path = tmp_path / "a.nii.gz"
    with gzip.open(path, "wb") as stream:
        header.write_to(stream)
        stream.write(frames(geometry).tobytes())
    content = bytearray(path.read_bytes())
    content[-8] ^= 1
    path.write_bytes(content)
    assert code(lambda: list(opened(path).frames([0, 1, 2]))) == "volume-truncated"


def test_a_frame_that_is_no_image_is_named(tmp_path: Path) -> None:
    geometry = Geometry.from_parts((4, 5, 6), (1, 1, 1))
    with SequenceWriter(tmp_path / "a.seq.nrrd", geometry, INDEX) as writer:
        for value in (frames(geometry)[0], np.full(geometry.shape, np.nan), frames(geometry)[1]):
            writer.append(value)
    with pytest.raises(TomoSegError, match="frame 1") as raised:
        list(opened(tmp_path / "a.seq.nrrd").frames([0, 1, 2]))
    assert raised.value.code == "volume-not-finite"


HEADER = """NRRD0005
type: float
dimension: 4
space: left-posterior-superior
sizes: 6 5 4 3
space directions: (1,0,0) (0,1,0) (0,0,1) none
kinds: domain domain domain list
endian: little
encoding: raw
space origin: (0,0,0)
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("type: float", "type: block", "volume-unreadable"),
        ("sizes: 6 5 4 3", "sizes: 6 5 -4 3", "volume-unreadable"),
        ("sizes: 6 5 4 3", "sizes: 6 5 x 3", "volume-unreadable"),
        ("sizes: 6 5 4 3", "sizes: 60000 60000 60000 3", "volume-too-large"),
        ("(0,1,0)", "(0,nan,0)", "geometry-invalid"),
        ("(0,1,0)", "(2,0,0)", "geometry-singular"),
        ("left-posterior-superior", "scanner-xyz", "volume-unreadable"),
        ("encoding: raw", "encoding: hex", "sequence-unsupported"),
        ("encoding: raw", "encoding: raw\ndata file: /etc/passwd", "sequence-unsupported"),
    ],
)
def test_hostile_headers_give_a_clear_error(
    old: str, new: str, expected: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.seq.nrrd"
    path.write_bytes(HEADER.replace(old, new).encode() + b"\n" + bytes(4 * 6 * 5 * 4 * 3))
    assert code(lambda: open_sequence(path)) == expected


def test_right_anterior_superior_is_turned(tmp_path: Path) -> None:
    path = tmp_path / "a.seq.nrrd"
    text = HEADER.replace("left-posterior-superior", "RAS").replace("(0,0,0)", "(1,2,3)")
    path.write_bytes(text.encode() + b"\n" + bytes(4 * 6 * 5 * 4 * 3))
    sequence = opened(path)
    np.testing.assert_array_equal(sequence.geometry.origin, (-1, -2, 3))
    assert sequence.index == FrameIndex.of_numbers(3)


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, [0, 1, 2]), ("1", [1]), ("1:", [1, 2]), (":2", [0, 1]), ("0:3:2", [0, 2])],
)
def test_frames_are_chosen_as_by_a_slice(
    text: str | None, expected: list[int], tmp_path: Path
) -> None:
    write(tmp_path / "a.seq.nrrd", Geometry.from_parts((4, 5, 6), (1, 1, 1)))
    assert chosen_frames(text, opened(tmp_path / "a.seq.nrrd")) == expected


@pytest.mark.parametrize("text", ["3", "0:4", "2:2", "5:"])
def test_frames_that_are_not_there_are_refused(text: str, tmp_path: Path) -> None:
    write(tmp_path / "a.seq.nrrd", Geometry.from_parts((4, 5, 6), (1, 1, 1)))
    sequence = opened(tmp_path / "a.seq.nrrd")
    assert code(lambda: chosen_frames(text, sequence)) == "frames-outside"
