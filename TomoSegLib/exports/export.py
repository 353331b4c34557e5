"""A run's mask in the formats of other programs, beside its results or elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.exports.dicom_seg import write_dicom_seg
from TomoSegLib.exports.masks import (
    STATISTICS_NAME,
    Exported,
    Format,
    claim_folder,
    read_mask,
    surface_names,
    write_surfaces,
)
from TomoSegLib.exports.sequence import export_sequence
from TomoSegLib.exports.statistics import segment_statistics, write_statistics
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.preprocessing import sample_on
from TomoSegLib.imaging.volume import Geometry, Volume, hash_volume
from TomoSegLib.jobs.result import AnyResult, SequenceRecord, read_result
from TomoSegLib.models.card import Label

DICOM_SEG_NAME = "mask.seg.dcm"


def export_result(
    folder: Path,
    formats: Sequence[Format],
    *,
    output: Path | None = None,
    source: Path | None = None,
    overwrite: bool = False,
) -> Exported:
    """Write the mask of a run in other formats.

    * ``dicom-seg``: ``mask.seg.dcm``, a DICOM Segmentation that refers to the source series.
    * ``stl``: one closed surface a segment, ``<segment>.stl``, LPS mm.
    * ``csv``: ``statistics.csv``, one row a segment.

    Of a sequence's frames each segment has a row and a surface for each, in
    ``<segment>-frame-0003.stl``; a DICOM Segmentation of a sequence is not written.

    Names, values and terminology codes are those of ``mask.seg.nrrd``, whose hash must be the one
    that ``result.json`` records.

    Args:
        folder: Results of ``tomoseg run``.
        formats: Which.
        output: Where the files go; by default beside the results.
        source: The scan, if it is no longer where it was. A DICOM segmentation needs a DICOM
            series; one of another grid in the same space gets the mask by nearest neighbour.
        overwrite: Whether files that are there are replaced.

    Returns:
        Paths of the files, and notes.

    Raises:
        TomoSegError: ``result-unreadable``, ``result-invalid``, ``result-changed``,
            ``output-exists``, ``output-unwritable``, ``output-no-space``, ``export-source``,
            ``export-empty``, ``export-sequence``, ``dependency-missing``, and those of
            `read_volume`.
    """
    result = read_result(folder)
    folder = folder if folder.is_dir() else folder.parent
    output = folder if output is None else output
    if isinstance(result, SequenceRecord):
        return export_sequence(result, folder, formats, output, source, overwrite)
    segmentation, labels = read_mask(folder, "mask.seg.nrrd", result)
    labelmap = np.asarray(segmentation.array, dtype=np.uint8)
    claim_folder(output, _file_names(formats, labels), overwrite)
    done = Exported()
    image = _source(result, source, done, needed="dicom-seg" in formats)
    if "dicom-seg" in formats:
        assert image is not None
        path = output / DICOM_SEG_NAME
        write_dicom_seg(
            path,
            _on_grid(labelmap, segmentation.geometry, image[0].geometry, done),
            labels,
            image[1],
            algorithm=result.model.name,
            version=result.model.version,
        )
        done.files.append(path)
    if "stl" in formats:
        write_surfaces(output, segmentation, labels, surface_names(labels), done)
    if "csv" in formats:
        scan = image[0] if image and image[0].geometry.is_close(segmentation.geometry) else None
        rows = [
            segment_statistics(
                labelmap == label.value,
                label,
                segmentation.geometry,
                scan,
                _heatmap(folder, segmentation.geometry),
            )
            for label in labels
        ]
        write_statistics(output / STATISTICS_NAME, rows)
        done.files.append(output / STATISTICS_NAME)
    return done


def _file_names(formats: Sequence[Format], labels: Sequence[Label]) -> list[str]:
    names = {
        "dicom-seg": [DICOM_SEG_NAME],
        "stl": list(surface_names(labels).values()),
        "csv": [STATISTICS_NAME],
    }
    return [name for kind in formats for name in names[kind]]


def _source(
    result: AnyResult, source: Path | None, done: Exported, *, needed: bool
) -> tuple[Volume, Path] | None:
    """The scan and its path; None, with a note, where it is not at hand and not needed."""
    record = next(iter(result.inputs.values()))
    path = Path(record.path) if source is None else source
    try:
        volume = read_volume(path)
    except TomoSegError as error:
        if needed or source is not None:
            raise
        done.notes.append(f"Without intensities of the scan: {error.message}")
        return None
    if source is None and hash_volume(volume) != record.hash:
        if needed:
            raise TomoSegError(
                "export-source",
                f"The scan {path} is not the one of the run: its content has changed.",
                "Name the original with --source.",
            )
        done.notes.append(f"Without intensities of the scan: {path} has changed since the run.")
        return None
    if needed and "SeriesInstanceUID" not in volume.metadata:
        raise TomoSegError(
            "export-source",
            f"A DICOM segmentation refers to a DICOM series, and {path} is none.",
            "Name the folder of the series that it was made from with --source.",
        )
    return volume, path


def _on_grid(
    labelmap: npt.NDArray[np.uint8], geometry: Geometry, target: Geometry, done: Exported
) -> npt.NDArray[np.uint8]:
    """A label map on the source's grid."""
    if geometry.is_close(target):
        return labelmap
    found = sample_on(labelmap, geometry, target, order=0).astype(np.uint8)
    before = np.count_nonzero(labelmap) * geometry.voxel_volume_ml
    after = np.count_nonzero(found) * target.voxel_volume_ml
    if before and not after:
        raise TomoSegError(
            "export-source",
            "The mask and the DICOM series do not overlap in space.",
            "Name the series that the scan was made from.",
        )
    done.notes.append(
        f"The series has another grid than the mask, which was resampled by nearest neighbour: "
        f"{before:.2f} mL became {after:.2f} mL."
    )
    return found


def _heatmap(folder: Path, geometry: Geometry) -> Volume | None:
    path = folder / "heatmap.nrrd"
    if not path.is_file():
        return None
    try:
        heatmap = read_volume(path)
    except TomoSegError:
        return None
    return heatmap if heatmap.geometry.is_close(geometry) else None
