"""The multi-scale cube generator: crops of whole volumes at 1/2, 1/4 and 1/8 of their sides.

Scale-aware restoration (X. Zhang et al.) learns from crops of three scales that are resized to one
size. Reading, resampling and cropping a volume takes seconds and does not change from step to step,
so every volume's cubes are made once and kept on disk in half precision (errors below 0.0005 of the
range [0, 1]); what is random afterwards is drawn anew for every step.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path, make_folder
from TomoSegLib.imaging.file_state import file_state
from TomoSegLib.imaging.foreground import foreground_mask
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.modality import MODALITIES
from TomoSegLib.imaging.preprocessing import model_grid, normalize, sample_on
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Intensity
from TomoSegLib.pretraining.manifest import PoolVolume

Float32Array = npt.NDArray[np.float32]

_VERSION = 2
_NAMES = 4  # of folders and file that tell volumes apart, wherever the pool lies
_SMALLEST_CROP = 4  # voxels a side; fewer show nothing that could be restored
_LEAST_CONTRAST = 0.02  # standard deviation below which a crop is nearly constant, as air is
_TRIES = 10


@dataclass(frozen=True)
class CubeOptions:
    """How cubes are cut from a pool of volumes.

    Attributes:
        shape: ``(k, j, i)`` voxels of a cube; the paper's 64 x 64 x 32.
        scales: Sides of the crops as fractions of the volume's, from large to small.
        counts: Crops of each scale and volume; the paper's 1 : 1 : 2.
        dataset_counts: Other counts for volumes of some data sets.
        spacing_mm: Voxel size to which volumes are resampled by cubic splines first.
        ct_window: Hounsfield units that become 0 and 1.
        mr_percentiles: Percentiles of a volume that become 0 and 1 (the paper's [0, 4000] depends
            on the scanner).
        seed: Of the places of the crops.
    """

    shape: tuple[int, int, int] = (32, 64, 64)
    scales: tuple[float, ...] = (1 / 2, 1 / 4, 1 / 8)
    counts: tuple[int, ...] = (16, 16, 32)
    dataset_counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    spacing_mm: float = 1.0
    ct_window: tuple[float, float] = (-1000.0, 1000.0)
    mr_percentiles: tuple[float, float] = (0.5, 99.5)
    seed: int = 0

    def counts_of(self, volume: PoolVolume) -> tuple[int, ...]:
        """Crops of each scale of a volume."""
        return tuple(self.dataset_counts.get(volume.dataset, self.counts))


@dataclass(frozen=True)
class Cube:
    """One cube.

    Attributes:
        image: ``(1, K, J, I)`` float32 in [0, 1].
        scale: Index of its scale.
        modality: Index of its modality in `MODALITIES`.
    """

    image: Float32Array
    scale: int
    modality: int


class CubePool:
    """Random access to the cubes of volumes that `make_cubes` has written.

    Picklable, and cheap to hand to workers: files are mapped when they are first read.

    Args:
        files: One array file ``(n, K, J, I)`` a volume.
        volumes: Their volumes.
        options: How they were made.
        scales: Indices of the scales to use, or None for all.
    """

    def __init__(
        self,
        files: list[Path],
        volumes: list[PoolVolume],
        options: CubeOptions,
        scales: tuple[int, ...] | None = None,
    ) -> None:
        self._files = files
        wanted = set(range(len(options.scales)) if scales is None else scales)
        # One row a cube: file, index in it, scale, modality.
        self.table = np.array(
            [
                (number, index, scale, MODALITIES.index(volume.modality))
                for number, volume in enumerate(volumes)
                for index, scale in enumerate(_scale_of_each(options.counts_of(volume)))
                if scale in wanted
            ],
            dtype=np.int64,
        ).reshape(-1, 4)
        self._mapped: dict[int, npt.NDArray[np.float16]] = {}

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Cube:
        file, place, scale, modality = self.table[index].tolist()
        if file not in self._mapped:
            self._mapped[file] = np.load(self._files[file], mmap_mode="r", allow_pickle=False)
        return Cube(self._mapped[file][place][None].astype(np.float32), scale, modality)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_mapped": {}}


def _scale_of_each(counts: tuple[int, ...]) -> list[int]:
    return [scale for scale, count in enumerate(counts) for _ in range(count)]


def make_cubes(
    volumes: list[PoolVolume],
    options: CubeOptions,
    folder: Path,
    workers: int = 0,
    on_volume: Callable[[int, int], None] | None = None,
) -> list[Path]:
    """Write every volume's cubes; those that are there already are kept.

    Args:
        volumes: The pool.
        options: How cubes are cut.
        folder: Where the files go; several trainings may share it.
        workers: Processes; 0 works in this one.
        on_volume: Receives volumes done and in all; an exception from it stops the work.

    Returns:
        One file a volume.

    Raises:
        TomoSegError: ``volume-too-small``, ``output-unwritable`` and those of reading.
    """
    tell = on_volume or (lambda done, total: None)
    make_folder(folder, "Choose another --output or --cache.")
    files = [folder / f"{_key(volume, options)}.npy" for volume in volumes]
    todo = [
        (volume, file)
        for volume, file in zip(volumes, files, strict=True)
        if not _is_whole(file, (sum(options.counts_of(volume)), *options.shape))
    ]
    done = len(volumes) - len(todo)
    tell(done, len(volumes))
    if not workers:
        for volume, file in todo:
            _write_cubes(volume, options, file)
            done += 1
            tell(done, len(volumes))
        return files
    with ProcessPoolExecutor(workers, get_context("spawn"), _start_worker) as pool:
        futures = [pool.submit(_write_cubes, volume, options, file) for volume, file in todo]
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                tell(done, len(volumes))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return files


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the rest


def _key(volume: PoolVolume, options: CubeOptions) -> str:
    """What the content of a volume's cubes follows from."""
    (_, size, changed), *others = file_state(volume.path)
    settings = asdict(options)
    del settings["dataset_counts"]
    settings["counts"] = options.counts_of(volume)
    content = [
        _VERSION, str(volume.path), size, changed, volume.modality, settings, *others,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _is_whole(file: Path, shape: tuple[int, ...]) -> bool:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return False
    return array.shape == shape and array.dtype == np.float16


def _write_cubes(volume: PoolVolume, options: CubeOptions, file: Path) -> None:
    image = normalized(read_volume(volume.path), volume, options)
    # The same crops wherever the volume stands in the manifest, and the data on the disk; others
    # for every patient, though all of them may have a file of the same name.
    name = hashlib.sha256(os.fsencode("/".join(volume.path.parts[-_NAMES:]))).digest()
    rng = np.random.default_rng([options.seed, int.from_bytes(name[:8], "little")])
    cubes = np.stack(
        [
            resized(_crop(image, options.scales[scale], rng), options.shape)
            for scale in _scale_of_each(options.counts_of(volume))
        ]
    )
    with atomic_path(file) as temporary:
        np.save(temporary, cubes.astype(np.float16), allow_pickle=False)


def normalized(volume: Volume, source: PoolVolume, options: CubeOptions) -> Float32Array:
    """A volume on the pool's voxel size and intensities, ``[k, j, i]`` in [0, 1].

    Axes are permuted and flipped to LPS, never rotated by a fraction.

    Raises:
        TomoSegError: ``volume-too-small`` if its smallest crop would have too few voxels,
            ``foreground-constant`` if a magnetic resonance image has no contrast.
    """
    if source.modality == "CT":
        everything = np.ones(volume.array.shape, dtype=np.bool_)
        intensity = Intensity(
            method="window", lower=options.ct_window[0], upper=options.ct_window[1]
        )
        foreground = everything
    else:
        foreground = foreground_mask(volume, "nonzero")
        everything = np.ones_like(foreground)
        lower, upper = options.mr_percentiles
        intensity = Intensity(method="percentile", lower=lower, upper=upper)
    grid = model_grid(volume.geometry, everything, options.spacing_mm, "LPS")
    # Without the voxel of margin, which lies outside.
    affine = grid.affine.copy()
    affine[:3, 3] = grid.index_to_lps([1, 1, 1])
    grid = Geometry((grid.shape[0] - 2, grid.shape[1] - 2, grid.shape[2] - 2), affine)
    smallest = [min(options.scales) * n for n in grid.shape]
    if min(smallest) < _SMALLEST_CROP:
        size = " x ".join(f"{n * options.spacing_mm:.0f}" for n in reversed(grid.shape))
        needed = _SMALLEST_CROP / min(options.scales) * options.spacing_mm
        raise TomoSegError(
            "volume-too-small",
            f"'{source.path}' is {size} mm: crops of {min(options.scales):g} of its sides would "
            f"have fewer than {_SMALLEST_CROP} voxels.",
            f"Leave it out (sides need {needed:.0f} mm), or choose larger --scales.",
        )
    mapping = normalize(volume.array[foreground], intensity, volume.name)
    values = mapping.apply(volume.array)
    values[~foreground] = 0.0
    image = sample_on(values, volume.geometry, grid, order=3, antialias=True)
    return np.clip(image, 0.0, 1.0, out=image)


def _crop(image: Float32Array, scale: float, rng: np.random.Generator) -> Float32Array:
    """A crop with some contrast, if one is found."""
    sides = [max(1, round(scale * n)) for n in image.shape]
    crop = image
    for _ in range(_TRIES):
        start = [int(rng.integers(0, n - s + 1)) for n, s in zip(image.shape, sides, strict=True)]
        crop = image[tuple(slice(a, a + s) for a, s in zip(start, sides, strict=True))]
        if crop.std() >= _LEAST_CONTRAST:
            break
    return crop


def resized(crop: Float32Array, shape: tuple[int, int, int]) -> Float32Array:
    """``[k, j, i]`` values on another number of voxels over the same extent, smoothed first."""
    have, want = np.array(crop.shape[::-1]), np.array(shape[::-1])
    spacing = have / want
    target = Geometry.from_parts(shape, spacing, origin=(spacing - 1) / 2)
    source = Geometry.from_parts(crop.shape, (1, 1, 1))
    result = sample_on(crop, source, target, antialias=True)
    return np.clip(result, 0.0, 1.0, out=result)
