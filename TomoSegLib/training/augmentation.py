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


def warp_margin(sides: Sequence[int], rotation: float, zoom: float) -> tuple[int, ...]:
    """By how many voxels a patch must be larger on each side for `warper` to fill it.

    Turns about several axes bring a bit of every side into every other one. Corners of extreme
    draws may still reach beyond, and are filled with what is nearest.

    Args:
        sides: Voxels of the patch along the axes that turn.
        rotation: As of `warper`.
        zoom: As of `warper`.
    """
    half = np.array(sides) / 2
    others = float(np.sin(min(np.radians(rotation), np.pi / 2))) * (half.sum() - half)
    reach = zoom * np.minimum(np.linalg.norm(half), half + others)
    return tuple(int(n) for n in np.ceil(reach - half))


def warper(
    patch: tuple[int, int, int],
    rotation: float,
    zoom: float,
    modes: Mapping[str, str],
    *,
    in_plane: bool,
) -> Any:
    """MONAI's random affine of patches that are larger by `warp_margin`; None for no change.

    Args:
        patch: ``(k, j, i)`` voxels of what comes out.
        rotation: Largest turn about each axis, degrees.
        zoom: Largest zoom along each axis by itself, as a factor; its inverse is the least.
        modes: How the arrays ``(C, k, j, i)`` of each name are interpolated.
        in_plane: Whether slices stay where they are: all of a patch are changed alike.
    """
    from monai import transforms

    if not rotation and zoom <= 1:
        return None
    angle = float(np.radians(rotation))
    scale = (1 / zoom - 1, zoom - 1)
    return transforms.RandAffined(
        tuple(modes),
        spatial_size=patch,
        prob=1.0,
        rotate_range=(angle, 0.0, 0.0) if in_plane else (angle, angle, angle),
        scale_range=((0.0, 0.0), scale, scale) if in_plane else (scale, scale, scale),
        mode=tuple(modes.values()),
        padding_mode="border",
    )
