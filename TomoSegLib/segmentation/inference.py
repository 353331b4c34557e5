"""A 3D segmenter moved over a prepared scan, window by window (MONAI's sliding window).

Windows that no foreground lies in are passed over: nothing of them would be kept. So a region of
interest takes as long as it is large, and has the values that the whole scan has there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.imaging.foreground import bounding_box
from TomoSegLib.imaging.preprocessing import ModelInput
from TomoSegLib.models.card import SlidingWindow
from TomoSegLib.models.segmenter import LoadedSegmenter

BoolArray = npt.NDArray[np.bool_]
Box = tuple[slice, slice, slice]
Progress = Callable[[int, int], None]
Warn = Callable[[str, str], None]

# Voxels of the windows of one pass: more are no faster, and take memory.
_VOXELS = {"cpu": 2**18, "cuda": 2**23, "mps": 2**21}
# A voxel of the scan has its foreground's edge and its neighbours for the interpolation so far
# away on the model's grid.
_REACH = 2
# The logit of what is certain: windows that are passed over hold the background.
_SURE = 30.0


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a segmenter says about a prepared scan.

    Attributes:
        probabilities: ``(K, k, j, i)`` float32 on the model's grid, of the card's outputs; more or
            less the background where there is no foreground within two voxels.
        windows: Number of windows that the network has seen.
        device: Where the network ended: the CPU if a GPU's memory did not suffice.
        batch_size: The most windows per pass.
        seconds: Time spent on the network.
    """

    probabilities: npt.NDArray[np.float32]
    windows: int
    device: str
    batch_size: int
    seconds: float


def predict(
    model_input: ModelInput,
    segmenter: LoadedSegmenter,
    inside: BoolArray | None = None,
    *,
    batch_size: int | None = None,
    on_progress: Progress = lambda done, total: None,
    on_warning: Warn = lambda code, message: None,
) -> Prediction:
    """Probabilities of a segmenter's outputs on the model's grid.

    The logits of overlapping windows are averaged, with the card's weights, before the activation.
    A scan smaller than a window is padded with the card's background.

    Args:
        model_input: The prepared scan.
        segmenter: The network, on the device where it shall compute.
        inside: ``[k, j, i]`` bool on the source grid: the part of the foreground that is asked
            for; None for all of it.
        batch_size: The most windows per pass, or None for the device's default.
        on_progress: Receives the number of windows done and in all.
        on_warning: Receives code and message: ``memory-batch-halved``, ``memory-device-cpu``.

    Returns:
        The probabilities, and what it took.

    Raises:
        TomoSegError: ``foreground-empty``, ``out-of-memory`` and those of
            `LoadedSegmenter.logits`.
    """
    # Imported here: MONAI takes seconds, and errors before this point should not.
    from monai.inferers import SlidingWindowInferer

    card, window = segmenter.card, segmenter.window
    image, margins = _padded(model_input.image, window.roi_size, card.preprocessing.background)
    box = _asked_for(model_input, inside, margins)
    foreground = np.pad(model_input.foreground, margins)
    places = _places(foreground.shape, window)
    total = sum(_is_needed(place, foreground, box) for place in places)
    passes = WindowPasses(segmenter, batch_size, on_warning)
    nothing = torch.tensor([_SURE if value == 0 else -_SURE for value in card.outputs])
    nothing = nothing[None, :, None, None, None]
    done = 0

    def predictor(windows: Tensor, coordinates: Sequence[Sequence[slice]]) -> Tensor:
        nonlocal done
        needed = [
            n
            for n, (_, _, k, j, i) in enumerate(coordinates)
            if _is_needed((k, j, i), foreground, box)
        ]
        logits = nothing.expand(len(windows), -1, *windows.shape[2:]).clone()
        if needed:
            logits[needed] = passes(windows[needed])
            done += len(needed)
            on_progress(done, total)
        return logits

    inferer = SlidingWindowInferer(
        window.roi_size,
        sw_batch_size=passes.batch_size,
        overlap=window.overlap,
        mode=window.mode,
        with_coord=True,
    )
    # Deterministic convolutions in full single precision: the same numbers as on a CPU but for
    # the order of sums.
    with torch.backends.cudnn.flags(benchmark=False, deterministic=True, allow_tf32=False):
        logits = inferer(torch.from_numpy(image)[None], predictor)[0]
    k, j, i = (slice(a, n - b) for n, (a, b) in zip(foreground.shape, margins, strict=True))
    logits = logits[:, k, j, i]
    _activate(logits, window)
    return Prediction(logits.numpy(), done, str(segmenter.device), passes.largest, passes.seconds)


class WindowPasses:
    """Gives windows to a segmenter in passes that its device's memory suffices for.

    When it does not, passes are halved down to single windows, and then the CPU is used; each
    step is announced with a warning.

    Args:
        segmenter: The network; it may be moved to the CPU.
        batch_size: The most windows per pass, or None for the device's default.
        on_warning: Receives code and message: ``memory-batch-halved``, ``memory-device-cpu``.

    Attributes:
        batch_size: The most windows per pass from here on.
        largest: The most windows of a pass that memory sufficed for.
        seconds: Time spent on them.
    """

    def __init__(
        self, segmenter: LoadedSegmenter, batch_size: int | None, on_warning: Warn
    ) -> None:
        self._segmenter = segmenter
        self._warn = on_warning
        self._asked_for = batch_size
        self.batch_size = self._default()
        self.largest = 0
        self.seconds = 0.0

    def __call__(self, windows: Tensor) -> Tensor:
        """``(B, C, *roi_size)`` windows to ``(B, K, *roi_size)`` logits, both on the CPU.

        Raises:
            TomoSegError: ``out-of-memory`` and those of `LoadedSegmenter.logits`.
        """
        parts: list[Tensor] = []
        done = 0
        while done < len(windows):
            part = windows[done : done + self.batch_size]
            logits = self._try(part)
            if logits is None:
                self._give_way(len(part))
            else:
                parts.append(logits)
                done += len(part)
                self.largest = max(self.largest, len(part))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _try(self, windows: Tensor) -> Tensor | None:
        """The logits, or None if memory does not suffice."""
        start = time.perf_counter()
        try:
            return self._segmenter.logits(windows.to(self._segmenter.device)).cpu()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        finally:
            self.seconds += time.perf_counter() - start
        return None

    def _default(self) -> int:
        if self._asked_for is not None:
            return self._asked_for
        device = self._segmenter.device.type
        voxels = _VOXELS[device if device in _VOXELS else "cpu"]
        return max(1, voxels // int(np.prod(self._segmenter.window.roi_size)))

    def _give_way(self, count: int) -> None:
        """After a failure with ``count`` windows: fewer of them, or the CPU."""
        device = self._segmenter.device
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if count > 1:
            self.batch_size = count // 2
            self._warn(
                "memory-batch-halved",
                f"Memory of {device} did not suffice for {count} windows at a time: continuing "
                f"with {self.batch_size}.",
            )
        elif device.type != "cpu":
            self._segmenter.to("cpu")
            self.batch_size = self._default()
            self._warn(
                "memory-device-cpu",
                f"Memory of {device} does not suffice for a single window: continuing on the CPU.",
            )
        else:
            raise TomoSegError(
                "out-of-memory",
                "There is not enough memory for a single window of the segmenter.",
                "Close other programs, or use a model with smaller windows.",
            )


def _padded(
    image: npt.NDArray[np.float32], roi_size: tuple[int, int, int], background: float
) -> tuple[npt.NDArray[np.float32], list[tuple[int, int]]]:
    """The image at least as large as a window, and what was added before and after each axis."""
    margins = []
    for have, want in zip(image.shape[1:], roi_size, strict=True):
        missing = max(want - have, 0)
        margins.append((missing // 2, missing - missing // 2))
    if any(missing for margin in margins for missing in margin):
        image = np.pad(image, [(0, 0), *margins], constant_values=background)
    return image, margins


def _asked_for(
    model_input: ModelInput, inside: BoolArray | None, margins: list[tuple[int, int]]
) -> Box:
    """The box of the padded model's grid that the voxels asked for are interpolated in."""
    shape = model_input.geometry.shape
    if inside is None:
        low, high = np.zeros(3, int), np.array(shape) - 1
    else:
        found = bounding_box(inside)
        if found is None:
            raise TomoSegError(
                "foreground-empty",
                "There is no foreground in the part of the scan that was asked for.",
                "Choose a region of interest that holds some of the patient.",
            )
        corners = model_input.source.part(found).corners()
        indices = model_input.geometry.lps_to_index(corners)
        low = np.floor(indices.min(axis=0) - 1e-3).astype(int)[::-1]
        high = np.ceil(indices.max(axis=0) + 1e-3).astype(int)[::-1]
    before = np.array([margin[0] for margin in margins])
    low, high = np.maximum(low, 0) + before, np.minimum(high, np.array(shape) - 1) + before
    k, j, i = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
    return k, j, i


def _places(shape: tuple[int, ...], window: SlidingWindow) -> list[Box]:
    """Where MONAI puts the windows."""
    from monai.data.utils import dense_patch_slices

    steps = [
        side if side == size else max(1, int(side * (1 - window.overlap)))
        for side, size in zip(window.roi_size, shape, strict=True)
    ]
    return [(k, j, i) for k, j, i in dense_patch_slices(shape, window.roi_size, steps)]


def _is_needed(place: Box, foreground: BoolArray, box: Box) -> bool:
    """Whether a window holds voxels that are asked for, and close to the foreground."""
    part = [
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(place, box, strict=True)
    ]
    if any(s.start >= s.stop for s in part):
        return False
    grown = tuple(slice(max(s.start - _REACH, 0), s.stop + _REACH) for s in part)
    return bool(foreground[grown].any())


def _activate(logits: Tensor, window: SlidingWindow) -> None:
    """Logits to probabilities in place, a plane at a time."""
    for k in range(logits.shape[1]):
        plane = logits[:, k]
        plane.copy_(
            torch.softmax(plane, 0) if window.activation == "softmax" else torch.sigmoid(plane)
        )
