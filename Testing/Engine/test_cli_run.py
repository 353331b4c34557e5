"""The command line, through real processes: what it writes, and how it refuses."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.segmentation import read_segmentation
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.events import Event, PreviewEvent, ProgressEvent, ResultEvent
from TomoSegLib.jobs.result import RunResult, read_result
from TomoSegLib.models.folder import save_model
from TomoSegLib.models.tiny_blob import card_fields

OUTPUTS = {"heatmap.nrrd", "agreement.nrrd", "mask.seg.nrrd", "mask.nii.gz", "overlay.png"}
FEW = ("--directions", "icosahedral:1")

OBLIQUE = Geometry.from_parts(
    (26, 30, 34),
    (2.0, 2.2, 2.5),
    [[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]],
    (-31.5, 12.25, 40.0),
)


def scan(geometry: Geometry) -> Volume:
    """A noisy ball with a bright blob, which the test model finds."""
    noise = np.random.default_rng(7).normal(0, 5, geometry.shape)
    k, j, i = np.indices(geometry.shape)
    points = geometry.index_to_lps(np.stack([i, j, k], axis=-1)) - geometry.center
    array = np.where(np.linalg.norm(points, axis=-1) < 26, 100 + noise, 0)
    array[np.linalg.norm(points - [6, -5, 4], axis=-1) < 8] += 100
    return Volume(array.astype(np.int16), geometry, "scan")


def tomoseg(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **options.pop("env", {})}
    return subprocess.run(
        [sys.executable, "-m", "TomoSegLib.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        **options,
    )


def assert_refused(done: subprocess.CompletedProcess[str], code: str) -> str:
    """One line on stderr with that code, exit status 2, nothing on stdout."""
    lines = done.stderr.splitlines()
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"tomoseg: error [{code}]: "), lines[0]
    assert done.stdout == ""
    return lines[0]


def hashes(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.iterdir())
        if path.name != "result.json"
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name is an annoyance, with a scan in it."""
    folder = tmp_path_factory.mktemp("Bilder äöü 图像 ") / "mit Leerzeichen"
    folder.mkdir()
    write_volume(scan(OBLIQUE), folder / "scan é.nii.gz")
    return folder


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    """The output folder of one run."""
    output = place / "a result"
    done = tomoseg("run", place / "scan é.nii.gz", "--model", "tiny-blob", *FEW, "--output", output)
    assert done.returncode == 0, done.stderr
    assert str(output) in done.stdout
    return output


@pytest.fixture(scope="module")
def result(finished: Path) -> RunResult:
    return read_result(finished)


def test_a_run_writes_its_outputs_on_the_scans_own_grid(finished: Path, place: Path) -> None:
    assert {path.name for path in finished.iterdir()} == OUTPUTS | {"result.json"}
    assert {path.name for path in place.iterdir()} == {"scan é.nii.gz", finished.name}
    for name in ("heatmap.nrrd", "agreement.nrrd", "mask.nii.gz"):
        assert read_volume(finished / name).geometry.is_close(OBLIQUE), name
    mask, labels = read_segmentation(finished / "mask.seg.nrrd")
    assert mask.geometry.is_close(OBLIQUE)
    assert [label.name for label in labels] == ["bright blob"]
    assert np.array_equal(mask.array, read_volume(finished / "mask.nii.gz").array)
    assert read_volume(finished / "heatmap.nrrd").array.dtype == np.float32
    assert mask.array.dtype == np.uint8


def test_the_blob_is_found_where_it_is(finished: Path, result: RunResult) -> None:
    truth = OBLIQUE.center + [6, -5, 4]
    assert np.linalg.norm(np.array(result.heatmap.peaks[0].lps_mm) - truth) < 6
    mask = read_volume(finished / "mask.nii.gz").array
    indices = np.argwhere(mask)[:, ::-1]
    assert np.linalg.norm(OBLIQUE.index_to_lps(indices).mean(axis=0) - truth) < 4
    assert 1 < result.mask.volume_ml < 5  # the ball has 2.1 mL
    assert result.mask.voxels == np.count_nonzero(mask)


def test_the_record_says_what_was_done(result: RunResult, finished: Path) -> None:
    assert result.job.method == "tonno" and result.job.filter_order == 2.0
    assert list(result.inputs) == ["image"]
    assert len(result.directions.vectors) == len(result.directions.weights) == 6
    assert result.model.simulated
    assert result.environment.device == "cpu"
    assert result.files == hashes(finished)
    assert {"read", "prepare", "heatmap", "write"} <= set(result.timings_s)
    peak = result.heatmap.peaks[0]
    assert np.allclose(OBLIQUE.index_to_lps(peak.ijk), peak.lps_mm, atol=1e-3)
    heatmap = read_volume(finished / "heatmap.nrrd").array
    assert heatmap[peak.ijk[::-1]] == pytest.approx(peak.value) == pytest.approx(heatmap.max())


def test_the_worker_gives_the_same_bytes_with_previews_or_without(
    finished: Path, place: Path, tmp_path: Path
) -> None:
    events: list[Event] = []
    document = {
        "kind": "run",
        "channels": {"image": str(place / "scan é.nii.gz")},
        "model": "tiny-blob",
        "directions": "icosahedral:1",
        "output": str(tmp_path / "out"),
        "previews": str(tmp_path / "previews"),
        "threads": 1,
    }
    outcome = run_job(document, events.append)
    assert isinstance(outcome, ResultEvent), outcome
    assert hashes(tmp_path / "out") == hashes(finished)
    previews = [event for event in events if isinstance(event, PreviewEvent)]
    assert [preview.directions for preview in previews] == [4]
    assert read_volume(previews[0].path).geometry.is_close(OBLIQUE)
    stages = [event.stage for event in events if isinstance(event, ProgressEvent)]
    assert list(dict.fromkeys(stages)) == [
        "read", "prepare", "load-model", "heatmap", "mask", "write",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "previews"]


def test_a_run_can_be_repeated_exactly(finished: Path, tmp_path: Path) -> None:
    done = tomoseg("rerun", finished / "result.json", "--output", tmp_path / "again")
    assert done.returncode == 0, done.stderr
    assert "identical: all 5 files" in done.stdout
    assert hashes(tmp_path / "again") == hashes(finished)


def test_a_repetition_that_differs_is_told(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    from TomoSegLib.cli import commands

    def run_differently(document: dict[str, Any]) -> int:
        output = Path(document["output"])
        shutil.copytree(finished, output)
        record = json.loads((finished / "result.json").read_text(encoding="utf-8"))
        record["files"]["mask.nii.gz"] = "0" * 64
        record["environment"]["threads"] += 1
        (output / "result.json").write_text(json.dumps(record), encoding="utf-8")
        return 0

    monkeypatch.setattr(commands, "run", run_differently)
    assert commands.rerun(finished, tmp_path / "again", None, False) == 3
    told = capsys.readouterr().out
    assert "DIFFERENT" in told and ": mask.nii.gz" in told and "threads: then 1, now 2" in told


def test_a_repetition_with_another_input_or_model_is_refused(
    finished: Path, tmp_path: Path
) -> None:
    record = json.loads((finished / "result.json").read_text(encoding="utf-8"))
    other = tmp_path / "other.nii.gz"
    write_volume(scan(Geometry.from_parts((26, 30, 34), (2, 2, 2))), other)
    record["job"]["channels"]["image"] = str(other)
    (tmp_path / "result.json").write_text(json.dumps(record), encoding="utf-8")
    assert_refused(tomoseg("rerun", tmp_path, "--output", tmp_path / "again"), "input-changed")
    record["model"]["hash"] = "0" * 64
    (tmp_path / "result.json").write_text(json.dumps(record), encoding="utf-8")
    assert_refused(tomoseg("rerun", tmp_path, "--output", tmp_path / "again"), "model-changed")
    assert not (tmp_path / "again").exists()


def test_a_region_of_interest_has_the_values_of_the_whole(
    finished: Path, place: Path, tmp_path: Path
) -> None:
    done = tomoseg(
        "run", place / "scan é.nii.gz", "--model", "tiny-blob", *FEW, "--output", tmp_path / "out",
        "--roi", "8:26,6:22,5:20", "--previews", tmp_path / "previews",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = read_volume(finished / "heatmap.nrrd").array
    part = read_volume(tmp_path / "out" / "heatmap.nrrd")
    box = np.s_[5:20, 6:22, 8:26]
    assert part.geometry.is_close(OBLIQUE)
    assert np.allclose(part.array[box], whole[box], atol=1e-5 * np.abs(whole).max())
    outside = np.ones(whole.shape, bool)
    outside[box] = False
    assert not part.array[outside].any()
    assert part.array[box].any()
    preview = read_volume(tmp_path / "previews" / "preview-0004.nrrd")
    assert preview.geometry.is_close(OBLIQUE)
    assert not preview.array[outside].any() and preview.array[box].any()


def test_results_are_replaced_only_if_it_is_said(finished: Path, place: Path) -> None:
    before = hashes(finished)
    arguments = ("run", place / "scan é.nii.gz", "--model", "tiny-blob", "--output", finished)
    assert_refused(tomoseg(*arguments, *FEW), "output-exists")
    assert hashes(finished) == before
    copy = finished.with_name("copy")
    shutil.copytree(finished, copy)
    (copy / "notes.txt").write_text("mine")
    try:
        arguments = (*arguments[:-1], copy, "--directions", "axial", "--overwrite")
        done = tomoseg(*arguments)
        assert done.returncode == 0, done.stderr
        assert hashes(copy)["heatmap.nrrd"] != before["heatmap.nrrd"]
        assert {path.name for path in copy.iterdir()} == OUTPUTS | {"result.json", "notes.txt"}
    finally:
        shutil.rmtree(copy)


# What can be wrong with an input file, by the code of the error: a function that writes it.
def _array(array: Any, **header: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        image = sitk.GetImageFromArray(np.asarray(array), isVector=header.pop("vector", False))
        if "spacing" in header:
            image.SetSpacing(header["spacing"])
        sitk.WriteImage(image, str(folder / "in.nrrd"))
        return folder / "in.nrrd"

    return write


def _text(folder: Path) -> Path:
    (folder / "notes.txt").write_text("Dear diary")
    return folder / "notes.txt"


def _fake(folder: Path) -> Path:
    (folder / "in.nii.gz").write_text("This is no NIfTI file")
    return folder / "in.nii.gz"


def _truncated(folder: Path) -> Path:
    write_volume(scan(OBLIQUE), folder / "in.nrrd")
    content = (folder / "in.nrrd").read_bytes()
    (folder / "in.nrrd").write_bytes(content[: len(content) // 2])
    return folder / "in.nrrd"


def _singular(folder: Path) -> Path:
    header = (
        "NRRD0004\ntype: uchar\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 4 4\n"
        "space directions: (1,0,0) (0,1,0) (1,1,0)\nspace origin: (0,0,0)\nencoding: raw\n\n"
    )
    (folder / "in.nrrd").write_bytes(header.encode() + bytes(range(64)))
    return folder / "in.nrrd"


def _nan(folder: Path) -> Path:
    array = scan(OBLIQUE).array.astype(np.float32)
    array[3, 4, 5] = np.nan
    return _array(array)(folder)


BAD_INPUTS: dict[str, tuple[str, Callable[[Path], Path]]] = {
    "not there": ("volume-not-found", lambda folder: folder / "nowhere.nii.gz"),
    "no volume": ("volume-format", _text),
    "not what its name says": ("volume-unreadable", _fake),
    "truncated": ("volume-truncated", _truncated),
    "2D": ("volume-not-3d", _array(np.eye(20, dtype=np.int16))),
    "4D": ("volume-not-3d", _array(np.ones((3, 8, 8, 8), np.int16))),
    "RGB": ("volume-not-3d", _array(np.ones((8, 8, 8, 3), np.uint8), vector=True)),
    "NaN": ("volume-not-finite", _nan),
    "constant": ("volume-constant", _array(np.ones((8, 8, 8), np.int16))),
    "absurd spacing": (
        "volume-spacing",
        _array(np.arange(512, dtype=np.int16).reshape(8, 8, 8), spacing=(1.0, 1.0, 5000.0)),
    ),
    "singular direction": ("geometry-singular", _singular),
    "folder without DICOM": ("dicom-no-images", lambda folder: folder),
}


@pytest.mark.parametrize("what", list(BAD_INPUTS))
def test_bad_input_gets_one_line_and_nothing_is_written(what: str, tmp_path: Path) -> None:
    code, write = BAD_INPUTS[what]
    path = write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = tomoseg("run", path, "--model", "tiny-blob", "--output", tmp_path / "new" / "out")
    assert_refused(done, code)
    assert sorted(tmp_path.rglob("*")) == before


BAD_OPTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "an unknown model": ("model-unknown", ("--model", "flair-lesoin")),
    "a device that is not there": ("device-unavailable", ("--device", "cuda:99")),
    "a device of another kind": ("job-invalid", ("--device", "gpu")),
    "an order out of range": ("job-invalid", ("--filter-order", "3")),
    "an order that is no number": ("usage", ("--filter-order", "two")),
    "an unknown method": ("job-invalid", ("--method", "magic")),
    "an unknown threshold": ("job-invalid", ("--threshold", "ostu")),
    "unknown directions": ("directions-invalid", ("--directions", "fibonacci:0")),
    "a region outside": ("region-outside", ("--roi", "0:5,0:5,0:500")),
    "a region that is none": ("usage", ("--roi", "everything")),
    "a channel that is none": ("usage", ("--channel", "t1")),
    "an unknown channel": ("channel-unknown", ("--channel", "t1=x.nii")),
    "a channel given twice": ("channel-twice", ("--channel", "image=x.nii")),
    "a foreground that is not there": ("volume-not-found", ("--foreground", "nowhere.nii")),
    "an unknown option": ("usage", ("--metod", "tonno")),
}


@pytest.mark.parametrize("what", list(BAD_OPTIONS))
def test_a_bad_option_gets_one_line_and_nothing_is_written(
    what: str, place: Path, tmp_path: Path
) -> None:
    code, options = BAD_OPTIONS[what]
    done = tomoseg(
        "run", place / "scan é.nii.gz", "--model", "tiny-blob", "--output", tmp_path / "out",
        *options,
    )  # fmt: skip
    assert_refused(done, code)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name != "posix", reason="no such names on Windows")
def test_a_files_name_cannot_break_the_one_line_or_write_to_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines \x1b[31m.nii"
    path.write_bytes(b"no volume")
    done = tomoseg("run", path, "--model", "tiny-blob", "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "two lines [31m.nii" in done.stderr
    assert done.stderr.count("\n") == 1 and "\x1b" not in done.stderr


@pytest.mark.skipif(os.name != "posix", reason="no such names on Windows")
@pytest.mark.parametrize("model", ["tiny-blob", "x" * 300])
@pytest.mark.parametrize("name", ["x" * 300, "~nobody-of-this-name/scan.nii"])
def test_paths_that_are_none_get_one_line(name: str, model: str, tmp_path: Path) -> None:
    done = tomoseg("run", name, "--model", model, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert "[path-invalid]" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_the_hint_for_a_misspelt_model_names_the_one_that_was_meant(
    place: Path, tmp_path: Path
) -> None:
    done = tomoseg(
        "run", place / "scan é.nii.gz", "--model", "tiny-blop", "--output", tmp_path / "out"
    )
    assert "tiny-blob" in assert_refused(done, "model-unknown")


def test_an_output_that_is_a_file_is_refused(place: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    done = tomoseg(
        "run", place / "scan é.nii.gz", "--model", "tiny-blob", "--output", tmp_path / "out"
    )
    assert_refused(done, "output-unwritable")
    assert (tmp_path / "out").read_text() == "a file"


@pytest.mark.skipif(os.name != "posix", reason="limits on file sizes are POSIX's")
def test_a_file_that_cannot_be_written_to_its_end_leaves_nothing(
    place: Path, tmp_path: Path
) -> None:
    import resource

    # A limit on the size of files stops a write in the middle, without a disk to be filled.
    limit = 20_000
    done = tomoseg(
        "run", place / "scan é.nii.gz", "--model", "tiny-blob", "--directions", "axial",
        "--output", tmp_path / "out",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert_refused(done, "output-unwritable")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_nothing_is_left(place: Path, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a tiny disk cannot be mounted here (needs root)")
    try:
        done = tomoseg(
            "run", place / "scan é.nii.gz", "--model", "tiny-blob", "--directions", "axial",
            "--output", disk / "out",
        )  # fmt: skip
        assert_refused(done, "output-no-space")
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def make_model(folder: Path, **changes: Any) -> Path:
    import torch

    from TomoSegLib.models.card import Network
    from TomoSegLib.models.loading import build_network

    fields = {**card_fields(), "name": "mine", **changes}
    torch.manual_seed(0)
    network = build_network(Network.model_validate(fields["network"]))
    save_model(folder, fields, network.state_dict())
    return folder


def _pickle(folder: Path) -> str:
    import torch

    make_model(folder)
    torch.save({"a": torch.zeros(1)}, folder / "weights.safetensors")
    card = json.loads((folder / "card.json").read_text())
    digest = hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()
    card["files"] = {"weights.safetensors": digest}
    (folder / "card.json").write_text(json.dumps(card))
    return "model-weights-pickle"


def _changed_weights(folder: Path) -> str:
    make_model(folder)
    path = folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return "model-hash-mismatch"


def _misspelt_card(folder: Path) -> str:
    make_model(folder)
    card = json.loads((folder / "card.json").read_text())
    card["treshold"] = 1
    (folder / "card.json").write_text(json.dumps(card))
    return "model-card-invalid"


@pytest.mark.parametrize("spoil", [_pickle, _changed_weights, _misspelt_card])
def test_a_model_that_is_not_what_it_says_is_refused(
    spoil: Callable[[Path], str], place: Path, tmp_path: Path
) -> None:
    code = spoil(tmp_path / "mine")
    done = tomoseg(
        "run", place / "scan é.nii.gz", "--model", tmp_path / "mine", "--output", tmp_path / "out"
    )
    assert_refused(done, code)
    assert not (tmp_path / "out").exists()


def test_a_method_without_a_calibrated_threshold_takes_otsus_and_says_so(
    place: Path, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "mine", methods={})
    arguments = (
        "run", place / "scan é.nii.gz", "--model", model, "--output", tmp_path / "out",
        "--directions", "axial",
    )  # fmt: skip
    assert_refused(tomoseg(*arguments, "--threshold", "card"), "threshold-not-calibrated")
    done = tomoseg(*arguments)
    assert done.returncode == 0, done.stderr
    assert "tomoseg: warning [threshold-not-calibrated]" in done.stderr
    result = read_result(tmp_path / "out")
    assert result.job.threshold == "otsu"
    assert result.job.model == str(model)
    assert [warning.code for warning in result.warnings] == ["threshold-not-calibrated"]


@pytest.mark.skipif(os.name != "posix", reason="Ctrl-C is sent as a POSIX signal")
def test_ctrl_c_cancels_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "TomoSegLib.cli", "run", place / "scan é.nii.gz",
         "--model", "tiny-blob", "--directions", "fibonacci:2000", "--output", tmp_path / "out",
         "--previews", tmp_path / "previews"],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    end = time.monotonic() + 60
    while not (tmp_path / "previews").exists() and time.monotonic() < end:
        time.sleep(0.05)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert time.monotonic() - start < 1.5  # the worker's second, and this process's own end
    assert process.returncode == 130
    assert "tomoseg: error [cancelled]" in errors
    assert [path.name for path in tmp_path.iterdir()] == ["previews"]


def test_help_is_instant_because_nothing_heavy_is_imported() -> None:
    script = (
        "import sys; from TomoSegLib.cli import main; main(['run', '--help']);"
        "heavy = {'torch', 'numpy', 'SimpleITK', 'scipy', 'matplotlib'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--filter-order" in done.stdout
