"""The first half of a run: everything that goes in, read and checked.

Most of what can be wrong is wrong here, so torch is not imported yet: an error comes at once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume_or_sequence
from TomoSegLib.imaging.modality import modality_doubt
from TomoSegLib.imaging.sequence import FrameIndex, VolumeSequence, chosen_frames, hash_sequence
from TomoSegLib.imaging.volume import Geometry, Volume, hash_volume
from TomoSegLib.jobs.document import Expected, Region, RunJob
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import Input
from TomoSegLib.jobs.settings import check_hash, complete
from TomoSegLib.models.folder import ModelFolder, model_hash
from TomoSegLib.models.store import find_model
from TomoSegLib.tomography.directions import parse_directions


@dataclass(frozen=True)
class SequenceInputs:
    """What a job on a sequence works on.

    Attributes:
        numbers: The frames, ascending, from 0.
        index: What tells these frames apart.
        geometry: The grid of every frame.
        name: What the first channel is called.
        channels: The channels in the card's order; a volume serves for every frame.
        foreground: The foreground mask, where one is given; likewise.
    """

    numbers: Sequence[int]
    index: FrameIndex
    geometry: Geometry
    name: str
    channels: Sequence[Volume | VolumeSequence]
    foreground: Volume | VolumeSequence | None


@dataclass
class Inputs:
    """What a job works on.

    Attributes:
        job: The job with every setting filled in.
        model: Its model.
        volumes: The channels in the card's order; none where the job is on a sequence.
        foreground: The foreground mask, where one is given.
        records: What the channels are, by name, for ``result.json``.
        foreground_record: The same of the foreground mask.
        sequence: The sequence, if the job is on one.
    """

    job: RunJob
    model: ModelFolder
    volumes: list[Volume]
    foreground: Volume | None
    records: dict[str, Input]
    foreground_record: Input | None
    sequence: SequenceInputs | None = None

    @property
    def target(self) -> Geometry:
        """The grid on which the heatmap is computed."""
        return region_grid(self.job.region, self.volumes[0])

    def forget_volumes(self) -> None:
        """Give their memory back."""
        self.volumes = []
        self.foreground = None

    def frames(self) -> Iterator[Inputs]:
        """The inputs of one frame of the sequence after the other; only one is in memory."""
        assert self.sequence is not None
        numbers = self.sequence.numbers
        channels = [_frames(channel, numbers) for channel in self.sequence.channels]
        foregrounds = _frames(self.sequence.foreground, numbers)
        for _ in numbers:
            volumes = [volume for volume in map(next, channels) if volume is not None]
            yield replace(self, volumes=volumes, foreground=next(foregrounds), sequence=None)


def _frames(
    source: Volume | VolumeSequence | None, numbers: Sequence[int]
) -> Iterator[Volume | None]:
    if isinstance(source, VolumeSequence):
        yield from source.frames(numbers)
    else:
        for _ in numbers:
            yield source


def read_inputs(job: RunJob, report: Reporter) -> Inputs:
    """Find the model, fill in the job's settings from its card, and read the volumes.

    Raises:
        TomoSegError: From `find_model`, `complete`, `check_hash` and `read_volumes`.
    """
    model = find_model(job.model)
    job = complete(job, model, report.warn)
    check_hash("model", model.name, model_hash(model), (job.expected or Expected()).model)
    if job.directions is not None:
        parse_directions(job.directions)  # for its error, long before it is needed
    return read_volumes(job, model, report)


def read_volumes(job: RunJob, model: ModelFolder, report: Reporter) -> Inputs:
    """Read the volumes of a job that names all channels.

    Of sequences every frame is looked at once, so that what is wrong with one comes out now.

    Raises:
        TomoSegError: From `read_volume_or_sequence` and `check_hash`; ``region-outside``,
            ``frames-outside``, ``frames-no-sequence``, ``sequence-channels``.
    """
    expected = job.expected or Expected()
    inputs = Inputs(job, model, [], None, {}, None)
    flat = model.card.preprocessing.in_plane
    sources: list[Volume | VolumeSequence] = []
    numbers: list[int] | None = None
    with report.stage("read", len(job.channels)) as progress:
        for name, path in job.channels.items():
            source = read_volume_or_sequence(path, single_slice=flat)
            if not sources:
                region_grid(job.region, source)  # for its error
                numbers = _numbers(job, source)
                _doubt_modality(source, numbers, model, report)
            _check_frames(name, source, sources)
            inputs.records[name] = _record(
                "input", path, source, numbers, expected.inputs.get(name)
            )
            sources.append(source)
            progress(len(sources), len(job.channels))
        foreground = None
        if job.foreground is not None:
            foreground = read_volume_or_sequence(job.foreground, single_slice=flat)
            _check_frames("foreground", foreground, sources)
            inputs.foreground_record = _record(
                "foreground", job.foreground, foreground, numbers, expected.foreground
            )
    first = sources[0]
    if numbers is not None and isinstance(first, VolumeSequence):
        index = first.index.part(numbers)
        inputs.job = job.model_copy(update={"frames": _range(numbers)})
        inputs.sequence = SequenceInputs(
            numbers, index, first.geometry, first.name, sources, foreground
        )
    else:
        inputs.volumes = [source for source in sources if isinstance(source, Volume)]
        inputs.foreground = foreground if isinstance(foreground, Volume) else None
    return inputs


def _doubt_modality(
    first: Volume | VolumeSequence, numbers: list[int] | None, model: ModelFolder, report: Reporter
) -> None:
    """Warn where the first channel, or the first frame of it, is of another modality."""
    card = model.card
    if isinstance(first, VolumeSequence):
        first = next(first.frames((numbers or [0])[:1]))
    window = card.preprocessing.intensity.method == "window"
    if doubt := modality_doubt(first, card.modality, window):
        report.warn(doubt.code, doubt.message, doubt.hint)


def _numbers(job: RunJob, first: Volume | VolumeSequence) -> list[int] | None:
    """The frames that are worked on, or None where there is no sequence."""
    if isinstance(first, VolumeSequence):
        return chosen_frames(job.frames, first)
    if job.frames is not None:
        raise TomoSegError(
            "frames-no-sequence",
            f"'{first.name}' is one volume: it has no frames to choose from.",
            "Leave the setting 'frames' out.",
        )
    return None


def _range(numbers: Sequence[int]) -> str:
    """Frames at equal distances as ``START:STOP`` or ``START:STOP:STEP``."""
    step = numbers[1] - numbers[0] if len(numbers) > 1 else 1
    return f"{numbers[0]}:{numbers[-1] + 1}" + (f":{step}" if step > 1 else "")


def _check_frames(
    name: str, source: Volume | VolumeSequence, before: Sequence[Volume | VolumeSequence]
) -> None:
    """Refuse a sequence beside one volume, or beside a sequence of another length."""
    if not before or not isinstance(source, VolumeSequence):
        return
    first = before[0]
    there = len(first) if isinstance(first, VolumeSequence) else 1
    if there != len(source):
        raise TomoSegError(
            "sequence-channels",
            f"'{source.name}' ({name}) has {len(source)} frames, and '{first.name}' has {there}.",
            "Give sequences of the same frames, or one volume that serves for all of them.",
        )


def _record(
    what: str,
    path: str,
    source: Volume | VolumeSequence,
    numbers: Sequence[int] | None,
    expected: str | None,
) -> Input:
    frames = None
    if isinstance(source, VolumeSequence):
        frames, digest = len(source), hash_sequence(source, numbers or [])
    else:
        digest = hash_volume(source)
    check_hash(what, path, digest, expected)
    x, y, z = (float(size) for size in source.geometry.spacing)
    return Input(
        path=path, hash=digest, shape=source.geometry.shape, spacing_mm=(x, y, z), frames=frames
    )


def region_grid(region: Region | None, image: Volume | VolumeSequence) -> Geometry:
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
    return geometry.part(region.slices)
