"""How slices are read: radiological convention for planes of any orientation."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from TomoSegLib.imaging.volume import FloatArray

# In-plane axes (columns, rows) of slices as radiologists read them, by the LPS axis that the
# normal is closest to: sagittal (to posterior, down), coronal (to left, down), axial (to left, to
# posterior).
_READING_AXES: tuple[tuple[tuple[int, int, int], tuple[int, int, int]], ...] = (
    ((0, 1, 0), (0, 0, -1)),
    ((1, 0, 0), (0, 0, -1)),
    ((1, 0, 0), (0, 1, 0)),
)


def plane_frame(normal: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """The in-plane axes of slices with a given normal: radiological convention, made orthogonal.

    Columns run to the patient's left (to posterior in sagittal slices), rows to posterior (down in
    sagittal and coronal slices). The frame of ``-n`` is that of ``n``, so ``(u, v, n)`` may be
    left-handed.

    Args:
        normal: ``(3,)`` unit vector, LPS.

    Returns:
        Orthonormal ``u`` (direction of growing column index) and ``v`` (of growing row index),
        ``(3,)`` each, LPS, both perpendicular to the normal.
    """
    n = np.asarray(normal, dtype=np.float64)
    # The small preference breaks ties (n along a space diagonal) the same way on every machine.
    closest = int(np.argmax(np.abs(n) + np.array([0.0, 1e-9, 2e-9])))
    columns, rows = (np.array(axis, dtype=np.float64) for axis in _READING_AXES[closest])
    v = rows - (rows @ n) * n
    v /= np.linalg.norm(v)
    u = np.cross(v, n)
    return (u if u @ columns > 0 else -u), v


def reading_axes(columns: FloatArray, rows: FloatArray) -> tuple[tuple[int, int], tuple[int, int]]:
    """Which of a slice's two axes runs along its columns when it is read, and which along its rows.

    Files store the same slice turned by quarter turns and mirrored: DICOM's rows run down, NIfTI's
    often up, and some converters swap both. A network that sees slices must not care.

    Args:
        columns: ``(3,)`` direction of the first axis in the plane, LPS.
        rows: ``(3,)`` direction of the second, perpendicular to it.

    Returns:
        Number (0 or 1) and sign of the axis that is closest to `plane_frame`'s ``u``, and of the
        other one, which is closest to its ``v``.
    """
    u, v = plane_frame(np.cross(columns, rows))
    pair = (columns, rows)
    first = 0 if abs(columns @ u) + abs(rows @ v) >= abs(rows @ u) + abs(columns @ v) else 1
    second = 1 - first
    return (first, 1 if pair[first] @ u >= 0 else -1), (second, 1 if pair[second] @ v >= 0 else -1)
