"""A data set of simulated volumes with its manifest: ``tomoseg simulate lesions``."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from TomoSegLib.datasets.anatomy import Anatomy, anatomy_path, load_anatomy
from TomoSegLib.datasets.lesions import simulate_case
from TomoSegLib.datasets.manifest import SINGLE, Case, Split, write_manifest
from TomoSegLib.datasets.recipes import Recipe, T1cRecipe
from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import make_folder
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import hash_volume

RECORD = "simulation.json"

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
# Far apart, so that a larger set begins with the volumes of a smaller one.
_SEED_STRIDE = 1_000_000


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Attributes:
        output: Folder of the data set; must be empty or hold the same data set, unfinished.
        counts: Volumes of each split, half of them positive.
        anatomies: The head of each split. Training must not share its head with the others.
        files: Files of anatomies that are not found by name.
        recipe: Ranges of the parameters.
        seed: Everything follows from it.
        workers: Processes.
    """

    output: Path
    counts: Mapping[Split, int]
    anatomies: Mapping[Split, str]
    files: Mapping[str, Path] = field(default_factory=dict)
    recipe: Recipe = Recipe()
    seed: int = 0
    workers: int = 1


def simulate_dataset(
    what: Simulation, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Simulate volumes and masks, and write the manifest last.

    A simulation that was stopped goes on where it was: volumes that are there are kept.

    Returns:
        Path of ``manifest.csv``.

    Raises:
        TomoSegError: ``anatomy-not-found``, ``simulation-leak``, ``output-exists``,
            ``output-unwritable``.
    """
    tell = on_progress or (lambda done, total: None)
    for split in ("val", "test"):
        if what.counts.get(split) and _same_head(what, split, "train"):
            raise TomoSegError(
                "simulation-leak",
                f"The {split} volumes would be made from the head that training sees.",
                "Name different heads with --train-anatomy and --test-anatomy.",
            )
    jobs = list(_jobs(what))
    hashes = {}
    for name in sorted({job.anatomy for job in jobs}):
        path = what.files.get(name) or anatomy_path(name)
        load_anatomy(name, path)  # a head that cannot be used is told before anything is done
        hashes[name] = hash_volume(read_volume(path))
    _claim(what, hashes)
    (what.output / "volumes").mkdir(exist_ok=True)
    open_jobs = [job for job in jobs if not job.mask_path(what.output).exists()]
    done = len(jobs) - len(open_jobs)
    tell(done, len(jobs))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        max(1, what.workers), context, _start_worker, (dict(what.files),)
    ) as pool:
        futures = [pool.submit(_simulate, job, what.output, what.recipe) for job in open_jobs]
        try:
            for future in as_completed(futures):
                future.result()
                done += 1
                tell(done, len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    cases = [job.case(what.output) for job in jobs]
    path = what.output / "manifest.csv"
    write_manifest(path, cases)
    return path


def is_simulated(manifest: Path) -> bool:
    """Whether the record that simulations write lies beside a manifest."""
    try:
        record = json.loads((manifest.parent / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and bool(record.get("simulated"))


def _same_head(what: Simulation, split: Split, other: Split) -> bool:
    name, other_name = what.anatomies[split], what.anatomies[other]
    file, other_file = (what.files.get(n) for n in (name, other_name))
    if name == other_name:
        return True
    return file is not None and other_file is not None and file.resolve() == other_file.resolve()


@dataclass(frozen=True)
class _Job:
    id: str
    split: Split
    anatomy: str
    label: int
    seed: int

    def image_path(self, folder: Path) -> Path:
        return folder / "volumes" / f"{self.id}.nii.gz"

    def mask_path(self, folder: Path) -> Path:
        return folder / "volumes" / f"{self.id}-mask.nii.gz"

    def case(self, folder: Path) -> Case:
        mask = self.mask_path(folder)
        paths = {SINGLE: self.image_path(folder)}
        return Case(self.id, paths, self.label, self.split, mask, self.anatomy)


def _jobs(what: Simulation) -> Iterator[_Job]:
    for index, split in enumerate(_SPLITS):
        for number in range(what.counts.get(split, 0)):
            seed = what.seed * 10 * _SEED_STRIDE + index * _SEED_STRIDE + number
            yield _Job(f"{split}-{number:04d}", split, what.anatomies[split], number % 2, seed)


def _claim(what: Simulation, hashes: Mapping[str, str]) -> None:
    """Mark the folder as this data set's, or refuse it."""
    make_folder(what.output)
    record = {
        "simulated": True,
        "recipe_version": what.recipe.VERSION,
        "seed": what.seed,
        "counts": dict(what.counts),
        "anatomies": dict(what.anatomies),
        "anatomy_hashes": dict(hashes),
        "contrast": "t1c" if isinstance(what.recipe, T1cRecipe) else "flair",
        "recipe": asdict(what.recipe),
    }
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    path = what.output / RECORD
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return
    if any(what.output.iterdir()):
        raise TomoSegError(
            "output-exists",
            f"{what.output} holds something other than this data set.",
            "Choose another --output; nothing is ever overwritten.",
        )
    path.write_text(text, encoding="utf-8")


_anatomies: dict[str, Anatomy] = {}
_files: dict[str, Path] = {}


def _start_worker(files: dict[str, Path]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the rest
    torch.set_num_threads(1)
    _files.update(files)


def _simulate(job: _Job, folder: Path, recipe: Recipe) -> None:
    if job.anatomy not in _anatomies:
        _anatomies[job.anatomy] = load_anatomy(job.anatomy, _files.get(job.anatomy))
    case = simulate_case(_anatomies[job.anatomy], job.label, job.seed, recipe)
    write_volume(case.image, job.image_path(folder))
    parameters = folder / "volumes" / f"{job.id}.json"
    temporary = parameters.with_name(f".{parameters.name}.{os.getpid()}")
    temporary.write_text(json.dumps(case.parameters, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, parameters)
    # The mask comes last: where it is, the case is whole.
    write_volume(case.mask, job.mask_path(folder))
