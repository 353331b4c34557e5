"""From probabilities on a model's grid to probabilities and a label map on the scan's own grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from TomoSegLib.heatmaps.mask import keep_components
from TomoSegLib.imaging.foreground import bounding_box
from TomoSegLib.imaging.itk import sitk_image, write_itk
from TomoSegLib.imaging.preprocessing import sample_on
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import Label, MaskSettings, ModelCard

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Labelmap = npt.NDArray[np.uint8]


def to_source(
    probabilities: Float32Array,
    grid: Geometry,
    source: Geometry,
    inside: BoolArray,
    card: ModelCard,
) -> tuple[Float32Array, Labelmap]:
    """Probabilities of the labels, and the label map that follows from them, on the source grid.

    Probabilities are interpolated linearly; the decision is taken on the source grid, so that
    borders are as smooth as its voxels allow. Voxels that are not inside belong to no label.

    Args:
        probabilities: ``(K, k, j, i)`` of the card's outputs, on the model's grid.
        grid: The model's grid.
        source: The scan's grid.
        inside: ``[k, j, i]`` bool on the scan's grid.
        card: The card of the segmenter.

    Returns:
        ``[k, j, i, L]`` float32 of the card's labels in their order, 0 where not inside, and
        ``[k, j, i]`` uint8 of the labels' values, 0 for none.
    """
    window = card.sliding_window
    assert window is not None
    box = bounding_box(inside)
    assert box is not None, "nothing is inside"
    region = source.part(box)
    within = inside[box]
    order = [label.value for label in card.labels]
    found = np.zeros((*source.shape, len(order)), np.float32)
    labelmap = np.zeros(source.shape, np.uint8)
    chosen = labelmap[box]
    softmax = window.activation == "softmax"
    best = np.full(within.shape, -np.inf, np.float32)
    for output, value in zip(probabilities, card.outputs, strict=True):
        share = sample_on(output, grid, region, outside=1.0 if value == 0 else 0.0)
        if value:
            np.copyto(found[box][..., order.index(value)], share, where=within)
        better = share > (best if softmax else np.float32(window.threshold))
        np.copyto(chosen, np.uint8(value), where=better)
        if softmax:
            np.copyto(best, share, where=better)
    chosen[~within] = 0
    return found, labelmap


def clean(
    labelmap: Labelmap,
    probabilities: Float32Array,
    labels: Sequence[Label],
    settings: MaskSettings,
    geometry: Geometry,
) -> None:
    """Remove, in place, each label's components that are not worth keeping.

    Args:
        labelmap: ``[k, j, i]``.
        probabilities: ``[k, j, i, L]`` of the labels, for the choice ``peak``.
        labels: The labels.
        settings: Which components of each label are kept.
        geometry: The grid.
    """
    if settings.components == "all" and settings.minimum_size_ml == 0:
        return
    for index, label in enumerate(labels):
        mask = labelmap == label.value
        kept = mask.copy()
        keep_components(kept, probabilities[..., index], settings, geometry.voxel_volume_ml)
        labelmap[mask & ~kept] = 0


def write_probabilities(
    path: Path, probabilities: Float32Array, geometry: Geometry, labels: Sequence[Label]
) -> None:
    """Write the probabilities of the labels as one NRRD file.

    One label gives an ordinary scalar volume. Several give a volume with one component for each
    label (NRRD kind ``vector``), which Slicer and SimpleITK open as such. The header's fields
    ``TomoSeg_Label0``, ``TomoSeg_Label1``, ... are the labels' values and names.

    Args:
        path: A file that ends in ``.nrrd``.
        probabilities: ``[k, j, i, L]`` float32.
        geometry: The grid.
        labels: What the L components are.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    if probabilities.shape[-1] == 1:
        image = sitk_image(probabilities[..., 0], geometry)
    else:
        image = sitk.GetImageFromArray(probabilities, isVector=True)
        image.SetSpacing(geometry.spacing.tolist())
        image.SetDirection(geometry.direction.ravel().tolist())
        image.SetOrigin(geometry.origin.tolist())
    write_itk(image, path, label_fields(labels))


def label_fields(labels: Sequence[Label]) -> dict[str, str]:
    """Header fields that say what the components of probabilities are."""
    return {
        f"TomoSeg_Label{index}": f"{label.value} {' '.join(label.name.split())}"
        for index, label in enumerate(labels)
    }
