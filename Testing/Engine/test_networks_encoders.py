"""The encoder whose logit is a sum of local evidence."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from TomoSegLib.networks.encoders import EvidenceEncoder, ResidualBlock


def encoder(**arguments: Any) -> EvidenceEncoder:
    """Small, in evaluation mode, with batch norms that do something."""
    torch.manual_seed(0)
    network = EvidenceEncoder(
        **{
            "widths": (6, 8),
            "strides": (1, 2),
            "blocks": (1, 1),
            **arguments,
            "kernels": arguments.get("kernels", (3, 3)),
        }
    )
    for name, buffer in network.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.3)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 2)
    torch.nn.init.normal_(network.evidence.weight, std=0.5)
    torch.nn.init.constant_(network.bias, 0.7)
    return network.eval()


def slices(side: int = 32, channels: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(2, channels, side, side, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("bound", [None, 1.5])
@torch.no_grad()
def test_the_logit_is_the_sum_of_the_class_activation_map_and_the_bias(
    bound: float | None,
) -> None:
    network = encoder(evidence_bound=bound)
    x = slices()
    maps = network.class_activation_map(network.features(x))
    assert maps.shape == (2, 16, 16)
    torch.testing.assert_close(network(x), maps.sum(dim=(1, 2)) + 0.7)
    assert float(network(x).std()) > 1e-3


@torch.no_grad()
def test_the_map_is_stride_squared_by_reference_area_of_the_evidence() -> None:
    network = encoder(reference_area=100.0)
    features = network.features(slices())
    expected = torch.einsum("bfhw,f->bhw", features, network.evidence.weight[0, :, 0, 0]) * 4 / 100
    torch.testing.assert_close(network.class_activation_map(features), expected)


@torch.no_grad()
def test_bounded_evidence_stays_within_its_bound() -> None:
    network = encoder(evidence_bound=0.1)
    evidence = network.class_activation_map(network.features(10 * slices())) / network.scale
    assert 0.09 < float(evidence.abs().max()) <= 0.1 + 1e-6


@pytest.mark.parametrize(
    ("arguments", "stride"),
    [
        ({}, 2),
        ({"strides": (2, 2)}, 4),
        ({"widths": (4, 4, 4), "strides": (1, 2, 2), "blocks": (1, 1, 2), "kernels": (3, 3, 1)}, 4),
    ],
)
@torch.no_grad()
def test_features_have_the_side_of_the_slice_by_the_stride(
    arguments: dict[str, Any], stride: int
) -> None:
    network = encoder(**arguments)
    assert network.stride == stride
    assert network.features(slices(48)).shape[2:] == (48 // stride, 48 // stride)


def reach(network: EvidenceEncoder, side: int) -> int:
    """Number of pixels along a row that the evidence of the middle depends on."""
    x = torch.randn(1, 1, side, side, generator=torch.Generator().manual_seed(1))
    x.requires_grad_(True)
    maps = network.class_activation_map(network.features(x))
    middle = maps.shape[-1] // 2
    (gradient,) = torch.autograd.grad(maps[0, middle, middle], x)
    columns = gradient[0, 0].abs().sum(dim=0).nonzero()[:, 0]
    return int(columns.max() - columns.min() + 1)


def receptive_field(strides: tuple[int, ...], kernels: tuple[int, ...]) -> int:
    """By the rule that each convolution of side k at a pixel distance d adds (k - 1) d."""
    size, distance = 3, 1  # the stem
    for stride, kernel in zip(strides, kernels, strict=True):
        size += ((3 if stride > 1 else kernel) - 1) * distance
        distance *= stride
        size += (kernel - 1) * distance
    return size


@pytest.mark.parametrize(
    ("strides", "kernels", "pixels"),
    [((1, 2), (3, 3), 13), ((2, 2), (3, 1), 13), ((2, 2), (3, 3), 21), ((1, 1), (1, 1), 3)],
)
def test_the_receptive_field_is_that_of_its_convolutions(
    strides: tuple[int, ...], kernels: tuple[int, ...], pixels: int
) -> None:
    assert receptive_field(strides, kernels) == pixels
    network = encoder(strides=strides, kernels=kernels)
    # A rectifier may close a path, so the measured field may be smaller by a pixel or two.
    assert pixels - 2 <= reach(network, 48) <= pixels


@torch.no_grad()
def test_evidence_far_from_the_border_does_not_depend_on_the_margin() -> None:
    """More empty margin moves the border's own response outwards and changes nothing inside."""
    network = encoder()
    x = torch.zeros(1, 1, 64, 64)
    x[..., 24:40, 24:40] = slices(16)[:1]
    wide = torch.nn.functional.pad(x, (16, 16, 16, 16))
    narrow_map = network.class_activation_map(network.features(x))[0]
    wide_map = network.class_activation_map(network.features(wide))[0]
    edge = 6  # half the receptive field, in pixels of the map rounded up
    torch.testing.assert_close(
        wide_map[8 + edge : -8 - edge, 8 + edge : -8 - edge],
        narrow_map[edge:-edge, edge:-edge],
    )


@torch.no_grad()
def test_the_logit_above_that_of_an_empty_slice_does_not_depend_on_the_margin() -> None:
    """An empty slice's own logit grows with its area, which is why it is subtracted."""
    network = encoder()
    x = torch.zeros(1, 1, 64, 64)
    x[..., 24:40, 24:40] = slices(16)[:1]
    found = []
    for margin in (0, 16, 32):
        padded = torch.nn.functional.pad(x, (margin,) * 4)
        found.append(float(network(padded) - network(torch.zeros_like(padded))))
    assert found[0] == pytest.approx(found[1], abs=1e-3)
    assert found[0] == pytest.approx(found[2], abs=1e-3)
    assert abs(found[0]) > 0.01


@torch.no_grad()
def test_two_equal_findings_give_twice_the_evidence_of_one() -> None:
    network = encoder()
    finding = slices(12)[0]
    empty = torch.zeros(1, 1, 96, 96)
    one, two = empty.clone(), empty.clone()
    one[0, :, 20:32, 20:32] = finding
    two[0, :, 20:32, 20:32] = finding
    two[0, :, 60:72, 64:76] = finding
    above = [float(network(x) - network(empty)) for x in (one, two)]
    assert above[1] == pytest.approx(2 * above[0], abs=1e-3)


def test_dropout_acts_in_training_alone() -> None:
    network = encoder(evidence_dropout=0.5)
    features = network.features(slices())
    torch.testing.assert_close(
        network.class_activation_map(features), network.class_activation_map(features)
    )
    network.train()
    dropped = network.class_activation_map(features)
    assert 0.4 < float((dropped == 0).float().mean()) < 0.6


@torch.no_grad()
def test_several_channels_are_all_looked_at() -> None:
    network = encoder(channels=2)
    x = slices(channels=2)
    changed = x.clone()
    changed[:, 1] = 0
    assert float((network(x) - network(changed)).abs().min()) > 1e-4


def test_stages_of_different_number_are_refused() -> None:
    with pytest.raises(ValueError, match="one entry per stage"):
        EvidenceEncoder(widths=(4, 8), strides=(1, 2), blocks=(1,), kernels=(3, 3))


@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_block_s_two_paths_have_the_same_size_on_odd_sides(stride: int) -> None:
    block = ResidualBlock(3, 5, stride).eval()
    side = -(-15 // stride)
    assert block(torch.randn(1, 3, 15, 15)).shape == (1, 5, side, side)
