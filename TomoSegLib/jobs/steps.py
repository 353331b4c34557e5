"""Steps that heatmaps and segmentations have in common."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import ContextVar
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from TomoSegLib.errors import is_out_of_memory
from TomoSegLib.jobs.document import Region, RunJob
from TomoSegLib.jobs.report import Reporter

_T = TypeVar("_T")
BoolArray = npt.NDArray[np.bool_]

_kept: ContextVar[list[Any] | None] = ContextVar("kept", default=None)


def make_reproducible(job: RunJob) -> None:
    """The same job on the same machine gives the same bytes."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by cuBLAS
    torch.manual_seed(job.seed)
    torch.backends.cudnn.benchmark = False
    # As torch.use_deterministic_algorithms, which also imports torch's compiler: 1.5 s a run.
    torch.set_deterministic_debug_mode("warn")
    if job.threads is not None:
        torch.set_num_threads(job.threads)


@contextlib.contextmanager
def loading_once() -> Iterator[None]:
    """In this block, of jobs with one and the same model, its network is loaded only once.

    Blocks may lie in each other: the outermost counts.
    """
    if _kept.get() is not None:
        yield
        return
    token = _kept.set([])
    try:
        yield
    finally:
        _kept.reset(token)


def load_on_device(load: Callable[[str], _T], report: Reporter) -> _T:
    """Load a network where the job computes, or on the CPU where that has no memory for it."""
    kept = _kept.get()
    if kept is None:
        return _load(load, report)
    if not kept:
        kept.append(_load(load, report))
    return kept[0]


def _load(load: Callable[[str], _T], report: Reporter) -> _T:
    try:
        return load(report.device)
    except (RuntimeError, MemoryError) as error:
        if report.device == "cpu" or not is_out_of_memory(error):
            raise
    report.warn(
        "memory-device-cpu",
        f"Memory of {report.device} does not suffice for the model: continuing on the CPU.",
    )
    report.device = "cpu"
    return load("cpu")


def inside_region(
    region: Region | None, foreground: npt.NDArray[np.bool_]
) -> npt.NDArray[np.bool_]:
    """The foreground ``[k, j, i]`` within the region."""
    if region is None:
        return foreground
    inside = np.zeros_like(foreground)
    inside[region.slices] = foreground[region.slices]
    return inside


def write_all(report: Reporter, *writers: Callable[[], None]) -> None:
    """Run each; compressing and drawing take about as long, so two at a time."""
    with report.stage("write", len(writers)) as written, ThreadPoolExecutor(2) as pool:
        for count, done in enumerate(as_completed([pool.submit(w) for w in writers]), 1):
            done.result()
            written(count, len(writers))
