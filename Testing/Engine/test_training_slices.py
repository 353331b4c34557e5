"""Slices drawn for training: where they lie and what augmentation may do to them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from TomoSegLib.training.slices import LabelledVolume, SliceSampler, augment, random_frames

CPU = torch.device("cpu")
BACKGROUND = -2.5


def volume(shape: tuple[int, int, int], seed: int, channels: int = 1) -> LabelledVolume:
    generator = np.random.default_rng(seed)
    foreground = np.zeros(shape, dtype=bool)
    foreground[2:-2, 2:-3, 3:-2] = True
    image = generator.normal(0, 1, (channels, *shape)).astype(np.float32)
    image[:, ~foreground] = BACKGROUND
    return LabelledVolume(image, foreground, seed % 2, f"volume {seed}")


def sampler(*volumes: LabelledVolume, spacing: float = 0.7, size: int = 24) -> SliceSampler:
    return SliceSampler(volumes, spacing=spacing, size=size, background=BACKGROUND, device=CPU)


def looked_up(
    array: np.ndarray,
    middle: np.ndarray,
    column: np.ndarray,
    row: np.ndarray,
    spacing: float,
    size: int,
    outside: float,
) -> np.ndarray:
    """Trilinear lookup by SciPy, pixel by pixel."""
    ramp = (np.arange(size) - (size - 1) / 2) * spacing
    points = middle[:, None, None] + column[:, None, None] * ramp[None, None, :]
    points = points + row[:, None, None] * ramp[None, :, None]
    return ndimage.map_coordinates(array, points, order=1, mode="grid-constant", cval=outside)


@pytest.mark.parametrize("number", [0, 1])
def test_a_slice_is_what_a_trilinear_lookup_in_its_plane_gives(number: int) -> None:
    # The volumes have different sizes: the smaller one is padded.
    volumes = volume((14, 16, 18), 0, 2), volume((20, 12, 15), 1, 2)
    found = sampler(*volumes)
    frame = random_frames(1, torch.Generator().manual_seed(3))[0]
    middle = torch.tensor([6.3, 7.9, 8.2])
    planes, foreground = found.sample(
        torch.tensor([number]), middle[None, None], frame[None, None, 0], frame[None, None, 1]
    )
    assert planes.shape == (1, 1, 2, 24, 24)
    assert foreground.shape == (1, 1, 1, 24, 24)
    where = middle.numpy(), frame[0].numpy(), frame[1].numpy(), 0.7, 24
    for channel in range(2):
        expected = looked_up(volumes[number].image[channel], *where, BACKGROUND)
        np.testing.assert_allclose(planes[0, 0, channel].numpy(), expected, atol=2e-4)
    expected = looked_up(volumes[number].foreground.astype(np.float32), *where, 0)
    np.testing.assert_allclose(foreground[0, 0, 0].numpy(), expected, atol=2e-4)


def test_columns_and_rows_run_along_their_axes() -> None:
    shape = (11, 13, 15)
    image = np.broadcast_to(np.arange(15, dtype=np.float32), (1, *shape)).copy()
    everything = LabelledVolume(image, np.ones(shape, dtype=bool), 1)
    found = SliceSampler([everything], spacing=1.0, size=5, background=0.0, device=CPU)
    planes, _ = found.sample(
        torch.tensor([0]),
        torch.tensor([[[5.0, 6.0, 7.0]]]),
        torch.tensor([[[0.0, 0.0, 1.0]]]),
        torch.tensor([[[0.0, 1.0, 0.0]]]),
    )
    np.testing.assert_allclose(
        planes[0, 0, 0].numpy(), np.broadcast_to([5, 6, 7, 8, 9], (5, 5)), atol=1e-5
    )


def test_outside_the_volume_there_is_background_and_no_foreground() -> None:
    found = sampler(volume((14, 16, 18), 0))
    axis = torch.eye(3)
    planes, foreground = found.sample(
        torch.tensor([0]), torch.tensor([[[100.0, 8, 8]]]), axis[None, 1:2], axis[None, 2:3]
    )
    assert torch.all(planes == BACKGROUND)
    assert not foreground.any()


def test_random_frames_are_orthonormal() -> None:
    frames = random_frames(200, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        frames @ frames.transpose(1, 2), torch.eye(3).expand(200, 3, 3), atol=1e-5, rtol=0
    )


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_every_axis_of_random_frames_is_uniform_on_the_sphere(axis: int) -> None:
    count = 20_000
    vectors = random_frames(count, torch.Generator().manual_seed(1))[:, axis].double().numpy()
    # Each component of a uniform unit vector is uniform on [-1, 1] (Archimedes).
    for component in vectors.T:
        rank = np.sort((component + 1) / 2)
        distance = np.abs(rank - (np.arange(count) + 0.5) / count).max()
        assert distance < 1.95 / np.sqrt(count)  # Kolmogorov-Smirnov, 1 in 1000
    np.testing.assert_allclose(vectors.T @ vectors / count, np.eye(3) / 3, atol=0.01)


def test_drawn_slices_meet_the_foreground_and_repeat_with_their_generator() -> None:
    found = sampler(volume((14, 16, 18), 0), volume((20, 12, 15), 1), spacing=1.0)
    indices = torch.tensor([1, 0, 1])
    planes, foreground = found.draw(indices, 40, torch.Generator().manual_seed(5))
    assert planes.shape == (3, 40, 1, 24, 24)
    assert float((foreground.amax(dim=(-1, -2, -3)) > 0).float().mean()) > 0.9
    again, _ = found.draw(indices, 40, torch.Generator().manual_seed(5))
    other, _ = found.draw(indices, 40, torch.Generator().manual_seed(6))
    assert torch.equal(planes, again)
    assert not torch.equal(planes, other)


def test_offsets_cover_the_whole_foreground() -> None:
    """Of a box full of foreground, every axial layer is met about equally often."""
    shape = (12, 12, 12)
    image = np.broadcast_to(np.arange(12, dtype=np.float32)[:, None, None], (1, *shape)).copy()
    found = SliceSampler(
        [LabelledVolume(image, np.ones(shape, dtype=bool), 1)],
        spacing=1.0,
        size=1,
        background=0.0,
        device=CPU,
    )
    planes, foreground = found.draw(torch.tensor([0]), 4000, torch.Generator().manual_seed(0))
    level = (planes / foreground.clamp_min(1e-6))[foreground > 0.9]
    assert float(level.mean()) == pytest.approx(5.5, abs=0.15)
    assert float(level.min()) < 1.5
    assert float(level.max()) > 9.5


def drawn(batch: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    found = sampler(volume((14, 16, 18), 0, 2), spacing=1.0)
    planes, foreground = found.draw(torch.tensor([0]), batch, torch.Generator().manual_seed(0))
    return planes.flatten(0, 1), foreground.flatten(0, 1)


def test_augmentation_leaves_the_background_alone() -> None:
    slices, foreground = drawn()
    changed = augment(slices, foreground, BACKGROUND, 1.0, torch.Generator().manual_seed(0))
    outside = (foreground <= 0.5).expand_as(slices)
    assert torch.all(changed[outside] == BACKGROUND)
    assert not torch.allclose(changed[~outside], slices[~outside], atol=0.05)


def test_augmentation_of_strength_zero_changes_nothing_in_the_foreground() -> None:
    slices, foreground = drawn()
    changed = augment(slices, foreground, BACKGROUND, 0.0, torch.Generator().manual_seed(0))
    inside = (foreground > 0.5).expand_as(slices)
    # Values next to zero are moved to 1e-4, where a power has a finite slope.
    torch.testing.assert_close(changed[inside], slices[inside], atol=1.1e-4, rtol=1e-5)


def test_augmentation_is_another_one_for_each_slice_and_grows_with_its_strength() -> None:
    slices, foreground = drawn(1)
    slices, foreground = slices.repeat(40, 1, 1, 1), foreground.repeat(40, 1, 1, 1)
    inside = (foreground > 0.5).expand_as(slices)
    spread = []
    for strength in (0.3, 1.0):
        torch.manual_seed(0)
        changed = augment(
            slices, foreground, BACKGROUND, strength, torch.Generator().manual_seed(0)
        )
        assert not torch.allclose(changed[0], changed[1])
        spread.append(float((changed - slices)[inside].std()))
    assert 0 < spread[0] < 0.6 * spread[1]
