"""Labelled volumes for fine-tuning in memory, and patches drawn from them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.preprocessing import ModelInput, prepare, sample_on
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.models.card import Preprocessing
from TomoSegLib.training.augmentation import augmenter, warp_margin, warper
from TomoSegLib.training.pseudo_labels import UNSURE
from TomoSegLib.training.segmentation_manifest import LabelledCase, LabelSpec

Labelmap = npt.NDArray[np.uint8]

_GEOMETRY_MM = 0.05  # corners of image and label map may differ so far: headers are rounded
_PLACES_PER_CLASS = 20_000  # voxels of each class that patches may be centred on


@dataclass(frozen=True, eq=False)
class PreparedLabels:
    """A labelled case in memory, on the model's grid.

    Attributes:
        case: Its row.
        image: ``(C, K, J, I)`` float16, as the network sees it.
        classes: ``(K, J, I)`` uint8: 0 for the background, n for the n-th label, `UNSURE` where
            nothing is known.
        places: Of each class, flat indices of voxels that patches may be centred on.
    """

    case: LabelledCase
    image: npt.NDArray[np.float16]
    classes: Labelmap
    places: tuple[npt.NDArray[np.int64], ...]


def read_classes(
    case: LabelledCase,
    image: Volume,
    labels: Sequence[LabelSpec],
    *,
    with_unsure: bool = False,
    single_slice: bool = False,
) -> Labelmap:
    """A case's label map as classes on its image's grid: 0, or n for the n-th label.

    Args:
        case: The case.
        image: Its first volume.
        labels: What the values of the label map mean.
        with_unsure: Whether the value `UNSURE` means that nothing is known of a voxel.
        single_slice: Accept a grid of one slice.

    Raises:
        TomoSegError: ``label-geometry`` if it lies on another grid, ``label-not-integer``, and
            those of reading.
    """
    volume = read_volume(case.label, single_slice=single_slice, constant=True)
    if not volume.geometry.is_close(image.geometry, _GEOMETRY_MM):
        raise TomoSegError(
            "label-geometry",
            f"The label map '{case.label}' does not lie on the grid of '{case.paths[0]}': "
            f"{volume.geometry.size} voxels against {image.geometry.size}, or elsewhere in space.",
            "Resample it to the image's grid with nearest neighbours, or correct the manifest.",
        )
    values = np.unique(volume.array)
    if not np.array_equal(values, np.round(values)):
        raise TomoSegError(
            "label-not-integer",
            f"The label map '{case.label}' holds values such as "
            f"{values[values != np.round(values)][0]:g}.",
            "Label maps hold whole numbers; it may be the image, or was interpolated.",
        )
    known = {0} | {value for label in labels for value in label.values}
    known |= {UNSURE} if with_unsure else set()
    if others := [int(value) for value in values if int(value) not in known]:
        warnings.warn(
            TomoSegWarning(
                "label-values-ignored",
                f"Values {', '.join(map(str, others[:5]))} of '{case.label.name}' have no name "
                "and count as background.",
                "Name them in --labels if they matter.",
            ),
            stacklevel=2,
        )
    classes = np.zeros(volume.array.shape, np.uint8)
    for number, label in enumerate(labels, 1):
        classes[np.isin(volume.array, label.values)] = number
    if with_unsure:
        classes[volume.array == UNSURE] = UNSURE
    return classes


def read_case(
    case: LabelledCase, labels: Sequence[LabelSpec], *, in_plane: bool, with_unsure: bool = False
) -> tuple[list[Volume], Labelmap]:
    """A case's volumes and its classes on their grid; of a stack (``in_plane``) one slice will do.

    Raises:
        TomoSegError: Those of `read_classes` and `read_volume`.
    """
    volumes = [read_volume(path, single_slice=in_plane) for path in case.paths]
    classes = read_classes(case, volumes[0], labels, with_unsure=with_unsure, single_slice=in_plane)
    return volumes, classes


def prepare_labelled(
    case: LabelledCase,
    labels: Sequence[LabelSpec],
    preprocessing: Preprocessing,
    *,
    with_unsure: bool = False,
) -> PreparedLabels:
    """Read a case and bring it onto the model's grid, labels by nearest neighbour.

    Raises:
        TomoSegError: Those of `read_classes`, `read_volume` and `prepare`.
    """
    volumes, classes = read_case(
        case, labels, in_plane=preprocessing.in_plane, with_unsure=with_unsure
    )
    found: ModelInput = prepare(volumes, preprocessing)
    moved = sample_on(classes, volumes[0].geometry, found.geometry, order=0).astype(np.uint8)
    rng = np.random.default_rng(0)
    places = []
    for number in range(len(labels) + 1):
        # Background far away from the patient teaches nothing.
        of_class = moved == number if number else (moved == 0) & found.foreground
        indices = np.flatnonzero(of_class)
        if len(indices) > _PLACES_PER_CLASS:
            indices = rng.choice(indices, _PLACES_PER_CLASS, replace=False)
        places.append(indices)
    return PreparedLabels(case, found.image.astype(np.float16), moved, tuple(places))


def refuse_missing_classes(cases: Sequence[PreparedLabels], labels: Sequence[LabelSpec]) -> None:
    """Every label has to occur in the training cases.

    Raises:
        TomoSegError: ``label-class-missing``.
    """
    for number, label in enumerate(labels, 1):
        if not any(len(case.places[number]) for case in cases):
            raise TomoSegError(
                "label-class-missing",
                f"The label {label.name} (value {'+'.join(map(str, label.values))}) occurs in none "
                f"of the {len(cases)} training cases that are used.",
                "Correct --labels, or use a larger --fraction or another --seed.",
            )


def with_labels(cases: list[PreparedLabels], labels: Sequence[LabelSpec]) -> list[PreparedLabels]:
    """Validation cases, or none where they cannot judge: their Dice needs a label in one of them.

    Warns of labels that occur in none: they do not count when weights are chosen.
    """
    absent = [
        label.name
        for number, label in enumerate(labels, 1)
        if not any(len(case.places[number]) for case in cases)
    ]
    every = len(absent) == len(labels)
    if cases and absent:
        warnings.warn(
            TomoSegWarning(
                "validation-label-missing",
                f"No validation case has {', '.join(absent)}: "
                + ("the last weights are kept." if every else "weights are chosen by the others."),
                "Add validation cases that have it.",
            ),
            stacklevel=2,
        )
    return [] if every else cases


class PatchDataset(Dataset[dict[str, Tensor]]):
    """Random patches, half of them and more centred on labels; augmented by MONAI's transforms.

    All that is random follows from the seed and the patch's place in the training.

    Args:
        cases: The cases.
        patch: ``(k, j, i)`` voxels.
        background: Value outside a case.
        flips: Axes (0 for k, 1 for j, 2 for i) that patches are flipped along.
        augmentation: Strength of changes of intensity; 0 for none.
        seed: Of the training.
        rotation: Largest turn about each axis, degrees; of patches of one slice in their plane.
        zoom: Largest zoom along each axis by itself, as a factor; its inverse is the least.
    """

    def __init__(
        self,
        cases: Sequence[PreparedLabels],
        patch: tuple[int, int, int],
        background: float,
        flips: Sequence[int],
        augmentation: float,
        seed: int,
        rotation: float = 0.0,
        zoom: float = 1.0,
    ) -> None:
        self._cases, self._patch, self._background = cases, patch, background
        self._seed = seed
        self._augment = augmenter(("image", "classes"), flips, augmentation)
        modes = {"image": "bilinear", "classes": "nearest"}
        flat = patch[0] == 1  # a 2D network's: it stays in its plane
        self._warp = warper(patch, rotation, zoom, modes, in_plane=flat)
        self._margin = (
            (0, *warp_margin(patch[1:], rotation, zoom))
            if flat
            else warp_margin(patch, rotation, zoom)
        )

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        position, index = key
        rng = np.random.default_rng((self._seed, 5, position))
        case = self._cases[index]
        present = [number for number, places in enumerate(case.places) if len(places)]
        places = case.places[present[int(rng.integers(len(present)))]] if present else [0]
        center = np.unravel_index(int(places[int(rng.integers(len(places)))]), case.classes.shape)
        # The centre of the class lies anywhere in the middle half of the patch.
        half = np.array(self._patch) // 2
        shift = rng.integers(-half // 2, half // 2 + 1)
        start = np.array(center) - half + shift
        spare = np.array(case.classes.shape) - self._patch
        start = np.clip(start, 0, np.maximum(spare, 0)) - np.maximum(-spare, 0) // 2
        start, size = start - self._margin, np.array(self._patch) + 2 * np.array(self._margin)
        patch = {
            "image": _cut(case.image, start, size, np.float32(self._background)),
            "classes": _cut(case.classes[None], start, size, np.uint8(0)),
        }
        if self._warp is not None:
            self._warp.set_random_state(seed=int(rng.integers(2**31)))
            patch = self._warp(patch)
        self._augment.set_random_state(seed=int(rng.integers(2**31)))
        augmented = self._augment(patch)
        return {
            "image": torch.as_tensor(np.asarray(augmented["image"]), dtype=torch.float32),
            "classes": torch.as_tensor(np.asarray(augmented["classes"]), dtype=torch.long),
        }


def _cut(
    array: npt.NDArray[Any],
    start: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    value: np.generic,
) -> npt.NDArray[Any]:
    """A box of ``(C, k, j, i)`` in the type of a value, which fills it where it reaches beyond."""
    whole = np.array(array.shape[1:])
    low, high = np.clip(start, 0, whole), np.clip(start + size, 0, whole)
    k, j, i = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    part = array[:, k, j, i].astype(value.dtype, copy=False)
    margins = [(0, 0), *zip(low - start, start + size - high, strict=True)]
    return np.pad(part, margins, constant_values=value) if np.any(margins) else part
