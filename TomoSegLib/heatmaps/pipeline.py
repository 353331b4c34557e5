"""The heatmap of a scan: plane stacks, encoder, filter, backprojection, as a stream.

Directions come in an order of which every prefix is nearly uniform, and each is backprojected as
soon as its slices are encoded: so a heatmap can be shown while directions are still coming, and
memory does not grow with their number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.heatmaps.cam import cam_evaluator, map_origin
from TomoSegLib.heatmaps.responses import (
    StackEncoder,
    StackResponse,
    Warn,
    cancelled,
    default_batch_size,
)
from TomoSegLib.heatmaps.tonno import filtered, logit_evaluator
from TomoSegLib.imaging.foreground import bounding_box
from TomoSegLib.imaging.preprocessing import ModelInput, sample_on
from TomoSegLib.imaging.volume import FloatArray, Geometry
from TomoSegLib.models.card import CamKind, Method, MethodSettings, ModelCard
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.tomography.directions import DirectionSet, parse_directions
from TomoSegLib.tomography.planes import PlaneStack, foreground_runs, plane_stack
from TomoSegLib.tomography.reconstruction import Backprojector

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Box = tuple[slice, slice, slice]

Progress = Callable[[int, int], None]
Preview = Callable[[int, Callable[[], Float32Array]], None]


@dataclass(frozen=True, eq=False)
class HeatmapResult:
    """A heatmap and what it was made of.

    Attributes:
        heatmap: ``(k, j, i)`` float32 on ``geometry``, 0 outside the foreground.
        agreement: ``(k, j, i)`` float32 in [0, 1]: how far the directions agree on each voxel (see
            `Backprojector`), 0 outside the foreground.
        geometry: The target grid.
        directions: The directions in the order in which they were used.
        responses: ``(A, S)`` float32 logits; shorter stacks are continued at both ends with the
            response to an empty slice.
        offsets: ``(S,)`` mm of all stacks' planes from ``center`` along their normals.
        center: ``(3,)`` LPS mm.
        slices: Number of slices that were encoded.
        device: Where the encoder ended: the CPU if a GPU's memory did not suffice.
        batch_size: The most slices per pass of the encoder.
        timings_s: Seconds spent on ``sample``, ``encode`` and ``reconstruct``.
    """

    heatmap: Float32Array
    agreement: Float32Array
    geometry: Geometry
    directions: DirectionSet
    responses: Float32Array
    offsets: FloatArray
    center: FloatArray
    slices: int
    device: str
    batch_size: int
    timings_s: dict[str, float] = field(default_factory=dict)


def compute_heatmap(
    model_input: ModelInput,
    encoder: LoadedEncoder,
    card: ModelCard,
    method: Method,
    settings: MethodSettings,
    cam: CamKind = "cam",
    *,
    target: Geometry | None = None,
    device: torch.device | str | None = None,
    batch_size: int | None = None,
    on_progress: Progress | None = None,
    on_preview: Preview | None = None,
    on_warning: Warn | None = None,
    should_cancel: Callable[[], bool] | None = None,
) -> HeatmapResult:
    r"""The heatmap of a prepared scan.

    * ``tonno``: :math:`\frac{1}{2\pi} \sum_i w_i (h * q_i)(n_i \cdot x)` of the logits q along
      each direction; with p = 2 and a logit that is a plane integral (mm^2 times a density), the
      density itself.
    * ``averaged-cam``: the weighted mean over directions of the activation maps' stacks at x;
      ``cam`` the same, meant for one orientation.
    * ``tomographic-cam``: as ToNNO, of activation maps that are filtered along the slice axis.

    Responses and maps count from those of an empty slice.

    Args:
        model_input: The prepared scan.
        encoder: The model's encoder.
        card: The model's card.
        method: The method.
        settings: Directions, filter, rectification.
        cam: Kind of activation map, for the methods that use them.
        target: Grid of the heatmap: by default the scan's own. Any part of a grid gets the same
            values as the whole.
        device: Where to compute; by default where the encoder lies.
        batch_size: The most slices per pass, or None for the device's default.
        on_progress: Receives encoded slices, done and in all.
        on_preview: Called after 1, 2, 4, 8, ... directions with their number and a function that
            computes the heatmap from the directions used when it is called.
        on_warning: Receives code and message, see `StackEncoder`.
        should_cancel: Asked before each batch of slices and each backprojection.

    Returns:
        The heatmap.

    Raises:
        TomoSegError: ``cancelled``, ``method-not-supported``, ``directions-invalid``,
            ``foreground-empty``, ``out-of-memory``, ``response-not-finite``,
            ``device-unavailable``.
    """
    warn = on_warning or (lambda code, message: None)
    stop = should_cancel or (lambda: False)
    target = model_input.source if target is None else target
    if device is not None and torch.device(device) != encoder.device:
        encoder.to(device)
    background, distance_mm = card.preprocessing.background, card.slices.distance_mm
    evaluate = (
        logit_evaluator(encoder)
        if method == "tonno"
        else cam_evaluator(encoder, cam, settings.rectified)
    )
    directions = parse_directions(settings.directions).in_progressive_order()

    runs = foreground_runs(model_input.foreground, model_input.geometry)
    stacks = [plane_stack(n, model_input.geometry, runs, card.slices) for n in directions.vectors]
    occupied = [stack.occupied(runs, model_input.geometry) for stack in stacks]

    foreground = _foreground_on(target, model_input)
    box = _bounding_box(foreground)
    region = target.part(box)
    support = foreground[box]
    slices = StackEncoder(
        encoder,
        image_beside(encoder, model_input.image, warn),
        model_input.geometry,
        background,
        evaluate,
        batch_size,
        stop,
        warn,
    )
    backprojector = _backprojector(region, runs.center, encoder.device, warn)

    def current() -> Float32Array:
        return _whole(backprojector.heatmap(), support, box, target.shape)

    responses: list[tuple[PlaneStack, Float32Array, float]] = []
    origins: dict[tuple[int, int], tuple[tuple[float, float], tuple[float, float]]] = {}
    seconds = 0.0
    # Deterministic convolutions in full single precision: the same numbers as on a CPU but for
    # the order of sums.
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        for response in slices.responses(stacks, occupied, on_progress or (lambda d, t: None)):
            if stop():
                raise cancelled()
            start = time.perf_counter()
            stack = stacks[response.index]
            weight = float(directions.weights[response.index])
            if method == "tonno":
                profile = filtered(response.logits - response.empty_logit, settings, distance_mm)
                backprojector.add(profile, stack.offsets, stack.normal, weight)
            else:
                if stack.shape not in origins:
                    origins[stack.shape] = map_origin(encoder, stack.shape, background)
                stride, first_pixel = origins[stack.shape]
                backprojector.add_stack(
                    _maps(response, method, settings, distance_mm),
                    stack,
                    weight,
                    support=support,
                    stride=stride,
                    first_pixel=first_pixel,
                )
            responses.append((stack, response.logits.cpu().numpy(), float(response.empty_logit)))
            count = len(responses)
            if count < len(stacks) and count & (count - 1) == 0:
                # Looking at the heatmap ends a group of directions that are summed together,
                # which may change its last digit: so the groups end here, looked at or not.
                backprojector.flush()
                if on_preview is not None:
                    on_preview(count, current)
            seconds += time.perf_counter() - start

    start = time.perf_counter()
    heatmap = current()
    agreement = _whole(backprojector.agreement(), support, box, target.shape)
    seconds += time.perf_counter() - start
    table, offsets = _aligned(responses, distance_mm)
    return HeatmapResult(
        heatmap,
        agreement,
        target,
        directions,
        table,
        offsets,
        runs.center,
        slices=sum(int(mask.sum()) for mask in occupied),
        device=str(encoder.device),
        batch_size=slices.batch_size
        or max(default_batch_size(stack.shape, encoder.device) for stack in stacks),
        timings_s={**slices.seconds, "reconstruct": seconds},
    )


def _maps(
    response: StackResponse, method: Method, settings: MethodSettings, distance_mm: float
) -> Tensor:
    """The maps ``(S, h, w)`` as they are backprojected, relative to those of an empty slice.

    The backprojector multiplies by 1 / (2 pi), which belongs to the inverse Radon transform, not
    to a mean.
    """
    assert response.maps is not None and response.empty_map is not None
    maps = response.maps - response.empty_map
    if method == "tomographic-cam":
        return filtered(maps.permute(1, 2, 0), settings, distance_mm).permute(2, 0, 1).contiguous()
    return maps * (2 * math.pi)


def image_beside(encoder: LoadedEncoder, image: Float32Array, warn: Warn) -> Tensor:
    """The image on the encoder's device; on the CPU with it where that has no memory for it."""
    tensor = torch.from_numpy(image)
    try:
        return tensor.to(encoder.device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or encoder.device.type == "cpu":
            raise
    warn(
        "memory-device-cpu",
        f"Memory of {encoder.device} does not suffice for the scan: continuing on the CPU.",
    )
    encoder.to("cpu")
    return tensor


def _backprojector(
    region: Geometry, center: FloatArray, device: torch.device, warn: Warn
) -> Backprojector:
    try:
        return Backprojector(region, center, device=device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or device.type == "cpu":
            raise
    warn(
        "memory-device-cpu",
        f"Memory of {device} does not suffice for the heatmap: reconstructing on the CPU.",
    )
    return Backprojector(region, center, device="cpu")


def _foreground_on(target: Geometry, model_input: ModelInput) -> BoolArray:
    """The foreground on the target grid."""
    source, foreground = model_input.source, model_input.source_foreground
    if target.is_close(source):
        return foreground
    corner = source.lps_to_index(target.origin)
    first = np.rint(corner).astype(int)
    part = tuple(slice(a, a + n) for a, n in zip(first[::-1], target.shape, strict=True))
    stops = first + target.size
    if (
        np.allclose(target.affine[:3, :3], source.affine[:3, :3], atol=1e-6)
        and np.abs(corner - first).max() < 1e-3
        and first.min() >= 0
        and np.all(stops <= source.size)
    ):
        return foreground[part]  # a region of interest: voxels of the source itself
    # Half a voxel: nearest neighbour, so that the outermost voxels are not lost.
    return sample_on(foreground, source, target, order=0) > 0.5


def _bounding_box(foreground: BoolArray) -> Box:
    box = bounding_box(foreground)
    if box is None:
        raise TomoSegError(
            "foreground-empty",
            "There is no foreground in the part of the scan that was asked for.",
            "Choose a region of interest that holds some of the patient.",
        )
    return box


def _whole(
    values: Tensor, support: BoolArray, box: Box, shape: tuple[int, int, int]
) -> Float32Array:
    """A box's values on the whole grid, 0 outside the foreground."""
    result = np.zeros(shape, dtype=np.float32)
    np.copyto(result[box], values.cpu().numpy(), where=support)
    return result


def _aligned(
    responses: list[tuple[PlaneStack, Float32Array, float]], distance_mm: float
) -> tuple[Float32Array, FloatArray]:
    """All stacks' responses over common offsets ``(A, S)``, ``(S,)``.

    Offsets of stacks are multiples of the slice distance, so that nothing is interpolated.
    """
    starts = [round(stack.offsets[0] / distance_mm) for stack, _, _ in responses]
    stops = [start + len(stack) for start, (stack, _, _) in zip(starts, responses, strict=True)]
    first, last = min(starts), max(stops)
    table = np.empty((len(responses), last - first), dtype=np.float32)
    for row, start, stop, (_, logits, empty) in zip(table, starts, stops, responses, strict=True):
        row[:] = empty
        row[start - first : stop - first] = logits
    return table, np.arange(first, last) * distance_mm
