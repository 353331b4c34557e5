"""Figures of segments as a table."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from TomoSegLib.exports.surface import surface, surface_area_mm2
from TomoSegLib.exports.terminology import terminology_of
from TomoSegLib.files import atomic_path
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Label

_NEIGHBOURS = np.ones((3, 3, 3), dtype=np.bool_)


def segment_statistics(
    mask: npt.NDArray[np.bool_],
    label: Label,
    geometry: Geometry,
    image: Volume | None,
    heatmap: Volume | None,
) -> dict[str, Any]:
    """One segment's row of the table; what is not known is None.

    Args:
        mask: ``(k, j, i)``.
        label: What it is.
        geometry: Its grid.
        image: The scan on that grid, where it is at hand.
        heatmap: Likewise.

    Returns:
        Sizes in mL, mm^2 and mm, centroid and extents in LPS mm; components are 26-connected.
    """
    codes = terminology_of(label)
    row: dict[str, Any] = {
        "segment": label.name,
        "label_value": label.value,
        "category": str(codes.category),
        "type": str(codes.type),
        "type_modifier": str(codes.modifier or ""),
        "anatomic_region": str(codes.region or ""),
        "anatomic_region_modifier": str(codes.region_modifier or ""),
        "voxels": int(np.count_nonzero(mask)),
        "volume_ml": np.count_nonzero(mask) * geometry.voxel_volume_ml,
        "components": int(ndimage.label(mask, _NEIGHBOURS)[1]),
    }
    names = ("surface_mm2", *(f"{what}_{axis}_mm" for what in _PLACES for axis in "lps"))
    row |= dict.fromkeys(names)
    if row["voxels"]:
        row["surface_mm2"] = surface_area_mm2(*surface(mask, geometry))
        points = geometry.index_to_lps(np.argwhere(mask)[:, ::-1])
        for what, place in zip(
            _PLACES, (points.mean(axis=0), points.min(axis=0), points.max(axis=0)), strict=True
        ):
            row |= {f"{what}_{axis}_mm": float(v) for axis, v in zip("lps", place, strict=True)}
    for what, volume in (("image", image), ("heatmap", heatmap)):
        row |= {f"{what}_{name}": None for name in _FIGURES}
        if volume is not None and row["voxels"]:
            values = volume.array[mask].astype(np.float64)
            row |= {f"{what}_{name}": float(figure(values)) for name, figure in _FIGURES.items()}
    return row


def write_statistics(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write the table as CSV (UTF-8), atomically; cells of what is not known are empty.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


_PLACES = ("centroid", "minimum", "maximum")
_FIGURES: dict[str, Any] = {
    "mean": np.mean,
    "standard_deviation": np.std,
    "minimum": np.min,
    "median": np.median,
    "maximum": np.max,
}
