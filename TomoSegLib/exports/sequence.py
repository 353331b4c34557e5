"""The masks of a sequence in the formats of other programs: frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from TomoSegLib.errors import TomoSegError
from TomoSegLib.exports.masks import (
    STATISTICS_NAME,
    Exported,
    Format,
    claim_folder,
    read_mask,
    surface_names,
    write_surfaces,
)
from TomoSegLib.exports.statistics import segment_statistics, write_statistics
from TomoSegLib.imaging.io import read_volume_or_sequence
from TomoSegLib.imaging.sequence import VolumeSequence, hash_sequence
from TomoSegLib.imaging.sequence_nrrd import open_nrrd_sequence
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.jobs.result import SEGMENTATIONS, SequenceRecord, segmentation_name


def export_sequence(
    result: SequenceRecord,
    folder: Path,
    formats: Sequence[Format],
    output: Path,
    source: Path | None,
    overwrite: bool,
) -> Exported:
    """As `TomoSegLib.exports.export.export_result`, of a sequence.

    Args:
        result: The record.
        folder: Its folder.
        formats: Which.
        output: Where the files go.
        source: The scan, if it is no longer where it was.
        overwrite: Whether files that are there are replaced.

    Raises:
        TomoSegError: ``export-sequence`` for formats that hold no sequence, and as there.
    """
    if "dicom-seg" in formats:
        raise TomoSegError(
            "export-sequence",
            "A DICOM Segmentation of a sequence is not written: it refers to one volume.",
            "Run the frame alone that you need, as a series of its own, or export --stl and --csv.",
        )
    numbers = [frame.number for frame in result.frames]
    labels = result.model.labels
    names = {
        number: {
            index: f"{name.removesuffix('.stl')}-frame-{number:04}.stl"
            for index, name in surface_names(labels).items()
        }
        for number in numbers
    }
    wanted = [STATISTICS_NAME] if "csv" in formats else []
    if "stl" in formats:
        wanted += [name for each in names.values() for name in each.values()]
    claim_folder(output, wanted, overwrite)
    done = Exported()
    rows: list[dict[str, Any]] = []
    scans = _scans(result, source, done) if "csv" in formats else None
    images = _volumes(scans, numbers)
    heatmaps = _volumes(_heatmaps(folder), range(len(numbers)))
    for frame in result.frames:
        name = f"{SEGMENTATIONS}/{segmentation_name(frame.number)}"
        segmentation, found = read_mask(folder, name, result)
        if "stl" in formats:
            write_surfaces(output, segmentation, found, names[frame.number], done)
        if "csv" in formats:
            image, heatmap = next(images), next(heatmaps)
            rows += [
                {
                    "frame": frame.number,
                    "frame_value": frame.value,
                    **segment_statistics(
                        segmentation.array == label.value,
                        label,
                        segmentation.geometry,
                        image,
                        heatmap,
                    ),
                }
                for label in found
            ]
    if "csv" in formats:
        write_statistics(output / STATISTICS_NAME, rows)
        done.files.append(output / STATISTICS_NAME)
    return done


def _scans(result: SequenceRecord, source: Path | None, done: Exported) -> VolumeSequence | None:
    """The sequence of the run; None, with a note, where it is not at hand."""
    record = next(iter(result.inputs.values()))
    path = Path(record.path) if source is None else source
    numbers = [frame.number for frame in result.frames]
    try:
        scans = read_volume_or_sequence(path)
        if isinstance(scans, VolumeSequence) and len(scans) > numbers[-1]:
            if hash_sequence(scans, numbers) == record.hash:
                return scans
            done.notes.append(f"Without intensities of the scan: {path} has changed since the run.")
            return None
    except TomoSegError as error:
        if source is not None:
            raise
        done.notes.append(f"Without intensities of the scan: {error.message}")
        return None
    raise TomoSegError(
        "export-source",
        f"The scan {path} has not the frames of the run.",
        "Name the original with --source.",
    )


def _heatmaps(folder: Path) -> VolumeSequence | None:
    path = folder / "heatmap.seq.nrrd"
    return open_nrrd_sequence(path, single=True) if path.is_file() else None


def _volumes(sequence: VolumeSequence | None, numbers: Sequence[int]) -> Iterator[Volume | None]:
    if sequence is None:
        yield from (None for _ in numbers)
    else:
        yield from sequence.frames(numbers, constant=True)
