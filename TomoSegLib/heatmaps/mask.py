"""From a heatmap to a mask: a threshold, and the connected components worth keeping."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.filters import threshold_otsu

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import PLATEAU_ML, MaskSettings, Threshold

BoolArray = npt.NDArray[np.bool_]
Heatmap = npt.NDArray[np.float32]

_OTSU_BINS = 1024
# Voxels that touch at a face, an edge or a corner belong together: lesions that are thin across
# an oblique grid must not fall apart.
_NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


def heatmap_to_mask(
    heatmap: Heatmap,
    foreground: BoolArray,
    threshold: str | float | Threshold,
    settings: MaskSettings,
    geometry: Geometry,
    *,
    calibrated: Threshold | None = None,
) -> tuple[npt.NDArray[np.uint8], float]:
    """The foreground voxels above a threshold, in components that are large enough.

    Args:
        heatmap: ``(k, j, i)``.
        foreground: ``(k, j, i)`` bool: nothing outside is ever in the mask.
        threshold: ``card`` (``calibrated``), ``otsu`` and ``percentile:Q`` (both of the
            foreground's values), a number in the heatmap's units, or a `Threshold`.
        settings: Smallest size and choice of components (26-connected). ``largest`` is the one of
            most voxels; ``peak`` the one that holds the highest value, of those large enough.
        geometry: The grid, for sizes.
        calibrated: The threshold on the model's card for the method that made the heatmap.

    Returns:
        ``(k, j, i)`` uint8 mask of 0 and 1, and the threshold in the heatmap's units; mask voxels
        are strictly above it.

    Raises:
        TomoSegError: ``heatmap-not-finite``, ``foreground-empty``, ``threshold-invalid``,
            ``threshold-not-calibrated``.
    """
    if heatmap.shape != geometry.shape or foreground.shape != geometry.shape:
        raise ValueError(f"heatmap {heatmap.shape} or foreground does not fit {geometry.shape}")
    # Extrema are finite only if everything is (NaN spreads): no temporary of the volume's size.
    if not (math.isfinite(float(heatmap.min())) and math.isfinite(float(heatmap.max()))):
        raise TomoSegError(
            "heatmap-not-finite",
            "The heatmap holds values that are not finite numbers.",
            "Check the model and the scan: a mask cannot be made from this heatmap.",
        )
    level = find_threshold(heatmap, foreground, threshold, geometry.voxel_volume_ml, calibrated)
    mask = np.greater(heatmap, level)
    mask &= foreground
    keep_components(mask, heatmap, settings, geometry.voxel_volume_ml)
    return mask.view(np.uint8), level


def plateau(values: Heatmap, voxel_ml: float) -> float:
    """Mean of the hottest `PLATEAU_ML`, or of everything where there is less.

    Args:
        values: ``(N,)``, at least one; not changed.
        voxel_ml: Size of a voxel.
    """
    count = min(max(1, round(PLATEAU_ML / voxel_ml)), values.size)
    hottest = np.partition(values, values.size - count)[values.size - count :]
    return float(hottest.mean(dtype=np.float64))


def find_threshold(
    heatmap: Heatmap,
    foreground: BoolArray,
    threshold: str | float | Threshold,
    voxel_ml: float,
    calibrated: Threshold | None = None,
) -> float:
    """The threshold of `heatmap_to_mask` in the heatmap's units; ``voxel_ml`` is a voxel's size."""
    if threshold == "card":
        if calibrated is None:
            raise TomoSegError(
                "threshold-not-calibrated",
                "The model's card has no calibrated threshold for this method.",
                "Choose otsu, percentile:Q or a number as the threshold.",
            )
        threshold = calibrated
    if isinstance(threshold, Threshold):
        if threshold.kind == "absolute":
            return threshold.value
        values = heatmap[foreground]
        if values.size == 0:
            raise _empty_foreground()
        top = float(values.max()) if threshold.kind == "peak" else plateau(values, voxel_ml)
        # A heatmap that is nowhere positive has no peak to take a fraction of: nothing is found.
        return threshold.value * top if top > 0 else max(float(values.max()), 0.0)
    if isinstance(threshold, str) and (threshold == "otsu" or threshold.startswith("percentile:")):
        values = heatmap[foreground]
        if values.size == 0:
            raise _empty_foreground()
        if threshold != "otsu":
            rank = _number(threshold.partition(":")[2], threshold)
            if not 0 <= rank <= 100:
                raise _invalid(threshold)
            return float(np.percentile(values, rank))
        low, high = float(values.min()), float(values.max())
        if low == high:
            return high
        counts, edges = np.histogram(values, bins=_OTSU_BINS, range=(low, high))
        # Otsu's lower class ends with a whole bin: at its right edge, not at its centre.
        return float(threshold_otsu(hist=(counts, edges[1:])))
    value = _number(threshold, threshold)
    if not math.isfinite(value):
        raise _invalid(threshold)
    return value


def keep_components(
    mask: BoolArray, heatmap: Heatmap, settings: MaskSettings, voxel_volume_ml: float
) -> None:
    """Remove from a mask, in place, the components that are not worth keeping.

    Args:
        mask: ``(k, j, i)``.
        heatmap: ``(k, j, i)``: where its peak is, for the choice ``peak``.
        settings: Smallest size and choice of components, see `heatmap_to_mask`.
        voxel_volume_ml: Volume of a voxel, mL.
    """
    # 1e-9: a size that is a whole number of voxels must not ask for one more by rounding.
    smallest = max(1, math.ceil(settings.minimum_size_ml / voxel_volume_ml - 1e-9))
    if settings.components == "all" and smallest == 1:
        return
    boxes = ndimage.find_objects(mask.view(np.uint8))
    if not boxes:
        return
    inside = mask[boxes[0]]
    labels, count = ndimage.label(inside, structure=_NEIGHBOURS)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    kept = sizes >= smallest
    kept[0] = False
    if settings.components == "largest" and kept.any():
        best = int(np.argmax(np.where(kept, sizes, 0)))
        kept[:] = False
        kept[best] = True
    elif settings.components == "peak" and kept.any():
        candidates = np.where(kept[labels], heatmap[boxes[0]], -np.inf)
        best = int(labels.ravel()[np.argmax(candidates)])
        kept[:] = False
        kept[best] = True
    np.copyto(inside, kept[labels])


def _number(text: str | float, threshold: object) -> float:
    try:
        return float(text)
    except (TypeError, ValueError):
        raise _invalid(threshold) from None


def _invalid(threshold: object) -> TomoSegError:
    return TomoSegError(
        "threshold-invalid",
        f"The threshold '{threshold}' is not card, otsu, percentile:Q or a finite number.",
        "For example otsu, percentile:99 or 0.25.",
    )


def _empty_foreground() -> TomoSegError:
    return TomoSegError(
        "foreground-empty",
        "The foreground is empty: the threshold has no values to come from.",
        "Check the foreground mask, or give the threshold as a number.",
    )
