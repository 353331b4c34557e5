"""3D networks of several families and formats, from model folders."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import monai.networks.nets as nets
import pytest
import torch
from torch import nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.folder import save_model
from TomoSegLib.models.loading import load_encoder
from TomoSegLib.models.segmenter import load_segmenter

ROI = (16, 32, 32)
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "UNet": (
        "monai.networks.nets.UNet",
        {
            "spatial_dims": 3,
            "in_channels": 2,
            "out_channels": 3,
            "channels": [4, 8],
            "strides": [2],
            "norm": "batch",
        },
    ),
    "BasicUNet": (
        "monai.networks.nets.BasicUNet",
        {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "features": [4, 4, 4, 4, 4, 4]},
    ),
    "UNet3D": (
        "TomoSegLib.networks.unet3d.UNet3D",
        {"in_channels": 2, "out_channels": 3, "features": [4, 4, 4, 4, 4, 4]},
    ),
    "SegResNet": (
        "monai.networks.nets.SegResNet",
        {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "init_filters": 8},
    ),
    "DynUNet": (
        "monai.networks.nets.DynUNet",
        {
            "spatial_dims": 3,
            "in_channels": 2,
            "out_channels": 3,
            "kernel_size": [3, 3, 3],
            "strides": [1, 2, 2],
            "upsample_kernel_size": [2, 2],
            "filters": [4, 4, 4],
            "deep_supervision": True,
            "deep_supr_num": 1,
        },
    ),
}


def fields(**changes: Any) -> dict[str, Any]:
    card = tiny_blob.card_fields()
    for name in ("slices", "method", "methods"):
        del card[name]
    return card | {
        "name": "mine",
        "task": "segmentation",
        "channels": [{"name": "t1"}, {"name": "t2"}],
        "labels": [{"name": "one", "value": 1}, {"name": "two", "value": 2}],
        "sliding_window": {"roi_size": list(ROI)},
        **changes,
    }


@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_network_gives_its_own_logits_of_a_window(name: str, tmp_path: Path) -> None:
    target, arguments = NETWORKS[name]
    torch.manual_seed(0)
    if name == "UNet3D":
        from TomoSegLib.networks.unet3d import UNet3D

        network: nn.Module = UNet3D(**arguments)
    else:
        network = getattr(nets, name)(**arguments)
    x = torch.randn(2, 2, *ROI)
    with torch.no_grad():
        network(x)  # batch norm has seen something
        expected = network.eval()(x)
    spec = {"target": target, "arguments": arguments}
    model = save_model(tmp_path / "m", fields(network=spec), network.state_dict())
    segmenter = load_segmenter(model)
    segmenter.check()
    assert segmenter.logits(x).shape == (2, 3, *ROI)
    torch.testing.assert_close(segmenter.logits(x), expected)
    assert not any(parameter.requires_grad for parameter in segmenter.network.parameters())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("format", ["torchscript", "export"])
def test_a_program_gives_the_logits_of_the_network_it_was_made_of(
    format: str, tmp_path: Path
) -> None:
    if format == "export" and tuple(map(int, torch.__version__.split(".")[:2])) < (2, 8):
        pytest.skip("this torch writes another format")
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 3, 1)).eval()
    x = torch.randn(2, 2, *ROI)
    file = io.BytesIO()
    if format == "export":
        batch = torch.export.Dim("batch", min=1, max=64)
        torch.export.save(torch.export.export(network, (x,), dynamic_shapes=({0: batch},)), file)
    else:
        torch.jit.save(torch.jit.trace(network, x), file)
    content = file.getvalue()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "network.bin").write_bytes(content)
    card = fields(
        network={"format": format, "file": "network.bin"},
        files={"network.bin": hashlib.sha256(content).hexdigest()},
    )
    (tmp_path / "m" / "card.json").write_text(json.dumps(card), encoding="utf-8")
    segmenter = load_segmenter(tmp_path / "m")
    segmenter.check()
    with torch.no_grad():
        torch.testing.assert_close(segmenter.logits(x), network(x))


def test_a_segmenter_is_no_encoder_and_the_other_way_round(tmp_path: Path) -> None:
    target, arguments = NETWORKS["UNet"]
    weights = nets.UNet(**arguments).state_dict()
    spec = {"target": target, "arguments": arguments}
    save_model(tmp_path / "m", fields(network=spec), weights)
    with pytest.raises(TomoSegError, match="model-task"):
        load_encoder(tmp_path / "m")
    with pytest.raises(TomoSegError, match="model-task"):
        load_segmenter("tiny-blob")
    with pytest.raises(TomoSegError, match="device-unavailable"):
        load_segmenter(tmp_path / "m", "cuda:77")
