"""``result.json``: what was done, to what, with what, and what came out.

It holds all that is needed to do it again (the job with every setting filled in, and the hashes
of inputs and model) and to tell whether the same came out (the hashes of the files).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.document import Expected, JobModel, RunJob
from TomoSegLib.models.card import Label, MethodSettings, RefinementSettings, SlidingWindow
from TomoSegLib.models.folder import read_bounded

SEGMENTATIONS = "segmentations"
"""The folder with the segmentation of each frame of a sequence."""

Vector = tuple[float, float, float]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Input(JobModel):
    """A file that went in.

    Attributes:
        path: Where it was.
        hash: SHA-256 of its content (voxels and geometry), the same in every file format.
        shape: Voxels along ``(k, j, i)``.
        spacing_mm: Voxel size along ``(i, j, k)``.
        frames: How many frames the file has, if it is a sequence; the hash is of those that were
            worked on.
    """

    path: str
    hash: Sha256
    shape: tuple[int, int, int]
    spacing_mm: Vector
    frames: int | None = None


class Model(JobModel):
    """The model; ``simulated``: it has learnt from simulated data."""

    name: str
    version: str
    hash: Sha256
    path: str
    labels: list[Label]
    simulated: bool
    license: str


class Directions(JobModel):
    """The directions in the order of use: unit vectors, LPS, and their quadrature weights."""

    name: str
    vectors: list[Vector]
    weights: list[float]


class HeatmapPeak(JobModel):
    """A local maximum of the heatmap: voxel ``(i, j, k)``, its place in LPS mm, its value."""

    ijk: tuple[int, int, int]
    lps_mm: Vector
    value: float


class Heatmap(JobModel):
    """Figures of the heatmap within the foreground."""

    minimum: float
    maximum: float
    mean: float
    peaks: list[HeatmapPeak]


class Mask(JobModel):
    """Figures of the mask; ``threshold`` is the heatmap value that was used."""

    threshold: float
    voxels: int
    volume_ml: float
    components: int


class Part(JobModel):
    """A connected part of a segment.

    Attributes:
        ijk: A voxel of it, close to its centroid.
        lps_mm: That voxel's place.
        volume_ml: Its volume.
        probability: Mean probability of its label in it.
    """

    ijk: tuple[int, int, int]
    lps_mm: Vector
    volume_ml: float
    probability: float


class Segment(JobModel):
    """Figures of one label's voxels: ``components`` in number, of which ``parts`` the largest."""

    value: int
    name: str
    voxels: int
    volume_ml: float
    components: int
    parts: list[Part]


class Environment(JobModel):
    """What it ran on: ``device`` is where the network ended, ``batch_size`` its largest batch."""

    python: str
    platform: str
    packages: dict[str, str | None]
    device: str
    device_name: str
    threads: int
    batch_size: int


class RunNote(JobModel):
    """A warning that the run gave."""

    code: str
    message: str
    hint: str = ""


class Record(JobModel):
    """What every ``result.json`` says, schema version 1.

    Attributes:
        tomoseg: Version of this program.
        job: The job with every setting filled in.
        timings_s: Seconds that each stage took, and parts of the longest.
        created_at: UTC, ISO 8601.
        files: SHA-256 of each file that was written beside this one.
    """

    schema_version: Literal[1] = 1
    tomoseg: str
    job: RunJob
    inputs: dict[str, Input]
    foreground: Input | None
    model: Model
    environment: Environment
    timings_s: dict[str, float]
    warnings: list[RunNote]
    created_at: str
    files: dict[str, Sha256]


class RunResult(Record):
    """The content of ``result.json`` of a run with a model whose task is ``heatmap``.

    Attributes:
        settings: The method's settings as they were used; the threshold is the card's.
        refinement: How the mask was refined, or None if it was not.
    """

    task: Literal["heatmap"] = "heatmap"
    settings: MethodSettings
    refinement: RefinementSettings | None = None
    directions: Directions
    heatmap: Heatmap
    mask: Mask


class SegmentationResult(Record):
    """The content of ``result.json`` of a run with a model whose task is ``segmentation``.

    Attributes:
        settings: How the window slid and what the network's outputs mean.
        windows: Number of windows that the network has seen.
        segments: The labels in the card's order, which is that of the components of
            ``probabilities.nrrd``.
    """

    task: Literal["segmentation"] = "segmentation"
    settings: SlidingWindow
    windows: int
    segments: list[Segment]


class HeatmapFrame(JobModel):
    """What was found in one frame of a sequence.

    Attributes:
        number: Which frame of the input, from 0.
        value: What tells it apart, as the input says it (its time, above all).
        heatmap: Figures of its heatmap.
        mask: Figures of its mask.
    """

    number: int
    value: str
    heatmap: Heatmap
    mask: Mask


class SegmentFrame(JobModel):
    """Likewise of a segmenter."""

    number: int
    value: str
    segments: list[Segment]


class SequenceRecord(Record):
    """What results of sequences have in common.

    Attributes:
        frames: What was found in each frame.
        index_name: What the frames' values are, such as ``time``.
        index_unit: Their unit, such as ``ms``, or empty.
    """

    index_name: str
    index_unit: str
    frames: Any


class RunSequenceResult(SequenceRecord):
    """The content of ``result.json`` of a heatmap model's run on a sequence; see `RunResult`."""

    task: Literal["heatmap-sequence"] = "heatmap-sequence"
    settings: MethodSettings
    refinement: RefinementSettings | None = None
    directions: Directions
    frames: list[HeatmapFrame]


class SegmentationSequenceResult(SequenceRecord):
    """The content of ``result.json`` of a segmenter's run on a sequence.

    See `SegmentationResult`; ``windows`` is of all frames together.
    """

    task: Literal["segmentation-sequence"] = "segmentation-sequence"
    settings: SlidingWindow
    windows: int
    frames: list[SegmentFrame]


AnyResult = Union[RunResult, SegmentationResult, RunSequenceResult, SegmentationSequenceResult]


def parts_of(
    found: RunResult | SegmentationResult | HeatmapFrame | SegmentFrame,
) -> Sequence[Mask | Segment]:
    """Figures of the mask, or of each segment."""
    if isinstance(found, (RunResult, HeatmapFrame)):
        return [found.mask]
    return found.segments


def _task(record: Any) -> Any:
    """Results of heatmaps once had no ``task``."""
    return record.get("task", "heatmap") if isinstance(record, dict) else None


_ADAPTER: TypeAdapter[AnyResult] = TypeAdapter(
    Annotated[
        Union[
            Annotated[RunResult, Tag("heatmap")],
            Annotated[SegmentationResult, Tag("segmentation")],
            Annotated[RunSequenceResult, Tag("heatmap-sequence")],
            Annotated[SegmentationSequenceResult, Tag("segmentation-sequence")],
        ],
        Discriminator(_task),
    ]
)


# A sequence's record has figures of every frame.
_MAX_BYTES = 256 << 20


def read_result(path: Path) -> AnyResult:
    """Read a ``result.json`` (or the one in a folder); its ``task`` says which kind it is.

    Raises:
        TomoSegError: ``result-unreadable`` or ``result-invalid``.
    """
    path = path / "result.json" if path.is_dir() else path
    hint = "Give the path of a result.json that 'tomoseg run' has written."
    try:
        content = read_bounded(path, _MAX_BYTES, missing="result-unreadable", hint=hint)
    except TomoSegError as error:
        raise TomoSegError("result-unreadable", error.message, hint) from None
    try:
        return _ADAPTER.validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        if first["type"] == "union_tag_invalid":
            raise TomoSegError(
                "result-invalid",
                f"{path} is the result of another task: {str(first['ctx']['tag'])[:40]}.",
                hint,
            ) from None
        where = ".".join(str(part) for part in first["loc"])
        raise TomoSegError(
            "result-invalid",
            f"{path} is not a result of this program{f' ({where})' if where else ''}: "
            f"{first['msg'].splitlines()[0]}.",
            "Give the path of a result.json that 'tomoseg run' has written.",
        ) from None


def repeated(
    result: AnyResult, output: Path, *, device: str | None = None, overwrite: bool = False
) -> RunJob:
    """The job that does the same again, and refuses if an input or the model has changed.

    Args:
        result: What was done.
        output: Where the results of the repetition go.
        device: Another device than the one of the first run.
        overwrite: Whether results that are there are replaced.
    """
    return result.job.model_copy(
        update={
            "output": str(output.absolute()),
            "device": device or result.environment.device,
            "threads": result.environment.threads,
            "overwrite": overwrite,
            "previews": None,
            "expected": Expected(
                inputs={name: item.hash for name, item in result.inputs.items()},
                foreground=None if result.foreground is None else result.foreground.hash,
                model=result.model.hash,
            ),
        }
    )


def segmentation_name(number: int) -> str:
    """The file of a frame's segmentation in the folder of them."""
    return f"frame-{number:04}.seg.nrrd"


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
