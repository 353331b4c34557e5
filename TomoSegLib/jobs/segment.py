"""The main job with a segmenter: a volume in, a label map and its probabilities out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.montage import montage
from TomoSegLib.imaging.preprocessing import Float32Array, prepare
from TomoSegLib.imaging.segmentation import write_segmentation
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.jobs import provenance
from TomoSegLib.jobs.devices import choose_device
from TomoSegLib.jobs.inputs import Inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import Segment
from TomoSegLib.jobs.settings import mask_settings
from TomoSegLib.jobs.steps import inside_region, load_on_device, make_reproducible, write_all
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.segmenter import load_segmenter
from TomoSegLib.segmentation.inference import Prediction, predict
from TomoSegLib.segmentation.labelmap import clean, to_source, write_probabilities


@dataclass(frozen=True)
class Findings:
    """What was found in one volume, on its grid.

    Attributes:
        image: The first channel.
        found: What the network gave.
        probabilities: ``[k, j, i, L]`` of the labels in the card's order.
        labelmap: ``[k, j, i]``.
        segments: Figures of each label.
    """

    image: Volume
    found: Prediction
    probabilities: Float32Array
    labelmap: npt.NDArray[np.uint8]
    segments: list[Segment]


def segment(inputs: Inputs, results: Path, report: Reporter) -> None:
    """Carry out a job whose inputs have been read, and write its outputs into a folder.

    Raises:
        TomoSegError: Whatever the user can cause or mend.
    """
    card = inputs.model.card
    findings = find(inputs, report)
    image, labelmap, grid = findings.image, findings.labelmap, findings.image.geometry

    def draw() -> None:
        title = f"{image.name}   {card.title}"
        path = results / "overlay.png"
        footer = overlay_footer(card)
        montage(image, None, labelmap, path, title=title, footer=footer, labels=card.labels)

    write_all(
        report,
        draw,
        lambda: write_probabilities(
            results / "probabilities.nrrd", findings.probabilities, grid, card.labels
        ),
        lambda: write_segmentation(
            results / "mask.seg.nrrd", labelmap, grid, card.labels, image.name
        ),
        lambda: write_volume(image.with_array(labelmap, "mask"), results / "mask.nii.gz"),
    )
    provenance.write_segmentation_result(
        results,
        inputs=inputs,
        found=findings.found,
        segments=findings.segments,
        timings_s=report.timings,
        warnings=report.warnings,
    )


def find(inputs: Inputs, report: Reporter) -> Findings:
    """Label map and probabilities of one volume; nothing is written.

    Raises:
        TomoSegError: Whatever the user can cause or mend.
    """
    job, model, image = inputs.job, inputs.model, inputs.volumes[0]
    card, grid = model.card, image.geometry
    report.device = choose_device(job.device)
    make_reproducible(job)

    with report.stage("prepare"):
        model_input = prepare(inputs.volumes, card.preprocessing, inputs.foreground)
    inputs.forget_volumes()  # from here on the first channel is all that is needed
    with report.stage("load-model"):
        segmenter = load_on_device(lambda device: load_segmenter(model, device), report)
    inside = inside_region(job.region, model_input.source_foreground)
    with report.stage("segment", 0) as progress:
        found = predict(
            model_input,
            segmenter,
            inside,
            batch_size=job.batch_size,
            on_progress=progress,
            on_warning=report.warn,
        )
    with report.stage("mask"):
        probabilities, labelmap = to_source(
            found.probabilities, model_input.geometry, grid, inside, card
        )
        clean(labelmap, probabilities, card.labels, mask_settings(job), grid)
        segments = [
            provenance.measure_segment(labelmap, probabilities[..., index], label, grid)
            for index, label in enumerate(card.labels)
        ]
    return Findings(image, found, probabilities, labelmap, segments)


def overlay_footer(card: ModelCard) -> str:
    """The small print of the picture."""
    trained = "trained on simulated data" if card.training_data.simulated else "research use"
    return (
        f"{card.name} {card.version}, {trained}   segmentation of "
        f"{', '.join(label.name for label in card.labels)}"
    )
