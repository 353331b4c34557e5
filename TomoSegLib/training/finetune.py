"""From a few labelled volumes to a segmenter: ``tomoseg finetune``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from TomoSegLib.datasets.simulate import is_simulated
from TomoSegLib.files import atomic_path
from TomoSegLib.models.folder import refuse_existing
from TomoSegLib.models.store import ModelFolder, save_model
from TomoSegLib.training.checkpoint import read_checkpoint, refuse_unwritable
from TomoSegLib.training.finetuning_start import start_title
from TomoSegLib.training.segmentation_card import segmenter_card
from TomoSegLib.training.segmentation_data import (
    PreparedLabels,
    prepare_labelled,
    read_case,
    refuse_missing_classes,
    with_labels,
)
from TomoSegLib.training.segmentation_plan import Finetuning, Plan, make_plan
from TomoSegLib.training.segmentation_scores import mean_dice, score_cases, write_scores
from TomoSegLib.training.segmentation_trainer import Finetuner
from TomoSegLib.training.stepwise import Progress, stoppable, train_steps

MODEL = "model"
RECORD = "finetuning.json"
SCORES = "test.csv"


def finetune(
    what: Finetuning,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ModelFolder | None:
    """Fine-tune a segmenter and save it as a model; what was stopped goes on where it was.

    Test cases are segmented with the finished model as ``tomoseg run`` would, and nothing is
    chosen by them.

    Returns:
        The model, or None if it was asked to stop.

    Raises:
        TomoSegError: Those of `read_labelled`, `prepare_labelled`, `load_pretrained` and
            `begin_with`, ``finetuning-options``, ``label-class-missing``, ``checkpoint-invalid``,
            ``checkpoint-different``, ``output-unwritable``, ``model-exists``,
            ``training-diverged``.
    """
    return stoppable(lambda tell, stop: _finetuned(what, tell, stop), on_progress, should_stop)


def _finetuned(what: Finetuning, tell: Progress, stop: Callable[[], bool]) -> ModelFolder | None:
    if what.threads is not None:
        torch.set_num_threads(what.threads)
    plan = make_plan(what)
    what = plan.what
    refuse_unwritable(what.output)
    refuse_existing(what.output / MODEL, overwrite=True)  # nothing but a model is replaced
    torch.manual_seed(what.options.seed)
    network = plan.network()
    identity = plan.identity()
    if not what.overwrite:  # before anything is read: what cannot go on is told at once
        read_checkpoint(what.output / "checkpoint", identity)

    train, validation = _prepared(plan, tell)
    refuse_missing_classes(train, what.labels)
    validation = with_labels(validation, what.labels)
    trainer = Finetuner(
        network,
        train,
        validation,
        [label.name for label in what.labels],
        plan.preprocessing.background,
        what.options,
        what.device,
        what.workers,
    )

    def tell_step(done: int, total: int, figures: Mapping[str, float]) -> None:
        last = trainer.state.history[-1] if trainer.state.history else {}
        dice = {"Dice": last["mean Dice"]} if "mean Dice" in last else {}
        tell("train", done, total, {**figures, **dice})

    results = (RECORD, MODEL, SCORES)
    if not train_steps(trainer, what.output, identity, what.overwrite, tell_step, stop, results):
        return None
    return _saved(plan, trainer, tell)


def _prepared(plan: Plan, tell: Progress) -> tuple[list[PreparedLabels], list[PreparedLabels]]:
    """The cases to train on and to validate on, in memory.

    Those for test are read, too: what is wrong with one had better come out before the training.
    """
    cases, tests = [*plan.used, *plan.split("val")], plan.split("test")
    total = len(cases) + len(tests)
    prepared: list[PreparedLabels] = []
    for case in cases:
        prepared.append(
            prepare_labelled(
                case,
                plan.what.labels,
                plan.preprocessing,
                with_unsure=plan.what.options.loss == "noise-tolerant",
            )
        )
        tell("read", len(prepared), total, {})
    for done, case in enumerate(tests, len(cases) + 1):
        read_case(case, plan.what.labels, in_plane=plan.preprocessing.in_plane)
        tell("read", done, total, {})
    return prepared[: len(plan.used)], prepared[len(plan.used) :]


def _saved(plan: Plan, trainer: Finetuner, tell: Progress) -> ModelFolder:
    """The model with its scores of the test cases on the card, and the record of the run."""
    what, state = plan.what, trainer.state
    kept = next((e for e in state.history if e["step"] == state.best_step), {})
    metrics: dict[str, Any] = {
        f"validation {name}": round(value, 4)
        for name, value in kept.items()
        if name.startswith(("Dice ", "mean Dice"))
    }
    model = _save_model(plan, trainer, metrics)
    if tests := plan.split("test"):
        scores = score_cases(
            model, tests, what.labels, what.device, lambda n, m: tell("test", n, m, {})
        )
        write_scores(scores, what.output / SCORES)
        metrics["test volumes"] = len(tests)
        for label in what.labels:
            dice = mean_dice(scores, label.name)
            metrics[f"test Dice {label.name}"] = None if np.isnan(dice) else round(dice, 4)
        model = _save_model(plan, trainer, metrics)
    record = {
        "labels": [asdict(label) for label in what.labels],
        "start": what.start,
        **({"encoder": plan.encoder} if plan.encoder else {}),
        "start_sha256": None if plan.pretrained is None else plan.pretrained.sha256,
        "fraction": str(what.fraction),
        "training_cases": [case.id for case in plan.used],
        "options": what.options.as_dict(),
        "kept_step": state.best_step,
        "metrics": metrics,
    }
    with atomic_path(what.output / RECORD) as temporary:
        temporary.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return model


def _save_model(plan: Plan, trainer: Finetuner, metrics: Mapping[str, Any]) -> ModelFolder:
    what = plan.what
    start = start_title(what.start, plan.pretrained)
    first = re.sub("[^a-z0-9]+", "-", what.labels[0].name.lower()).strip("-")
    fields = segmenter_card(
        name=what.name or f"segmenter-{first[:40] or 'labels'}",
        title=f"{', '.join(label.name for label in what.labels)} in {plan.modality}"[:200],
        modality=plan.modality,
        channels=plan.channels,
        labels=what.labels,
        preprocessing=plan.preprocessing,
        network=plan.network_arguments(),
        patch=what.options.patch,
        overlap=what.options.overlap,
        training_data={
            "description": f"{len(plan.used)} labelled volumes, started from {start}.",
            "simulated": what.simulated or is_simulated(what.manifest),
            "command": what.command[:4000],
            "volumes": len(plan.used),
            "seed": what.options.seed,
        },
        license=what.license,
        metrics=metrics,
    )
    weights = {k: v.cpu() for k, v in trainer.best.items()}
    return save_model(what.output / MODEL, fields, weights, overwrite=True)
