"""The extension as CMake builds and installs it, against stub macros of our own, run from there."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOST = ROOT / "Testing" / "Host"
MODULES = Path("lib") / "Slicer-5.13" / "qt-scripted-modules"

#: What a user does, in an application that has the module from the installed tree only.
RUN = """
import sys
from pathlib import Path
import numpy as np
import TomoSegLib
installed = Path({modules!r})
assert Path(slicer.modules.tomoseg.path).parent == installed, slicer.modules.tomoseg.path
assert Path(TomoSegLib.__file__).parent == installed / "TomoSegLib", TomoSegLib.__file__
voxels = np.zeros((20, 24, 28), np.int16)
noise = np.random.default_rng(3).integers(80, 120, voxels.shape)
voxels[2:-2, 2:-2, 2:-2] = noise[2:-2, 2:-2, 2:-2]
voxels[8:12, 9:14, 10:16] = 300
volume = slicer.util.addVolumeFromArray(voxels, name="blob")
widget = host.select("TomoSeg")
ui = widget.ui
ui.inputSelector.setCurrentNode(volume)
models = ui.modelListWidget
names = [models.item(row).data(qt.Qt.UserRole) for row in range(models.count)]
assert set(names) >= {models!r}, names
models.setCurrentItem(models.item(names.index("tiny-blob")))
ui.directionsCombo.setCurrentIndex(ui.directionsCombo.findData("orthogonal"))
# The run button is enabled until the probe has found that something is missing.
ready = host.wait_for(lambda: ui.probeButton.enabled and ui.runButton.enabled, 120)
assert ready, ui.runButton.toolTip
ui.runButton.click()
run = widget.panel.runs.queue.current
assert host.wait_for(lambda: run.state.isOver, 120), run.state
assert run.state.name == "FINISHED", run.report()
assert widget._parameterNode.heatmap is not None
ui.makeSegmentButton.click()
assert host.wait_for(lambda: ui.makeSegmentButton.enabled, 30)
segmentation = widget._parameterNode.segmentation.GetSegmentation()
assert segmentation.GetNumberOfSegments() == 1
assert host.errors == []
print("the installed module has made", segmentation.GetNthSegment(0).GetName())
"""


def cmake_program(name: str) -> str | None:
    """The path of ``cmake`` or ``ctest``: of the Python package where it is there."""
    if importlib.util.find_spec("cmake") is not None:
        import cmake

        found = shutil.which(name, path=cmake.CMAKE_BIN_DIR)
        if found:
            return found
    return shutil.which(name)


def configure(build: Path, source: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Configure the project."""
    # Nothing is compiled: any program will do for the compilers that project() asks for.
    compilers = [f"-DCMAKE_{language}_COMPILER={sys.executable}" for language in ("C", "CXX")]
    forced = [f"-DCMAKE_{language}_COMPILER_FORCED=TRUE" for language in ("C", "CXX")]
    return subprocess.run(
        [
            cmake_program("cmake"),
            *("-S", source, "-B", build, f"-DSlicer_DIR={HOST / 'cmake'}"),
            *("-DBUILD_TESTING=ON", f"-DSlicer_PYTHON_EXECUTABLE={sys.executable}"),
            *(*compilers, *forced),
        ],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build tree, with everything built."""
    if cmake_program("cmake") is None:
        pytest.skip("there is no cmake: pip install cmake")
    folder = tmp_path_factory.mktemp("build ä")
    configured = configure(folder)
    assert configured.returncode == 0, configured.stderr
    built = subprocess.run(
        [cmake_program("cmake"), "--build", folder], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


@pytest.fixture(scope="module")
def installed(build: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the installed module."""
    prefix = tmp_path_factory.mktemp("installed ä")
    command = [cmake_program("cmake"), "--install", build, "--prefix", prefix]
    subprocess.run(command, check=True, capture_output=True)
    return prefix / MODULES


def tree(folder: Path) -> dict[str, bytes]:
    """Path and contents of all files of a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.name != "CMakeLists.txt"
    }


def test_what_is_installed_is_the_sources_with_models_and_sample_and_nothing_else(
    installed: Path,
) -> None:
    expected = tree(ROOT / "TomoSeg")
    for folder in (
        "TomoSegLib",
        "Resources/Models",
        "Resources/Pretrained",
        "Resources/Samples",
    ):
        place = "TomoSegLib" if folder == "TomoSegLib" else f"TomoSegLib/{folder}"
        expected |= {f"{place}/{name}": data for name, data in tree(ROOT / folder).items()}
    found = tree(installed)
    assert set(found) == set(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def test_the_tests_of_the_module_are_registered_with_its_built_tree(build: Path) -> None:
    command = [cmake_program("ctest"), "--test-dir", build, "--show-only=json-v1"]
    shown = subprocess.run(command, check=True, capture_output=True, text=True)
    tests = {each["name"]: each["command"] for each in json.loads(shown.stdout)["tests"]}
    assert "py_TomoSeg" in tests
    command = tests["py_TomoSeg"]
    path = command[command.index("--additional-module-path") + 1]
    assert Path(path) == build / MODULES
    assert command[-1].endswith("'TomoSeg')")


def test_the_registered_tests_pass_in_the_stand_in(build: Path) -> None:
    pytest.importorskip("slicer", reason="the stand-in needs slicer-core")
    command = [cmake_program("ctest"), "--test-dir", build, "--verbose"]
    # One scenario: test_panel_scenarios.py runs them all.
    environment = os.environ | {"TOMOSEG_SCENARIOS": "becomes a segment"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "100% tests passed" in run.stdout
    assert "1 scenarios passed, 0 failed, 0 left out" in run.stdout
    assert "No tests were found" not in run.stdout + run.stderr


def test_the_installed_module_finds_its_models_and_runs_one(
    installed: Path, tmp_path: Path
) -> None:
    pytest.importorskip("slicer", reason="the stand-in needs slicer-core")
    models = {path.name for path in (ROOT / "Resources" / "Models").iterdir() if path.is_dir()}
    script = tmp_path / "run.py"
    code = textwrap.dedent(RUN).format(modules=str(installed), models=models)
    script.write_text(code, encoding="utf-8")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    host = [sys.executable, HOST / "run_host.py", "--offscreen"]
    run = subprocess.run(
        [*host, "--additional-module-path", installed, "--script", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "the installed module has made" in run.stdout


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("TomoSeg/CMakeLists.txt", "  TomoSeg.py\n", "  TomoSeg.py\n  gone.py\n", "'gone.py'"),
        ("TomoSeg/CMakeLists.txt", "WITH_GENERIC_TESTS", "WITH_TESTS", "no file 'WITH_TESTS'"),
        ("CMakeLists.txt", 'set(EXTENSION_CATEGORY "Segmentation")', "", "EXTENSION_CATEGORY"),
        ("TomoSegLib/CMakeLists.txt", "INSTALL_DIR", "INSTALL_TO", "INSTALL_TO"),
    ],
)
def test_the_stub_macros_refuse_what_slicer_would(
    tmp_path: Path, file: str, old: str, new: str, message: str
) -> None:
    if cmake_program("cmake") is None:
        pytest.skip("there is no cmake: pip install cmake")
    source = tmp_path / "source"
    source.mkdir()
    (source / "CMakeLists.txt").write_bytes((ROOT / "CMakeLists.txt").read_bytes())
    for half in ("TomoSeg", "TomoSegLib"):
        shutil.copytree(ROOT / half, source / half, ignore=shutil.ignore_patterns("__pycache__"))
    text = (source / file).read_text(encoding="utf-8")
    assert old in text
    (source / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    refused = configure(tmp_path / "build", source)
    assert refused.returncode != 0
    assert message in " ".join(refused.stderr.split())
