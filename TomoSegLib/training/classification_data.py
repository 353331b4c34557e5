"""Stacks with a class in memory, and what a training step sees of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from TomoSegLib.imaging.crop import middle_of_slices
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.preprocessing import prepare
from TomoSegLib.models.card import Preprocessing
from TomoSegLib.training.augmentation import augmenter, warp_margin, warper
from TomoSegLib.training.classification_manifest import ClassifiedCase

SHIFT = 8
"""The middle of a slice moves by up to an eighth of its sides in training."""


@dataclass(frozen=True, eq=False)
class PreparedStack:
    """A case in memory.

    Attributes:
        case: Its row.
        image: ``(C, K, J, I)`` float16, prepared slices of one size.
        number: Of its class, from 0.
    """

    case: ClassifiedCase
    image: npt.NDArray[np.float16]
    number: int


def prepare_stack(case: ClassifiedCase, preprocessing: Preprocessing) -> npt.NDArray[np.float32]:
    """Read a case's slices, prepared: ``(C, K, J, I)``, of any size; one slice is a stack, too.

    Raises:
        TomoSegError: Those of `read_volume` and `prepare`, which name the file.
    """
    volumes = [read_volume(path, single_slice=True) for path in case.paths]
    return prepare(volumes, preprocessing).image


def _shift_of(size: tuple[int, int]) -> tuple[int, int]:
    """How far the middle of a slice may move in training, pixels along rows and columns."""
    return size[0] // SHIFT, size[1] // SHIFT


class StackDataset(Dataset[dict[str, Tensor]]):
    """Some slices of each stack, moved a little and augmented by MONAI's transforms.

    The slices are spread over the stack: one, by chance, from each of as many equal parts. Where
    a stack has fewer, they repeat. All that is random follows from the seed and the stack's place
    in the training.

    Args:
        stacks: The cases, from `in_memory` with the same size, rotation and zoom.
        size: Rows and columns that the network sees.
        slices: Slices of a stack that it sees.
        flips: Axes (0 for k, 1 for j, 2 for i) that stacks are flipped along.
        augmentation: Strength of changes of intensity; 0 for none.
        seed: Of the training.
        rotation: Largest turn of a stack in its slices' plane, degrees.
        zoom: Largest zoom along rows and columns each by itself, as a factor; its inverse is the
            least.
    """

    def __init__(
        self,
        stacks: Sequence[PreparedStack],
        size: tuple[int, int],
        slices: int,
        flips: Sequence[int],
        augmentation: float,
        seed: int,
        rotation: float = 0.0,
        zoom: float = 1.0,
    ) -> None:
        self._stacks, self._size, self._slices, self._seed = stacks, size, slices, seed
        self._augment = augmenter(("image",), flips, augmentation)
        # All slices of a stack are turned and zoomed alike.
        modes = {"image": "bilinear"}
        self._warp = warper((slices, *size), rotation, zoom, modes, in_plane=True)
        self._margin = warp_margin(size, rotation, zoom)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        position, index = key
        rng = np.random.default_rng((self._seed, 5, position))
        stack = self._stacks[index]
        places = (np.arange(self._slices) + rng.random(self._slices)) / self._slices
        chosen = np.minimum((places * stack.image.shape[1]).astype(int), stack.image.shape[1] - 1)
        j, i = (int(rng.integers(2 * shift + 1)) for shift in _shift_of(self._size))
        rows, columns = (n + 2 * more for n, more in zip(self._size, self._margin, strict=True))
        seen = {"image": stack.image[:, chosen, j : j + rows, i : i + columns].astype(np.float32)}
        if self._warp is not None:
            self._warp.set_random_state(seed=int(rng.integers(2**31)))
            seen = self._warp(seen)
        self._augment.set_random_state(seed=int(rng.integers(2**31)))
        augmented = self._augment(seen)["image"]
        return {
            "image": torch.as_tensor(np.asarray(augmented), dtype=torch.float32),
            "class": torch.tensor(stack.number),
        }


def in_memory(
    case: ClassifiedCase,
    classes: Sequence[str],
    preprocessing: Preprocessing,
    size: tuple[int, int],
    rotation: float = 0.0,
    zoom: float = 1.0,
) -> PreparedStack:
    """A case with its slices cropped to what a `StackDataset` can see of them.

    Raises:
        TomoSegError: As `prepare_stack`.
    """
    image = prepare_stack(case, preprocessing)
    margin = warp_margin(size, rotation, zoom)
    rows, columns = (
        n + 2 * (shift + more) for n, shift, more in zip(size, _shift_of(size), margin, strict=True)
    )
    cropped = middle_of_slices(image, (rows, columns), preprocessing.background)
    return PreparedStack(case, cropped.astype(np.float16), classes.index(case.class_name))
