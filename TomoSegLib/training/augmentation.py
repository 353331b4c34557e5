"""Random changes of what a training with labels sees, by MONAI's transforms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def augmenter(keys: Sequence[str], flips: Sequence[int], augmentation: float) -> Any:
    """MONAI's random flips of all arrays, and changes of intensity of the ``image``.

    Args:
        keys: Names of the arrays ``(C, k, j, i)``.
        flips: Axes (0 for k, 1 for j, 2 for i) that they are flipped along.
        augmentation: Strength of changes of intensity; 0 for none.
    """
    from monai import transforms

    steps: list[Any] = [
        transforms.RandFlipd(tuple(keys), prob=0.5, spatial_axis=axis) for axis in flips
    ]
    if augmentation:
        steps += [
            transforms.RandScaleIntensityd("image", factors=0.1 * augmentation, prob=0.5),
            transforms.RandShiftIntensityd("image", offsets=0.1 * augmentation, prob=0.5),
            transforms.RandGaussianNoised("image", std=0.05 * augmentation, prob=0.2),
        ]
    return transforms.Compose(steps)


def warper(
    patch: tuple[int, int, int],
    rotation: float,
    zoom: float,
    modes: Mapping[str, str],
    *,
    in_plane: bool,
) -> tuple[tuple[int, int, int], Any]:
    """MONAI's random affine of patches, and by how many voxels what it gets must be larger.

    Turns about several axes bring a bit of every side into every other one. Corners of extreme
    draws may still reach beyond, and are filled with what is nearest.

    Args:
        patch: ``(k, j, i)`` voxels of what comes out.
        rotation: Largest turn about each axis, degrees.
        zoom: Largest zoom along each axis by itself, as a factor; its inverse is the least.
        modes: How the arrays ``(C, k, j, i)`` of each name are interpolated.
        in_plane: Whether slices stay where they are: all of a patch are changed alike.

    Returns:
        Margins ``(k, j, i)`` on each side, and the transform; None where nothing changes.
    """
    from monai import transforms

    if not rotation and zoom <= 1:
        return (0, 0, 0), None
    angle = float(np.radians(rotation))
    sides = np.array(patch[1:] if in_plane else patch) / 2
    others = float(np.sin(min(angle, np.pi / 2))) * (sides.sum() - sides)
    reach = zoom * np.minimum(np.linalg.norm(sides), sides + others)
    margins = [int(n) for n in np.ceil(reach - sides)]
    k, j, i = [0, *margins] if in_plane else margins
    scale = (1 / zoom - 1, zoom - 1)
    warp = transforms.RandAffined(
        tuple(modes),
        spatial_size=patch,
        prob=1.0,
        rotate_range=(angle, 0.0, 0.0) if in_plane else (angle, angle, angle),
        scale_range=((0.0, 0.0), scale, scale) if in_plane else (scale, scale, scale),
        mode=tuple(modes.values()),
        padding_mode="border",
    )
    return (k, j, i), warp
