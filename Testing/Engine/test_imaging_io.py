"""Volumes survive files: voxels, types and grids; and bad files are refused with their reason."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.itk import _narrow_path, geometry_of
from TomoSegLib.imaging.volume import Geometry, Volume, hash_volume

SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")
# NIfTI keeps the matrix in single precision.
TOLERANCE_MM = {".nrrd": 1e-9, ".mha": 1e-9, ".nii.gz": 1e-4, ".nii": 1e-4}


def code_of(path: Path | str) -> str:
    """The code with which reading a path fails; message and hint must say something."""
    with pytest.raises(TomoSegError) as caught:
        read_volume(path)
    assert len(caught.value.message) > 15
    assert len(caught.value.hint) > 15
    return caught.value.code


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_grid_survives_every_format(
    suffix: str,
    any_geometry: Geometry,
    tmp_path: Path,
    make_volume: Callable[..., Volume],
) -> None:
    volume = make_volume(any_geometry, np.float32)
    write_volume(volume, tmp_path / f"volume{suffix}")
    read = read_volume(tmp_path / f"volume{suffix}")
    assert read.array.dtype == np.float32
    np.testing.assert_array_equal(read.array, volume.array)
    assert read.geometry.is_close(any_geometry, TOLERANCE_MM[suffix])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.uint8, np.int32, np.float32, np.float64])
def test_voxel_types_are_kept(
    suffix: str, dtype: type, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    volume = make_volume("oblique", dtype)
    write_volume(volume, tmp_path / f"volume{suffix}")
    read = read_volume(tmp_path / f"volume{suffix}")
    assert read.array.dtype == dtype
    np.testing.assert_array_equal(read.array, volume.array)


def test_paths_may_hold_spaces_and_any_letters(
    tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    folder = tmp_path / "Ärzte und Pflege 病院"
    folder.mkdir()
    volume = make_volume("oblique")
    for suffix in SUFFIXES:
        path = folder / f"Schädel é 頭{suffix}"
        write_volume(volume, path)
        np.testing.assert_array_equal(read_volume(str(path)).array, volume.array)
    assert sorted(p.name for p in folder.iterdir()) == sorted(f"Schädel é 頭{s}" for s in SUFFIXES)


def test_names_outside_the_code_page_are_reached_through_a_plain_copy(
    tmp_path: Path,
) -> None:
    path = tmp_path / "頭.nrrd"
    with _narrow_path(path, writing=True, windows=True) as narrow:
        assert str(narrow).isascii()
        narrow.write_bytes(b"content")
    assert path.read_bytes() == b"content"
    with _narrow_path(path, writing=False, windows=True) as narrow:
        assert str(narrow).isascii()
        assert narrow.read_bytes() == b"content"
    assert not narrow.exists()


def test_suffixes_are_recognised_in_capitals(
    tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    write_volume(make_volume(), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "A.NII.GZ")
    assert read_volume(tmp_path / "A.NII.GZ").array.dtype == np.int16


def test_the_same_content_has_the_same_hash_in_every_format(
    any_geometry: Geometry, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    volume = make_volume(any_geometry)
    hashes = {hash_volume(volume)}
    for suffix in SUFFIXES:
        write_volume(volume, tmp_path / f"volume{suffix}")
        hashes.add(hash_volume(read_volume(tmp_path / f"volume{suffix}")))
    swapped = volume.array.astype(volume.array.dtype.newbyteorder(">"))
    hashes.add(hash_volume(volume.with_array(np.asfortranarray(swapped))))
    assert len(hashes) == 1


def test_slices_in_reverse_order_are_the_same_content(make_volume: Callable[..., Volume]) -> None:
    """3D Slicer turns the slices of a left-handed grid around when it opens a scene again."""
    volume = make_volume("oblique left-handed")
    grid = volume.geometry
    assert np.linalg.det(grid.affine[:3, :3]) < 0
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps((0, 0, grid.shape[0] - 1))
    affine[:3, 2] *= -1
    reversed_slices = Volume(volume.array[::-1], Geometry(grid.shape, affine))
    assert hash_volume(reversed_slices) == hash_volume(volume)
    assert hash_volume(volume.with_array(volume.array[::-1].copy())) != hash_volume(volume)


def test_any_change_of_content_changes_the_hash(make_volume: Callable[..., Volume]) -> None:
    volume = make_volume("oblique")
    changed = volume.array.copy()
    changed[3, 4, 5] += 1
    moved = volume.geometry.affine.copy()
    moved[0, 3] += 0.01
    hashes = [
        hash_volume(volume),
        hash_volume(volume.with_array(changed)),
        hash_volume(volume.with_array(volume.array.astype(np.int32))),
        hash_volume(Volume(volume.array, Geometry(volume.geometry.shape, moved))),
    ]
    assert len(set(hashes)) == 4


def test_the_formats_agree_with_itk_on_where_a_volume_lies(
    any_geometry: Geometry, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    volume = make_volume(any_geometry)
    for suffix in SUFFIXES:
        write_volume(volume, tmp_path / f"volume{suffix}")
        image = sitk.ReadImage(str(tmp_path / f"volume{suffix}"))
        point = image.TransformContinuousIndexToPhysicalPoint((3.0, 2.0, 1.0))
        np.testing.assert_allclose(point, any_geometry.index_to_lps([3, 2, 1]), atol=1e-3)


# NIfTI


def nifti(tmp_path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path = tmp_path / "volume.nii.gz"
    image = nibabel.Nifti1Image(array, np.eye(4) if affine is None else affine, dtype=array.dtype)
    nibabel.save(image, path)
    return path


def noise(shape: tuple[int, ...] = (7, 6, 5), dtype: type = np.int16) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 200, shape).astype(dtype)


def test_the_sform_has_precedence_over_the_qform(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_sform(np.array([[0, -2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1.0]]), code=2)
    image.set_qform(np.diag([1.0, 2.0, 3.0, 1.0]), code=1)
    nibabel.save(image, tmp_path / "two.nii")
    with pytest.warns(TomoSegWarning, match="volume-two-orientations"):
        volume = read_volume(tmp_path / "two.nii")
    # RAS (5, 6, 7) is LPS (-5, -6, 7).
    np.testing.assert_allclose(volume.geometry.origin, [-5, -6, 7])
    np.testing.assert_allclose(volume.geometry.direction[:, 0], [0, -1, 0], atol=1e-7)


def test_the_qform_counts_where_the_sform_is_unset(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), np.diag([1.0, 2.0, 3.0, 1.0]))
    image.set_sform(np.diag([9.0, 9.0, 9.0, 1.0]), code=0)
    image.set_qform(np.diag([-1.0, 2.0, 3.0, 1.0]), code=1)
    nibabel.save(image, tmp_path / "q.nii")
    volume = read_volume(tmp_path / "q.nii")
    np.testing.assert_allclose(volume.geometry.affine, np.diag([1.0, -2, 3, 1]), atol=1e-6)


def test_without_orientation_itks_assumption_is_made_with_a_warning(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), None)
    image.header.set_zooms((1.0, 2.0, 3.0))
    image.header["sform_code"] = image.header["qform_code"] = 0
    nibabel.save(image, tmp_path / "none.nii")
    with pytest.warns(TomoSegWarning, match="volume-no-orientation"):
        volume = read_volume(tmp_path / "none.nii")
    itk = geometry_of(sitk.ReadImage(str(tmp_path / "none.nii")))
    np.testing.assert_allclose(volume.geometry.affine, itk.affine, atol=1e-6)


def test_an_sform_that_itk_refuses_is_read(tmp_path: Path) -> None:
    sheared = np.diag([1.0, 1.0, 1.0, 1.0])
    sheared[0, 1] = 0.004
    path = nifti(tmp_path, noise(), sheared)
    assert read_volume(path).geometry.affine[0, 1] == pytest.approx(-0.004)


def test_units_other_than_millimetres_are_converted(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), np.diag([0.001, 0.002, 0.003, 1.0]))
    image.header.set_xyzt_units("meter")
    nibabel.save(image, tmp_path / "metre.nii")
    np.testing.assert_allclose(
        read_volume(tmp_path / "metre.nii").geometry.spacing, [1, 2, 3], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("slope", "inter", "dtype"),
    [(1.0, -1024.0, np.int16), (0.5, 10.0, np.float32), (2.5, 0.0, np.float32)],
)
def test_scaling_is_applied_without_doubling_the_memory(
    slope: float, inter: float, dtype: type, tmp_path: Path
) -> None:
    stored = noise()
    image = nibabel.Nifti1Image(stored, np.eye(4))
    image.header.set_slope_inter(slope, inter)
    # nibabel would rescale on saving; the stored numbers are written as they are.
    with (tmp_path / "scaled.nii").open("wb") as file:
        header = image.header
        header["vox_offset"] = 352
        header["magic"] = b"n+1"
        header["scl_slope"], header["scl_inter"] = slope, inter
        file.write(header.binaryblock + b"\0" * 4 + stored.tobytes(order="F"))
    volume = read_volume(tmp_path / "scaled.nii")
    assert volume.array.dtype == dtype
    np.testing.assert_allclose(volume.array, stored.T * slope + inter)


def test_a_trailing_axis_of_length_one_is_dropped(tmp_path: Path) -> None:
    assert read_volume(nifti(tmp_path, noise((7, 6, 5, 1)))).array.shape == (5, 6, 7)


# NRRD


def write_nrrd(path: Path, header: str, array: np.ndarray) -> Path:
    path.write_bytes(f"NRRD0004\n{textwrap.dedent(header).strip()}\n\n".encode() + array.tobytes())
    return path


def test_nrrd_in_ras_is_converted(tmp_path: Path) -> None:
    header = """
        type: short
        dimension: 3
        space: right-anterior-superior
        sizes: 7 6 5
        space directions: (0,2,0) (1,0,0) (0,0,3)
        endian: little
        encoding: raw
        space origin: (10,20,30)"""
    array = noise((5, 6, 7))
    volume = read_volume(write_nrrd(tmp_path / "ras.nrrd", header, array))
    np.testing.assert_array_equal(volume.array, array)
    np.testing.assert_allclose(volume.geometry.origin, [-10, -20, 30])
    np.testing.assert_allclose(volume.geometry.affine[:3, 0], [0, -2, 0])


def test_nrrd_with_a_list_axis_is_refused(tmp_path: Path) -> None:
    header = """
        type: short
        dimension: 4
        space: left-posterior-superior
        sizes: 3 7 6 5
        space directions: none (1,0,0) (0,1,0) (0,0,1)
        kinds: vector domain domain domain
        endian: little
        encoding: raw
        space origin: (0,0,0)"""
    path = write_nrrd(tmp_path / "vector.nrrd", header, noise((5, 6, 7, 3)))
    assert code_of(path) == "volume-not-3d"


def test_nrrd_with_a_singular_matrix_is_refused(tmp_path: Path) -> None:
    header = """
        type: short
        dimension: 3
        space: left-posterior-superior
        sizes: 7 6 5
        space directions: (1,0,0) (1,0,0) (0,0,1)
        endian: little
        encoding: raw
        space origin: (0,0,0)"""
    path = write_nrrd(tmp_path / "singular.nrrd", header, noise((5, 6, 7)))
    assert code_of(path) == "geometry-singular"


# Bad input


def test_a_missing_file_is_reported(tmp_path: Path) -> None:
    assert code_of(tmp_path / "nothing.nii.gz") == "volume-not-found"
    assert code_of(tmp_path / "nothing") == "volume-not-found"


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".nhdr", ".mhd"])
def test_a_file_that_is_no_volume_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"letter{suffix}"
    path.write_text("Dear colleague, " * 100)
    assert code_of(path) in ("volume-unreadable", "volume-truncated")
    path.write_bytes(b"")
    assert code_of(path) in ("volume-unreadable", "volume-truncated")


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.pdf").write_text("%PDF-1.7")
    assert code_of(tmp_path / "letter.pdf") == "volume-format"


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_a_truncated_file_is_refused(
    suffix: str, kept: float, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    path = tmp_path / f"volume{suffix}"
    write_volume(make_volume(), path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert code_of(path) in ("volume-truncated", "volume-unreadable")
    if kept > 0.4:
        assert code_of(path) == "volume-truncated"


def test_a_corrupted_archive_is_refused(tmp_path: Path, make_volume: Callable[..., Volume]) -> None:
    path = tmp_path / "volume.nii.gz"
    write_volume(make_volume(), path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 20] = b"\xff" * 20
    path.write_bytes(bytes(content))
    assert code_of(path) == "volume-truncated"


def test_a_damaged_archive_that_still_unpacks_is_refused(tmp_path: Path) -> None:
    content = gzip.decompress(nifti(tmp_path, noise((70, 60, 50))).read_bytes())
    whole = gzip.compress(content, compresslevel=0)
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    for name, data in (("whole", whole), ("damaged", damaged)):
        (tmp_path / f"{name}.nii.gz").write_bytes(data)
    read_volume(tmp_path / "whole.nii.gz")
    assert code_of(tmp_path / "damaged.nii.gz") == "volume-truncated"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nhdr", ".mhd"])
def test_a_volume_that_no_memory_can_hold_is_refused_by_its_header(
    suffix: str, tmp_path: Path
) -> None:
    path = tmp_path / f"huge{suffix}"
    if suffix in (".nhdr", ".mhd"):
        (tmp_path / "voxels.raw").write_bytes(bytes(1000))
        path.write_text(detached_header(suffix, "voxels.raw", "20000 20000 20000"))
    else:
        nibabel.save(nibabel.Nifti2Image(noise(), np.eye(4)), tmp_path / "small.nii")
        content = bytearray((tmp_path / "small.nii").read_bytes())
        struct.pack_into("<3q", content, 24, 2**40, 2**40, 2**40)
        path.write_bytes(gzip.compress(content) if suffix == ".nii.gz" else content)
    assert code_of(path) == "volume-too-large"


def test_a_header_with_numbers_out_of_range_is_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(nifti(tmp_path, noise()).read_bytes()))
    path = tmp_path / "patched.nii"
    struct.pack_into("<f", content, 108, np.inf)  # vox_offset
    path.write_bytes(content)
    assert code_of(path) == "volume-unreadable"


def detached_header(suffix: str, data: str, size: str = "24 22 20") -> str:
    """A header whose voxels, of one byte each, are in another file."""
    if suffix == ".nhdr":
        return (
            "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\n"
            f"sizes: {size}\nspace directions: (2,0,0) (0,2,0) (0,0,2)\nencoding: raw\n"
            f"space origin: (0,0,0)\ndata file: {data}\n"
        )
    return (
        "ObjectType = Image\nNDims = 3\nElementSpacing = 2 2 2\n"
        f"DimSize = {size}\nElementType = MET_UCHAR\nElementDataFile = {data}\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="no named pipes")
@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
@pytest.mark.parametrize("data", ["pipe", "LIST\npipe", "/dev/zero", "."])
def test_voxels_in_something_else_than_a_file_are_not_waited_for(
    suffix: str, data: str, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / f"volume{suffix}"
    path.write_text(detached_header(suffix, data))
    assert code_of(path) == "volume-unreadable"


def test_the_pattern_of_a_metaimages_slices_is_one_of_numbers(tmp_path: Path) -> None:
    voxels = noise((20, 22, 24), np.uint8)
    for number, plane in enumerate(voxels):
        (tmp_path / f"slice{number:03}.raw").write_bytes(plane.tobytes())
    path = tmp_path / "volume.mhd"
    path.write_text(detached_header(".mhd", "slice%03d.raw 0 19 1"))
    np.testing.assert_array_equal(read_volume(path).array, voxels)
    for pattern in ("%s%s%n.raw 1 20 1", "%d%d.raw 1 20 1", "a%20b.raw"):
        path.write_text(detached_header(".mhd", pattern))
        assert code_of(path) == "volume-unreadable"


def test_voxel_sizes_of_zero_are_refused_and_not_guessed(tmp_path: Path) -> None:
    content = bytearray(gzip.decompress(nifti(tmp_path, noise()).read_bytes()))
    path = tmp_path / "patched.nii"
    struct.pack_into("<3f", content, 80, 0, 0, 0)  # pixdim
    path.write_bytes(content)
    read_volume(path)  # the sform has the sizes
    for qform_code in (0, 1):
        struct.pack_into("<2h", content, 252, qform_code, 0)  # and sform_code
        path.write_bytes(content)
        assert code_of(path) == "volume-spacing"
    path = tmp_path / "volume.mhd"
    (tmp_path / "voxels.raw").write_bytes(noise((20, 22, 24), np.uint8).tobytes())
    text = detached_header(".mhd", "voxels.raw")
    path.write_text(text.replace("Spacing = 2", "Spacing = 0"))
    assert code_of(path) == "volume-spacing"


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names are Unicode there")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_name_that_is_not_unicode_is_read(
    suffix: str, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    volume = make_volume("oblique")
    write_volume(volume, tmp_path / f"volume{suffix}")
    path = tmp_path / os.fsdecode(b"\xe4rzte" + suffix.encode())
    (tmp_path / f"volume{suffix}").rename(path)
    np.testing.assert_array_equal(read_volume(path).array, volume.array)


@pytest.mark.parametrize("shape", [(7, 6), (7, 6, 1), (7, 6, 5, 2), (7, 6, 5, 1, 3)])
def test_other_than_three_dimensions_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    assert code_of(nifti(tmp_path, noise(shape))) == "volume-not-3d"
    if len(shape) < 4:
        array = np.ascontiguousarray(noise(shape).T)
        sitk.WriteImage(sitk.GetImageFromArray(array), str(tmp_path / "a.mha"))
        assert code_of(tmp_path / "a.mha") == "volume-not-3d"


def test_a_single_slice_is_read_where_it_is_wanted(tmp_path: Path) -> None:
    volume = read_volume(nifti(tmp_path, noise((7, 6, 1))), single_slice=True)
    assert volume.array.shape == (1, 6, 7)


def test_colours_and_complex_numbers_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((7, 6, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    assert code_of(nifti(tmp_path, rgb)) == "volume-not-3d"
    assert code_of(nifti(tmp_path, noise().astype(np.complex64))) == "volume-not-3d"
    vector = sitk.GetImageFromArray(noise((5, 6, 7, 3), np.uint8), isVector=True)
    sitk.WriteImage(vector, str(tmp_path / "rgb.mha"))
    assert code_of(tmp_path / "rgb.mha") == "volume-not-3d"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_refused(value: float, tmp_path: Path) -> None:
    array = noise().astype(np.float32)
    array[3, 2, 1] = value
    assert code_of(nifti(tmp_path, array)) == "volume-not-finite"


def test_a_constant_volume_is_refused(tmp_path: Path) -> None:
    assert code_of(nifti(tmp_path, np.full((7, 6, 5), 3, np.int16))) == "volume-constant"


@pytest.mark.parametrize("spacing", [0.001, 150.0])
def test_absurd_spacing_is_refused(spacing: float, tmp_path: Path) -> None:
    affine = np.diag([1.0, 1.0, spacing, 1.0])
    assert code_of(nifti(tmp_path, noise(), affine)) == "volume-spacing"
    image = sitk.GetImageFromArray(noise())
    image.SetSpacing((1.0, 1.0, spacing))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    assert code_of(tmp_path / "a.nrrd") == "volume-spacing"


def test_singular_and_sheared_matrices_are_refused(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(noise(), np.eye(4))
    for matrix, code in (
        ([[1, 1, 0], [0, 0, 0], [0, 0, 1]], "geometry-singular"),
        ([[1, 0.3, 0], [0, 1, 0], [0, 0, 1]], "geometry-sheared"),
        ([[np.nan, 0, 0], [0, 1, 0], [0, 0, 1]], "geometry-invalid"),
    ):
        affine = np.eye(4)
        affine[:3, :3] = matrix
        image.header["qform_code"] = 0
        image.header["sform_code"] = 1
        for row, name in enumerate(("srow_x", "srow_y", "srow_z")):
            image.header[name] = affine[row]
        raw = image.header.copy()
        raw["vox_offset"], raw["magic"] = 352, b"n+1"
        content = raw.binaryblock + b"\0" * 4 + noise().tobytes(order="F")
        (tmp_path / "bad.nii.gz").write_bytes(gzip.compress(content))
        assert code_of(tmp_path / "bad.nii.gz") == code


# Writing


def test_an_unknown_suffix_is_refused_on_writing(
    tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    with pytest.raises(TomoSegError) as caught:
        write_volume(make_volume(), tmp_path / "volume.png")
    assert caught.value.code == "output-format"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_is_not_there_is_reported(
    suffix: str, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    with pytest.raises(TomoSegError) as caught:
        write_volume(make_volume(), tmp_path / "none" / f"volume{suffix}")
    assert caught.value.code == "output-unwritable"


@pytest.mark.skipif(os.name != "posix", reason="limits the size of files as POSIX can")
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_does_not_fit_leaves_the_old_one_and_nothing_else(
    suffix: str, tmp_path: Path, make_volume: Callable[..., Volume]
) -> None:
    path = tmp_path / f"volume{suffix}"
    write_volume(make_volume(), path)
    before = path.read_bytes()
    program = f"""
        import resource, signal
        import numpy as np
        from pathlib import Path
        from TomoSegLib.errors import TomoSegError
        from TomoSegLib.imaging.io import write_volume
        from TomoSegLib.imaging.volume import Geometry, Volume
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        array = np.random.default_rng(0).normal(size=(40, 40, 40)).astype(np.float32)
        volume = Volume(array, Geometry.from_parts(array.shape, (1, 1, 1)))
        try:
            write_volume(volume, Path({str(path)!r}))
        except TomoSegError as error:
            print(error.code)
        """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.stdout.split()[-1:] == ["output-unwritable"]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_real_scans_lie_where_itk_puts_them(shared_data: Path) -> None:
    for name in ("mnms2/sax_ed.nii.gz", "pyradiomics/brain1_image.nrrd"):
        volume = read_volume(shared_data / name)
        image = sitk.ReadImage(str(shared_data / name))
        assert volume.geometry.is_close(geometry_of(image), 1e-3)
        np.testing.assert_array_equal(volume.array, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_one_volume_of_a_file_with_several_is_read_by_its_number(
    tmp_path: Path, suffix: str
) -> None:
    voxels = np.arange(180, dtype=np.int16).reshape(5, 4, 3, 3)
    affine = np.diag([1.5, 2.0, 3.0, 1.0])
    file = tmp_path / f"scans{suffix}"
    nibabel.save(nibabel.Nifti1Image(voxels, affine), file)
    for number in range(3):
        alone = tmp_path / f"{number}{suffix}"
        nibabel.save(nibabel.Nifti1Image(voxels[..., number], affine), alone)
        volume, expected = read_volume(f"{file}::{number}"), read_volume(alone)
        np.testing.assert_array_equal(volume.array, expected.array)
        assert volume.geometry.is_close(expected.geometry)
    with pytest.raises(TomoSegError, match="it holds 3") as caught:
        read_volume(f"{file}::3")
    assert caught.value.code == "volume-frame"


def test_a_file_with_one_volume_has_no_others(tmp_path: Path) -> None:
    geometry = Geometry((3, 4, 5), np.eye(4))
    file = tmp_path / "scan.nii.gz"
    write_volume(Volume(np.arange(60, dtype=np.int16).reshape(3, 4, 5), geometry), file)
    with pytest.raises(TomoSegError) as caught:
        read_volume(f"{file}::0")
    assert caught.value.code == "volume-frame" and "Leave" in caught.value.hint
