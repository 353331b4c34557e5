"""The scenarios of the panel in the stand-in application; 3D Slicer runs the same functions."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import qt  # noqa: E402
import slicer  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel import scenarios  # noqa: E402


@pytest.mark.parametrize("scenario", scenarios.SCENARIOS, ids=lambda s: s.__name__)
def test_scenario(scenario):
    scenarios.runScenario(scenario)


def test_the_module_s_own_test_runs_what_it_is_asked_for_and_says_so(capsys):
    slicer.selfTests["TomoSeg"](only="button says what is missing")
    shown = capsys.readouterr().out
    assert "passed: the run button says what is missing" in shown
    assert "1 scenarios passed, 0 failed, 0 left out" in shown


def test_one_scenario_that_fails_is_named_and_the_others_still_run(capsys):
    ran = []

    def this_goes_wrong(bench):
        raise AssertionError("on purpose")

    def a_handler_raises(bench):
        timer = qt.QTimer()
        timer.setSingleShot(True)
        timer.connect("timeout()", lambda: 1 / 0)
        timer.start(0)
        bench.processEvents(0.1)

    def this_goes_well(bench):
        ran.append(bench)

    failed = scenarios.runScenarios(scenarios=(this_goes_wrong, a_handler_raises, this_goes_well))
    assert failed == ["this goes wrong", "a handler raises"]
    assert len(ran) == 1
    shown = capsys.readouterr().out
    assert "on purpose" in shown and "ZeroDivisionError" in shown
    assert "1 scenarios passed, 2 failed, 0 left out" in shown


def test_the_module_s_own_test_fails_with_its_scenarios_and_where_there_are_none(monkeypatch):
    monkeypatch.setattr(scenarios, "runScenarios", lambda only: ["this goes wrong"])
    with pytest.raises(AssertionError, match="this goes wrong"):
        slicer.selfTests["TomoSeg"]()
    monkeypatch.undo()
    with pytest.raises(ValueError, match="no scenario"):
        slicer.selfTests["TomoSeg"](only="no such title")


@pytest.mark.parametrize(
    ("options", "words", "status"),
    [
        ([], "single slice is refused", 0),
        (["--no-main-window"], "single slice is refused", 0),
        ([], "no such title", 1),
    ],
)
def test_the_command_for_slicer_runs_in_the_stand_in_and_tells_by_its_status(
    options, words, status
):
    command = [sys.executable, HOST / "run_host.py", "--testing", "--no-splash", *options]
    command += ["--additional-module-paths", "TomoSeg"]
    command += ["--python-script", "Testing/run_in_slicer.py", words]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == status, run.stdout + run.stderr
    assert ("1 scenarios passed, 0 failed, 0 left out" in run.stdout) == (status == 0)


CRASH = """
import os
from TomoSegPanel.scenarios.bench import Bench, workers
from TomoSegPanel.scenarios.objects import addBlobVolume
with Bench() as bench:
    bench.chooseVolume(addBlobVolume())
    bench.chooseModel()
    bench.startAndWaitForPreview(1.0)
    print("workers:", *(process.pid for process in workers()), flush=True)
    {end}
"""


@pytest.mark.parametrize(
    "end",
    ["os.kill(os.getpid(), 9)", "host.stop(); slicer.util.exit(0); os._exit(0)"],
    ids=["killed", "closed"],
)
def test_no_worker_outlives_the_application(end, tmp_path):
    script = tmp_path / "end.py"
    script.write_text(CRASH.format(end=end), encoding="utf-8")
    command = [sys.executable, HOST / "run_host.py", "--offscreen"]
    command += ["--additional-module-paths", "TomoSeg", "--python-script", script]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    (line,) = [each for each in run.stdout.splitlines() if each.startswith("workers:")]
    pids = [int(pid) for pid in line.split()[1:]]
    assert len(pids) >= 2, run.stdout + run.stderr
    assert host.wait_for(lambda: not any(isRunning(pid) for pid in pids), 2)
    assert "Traceback" not in run.stderr, run.stderr


def isRunning(pid):
    """Whether a process is there, and not only waiting to be buried."""
    import psutil

    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
