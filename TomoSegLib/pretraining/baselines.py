"""The pretext tasks that scale-aware restoration is compared with (Table 2).

3D versions as in Taleb et al., "3D self-supervised methods for medical imaging" (2020). They train
the encoder alone. Pieces of a cube are resized so that the network's five levels fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from TomoSegLib.networks.unet import STRIDE
from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.cubes import Cube, Float32Array
from TomoSegLib.pretraining.tasks import Outcome, Prepared, PretextTask, accuracy, pooled

_GRID = 3
_PIECES = _GRID**3
_CENTRE = _PIECES // 2
_PERMUTATION_SEED = 2020  # the set of permutations is fixed: it belongs to the task


class Rotation(PretextTask):
    """Tell by which of ten rotations the cube was turned: none, or 90, 180, 270 degrees about an
    axis. The cube's largest part with equal sides is used, so that its shape tells nothing.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.prepare = _to_turn
        self.head = nn.Linear(channels, 10)

    def run(self, network: UNet3D, batch: Mapping[str, Tensor]) -> Outcome:
        levels = network.encode(self.seen(batch))
        logits = self.head(pooled(levels)).float()
        return _classified(logits, batch["label"], "rotation", levels)


def _to_turn(cube: Cube, rng: np.random.Generator) -> Prepared:
    side = min(cube.image.shape[1:])
    start = [int(rng.integers(0, n - side + 1)) for n in cube.image.shape[1:]]
    part = _box(cube.image, start, (side, side, side))
    label = int(rng.integers(10))
    return {"image": rotated(part, label), "label": np.array(label)}


def _to_locate(cube: Cube, rng: np.random.Generator) -> Prepared:
    label = int(rng.integers(_PIECES - 1))
    other = label if label < _CENTRE else label + 1
    return {"image": grid_pieces(cube.image, rng)[[_CENTRE, other]], "label": np.array(label)}


def _to_permute(permutations: int, cube: Cube, rng: np.random.Generator) -> Prepared:
    label = int(rng.integers(permutations))
    pieces = grid_pieces(cube.image, rng)[distant_permutations(permutations)[label]]
    return {"image": pieces, "label": np.array(label)}


def _to_predict(cube: Cube, rng: np.random.Generator) -> Prepared:
    return {"image": overlapping_pieces(cube.image)}


def rotated(cube: Float32Array, label: int) -> Float32Array:
    """``(C, n, n, n)`` turned: label 0 not at all, label 1 + 3 a + q by 90 (q + 1) about axis a."""
    if label == 0:
        return np.ascontiguousarray(cube)
    axis, quarters = divmod(label - 1, 3)
    plane = [n for n in (1, 2, 3) if n != axis + 1]
    return np.ascontiguousarray(np.rot90(cube, quarters + 1, (plane[0], plane[1])))


class _OfPieces(PretextTask):
    """A task whose network sees the pieces of cubes, resized to `shape`."""

    shape: tuple[int, int, int]

    def seen(self, batch: Mapping[str, Tensor]) -> Tensor:
        return _fitted(batch["image"], self.shape)


class PatchLocation(_OfPieces):
    """Tell where a piece lies around the central one: 26 ways in a grid of 3 x 3 x 3."""

    def __init__(self, channels: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = piece_shape(shape)
        self.prepare = _to_locate
        self.head = _two_layers(2 * channels, channels, _PIECES - 1)

    def run(self, network: UNet3D, batch: Mapping[str, Tensor]) -> Outcome:
        levels = network.encode(self.seen(batch))
        logits = self.head(pooled(levels).reshape(len(batch["image"]), -1)).float()
        return _classified(logits, batch["label"], "location", levels)


class Jigsaw(_OfPieces):
    """Tell by which of a fixed set of permutations the 27 pieces of the cube were shuffled."""

    def __init__(self, channels: int, shape: tuple[int, int, int], permutations: int = 100) -> None:
        super().__init__()
        self.shape = piece_shape(shape)
        self.prepare = partial(_to_permute, permutations)
        # Each piece's features pass a small layer first, or the head would dwarf the encoder.
        self.reduce = nn.Linear(channels, 64)
        self.head = _two_layers(64 * _PIECES, 256, permutations)

    def run(self, network: UNet3D, batch: Mapping[str, Tensor]) -> Outcome:
        levels = network.encode(self.seen(batch))
        features = F.relu(self.reduce(pooled(levels))).reshape(len(batch["image"]), -1)
        return _classified(self.head(features).float(), batch["label"], "permutation", levels)


class ContrastivePrediction(_OfPieces):
    """Contrastive predictive coding: predict the features of layers of pieces from those above.

    The cube becomes 3 x 3 x 3 pieces of half its sides that overlap by half. A recurrent network
    goes down each column of pieces; from what it has seen, linear maps predict the features of
    the pieces one and two layers below. A prediction has to fit its own piece better than all other
    pieces of that layer in the batch (InfoNCE, van den Oord et al. 2018).
    """

    def __init__(self, channels: int, shape: tuple[int, int, int], width: int = 64) -> None:
        super().__init__()
        self.shape = piece_shape(shape)
        self.prepare = _to_predict
        self.embed = nn.Linear(channels, width)
        self.context = nn.GRU(width, width, batch_first=True)
        self.predict = nn.ModuleList(nn.Linear(width, width, bias=False) for _ in range(_GRID - 1))

    def run(self, network: UNet3D, batch: Mapping[str, Tensor]) -> Outcome:
        cubes = len(batch["image"])
        levels = network.encode(self.seen(batch))
        # (B, layers, columns, F) to one sequence of layers for each column of each cube.
        features = self.embed(pooled(levels)).reshape(cubes, _GRID, _GRID**2, -1)
        sequences = features.transpose(1, 2).reshape(cubes * _GRID**2, _GRID, -1)
        context, _ = self.context(sequences)
        losses, hits = [], []
        labels = torch.arange(len(sequences), device=sequences.device)
        for seen in range(_GRID - 1):
            for ahead, predict in enumerate(self.predict, 1):
                if seen + ahead < _GRID:
                    logits = predict(context[:, seen]) @ sequences[:, seen + ahead].T
                    losses.append(F.cross_entropy(logits.float(), labels))
                    hits.append(accuracy(logits, labels))
        return Outcome(
            {"contrast": torch.stack(losses).mean()},
            levels,
            {"contrast accuracy": torch.stack(hits).mean()},
        )


def grid_pieces(cube: Float32Array, rng: np.random.Generator) -> Float32Array:
    """The 27 pieces of a cube, ``(27, C, k, j, i)``, the last axis fastest.

    Each is a little smaller than its cell and lies in it by chance: borders that continue from
    piece to piece would give the answer away.
    """
    cell = np.array(cube.shape[1:]) // _GRID
    gap = np.maximum(cell // 8, 1)
    side = cell - gap
    pieces = []
    for place in np.ndindex(_GRID, _GRID, _GRID):
        start = np.array(place) * cell + rng.integers(0, gap + 1)
        pieces.append(_box(cube, start, side))
    return np.stack(pieces)


def overlapping_pieces(cube: Float32Array) -> Float32Array:
    """27 pieces ``(27, C, K / 2, J / 2, I / 2)`` at steps of a quarter of the sides."""
    side = np.array(cube.shape[1:]) // 2
    pieces = []
    for place in np.ndindex(_GRID, _GRID, _GRID):
        start = np.array(place) * (side // 2)
        pieces.append(_box(cube, start, side))
    return np.stack(pieces)


def _box(cube: Float32Array, start: Iterable[int], sides: Iterable[int]) -> Float32Array:
    (k, dk), (j, dj), (i, di) = zip(start, sides, strict=True)
    return cube[:, k : k + dk, j : j + dj, i : i + di]


@lru_cache(maxsize=4)
def distant_permutations(count: int) -> npt.NDArray[np.int64]:
    """``(count, 27)`` permutations that differ in many places, the same ones always.

    Of a hundred random candidates each time the one with the largest Hamming distance to those
    chosen is taken (Noroozi & Favaro 2016).
    """
    rng = np.random.default_rng(_PERMUTATION_SEED)
    chosen = rng.permutation(_PIECES)[None]
    while len(chosen) < count:
        candidates = np.stack([rng.permutation(_PIECES) for _ in range(100)])
        distance = (candidates[:, None] != chosen[None]).sum(axis=2).min(axis=1)
        chosen = np.concatenate([chosen, candidates[[int(distance.argmax())]]])
    return chosen


def piece_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """What pieces are resized to: half of the cube's sides, in multiples that the network takes."""
    half = [max(STRIDE, n // 2 // STRIDE * STRIDE) for n in shape]
    return half[0], half[1], half[2]


def _fitted(pieces: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """``(B, P, C, k, j, i)`` pieces as a batch ``(B P, C, *shape)``."""
    flat = pieces.flatten(0, 1)
    if tuple(flat.shape[2:]) == shape:
        return flat
    return F.interpolate(flat, size=shape, mode="trilinear", align_corners=False)


def _two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def _classified(logits: Tensor, labels: Tensor, name: str, levels: list[Tensor]) -> Outcome:
    return Outcome(
        {name: F.cross_entropy(logits, labels)},
        levels,
        {f"{name} accuracy": accuracy(logits, labels)},
    )
