"""The sample that ships, and the demo that runs on it."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.volume import hash_volume
from TomoSegLib.jobs.result import read_result

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "Resources" / "Samples"
RECORD = json.loads((SAMPLES / "simulated-flair.json").read_text(encoding="utf-8"))


HAS_STAND_IN = all(importlib.util.find_spec(name) for name in ("slicer", "PySide6"))


@pytest.fixture
def demo() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("demo", ROOT / "Testing" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "Testing" / "demo.py", *arguments], capture_output=True, text=True
    )


@pytest.mark.parametrize("name", ["simulated-flair.nii.gz", "simulated-flair-mask.nii.gz"])
def test_the_sample_is_what_its_record_says(name: str) -> None:
    expected = RECORD["files"][name]
    assert hashlib.sha256((SAMPLES / name).read_bytes()).hexdigest() == expected["sha256"]
    assert hash_volume(read_volume(SAMPLES / name)) == expected["voxels_and_grid_sha256"]


def test_the_sample_is_a_scan_with_one_lesion_of_known_place() -> None:
    scan = read_volume(SAMPLES / "simulated-flair.nii.gz")
    mask = read_volume(SAMPLES / "simulated-flair-mask.nii.gz")
    assert np.allclose(scan.geometry.affine, mask.geometry.affine)
    assert scan.array.shape == mask.array.shape
    assert set(np.unique(mask.array)) == {0, 1}
    volume_ml = mask.array.sum() * mask.geometry.voxel_volume_ml
    assert volume_ml == pytest.approx(RECORD["parameters"]["lesion_ml"], abs=0.01)
    assert 20 <= volume_ml <= 40
    inside, outside = scan.array[mask.array == 1], scan.array[(mask.array == 0) & (scan.array > 0)]
    assert np.median(inside) > np.median(outside)  # a lesion of FLAIR is bright


def test_the_sample_says_that_it_is_simulated_and_whose_anatomy_it_shows() -> None:
    assert RECORD["simulated"] is True
    assert "simulated" in (SAMPLES / "README.md").read_text(encoding="utf-8")
    notice = (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert "Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre" in notice


def test_the_sample_is_in_no_simulated_data_set() -> None:
    # `tomoseg simulate lesions` numbers its volumes seed * 10^7 + split * 10^6 + number.
    assert 3_000_000 <= RECORD["parameters"]["seed"] % 10_000_000


def test_the_demo_runs_twice_and_says_where_everything_is(tmp_path: Path) -> None:
    output = tmp_path / "demo folder"
    (tmp_path / "demo folder").mkdir()
    (output / "notes.txt").write_text("mine", encoding="utf-8")
    arguments = ("--model", "tiny-blob", "--directions", "orthogonal", "--output", str(output))
    first = run_demo(*arguments, "--no-panel")
    assert first.returncode == 0, first.stderr
    before = read_result(output)
    again = run_demo(*arguments)
    assert again.returncode == 0, again.stderr
    assert read_result(output).files == before.files  # the same bytes
    assert (output / "notes.txt").read_text(encoding="utf-8") == "mine"

    names = "overlay.png truth.png heatmap.nrrd agreement.nrrd mask.seg.nrrd mask.nii.gz"
    for name in (*names.split(), "result.json"):
        assert (output / name).is_file()
        assert name in again.stdout
    assert str(output) in again.stdout
    dice = re.search(r"Dice of the two (\d\.\d\d)", again.stdout)
    assert dice is not None and 0 <= float(dice[1]) <= 1
    assert "simulated" in again.stdout.lower()
    if not HAS_STAND_IN:
        assert "left out: they are not installed" in again.stdout
        return
    pictures = {path.name for path in (output / "panel").iterdir()}
    windows = {f"window-{when}.png" for when in ("before", "result", "segment")}
    assert windows | {"panel.png"} <= pictures
    assert len([name for name in pictures if name.startswith("section-")]) >= 7
    assert zipfile.is_zipfile(output / "scene.mrb")
    # Both ways to the mask give the same one.
    (volume,) = re.findall(r"mask (\d+\.\d) mL", again.stdout)
    (segment,) = re.findall(r"segment .*?: ([\d.]+) ml", again.stdout)
    assert float(segment) == pytest.approx(float(volume), abs=0.1)


def test_the_demo_ends_well_where_the_stand_in_cannot_start(
    demo: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # As on a server without OpenGL: the package is there and cannot be imported.
    (tmp_path / "PySide6").mkdir()
    broken = "raise ImportError('libEGL.so.1: cannot open shared object file')"
    (tmp_path / "PySide6" / "__init__.py").write_text(broken, encoding="utf-8")
    (tmp_path / "slicer.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = argparse.Namespace(model="tiny-blob", directions=None)
    assert demo.run_panel(options, tmp_path / "demo") == 0
    said = capsys.readouterr().out
    assert "was left out: ImportError: libEGL.so.1" in said
    assert "apt install" in said
    assert not (tmp_path / "demo").exists()


def test_the_demo_fails_plainly_without_its_model(tmp_path: Path) -> None:
    failed = run_demo("--model", "no-such-model", "--output", str(tmp_path / "demo"))
    assert failed.returncode == 2
    assert "[model-unknown]" in failed.stderr
    assert not (tmp_path / "demo").exists()
