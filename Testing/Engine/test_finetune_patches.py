"""Patches for fine-tuning: where they lie, and what augmentation may do to them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from TomoSegLib.training.segmentation_data import PatchDataset, PreparedLabels

BACKGROUND = -5.0


@dataclass(frozen=True)
class AnyCase:
    """A row of a manifest that nobody looks at."""

    split: str = "train"


def prepared(shape: tuple[int, int, int] = (40, 44, 48)) -> PreparedLabels:
    """A lying ellipsoid, 1 in the image and in the labels."""
    k, j, i = np.indices(shape, dtype=np.float32)
    middle = np.array(shape) / 2
    inside = (
        ((k - middle[0]) / 4) ** 2 + ((j - middle[1]) / 6) ** 2 + ((i - middle[2]) / 12) ** 2
    ) < 1
    places = tuple(np.flatnonzero(inside == wanted) for wanted in (False, True))
    return PreparedLabels(
        AnyCase(),  # type: ignore[arg-type]
        inside[None].astype(np.float16),
        inside.astype(np.uint8),
        places,
    )


def patches(
    case: PreparedLabels, patch: tuple[int, int, int] = (32, 32, 32), **augmentation: float
) -> list[dict[str, Any]]:
    """Eight patches without flips and changes of intensity."""
    data = PatchDataset([case], patch, BACKGROUND, (), 0.0, 3, **augmentation)
    return [{k: v.numpy() for k, v in data[(n, 0)].items()} for n in range(8)]


@pytest.mark.parametrize(
    "augmentation", [{}, {"rotation": 40.0}, {"zoom": 1.3}, {"rotation": 180.0, "zoom": 1.3}]
)
def test_image_and_labels_move_together(augmentation: dict[str, float]) -> None:
    seen = 0
    for patch in patches(prepared(), **augmentation):
        labels, image = patch["classes"][0] == 1, patch["image"][0] > 0.5
        assert patch["image"].shape == patch["classes"].shape == (1, 32, 32, 32)
        assert set(np.unique(patch["classes"])) <= {0, 1}
        # Interpolated and nearest values part only along the border.
        assert np.count_nonzero(labels != image) <= 0.15 * max(labels.sum(), 20)
        seen += int(labels.any())
    assert seen >= 4


def test_rotation_turns_and_zoom_scales() -> None:
    def spread(patch: dict[str, Any]) -> np.ndarray:
        return np.sort(np.linalg.eigvalsh(np.cov(np.argwhere(patch["classes"][0]).T)))

    def axis(patch: dict[str, Any]) -> np.ndarray:
        return np.linalg.eigh(np.cov(np.argwhere(patch["classes"][0]).T))[1][:, -1]

    case, big = prepared((60, 64, 80)), (48, 48, 64)  # shows the whole ellipsoid
    (still, *_), turned = patches(case, big), patches(case, big, rotation=40.0)
    whole = still["classes"].sum()
    assert whole == case.classes.sum()
    angles = [np.degrees(np.arccos(min(1, abs(axis(still) @ axis(p))))) for p in turned]
    assert max(angles) > 15
    seen = [p for p in turned if p["classes"].sum() > 0.95 * whole]
    assert len(seen) >= 4
    for patch in seen:
        np.testing.assert_allclose(spread(patch), spread(still), rtol=0.12)
    sizes = [p["classes"].sum() for p in patches(case, big, zoom=1.3)]
    assert min(sizes) < 0.9 * whole < 1.1 * whole < max(sizes)


def test_patches_of_one_slice_stay_in_their_plane() -> None:
    case = prepared((40, 120, 120))
    case = replace(case, places=(case.places[0][:0], case.places[1]))  # far from the rim
    case.image[0, :20] = 7  # below the middle slice
    for patch in patches(case, (1, 32, 32), rotation=45.0, zoom=1.2):
        values = patch["image"]
        assert values.shape == (1, 1, 32, 32)
        assert np.allclose(values, 7) or values.max() < 1.01


@pytest.mark.parametrize("patch", [(32, 32, 32), (16, 32, 64), (1, 32, 64)])
def test_a_turned_patch_is_filled_from_the_volume(patch: tuple[int, int, int]) -> None:
    shape = (90, 130, 150)
    case = prepared(shape)
    places = (case.places[0][:0], case.places[1])  # far from the rim
    case = replace(case, image=np.indices(shape).astype(np.float16), places=places)
    data = PatchDataset([case], patch, BACKGROUND, (), 0.0, 3, rotation=45.0, zoom=1.2)
    for n in range(24):
        # Coordinates grow evenly along every line, unless border voxels are repeated.
        bends = [
            np.abs(np.diff(data[(n, 0)]["image"].numpy(), 2, axis=axis + 1)) > 0.3
            for axis in range(3)
            if patch[axis] > 1
        ]
        assert max(bend.mean() for bend in bends) < 0.002


def test_what_lies_beyond_a_volume_is_background() -> None:
    (patch, *_) = patches(prepared((19, 44, 48)))
    outside = patch["image"][0] == BACKGROUND
    assert outside.sum() == 13 * 32 * 32
    assert outside[:6].all() and outside[-7:].all()
    assert not patch["classes"][0][outside].any()


def test_patches_follow_from_the_seed_and_their_place() -> None:
    one, other = (patches(prepared(), rotation=30.0, zoom=1.2) for _ in range(2))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a["image"], b["image"])
    assert not np.array_equal(one[0]["image"], one[1]["image"])
