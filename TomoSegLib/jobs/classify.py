"""The class of stacks: one, many, or every frame of a sequence.

A single case gives ``result.json``, several give ``cases/<id>.json``; ``classes.csv`` has them all.
"""

from __future__ import annotations

import csv
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import TomoSegLib
from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.imaging.preprocessing import prepare
from TomoSegLib.jobs.classification_result import ClassificationResult, FrameClass
from TomoSegLib.jobs.document import BatchCase, ClassifyJob
from TomoSegLib.jobs.events import ErrorEvent, Event, ResultEvent, WarningEvent
from TomoSegLib.jobs.inputs import read_volumes
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.scratch import no_space_error
from TomoSegLib.jobs.settings import channel_files
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.models.store import find_model
from TomoSegLib.models.tasks import probability_columns, wrong_task

if TYPE_CHECKING:
    from TomoSegLib.models.classifier import LoadedClassifier

Probabilities = npt.NDArray[np.float64]

CASES, RESULT, TABLE = ClassifyJob.outputs
MEAN = "mean"
"""What ``classes.csv`` has in the column ``frame`` for all frames of a sequence together."""


def classify(
    results: Path,
    job: ClassifyJob,
    report: Reporter,
    emit: Callable[[Event], None],
    describe: Callable[[BaseException], ErrorEvent],
) -> ResultEvent:
    """Classify all cases and write what is found into a folder.

    Args:
        results: The folder.
        job: What is to be done.
        report: For the progress over cases.
        emit: Receives the events of the cases.
        describe: Turns an exception into the event for it.

    Returns:
        The event with ``done`` and ``failed``, numbers of cases.

    Raises:
        TomoSegError: ``model-unknown``, ``model-task``, ``channel-...``, ``output-no-space``; and
            what is wrong with the case, where there is but one.
    """
    model = find_model(job.model)
    card = model.card
    if card.task != "classification":
        raise wrong_task(card, "classification")
    channel_files(job.cases[0].input, job.cases[0].channels, card)  # wrong in every case alike
    from TomoSegLib.jobs.steps import loading_once  # only now torch and all the rest

    classes = [label.name for label in card.labels]
    rows: list[list[str]] = []
    failed = 0
    try:
        with report.stage("cases", len(job.cases)) as progress, loading_once():
            for done, case in enumerate(job.cases, 1):
                found = _case(job, case, model, emit, describe)
                if isinstance(found, ErrorEvent):
                    failed += 1
                    rows.append(_failed_row(case, classes, found))
                else:
                    name = RESULT if len(job.cases) == 1 else f"{CASES}/{case.id}.json"
                    found.write(results / name)
                    rows += _rows(found)
                progress(done, len(job.cases))
        _write_table(rows, classes, results / TABLE)
    except OSError as error:
        if space := no_space_error(error, Path(job.output)):
            raise space from None
        raise
    return ResultEvent(job.output, {"done": len(job.cases) - failed, "failed": failed})


def _case(
    job: ClassifyJob,
    case: BatchCase,
    model: ModelFolder,
    emit: Callable[[Event], None],
    describe: Callable[[BaseException], ErrorEvent],
) -> ClassificationResult | ErrorEvent:
    several = len(job.cases) > 1

    def tell(event: Event) -> None:
        if several and isinstance(event, WarningEvent):
            event = dataclasses.replace(event, message=f"{case.id}: {event.message}")
        emit(event)

    report = Reporter(tell)
    try:
        with report.collecting_warnings():
            return _classified(job, case, model, report)
    except Exception as error:
        if not several or _is_fatal(error, Path(job.output)):
            raise
        failure = describe(error)
        tell(WarningEvent("case-failed", f"{failure.message} [{failure.code}]", failure.hint))
        if failure.traceback:
            sys.stderr.write(failure.traceback)
        return failure


def _classified(
    job: ClassifyJob, case: BatchCase, model: ModelFolder, report: Reporter
) -> ClassificationResult:
    from TomoSegLib.jobs import provenance
    from TomoSegLib.jobs.devices import choose_device
    from TomoSegLib.jobs.steps import load_on_device, make_reproducible
    from TomoSegLib.models.classifier import load_classifier

    card = model.card
    run = job.run_job(case, channel_files(case.input, case.channels, card))
    report.device = choose_device(run.device)
    make_reproducible(run)
    inputs = read_volumes(run, model, report)
    with report.stage("load-model"):
        classifier = load_on_device(lambda device: load_classifier(model, device), report)
    report.device = str(classifier.device)
    sequence = inputs.sequence
    total = 1 if sequence is None else len(sequence.numbers)
    found: list[Probabilities] = []
    with report.stage("classify", total) as progress:
        for frame in [inputs] if sequence is None else inputs.frames():
            image = prepare(frame.volumes, card.preprocessing, frame.foreground).image
            found.append(_probabilities(classifier, image, report))
            progress(len(found), total)
    mean: Probabilities = np.mean(found, axis=0)
    names = classifier.classes
    frames = None
    if sequence is not None:
        frames = [
            FrameClass(number=number, value=value, **_answer(names, each))
            for number, value, each in zip(
                sequence.numbers, sequence.index.values, found, strict=True
            )
        ]
    return ClassificationResult(
        tomoseg=TomoSegLib.__version__,
        case=case.id,
        **_answer(names, mean),
        frames=frames,
        index_name="" if sequence is None else sequence.index.name,
        index_unit="" if sequence is None else sequence.index.unit,
        inputs=inputs.records,
        foreground=inputs.foreground_record,
        model=provenance.model_record(model),
        settings={"device": job.device, "frames": job.frames, "threads": job.threads},
        environment=provenance.environment(report.device, 1),
        warnings=provenance.notes(report.warnings),
        timings_s=report.timings,
        created_at=provenance.now(),
    )


def _answer(names: Sequence[str], probabilities: Probabilities) -> dict[str, Any]:
    return {
        "class_name": names[int(probabilities.argmax())],
        "probabilities": dict(zip(names, map(float, probabilities), strict=True)),
    }


def _probabilities(
    classifier: LoadedClassifier, image: npt.NDArray[np.float32], report: Reporter
) -> Probabilities:
    """On the CPU where the device has no memory for it."""
    try:
        return classifier.probabilities(image)
    except (RuntimeError, MemoryError) as error:
        if report.device == "cpu" or not is_out_of_memory(error):
            raise
    report.warn(
        "memory-device-cpu",
        f"Memory of {report.device} does not suffice for the stack: continuing on the CPU.",
    )
    report.device = "cpu"
    return classifier.to("cpu").probabilities(image)


def _rows(result: ClassificationResult) -> list[list[str]]:
    """One for a volume; for a sequence one each frame, and one for their mean."""
    whole = (MEAN if result.frames else "", result.class_name, result.probabilities)
    parts = [(str(f.number), f.class_name, f.probabilities) for f in result.frames or ()]
    return [
        [result.case, frame, name, *(f"{p:.6f}" for p in probabilities.values()), "", ""]
        for frame, name, probabilities in [*parts, whole]
    ]


def _failed_row(case: BatchCase, classes: Sequence[str], failure: ErrorEvent) -> list[str]:
    message = f"{failure.message} {failure.hint}".strip()
    return [case.id, "", "", *[""] * len(classes), failure.code, message]


def _write_table(rows: Sequence[Sequence[str]], classes: Sequence[str], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        columns = probability_columns(classes)
        writer.writerow(["case", "frame", "class", *columns, "error", "message"])
        writer.writerows(rows)


def _is_fatal(error: Exception, output: Path) -> bool:
    """Whether every case that is left would fail alike."""
    if isinstance(error, OSError):
        return no_space_error(error, output) is not None
    return isinstance(error, TomoSegError) and error.code in (
        "device-unavailable",
        "model-network-invalid",
        "model-weights-mismatch",
        "output-no-space",
    )
