"""The baselines of the plane tasks: what they are given, and that they can be learned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from TomoSegLib.cli import main
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.networks import imagenet
from TomoSegLib.networks.unet2d import LocationNetwork, UNet2D, is_encoder_weight
from TomoSegLib.pretraining.planes_baselines import (
    BaselineDataset,
    baseline_loss,
    shuffled_blocks,
)
from TomoSegLib.pretraining.planes_data import PlaneExample
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.studies.image_plane import ImagePlane

PLANES = PlaneOptions(spacing_mm=4.0, side=32, shift_mm=4)
COMMAND = ["--spacing", "4", "--side", "32", "--device", "cpu", "--batch-size", "4"]


def example(rows: int = 32, columns: int = 32) -> PlaneExample:
    """An image that is brighter towards its last row, with a spot."""
    image = np.linspace(0.1, 0.9, rows)[:, None] * np.ones(columns)
    image[rows // 4, columns // 3] = 1.0
    plane = ImagePlane(np.zeros(3), np.array([4.0, 0, 0]), np.array([0, 4.0, 0]), (rows, columns))
    return PlaneExample("s", "v", "unknown", 0, plane, image.astype(np.float16), (), None)


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stacks with a bright side, whose views no one would recognise."""
    folder = tmp_path_factory.mktemp("studies")
    for n in range(3):
        rng = np.random.default_rng(n)
        geometry = Geometry.from_parts((6, 32, 32), (4, 4, 8), np.eye(3), rng.uniform(-9, 9, 3))
        array = np.linspace(20, 200, 32)[:, None] + rng.normal(0, 5, geometry.shape)
        (folder / f"p{n}").mkdir()
        write_volume(
            Volume(array.astype(np.float32), geometry), folder / f"p{n}" / "series1.nii.gz"
        )
    return folder


def test_the_label_is_the_number_of_quarter_turns() -> None:
    data = BaselineDataset([example()] * 4, PLANES, "rotation")
    upright = data[(0, 0)]["image"][0]
    for index in range(4):
        item = data[(0, index)]
        assert int(item["label"]) == index
        assert torch.equal(item["image"][0], torch.rot90(upright, index))


def test_the_field_of_view_does_not_tell_the_turn() -> None:
    data = BaselineDataset([example(16, 32)] * 4, PLANES, "rotation")
    shapes = [data[(0, index)]["image"][0] == data[(0, index)]["image"].min() for index in range(4)]
    assert shapes[0].any() and not shapes[0].all()
    assert all(torch.equal(shape, shapes[0]) for shape in shapes[1:])


def test_what_is_to_be_restored_is_the_image_that_was_transformed() -> None:
    data = BaselineDataset([example()] * 6, PLANES, "restoration", (0, 1))
    plain = BaselineDataset([example()], PLANES, "restoration")
    differing = 0
    for index in range(6):
        item = data[(index, index)]
        inside = item["target"][item["inside"] > 0]
        assert float(inside.mean()) == pytest.approx(0, abs=1e-4)
        assert float(inside.std()) == pytest.approx(1, abs=1e-2)
        differing += not torch.equal(item["image"], item["target"])
        assert torch.equal(data[(index, index)]["image"], item["image"])
    assert differing >= 5
    # The target is the image as acquired, but for its scale: brighter from row to row.
    rows = plain[(0, 0)]["target"][0].mean(dim=1)
    assert bool((rows.diff() > -0.05).all()) and float(rows[-1] - rows[0]) > 2


def test_an_image_is_shuffled_twice_over_whatever_its_size() -> None:
    for side in (32, 96, 224):
        mean = (1 + side // 10) / 2
        assert shuffled_blocks(side) * mean**2 == pytest.approx(2 * side**2, rel=0.01)


def test_losses_count_what_is_inside() -> None:
    network = LocationNetwork(UNet2D(1, 1, (4, 4, 8, 8, 16, 4)), 4)
    target, inside = torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16)
    network.network.forward = lambda x: torch.cat([x[..., :8] + 2, x[..., 8:] + 9], -1)  # type: ignore
    inside[..., :8] = 1
    batch = {"image": target, "target": target, "inside": inside}
    assert float(baseline_loss(network, "restoration", batch)) == pytest.approx(4)


@pytest.mark.parametrize("task", ["rotation", "restoration"])
def test_a_baseline_learns_and_leaves_a_folder_as_the_plane_tasks_do(
    studies: Path, tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["pretrain", "planes", "--studies", str(studies), "-o", str(tmp_path), "--tasks"]
    steps = ["--features", "8,8,16,16,16,8", "--steps", "60", "--learning-rate", "3e-3"]
    assert main([*command, task, *COMMAND, *steps, "--validate-every", "20"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())[task]
    if task == "rotation":
        assert report["accuracy"] > 0.8 and report["accuracy_of_guess"] == 0.25
    else:
        assert report["mean_squared_error"] < 0.5 * report["of_transformed"]
    assert task in capsys.readouterr().out
    record = json.loads((tmp_path / "pretrained.json").read_text())
    assert record["task"] == f"planes-{task}"
    weights = load_file(tmp_path / "pretrained.safetensors")
    assert record["network"]["decoder"] == (not all(map(is_encoder_weight, weights)))
    assert record["network"]["decoder"] == (task == "restoration")
    assert (tmp_path / "predictions.png").stat().st_size > 1000
    predict = ["planes", "predict", str(studies / "p0"), "--pretrained", str(tmp_path), "-o"]
    assert main([*predict, str(tmp_path / "out")]) == 2
    assert "pretrained-mismatch" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--tasks", "rotation,restoration"], "alone"),
        (["--tasks", "location,rotation"], "alone"),
        (["--tasks", "rotation", "--from", "imagenet"], "efficientnet-lite0"),
        (["--tasks", "rotation", "--network", "resnet11"], "efficientnet-lite0"),
        (["--from", "kinetics", "--network", "efficientnet-lite0"], "imagenet"),
    ],
)
def test_what_does_not_go_together_is_refused(
    studies: Path,
    tmp_path: Path,
    options: list[str],
    reason: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = ["pretrain", "planes", "--studies", str(studies), "-o", str(tmp_path), *COMMAND]
    assert main([*command, *options]) == 2
    told = capsys.readouterr().err
    assert "pretraining-options" in told and reason in told


def test_a_pre_training_begins_with_imagenet_s_weights(studies: Path, tmp_path: Path) -> None:
    pytest.importorskip(imagenet.PACKAGE)
    command = ["pretrain", "planes", "--studies", str(studies), "-o", str(tmp_path)]
    begin = ["--network", "efficientnet-lite0", "--from", "imagenet", "--learning-rate", "1e-6"]
    assert main([*command, "--tasks", "rotation", *COMMAND, *begin, "--steps", "1"]) == 0
    weights = load_file(tmp_path / "pretrained.safetensors")
    name = "encoder._conv_stem.weight"
    assert torch.allclose(weights[name], imagenet.imagenet_unet().state_dict()[name], atol=1e-4)
    record = json.loads((tmp_path / "pretrained.json").read_text())
    assert record["network"]["start"] == "imagenet"
    assert record["network"]["backbone"] == "efficientnet-lite0"
