"""Images of many studies with the targets of the plane tasks, as batches."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.pretraining.planes_targets import (
    PlaneOptions,
    crop_plane,
    cutting_views,
    line_heatmap,
    sample_image,
    smoothed,
    standardised,
    varied_contrast,
)
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.study import KINDS, UNKNOWN, Study

# Of a kind's images in those of the commonest kind.
_LEAST_SHARE = 1 / 3


@dataclass(frozen=True, eq=False)
class PlaneExample:
    """One image with what is known of it.

    Attributes:
        study: Name of its study.
        view: Name of its view.
        kind: What the view shows.
        phase: Time point.
        plane: Where it lies.
        image: ``(rows, columns)`` float16, scaled to about [0, 1].
        cutting: The plane of each kind that cuts it, or None, in the order of the channels.
        location: Its relative location, or None.
    """

    study: str
    view: str
    kind: str
    phase: int
    plane: ImagePlane
    image: npt.NDArray[np.float16]
    cutting: tuple[ImagePlane | None, ...]
    location: float | None


def find_studies(folder: Path, on_read: Callable[[int, int], None] | None = None) -> list[Study]:
    """The studies in the folders of a folder, sorted by name; what is no study is told and left.

    A folder without folders of studies may be one itself.

    Raises:
        TomoSegError: ``study-not-found`` or ``study-empty``: there is none.
    """
    if not folder.is_dir():
        raise TomoSegError(
            "study-not-found", f"There is no folder '{folder}'.", "Give a folder of studies."
        )
    parts = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    studies: list[Study] = []
    reasons: list[str] = []
    for number, part in enumerate(parts):
        try:
            study = read_study(part)
        except TomoSegError as error:
            reasons.append(error.message)
            warnings.warn(
                TomoSegWarning(error.code, f"'{part.name}' is left out: {error.message}"),
                stacklevel=2,
            )
        else:
            studies.append(study)
        if on_read is not None:
            on_read(number + 1, len(parts))
    if studies:
        return studies
    try:
        return [read_study(folder)]
    except TomoSegError as error:
        raise TomoSegError(
            "study-empty",
            f"'{folder}' holds no study that can be used: {(reasons or [error.message])[0]}",
            "Give a folder with one folder for each patient.",
        ) from error


def kinds_of(studies: Sequence[Study]) -> tuple[str, ...]:
    """The kinds of views that studies have, which are the channels of the heatmaps."""
    present = {view.kind for study in studies for view in study.views}
    return tuple(kind for kind in KINDS if kind in present and kind != UNKNOWN)


def read_examples(
    study: Study,
    kinds: Sequence[str],
    options: PlaneOptions,
    phases: int,
    *,
    all_images: bool = False,
) -> list[PlaneExample]:
    """Every image of a study that some target is known for.

    Args:
        study: The study.
        kinds: Channels of the heatmaps.
        options: See `PlaneOptions`.
        phases: Time points of a cine view, evenly spaced; the views of a study are of one rhythm.
        all_images: Also those without a target, for tasks that need none.
    """
    examples = []
    for view in study.views:
        if view.kind == UNKNOWN and not all_images:
            continue
        locations = view.locations()
        count = min(phases, view.phases)
        for index, plane in enumerate(view.planes):
            cutting = tuple(cutting_views(view, index, study.views, kinds))
            location = None if locations is None else float(locations[index])
            if location is None and not any(cutting) and not all_images:
                continue
            for n in range(count):
                phase = n * view.phases // count
                try:
                    image = np.nan_to_num(view.sources[phase][index].read())
                    if image.shape != plane.shape:
                        raise ValueError("another matrix than the header says")
                except (TomoSegError, ValueError) as error:
                    text = error.message if isinstance(error, TomoSegError) else str(error)
                    name = view.sources[phase][index].path.name
                    warnings.warn(
                        TomoSegWarning("volume-unreadable", f"'{name}' is left out: {text}"),
                        stacklevel=2,
                    )
                    continue
                high = float(np.percentile(image, 99.5))
                image = smoothed(image, plane, options.spacing_mm) / max(high, 1e-6)
                examples.append(
                    PlaneExample(
                        study.name,
                        view.name,
                        view.kind,
                        phase,
                        plane,
                        image.clip(-4, 4).astype(np.float16),
                        cutting,
                        location,
                    )
                )
    return examples


def balanced(examples: Sequence[PlaneExample]) -> list[PlaneExample]:
    """The images with those of rare kinds repeated, so that none is rarer than `_LEAST_SHARE`.

    A short-axis stack has a dozen slices where a long-axis view has one image: drawn as they come,
    long-axis views are hardly learned.

    Returns:
        All images, in their order, whole repetitions of a kind after them.
    """
    counts = Counter(example.kind for example in examples)
    wanted = max(counts.values(), default=0) * _LEAST_SHARE
    repeated = list(examples)
    for kind, count in counts.items():
        more = [example for example in examples if example.kind == kind]
        repeated += more * (math.ceil(wanted / count) - 1)
    return repeated


class PlaneDataset(Dataset[dict[str, Tensor]]):
    """Images and targets; what is random follows from the place in the training alone.

    A key is ``(position, index)``: the place in the training and the example. An item has

    * ``image`` ``(1, S, S)``: standardised,
    * ``heatmaps`` ``(C, S, S)`` and ``known`` ``(C,)``: a channel a kind, 1 where it has a target,
    * ``location`` and ``located``: scalars, the latter 1 where there is one.

    Args:
        examples: The images.
        options: See `PlaneOptions`.
        seed: Of the augmentation; None for none.
    """

    def __init__(
        self,
        examples: Sequence[PlaneExample],
        options: PlaneOptions,
        seed: tuple[int, ...] | None = None,
    ) -> None:
        self.examples, self._options, self._seed = examples, options, seed

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        position, index = key
        example, options = self.examples[index], self._options
        rng = None if self._seed is None else np.random.default_rng((*self._seed, position))
        target = crop_plane(example.plane, options, rng)
        image, inside = sample_image(example.image, example.plane, target)
        image = standardised(image, inside)
        if rng is not None:
            image = varied_contrast(image, options, rng)
        heatmaps = np.zeros((len(example.cutting), *target.shape), np.float32)
        for channel, other in enumerate(example.cutting):
            if other is not None:
                heatmaps[channel] = line_heatmap(target, other, options.sigma_mm)
        return {
            "image": torch.from_numpy(image[None]),
            "heatmaps": torch.from_numpy(heatmaps),
            "known": torch.tensor([float(other is not None) for other in example.cutting]),
            "location": torch.tensor(example.location or 0.0),
            "located": torch.tensor(float(example.location is not None)),
        }
