"""Reading and writing volumes: the edge where file conventions become the project's one.

One library per format: nibabel for NIfTI (`TomoSegLib.imaging.nifti`), SimpleITK for NRRD and
MetaImage (`TomoSegLib.imaging.itk`), pydicom for DICOM (`TomoSegLib.imaging.dicom`).
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import nibabel

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path, suffix_of
from TomoSegLib.imaging.checks import READABLE, check_volume, not_found
from TomoSegLib.imaging.file_state import split_path
from TomoSegLib.imaging.itk import ITK_SUFFIXES, read_itk_volume, to_sitk, write_itk
from TomoSegLib.imaging.nifti import NIFTI_SUFFIXES, read_nifti, to_nifti
from TomoSegLib.imaging.sequence import VolumeSequence
from TomoSegLib.imaging.sequence_metaimage import open_metaimage_sequence
from TomoSegLib.imaging.sequence_nifti import open_nifti_sequence
from TomoSegLib.imaging.sequence_nrrd import open_nrrd_sequence
from TomoSegLib.imaging.volume import Volume

WRITABLE_SUFFIXES = (".nrrd", ".nii.gz", ".nii", ".mha")


def read_volume(path: Path | str, *, single_slice: bool = False, constant: bool = False) -> Volume:
    """Read a volume with its geometry, in the voxel type of the file.

    Integers stay integers; where the file scales its values (NIfTI ``scl_slope``, DICOM rescale)
    with anything but whole numbers the result is float32. NIfTI: the sform has precedence over
    the qform, as in the NIfTI standard.

    Args:
        path: A NIfTI, NRRD or MetaImage file, a DICOM file, or a folder of a DICOM series; one of
            several series in a folder is chosen by ``FOLDER::SeriesInstanceUID``, one of several
            volumes in a file (four axes) by ``FILE::NUMBER``, from 0.
        single_slice: Accept a grid of one slice, e.g. a single long-axis view of the heart.
        constant: Accept equal values everywhere, e.g. a mask without a voxel.

    Returns:
        The volume; array axes ``[k, j, i]``, geometry in LPS mm.

    Raises:
        TomoSegError: ``volume-not-found``, ``volume-unreadable``, ``volume-truncated``,
            ``volume-format``, ``volume-not-3d``, ``volume-empty``, ``volume-too-large``,
            ``volume-not-finite``, ``volume-constant``, ``volume-spacing``, ``geometry-singular``,
            ``geometry-invalid``, ``geometry-sheared``, ``volume-frame`` or one of the
            ``dicom-...`` codes.
    """
    path = Path(path)
    if (frame := _frame_of(path)) is not None:
        return _read_frame(*frame, single_slice=single_slice, constant=constant)
    suffix = suffix_of(path)
    if path.is_file() and suffix in NIFTI_SUFFIXES:
        volume = read_nifti(path)
    elif path.is_file() and suffix in ITK_SUFFIXES:
        volume, _ = read_itk_volume(path)
    else:
        # Imported here: only where DICOM may be meant is pydicom worth its time.
        from TomoSegLib.imaging import dicom

        folder, series = split_path(path)
        if not folder.exists():
            raise not_found(folder)
        if folder.is_file() and not dicom.is_dicom_file(folder):
            raise TomoSegError(
                "volume-format",
                f"'{folder.name}' is not a volume in a format that can be read.",
                f"Give one of: {READABLE}.",
            )
        volume = dicom.read_series(folder, series)
    check_volume(volume, single_slice=single_slice, constant=constant)
    return volume


def _frame_of(path: Path) -> tuple[Path, int] | None:
    """``FILE::NUMBER`` as file and number; None for a path that is something else, or exists."""
    file, number = split_path(path)
    if number is None or not re.fullmatch(r"\d{1,9}", number):
        return None
    known = suffix_of(file) in (*NIFTI_SUFFIXES, *ITK_SUFFIXES)
    return (file, int(number)) if known and file.is_file() else None


def _read_frame(path: Path, number: int, *, single_slice: bool, constant: bool) -> Volume:
    """One of the volumes of a file with several."""
    sequence = open_sequence(path)
    count = 1 if sequence is None else len(sequence)
    if sequence is None or number >= count:
        raise TomoSegError(
            "volume-frame",
            f"'{path.name}' has no volume of number {number}: it holds {count}.",
            f"Give a number from 0 to {count - 1}." if count > 1 else "Leave '::' and number out.",
        )
    sequence = replace(sequence, single_slice=single_slice)
    return next(sequence.frames([number], constant=constant))


def open_sequence(path: Path | str) -> VolumeSequence | None:
    """The sequence in a file, or None where it holds something else, a single volume above all.

    Only headers are read. A DICOM series is not looked at here, because whether it is a sequence
    is known only when it has been sorted: see `open_dicom_sequence`.

    Raises:
        TomoSegError: ``volume-unreadable``, ``volume-truncated``, ``volume-too-large``,
            ``sequence-unsupported`` or one of the geometry's, as for `read_volume`.
    """
    path = Path(path)
    if not path.is_file():
        return None
    suffix = suffix_of(path)
    if suffix in NIFTI_SUFFIXES:
        return open_nifti_sequence(path)
    if suffix in (".nrrd", ".nhdr"):
        return open_nrrd_sequence(path)
    return open_metaimage_sequence(path) if suffix in ITK_SUFFIXES else None


def read_volume_or_sequence(
    path: Path | str, *, single_slice: bool = False
) -> Volume | VolumeSequence:
    """A volume with its voxels, or a sequence that is still in its file.

    Args:
        path: As for `TomoSegLib.imaging.io.read_volume`.
        single_slice: Accept grids of one slice.

    Raises:
        TomoSegError: As `TomoSegLib.imaging.io.read_volume` and `open_sequence`.
    """
    sequence = open_sequence(path)
    if sequence is not None:
        return replace(sequence, single_slice=single_slice)
    try:
        return read_volume(path, single_slice=single_slice)
    except TomoSegError as error:
        if error.code != "dicom-several-volumes":
            raise
        from TomoSegLib.imaging.sequence_dicom import open_dicom_sequence

        sequence = open_dicom_sequence(*split_path(Path(path)))
        if sequence is None:
            raise
        return replace(sequence, single_slice=single_slice)


def write_volume(volume: Volume, path: Path | str) -> None:
    """Write a volume so that the file appears complete or not at all.

    ``.nrrd``, ``.mha`` and ``.nii.gz`` are compressed. Booleans are written as uint8, half
    precision as float32. NIfTI stores the matrix in single precision, as sform and qform with
    the code for scanner coordinates.

    Raises:
        TomoSegError: ``output-format``, ``output-no-space`` or ``output-unwritable``.
    """
    path = Path(path)
    suffix = suffix_of(path)
    if suffix not in WRITABLE_SUFFIXES:
        raise TomoSegError(
            "output-format",
            f"'{path.name}' does not name a format that can be written.",
            f"Use one of the suffixes {', '.join(WRITABLE_SUFFIXES)}.",
        )
    if suffix in NIFTI_SUFFIXES:
        with atomic_path(path) as temporary:
            nibabel.save(to_nifti(volume), temporary)
    else:
        write_itk(to_sitk(volume), path)
