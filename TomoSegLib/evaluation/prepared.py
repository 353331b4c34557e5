"""One case of an evaluation, read and prepared as a run would, with its reference mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from TomoSegLib.datasets.manifest import Case
from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.figures import Thumbnail
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.preprocessing import ModelInput, prepare, sample_on
from TomoSegLib.imaging.volume import Geometry, Volume, hash_volume
from TomoSegLib.models.card import ModelCard

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]

_PIXEL_MM = 1.0
"""Pixel size of thumbnails."""


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """A case in memory.

    Attributes:
        case: Its row of the manifest.
        image: The first channel as it was read.
        model_input: What the model sees.
        reference: ``(k, j, i)`` on the source grid: where the lesion is; None if it is not known.
        hashes: Hash of the content of each file, by what it is.
    """

    case: Case
    image: Volume
    model_input: ModelInput
    reference: BoolArray | None
    hashes: Mapping[str, str]

    def reference_on_model_grid(self) -> BoolArray | None:
        """The reference on the model's grid, by nearest neighbour."""
        if self.reference is None:
            return None
        return _mask_on(self.reference, self.model_input.source, self.model_input.geometry)


def prepare_case(case: Case, card: ModelCard) -> PreparedCase:
    """Read a case's volumes and mask, and prepare them for a model.

    Raises:
        TomoSegError: Those of `read_volume` and `prepare`, ``manifest-channels`` and
            ``manifest-mask``.
    """
    paths = case.channel_paths([channel.name for channel in card.channels])
    volumes = [read_volume(path) for path in paths]
    hashes = {
        channel.name: hash_volume(volume)
        for channel, volume in zip(card.channels, volumes, strict=True)
    }
    mask = _read_mask(case)
    if mask is not None:
        hashes["mask"] = hash_volume(mask)
    model_input = prepare(volumes, card.preprocessing)
    reference: BoolArray | None
    if mask is not None:
        reference = _mask_on(mask.array, mask.geometry, model_input.source)
    else:  # nobody needs to draw that there is nothing
        reference = np.zeros(model_input.source.shape, dtype=bool) if case.label == 0 else None
    if reference is not None and bool(reference.any()) != bool(case.label):
        contents = "an empty" if case.label else "a"
        raise TomoSegError(
            "manifest-mask",
            f"Case {case.id!r} has label {case.label} and {contents} mask within its volume.",
            "Correct the label, or name the mask that belongs to this volume.",
        )
    return PreparedCase(case, volumes[0], model_input, reference, hashes)


def thumbnail(
    prepared: PreparedCase, heatmaps: Mapping[str, Float32Array], masks: Mapping[str, BoolArray]
) -> Thumbnail | None:
    """The axial slice with the most of the reference; None where there is no reference.

    Args:
        prepared: The case.
        heatmaps: ``(k, j, i)`` of each method, on the source grid.
        masks: Likewise.
    """
    if prepared.reference is None or not prepared.reference.any():
        return None
    source = prepared.model_input.source
    target = _axial_slice(prepared.reference, prepared.model_input.source_foreground, source)

    def cut(array: npt.NDArray[np.generic]) -> Float32Array:
        return sample_on(array.astype(np.float32), source, target)[0]

    return Thumbnail(
        case=prepared.case.id,
        image=cut(prepared.image.array),
        reference=cut(prepared.reference),
        heatmaps={name: cut(heatmap) for name, heatmap in heatmaps.items()},
        masks={name: cut(mask) for name, mask in masks.items()},
    )


def _read_mask(case: Case) -> Volume | None:
    """The case's mask as 0 and 1, or None where it has none; an empty file says nothing new."""
    if case.mask is None:
        return None
    try:
        mask = read_volume(case.mask)
    except TomoSegError as error:
        if error.code == "volume-constant" and case.label == 0:
            return None
        raise
    return mask.with_array(np.greater(mask.array, 0).astype(np.uint8))


def _mask_on(mask: npt.NDArray[Any], geometry: Geometry, target: Geometry) -> BoolArray:
    """A mask on another grid, by nearest neighbour; voxels of the same grid stay as they are."""
    if geometry.is_close(target):
        return mask > 0
    return sample_on(mask, geometry, target, order=0) > 0


def _axial_slice(reference: BoolArray, foreground: BoolArray, geometry: Geometry) -> Geometry:
    """A plane of square pixels through the level (LPS z) where most of the reference lies."""
    height = geometry.index_to_lps(np.argwhere(reference)[:, ::-1])[:, 2]
    counts, edges = np.histogram(height, bins=max(int(np.ptp(height) / 2), 1))
    level = edges[int(np.argmax(counts))] + (edges[1] - edges[0]) / 2
    inside = geometry.index_to_lps(np.argwhere(foreground)[:, ::-1])[:, :2]
    low, high = inside.min(axis=0), inside.max(axis=0)
    width, depth = (np.ceil((high - low) / _PIXEL_MM).astype(int) + 1).tolist()
    return Geometry.from_parts(
        (1, depth, width), [_PIXEL_MM] * 3, origin=(low[0], low[1], float(level))
    )
