"""A segmenter that learns from a heatmap model, which learnt from yes and no: self-training.

A heatmap costs an encoder's pass over thousands of slices, and its border is soft. A 3D U-Net that
is trained on what the heatmaps of many volumes are sure of gives a sharper mask in one pass of
sliding windows. Volumes without the finding teach it with certainty what is none. No label of a
voxel is used on the way: of a manifest's row only volumes, label and split are looked at.

The folder of a self-training:

* ``round-N/labels/``: the pseudo-labels of round N (0 outside, 1 inside, 255 unsure).
* ``round-N/training/``: the segmenter that learns from them, see `TomoSegLib.training.finetune`.
* ``model/``: the last round's model, with labels and limits of the heatmap model.
* ``self-training.json``: what was done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file

from TomoSegLib.datasets.manifest import SINGLE, Case, read_manifest, refuse_missing_files
from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path
from TomoSegLib.heatmaps.mask import heatmap_to_mask
from TomoSegLib.heatmaps.pipeline import compute_heatmap
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.preprocessing import prepare
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.folder import ModelFolder, model_hash, refuse_existing
from TomoSegLib.models.loading import load_encoder
from TomoSegLib.models.segmenter import load_segmenter
from TomoSegLib.models.store import find_model, save_model
from TomoSegLib.refinement.refine import refine
from TomoSegLib.segmentation.inference import predict
from TomoSegLib.segmentation.labelmap import to_source
from TomoSegLib.training.checkpoint import files_identity, refuse_unwritable
from TomoSegLib.training.finetune import finetune
from TomoSegLib.training.finetuning_start import SCRATCH, refuse_card_texts
from TomoSegLib.training.pseudo_labels import (
    Certainty,
    Labelmap,
    from_heatmap,
    from_probability,
    of_negative,
)
from TomoSegLib.training.segmentation_manifest import LabelSpec
from TomoSegLib.training.segmentation_plan import Finetuning
from TomoSegLib.training.segmentation_trainer import FinetuningOptions
from TomoSegLib.training.stepwise import remove_earlier

MODEL = "model"
RECORD = "self-training.json"

Progress = Callable[[str, int, int, Mapping[str, float]], None]
LabelOne = Callable[[Case], "Labelmap | None"]


@dataclass(frozen=True)
class SelfTraining:
    """What to train on what.

    Attributes:
        manifest: CSV as for the encoder: path, label (0 or 1), split. Masks are not looked at.
        teacher: Name or folder of the heatmap model.
        output: Folder of the training; goes on if it is there.
        rounds: Rounds; from the second on the pseudo-labels are the segmenter's own.
        refined: Whether heatmaps' masks follow the images' borders before they are learnt from.
        certainty: What counts as certain.
        start: ``scratch``, a pre-training's folder or safetensors of the same network.
        spacing_mm: Voxel size of the segmenter's grid.
        features: Channels of the U-Net's levels; None: those of ``start``, or the default.
        options: Of the optimisation; its loss is always ``noise-tolerant``, and the last layer
            learns no faster than the others.
        name: Of the model; None: the teacher's with ``-segmenter``.
        command: How it was called, for the card.
        workers: Processes that draw patches.
        device: torch device.
        threads: CPU threads, or None for torch's default.
        overwrite: Start again over a training that is there.
    """

    manifest: Path
    teacher: str
    output: Path
    rounds: int = 1
    refined: bool = True
    certainty: Certainty = field(default_factory=Certainty)
    start: str = SCRATCH
    spacing_mm: float = 2.0
    features: tuple[int, ...] | None = None
    options: FinetuningOptions = field(default_factory=FinetuningOptions)
    name: str | None = None
    command: str = ""
    workers: int = 0
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False


class _Stopped(Exception):
    """It was asked to stop between two volumes."""


def self_train(
    what: SelfTraining,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ModelFolder | None:
    """Train a segmenter on a heatmap model's answers; what was stopped goes on where it was.

    Returns:
        The model, or None if it was asked to stop.

    Raises:
        TomoSegError: ``finetuning-options``, ``output-unwritable``, ``model-exists``,
            ``model-task`` if the teacher gives no heatmaps, ``self-training-different`` if another
            one is in the folder, ``pseudo-labels-empty``, and those of `read_manifest`,
            `compute_heatmap` and `finetune`.
    """
    tell = on_progress or (lambda stage, done, total, figures: None)
    stop = should_stop or (lambda: False)
    teacher = find_model(what.teacher)
    if teacher.card.task != "heatmap":
        raise TomoSegError(
            "model-task",
            f"The model {teacher.name} gives no heatmaps: it is a segmenter.",
            "Name a model that 'tomoseg models list' shows with the task heatmap.",
        )
    refuse_card_texts(what.name, teacher.card.license)
    refuse_unwritable(what.output)
    refuse_existing(what.output / MODEL, overwrite=True)
    cases = _cases(what.manifest)
    _claim(what, teacher, cases)
    student: ModelFolder | None = None
    try:
        for number in range(1, what.rounds + 1):
            if student is None:
                label_one = _heatmap_labels(what, teacher)
            else:
                label_one = _own_labels(what, student)
            folder = what.output / f"round-{number}"
            manifest = _label_all(folder, teacher.card, cases, label_one, tell, stop)
            student = _train(what, teacher.card, folder, manifest, student, tell, stop)
            if student is None:
                return None
    except _Stopped:
        return None
    assert student is not None, "at least one round"
    return _final_model(what, teacher, student, cases)


def _cases(manifest: Path) -> list[Case]:
    """The training and validation rows without their masks, whose files may be gone."""
    found = read_manifest(manifest, check_files=False)
    cases = [
        *found.split("train", both_classes=True),
        *found.split("val", both_classes=True),
    ]
    cases = [replace(case, mask=None) for case in cases]
    refuse_missing_files(manifest.name, (f for case in cases for f in case.paths.values()))
    return cases


def _claim(what: SelfTraining, teacher: ModelFolder, cases: Sequence[Case]) -> None:
    """Mark the folder as this training's, or refuse it."""
    rows = [[c.id, c.split, c.label, *map(str, c.paths.values())] for c in cases]
    options = {k: v for k, v in what.options.as_dict().items() if k != "steps"}
    record = {
        "teacher": model_hash(teacher),
        "cases": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "files": files_identity(path for case in cases for path in case.paths.values()),
        "refined": what.refined,
        "certainty": asdict(what.certainty),
        "spacing_mm": what.spacing_mm,
        "options": options,
    }
    text = json.dumps(record, indent=2) + "\n"
    path = what.output / RECORD
    if what.overwrite:
        rounds = sorted(old.name for old in what.output.glob("round-*"))
        remove_earlier(what.output, [*rounds, RECORD, MODEL])
    if path.exists():
        if path.read_text(encoding="utf-8") == text:
            return
        raise TomoSegError(
            "self-training-different",
            f"{what.output} holds another self-training: other volumes, teacher or settings.",
            "Choose another --output, or start again with --overwrite.",
        )
    what.output.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _heatmap_labels(what: SelfTraining, teacher: ModelFolder) -> LabelOne:
    """Pseudo-labels from the teacher's heatmaps, on the volumes' own grids."""
    encoder, card = load_encoder(teacher, what.device), teacher.card
    settings = card.settings(card.method)

    def label_one(case: Case) -> Labelmap | None:
        volumes = [read_volume(p) for p in case.channel_paths([c.name for c in card.channels])]
        scan = prepare(volumes, card.preprocessing)
        found = compute_heatmap(scan, encoder, card, card.method, settings, target=scan.source)
        mask, threshold = heatmap_to_mask(
            found.heatmap,
            scan.source_foreground,
            "card" if settings.threshold is not None else "otsu",
            card.mask,
            scan.source,
            calibrated=settings.threshold,
        )
        inside = mask > 0
        if what.refined and card.refinement is not None and inside.any():
            inside = refine(
                volumes[0].array,
                found.heatmap,
                found.agreement,
                scan.source,
                card.refinement,
                threshold=threshold,
                foreground=scan.source_foreground,
            )
        heat = found.heatmap / np.float32(max(threshold, 1e-12))
        return from_heatmap(inside, heat, scan.source, what.certainty)

    return label_one


def _own_labels(what: SelfTraining, student: ModelFolder) -> LabelOne:
    """Pseudo-labels from the last round's segmenter."""
    segmenter, card = load_segmenter(student, what.device), student.card

    def label_one(case: Case) -> Labelmap | None:
        volumes = [read_volume(p) for p in case.channel_paths([c.name for c in card.channels])]
        scan = prepare(volumes, card.preprocessing)
        found = predict(scan, segmenter)
        probabilities, _ = to_source(
            found.probabilities, scan.geometry, scan.source, scan.source_foreground, card
        )
        return from_probability(probabilities[..., 0], what.certainty)

    return label_one


def _label_all(
    folder: Path,
    card: ModelCard,
    cases: Sequence[Case],
    label_one: LabelOne,
    tell: Progress,
    stop: Callable[[], bool],
) -> Path:
    """Write the pseudo-labels that are not there yet, and the manifest for the segmenter."""
    labels = folder / "labels"
    labels.mkdir(parents=True, exist_ok=True)
    rows = []
    for done, case in enumerate(cases, 1):
        if stop():
            raise _Stopped
        path = labels / f"{hashlib.sha256(case.id.encode()).hexdigest()[:16]}.nii.gz"
        empty = path.with_suffix(".empty")  # of a positive in which nothing was found
        if not path.exists() and not empty.exists():
            image = read_volume(next(iter(case.paths.values())))
            label = label_one(case) if case.label else of_negative(image.geometry)
            if label is None:
                empty.touch()
            else:
                write_volume(Volume(label, image.geometry, case.id), path)
        if path.exists():
            rows.append((case, path))
        tell("label", done, len(cases), {"used": float(len(rows))})
    if not any(case.label for case, _ in rows if case.split == "train"):
        raise TomoSegError(
            "pseudo-labels-empty",
            "The teacher finds nothing in any training volume that has the label 1.",
            "Look at its heatmaps with 'tomoseg run'; its threshold may not suit these volumes.",
        )
    return _write_manifest(folder / "manifest.csv", card, rows)


def _write_manifest(path: Path, card: ModelCard, rows: Sequence[tuple[Case, Path]]) -> Path:
    import csv

    channels = [channel.name for channel in card.channels]
    single = set(rows[0][0].paths) == {SINGLE}
    columns = ["image"] if single else [f"image_{name}" for name in channels]
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*columns, "label", "split", "group", "id"])
        for case, label in rows:
            images = [str(p.absolute()) for p in case.channel_paths(channels)]
            writer.writerow([*images, str(label.absolute()), case.split, case.group, case.id])
    return path


def _train(
    what: SelfTraining,
    card: ModelCard,
    folder: Path,
    manifest: Path,
    before: ModelFolder | None,
    tell: Progress,
    stop: Callable[[], bool],
) -> ModelFolder | None:
    start = what.start if before is None else str(before.path / before.card.network.file)
    return finetune(
        Finetuning(
            manifest=manifest,
            output=folder / "training",
            labels=[LabelSpec(card.labels[0].name, (1,))],
            dimensions=3,
            start=start,
            options=replace(what.options, loss="noise-tolerant", last_layer_factor=1.0),
            modality=card.modality,
            spacing_mm=what.spacing_mm,
            intensity=card.preprocessing.intensity,
            foreground=card.preprocessing.foreground,
            features=what.features,
            license=card.license,
            simulated=card.training_data.simulated,
            workers=what.workers,
            device=what.device,
            threads=what.threads,
        ),
        tell,
        stop,
    )


def _final_model(
    what: SelfTraining, teacher: ModelFolder, student: ModelFolder, cases: Sequence[Case]
) -> ModelFolder:
    """The last segmenter with the teacher's labels, channels and limits on its card."""
    card = teacher.card
    fields: dict[str, Any] = student.card.model_dump(mode="json", exclude={"files"})
    label = card.labels[0].model_dump(mode="json")
    metrics = {
        f"{name}, against pseudo-labels": value for name, value in student.card.metrics.items()
    }
    fields |= {
        "name": what.name or f"{card.name}-segmenter"[:64],
        "version": card.version,
        "title": f"{card.title} (segmenter)"[:200],
        "description": f"A 3D U-Net that learnt from the heatmaps of {card.name} {card.version}, "
        "which learnt from volume labels alone. No label of a voxel was used.",
        "anatomy": card.anatomy,
        "channels": [channel.model_dump(mode="json") for channel in card.channels],
        "labels": [label],
        "mask": card.mask.model_dump(mode="json"),
        "training_data": {
            "description": f"Heatmaps of {card.name}, of {len(cases)} volumes with a yes or no "
            f"each. {card.training_data.description}"[:4000],
            "simulated": card.training_data.simulated,
            "command": what.command[:4000],
            "volumes": sum(case.split == "train" for case in cases),
            "seed": what.options.seed,
        },
        "license": card.license,
        "intended_use": card.intended_use,
        "limitations": list(card.limitations),
        "contributors": list(card.contributors),
        "metrics": metrics,
    }
    weights = load_file(student.path / student.card.network.file)
    return save_model(what.output / MODEL, fields, weights, overwrite=True)
