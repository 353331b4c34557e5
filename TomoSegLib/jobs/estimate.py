"""How long a run will take here, measured before it starts: the encoder on slices of noise."""

from __future__ import annotations

import math
import time

import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.cam import cam_evaluator
from TomoSegLib.heatmaps.responses import default_batch_size
from TomoSegLib.heatmaps.tonno import logit_evaluator
from TomoSegLib.jobs.devices import choose_device
from TomoSegLib.jobs.document import EstimateJob
from TomoSegLib.jobs.events import ResultEvent
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.models.card import Slices
from TomoSegLib.models.loading import load_encoder
from TomoSegLib.models.store import find_model

MEASURE_S = 1.0
"""So long the encoder is watched, after a first batch that does not count."""

_MOST_BATCHES = 100


def measure_speed(job: EstimateJob, report: Reporter) -> ResultEvent:
    """Time the encoder on batches like those of a run.

    Sampling, filter and backprojection are not part of it; they take far less than the encoder.

    Returns:
        The event with ``device``, ``method``, ``slice_shape`` ``(H, W)``, ``batch_size``,
        ``slices`` (how many were timed), ``seconds_per_slice`` and ``memory_mb``, the most memory
        that PyTorch has held on a GPU, or None.

    Raises:
        TomoSegError: ``model-unknown``, ``model-task``, ``device-unavailable``,
            ``method-not-supported``, or what is wrong with the model.
    """
    model = find_model(job.model)
    card = model.card
    if card.task != "heatmap":
        raise TomoSegError(
            "model-task",
            f"The model {card.name} is for {card.task}, not for heatmaps.",
            "Only the time of heatmaps can be estimated.",
        )
    report.device = choose_device(job.device)
    device = torch.device(report.device)
    with report.stage("load-model"):
        encoder = load_encoder(model, report.device)
    method = job.method or card.method
    rectified = card.settings(method).rectified
    evaluate = (
        logit_evaluator(encoder)
        if method == "tonno"
        else cam_evaluator(encoder, job.cam or "cam", rectified)
    )
    shape = slice_shape(job.slice_mm, card.slices)
    batch_size = job.batch_size or default_batch_size(shape, device)
    random = torch.Generator().manual_seed(0)
    noise = torch.randn((batch_size, len(card.channels), *shape), generator=random).to(device)
    with report.stage("measure", 0) as progress:
        evaluate(noise)
        _finish(device)
        start, batches = time.perf_counter(), 0
        while batches < _MOST_BATCHES and time.perf_counter() - start < MEASURE_S:
            evaluate(noise)
            _finish(device)
            batches += 1
            progress(batches, _MOST_BATCHES)
        seconds = time.perf_counter() - start
    memory = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None
    return ResultEvent(
        data={
            "device": report.device,
            "method": method,
            "slice_shape": list(shape),
            "batch_size": batch_size,
            "slices": batches * batch_size,
            "seconds_per_slice": seconds / (batches * batch_size),
            "memory_mb": memory,
        }
    )


def slice_shape(slice_mm: tuple[float, float], slices: Slices) -> tuple[int, int]:
    """Pixels ``(H, W)`` of a slice that shows so many millimetres, as a run would make it."""
    if slices.size is not None:
        return slices.size, slices.size
    height, width = (
        math.ceil(mm / slices.spacing_mm / slices.multiple) * slices.multiple for mm in slice_mm
    )
    return height, width


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done what it was told to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
