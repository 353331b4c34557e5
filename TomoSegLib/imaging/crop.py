"""The middle of a stack's slices, in pixels: what a network of fixed input sees of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def middle_of_slices(
    image: npt.NDArray[Any], size: tuple[int, int], outside: float
) -> npt.NDArray[Any]:
    """Crop slices about their middle, or pad them.

    Args:
        image: ``(..., J, I)``.
        size: Rows and columns wanted.
        outside: Value of pixels beyond the image.

    Returns:
        ``(..., *size)``.
    """
    margins = [(0, 0)] * (image.ndim - 2)
    for axis, wanted in ((-2, size[0]), (-1, size[1])):
        there = image.shape[axis]
        start = max((there - wanted) // 2, 0)
        image = np.take(image, range(start, min(start + wanted, there)), axis=axis)
        missing = max(wanted - there, 0)
        margins.append((missing // 2, missing - missing // 2))
    if not any(map(any, margins)):
        return image
    return np.pad(image, margins, constant_values=outside)
