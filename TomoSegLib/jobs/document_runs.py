"""The documents of jobs that work on volumes with a model: one of them, or many."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from TomoSegLib.jobs.document_base import (
    DEVICE,
    ChannelName,
    FilePath,
    JobModel,
    Region,
    Sha256,
)
from TomoSegLib.models.card import CamKind, Components, Method, RefinementMethod, Window

_THRESHOLD_WORDS = ("card", "otsu")
_FRAMES = re.compile(r"\d{1,6}|\d{0,6}:\d{0,6}(:[1-9]\d{0,5})?", re.ASCII)
_PERCENTILE = re.compile(r"^percentile:(\d+(\.\d+)?)$")


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
        frames: Of a sequence, only these frames, counted from 0: ``START:STOP``,
            ``START:STOP:STEP`` or one number; None: all. Without a sequence it is refused.
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
    refine: Literal["none", RefinementMethod] | None = None
    components: Components | None = None
    minimum_size_ml: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    region: Region | None = None
    frames: str | None = None
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

    @field_validator("frames")
    @classmethod
    def _known_frames(cls, frames: str | None) -> str | None:
        if frames is not None and not _FRAMES.fullmatch(frames):
            raise ValueError(
                f"'{frames[:40]}' is none of START:STOP, START:STOP:STEP or a number, from 0"
            )
        return frames

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICE.match(device):
            raise ValueError(f"'{device}' is none of auto, cpu, cuda, cuda:N or mps")
        return device


class RunJob(RunSettings):
    """Volume in; heatmap and mask out, or segmentation and probabilities: as the model's task is.

    Where the first channel is a sequence, every frame is worked on and the results are sequences;
    see `TomoSegLib.jobs.sequence`. Segmenters and sequences give no previews.

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
        "heatmap.seq.nrrd",
        "agreement.seq.nrrd",
        "probabilities.seq.nrrd",
        "segmentations",
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


class ClassifyJob(JobModel):
    """The class of stacks by a model of the task classification; see `TomoSegLib.jobs.classify`.

    Attributes:
        model: Name of a known model, or a model's folder.
        cases: The stacks or sequences, in this order. What is wrong with one of several is
            recorded and does not stop the rest.
        frames: As in `RunSettings`.
        device: Likewise.
        threads: Likewise.
        output: Folder of the results; made if it does not exist.
        overwrite: Replace results that are already there; other files are never touched.
    """

    outputs: ClassVar[tuple[str, ...]] = ("cases", "result.json", "classes.csv")

    kind: Literal["classify"] = "classify"
    schema_version: Literal[1] = 1
    model: FilePath
    cases: Annotated[tuple[BatchCase, ...], Field(min_length=1, max_length=100_000)]
    frames: Annotated[str, Field(pattern=f"^({_FRAMES.pattern})$")] | None = None
    device: Annotated[str, Field(pattern=DEVICE.pattern)] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    output: FilePath
    overwrite: bool = False

    @model_validator(mode="after")
    def _different_folders(self) -> ClassifyJob:
        if len({case.id.casefold() for case in self.cases}) < len(self.cases):
            raise ValueError("two cases have the same id")
        return self

    def run_job(self, case: BatchCase, channels: dict[str, str]) -> RunJob:
        """The settings for one case as those of a run."""
        return RunJob(
            model=self.model,
            channels=channels,
            foreground=case.foreground,
            frames=self.frames,
            device=self.device,
            threads=self.threads,
            output=self.output,
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
