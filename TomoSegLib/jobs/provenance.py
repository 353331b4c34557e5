"""The record of a run: measuring what came out and writing ``result.json``."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

import TomoSegLib
from TomoSegLib.heatmaps.peaks import find_peaks
from TomoSegLib.heatmaps.pipeline import HeatmapResult
from TomoSegLib.imaging.foreground import bounding_box
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.jobs.devices import device_title
from TomoSegLib.jobs.events import WarningEvent
from TomoSegLib.jobs.inputs import Inputs
from TomoSegLib.jobs.probe import package_versions
from TomoSegLib.jobs.result import (
    Directions,
    Environment,
    Heatmap,
    HeatmapFrame,
    HeatmapPeak,
    Mask,
    Model,
    Part,
    Record,
    RunNote,
    RunResult,
    RunSequenceResult,
    Segment,
    SegmentationResult,
    SegmentationSequenceResult,
    SegmentFrame,
    Vector,
    file_hash,
)
from TomoSegLib.jobs.settings import method_settings, refinement_settings
from TomoSegLib.models.card import Label
from TomoSegLib.models.folder import ModelFolder, model_hash
from TomoSegLib.segmentation.inference import Prediction

_MOST_PARTS = 20


def measure_heatmap(
    heatmap: npt.NDArray[np.float32], foreground: npt.NDArray[np.bool_], geometry: Geometry
) -> Heatmap:
    """Figures of a heatmap within the foreground."""
    values = heatmap[foreground]
    return Heatmap(
        minimum=float(values.min()),
        maximum=float(values.max()),
        mean=float(values.mean(dtype=np.float64)),
        peaks=[
            HeatmapPeak(ijk=peak.ijk, lps_mm=peak.lps, value=peak.value)
            for peak in find_peaks(heatmap, foreground, geometry)
        ],
    )


def measure_mask(mask: npt.NDArray[np.uint8], threshold: float, geometry: Geometry) -> Mask:
    """Figures of a mask; components are 26-connected."""
    voxels = int(np.count_nonzero(mask))
    components = 0
    if voxels:
        box = ndimage.find_objects((mask != 0).view(np.uint8))[0]
        components = int(ndimage.label(mask[box], structure=np.ones((3, 3, 3)))[1])
    return Mask(
        threshold=threshold,
        voxels=voxels,
        volume_ml=voxels * geometry.voxel_volume_ml,
        components=components,
    )


def measure_segment(
    labelmap: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.float32],
    label: Label,
    geometry: Geometry,
) -> Segment:
    """Figures of one label; components are 26-connected, the largest come first."""
    mask = labelmap == label.value
    box = bounding_box(mask)
    parts: list[Part] = []
    components = 0
    if box is not None:
        labels, components = ndimage.label(mask[box], structure=np.ones((3, 3, 3)))
        sizes = np.bincount(labels.ravel())[1:]
        boxes = ndimage.find_objects(labels)
        corner = np.array([side.start for side in box])
        for index in np.argsort(-sizes, kind="stable")[:_MOST_PARTS]:
            inner = boxes[index]
            places = np.argwhere(labels[inner] == index + 1) + [side.start for side in inner]
            middle = ((places - places.mean(axis=0)) * geometry.spacing[::-1]) ** 2
            k, j, i = (int(n) for n in places[middle.sum(axis=1).argmin()] + corner)
            values = probability[box][tuple(places.T)]
            parts.append(
                Part(
                    ijk=(i, j, k),
                    lps_mm=_vector(geometry.index_to_lps([i, j, k])),
                    volume_ml=len(places) * geometry.voxel_volume_ml,
                    probability=float(values.mean(dtype=np.float64)),
                )
            )
    voxels = int(np.count_nonzero(mask))
    return Segment(
        value=label.value,
        name=label.name,
        voxels=voxels,
        volume_ml=voxels * geometry.voxel_volume_ml,
        components=int(components),
        parts=parts,
    )


def write_result(
    folder: Path,
    *,
    inputs: Inputs,
    found: HeatmapResult,
    heatmap: Heatmap,
    mask: Mask,
    timings_s: dict[str, float],
    warnings: Sequence[WarningEvent],
) -> None:
    """Write a heatmap's ``result.json`` beside the files that it describes."""
    result = RunResult(
        **_record(folder, inputs, found.device, found.batch_size, warnings),
        settings=method_settings(inputs.job, inputs.model.card),
        refinement=refinement_settings(inputs.job, inputs.model.card),
        directions=_directions(found),
        heatmap=heatmap,
        mask=mask,
        timings_s=timings_s
        | {f"heatmap.{part}": round(seconds, 3) for part, seconds in found.timings_s.items()},
    )
    _write(folder, result)


def write_segmentation_result(
    folder: Path,
    *,
    inputs: Inputs,
    found: Prediction,
    segments: list[Segment],
    timings_s: dict[str, float],
    warnings: Sequence[WarningEvent],
) -> None:
    """Write a segmentation's ``result.json`` beside the files that it describes."""
    card = inputs.model.card
    assert card.sliding_window is not None
    result = SegmentationResult(
        **_record(folder, inputs, found.device, found.batch_size, warnings),
        settings=card.sliding_window.model_copy(update={"outputs": card.outputs}),
        windows=found.windows,
        segments=segments,
        timings_s=timings_s | {"segment.network": round(found.seconds, 3)},
    )
    _write(folder, result)


def write_sequence_result(
    folder: Path,
    *,
    inputs: Inputs,
    found: HeatmapResult,
    frames: list[HeatmapFrame],
    timings_s: dict[str, float],
    warnings: Sequence[WarningEvent],
) -> None:
    """Write ``result.json`` of a sequence of heatmaps; ``found`` is that of the last frame."""
    assert inputs.sequence is not None
    result = RunSequenceResult(
        **_record(folder, inputs, found.device, found.batch_size, warnings),
        **_index(inputs),
        settings=method_settings(inputs.job, inputs.model.card),
        refinement=refinement_settings(inputs.job, inputs.model.card),
        directions=_directions(found),
        frames=frames,
        timings_s=timings_s,
    )
    _write(folder, result)


def write_segmentation_sequence_result(
    folder: Path,
    *,
    inputs: Inputs,
    found: Prediction,
    windows: int,
    frames: list[SegmentFrame],
    timings_s: dict[str, float],
    warnings: Sequence[WarningEvent],
) -> None:
    """Write ``result.json`` of a sequence of segmentations; ``found`` is that of the last frame."""
    card = inputs.model.card
    assert card.sliding_window is not None
    result = SegmentationSequenceResult(
        **_record(folder, inputs, found.device, found.batch_size, warnings),
        **_index(inputs),
        settings=card.sliding_window.model_copy(update={"outputs": card.outputs}),
        windows=windows,
        frames=frames,
        timings_s=timings_s,
    )
    _write(folder, result)


def model_record(model: ModelFolder) -> Model:
    """What a record says of a model."""
    card = model.card
    return Model(
        name=card.name,
        version=card.version,
        hash=model_hash(model),
        path=str(model.path),
        labels=card.labels,
        simulated=card.training_data.simulated,
        license=card.license,
    )


def environment(device: str, batch_size: int) -> Environment:
    """What a record says of this machine and of the programs on it."""
    return Environment(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        packages=package_versions(),
        device=device,
        device_name=device_title(device),
        threads=torch.get_num_threads(),
        batch_size=batch_size,
    )


def notes(warnings: Sequence[WarningEvent]) -> list[RunNote]:
    """Warnings as a record has them."""
    return [RunNote(code=w.code, message=w.message, hint=w.hint) for w in warnings]


def now() -> str:
    """The time in UTC."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def _index(inputs: Inputs) -> dict[str, Any]:
    assert inputs.sequence is not None
    index = inputs.sequence.index
    return {"index_name": index.name, "index_unit": index.unit}


def _directions(found: HeatmapResult) -> Directions:
    return Directions(
        name=found.directions.name,
        vectors=[_vector(vector) for vector in found.directions.vectors],
        weights=found.directions.weights.tolist(),
    )


def _record(
    folder: Path,
    inputs: Inputs,
    device: str,
    batch_size: int,
    warnings: Sequence[WarningEvent],
) -> dict[str, Any]:
    """The fields that every result has, but for the timings."""
    return {
        "tomoseg": TomoSegLib.__version__,
        "job": inputs.job,
        "inputs": inputs.records,
        "foreground": inputs.foreground_record,
        "model": model_record(inputs.model),
        "environment": environment(device, batch_size),
        "warnings": notes(warnings),
        "created_at": now(),
        "files": {
            path.relative_to(folder).as_posix(): file_hash(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        },
    }


def _write(folder: Path, result: Record) -> None:
    text = result.model_dump_json(indent=2) + "\n"
    (folder / "result.json").write_text(text, encoding="utf-8", newline="\n")


def _vector(values: npt.NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
