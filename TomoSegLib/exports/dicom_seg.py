"""DICOM Segmentation objects that refer to the series that was segmented."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.exports.terminology import Code, terminology_of
from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.dicom import ImageSlice, series_slices
from TomoSegLib.imaging.file_state import split_path
from TomoSegLib.models.card import Label

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SERIES_NUMBER = 9000
"""Far from those that scanners give."""


def write_dicom_seg(
    path: Path,
    labelmap: npt.NDArray[np.uint8],
    labels: Sequence[Label],
    source: Path,
    *,
    algorithm: str,
    version: str,
) -> None:
    """Write a binary DICOM Segmentation of a series, atomically.

    Segments get the codes of their terminology entries; those without voxels are left out.

    Args:
        path: The file.
        labelmap: ``(k, j, i)`` on the grid of `read_series` of the source.
        labels: What its values mean.
        source: The series, as for `read_volume`.
        algorithm: Name of the model.
        version: Its version.

    Raises:
        TomoSegError: ``dependency-missing``, ``export-empty``, ``export-source``,
            ``output-no-space``, ``output-unwritable``, and those of `series_slices`.
    """
    try:
        import highdicom
    except ImportError:
        raise TomoSegError(
            "dependency-missing",
            "DICOM segmentations need the Python package highdicom, which is not installed.",
            "Install it with: pip install highdicom",
        ) from None
    import pydicom

    present = [label for label in labels if np.any(labelmap == label.value)]
    if not present:
        raise TomoSegError(
            "export-empty",
            "The mask is empty: a DICOM segmentation needs at least one voxel.",
            "Lower the threshold, or export statistics alone.",
        )
    slices, _ = series_slices(*split_path(source))
    files = list(dict.fromkeys(item.path for item in slices))
    images = [pydicom.dcmread(file) for file in files]
    _complete(images)
    pixels = np.stack([labelmap == label.value for label in present], axis=-1).astype(np.uint8)
    pixels = _in_order_of_source(pixels, slices, images)
    try:
        with warnings.catch_warnings():
            # Old scanners' series lack what highdicom would like; it says so for every image.
            warnings.simplefilter("ignore")
            segmentation = highdicom.seg.Segmentation(
                source_images=images,
                pixel_array=pixels,
                segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
                segment_descriptions=[
                    _description(number, label, algorithm, version)
                    for number, label in enumerate(present, 1)
                ],
                series_instance_uid=highdicom.UID(),
                series_number=_SERIES_NUMBER,
                sop_instance_uid=highdicom.UID(),
                instance_number=1,
                manufacturer="TomoSeg",
                manufacturer_model_name=algorithm,
                software_versions=version,
                device_serial_number="0",
                content_label="SEGMENTATION",
                series_description=f"TomoSeg {algorithm}"[:64],
            )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise TomoSegError(
            "export-source",
            f"The series '{source.name}' lacks what a segmentation of it must refer to: "
            f"{str(error).rstrip('.')}.",
            "Use the original series from the scanner or the archive.",
        ) from error
    with atomic_path(path) as temporary:
        segmentation.save_as(temporary)


def _description(number: int, label: Label, algorithm: str, version: str) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    terminology = terminology_of(label)
    kind = _coded(terminology.type)
    if terminology.modifier is not None:
        kind.SegmentedPropertyTypeModifierCodeSequence = [_coded(terminology.modifier)]
    regions = None
    if terminology.region is not None:
        region = _coded(terminology.region)
        if terminology.region_modifier is not None:
            region.AnatomicRegionModifierSequence = [_coded(terminology.region_modifier)]
        regions = [region]
    red, green, blue = (round(255 * component) for component in label.color)
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_coded(terminology.category),
        segmented_property_type=kind,
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=algorithm[:64], family=codes.DCM.ArtificialIntelligence, version=version
        ),
        anatomic_regions=regions,
        display_color=highdicom.color.CIELabColor.from_rgb(red, green, blue),
    )


def _coded(code: Code) -> Any:
    import highdicom

    return highdicom.sr.CodedConcept(code.value, code.scheme, code.meaning)


def _complete(images: Sequence[Dataset]) -> None:
    """Elements that must be present but may be empty, and that anonymisers take away."""
    for image in images:
        for name in (
            "AccessionNumber",
            "PatientBirthDate",
            "PatientID",
            "PatientName",
            "PatientSex",
            "ReferringPhysicianName",
            "StudyDate",
            "StudyID",
            "StudyTime",
        ):
            if name not in image:
                setattr(image, name, "")


def _in_order_of_source(
    pixels: npt.NDArray[np.uint8], slices: Sequence[ImageSlice], images: Sequence[Dataset]
) -> npt.NDArray[np.uint8]:
    """One plane for each image; for each frame where the source is a multi-frame file."""
    frames = int(images[0].get("NumberOfFrames", 1) or 1)
    if len(images) > 1 or frames == 1:
        return pixels
    ordered = np.zeros((frames, *pixels.shape[1:]), dtype=np.uint8)
    for plane, item in zip(pixels, slices, strict=True):
        ordered[item.frame] = plane
    return ordered
