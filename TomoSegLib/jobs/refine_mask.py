"""The mask of a heatmap anew, along the image's borders: seconds, without a network or torch.

It is the last step of a run on its own, for whoever moves the threshold of a heatmap that is
there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.mask import keep_components
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.segmentation import write_segmentation
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.document import RefineMaskJob
from TomoSegLib.jobs.events import ResultEvent
from TomoSegLib.jobs.inputs import region_grid
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.scratch import no_space_error
from TomoSegLib.models.card import Label, MaskSettings, ModelCard, RefinementSettings
from TomoSegLib.models.store import find_model
from TomoSegLib.refinement.refine import refine

BoolArray = npt.NDArray[np.bool_]
_TOLERANCE_MM = 1e-2
"""Between the corners of two grids that are one: files keep matrices in single precision."""


def refine_mask(results: Path, job: RefineMaskJob, report: Reporter) -> ResultEvent:
    """Make the mask and leave its file in a working folder.

    Returns:
        The event with the place that the file gets, and ``refinement`` (method and parameters),
        ``components``, ``minimum_size_ml``, ``threshold``, ``voxels`` and ``volume_ml``.

    Raises:
        TomoSegError: From `find_model`, `read_volume`, `refine`; ``model-task``,
            ``refinement-geometry``, ``region-outside``, and those of the file's name and place.
    """
    output = Path(job.output)
    card = _card(job)
    refinement = _refinement(job, card)
    keep = _mask_settings(job, card)
    with report.collecting_warnings():
        with report.stage("read"):
            image = read_volume(job.image)
            grid = image.geometry
            region_grid(job.region, image)  # for its error
            heatmap = _map(job.heatmap, "heatmap", grid)
            agreement = _map(job.agreement, "agreement", grid)
            drawn = [_strokes(path, grid) for path in (job.inside, job.outside)]
        with report.stage("mask"):
            mask = refine(
                image.array,
                heatmap,
                agreement,
                grid,
                refinement,
                threshold=job.threshold,
                # A run leaves 0 outside of the patient and of its region.
                foreground=(heatmap != 0) | (agreement != 0),
                region=_box(job, grid),
                extra_inside=drawn[0],
                extra_outside=drawn[1],
            )
            keep_components(mask, heatmap, keep, grid.voxel_volume_ml)
    label = Label(name="lesion") if card is None else card.labels[0]
    values = mask.view(np.uint8) * np.uint8(label.value)
    try:
        with report.stage("write"):
            _write(results / output.name, values, image, [label] if card is None else card.labels)
    except OSError as error:
        if space := no_space_error(error, output):
            raise space from None
        raise
    voxels = int(np.count_nonzero(mask))
    return ResultEvent(
        str(output),
        {
            "refinement": refinement.model_dump(mode="json"),
            "components": keep.components,
            "minimum_size_ml": keep.minimum_size_ml,
            "threshold": job.threshold,
            "voxels": voxels,
            "volume_ml": voxels * grid.voxel_volume_ml,
        },
    )


def _card(job: RefineMaskJob) -> ModelCard | None:
    if job.model is None:
        return None
    card = find_model(job.model).card
    if card.task != "heatmap":
        raise TomoSegError(
            "model-task",
            f"The model {card.name} is for {card.task}: it makes no heatmap to refine.",
            "Name the model that made the heatmap.",
        )
    return card


def _refinement(job: RefineMaskJob, card: ModelCard | None) -> RefinementSettings:
    """Method and parameters, as `tomoseg run` takes them from a card."""
    settings = job.refinement
    if settings is None:
        assert card is not None  # the document sees to it
        settings = card.refinement or RefinementSettings()
    changes = {
        "method": job.refine,
        "boundary_mm": job.boundary_mm,
        "reach_mm": job.reach_mm,
        "closing_mm": job.closing_mm,
    }
    return settings.model_copy(update={k: v for k, v in changes.items() if v is not None})


def _mask_settings(job: RefineMaskJob, card: ModelCard | None) -> MaskSettings:
    default = MaskSettings(minimum_size_ml=0.0, components="all") if card is None else card.mask
    size = default.minimum_size_ml if job.minimum_size_ml is None else job.minimum_size_ml
    return MaskSettings(minimum_size_ml=size, components=job.components or default.components)


def _map(path: str, what: str, grid: Geometry) -> npt.NDArray[np.float32]:
    volume = read_volume(path, constant=True)
    _check_grid(volume, what, grid)
    return volume.array.astype(np.float32, copy=False)


def _strokes(path: str | None, grid: Geometry) -> BoolArray | None:
    if path is None:
        return None
    volume = read_volume(path, constant=True)
    _check_grid(volume, "file of strokes", grid)
    drawn: BoolArray = volume.array != 0
    return drawn


def _check_grid(volume: Volume, what: str, grid: Geometry) -> None:
    if not volume.geometry.is_close(grid, _TOLERANCE_MM):
        raise TomoSegError(
            "refinement-geometry",
            f"The {what} '{volume.name}' does not lie on the image's grid of "
            f"{' x '.join(map(str, grid.size))} voxels.",
            "Give the image from which the heatmap was made, and resample the strokes to it.",
        )


def _box(job: RefineMaskJob, grid: Geometry) -> BoolArray | None:
    if job.region is None:
        return None
    inside = np.zeros(grid.shape, np.bool_)
    inside[job.region.slices] = True
    return inside


def _write(path: Path, values: npt.NDArray[np.uint8], image: Volume, labels: list[Label]) -> None:
    if path.name.lower().endswith(".seg.nrrd"):
        write_segmentation(path, values, image.geometry, labels, image.name)
    else:
        write_volume(image.with_array(values, "mask"), path)
