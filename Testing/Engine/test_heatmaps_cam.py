"""Class activation maps of batches of slices."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.cam import activation_maps, cam_evaluator, map_origin, map_stride
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.networks.bright_area import BrightArea

KINDS = ["cam", "gradcam", "gradcam++", "layercam"]


def card(**network: Any) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "maps",
            "version": "1.0.0",
            "title": "Maps",
            "modality": "any",
            "channels": [{"name": "image"}],
            "labels": [{"name": "blob"}],
            "network": {"target": "torch.nn.Sequential", **network},
            "slices": {"multiple": 4},
            "training_data": {"description": "", "simulated": True},
            "license": "Apache-2.0",
            "intended_use": "",
            "files": {"weights.safetensors": "0" * 64},
        }
    )


class Classifier(nn.Module):
    """Convolutions, global mean pooling, and a linear or a deep head."""

    def __init__(self, deep: bool = False, stride: int = 2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 8, 3, stride, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, stride, 1), nn.ReLU()
        )
        self.head = nn.Linear(6, 3)
        if deep:
            self.head = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))  # type: ignore

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.trunk(x).mean(dim=(2, 3)))


def classifier(deep: bool = False, output: int = 1) -> LoadedEncoder:
    network = Classifier(deep).eval()
    return LoadedEncoder(network, card(features="trunk", output=output), network.trunk)


def slices(count: int = 5) -> Tensor:
    return torch.randn(count, 1, 32, 40, generator=torch.Generator().manual_seed(1))


def test_a_cam_sums_to_the_logit_less_the_bias() -> None:
    encoder = classifier()
    logits, maps = cam_evaluator(encoder, "cam", rectified=False)(slices())
    assert maps is not None and maps.shape == (5, 8, 10)
    bias = encoder.network.head.bias[1]
    torch.testing.assert_close(maps.sum(dim=(1, 2)), logits - bias, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, encoder.logits(slices()))


def test_after_a_linear_head_raw_gradcam_and_layercam_are_the_cam() -> None:
    encoder = classifier()
    cam, gradcam, layercam = (
        cam_evaluator(encoder, kind, rectified=False)(slices())[1]
        for kind in ("cam", "gradcam", "layercam")
    )
    torch.testing.assert_close(gradcam, cam, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(layercam, cam, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("deep", "kind"), [(False, kind) for kind in KINDS] + [(True, kind) for kind in KINDS[1:]]
)
@pytest.mark.parametrize("rectified", [False, True])
def test_a_slices_map_does_not_depend_on_its_batch(deep: bool, kind: Any, rectified: bool) -> None:
    encoder = classifier(deep)
    evaluate = cam_evaluator(encoder, kind, rectified)
    together = evaluate(slices())[1]
    alone = torch.cat([evaluate(slices()[n : n + 1])[1] for n in range(5)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-6)
    assert together.abs().max() > 0


@pytest.mark.parametrize("kind", KINDS)
def test_rectified_maps_are_not_negative_and_raw_ones_keep_their_sign(kind: Any) -> None:
    encoder = classifier()
    raw = cam_evaluator(encoder, kind, rectified=False)(slices())[1]
    rectified = cam_evaluator(encoder, kind, rectified=True)(slices())[1]
    assert raw.min() < 0 <= rectified.min()
    if kind in ("cam", "gradcam"):
        torch.testing.assert_close(rectified, raw.clamp(min=0))


def test_raw_cam_is_linear_in_the_head() -> None:
    encoder = classifier()
    before = cam_evaluator(encoder, "layercam", rectified=False)(slices())[1]
    encoder.network.head.weight.mul_(-2.5)
    after = cam_evaluator(encoder, "layercam", rectified=False)(slices())[1]
    torch.testing.assert_close(after, -2.5 * before)


def test_gradients_match_the_published_formulas_in_loops() -> None:
    generator = torch.Generator().manual_seed(5)
    a = torch.rand(2, 3, 4, 5, generator=generator)
    g = torch.randn(2, 3, 4, 5, generator=generator)
    for n in range(2):
        gradcam, plus, layer = (torch.zeros(4, 5) for _ in range(3))
        for f in range(3):
            gradcam += g[n, f].mean() * a[n, f]
            layer += g[n, f].clamp(min=0) * a[n, f]
            alpha = g[n, f] ** 2 / (2 * g[n, f] ** 2 + g[n, f] ** 3 * a[n, f].sum())
            plus += (alpha * g[n, f].clamp(min=0)).sum() * a[n, f]
        for kind, expected in (("gradcam", gradcam), ("gradcam++", plus), ("layercam", layer)):
            torch.testing.assert_close(
                activation_maps(a, g, kind, rectified=True)[n], expected.clamp(min=0)
            )


def test_gradients_of_zero_make_maps_of_zero() -> None:
    zero = torch.zeros(1, 2, 3, 3)
    for kind in ("gradcam", "gradcam++", "layercam"):
        for rectified in (False, True):
            assert not activation_maps(zero + 1, zero, kind, rectified).any()


def test_a_head_that_is_not_linear_has_no_plain_cam() -> None:
    with pytest.raises(TomoSegError) as caught:
        cam_evaluator(classifier(deep=True), "cam", rectified=False)
    assert caught.value.code == "method-not-supported"


@pytest.mark.parametrize(
    ("pixels", "maps", "stride"),
    [(64, 16, 4), (30, 8, 4), (33, 9, 4), (33, 8, 4), (40, 40, 1), (224, 7, 32), (40, 38, 1)],
)
def test_the_stride_follows_from_the_sizes(pixels: int, maps: int, stride: int) -> None:
    expected = pytest.approx(stride, abs=0.06)
    assert map_stride(pixels, maps) == expected


def test_block_pooling_centres_a_map_pixel_on_its_block() -> None:
    encoder = LoadedEncoder(BrightArea(1, 0.0, 1.0, 0.0, 4).eval(), card())
    stride, first = map_origin(encoder, (64, 48), 0.0)
    assert stride == (4, 4)
    assert first == pytest.approx((1.5, 1.5), abs=0.05)


def test_strided_convolutions_centre_a_map_pixel_on_their_kernel() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1))

    class Strided(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = network

        def forward(self, x: Tensor) -> Tensor:
            return self.trunk(x).sum(dim=(1, 2, 3))

    model = Strided().eval()
    # Kernels without a preference for a side: what is measured is the layers' geometry alone.
    for layer in (network[0], network[2]):
        weight = layer.weight.data
        weight.copy_(sum(weight.flip(d) for d in ((), (2,), (3,), (2, 3))) / 4)
    encoder = LoadedEncoder(model, card(features="trunk"), model.trunk)
    stride, first = map_origin(encoder, (64, 64), 0.0)
    assert stride == (4, 4)
    assert first == pytest.approx((0.0, 0.0), abs=0.3)


def test_a_map_of_a_few_pixels_is_centred() -> None:
    class Coarse(nn.Module):
        def features(self, x: Tensor) -> Tensor:
            return nn.functional.adaptive_avg_pool2d(x, 2)

        def class_activation_map(self, features: Tensor) -> Tensor:
            return features[:, 0]

        def head(self, features: Tensor) -> Tensor:
            return features.sum(dim=(1, 2, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.features(x))

    encoder = LoadedEncoder(Coarse().eval(), card())
    assert map_origin(encoder, (64, 32), 0.0) == ((32.0, 16.0), (15.5, 7.5))
