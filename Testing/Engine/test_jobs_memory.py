"""Running out of the machine's own memory: the steps that are taken, and the error at their end.

The computing process gets a limit on its memory, and a network that needs a known amount for each
slice; the failures are those of torch's allocator.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from TomoSegLib.errors import is_out_of_memory
from TomoSegLib.heatmaps.pipeline import image_beside
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.events import ErrorEvent, Event, ResultEvent, WarningEvent
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import read_result
from TomoSegLib.jobs.steps import load_on_device
from TomoSegLib.models.loading import load_encoder

DRIVER = """
import os, re, sys
room, slice_bytes = int(os.environ["ROOM_BYTES"]), int(os.environ["SLICE_BYTES"])
if sys.argv[1] != "--task":
    from TomoSegLib.jobs import worker
    worker.task_command = lambda results: [sys.executable, __file__, "--task", results]
    status = worker.work("-")
else:
    import resource
    import matplotlib.backends.backend_agg, matplotlib.figure, safetensors.torch, torch
    from TomoSegLib.jobs import inputs, run, task
    from TomoSegLib.networks.bright_area import BrightArea
    forward = BrightArea.forward
    def hungry(self, x):
        torch.empty(len(x) * slice_bytes, dtype=torch.uint8)
        return forward(self, x)
    if os.environ["FROM_THE_START"]:
        BrightArea.forward = hungry
    load = run.load_encoder
    def load_and_grow_hungry(*arguments):
        encoder = load(*arguments)
        BrightArea.forward = hungry
        return encoder
    run.load_encoder = load_and_grow_hungry
    with open("/proc/self/status") as file:
        size = int(re.search(r"VmSize:\\s+(\\d+)", file.read())[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + room, size + room))
    status = task.main(sys.argv[2])
sys.stderr.flush()
os._exit(status)
"""

GRID = Geometry.from_parts((24, 26, 28), (2.0, 2.0, 2.0), origin=(-20, 5, 9))
ROOM = 700 << 20


def scan() -> Volume:
    """A noisy ball with a bright blob."""
    k, j, i = np.indices(GRID.shape)
    points = GRID.index_to_lps(np.stack([i, j, k], axis=-1)) - GRID.center
    noise = np.random.default_rng(0).normal(0, 5, GRID.shape)
    array = np.where(np.linalg.norm(points, axis=-1) < 22, 100 + noise, 0)
    array[np.linalg.norm(points - [6, -5, 4], axis=-1) < 7] += 100
    return Volume(array.astype(np.int16), GRID, "scan")


def run_in_little_memory(
    folder: Path,
    slice_bytes: int,
    monkeypatch: pytest.MonkeyPatch,
    from_the_start: bool = False,
) -> tuple[ResultEvent | ErrorEvent, list[str]]:
    (folder / "driver.py").write_text(DRIVER)
    write_volume(scan(), folder / "scan.nrrd")
    for name, value in {
        "ROOM_BYTES": ROOM,
        "SLICE_BYTES": slice_bytes,
        "FROM_THE_START": "yes" if from_the_start else "",
        "OMP_NUM_THREADS": 1,  # each thread would take address space, how much is the library's
        "OPENBLAS_NUM_THREADS": 1,
    }.items():
        monkeypatch.setenv(name, str(value))
    events: list[Event] = []
    job: dict[str, Any] = {
        "kind": "run",
        "input": str(folder / "scan.nrrd"),
        "model": "tiny-blob",
        "directions": "orthogonal",
        "threads": 1,
        "batch_size": 16,
        "output": str(folder / "out"),
    }
    outcome = run_job(job, events.append, command=[sys.executable, str(folder / "driver.py"), "-"])
    return outcome, [event.code for event in events if isinstance(event, WarningEvent)]


pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="the limit on a process's memory is Linux's"
)


def test_slices_are_encoded_fewer_at_a_time_until_they_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 16 slices need 1.6 GB, 8 need 0.8 GB, and 4 fit easily, whatever else takes memory.
    outcome, warnings = run_in_little_memory(tmp_path, 100 << 20, monkeypatch)
    assert isinstance(outcome, ResultEvent), outcome
    assert warnings == ["memory-batch-halved"] * 2
    result = read_result(tmp_path / "out")
    assert result.environment.batch_size == 4
    assert [note.code for note in result.warnings] == warnings
    k, j, i = np.argwhere(read_volume(tmp_path / "out" / "mask.nii.gz").array).mean(axis=0)
    truth = GRID.center + [6, -5, 4]
    assert np.linalg.norm(GRID.index_to_lps([i, j, k]) - truth) < 5


def test_a_single_slice_that_does_not_fit_is_an_error_with_a_hint_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, warnings = run_in_little_memory(tmp_path, 2 << 30, monkeypatch)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "out-of-memory", outcome
    assert outcome.hint and outcome.exit_status == 2
    assert warnings == ["memory-batch-halved"] * 4
    assert sorted(os.listdir(tmp_path)) == ["driver.py", "scan.nrrd"]


def test_a_network_that_cannot_even_be_tried_is_not_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome, warnings = run_in_little_memory(tmp_path, 2 << 30, monkeypatch, from_the_start=True)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "out-of-memory", outcome
    assert warnings == []


@pytest.mark.parametrize("device", ["cuda:0", "cpu"])
def test_a_model_that_a_gpu_has_no_room_for_is_loaded_on_the_cpu(device: str) -> None:
    events: list[Event] = []
    report = Reporter(events.append)
    report.device = device

    def load(where: str) -> str:
        if where == device:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return f"the model on {where}"

    if device == "cpu":
        with pytest.raises(RuntimeError):
            load_on_device(load, report)
    else:
        assert load_on_device(load, report) == "the model on cpu"
        assert report.device == "cpu"
        assert [e.code for e in events if isinstance(e, WarningEvent)] == ["memory-device-cpu"]


def test_a_scan_that_a_gpu_has_no_room_for_stays_on_the_cpu_with_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    encoder = load_encoder("tiny-blob")
    encoder.device = torch.device("xpu")
    move = torch.Tensor.to

    def full(self: torch.Tensor, device: Any, *rest: Any, **options: Any) -> torch.Tensor:
        if str(device) == "xpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return move(self, device, *rest, **options)

    monkeypatch.setattr(torch.Tensor, "to", full)
    warnings: list[str] = []
    image = np.zeros((1, 3, 4, 5), np.float32)
    found = image_beside(encoder, image, lambda code, message: warnings.append(code))
    assert found.device == encoder.device == torch.device("cpu")
    assert warnings == ["memory-device-cpu"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("can't start new thread"), True),
        (ImportError("x.so: failed to map segment from shared object"), True),
        (ImportError("No module named 'torch'"), False),
        (RuntimeError("shapes do not fit"), False),
        (ValueError("out of memory"), False),
    ],
    ids=repr,
)
def test_running_out_of_memory_is_told_from_other_errors(error: Exception, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
