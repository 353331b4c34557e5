"""The child process of a worker: carries out one job in the folder that it is given.

It may be killed at any moment, so it writes nowhere else (but into the caller's folder of
previews), and nobody waits for it to say yes.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import threading
from pathlib import Path

from TomoSegLib.jobs import processes
from TomoSegLib.jobs.events import ErrorEvent, EventWriter, ResultEvent
from TomoSegLib.jobs.worker import describe_failure


def main(results: str) -> int:
    """Read the document from stdin, do the job, report, and return the exit status."""
    processes.die_with_parent()
    processes.keep_freed_memory()
    faulthandler.enable()
    # Ctrl-C and a scheduler's SIGTERM reach the whole group; the worker decides what follows.
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: None)
    emit = EventWriter(processes.claim_stdout())
    try:
        with open(0, "rb", buffering=0, closefd=False) as stdin:
            text = stdin.readline().decode("utf-8")
        threading.Thread(target=_end_with_worker, daemon=True).start()
        outcome: ResultEvent | ErrorEvent = _carry_out(text, results, emit)
    except BaseException as error:
        outcome = describe_failure(error)
    with contextlib.suppress(OSError):
        emit(outcome)
    return outcome.exit_status if isinstance(outcome, ErrorEvent) else 0


def _carry_out(text: str, results: str, emit: EventWriter) -> ResultEvent:
    from TomoSegLib.jobs.document import (
        BatchJob,
        ClassifyJob,
        EstimateJob,
        ImportModelJob,
        InspectStudyJob,
        RefineMaskJob,
        RunJob,
        VerifyModelJob,
        parse_job_text,
    )
    from TomoSegLib.jobs.report import Reporter
    from TomoSegLib.jobs.scratch import no_space_error

    job = parse_job_text(text)
    reporter = Reporter(emit)
    if isinstance(job, ImportModelJob):
        from TomoSegLib.jobs.models import import_into

        return import_into(Path(results), job, reporter)
    if isinstance(job, BatchJob):
        from TomoSegLib.jobs.batch import run_batch

        return ResultEvent(job.output, run_batch(job, reporter, emit, describe_failure))
    if isinstance(job, ClassifyJob):
        from TomoSegLib.jobs.classify import classify

        return classify(Path(results), job, reporter, emit, describe_failure)
    if isinstance(job, EstimateJob):
        from TomoSegLib.jobs.estimate import measure_speed

        return measure_speed(job, reporter)
    if isinstance(job, VerifyModelJob):
        from TomoSegLib.jobs.models import verify

        return verify(job, reporter)
    if isinstance(job, RefineMaskJob):
        from TomoSegLib.jobs.refine_mask import refine_mask

        return refine_mask(Path(results), job, reporter)
    if isinstance(job, InspectStudyJob):
        from TomoSegLib.jobs.inspect_study import inspect_study

        return inspect_study(Path(results), job, reporter)
    if not isinstance(job, RunJob):
        from TomoSegLib.jobs.probe import probe

        return ResultEvent(data=probe())
    try:
        from TomoSegLib.jobs.computation import computation
        from TomoSegLib.jobs.inputs import read_inputs

        with reporter.collecting_warnings():
            inputs = read_inputs(job, reporter)
            computation(inputs)(inputs, Path(results), reporter)
        return ResultEvent(job.output)
    except OSError as error:
        if space := no_space_error(error, Path(job.output)):
            raise space from None
        raise


def _end_with_worker() -> None:
    """Where the system does not do it: end when the worker's side of our stdin closes."""
    with contextlib.suppress(OSError), open(0, "rb", buffering=0, closefd=False) as stdin:
        while stdin.read(1):
            pass
    os._exit(1)
