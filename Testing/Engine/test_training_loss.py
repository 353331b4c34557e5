"""Losses of slices that bear their volume's label, and how volumes are ranked."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from TomoSegLib.training import weak_supervision
from TomoSegLib.training.slices import LabelledVolume, SliceSampler
from TomoSegLib.training.weak_supervision import area_under_curve, slice_loss, volume_scores

LOGITS = torch.tensor([[2.0, -1.0, 0.5, 3.0], [1.0, 0.0, -2.0, -4.0], [-1.0, -1.0, 2.0, 0.0]])
LABELS = torch.tensor([1.0, 0.0, 1.0])


def bce(logit: float, label: int) -> float:
    """Cross-entropy of one logit, by its definition."""
    probability = 1 / (1 + math.exp(-logit))
    return -math.log(probability if label else 1 - probability)


def rows() -> list[list[float]]:
    return [
        [bce(logit, int(label)) for logit in row]
        for row, label in zip(LOGITS.tolist(), LABELS.tolist(), strict=True)
    ]


def test_without_a_remedy_the_loss_is_the_mean_cross_entropy_of_all_slices() -> None:
    assert float(slice_loss(LOGITS, LABELS, "none", 0.5)) == pytest.approx(np.mean(rows()))


def test_mil_is_the_cross_entropy_of_the_log_mean_exponential() -> None:
    pooled = [math.log(np.mean(np.exp(row))) for row in LOGITS.double().numpy()]
    expected = np.mean([bce(p, int(y)) for p, y in zip(pooled, LABELS, strict=True)])
    assert float(slice_loss(LOGITS, LABELS, "mil", 0.5)) == pytest.approx(expected)


def test_top_k_keeps_the_highest_logits_of_each_positive_volume() -> None:
    positive = np.mean([bce(2, 1), bce(3, 1), bce(2, 1), bce(0, 1)])
    expected = 2 / 3 * positive + 1 / 3 * np.mean(rows()[1])
    assert float(slice_loss(LOGITS, LABELS, "top-k", 0.5)) == pytest.approx(expected)


def test_small_loss_keeps_the_smallest_losses_of_all_positive_volumes() -> None:
    positive = np.mean([bce(3, 1), bce(2, 1), bce(2, 1), bce(0.5, 1)])
    expected = 2 / 3 * positive + 1 / 3 * np.mean(rows()[1])
    assert float(slice_loss(LOGITS, LABELS, "small-loss", 0.5)) == pytest.approx(expected)


@pytest.mark.parametrize("remedy", ["top-k", "small-loss"])
def test_a_remedy_that_keeps_everything_is_none(remedy: str) -> None:
    assert float(slice_loss(LOGITS, LABELS, remedy, 1.0)) == pytest.approx(  # type: ignore[arg-type]
        float(slice_loss(LOGITS, LABELS, "none", 1.0))
    )


@pytest.mark.parametrize("remedy", ["top-k", "small-loss"])
def test_at_least_one_slice_is_kept_and_negatives_alone_count_in_full(remedy: str) -> None:
    one = slice_loss(LOGITS[:1], LABELS[:1], remedy, 0.01)  # type: ignore[arg-type]
    assert float(one) == pytest.approx(bce(3, 1))
    negatives = slice_loss(LOGITS[1:2], LABELS[1:2], remedy, 0.01)  # type: ignore[arg-type]
    assert float(negatives) == pytest.approx(np.mean(rows()[1]))


def test_slices_that_a_remedy_drops_have_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_(True)
    slice_loss(logits, LABELS, "top-k", 0.5).backward()
    assert logits.grad is not None
    np.testing.assert_array_equal(
        (logits.grad != 0).numpy(),
        [[True, False, False, True], [True] * 4, [False, False, True, True]],
    )


def test_the_local_loss_weighs_positions_by_the_foreground_that_they_cover() -> None:
    evidence = torch.tensor([[[1.0, -2.0], [0.5, 9.0]], [[0.0, 3.0], [9.0, 9.0]]])
    foreground = torch.zeros(2, 1, 4, 4)
    foreground[0, 0, :2, :] = 1  # the upper positions in full
    foreground[0, 0, 2, 0:2] = 1  # half of the lower left
    foreground[1, 0, 0, 0] = 1  # a quarter of the upper left
    foreground[1, 0, 0:2, 2:4] = 1
    found = weak_supervision._local_loss(evidence, foreground, torch.tensor([1.0, 0.0]))
    weighted = bce(1, 1) + bce(-2, 1) + 0.5 * bce(0.5, 1) + 0.25 * bce(0, 0) + bce(3, 0)
    assert float(found) == pytest.approx(weighted / (1 + 1 + 0.5 + 0.25 + 1))


def test_the_local_loss_of_empty_slices_is_zero() -> None:
    found = weak_supervision._local_loss(
        torch.ones(1, 2, 2), torch.zeros(1, 1, 4, 4), torch.tensor([1.0])
    )
    assert float(found) == 0


@pytest.mark.parametrize("seed", range(5))
def test_the_area_under_the_curve_is_the_share_of_pairs_ranked_right(seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, 6, 30) / 2.0  # with many ties
    labels = generator.integers(0, 2, 30)
    pairs = [
        1.0 if p > n else 0.5 if p == n else 0.0
        for p in scores[labels == 1]
        for n in scores[labels == 0]
    ]
    found = area_under_curve(torch.tensor(scores), torch.tensor(labels))
    assert found == pytest.approx(np.mean(pairs))


def test_the_area_under_the_curve_needs_both_classes() -> None:
    with pytest.raises(ValueError, match="both classes"):
        area_under_curve(torch.tensor([1.0, 2.0]), torch.tensor([1, 1]))


class _Mean(torch.nn.Module):
    """The mean of a slice; its answer has one or two axes."""

    def __init__(self, axes: int) -> None:
        super().__init__()
        self.axes = axes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mean = x.mean(dim=(1, 2, 3))
        return mean[:, None] if self.axes == 2 else mean


@pytest.mark.parametrize("axes", [1, 2])
@torch.no_grad()
def test_a_volume_s_score_is_the_mean_of_the_highest_tenth_of_its_slices(axes: int) -> None:
    # Values rise along k: seen along k, slice p of 20 has the mean of its layer.
    image = np.broadcast_to(np.arange(20, dtype=np.float32)[:, None, None], (1, 20, 8, 8)).copy()
    full = np.ones((20, 8, 8), dtype=bool)
    volumes = [LabelledVolume(image, full, 1), LabelledVolume(image / 2, full, 0)]
    sampler = SliceSampler(volumes, spacing=1.0, size=4, background=0.0, device=torch.device("cpu"))
    along_k = torch.tensor([[1.0, 0.0, 0.0]])
    scores = volume_scores(_Mean(axes), sampler, along_k, 20, batch=7)
    np.testing.assert_allclose(scores.numpy(), [18.5, 9.25], atol=1e-4)
