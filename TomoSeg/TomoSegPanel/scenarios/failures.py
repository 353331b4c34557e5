"""Scenarios in which the worker, the machine or the model fails: the panel says so and goes on."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil

import qt
import slicer

from TomoSegPanel import job, runData
from TomoSegPanel.scenarios.bench import (
    Bench,
    computingProcess,
    plainText,
    workerProcess,
    workers,
)
from TomoSegPanel.scenarios.objects import addBlobVolume, copyModel


def a_computation_that_crashes_is_told_with_its_reason_and_a_report(bench: Bench) -> None:
    _choose(bench)
    run = bench.startAndWaitForPreview()
    computingProcess().kill()
    bench.finish(run, "failed", 10)
    assert run.error.code == "worker-died"
    _assertTold(bench, run)


def a_worker_that_is_killed_is_told_and_leaves_nothing_behind(bench: Bench) -> None:
    _choose(bench)
    run = bench.startAndWaitForPreview()
    workerProcess().kill()
    bench.finish(run, "failed", 10)
    assert run.error.code == "worker-died"
    _assertTold(bench, run)
    bench.until(lambda: not workers(), "the computing process has ended too", 3)
    bench.useWorker(None)
    bench.run()  # and the next one is as if nothing had been


def garbage_on_the_worker_s_output_is_a_warning_and_the_run_goes_on(bench: Bench) -> None:
    _choose(bench)
    bench.useWorker("garbage")
    run = bench.run()
    assert {warning.code for warning in run.warnings} == {"worker-output"}
    assert "unexpected" in bench.ui.messageNote.text


def too_little_memory_makes_batches_smaller_and_the_panel_says_so(bench: Bench) -> None:
    _choose(bench)
    bench.useWorker("memory=5")
    run = bench.run()
    codes = [warning.code for warning in run.warnings]
    assert codes and set(codes) == {"memory-batch-halved"}, codes
    assert "at a time" in bench.ui.messageNote.text


def no_memory_at_all_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    _choose(bench)
    bench.useWorker("memory=0")
    run = bench.run("failed")
    assert run.error.code == "out-of-memory"
    _assertTold(bench, run)


def a_full_disk_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    _choose(bench)
    bench.useWorker("full-disk")
    run = bench.run("failed")
    assert run.error.code == "output-no-space", run.report()
    _assertTold(bench, run)


def a_disk_that_is_full_before_the_worker_starts_is_an_error_too(bench: Bench) -> None:
    _choose(bench)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write, runData.writeNrrd = runData.writeNrrd, full
    try:
        run = bench.run("failed")
    finally:
        runData.writeNrrd = write
    assert os.strerror(errno.ENOSPC) in run.error.message
    _assertTold(bench, run)


def a_temporary_folder_that_is_not_there_is_an_error_and_no_exception(bench: Bench) -> None:
    _choose(bench)
    temporary = slicer.app.temporaryPath
    slicer.app.temporaryPath = str(bench.folder / "gone")
    try:
        run = bench.run("failed")
    finally:
        slicer.app.temporaryPath = temporary
    _assertTold(bench, run)


def without_pytorch_the_run_button_says_why_it_is_disabled(bench: Bench) -> None:
    _choose(bench)
    bench.useWorker("no-torch")
    try:
        answer = bench.probe()
        assert "error" in answer["torch"], answer
        assert not bench.ui.runButton.enabled
        assert "missing" in bench.ui.runButton.toolTip
        assert "PyTorch" in bench.ui.deviceNote.text
        assert not bench.ui.installButton.isHidden()
    finally:
        bench.useWorker(None)
        bench.probe()
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip
    assert bench.ui.installButton.isHidden()


def a_probe_that_dies_is_told_and_can_be_repeated(bench: Bench) -> None:
    _choose(bench)
    bench.ui.probeButton.click()
    bench.until(workers, "the probe is under way")
    for process in reversed(workers()):
        with contextlib.suppress(Exception):  # it may have ended with its parent
            process.kill()
    bench.until(lambda: bench.ui.probeButton.enabled, "the probe is over")
    assert not bench.ui.runButton.enabled
    bench.probe()
    assert bench.ui.runButton.enabled, bench.ui.deviceNote.text


def a_model_that_has_gone_since_it_was_chosen_is_an_error(bench: Bench) -> None:
    bench.importModel(copyModel(bench.folder, "short-lived"))
    _choose(bench, "short-lived")
    shutil.rmtree(bench.models / "short-lived")
    run = bench.run("failed")
    assert "short-lived" in run.error.message, run.report()
    _assertTold(bench, run)


def a_model_whose_weights_were_changed_is_found_by_the_check_and_refused(bench: Bench) -> None:
    bench.importModel(copyModel(bench.folder, "altered"))
    _choose(bench, "altered")
    assert "✖" not in bench.verifyModel(), bench.ui.modelNote.text
    weights = bench.models / "altered" / "weights.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    assert "✖" in bench.verifyModel(), bench.ui.modelNote.text
    run = bench.run("failed")
    assert run.error.code.startswith("model-"), run.report()
    _assertTold(bench, run)


def _choose(bench: Bench, model: str = "tiny-blob") -> None:
    bench.chooseVolume(addBlobVolume())
    bench.chooseModel(model)


def _assertTold(bench: Bench, run: job.Run) -> None:
    """See that an error is shown with what to do, can be copied, and that one can go on."""
    shown = bench.ui.messageNote
    assert not shown.isHidden()
    assert run.error.hint, f"{run.error.code} does not say what to do"
    shownText = plainText(shown.text)
    assert run.error.hint in shownText, shownText
    assert run.error.message in shownText, shownText
    bench.ui.copyReportButton.click()
    report = qt.QApplication.clipboard().text()
    assert run.error.code in report and run.settings.card.name in report, report
    assert bench.ui.runButton.enabled, bench.ui.runButton.toolTip
    assert not bench.ui.cancelButton.enabled


SCENARIOS = (
    a_computation_that_crashes_is_told_with_its_reason_and_a_report,
    a_worker_that_is_killed_is_told_and_leaves_nothing_behind,
    garbage_on_the_worker_s_output_is_a_warning_and_the_run_goes_on,
    too_little_memory_makes_batches_smaller_and_the_panel_says_so,
    no_memory_at_all_is_an_error_that_says_what_to_do,
    a_full_disk_is_an_error_that_says_what_to_do,
    a_disk_that_is_full_before_the_worker_starts_is_an_error_too,
    a_temporary_folder_that_is_not_there_is_an_error_and_no_exception,
    without_pytorch_the_run_button_says_why_it_is_disabled,
    a_probe_that_dies_is_told_and_can_be_repeated,
    a_model_that_has_gone_since_it_was_chosen_is_an_error,
    a_model_whose_weights_were_changed_is_found_by_the_check_and_refused,
)
