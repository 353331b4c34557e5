"""The main job: a volume in, a heatmap and a mask out."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.mask import heatmap_to_mask
from TomoSegLib.heatmaps.pipeline import HeatmapResult, compute_heatmap
from TomoSegLib.imaging.io import hash_volume, read_volume, write_volume
from TomoSegLib.imaging.montage import montage
from TomoSegLib.imaging.preprocessing import ModelInput, prepare
from TomoSegLib.imaging.segmentation import write_segmentation
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs import provenance
from TomoSegLib.jobs.devices import choose_device
from TomoSegLib.jobs.document import Expected, Region, RunJob
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import Input
from TomoSegLib.jobs.settings import (
    check_hash,
    complete,
    mask_settings,
    method_settings,
    some,
)
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.folder import model_hash
from TomoSegLib.models.loading import LoadedEncoder, load_encoder
from TomoSegLib.models.store import find_model

FIRST_PREVIEW = 4
"""Directions of the first preview; each further one has twice as many."""

Float32Array = npt.NDArray[np.float32]


def run(job: RunJob, results: Path, report: Reporter) -> None:
    """Carry out a job and write its outputs into the folder `results`.

    Raises:
        TomoSegError: Whatever the user can cause or mend.
    """
    model = find_model(job.model)
    card = model.card
    job = complete(job, model, report.warn)
    expected = job.expected or Expected()
    check_hash("model", model.name, model_hash(model), expected.model)
    report.device = choose_device(job.device)
    _make_reproducible(job)

    volumes, foreground, inputs = _read(job, expected, report)
    image = volumes[0]
    target = _box(job.region, image)
    with report.stage("prepare"):
        model_input = prepare(volumes, card.preprocessing, foreground)
    del volumes, foreground  # from here on the first channel is all that is needed
    with report.stage("load-model"):
        encoder = load_encoder(model, report.device)

    found = _heatmap(job, card, model_input, encoder, target, report)
    heatmap = _embed(found.heatmap, job.region, image.geometry)
    agreement = _embed(found.agreement, job.region, image.geometry)
    inside = _inside(job.region, model_input.source_foreground)
    with report.stage("mask"):
        mask, threshold = heatmap_to_mask(
            heatmap,
            inside,
            "card" if job.threshold is None else job.threshold,
            mask_settings(job),
            image.geometry,
            calibrated=card.settings(some(job.method)).threshold,
        )
        mask *= np.uint8(card.labels[0].value)
        heatmap_figures = provenance.measure_heatmap(heatmap, inside, image.geometry)
        mask_figures = provenance.measure_mask(mask, threshold, image.geometry)

    with report.stage("write", 5) as written:
        write_volume(image.with_array(heatmap, "heatmap"), results / "heatmap.nrrd")
        written(1, 5)
        write_volume(image.with_array(agreement, "agreement"), results / "agreement.nrrd")
        written(2, 5)
        write_segmentation(results / "mask.seg.nrrd", mask, image.geometry, card.labels, image.name)
        write_volume(image.with_array(mask, "mask"), results / "mask.nii.gz")
        written(3, 5)
        montage(
            image,
            heatmap,
            mask,
            results / "overlay.png",
            title=f"{image.name}   {card.title}",
            footer=_footer(job, card, threshold),
        )
        written(4, 5)
    provenance.write_result(
        results,
        job=job,
        model=model,
        inputs=inputs,
        found=found,
        heatmap=heatmap_figures,
        mask=mask_figures,
        timings_s=report.timings,
        warnings=report.warnings,
    )


def _read(
    job: RunJob, expected: Expected, report: Reporter
) -> tuple[list[Volume], Volume | None, provenance.Inputs]:
    """The channels in the card's order, the foreground mask, and what they are."""
    volumes: list[Volume] = []
    inputs: dict[str, Input] = {}
    foreground, foreground_input = None, None
    with report.stage("read", len(job.channels)) as progress:
        for name, path in job.channels.items():
            volume = read_volume(path)
            inputs[name] = provenance.describe_input(path, volume, hash_volume(volume))
            check_hash("input", path, inputs[name].hash, expected.inputs.get(name))
            volumes.append(volume)
            progress(len(volumes), len(job.channels))
        if job.foreground is not None:
            foreground = read_volume(job.foreground)
            foreground_input = provenance.describe_input(
                job.foreground, foreground, hash_volume(foreground)
            )
            check_hash("foreground", job.foreground, foreground_input.hash, expected.foreground)
    return volumes, foreground, provenance.Inputs(inputs, foreground_input)


def _heatmap(
    job: RunJob,
    card: ModelCard,
    model_input: ModelInput,
    encoder: LoadedEncoder,
    target: Geometry,
    report: Reporter,
) -> HeatmapResult:
    with report.stage("heatmap", 0) as progress:
        return compute_heatmap(
            model_input,
            encoder,
            card,
            some(job.method),
            method_settings(job, card),
            job.cam or "cam",
            target=target,
            device=report.device,
            batch_size=job.batch_size,
            on_progress=progress,
            on_preview=_preview_writer(job, target, report),
            on_warning=report.warn,
        )


def _preview_writer(
    job: RunJob, target: Geometry, report: Reporter
) -> Callable[[int, Callable[[], Float32Array]], None] | None:
    """Writes the growing heatmap to a file at each doubling of the number of directions."""
    if job.previews is None:
        return None
    folder = Path(job.previews)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TomoSegError(
            "previews-unwritable",
            f"The folder for previews {folder} cannot be made: {error.strerror or error}.",
            "Choose another folder, or none.",
        ) from None
    following = FIRST_PREVIEW

    def write(directions: int, heatmap: Callable[[], Float32Array]) -> None:
        nonlocal following
        if directions < following:
            return
        while following <= directions:
            following *= 2
        path = folder / f"preview-{directions:04}.nrrd"
        try:
            write_volume(Volume(heatmap(), target, "preview"), path)
        except TomoSegError as error:  # the result is not the preview's to endanger
            report.warn("preview-failed", error.message, error.hint)
        else:
            report.preview(str(path), directions)

    return write


def _make_reproducible(job: RunJob) -> None:
    """The same job on the same machine gives the same bytes."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
    torch.manual_seed(job.seed)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    if job.threads is not None:
        torch.set_num_threads(job.threads)


def _box(region: Region | None, image: Volume) -> Geometry:
    """The grid of the region of interest, or the whole one."""
    geometry = image.geometry
    if region is None:
        return geometry
    if any(stop > size for stop, size in zip(region.stop, geometry.size, strict=True)):
        raise TomoSegError(
            "region-outside",
            f"The region of interest reaches beyond '{image.name}', which has "
            f"{' x '.join(map(str, geometry.size))} voxels.",
            "Give voxel ranges along i, j and k within the volume.",
        )
    affine = geometry.affine.copy()
    affine[:3, 3] = geometry.index_to_lps(region.start)
    return Geometry(tuple(s.stop - s.start for s in _slices(region)), affine)


def _slices(region: Region) -> tuple[slice, slice, slice]:
    i, j, k = (slice(a, b) for a, b in zip(region.start, region.stop, strict=True))
    return k, j, i


def _embed(array: Float32Array, region: Region | None, geometry: Geometry) -> Float32Array:
    """The region's values on the whole grid, 0 elsewhere."""
    if region is None:
        return array
    whole = np.zeros(geometry.shape, np.float32)
    whole[_slices(region)] = array
    return whole


def _inside(region: Region | None, foreground: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """The foreground within the region."""
    if region is None:
        return foreground
    inside = np.zeros_like(foreground)
    inside[_slices(region)] = foreground[_slices(region)]
    return inside


def _footer(job: RunJob, card: ModelCard, threshold: float) -> str:
    method = some(job.method) if job.cam is None else f"{job.method} ({job.cam})"
    trained = "trained on simulated data" if card.training_data.simulated else "research use"
    return (
        f"{card.name} {card.version}, {trained}   {method}, {job.directions}, "
        f"filter order {job.filter_order:g}   mask above {threshold:.4g}"
    )
