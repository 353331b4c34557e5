"""A data set of simulated hearts: ``tomoseg simulate hearts``.

Nothing about them is clinical. They are one real heart (see `hearts_anatomy`), warped, beating and
scanned in simulation (see `hearts_motion` and `hearts_scan`), written as DICOM studies with
labels. All come from one person: what is learned on them says how a method works, not how well it
would do on patients.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import numpy.typing as npt

from TomoSegLib.datasets.hearts_anatomy import (
    CT_HASH,
    LABEL_NAMES,
    HeartAnatomy,
    checked_files,
    load_heart,
)
from TomoSegLib.datasets.hearts_dicom import write_views
from TomoSegLib.datasets.hearts_motion import make_heart
from TomoSegLib.datasets.hearts_scan import ScannedView, Scanner, ScanRecipe
from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path

RECIPE_VERSION = 2
MANIFEST = "manifest.csv"
RECORD = "simulation.json"

# Ranges (low, high) of each group of hearts, see `make_heart`. The groups are meant to be told
# apart; they are caricatures of the diseases whose names they recall.
GROUPS: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "normal": {
        "left_size": (-1.1, -0.3),
        "right_size": (-0.3, 0.2),
        "left_contraction": (0.48, 0.62),
        "right_contraction": (0.2, 0.35),
        "shortening_mm": (10, 14),
        "displacement_mm": (2.5, 5.0),
        "stretch": (0.87, 1.15),
    },
    "dilated": {
        "left_size": (-2.4, -1.3),
        "right_size": (-0.6, 0.1),
        "left_contraction": (0.15, 0.3),
        "right_contraction": (0.1, 0.25),
        "shortening_mm": (4, 8),
        "displacement_mm": (2.5, 5.0),
        "stretch": (0.87, 1.15),
    },
    "hypertrophic": {
        "left_size": (-0.2, 0.35),
        "right_size": (-0.3, 0.2),
        "left_contraction": (0.55, 0.7),
        "right_contraction": (0.2, 0.35),
        "shortening_mm": (8, 12),
        "displacement_mm": (2.5, 5.0),
        "stretch": (0.87, 1.15),
    },
}
_COLUMNS = ("id", "study", "labels", "group", "end_diastolic_ml", "ejection_fraction", "seed")


@dataclass(frozen=True)
class HeartSimulation:
    """What to simulate.

    Attributes:
        output: Folder of the data set; must be empty or hold the same data set, unfinished.
        studies: Number of hearts, their groups in turn.
        recipe: Of the scans.
        seed: Everything follows from it. A larger set begins with the hearts of a smaller one.
        workers: Processes.
        ct: The CT; None: where pip put it.
        labels: Its labels.
    """

    output: Path
    studies: int
    recipe: ScanRecipe = ScanRecipe()
    seed: int = 0
    workers: int = 1
    ct: Path | None = None
    labels: Path | None = None


def simulate_hearts(
    what: HeartSimulation, on_progress: Callable[[int, int], None] | None = None
) -> Path:
    """Simulate studies and labels, and write the manifest last.

    A study is a folder in ``studies`` with DICOM files; ``labels`` has a NIfTI file for each of
    its views, ``[i, j, k, phase]``. What was stopped goes on where it was.

    Returns:
        Path of ``manifest.csv``.

    Raises:
        TomoSegError: ``anatomy-not-found``, ``anatomy-unsuitable``, ``output-exists``,
            ``output-unwritable``.
    """
    tell = on_progress or (lambda done, total: None)
    files = checked_files(what.ct, what.labels)  # what is missing is told before all else
    claim_folder(what.output, _record(what))
    jobs = [n for n in range(what.studies) if not _record_path(what.output, n).exists()]
    done = what.studies - len(jobs)
    tell(done, what.studies)
    if jobs:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(max(1, what.workers), context, _start_worker, files) as pool:
            futures = [pool.submit(_simulate, n, what) for n in jobs]
            try:
                for future in as_completed(futures):
                    future.result()
                    done += 1
                    tell(done, what.studies)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    text = io.StringIO()
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for number in range(what.studies):
        writer.writerow(json.loads(_record_path(what.output, number).read_text("utf-8")))
    path = what.output / MANIFEST
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def simulate_heart(
    anatomy: HeartAnatomy, number: int, seed: int, recipe: ScanRecipe
) -> tuple[list[ScannedView], Scanner, str]:
    """One heart as scanned, the scanner (for its volumes), and its group."""
    rng = np.random.default_rng((RECIPE_VERSION, seed, number))
    group = list(GROUPS)[number % len(GROUPS)]
    heart = make_heart(anatomy, rng, GROUPS[group])
    scanner = Scanner(anatomy, heart, recipe, rng)
    return scanner.scan(), scanner, group


def write_labels(view: ScannedView, path: Path) -> None:
    """Write a view's labels as NIfTI ``[i, j, k, phase]`` on the grid of its headers."""
    affine = np.eye(4)
    first = view.planes[0]
    affine[:3, 0], affine[:3, 1], affine[:3, 3] = first.column_step, first.row_step, first.origin
    if len(view.planes) > 1:
        affine[:3, 2] = (view.planes[-1].origin - first.origin) / (len(view.planes) - 1)
    else:
        affine[:3, 2] = first.normal * view.thickness_mm
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    array: npt.NDArray[np.uint8] = np.ascontiguousarray(view.labels.transpose(3, 2, 1, 0))
    image = nibabel.Nifti1Image(array, ras)
    image.set_sform(ras, code="scanner")
    image.set_qform(ras, code="scanner")
    image.header.set_xyzt_units("mm")
    with atomic_path(path) as temporary:
        nibabel.save(image, temporary)


def _record_path(output: Path, number: int) -> Path:
    return output / "labels" / _name(number) / "heart.json"


def _name(number: int) -> str:
    return f"heart-{number:04d}"


def _record(what: HeartSimulation) -> dict[str, Any]:
    return {
        "simulated": True,
        "recipe_version": RECIPE_VERSION,
        "seed": what.seed,
        "ct_sha256": CT_HASH,
        "labels": {str(value): name for value, name in LABEL_NAMES.items()},
        "groups": {name: dict(ranges) for name, ranges in GROUPS.items()},
        "scan": asdict(what.recipe),
    }


def claim_folder(output: Path, record: Mapping[str, Any]) -> None:
    """Mark a folder as a data set's by its record, or refuse it.

    Raises:
        TomoSegError: ``output-exists`` (something else is in it) or ``output-unwritable``.
    """
    text = json.dumps(record, indent=2, sort_keys=True) + "\n"
    path = output / RECORD
    try:
        output.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.read_text(encoding="utf-8") == text:
            return
        if any(output.iterdir()):
            raise TomoSegError(
                "output-exists",
                f"{output} holds something other than this data set.",
                "Choose another --output; nothing is ever overwritten.",
            )
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise TomoSegError(
            "output-unwritable",
            f"The folder {output} cannot be written: {error.strerror}.",
            "Choose another --output.",
        ) from None


_anatomy: list[HeartAnatomy] = []


def _start_worker(ct: Path, labels: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the parent ends the rest
    _anatomy.append(load_heart(ct, labels))


def _simulate(number: int, what: HeartSimulation) -> None:
    views, scanner, group = simulate_heart(_anatomy[0], number, what.seed, what.recipe)
    name = _name(number)
    study, labels = what.output / "studies" / name, what.output / "labels" / name
    # Made beside and moved: a study is there as a whole or not at all.
    temporary = what.output / "studies" / f".{name}.{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(study, ignore_errors=True)
    temporary.mkdir(parents=True)
    labels.mkdir(parents=True, exist_ok=True)
    patient = f"SIM-{what.seed}-{number:04d}"
    write_views(views, temporary, patient, body_part="HEART", heart_rate=scanner.heart_rate)
    os.replace(temporary, study)
    for view in views:
        write_labels(view, labels / f"{view.kind}.nii.gz")
    diastole, systole = (scanner.ventricle_volume_ml(phase) for phase in (0.0, 0.36))
    record = {
        "id": name,
        "study": f"studies/{name}",
        "labels": f"labels/{name}",
        "group": group,
        "end_diastolic_ml": round(diastole, 1),
        "ejection_fraction": round(1 - systole / max(diastole, 1e-6), 3),
        "seed": what.seed,
    }
    with atomic_path(_record_path(what.output, number)) as path:
        path.write_text(json.dumps(record) + "\n", encoding="utf-8")
