"""A batch: many volumes through one model, which is loaded once.

Each case is a run of its own, with its own complete ``result.json``, in a folder named after it.
Its results appear when it is finished, so a batch that was stopped has lost one case at most;
started again, it skips every case whose results were made from the same input and model with the
same settings. A case that fails is recorded and does not stop the rest.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.batch_report import CaseOutcome, write_summary
from TomoSegLib.jobs.computation import computation
from TomoSegLib.jobs.document import BatchCase, BatchJob, RunJob, RunSettings
from TomoSegLib.jobs.events import ErrorEvent, Event, WarningEvent
from TomoSegLib.jobs.inputs import Inputs, read_inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import AnyResult, read_result
from TomoSegLib.jobs.scratch import Scratch, no_space_error, remove_stale_below
from TomoSegLib.jobs.settings import complete
from TomoSegLib.models.folder import ModelFolder, model_hash
from TomoSegLib.models.store import find_model

_SUMMARY_EVERY_S = 5.0


def run_batch(
    job: BatchJob,
    report: Reporter,
    emit: Callable[[Event], None],
    describe: Callable[[BaseException], ErrorEvent],
) -> dict[str, Any]:
    """Work on all cases, and write ``summary.csv`` and ``index.html``.

    Args:
        job: What is to be done.
        report: For the progress over cases.
        emit: Receives the events of the cases.
        describe: Turns an exception into the event for it.

    Returns:
        How many cases are ``done``, ``skipped`` and ``failed``.

    Raises:
        TomoSegError: What would fail in every case alike: ``model-unknown``, ``option-...``,
            ``channel-...``, ``threshold-not-calibrated``, ``output-unwritable``,
            ``output-no-space``.
    """
    from TomoSegLib.jobs.steps import loading_once

    model = find_model(job.model)
    complete(job.run_job(job.cases[0]), model, lambda code, message, hint: None)
    output = Path(job.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        remove_stale_below(output)
    except OSError as error:
        raise no_space_error(error, output) or TomoSegError(
            "output-unwritable",
            f"The output folder {output} cannot be written: {error.strerror or error}.",
            "Choose a folder in which you may write.",
        ) from None
    outcomes: list[CaseOutcome] = []
    written = 0.0
    with report.stage("cases", len(job.cases)) as progress, loading_once():
        for case in job.cases:
            outcomes.append(_run_case(job, case, model, emit, describe))
            progress(len(outcomes), len(job.cases))
            if time.monotonic() - written > _SUMMARY_EVERY_S:
                write_summary(output, model.card, outcomes, len(job.cases))
                written = time.monotonic()
    write_summary(output, model.card, outcomes, len(job.cases))
    states = [outcome.status for outcome in outcomes]
    return {state: states.count(state) for state in ("done", "skipped", "failed")}


def _run_case(
    batch: BatchJob,
    case: BatchCase,
    model: ModelFolder,
    emit: Callable[[Event], None],
    describe: Callable[[BaseException], ErrorEvent],
) -> CaseOutcome:
    def tell(event: Event) -> None:
        if isinstance(event, WarningEvent):
            event = dataclasses.replace(event, message=f"{case.id}: {event.message}")
        emit(event)

    start = time.monotonic()
    job = batch.run_job(case)
    report = Reporter(tell)
    try:
        with report.collecting_warnings():
            inputs = read_inputs(job, report)
            if (before := _finished(inputs)) is not None:
                return CaseOutcome.of_result(case.id, "skipped", before, 0.0)
            result = _compute(job, inputs, report)
        return CaseOutcome.of_result(case.id, "done", result, time.monotonic() - start)
    except Exception as error:
        # A full disk would fail every case that is left.
        if isinstance(error, OSError) and (space := no_space_error(error, Path(job.output))):
            raise space from None
        if isinstance(error, TomoSegError) and error.code == "output-no-space":
            raise
        failure = describe(error)
        tell(WarningEvent("case-failed", f"{failure.message} [{failure.code}]", failure.hint))
        if failure.traceback:
            import sys

            sys.stderr.write(failure.traceback)
        return CaseOutcome.of_failure(case.id, failure, time.monotonic() - start)


def _compute(job: RunJob, inputs: Inputs, report: Reporter) -> AnyResult:
    """Run one case; its results appear at once, or not at all."""
    scratch = Scratch(Path(job.output), job.outputs, job.overwrite)
    try:
        computation(inputs)(inputs, scratch.results, report)
        scratch.commit()
    finally:
        scratch.discard()
    return read_result(Path(job.output))


def _finished(inputs: Inputs) -> AnyResult | None:
    """The results that are there, if another run would give the same again."""
    job = inputs.job
    folder = Path(job.output)
    try:
        result = read_result(folder)
    except TomoSegError:
        return None
    same = (
        all(getattr(result.job, name) == getattr(job, name) for name in RunSettings.model_fields)
        and {name: item.hash for name, item in result.inputs.items()}
        == {name: item.hash for name, item in inputs.records.items()}
        and (result.foreground and result.foreground.hash)
        == (inputs.foreground_record and inputs.foreground_record.hash)
        and result.model.hash == model_hash(inputs.model)
        and all((folder / name).is_file() for name in result.files)
    )
    return result if same else None
