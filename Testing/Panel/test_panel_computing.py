"""The section Computing: what is there, what is missing, and how it is installed."""

import html
import os
import re
import sys
import types
from pathlib import Path

import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import slicer  # noqa: E402
import slicer.packaging  # noqa: E402
from PySide6.QtCore import QPoint, Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel import dependencies, worker  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench  # noqa: E402
from TomoSegPanel.scenarios.objects import addBlobVolume  # noqa: E402

from TomoSegLib.jobs.events import ErrorEvent  # noqa: E402

PACKAGES = {r.partition(">=")[0]: r.partition(">=")[2] for r in dependencies.REQUIREMENTS}
GOOD = {
    "packages": {"torch": "2.8.0+cu128", **PACKAGES},
    "torch": {"version": "2.8.0+cu128", "cuda": "12.8"},
    "devices": [
        {"name": "cuda:0", "title": "GPU", "works": True, "memory_mb": 8192, "available_mb": 4096},
        {"name": "cpu", "title": "x", "works": True},
    ],
    "cpu": {"cores": 8, "memory_mb": 16384, "available_mb": 8192},
}
MISSING = """
import importlib.metadata, sys
missing, real = {missing!r}, importlib.metadata.version
def version(name):
    if name in missing:
        raise importlib.metadata.PackageNotFoundError(name)
    return real(name)
importlib.metadata.version = version
for name in missing:
    sys.modules[name] = None
"""


class FakeProbe:
    """A probe that finds everything, as soon as it is told to (`later`)."""

    def __init__(self, onAnswer):
        self.later = lambda: onAnswer(GOOD)

    def start(self):
        pass

    def abandon(self):
        pass


@pytest.fixture
def real_bench():
    """The panel with its real probe."""
    with Bench() as bench:
        computing = bench.widget.panel.computing
        before = computing.answer
        yield bench
        bench.until(lambda: bench.ui.probeButton.enabled, "the probe has answered", 60)
        computing._failure = ""
        computing._onAnswer(before)


@pytest.fixture
def bench(real_bench):
    """The panel with a probe that is made up, `FakeProbe`."""
    computing = real_bench.widget.panel.computing
    real = computing._probe
    computing._probe = real_bench.fakeProbe = FakeProbe(computing._onAnswer)
    yield real_bench
    real_bench.fakeProbe.later()
    computing._probe = real


def answer(bench, **changes):
    """Let the probe have answered."""
    bench.widget.panel.computing._onAnswer(GOOD | changes)


def shown(bench):
    """What the section says."""
    return html.unescape(bench.ui.deviceNote.text)


def click(widget):
    """Click on a button."""
    QTest.mouseClick(widget._peer_, Qt.MouseButton.LeftButton, pos=QPoint(9, 9))


def lacking(monkeypatch, tmp_path, *names):
    """Let workers run in a Python in which some packages are not installed."""
    source = MISSING.format(missing=list(names))
    (tmp_path / "sitecustomize.py").write_text(source, encoding="utf-8")
    real = worker.worker_command

    def command(*arguments):
        program, environment = real(*arguments)
        paths = os.pathsep.join([str(tmp_path), environment["PYTHONPATH"]])
        return program, {**environment, "PYTHONPATH": paths}

    monkeypatch.setattr(worker, "worker_command", command)


@pytest.fixture
def utilities(monkeypatch):
    """A stand-in for the PyTorch extension's module; notes what it is asked for."""
    asked = []

    class PyTorchUtilsLogic:
        def uninstallTorch(self):
            asked.append("uninstall")

        def installTorch(self, torchVersionRequirement):
            asked.append(f"torch{torchVersionRequirement}")
            return object()

    module = types.ModuleType("PyTorchUtils")
    module.PyTorchUtilsLogic = PyTorchUtilsLogic
    monkeypatch.setitem(sys.modules, "PyTorchUtils", module)

    def ensure(requirements, **options):
        assert options["prompt_install"] is False
        assert Path(options["constraints"]).is_file()
        asked.extend(requirements)

    monkeypatch.setattr(slicer.packaging, "pip_ensure", ensure)
    return asked


@pytest.fixture
def consents(monkeypatch):
    """What the user was asked; says yes."""
    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmOkCancelDisplay", lambda text, **_: asked.append(text) or True
    )
    return asked


def test_what_is_there_is_shown_with_its_memory_and_can_be_chosen(bench):
    answer(bench)
    assert "PyTorch 2.8.0+cu128, CUDA 12.8" in shown(bench)
    assert "cuda:0: GPU, 4.0 of 8.0 GB free" in shown(bench)
    assert "8 processor cores, 8.0 of 16.0 GB memory free" in shown(bench)
    bench.chooseItem(bench.ui.deviceCombo, "cuda:0")
    assert bench.parameters.device == "cuda:0"
    assert not bench.ui.installButton.isVisible()


def test_a_device_that_does_not_work_says_why_and_cannot_be_chosen(bench):
    broken = {"name": "cuda:0", "title": "Old", "works": False, "error": "no kernel image"}
    answer(bench, devices=[broken, GOOD["devices"][1]])
    assert "no kernel image" in bench.ui.deviceNote.text
    assert bench.ui.deviceCombo.findData("cuda:0") == -1


def test_a_device_of_another_machine_is_said_to_be_missing_before_the_run(bench):
    bench.chooseVolume(addBlobVolume())
    bench.chooseModel()
    answer(bench)
    bench.parameters.device = "cuda:7"
    assert "not found here" in bench.ui.deviceCombo.currentText
    assert not bench.ui.runButton.enabled and "cuda:7" in bench.ui.runButton.toolTip
    bench.chooseItem(bench.ui.deviceCombo, "auto")
    assert bench.ui.runButton.enabled


def test_a_missing_pytorch_is_installed_after_one_question_and_looked_for_again(
    bench, utilities, consents
):
    answer(bench, torch={"error": "ModuleNotFoundError: no torch"}, devices=[], packages=PACKAGES)
    assert "PyTorch is not installed" in bench.ui.deviceNote.text
    assert not bench.ui.computingSection.collapsed
    assert bench.ui.installButton.isVisible()
    bench.processEvents()
    click(bench.ui.installButton)
    assert len(consents) == 1 and "torch >=2.4" in consents[0]
    assert utilities == ["torch>=2.4"]
    assert not bench.ui.probeButton.enabled  # it is being looked for
    bench.fakeProbe.later()
    assert bench.ui.probeButton.enabled and not bench.ui.installButton.isVisible()


@pytest.mark.parametrize(
    "torch", [{"error": "OSError: libcudart.so <1>"}, {"version": "2.1.0", "cuda": None}]
)
def test_a_broken_or_old_pytorch_is_removed_before_another_is_installed(
    bench, utilities, consents, torch
):
    answer(bench, torch=torch)
    if "error" in torch:
        assert "libcudart.so &lt;1&gt;" in bench.ui.deviceNote.text
    else:
        assert "2.1.0 is too old" in bench.ui.deviceNote.text
    click(bench.ui.installButton)
    assert utilities == ["uninstall", "torch>=2.4"]
    assert "removed first" in consents[0]


def test_only_what_is_missing_or_too_old_is_installed(bench, utilities, consents):
    answer(bench, packages=GOOD["packages"] | {"monai": None, "pydantic": "1.10.2"})
    assert "monai>=1.4, pydantic>=2.7" in shown(bench)
    click(bench.ui.installButton)
    assert utilities == ["monai>=1.4", "pydantic>=2.7"]


def test_nothing_is_installed_without_consent(bench, utilities, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", lambda text, **_: False)
    answer(bench, packages=GOOD["packages"] | {"monai": None})
    click(bench.ui.installButton)
    assert utilities == []
    assert bench.ui.probeButton.enabled and bench.ui.installButton.enabled


def test_without_the_pytorch_extension_nobody_is_asked_and_it_says_what_to_do(bench, consents):
    answer(bench, torch={"error": "no torch"}, devices=[])
    click(bench.ui.installButton)
    assert consents == []
    assert "Extensions Manager" in bench.messages[-1]
    bench.fakeProbe.later()
    assert "Extensions Manager" in bench.ui.deviceNote.text


def test_an_installation_that_fails_says_why_and_stays_to_be_read(
    bench, utilities, consents, monkeypatch
):
    def fail(requirements, **options):
        raise RuntimeError("no <route> to host")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", fail)
    answer(bench, packages=GOOD["packages"] | {"monai": None})
    click(bench.ui.installButton)
    assert "no <route> to host" in bench.messages[-1] and "proxy" in bench.messages[-1]
    bench.fakeProbe.later()
    assert "no &lt;route&gt; to host" in bench.ui.deviceNote.text


@pytest.mark.parametrize("name", ["psutil", "nibabel", "torch"])
def test_a_package_that_is_really_missing_is_found_by_the_probe(
    real_bench, monkeypatch, tmp_path, name
):
    lacking(monkeypatch, tmp_path, name)
    real_bench.probe()
    words = {
        "torch": "PyTorch is not installed",
        "nibabel": "nibabel>=",
        "psutil": "The Python package 'psutil' is not installed",  # the worker needs it itself
    }
    assert words[name] in shown(real_bench)
    assert real_bench.ui.installButton.isVisible()


def test_a_package_that_the_probe_itself_needs_can_be_installed_too(
    real_bench, monkeypatch, tmp_path, utilities, consents
):
    lacking(monkeypatch, tmp_path, "pydantic")
    found = real_bench.probe()
    assert isinstance(found, ErrorEvent) and "pydantic" in real_bench.ui.deviceNote.text
    real_bench.chooseVolume(addBlobVolume())
    real_bench.chooseModel()
    assert not real_bench.ui.runButton.enabled and "Computing" in real_bench.ui.runButton.toolTip
    monkeypatch.setattr(
        dependencies.importlib.metadata,
        "version",
        lambda package: "1.0" if package == "pydantic" else "99",
    )
    click(real_bench.ui.installButton)
    assert utilities == ["pydantic>=2.7"]


def test_slicers_before_packaging_get_the_same_through_pip_install(
    monkeypatch, utilities, consents
):
    asked = []
    monkeypatch.setitem(sys.modules, "slicer.packaging", None)
    monkeypatch.setattr(slicer.util, "pip_install", asked.append)
    assert dependencies.install(GOOD | {"packages": PACKAGES | {"monai": None}})
    (arguments,) = asked
    assert arguments[0] == "--constraint" and Path(arguments[1]).is_file()
    assert arguments[2:] == ["monai>=1.4"]


def test_the_requirements_are_the_engine_s_and_the_constraints_what_was_tested():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    engine = set(project["dependencies"])
    assert set(dependencies.REQUIREMENTS) <= engine
    assert f"torch{dependencies.TORCH}" in engine
    not_in_slicer = {r.partition(">=")[0] for r in engine - set(dependencies.REQUIREMENTS)}
    # Slicer brings NumPy; the others are for the command line and for training.
    assert not_in_slicer == {"torch", "numpy", "rich", "typer", "tensorboardX"}
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    ours = (ROOT / "TomoSeg/Resources/constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in ours if not line.startswith("#")]
    assert pins
    for pin in pins:
        assert any(line.split(";")[0] == pin for line in tested), pin
        assert re.split("==", pin)[0] in PACKAGES


def test_the_probe_looks_for_everything_that_is_required():
    from TomoSegLib.jobs.probe import package_versions

    assert set(PACKAGES) <= set(package_versions())
