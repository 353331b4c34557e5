"""The main job: a volume in, a heatmap and a mask out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.mask import heatmap_to_mask
from TomoSegLib.heatmaps.pipeline import HeatmapResult, Preview, compute_heatmap
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.montage import montage
from TomoSegLib.imaging.preprocessing import ModelInput, prepare
from TomoSegLib.imaging.segmentation import write_segmentation
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs import provenance
from TomoSegLib.jobs.devices import choose_device
from TomoSegLib.jobs.document import Region, RunJob
from TomoSegLib.jobs.inputs import Inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import Heatmap, Mask
from TomoSegLib.jobs.settings import mask_settings, method_settings, refinement_settings, some
from TomoSegLib.jobs.steps import inside_region, load_on_device, make_reproducible, write_all
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.loading import LoadedEncoder, load_encoder
from TomoSegLib.refinement.refine import refined_mask

FIRST_PREVIEW = 4
"""Directions of the first preview; each further one has twice as many."""

Float32Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Findings:
    """What was found in one volume, on its whole grid.

    Attributes:
        image: The first channel.
        found: What the pipeline gave, on the region's grid.
        heatmap: ``[k, j, i]``, 0 outside of the region.
        agreement: Likewise.
        mask: ``[k, j, i]`` uint8 with the label's value.
        heatmap_figures: For the record.
        mask_figures: Likewise.
    """

    image: Volume
    found: HeatmapResult
    heatmap: Float32Array
    agreement: Float32Array
    mask: npt.NDArray[np.uint8]
    heatmap_figures: Heatmap
    mask_figures: Mask


def run(inputs: Inputs, results: Path, report: Reporter) -> None:
    """Carry out a job whose inputs have been read, and write its outputs into a folder.

    Raises:
        TomoSegError: Whatever the user can cause or mend.
    """
    job, card = inputs.job, inputs.model.card
    findings = find(inputs, report)
    image, heatmap, mask = findings.image, findings.heatmap, findings.mask

    def draw() -> None:
        title = f"{image.name}   {card.title}"
        footer = overlay_footer(job, card, findings.mask_figures.threshold)
        montage(image, heatmap, mask, results / "overlay.png", title=title, footer=footer)

    write_all(
        report,
        draw,
        lambda: write_volume(image.with_array(heatmap, "heatmap"), results / "heatmap.nrrd"),
        lambda: write_volume(
            image.with_array(findings.agreement, "agreement"), results / "agreement.nrrd"
        ),
        lambda: write_segmentation(
            results / "mask.seg.nrrd", mask, image.geometry, card.labels, image.name
        ),
        lambda: write_volume(image.with_array(mask, "mask"), results / "mask.nii.gz"),
    )
    provenance.write_result(
        results,
        inputs=inputs,
        found=findings.found,
        heatmap=findings.heatmap_figures,
        mask=findings.mask_figures,
        timings_s=report.timings,
        warnings=report.warnings,
    )


def find(inputs: Inputs, report: Reporter) -> Findings:
    """Heatmap and mask of one volume; nothing is written but previews.

    Raises:
        TomoSegError: Whatever the user can cause or mend.
    """
    job, model, image = inputs.job, inputs.model, inputs.volumes[0]
    card, target = model.card, inputs.target
    report.device = choose_device(job.device)
    make_reproducible(job)

    with report.stage("prepare"):
        model_input = prepare(inputs.volumes, card.preprocessing, inputs.foreground)
    inputs.forget_volumes()  # from here on the first channel is all that is needed
    with report.stage("load-model"):
        encoder = load_on_device(lambda device: load_encoder(model, device), report)

    write_preview = _preview_writer(job.previews, job.region, image.geometry, report)
    found = _heatmap(job, card, model_input, encoder, target, write_preview, report)
    heatmap = _embed(found.heatmap, job.region, image.geometry)
    agreement = _embed(found.agreement, job.region, image.geometry)
    inside = inside_region(job.region, model_input.source_foreground)
    with report.stage("mask"):
        mask, threshold = heatmap_to_mask(
            heatmap,
            inside,
            "card" if job.threshold is None else job.threshold,
            mask_settings(job),
            image.geometry,
            calibrated=card.settings(some(job.method)).threshold,
        )
        refinement = refinement_settings(job, card)
        if refinement is not None:
            mask = refined_mask(
                image.array,
                heatmap,
                agreement,
                image.geometry,
                refinement,
                mask_settings(job),
                threshold=threshold,
                foreground=inside,
            )
        mask *= np.uint8(card.labels[0].value)
        return Findings(
            image,
            found,
            heatmap,
            agreement,
            mask,
            provenance.measure_heatmap(heatmap, inside, image.geometry),
            provenance.measure_mask(mask, threshold, image.geometry),
        )


def _heatmap(
    job: RunJob,
    card: ModelCard,
    model_input: ModelInput,
    encoder: LoadedEncoder,
    target: Geometry,
    write_preview: Preview | None,
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
            on_preview=write_preview,
            on_warning=report.warn,
        )


def _preview_writer(
    folder: str | None, region: Region | None, geometry: Geometry, report: Reporter
) -> Preview | None:
    """Writes the growing heatmap to a file at each doubling of the number of directions.

    The file is on the whole grid, as the result will be.
    """
    if folder is None:
        return None

    def write(directions: int, heatmap: Callable[[], Float32Array]) -> None:
        if directions < FIRST_PREVIEW:
            return
        path = Path(folder) / f"preview-{directions:04}.nrrd"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = _embed(heatmap(), region, geometry)
            write_volume(Volume(whole, geometry, "preview"), path)
        except (OSError, TomoSegError) as error:  # the result is not the preview's to endanger
            report.warn("preview-failed", f"The preview {path} cannot be written: {error}")
        else:
            report.preview(str(path), directions)

    return write


def _embed(array: Float32Array, region: Region | None, geometry: Geometry) -> Float32Array:
    """The region's values on the whole grid, 0 elsewhere."""
    if region is None:
        return array
    whole = np.zeros(geometry.shape, np.float32)
    whole[region.slices] = array
    return whole


def overlay_footer(job: RunJob, card: ModelCard, threshold: float | None) -> str:
    """The small print of the picture; without a threshold where frames have their own."""
    method = some(job.method) if job.cam is None else f"{job.method} ({job.cam})"
    refined = "" if job.refine in (None, "none") else f", refined ({job.refine})"
    trained = "trained on simulated data" if card.training_data.simulated else "research use"
    above = f"{job.threshold}" if threshold is None else f"{threshold:.4g}"
    return (
        f"{card.name} {card.version}, {trained}   {method}, {job.directions}, "
        f"filter order {job.filter_order:g}   mask above {above}{refined}"
    )
