"""What an encoder says about every slice of every stack.

Stacks are sampled and encoded in batches that may span several directions; slices without any
foreground are not encoded: they all get the encoder's answer to one empty slice. Batches have a
fixed size that depends only on the slices' shape and the device, so that results are reproducible.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from TomoSegLib.errors import TomoSegError, is_out_of_memory
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.tomography.planes import PlaneStack

BoolArray = npt.NDArray[np.bool_]

# Logits ``(B,)`` and, for class activation maps, maps ``(B, h, w)`` of slices ``(B, C, H, W)``.
Evaluate = Callable[[Tensor], tuple[Tensor, "Tensor | None"]]
Warn = Callable[[str, str], None]

# Pixels per batch. On a CPU more are no faster, and a request to cancel waits for a batch to end;
# a GPU wants many.
_PIXELS = {"cpu": 2**18, "cuda": 2**22, "mps": 2**20}
_MOST_SLICES = {"cpu": 32, "cuda": 256, "mps": 64}


def default_batch_size(shape: tuple[int, int], device: torch.device) -> int:
    """Slices per pass of the encoder, for slices of ``(H, W)`` pixels."""
    kind = device.type if device.type in _PIXELS else "cpu"
    return max(1, min(_MOST_SLICES[kind], _PIXELS[kind] // (shape[0] * shape[1])))


def cancelled() -> TomoSegError:
    """The error that ends a computation that somebody wants to end."""
    return TomoSegError("cancelled", "The heatmap was cancelled.", "Start it again when you like.")


@dataclass(frozen=True, eq=False)
class StackResponse:
    """An encoder's answers to one stack.

    Attributes:
        index: Which of the stacks.
        logits: ``(S,)`` float32, on the encoder's device, as are the others.
        empty_logit: ``()``: the logit of an empty slice.
        maps: ``(S, h, w)`` class activation maps, or None.
        empty_map: ``(h, w)``: the map of an empty slice, or None.
    """

    index: int
    logits: Tensor
    empty_logit: Tensor
    maps: Tensor | None
    empty_map: Tensor | None


@dataclass(eq=False)
class StackEncoder:
    """Samples stacks of slices from a volume and gives them to an encoder.

    When a device's memory does not suffice, batches are halved down to single slices, and then
    the CPU is used; each step is announced with a warning.

    Attributes:
        encoder: The encoder; it may be moved to the CPU.
        image: ``(C, K, J, I)`` float32 on ``geometry``, on the encoder's device.
        geometry: The grid of the image.
        background: The image's value outside the foreground.
        evaluate: What to ask of the encoder.
        batch_size: The most slices per pass; None for `default_batch_size`.
        should_cancel: Asked before every batch.
        on_warning: Receives code and message: ``memory-batch-halved``, ``memory-device-cpu``.
        seconds: Time spent on ``sample`` and ``encode`` (on a GPU: on launching them).
    """

    encoder: LoadedEncoder
    image: Tensor
    geometry: Geometry
    background: float
    evaluate: Evaluate
    batch_size: int | None = None
    should_cancel: Callable[[], bool] = lambda: False
    on_warning: Warn = lambda code, message: None
    seconds: dict[str, float] = field(default_factory=lambda: {"sample": 0.0, "encode": 0.0})

    def __post_init__(self) -> None:
        # Sampling adds the background to what it interpolates from zero: subtracting it here,
        # once, saves a copy of the volume per batch.
        if self.background != 0.0:
            self.image = self.image - self.background

    def responses(
        self,
        stacks: Sequence[PlaneStack],
        occupied: Sequence[BoolArray],
        on_progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[StackResponse]:
        """The responses of each stack in turn, as soon as they are complete.

        Args:
            stacks: The stacks.
            occupied: For each the ``(S,)`` bool slices that show foreground.
            on_progress: Receives the number of slices done and in all, after every batch.

        Raises:
            TomoSegError: ``cancelled``, ``out-of-memory``, ``response-not-finite``.
        """
        wanted = [np.flatnonzero(mask) for mask in occupied]
        total, done, following = sum(map(len, wanted)), 0, 0
        logits: list[list[Tensor]] = [[] for _ in stacks]
        maps: list[list[Tensor]] = [[] for _ in stacks]
        empty: dict[tuple[int, int], tuple[Tensor, Tensor | None]] = {}
        # The empty batch at the end is for stacks that show nothing at all.
        for batch in itertools.chain(self._batches(stacks, wanted), [[]]):
            if self.should_cancel():
                raise cancelled()
            if batch:
                part_logits, part_maps = self._encode(stacks, batch)
                begin = 0
                for index, slices in batch:
                    part = slice(begin, begin + len(slices))
                    logits[index].append(part_logits[part])
                    if part_maps is not None:
                        maps[index].append(part_maps[part])
                    begin = part.stop
                done += begin
                on_progress(done, total)
            while following < len(stacks) and len(wanted[following]) == sum(
                map(len, logits[following])
            ):
                index, following = following, following + 1
                yield self._assemble(index, stacks, wanted, logits[index], maps[index], empty)
                logits[index], maps[index] = [], []

    def _batches(
        self, stacks: Sequence[PlaneStack], wanted: Sequence[npt.NDArray[np.int64]]
    ) -> Iterator[list[tuple[int, npt.NDArray[np.int64]]]]:
        """Pieces (stack, slices) of equal shape, up to the batch size together."""
        batch: list[tuple[int, npt.NDArray[np.int64]]] = []
        count = 0
        for index, slices in enumerate(wanted):
            if batch and stacks[batch[0][0]].shape != stacks[index].shape:
                yield batch
                batch, count = [], 0
            position = 0
            while position < len(slices):
                limit = self._limit(stacks[index].shape)
                taken = slices[position : position + max(1, limit - count)]
                batch.append((index, taken))
                count += len(taken)
                position += len(taken)
                if count >= limit:
                    yield batch
                    batch, count = [], 0
        if batch:
            yield batch

    def _limit(self, shape: tuple[int, int]) -> int:
        default = default_batch_size(shape, self.encoder.device)
        return default if self.batch_size is None else self.batch_size

    def _encode(
        self, stacks: Sequence[PlaneStack], batch: list[tuple[int, npt.NDArray[np.int64]]]
    ) -> tuple[Tensor, Tensor | None]:
        """Sample and evaluate a batch; with less memory, in two halves."""

        def sample() -> Tensor:
            pieces = [
                stacks[index].sample_slices(self.image, self.geometry, slices)
                for index, slices in batch
            ]
            x = pieces[0] if len(pieces) == 1 else torch.cat(pieces)
            return x.add_(self.background) if self.background != 0.0 else x

        try:
            return self._timed(sample)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the except clause, whose traceback keeps the failed pass's tensors alive.
        count = sum(len(slices) for _, slices in batch)
        self._give_way(count)
        if count == 1:
            return self._encode(stacks, batch)
        first: list[tuple[int, npt.NDArray[np.int64]]] = []
        second: list[tuple[int, npt.NDArray[np.int64]]] = []
        room = (count + 1) // 2
        for index, slices in batch:
            if room > 0:
                first.append((index, slices[:room]))
            if len(slices) > room:
                second.append((index, slices[max(room, 0) :]))
            room -= len(slices)
        halves = [self._encode(stacks, half) for half in (first, second)]
        halves_maps = [m.to(self.encoder.device) for _, m in halves if m is not None]
        return (
            torch.cat([q.to(self.encoder.device) for q, _ in halves]),
            torch.cat(halves_maps) if halves_maps else None,
        )

    def _timed(self, sample: Callable[[], Tensor]) -> tuple[Tensor, Tensor | None]:
        start = time.perf_counter()
        x = sample()
        middle = time.perf_counter()
        result = self.evaluate(x)
        self.seconds["sample"] += middle - start
        self.seconds["encode"] += time.perf_counter() - middle
        return result

    def _give_way(self, count: int) -> None:
        """After a failure with ``count`` slices: fewer slices, or the CPU."""
        device = self.encoder.device
        if device.type == "cuda":
            torch.cuda.empty_cache()
        if count > 1:
            self.batch_size = count // 2
            self.on_warning(
                "memory-batch-halved",
                f"Memory of {device} did not suffice for {count} slices at a time: continuing "
                f"with {self.batch_size}.",
            )
        elif device.type != "cpu":
            self.encoder.to("cpu")
            self.image = self.image.cpu()
            self.batch_size = None
            self.on_warning(
                "memory-device-cpu",
                f"Memory of {device} does not suffice for a single slice: continuing on the CPU.",
            )
        else:
            raise TomoSegError(
                "out-of-memory",
                "There is not enough memory to encode a single slice.",
                "Close other programs, or use a model with smaller slices.",
            )

    def _assemble(
        self,
        index: int,
        stacks: Sequence[PlaneStack],
        wanted: Sequence[npt.NDArray[np.int64]],
        logits: list[Tensor],
        maps: list[Tensor],
        empty: dict[tuple[int, int], tuple[Tensor, Tensor | None]],
    ) -> StackResponse:
        device = self.encoder.device
        shape = stacks[index].shape
        if shape not in empty:
            blank = torch.full((1, self.image.shape[0], *shape), self.background, device=device)
            blank_logit, blank_map = self.evaluate(blank)
            empty[shape] = blank_logit[0], None if blank_map is None else blank_map[0]
        empty_logit, empty_map = (None if t is None else t.to(device) for t in empty[shape])
        assert empty_logit is not None
        places = torch.from_numpy(wanted[index]).to(device)
        count = len(stacks[index])
        all_logits = empty_logit.float().repeat(count)
        all_maps = None
        if logits:
            all_logits[places] = torch.cat([q.to(device) for q in logits]).float()
        if empty_map is not None:
            all_maps = empty_map.float().expand(count, -1, -1).clone()
            if maps:
                all_maps[places] = torch.cat([m.to(device) for m in maps]).float()
        if not bool(torch.isfinite(all_logits).all()) or (
            all_maps is not None and not bool(torch.isfinite(all_maps).all())
        ):
            raise TomoSegError(
                "response-not-finite",
                "The model's answer to a slice is not a finite number.",
                "Check that the scan is of the kind that the model's card asks for.",
            )
        return StackResponse(index, all_logits, empty_logit.float(), all_maps, empty_map)
