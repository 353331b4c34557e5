"""The record of a run: measuring what came out and writing ``result.json``."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

import TomoSegLib
from TomoSegLib.heatmaps.peaks import find_peaks
from TomoSegLib.heatmaps.pipeline import HeatmapResult
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.jobs.devices import device_title
from TomoSegLib.jobs.events import WarningEvent
from TomoSegLib.jobs.inputs import Inputs
from TomoSegLib.jobs.probe import package_versions
from TomoSegLib.jobs.result import (
    Directions,
    Environment,
    Heatmap,
    HeatmapPeak,
    Mask,
    Model,
    RunNote,
    RunResult,
    Vector,
)
from TomoSegLib.jobs.settings import method_settings
from TomoSegLib.models.folder import model_hash


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
    """Write ``result.json`` beside the files that it describes."""
    job, model = inputs.job, inputs.model
    card = model.card
    result = RunResult(
        tomoseg=TomoSegLib.__version__,
        job=job,
        inputs=inputs.records,
        foreground=inputs.foreground_record,
        model=Model(
            name=card.name,
            version=card.version,
            hash=model_hash(model),
            path=str(model.path),
            labels=card.labels,
            simulated=card.training_data.simulated,
            license=card.license,
        ),
        settings=method_settings(job, card),
        directions=Directions(
            name=found.directions.name,
            vectors=[_vector(vector) for vector in found.directions.vectors],
            weights=found.directions.weights.tolist(),
        ),
        heatmap=heatmap,
        mask=mask,
        environment=Environment(
            python=f"{platform.python_implementation()} {platform.python_version()}",
            platform=platform.platform(),
            packages=package_versions(),
            device=found.device,
            device_name=device_title(found.device),
            threads=torch.get_num_threads(),
            batch_size=found.batch_size,
        ),
        timings_s=timings_s
        | {f"heatmap.{part}": round(seconds, 3) for part, seconds in found.timings_s.items()},
        warnings=[RunNote(code=w.code, message=w.message, hint=w.hint) for w in warnings],
        created_at=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        files={path.name: file_hash(path) for path in sorted(folder.iterdir())},
    )
    text = result.model_dump_json(indent=2) + "\n"
    (folder / "result.json").write_text(text, encoding="utf-8", newline="\n")


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _vector(values: npt.NDArray[np.float64]) -> Vector:
    x, y, z = (float(value) for value in values)
    return x, y, z
