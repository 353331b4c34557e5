"""From a few stacks with classes to a classifier: ``tomoseg finetune --task classification``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from TomoSegLib.datasets.simulate import is_simulated
from TomoSegLib.files import atomic_path
from TomoSegLib.models.classifier import load_classifier
from TomoSegLib.models.folder import refuse_existing
from TomoSegLib.models.store import ModelFolder, save_model
from TomoSegLib.training.checkpoint import read_checkpoint, refuse_unwritable
from TomoSegLib.training.classification_card import classifier_card
from TomoSegLib.training.classification_data import PreparedStack, in_memory, prepare_stack
from TomoSegLib.training.classification_manifest import ClassifiedCase
from TomoSegLib.training.classification_plan import (
    ClassifierPlan,
    ClassifierTraining,
    make_classifier_plan,
)
from TomoSegLib.training.classification_scores import (
    ClassReport,
    ClassScore,
    report_of,
    write_class_scores,
    write_report,
)
from TomoSegLib.training.classification_trainer import ClassifierTrainer
from TomoSegLib.training.finetuning_start import start_title
from TomoSegLib.training.stepwise import Progress, stoppable, train_steps

MODEL = "model"
RECORD = "finetuning.json"
SCORES = "test.csv"
REPORT = "report.json"
REPORT_TEXT = "report.md"


def finetune_classifier(
    what: ClassifierTraining,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ModelFolder | None:
    """Fine-tune a classifier and save it as a model; what was stopped goes on where it was.

    Test cases are classified with the finished model as ``tomoseg classify`` would, and nothing
    is chosen by them.

    Returns:
        The model, or None if it was asked to stop.

    Raises:
        TomoSegError: Those of `make_classifier_plan`, `prepare_stack` and
            `ClassifierPlan.network`, ``checkpoint-invalid``, ``checkpoint-different``,
            ``output-unwritable``, ``model-exists``, ``training-diverged``.
    """
    return stoppable(lambda tell, stop: _finetuned(what, tell, stop), on_progress, should_stop)


def _finetuned(
    what: ClassifierTraining, tell: Progress, stop: Callable[[], bool]
) -> ModelFolder | None:
    if what.threads is not None:
        torch.set_num_threads(what.threads)
    plan = make_classifier_plan(what)
    refuse_unwritable(what.output)
    refuse_existing(what.output / MODEL, overwrite=True)  # nothing but a model is replaced
    torch.manual_seed(what.options.seed)
    network = plan.network()
    identity = plan.identity()
    if not what.overwrite:  # before anything is read: what cannot go on is told at once
        read_checkpoint(what.output / "checkpoint", identity)
    train, validation = _prepared(plan, tell)
    trainer = ClassifierTrainer(
        network,
        train,
        validation,
        len(plan.classes),
        plan.preprocessing.background,
        what.options,
        what.device,
        what.workers,
    )

    def tell_step(done: int, total: int, figures: Mapping[str, float]) -> None:
        last = trainer.state.history[-1] if trainer.state.history else {}
        name = "val balanced accuracy"
        tell("train", done, total, {**figures, **({name: last[name]} if name in last else {})})

    results = (RECORD, MODEL, SCORES, REPORT, REPORT_TEXT)
    if not train_steps(trainer, what.output, identity, what.overwrite, tell_step, stop, results):
        return None
    return _saved(plan, trainer, tell)


def _prepared(
    plan: ClassifierPlan, tell: Progress
) -> tuple[list[PreparedStack], list[PreparedStack]]:
    """The stacks to train on and to validate on, in memory.

    Those for test are read, too: what is wrong with one had better come out before the training.
    """
    validation, tests = plan.split("val"), plan.split("test")
    total = len(plan.used) + len(validation) + len(tests)
    prepared: list[PreparedStack] = []
    options = plan.what.options
    for case in (*plan.used, *validation):
        prepared.append(
            in_memory(
                case,
                plan.classes,
                plan.preprocessing,
                options.size,
                options.rotation,
                options.zoom,
            )
        )
        tell("read", len(prepared), total, {})
    for done, case in enumerate(tests, len(prepared) + 1):
        prepare_stack(case, plan.preprocessing)
        tell("read", done, total, {})
    return prepared[: len(plan.used)], prepared[len(plan.used) :]


def _saved(plan: ClassifierPlan, trainer: ClassifierTrainer, tell: Progress) -> ModelFolder:
    """The model with its figures of the test cases on the card, and the record of the run."""
    what, state = plan.what, trainer.state
    kept = next((e for e in state.history if e["step"] == state.best_step), {})
    metrics: dict[str, Any] = {
        f"validation {name.removeprefix('val ')}": round(value, 4)
        for name, value in kept.items()
        if name.startswith("val ")
    }
    model = _save_model(plan, trainer, metrics)
    report: ClassReport | None = None
    if tests := plan.split("test"):
        scores = _scores(model, tests, plan.classes, what.device, tell)
        write_class_scores(scores, plan.classes, what.output / SCORES)
        report = report_of(scores, plan.classes)
        write_report(report, what.output / REPORT_TEXT)
        _write_json(report.as_dict(), what, REPORT)
        metrics["test stacks"] = len(tests)
        metrics["test balanced accuracy"] = round(report.balanced_accuracy, 4)
        metrics["test AUC"] = None if report.mean_auc is None else round(report.mean_auc, 4)
        model = _save_model(plan, trainer, metrics)
    record = {
        "task": "classification",
        "classes": list(plan.classes),
        "start": what.start,
        "encoder": plan.encoder,
        "start_sha256": None if plan.pretrained is None else plan.pretrained.sha256,
        "fraction": str(what.fraction),
        "training_cases": [case.id for case in plan.used],
        "options": what.options.as_dict(),
        "kept_step": state.best_step,
        "metrics": metrics,
        **({"confusion": report.confusion} if report else {}),
    }
    _write_json(record, what, RECORD)
    return model


def _scores(
    model: ModelFolder,
    cases: Sequence[ClassifiedCase],
    classes: Sequence[str],
    device: str,
    tell: Progress,
) -> list[ClassScore]:
    classifier = load_classifier(model, device)
    scores = []
    for case in cases:
        found = classifier.probabilities(prepare_stack(case, model.card.preprocessing))
        scores.append(ClassScore(case.id, classes.index(case.class_name), tuple(found.tolist())))
        tell("test", len(scores), len(cases), {})
    return scores


def _write_json(document: Mapping[str, Any], what: ClassifierTraining, name: str) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    with atomic_path(what.output / name) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _save_model(
    plan: ClassifierPlan, trainer: ClassifierTrainer, metrics: Mapping[str, Any]
) -> ModelFolder:
    what = plan.what
    start = start_title(what.start, plan.pretrained)
    slug = re.sub("[^a-z0-9]+", "-", "-".join(plan.classes).lower()).strip("-")[:40].strip("-")
    fields = classifier_card(
        name=what.name or f"classifier-{slug or 'stacks'}",
        title=f"{', '.join(plan.classes)} in {plan.modality}"[:200],
        modality=plan.modality,
        channels=plan.manifest.channels,
        classes=plan.classes,
        preprocessing=plan.preprocessing,
        network=plan.network_arguments(),
        size=what.options.size,
        training_data={
            "description": f"{len(plan.used)} stacks with their classes, started from {start}.",
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
