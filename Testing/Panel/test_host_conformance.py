"""The host gives what Slicer gave in every measured case, and its runner can tell otherwise."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
sys.path.insert(0, str(HOST))

from tomoseg_host import conformance, environment  # noqa: E402

MEASURED = HOST / "cases" / "measured.json"
SETUP = "import qt\nl = qt.QLabel('x'); s = qt.QSpinBox()"


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    """Start the host; errors in handlers are part of some cases, not of the report."""
    application = environment.start("oracle")
    monkeypatch.setattr(sys, "excepthook", lambda *_: None)
    application.setApplicationName("oracle")


@pytest.mark.parametrize("faithful", [False, True])
def test_every_measured_case_passes(faithful):
    groups = json.loads(MEASURED.read_text(encoding="utf-8"))
    count = sum(len(group["cases"]) for group in groups)
    assert count > 400
    # In a process of its own: some cases ask for the state of a fresh application.
    command = [sys.executable, str(HOST / "conformance.py"), *["--faithful"] * faithful]
    run = subprocess.run([*command, str(MEASURED)], capture_output=True, text=True, timeout=600)
    assert run.stdout.splitlines() == [f"{count} passed, 0 failed"]
    assert run.returncode == 0


@pytest.mark.parametrize(
    "case",
    [
        {"get": "l.text", "type": "str", "value": "y"},
        {"get": "l.text", "type": "int"},
        {"get": "l.text", "raises": "TypeError"},
        {"get": "l.text()", "raises": "ValueError"},
        {"get": "l.text()", "type": "str"},
        {"get": "s.value", "type": "bool", "value": False},
        {"get": "s.value", "type": "int", "value": False},
        {"get": "l.text", "callable": True},
        {"do": "l.nonsense = 1", "ok": True},
        {"do": "s.value = 'x'", "ok": True},
        {"get": "s.setValue(5)", "raises": "ValueError"},
    ],
)
def test_the_runner_reports_a_case_that_differs(case):
    assert not conformance.run_case(SETUP, case).passed


def test_refusing_a_silent_conversion_passes_but_accepting_a_refusal_does_not():
    refused = conformance.run_case(SETUP, {"do": "l.text = None", "ok": True})
    assert refused.passed and refused.refused
    assert not conformance.run_case(SETUP, {"do": "l.text = None", "raises": "ValueError"}).passed


def test_the_command_prints_failures_and_counts(tmp_path, capsys):
    cases = tmp_path / "cases.json"
    cases.write_text(
        json.dumps(
            [
                {
                    "setup": SETUP,
                    "cases": [
                        {"get": "l.text", "type": "str", "value": "x"},
                        {"get": "l.text", "type": "str", "value": "wrong"},
                    ],
                }
            ]
        )
    )
    assert conformance.main(["conformance.py", str(cases)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "1 passed, 1 failed"
    assert lines[0].startswith("FAILED 'l.text'")
