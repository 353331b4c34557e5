"""The main job on a sequence: every frame through one loaded model, and sequences out.

Each frame is worked on exactly as a volume of its own would be, and what is found in it is written
before the next is read; only one frame is in memory. Beside the sequences the folder
``segmentations`` has a ``.seg.nrrd`` of each frame, for that is the one form in which 3D Slicer
keeps names, colours and terminology of a segmentation in an ordinary file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from TomoSegLib.heatmaps.pipeline import HeatmapResult
from TomoSegLib.imaging.frame_montage import FramePicture, drawn_frames, frame_montage
from TomoSegLib.imaging.montage import (
    display_grid,
    display_window,
    heatmap_range,
    slice_positions,
)
from TomoSegLib.imaging.segmentation import read_segmentation, write_segmentation
from TomoSegLib.imaging.sequence import VolumeSequence
from TomoSegLib.imaging.sequence_nifti import NiftiSequenceWriter
from TomoSegLib.imaging.sequence_nrrd import SequenceWriter, open_nrrd_sequence
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.jobs import provenance, run, segment
from TomoSegLib.jobs.events import Event, ProgressEvent, WarningEvent
from TomoSegLib.jobs.inputs import Inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import (
    SEGMENTATIONS,
    HeatmapFrame,
    SegmentFrame,
    segmentation_name,
)
from TomoSegLib.jobs.steps import loading_once
from TomoSegLib.models.card import Label
from TomoSegLib.segmentation.inference import Prediction
from TomoSegLib.segmentation.labelmap import label_fields

_SLOW_STAGES = ("heatmap", "segment")
# Of a frame's time, what its slowest stage takes at the least; the rest is not foreseen.
_SLOW_SHARE = 0.9


def run_sequence(inputs: Inputs, results: Path, report: Reporter) -> None:
    """Carry out a job on a sequence, and write its outputs into a folder.

    Raises:
        TomoSegError: Whatever the user can cause or mend.
    """
    assert inputs.sequence is not None
    numbers = inputs.sequence.numbers
    (results / SEGMENTATIONS).mkdir()
    work: _Work
    if inputs.model.card.task == "segmentation":
        work = _Segmentations(inputs, results)
    else:
        work = _Heatmaps(inputs, results)
    look = _Look()
    with report.stage("frames", len(numbers)) as progress, loading_once(), work.writing():
        for done, frame in enumerate(inputs.frames()):
            inner = _Frame(report, lambda share, n=done: progress(n + share, len(numbers)))
            # What the frame before has found out about memory need not be found out again.
            short = any(warning.code.startswith("memory-") for warning in report.warnings)
            changes = work.fallen_back() if short else {}
            frame.job = frame.job.model_copy(update={"previews": None, **changes})
            image, heatmap, mask = work.add(done, frame, inner.reporter)
            look.at(image, heatmap, mask)
            write_segmentation(
                results / SEGMENTATIONS / segmentation_name(numbers[done]),
                mask,
                image.geometry,
                frame.model.card.labels,
                image.name,
            )
            inner.end()
            progress(done + 1, len(numbers))
    with report.stage("write"):
        _draw(inputs, results, work, look)
    work.write_result(report)


class _Frame:
    """Passes on what is told of one frame, as part of the whole."""

    def __init__(self, whole: Reporter, progress: Any) -> None:
        self._whole, self._progress = whole, progress
        self.reporter = Reporter(self._tell)

    def end(self) -> None:
        """The frame is done: its times are added to those of the frames before."""
        for name, seconds in self.reporter.timings.items():
            self._whole.timings[name] = round(self._whole.timings.get(name, 0.0) + seconds, 3)

    def _tell(self, event: Event) -> None:
        if isinstance(event, ProgressEvent):
            self._whole.device = event.device
            if event.stage in _SLOW_STAGES and event.total:
                self._progress(_SLOW_SHARE * min(event.done / event.total, 1.0))
        elif isinstance(event, WarningEvent):
            self._whole.warn(event.code, event.message, event.hint)


class _Work(Protocol):
    """What differs between heatmaps and segmentations."""

    def writing(self) -> contextlib.AbstractContextManager[None]: ...

    def fallen_back(self) -> dict[str, Any]:
        """Where memory was short: settings with which the next frame begins."""

    def add(
        self, done: int, frame: Inputs, report: Reporter
    ) -> tuple[Volume, npt.NDArray[np.float32] | None, npt.NDArray[np.uint8]]:
        """Work on a frame and write what is found; gives scan, heatmap and mask."""

    @property
    def footer(self) -> str: ...

    @property
    def labels(self) -> list[Label]: ...

    def heatmaps(self) -> VolumeSequence | None: ...

    def write_result(self, report: Reporter) -> None: ...


class _Heatmaps:
    """Heatmap and mask of each frame."""

    labels: list[Label] = []

    def __init__(self, inputs: Inputs, results: Path) -> None:
        self._inputs, self._results = inputs, results
        assert inputs.sequence is not None
        self._sequence = inputs.sequence
        geometry, index = self._sequence.geometry, self._sequence.index
        self._heatmaps = SequenceWriter(results / "heatmap.seq.nrrd", geometry, index)
        self._agreements = SequenceWriter(results / "agreement.seq.nrrd", geometry, index)
        self._masks = NiftiSequenceWriter(results / "mask.nii.gz", geometry, index, np.uint8)
        self._frames: list[HeatmapFrame] = []
        self._found: HeatmapResult | None = None
        self._parts_s: dict[str, float] = {}

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with self._heatmaps, self._agreements, self._masks:
            yield

    def fallen_back(self) -> dict[str, Any]:
        return _fallen_back(self._found)

    def add(
        self, done: int, frame: Inputs, report: Reporter
    ) -> tuple[Volume, npt.NDArray[np.float32] | None, npt.NDArray[np.uint8]]:
        findings = run.find(frame, report)
        self._heatmaps.append(findings.heatmap)
        self._agreements.append(findings.agreement)
        self._masks.append(findings.mask)
        self._found = findings.found
        for part, seconds in findings.found.timings_s.items():
            name = f"heatmap.{part}"
            self._parts_s[name] = round(self._parts_s.get(name, 0.0) + seconds, 3)
        self._frames.append(
            HeatmapFrame(
                number=self._sequence.numbers[done],
                value=self._sequence.index.values[done],
                heatmap=findings.heatmap_figures,
                mask=findings.mask_figures,
            )
        )
        return findings.image, findings.heatmap, findings.mask

    @property
    def footer(self) -> str:
        thresholds = {frame.mask.threshold for frame in self._frames}
        threshold = thresholds.pop() if len(thresholds) == 1 else None
        return run.overlay_footer(self._inputs.job, self._inputs.model.card, threshold)

    def heatmaps(self) -> VolumeSequence | None:
        return open_nrrd_sequence(self._results / "heatmap.seq.nrrd", single=True)

    def write_result(self, report: Reporter) -> None:
        assert self._found is not None
        provenance.write_sequence_result(
            self._results,
            inputs=self._inputs,
            found=self._found,
            frames=self._frames,
            timings_s=report.timings | self._parts_s,
            warnings=report.warnings,
        )


class _Segmentations:
    """Label map and probabilities of each frame."""

    def __init__(self, inputs: Inputs, results: Path) -> None:
        self._inputs, self._results = inputs, results
        assert inputs.sequence is not None
        self._sequence = inputs.sequence
        self.labels: list[Label] = list(inputs.model.card.labels)
        geometry, index = self._sequence.geometry, self._sequence.index
        self._probabilities = SequenceWriter(
            results / "probabilities.seq.nrrd",
            geometry,
            index,
            components=len(self.labels),
            fields=label_fields(self.labels),
        )
        self._masks = NiftiSequenceWriter(results / "mask.nii.gz", geometry, index, np.uint8)
        self._frames: list[SegmentFrame] = []
        self._found: Prediction | None = None
        self._windows = 0

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        with self._probabilities, self._masks:
            yield

    def fallen_back(self) -> dict[str, Any]:
        return _fallen_back(self._found)

    def add(
        self, done: int, frame: Inputs, report: Reporter
    ) -> tuple[Volume, npt.NDArray[np.float32] | None, npt.NDArray[np.uint8]]:
        findings = segment.find(frame, report)
        probabilities = findings.probabilities
        single = probabilities.shape[-1] == 1
        self._probabilities.append(probabilities[..., 0] if single else probabilities)
        self._masks.append(findings.labelmap)
        self._found = findings.found
        self._windows += findings.found.windows
        self._frames.append(
            SegmentFrame(
                number=self._sequence.numbers[done],
                value=self._sequence.index.values[done],
                segments=findings.segments,
            )
        )
        return findings.image, None, findings.labelmap

    @property
    def footer(self) -> str:
        return segment.overlay_footer(self._inputs.model.card)

    def heatmaps(self) -> VolumeSequence | None:
        return None

    def write_result(self, report: Reporter) -> None:
        assert self._found is not None
        provenance.write_segmentation_sequence_result(
            self._results,
            inputs=self._inputs,
            found=self._found,
            windows=self._windows,
            frames=self._frames,
            timings_s=report.timings,
            warnings=report.warnings,
        )


def _fallen_back(found: HeatmapResult | Prediction | None) -> dict[str, Any]:
    """The settings with which the last frame ended."""
    return {} if found is None else {"device": found.device, "batch_size": found.batch_size}


class _Look:
    """How frames are shown: on one grid, by one scale, through the largest mask."""

    def __init__(self) -> None:
        self.grid: Any = None
        self.window = (0.0, 1.0)
        self.levels: tuple[float, float] | None = None
        self.centers: Any = None
        self._best = (-1, -np.inf)

    def at(
        self,
        image: Volume,
        heatmap: npt.NDArray[np.float32] | None,
        mask: npt.NDArray[np.uint8],
    ) -> None:
        """Look at a frame."""
        if self.grid is None:
            self.grid, self.window = display_grid(image), display_window(image.array)
        if heatmap is not None:
            levels = heatmap_range(heatmap)
            self.levels = max(self.levels or levels, levels, key=lambda pair: pair[1])
        score = (int(np.count_nonzero(mask)), 0.0 if heatmap is None else float(heatmap.max()))
        if score > self._best:
            self._best = score
            self.centers, _ = slice_positions(heatmap, mask, image.geometry, self.grid)


def _draw(inputs: Inputs, results: Path, work: _Work, look: _Look) -> None:
    """The picture; what is drawn is read again, frame by frame."""
    sequence = inputs.sequence
    assert sequence is not None
    places = drawn_frames(len(sequence.numbers))
    first = sequence.channels[0]
    assert isinstance(first, VolumeSequence)
    heatmaps = work.heatmaps()

    def pictures() -> Iterator[FramePicture]:
        images = first.frames([sequence.numbers[place] for place in places])
        maps = iter(() if heatmaps is None else heatmaps.frames(places, constant=True))
        for place, image in zip(places, images, strict=True):
            number = sequence.numbers[place]
            heatmap = next(maps, None)
            mask, _ = read_segmentation(results / SEGMENTATIONS / segmentation_name(number))
            yield FramePicture(
                f"frame {number}, {sequence.index.title(place)}"
                if sequence.index.name != "frame"
                else f"frame {number}",
                image,
                None if heatmap is None else heatmap.array,
                mask.array,
            )

    frame_montage(
        pictures(),
        results / "overlay.png",
        columns=len(places),
        grid=look.grid,
        centers=look.centers,
        window=look.window,
        levels=look.levels,
        title=f"{sequence.name}   {inputs.model.card.title}",
        footer=work.footer,
        labels=work.labels,
    )
