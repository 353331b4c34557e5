"""The documents of jobs without a run: questions, models, masks, studies."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from TomoSegLib.jobs.document_base import DEVICE, FilePath, JobModel, Millimetres, Region
from TomoSegLib.models.card import (
    CamKind,
    Components,
    Method,
    RefinementMethod,
    RefinementSettings,
)


class ProbeJob(JobModel):
    """What is really there: Python, packages, devices, memory, models. Writes nothing."""

    kind: Literal["probe"] = "probe"
    schema_version: Literal[1] = 1


class ImportModelJob(JobModel):
    """Copy a model into the user's store, after all checks.

    Attributes:
        source: The model's folder, or a zip archive of it.
        replace: Whether another model of its name in the store is replaced.
    """

    kind: Literal["import-model"] = "import-model"
    schema_version: Literal[1] = 1
    source: FilePath
    replace: bool = False


class VerifyModelJob(JobModel):
    """Look whether a model is what its card says. Writes nothing.

    Attributes:
        model: Name of a known model, or a model's folder.
    """

    kind: Literal["verify-model"] = "verify-model"
    schema_version: Literal[1] = 1
    model: FilePath


class EstimateJob(JobModel):
    """How fast a model's encoder is here, found out in a second or so. Writes nothing.

    Attributes:
        model: Name of a known model, or a model's folder.
        method: Heatmap method, or None for the card's.
        cam: Kind of class activation map, for the CAM methods.
        slice_mm: Height and width of a typical slice of the scan, mm.
        device: As for `RunJob`.
        batch_size: As for `RunJob`.
    """

    kind: Literal["estimate"] = "estimate"
    schema_version: Literal[1] = 1
    model: FilePath
    method: Method | None = None
    cam: CamKind | None = None
    slice_mm: tuple[Millimetres, Millimetres] = (200.0, 200.0)
    device: Annotated[str, Field(pattern=DEVICE.pattern)] = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None


class RefineMaskJob(JobModel):
    """A mask of a heatmap that is there already, along the image's own borders.

    With a run's inputs, threshold and settings it gives the mask of that run.

    Attributes:
        image: File (or DICOM folder) of the volume whose borders are followed.
        heatmap: The heatmap on its grid; where it and the agreement are 0 no mask can be.
        agreement: How far the directions agree, in [0, 1], on the same grid.
        threshold: The mask begins above this value of the heatmap.
        model: Name of a known model, or a model's folder, whose card has the parameters and says
            what the mask is called.
        refinement: The method and its parameters, instead of those of a card.
        refine: Another method than the card's or that of ``refinement``.
        boundary_mm: Another value of this parameter of `RefinementSettings`.
        reach_mm: Likewise.
        closing_mm: Likewise.
        components: Which connected components of the mask are kept; None: as the model's card
            says, else all.
        minimum_size_ml: Smaller components are dropped; None likewise.
        region: The mask is restricted to this box.
        inside: Strokes, a mask file on the same grid: what is not 0 belongs to the mask.
        outside: Strokes that do not; they win where both were drawn.
        output: The mask's file; its name says the format.
        overwrite: Replace a file that is already there.
    """

    kind: Literal["refine-mask"] = "refine-mask"
    schema_version: Literal[1] = 1
    image: FilePath
    heatmap: FilePath
    agreement: FilePath
    threshold: Annotated[float, Field(allow_inf_nan=False)]
    model: FilePath | None = None
    refinement: RefinementSettings | None = None
    refine: RefinementMethod | None = None
    boundary_mm: Annotated[float, Field(gt=0, le=1000)] | None = None
    reach_mm: Annotated[float, Field(gt=0, le=1000)] | None = None
    closing_mm: Annotated[float, Field(ge=0, le=50)] | None = None
    components: Components | None = None
    minimum_size_ml: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    region: Region | None = None
    inside: FilePath | None = None
    outside: FilePath | None = None
    output: FilePath
    overwrite: bool = False

    @model_validator(mode="after")
    def _some_refinement(self) -> RefineMaskJob:
        if self.refinement is None and self.model is None:
            raise ValueError("neither a model nor a refinement with its parameters is named")
        return self


class InspectStudyJob(JobModel):
    """What a study of several views holds, and where its views cut each other.

    Attributes:
        study: Folder of one patient's views.
        views: A corrected table of views, instead of the study's own.
        output: Folder of the results, without an inspection; made if it does not exist.
    """

    outputs: ClassVar[tuple[str, ...]] = ("views.csv", "volumes", "study.json", "lines.json")

    kind: Literal["inspect-study"] = "inspect-study"
    schema_version: Literal[1] = 1
    study: FilePath
    views: FilePath | None = None
    output: FilePath
