"""Encoders from model folders: logits, features, gradients and linear activation maps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import monai.networks.nets as nets
import pytest
import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.folder import save_model
from TomoSegLib.models.loading import LoadedEncoder, build_network, load_encoder

RESNET = {
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "block_inplanes": [4, 8, 8, 16],
    "spatial_dims": 2,
    "n_input_channels": 2,
    "num_classes": 3,
}
DENSENET = {
    "spatial_dims": 2,
    "in_channels": 2,
    "out_channels": 3,
    "init_features": 8,
    "growth_rate": 4,
    "block_config": [2, 2],
}


def fields(network: dict[str, Any], channels: int = 1, **slices: Any) -> dict[str, Any]:
    card = tiny_blob.card_fields()
    card["channels"] = [{"name": f"channel-{n}"} for n in range(channels)]
    card["network"] = network
    card["slices"] = {"multiple": 16, **slices}
    return card


def monai_encoder(folder: Path, name: str, features: str | None) -> tuple[nn.Module, LoadedEncoder]:
    """A randomly initialised network of MONAI, and the same one loaded from a model folder."""
    arguments = RESNET if name == "ResNet" else DENSENET
    torch.manual_seed(0)
    network: nn.Module = getattr(nets, name)(**arguments)
    with torch.no_grad():  # running statistics of a network that has seen something
        network(torch.randn(8, 2, 64, 64))
    spec = {
        "target": f"monai.networks.nets.{name}",
        "arguments": arguments,
        "output": 1,
        **({"features": features} if features else {}),
    }
    save_model(folder, fields(spec, channels=2), network.state_dict())
    return network.eval(), load_encoder(folder)


def assert_map_sums_to_the_logit(encoder: LoadedEncoder, x: Tensor) -> None:
    logits, features = encoder.forward_with_features(x)
    maps = encoder.class_activation_map(features)
    assert maps.shape == (x.shape[0], *features.shape[2:])
    constant = logits - maps.sum(dim=(1, 2))
    torch.testing.assert_close(constant, constant[:1].expand_as(constant), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "layer"),
    [("ResNet", "layer4"), ("DenseNet", "features"), ("ResNet", "layer2.0.conv1")],
)
def test_a_monai_network_gives_its_own_logits_and_true_gradients(
    tmp_path: Path, name: str, layer: str
) -> None:
    network, encoder = monai_encoder(tmp_path / "model", name, layer)
    x = torch.randn(3, 2, 80, 64)
    logits, features = encoder.forward_with_features(x)
    with torch.no_grad():
        expected = network(x)[:, 1]
    torch.testing.assert_close(encoder.logits(x), expected)
    torch.testing.assert_close(logits.detach(), expected)

    (gradient,) = torch.autograd.grad(logits.sum(), features)
    assert gradient.shape == features.shape and features.shape[0] == 3
    # The gradient agrees with a finite difference of the network behind the layer.
    direction = torch.randn_like(features)
    values: list[Tensor] = []
    for sign in (1, -1):
        shifted = features.detach() + sign * 1e-3 * direction
        hook = network.get_submodule(layer).register_forward_hook(lambda *_, to=shifted: to.clone())
        with torch.no_grad():
            values.append(network(x)[:, 1].double().sum())
        hook.remove()
    slope = float((values[0] - values[1]) / 2e-3)
    assert slope == pytest.approx(float((gradient * direction).sum()), rel=0.05, abs=1e-3)


def test_gradients_do_not_touch_the_network(tmp_path: Path) -> None:
    _, encoder = monai_encoder(tmp_path / "model", "ResNet", "layer4")
    before = {name: tensor.clone() for name, tensor in encoder.network.state_dict().items()}
    logits, features = encoder.forward_with_features(torch.randn(2, 2, 64, 64))
    torch.autograd.grad(logits.sum(), features)
    assert not encoder.network.training
    assert not encoder.logits(torch.randn(2, 2, 64, 64)).requires_grad
    for name, tensor in encoder.network.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(p.grad is None and not p.requires_grad for p in encoder.network.parameters())
    assert all(p.dtype == torch.float32 for p in encoder.network.parameters())


def test_the_linear_head_of_a_resnet_is_its_last_layer(tmp_path: Path) -> None:
    network, encoder = monai_encoder(tmp_path / "model", "ResNet", "layer4")
    head = encoder.linear_head()
    assert head is not None and head.pooling == "mean"
    torch.testing.assert_close(head.weights, network.fc.weight[1].detach(), rtol=1e-3, atol=1e-5)
    assert head.bias == pytest.approx(float(network.fc.bias.detach()[1]), abs=1e-4)
    assert_map_sums_to_the_logit(encoder, torch.randn(2, 2, 96, 64))


def test_a_relu_between_features_and_pooling_is_not_taken_for_a_linear_head(
    tmp_path: Path,
) -> None:
    _, before = monai_encoder(tmp_path / "before", "DenseNet", "features")
    assert before.supports_cam and before.linear_head() is None and not before.supports_linear_cam
    _, features = before.forward_with_features(torch.randn(2, 2, 64, 64))
    with pytest.raises(TomoSegError, match="model-head-not-linear"):
        before.class_activation_map(features)
    _, after = monai_encoder(tmp_path / "after", "DenseNet", "class_layers.relu")
    assert after.linear_head() is not None
    assert_map_sums_to_the_logit(after, torch.randn(2, 2, 64, 80))


def test_a_network_without_features_still_gives_logits(tmp_path: Path) -> None:
    network, encoder = monai_encoder(tmp_path / "model", "ResNet", None)
    x = torch.randn(2, 2, 64, 64)
    torch.testing.assert_close(encoder.logits(x), network(x)[:, 1].detach())
    assert not encoder.supports_cam and not encoder.supports_linear_cam
    with pytest.raises(TomoSegError, match="model-without-features"):
        encoder.forward_with_features(x)


def test_the_test_model_measures_the_bright_area() -> None:
    encoder = load_encoder("tiny-blob")
    x = torch.zeros(2, 1, 48, 62)  # not a multiple of the stride
    x[0, 0, 5:15, 40:61] = 4.0
    torch.testing.assert_close(encoder.logits(x), torch.tensor([10 * 21 * 4.0 - 50, -50.0]))
    x[0] *= 0.75  # 3.0, halfway up the ramp from 2.5 to 3.5
    torch.testing.assert_close(encoder.logits(x)[0], torch.tensor(10 * 21 * 2.0 - 50))
    head = encoder.linear_head()
    assert head is not None and head.pooling == "sum" and head.bias == pytest.approx(-50)
    assert_map_sums_to_the_logit(encoder, torch.randn(2, 1, 48, 62) * 3)


def test_the_projects_own_encoder_uses_its_own_map(tmp_path: Path) -> None:
    spec = {
        "target": "TomoSegLib.networks.encoders.EvidenceEncoder",
        "arguments": {"channels": 1, "widths": [4, 8], "strides": [1, 2], "blocks": [1, 1],
                      "kernels": [3, 3]},
    }  # fmt: skip
    card = ModelCard.model_validate({**fields(spec), "files": {"weights.safetensors": "0" * 64}})
    torch.manual_seed(1)
    save_model(tmp_path / "m", fields(spec), build_network(card.network).state_dict())
    encoder = load_encoder(tmp_path / "m")
    assert encoder.supports_cam and encoder.supports_linear_cam
    assert_map_sums_to_the_logit(encoder, torch.randn(3, 1, 64, 48))


class Returns(nn.Module):
    """A network that returns whatever it is told to."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x, "no logit"),
        (lambda x: x.mean(dim=(1, 2, 3)) / 0, "finite"),
        (lambda x: x.mean(), "no logit"),
        (lambda x: {"logits": x}, "dict"),
        (lambda x: x.mean(dim=(1, 2, 3))[:1], "not one finite number per slice"),
        (lambda x: (x - x.mean(0)).abs().mean(dim=(1, 2, 3)), "depend on the other slices"),
        (lambda x: torch.rand(x.shape[0]) * 10, "chance"),
        (lambda x: (x.mean(dim=(1, 2, 3)), x.mean(dim=1)), "features"),
        (lambda x: (x.mean(dim=(1, 2, 3)), x * 2), "follow"),
        (lambda x: x[:, 3].mean(dim=(1, 2)), "fails"),
    ],
)
def test_a_network_whose_output_is_of_no_use_is_refused_when_it_is_loaded(
    function: Any, reason: str
) -> None:
    card = ModelCard.model_validate(
        {**tiny_blob.card_fields(), "files": {"weights.safetensors": "0" * 64}}
    )
    with pytest.raises(TomoSegError, match=reason) as caught:
        LoadedEncoder(Returns(function), card)
    assert caught.value.code == "model-network-invalid" and "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(TomoSegError) as caught:
        load_encoder("tiny-blob", device)
    assert caught.value.code == "device-unavailable" and device in caught.value.message


def test_a_class_that_would_fetch_weights_is_built_without_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import socket

    def no_network(*_: Any, **__: Any) -> None:
        raise AssertionError("it went to the network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    card = ModelCard.model_validate(
        {
            **fields(
                {
                    "target": "monai.networks.nets.EfficientNetBN",
                    "arguments": {"model_name": "efficientnet-b0", "spatial_dims": 2},
                }
            ),
            "files": {"weights.safetensors": "0" * 64},
        }
    )
    assert isinstance(build_network(card.network), nn.Module)


def test_a_run_does_not_import_torchs_compiler() -> None:
    """It takes as long to import as the rest of torch, and nothing is ever compiled."""
    code = (
        "import sys, torch\n"
        "from TomoSegLib.jobs import run, steps\n"
        "from TomoSegLib.jobs.document import RunJob\n"
        "from TomoSegLib.models.card import Network\n"
        "from TomoSegLib.models.loading import build_network\n"
        "steps.make_reproducible(RunJob(input='a', model='b', output='c'))\n"
        "assert torch.are_deterministic_algorithms_enabled()\n"
        "build_network(Network(target='TomoSegLib.networks.encoders.EvidenceEncoder'))\n"
        "print(sorted({'torch._dynamo', 'torch._inductor'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr
