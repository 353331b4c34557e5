"""Simulated views as DICOM: cine MR series with the geometry and times that a scanner writes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from TomoSegLib.datasets.hearts_scan import ScannedView
from TomoSegLib.errors import TomoSegError

SERIES_NAMES = {
    "short-axis": "cine_sax",
    "2-chamber": "cine_2ch",
    "3-chamber": "cine_3ch",
    "4-chamber": "cine_4ch",
    "sagittal": "pd_sag",
    "coronal": "pd_cor",
    "axial": "pd_tra",
}


def write_views(
    views: list[ScannedView],
    folder: Path,
    patient: str,
    *,
    body_part: str,
    heart_rate: float | None = None,
) -> None:
    """Write views as MR image series, a file an image.

    Args:
        views: As scanned.
        folder: Where the files go; it must exist.
        patient: Identifier of the simulated patient, from which all UIDs follow.
        body_part: DICOM's BodyPartExamined.
        heart_rate: Beats a minute, for the trigger times of cine views.

    Raises:
        TomoSegError: ``output-unwritable``.
    """
    study = generate_uid(entropy_srcs=["study", patient])
    frame = generate_uid(entropy_srcs=["frame", patient])
    for number, view in enumerate(views, start=1):
        series = generate_uid(entropy_srcs=["series", patient, view.kind])
        instance = 0
        for index, plane in enumerate(view.planes):
            for phase in range(len(view.images)):
                instance += 1
                item = _image(view, index, phase, f"{patient} {view.kind} {instance}")
                item.PatientID = patient
                item.PatientName = f"Simulated^{patient}"
                item.StudyInstanceUID, item.SeriesInstanceUID = study, series
                item.FrameOfReferenceUID = frame
                item.BodyPartExamined = body_part
                item.SeriesNumber, item.InstanceNumber = number, instance
                item.SeriesDescription = f"{SERIES_NAMES[view.kind]} simulated"
                item.ImagePositionPatient = [f"{v:.6f}" for v in plane.origin]
                if heart_rate is not None:
                    interval = 60000 / heart_rate
                    item.NominalInterval = round(interval)
                    item.HeartRate = round(heart_rate)
                    item.CardiacNumberOfImages = len(view.images)
                    item.TriggerTime = f"{interval * phase / len(view.images):.3f}"
                name = f"{SERIES_NAMES[view.kind]}-{index:02d}-{phase:02d}.dcm"
                try:
                    item.save_as(folder / name, enforce_file_format=True)
                except OSError as error:
                    raise TomoSegError(
                        "output-unwritable",
                        f"'{folder / name}' cannot be written: {error.strerror}.",
                        "Free some space, or choose another --output.",
                    ) from error


def _image(view: ScannedView, index: int, phase: int, entropy: str) -> FileDataset:
    """One image with everything that does not depend on the patient."""
    plane, pixels = view.planes[index], view.images[phase, index]
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["image", entropy])
    item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    item.ImageType = ["DERIVED", "PRIMARY", "M", "SIMULATED"]
    item.Modality, item.Manufacturer = "MR", "TomoSeg simulation"
    item.StudyDescription = "Simulated, not of a patient"
    item.PatientBirthDate = item.PatientSex = item.StudyDate = item.StudyTime = ""
    item.Rows, item.Columns = pixels.shape
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit, item.PixelRepresentation = 15, 0
    item.PixelData = pixels.astype("<u2").tobytes()
    axes = np.concatenate([plane.column_step / plane.spacing[0], plane.row_step / plane.spacing[1]])
    item.ImageOrientationPatient = [f"{v:.10f}" for v in axes]
    # Between rows first, then between columns.
    item.PixelSpacing = [f"{plane.spacing[1]:.6f}", f"{plane.spacing[0]:.6f}"]
    item.SliceThickness = f"{view.thickness_mm:.4f}"
    if len(view.planes) > 1:
        gap = (view.planes[1].origin - view.planes[0].origin) @ plane.normal
        item.SpacingBetweenSlices = f"{abs(float(gap)):.4f}"
    return item
