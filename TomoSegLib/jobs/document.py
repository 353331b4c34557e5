"""The job document: what is to be done, complete and validated before anything starts.

A document is a JSON object; its ``kind`` says which class below describes it. Everything that
can be said wrongly is refused here, unknown fields above all: a misspelt setting that is silently
ignored would change a result. Settings that are left out (None) are taken from the model's card;
``result.json`` records the document with every setting filled in.

A new kind of job is a class with its own literal ``kind`` that joins the union `Job`, and a
function in `TomoSegLib.jobs.task` that carries it out.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

from pydantic import (
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import (
    CamKind,
    Components,
    Method,
    RefinementMethod,
    RefinementSettings,
    StrictModel,
    Window,
)

SCHEMA_VERSION = 1

FilePath = Annotated[str, Field(min_length=1, max_length=4096)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
ChannelName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Millimetres = Annotated[float, Field(gt=0, le=2000)]
_THRESHOLD_WORDS = ("card", "otsu")
_PERCENTILE = re.compile(r"^percentile:(\d+(\.\d+)?)$")
_DEVICE = re.compile(r"^(auto|cpu|cuda(:\d{1,3})?|mps)$")


class JobModel(StrictModel):
    """Base of the documents: no field may be unknown, and text is never taken for a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Region(JobModel):
    """A box of voxels of the first input, half-open like a Python slice.

    Attributes:
        start: First voxel ``(i, j, k)``.
        stop: One past the last voxel ``(i, j, k)``.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @model_validator(mode="after")
    def _not_empty(self) -> Region:
        if any(a < 0 or b <= a for a, b in zip(self.start, self.stop, strict=True)):
            raise ValueError("a region needs 0 <= start < stop along i, j and k")
        return self

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The region of an array ``[k, j, i]``."""
        i, j, k = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return k, j, i


class Expected(JobModel):
    """What the inputs must be, by hash: how a job is run again exactly.

    Attributes:
        inputs: Hash of the content of each channel, by channel name.
        foreground: Hash of the content of the foreground mask, where one is given.
        model: Hash of the model.
    """

    inputs: dict[ChannelName, Sha256] = Field(default_factory=dict)
    foreground: Sha256 | None = None
    model: Sha256 | None = None


class RunSettings(JobModel):
    """How volumes are worked on: what a run and a batch of runs have in common.

    `HEATMAP_ONLY` names the settings that a segmenter refuses.

    Attributes:
        model: Name of a known model, or a model's folder.
        method: Heatmap method, or None for the card's.
        cam: Kind of class activation map, for the CAM methods.
        rectified: Whether activation maps are clipped at zero slice by slice.
        directions: Direction set such as ``fibonacci:64``, or a file of vectors (LPS).
        filter_order: Order p of the filter ``|k|^p``.
        cutoff: Cutoff as a fraction of the Nyquist frequency.
        window: Apodisation of the filter.
        threshold: ``card``, ``otsu``, ``percentile:Q`` or a number in the heatmap's units; None:
            the card's, or Otsu's with a warning where the card has none for the method.
        refine: How the mask follows the image's own borders, with the card's parameters; None:
            as the card says for its own method, else not at all.
        components: Which connected components of the mask are kept.
        minimum_size_ml: Smaller components are dropped.
        region: Reconstruct only this box; outside of it the heatmap is 0.
        device: ``auto`` takes a GPU where there is one that works.
        batch_size: Slices per pass of the encoder, or windows of the segmenter; None for the
            device's default.
        threads: CPU threads, or None for all cores. Sums in another order differ in the last
            digit, so this is recorded and used again by ``rerun``.
        seed: Seed of every random generator.
    """

    model: FilePath
    method: Method | None = None
    cam: CamKind | None = None
    rectified: bool | None = None
    directions: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    filter_order: Annotated[float, Field(ge=0, le=2)] | None = None
    cutoff: Annotated[float, Field(gt=0, le=1)] | None = None
    window: Window | None = None
    threshold: float | str | None = None
    refine: RefinementMethod | Literal["none"] | None = None
    components: Components | None = None
    minimum_size_ml: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    region: Region | None = None
    device: str = "auto"
    batch_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0

    @field_validator("threshold")
    @classmethod
    def _known_threshold(cls, threshold: float | str | None) -> float | str | None:
        if isinstance(threshold, float) and not math.isfinite(threshold):
            raise ValueError("the threshold is not a finite number")
        if isinstance(threshold, str) and threshold not in _THRESHOLD_WORDS:
            match = _PERCENTILE.match(threshold)
            if match is None or float(match.group(1)) > 100:
                raise ValueError(
                    f"'{threshold}' is none of card, otsu, percentile:Q (0 to 100) or a number"
                )
        return threshold

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not _DEVICE.match(device):
            raise ValueError(f"'{device}' is none of auto, cpu, cuda, cuda:N or mps")
        return device


class RunJob(RunSettings):
    """Volume in; heatmap and mask out, or segmentation and probabilities: as the model's task is.

    A segmenter gives no previews.

    Attributes:
        input: File (or DICOM folder) of the model's first channel.
        channels: Files of the other channels, by the names that the card gives them; the first
            channel may be named here too, instead of in ``input``.
        foreground: Optional mask file; voxels that are not zero are the foreground.
        output: Folder of the results; made if it does not exist.
        overwrite: Replace results that are already there; other files are never touched.
        previews: Folder for previews of the growing heatmap, one file for each doubling of the
            number of directions. It belongs to the caller, who also removes it.
        expected: Hashes that inputs and model must have.
    """

    outputs: ClassVar[tuple[str, ...]] = (
        "heatmap.nrrd",
        "agreement.nrrd",
        "probabilities.nrrd",
        "mask.seg.nrrd",
        "mask.nii.gz",
        "overlay.png",
        "result.json",
    )

    kind: Literal["run"] = "run"
    schema_version: Literal[1] = 1
    input: FilePath | None = None
    channels: dict[ChannelName, FilePath] = Field(default_factory=dict)
    foreground: FilePath | None = None
    output: FilePath
    overwrite: bool = False
    previews: FilePath | None = None
    expected: Expected | None = None

    @model_validator(mode="after")
    def _some_input(self) -> RunJob:
        if self.input is None and not self.channels:
            raise ValueError("no input volume is named")
        return self


class BatchCase(JobModel):
    """One of the volumes of a batch.

    Attributes:
        id: Name of the case, and of the folder of its results.
        input: As in a `RunJob`.
        channels: Likewise.
        foreground: Likewise.
    """

    id: Annotated[str, Field(pattern=r"^[^\s./\\:*?\"<>|][^/\\:*?\"<>|\x00-\x1f]{0,119}$")]
    input: FilePath | None = None
    channels: dict[ChannelName, FilePath] = Field(default_factory=dict)
    foreground: FilePath | None = None


class BatchJob(RunSettings):
    """Many volumes through one model; see `TomoSegLib.jobs.batch`.

    Attributes:
        cases: The volumes, in this order.
        output: Folder of the summary, and of a folder of results for each case.
        overwrite: Replace results that were made with other settings, or of another input.
    """

    kind: Literal["batch"] = "batch"
    schema_version: Literal[1] = 1
    cases: Annotated[tuple[BatchCase, ...], Field(min_length=1, max_length=100_000)]
    output: FilePath
    overwrite: bool = False

    @model_validator(mode="after")
    def _different_folders(self) -> BatchJob:
        # As some file systems see it, which do not tell capitals from small letters.
        if len({case.id.casefold() for case in self.cases}) < len(self.cases):
            raise ValueError("two cases have the same id")
        return self

    def run_job(self, case: BatchCase) -> RunJob:
        """The job of one case."""
        return RunJob(
            **{name: getattr(self, name) for name in RunSettings.model_fields},
            input=case.input,
            channels=case.channels,
            foreground=case.foreground,
            output=str(Path(self.output) / case.id),
            overwrite=self.overwrite,
        )


HEATMAP_ONLY = (
    "method",
    "cam",
    "rectified",
    "directions",
    "filter_order",
    "cutoff",
    "window",
    "threshold",
    "refine",
)
"""Settings of `RunSettings` that mean nothing to a segmenter."""


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
    device: Annotated[str, Field(pattern=_DEVICE.pattern)] = "auto"
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
        refine: Another method than the card's, with the card's parameters.
        refinement: The method and its parameters, instead of those of a card.
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
    refine: RefinementMethod | None = None
    refinement: RefinementSettings | None = None
    components: Components | None = None
    minimum_size_ml: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    region: Region | None = None
    inside: FilePath | None = None
    outside: FilePath | None = None
    output: FilePath
    overwrite: bool = False

    @model_validator(mode="after")
    def _one_refinement(self) -> RefineMaskJob:
        if self.refinement is None and self.model is None:
            raise ValueError("neither a model nor a refinement with its parameters is named")
        if self.refinement is not None and self.refine is not None:
            raise ValueError("the method of refinement is named twice")
        return self


AnyJob = Union[
    RunJob, BatchJob, ProbeJob, ImportModelJob, VerifyModelJob, EstimateJob, RefineMaskJob
]
Job = Annotated[AnyJob, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[AnyJob] = TypeAdapter(Job)
_KINDS = ("run", "batch", "probe", "import-model", "verify-model", "estimate", "refine-mask")

# Room for the largest batch; more is a mistake.
_MAX_BYTES = 64 << 20

_PATH_FIELDS = (
    "input",
    "foreground",
    "output",
    "previews",
    "source",
    "image",
    "heatmap",
    "agreement",
    "inside",
    "outside",
)


def parse_job(document: Any, folder: Path | None = None) -> AnyJob:
    """Validate a document.

    Args:
        document: The JSON object.
        folder: Relative paths are relative to this folder; by default to the current one.

    Raises:
        TomoSegError: ``job-invalid``, ``job-kind`` or ``job-version``.
    """
    if isinstance(document, dict):
        version = document.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise TomoSegError(
                "job-version",
                f"The job document has schema version {version!r}; "
                f"this program reads version {SCHEMA_VERSION}.",
                "Use the versions of the panel and the engine that belong together.",
            )
    try:
        job = _ADAPTER.validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"].startswith("union_tag"):
            raise TomoSegError(
                "job-kind",
                "The job document's 'kind' is missing or unknown.",
                f"Known kinds are: {', '.join(_KINDS)}.",
            ) from None
        raise TomoSegError("job-invalid", _describe(error), _HINT) from None
    return _with_absolute_paths(job, Path.cwd() if folder is None else folder)


def read_job(path: Path) -> AnyJob:
    """Read and validate a job document; relative paths in it are relative to its folder.

    Raises:
        TomoSegError: ``job-unreadable``, or as `parse_job`.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "it is a pipe or a device; '-' reads from stdin")
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TomoSegError(
            "job-unreadable",
            f"The job document {path} cannot be read: {reason}.",
            "Give the path of a JSON file that describes a job.",
        ) from None
    return parse_job_text(text, path.absolute().parent)


def parse_job_text(text: str, folder: Path | None = None) -> AnyJob:
    """Validate a document given as JSON text; see `parse_job`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise TomoSegError(
            "job-unreadable",
            "The job document is not JSON.",
            "Give the path of a JSON file that describes a job.",
        ) from None
    return parse_job(document, folder)


_HINT = "Correct this setting; 'tomoseg run --help' and TomoSegLib/jobs/document.py describe it."


def _describe(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    errors = error.errors(include_url=False, include_context=False)
    # A union reports once for each member; the last says it best ("... or a number").
    where = [str(part) for part in errors[0]["loc"] if part not in _KINDS]
    if errors[0]["type"] == "extra_forbidden":
        return f"The job document has an unknown field '{'.'.join(where)}'."
    same = [e for e in errors if where and where[0] in e["loc"]] or errors
    message = same[-1]["msg"].removeprefix("Value error, ").rstrip(".")
    subject = f"The job's '{where[0]}'" if where else "The job document"
    return f"{subject} is not valid: {message[:1].lower()}{message[1:]}."


def _with_absolute_paths(job: AnyJob, folder: Path) -> AnyJob:
    def absolute(path: str) -> str:
        return os.path.normpath(folder / Path(path).expanduser())

    changes: dict[str, Any] = {
        name: absolute(value)
        for name in _PATH_FIELDS
        if (value := getattr(job, name, None)) is not None
    }
    model = getattr(job, "model", None)
    if model is not None and _looks_like_path(model):
        changes["model"] = absolute(model)  # otherwise the name of a known model
    if (
        isinstance(job, RunSettings)
        and job.directions is not None
        and (_looks_like_path(job.directions) or (folder / job.directions).is_file())
    ):
        changes["directions"] = absolute(job.directions)
    if isinstance(job, RunJob):
        changes["channels"] = {name: absolute(path) for name, path in job.channels.items()}
    if isinstance(job, BatchJob):
        changes["cases"] = tuple(
            case.model_copy(
                update={
                    "input": None if case.input is None else absolute(case.input),
                    "foreground": None if case.foreground is None else absolute(case.foreground),
                    "channels": {name: absolute(path) for name, path in case.channels.items()},
                }
            )
            for case in job.cases
        )
    return job.model_copy(update=changes)


def _looks_like_path(text: str) -> bool:
    return any(separator in text for separator in ("/", "\\")) or text.startswith((".", "~"))
