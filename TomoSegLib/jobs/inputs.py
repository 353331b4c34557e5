"""The first half of a run: everything that goes in, read and checked.

Most of what can be wrong is wrong here, so torch is not imported yet: an error comes at once.
"""

from __future__ import annotations

from dataclasses import dataclass

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import hash_volume, read_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.document import Expected, Region, RunJob
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import Input
from TomoSegLib.jobs.settings import check_hash, complete
from TomoSegLib.models.folder import ModelFolder, model_hash
from TomoSegLib.models.store import find_model
from TomoSegLib.tomography.directions import parse_directions


@dataclass
class Inputs:
    """What a job works on.

    Attributes:
        job: The job with every setting filled in.
        model: Its model.
        volumes: The channels in the card's order.
        foreground: The foreground mask, where one is given.
        records: What the channels are, by name, for ``result.json``.
        foreground_record: The same of the foreground mask.
    """

    job: RunJob
    model: ModelFolder
    volumes: list[Volume]
    foreground: Volume | None
    records: dict[str, Input]
    foreground_record: Input | None

    @property
    def target(self) -> Geometry:
        """The grid on which the heatmap is computed."""
        return region_grid(self.job.region, self.volumes[0])

    def forget_volumes(self) -> None:
        """Give their memory back."""
        self.volumes = []
        self.foreground = None


def read_inputs(job: RunJob, report: Reporter) -> Inputs:
    """Find the model, fill in the job's settings from its card, and read the volumes.

    Raises:
        TomoSegError: From `find_model`, `complete`, `check_hash` and `read_volume`.
    """
    model = find_model(job.model)
    job = complete(job, model, report.warn)
    expected = job.expected or Expected()
    check_hash("model", model.name, model_hash(model), expected.model)
    if job.directions is not None:
        parse_directions(job.directions)  # for its error, long before it is needed
    inputs = Inputs(job, model, [], None, {}, None)
    with report.stage("read", len(job.channels)) as progress:
        for name, path in job.channels.items():
            volume, inputs.records[name] = _read(path, "input", expected.inputs.get(name))
            inputs.volumes.append(volume)
            progress(len(inputs.volumes), len(job.channels))
        if job.foreground is not None:
            inputs.foreground, inputs.foreground_record = _read(
                job.foreground, "foreground", expected.foreground
            )
    region_grid(job.region, inputs.volumes[0])  # for its error
    return inputs


def _read(path: str, what: str, expected: str | None) -> tuple[Volume, Input]:
    volume = read_volume(path)
    digest = hash_volume(volume)
    check_hash(what, path, digest, expected)
    x, y, z = (float(size) for size in volume.geometry.spacing)
    record = Input(path=path, hash=digest, shape=volume.geometry.shape, spacing_mm=(x, y, z))
    return volume, record


def region_grid(region: Region | None, image: Volume) -> Geometry:
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
