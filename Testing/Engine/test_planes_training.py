"""Pre-training on planes learns, goes on exactly after a stop, and says how well it does."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.networks.unet import is_output_weight
from TomoSegLib.networks.unet2d import (
    LocationNetwork,
    ResNetUNet2D,
    UNet2D,
    is_encoder_weight,
)
from TomoSegLib.pretraining.planes_data import PlaneExample, balanced
from TomoSegLib.pretraining.planes_predict import load_plane_network
from TomoSegLib.pretraining.planes_run import PlanePretraining, pretrain_planes
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.planes_training import (
    PlaneTraining,
    location_loss,
    orientation_loss,
)
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.training.segmentation_manifest import LabelSpec
from TomoSegLib.training.segmentation_plan import Finetuning, make_plan

FEATURES = (4, 4, 8, 8, 16, 4)
PLANES = PlaneOptions(spacing_mm=4.0, side=32, shift_mm=4)


def cone(points: np.ndarray) -> np.ndarray:
    """A bright body around the z axis that narrows towards +z, with a rib on one side."""
    x, y, z = np.moveaxis(points, -1, 0)
    radius = 40 - 0.45 * (z + 45)
    body = 1 / (1 + np.exp((np.hypot(x, y) - radius) / 2))
    rib = np.exp(-((y - 10) ** 2 + (x - 25) ** 2) / 60)
    return 200 * body + 150 * rib + 20


def write(path: Path, geometry: Geometry, rng: np.random.Generator) -> None:
    k, j, i = np.indices(geometry.shape)
    points = geometry.index_to_lps(np.stack([i, j, k], axis=-1))
    array = cone(points) + rng.normal(0, 3, geometry.shape)
    write_volume(Volume(array.astype(np.float32), geometry), path)


def make_study(folder: Path, seed: int) -> None:
    """A stack across z and two planes along it, shifted a little."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    x, y = rng.uniform(-12, 12, 2)
    stack = Geometry.from_parts((5, 32, 32), (4, 4, 20), np.eye(3), (-62 + x, -62 + y, -40))
    write(folder / "sax.nii.gz", stack, rng)
    for name, angle, offset in (("4ch", 0.0, x), ("2ch", 1.2, y)):
        u = np.array([np.cos(angle), np.sin(angle), 0])
        direction = np.stack([u, [0, 0, 1], np.cross(u, [0, 0, 1])], axis=1)
        middle = offset * direction[:, 2]
        origin = middle - 62 * direction[:, 0] - 62 * direction[:, 1]
        write(
            folder / f"{name}.nii.gz",
            Geometry.from_parts((1, 32, 32), (4, 4, 8), direction, origin),
            rng,
        )


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for n in range(4):
        make_study(folder / f"p{n}", n)
    return folder


def what(studies: Path, output: Path, **training: object) -> PlanePretraining:
    options = PlaneTraining(steps=6, batch_size=2, validate_every=3)
    return PlanePretraining(
        studies,
        output,
        replace(options, **training),  # type: ignore[arg-type]
        PLANES,
        features=FEATURES,
        validation=0.25,
    )


def test_images_of_rare_views_are_repeated_until_a_third_of_the_commonest() -> None:
    kinds = ["short-axis"] * 9 + ["4-chamber", "2-chamber", "2-chamber"]
    plane = ImagePlane(np.zeros(3), np.eye(3)[0], np.eye(3)[1], (2, 2))
    examples = [
        PlaneExample("s", f"{n}", kind, 0, plane, np.zeros((2, 2), np.float16), (), None)
        for n, kind in enumerate(kinds)
    ]
    found = balanced(examples)
    assert found[: len(examples)] == examples
    assert Counter(example.kind for example in found) == {
        "short-axis": 9,
        "4-chamber": 3,
        "2-chamber": 4,
    }
    assert balanced([]) == []


def test_losses_count_only_what_is_known() -> None:
    heatmaps = torch.zeros(2, 3, 4, 4)
    maps = torch.ones(2, 3, 4, 4) * torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    known = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert float(orientation_loss(maps, heatmaps, known)) == pytest.approx((1 + 4) / 2)
    assert float(orientation_loss(maps, heatmaps, torch.zeros(2, 3))) == 0
    locations, targets = torch.tensor([0.5, 0.9]), torch.tensor([0.0, 0.0])
    assert float(location_loss(locations, targets, torch.tensor([1.0, 0]))) == pytest.approx(0.25)


@pytest.mark.parametrize("kind", ["unet", "resnet"])
def test_networks_give_maps_of_the_image_and_one_number(kind: str) -> None:
    network = UNet2D(1, 3, FEATURES) if kind == "unet" else ResNetUNet2D(1, 3, "resnet10")
    both = LocationNetwork(network).eval()
    images = torch.randn(2, 1, 64, 64)
    levels = network.encode(images)
    assert [level.shape[1] for level in levels] == list(network.level_channels)
    maps, places = both(images)
    assert maps.shape == (2, 3, 64, 64) and places.shape == (2,)
    torch.testing.assert_close(both.locate(images), places)
    torch.testing.assert_close(network(images), maps)
    names = network.state_dict()
    assert any(is_encoder_weight(n) for n in names) and any(is_output_weight(n) for n in names)
    assert not any(is_encoder_weight(n) and is_output_weight(n) for n in names)


def test_the_paper_s_network_is_the_default() -> None:
    network = LocationNetwork(UNet2D(1, 4))
    assert network.network.level_channels == (64, 128, 256, 512, 1024)
    assert [m.weight.shape for m in network.head if hasattr(m, "weight")] == [(128, 1024), (1, 128)]


def test_training_learns_lines_and_places(studies: Path, tmp_path: Path) -> None:
    job = what(studies, tmp_path, steps=150, batch_size=8, validate_every=50, learning_rate=3e-3)
    job = replace(job, features=(8, 16, 16, 32, 32, 8), planes=replace(PLANES, rotation=5, flip=0))
    seen: list[tuple[str, int]] = []

    def tell(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        seen.append((stage, done))

    report = pretrain_planes(job, tell)
    assert report is not None and report["images"] == "validation"
    assert report["lines"]["all"]["lines"] == 14
    assert report["lines"]["all"]["mm"]["median"] < 15
    assert report["location"]["error"]["mean"] < 0.2
    assert report["location"]["error_of_guess"]["mean"] == pytest.approx(0.3)
    assert ("train", 150) in seen and ("read", 4) in seen
    record = json.loads((tmp_path / "pretrained.json").read_text())
    assert record["kinds"] == ["short-axis", "2-chamber", "4-chamber"]
    assert record["network"]["decoder"] and record["images"] == {"training": 21, "validation": 7}
    assert record["network"]["target"] == "TomoSegLib.networks.unet2d.UNet2D"
    network = UNet2D(1, 3, (8, 16, 16, 32, 32, 8))
    network.load_state_dict(load_file(tmp_path / "pretrained.safetensors"))
    for name in ("curves.png", "predictions.png", "report.json"):
        assert (tmp_path / name).stat().st_size > 100


@pytest.fixture(scope="module")
def trained(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short pre-training on both tasks."""
    folder = tmp_path_factory.mktemp("trained")
    assert pretrain_planes(what(studies, folder, steps=2)) is not None
    return folder


def test_a_pre_training_is_a_start_for_segmenting_stacks(trained: Path, tmp_path: Path):
    for name in ("image.nii.gz", "label.nii.gz"):
        array = np.random.default_rng(0).integers(0, 2, (2, 16, 16)).astype(np.uint8)
        write_volume(Volume(array, Geometry((2, 16, 16), np.eye(4))), tmp_path / name)
    manifest = tmp_path / "stacks.csv"
    manifest.write_text("image,label,split,modality\nimage.nii.gz,label.nii.gz,train,MR\n")
    labels = [LabelSpec("LV", (1,)), LabelSpec("RV", (2,))]
    plan = make_plan(Finetuning(manifest, tmp_path / "run", labels, start=str(trained)))
    record = json.loads((trained / "pretrained.json").read_text())
    assert plan.preprocessing.in_plane
    assert plan.preprocessing.spacing_mm == record["planes"]["spacing_mm"]
    found, weights = plan.network().state_dict(), load_file(trained / "pretrained.safetensors")
    assert found.keys() == weights.keys()
    for name, value in weights.items():
        if is_output_weight(name):
            assert found[name].shape[0] == 3  # the background and two labels, anew
        else:
            # The same but for the scale, which batch norm takes away.
            one, other = (
                torch.nn.functional.normalize(w.float().flatten(), dim=0)
                for w in (found[name], value)
            )
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def predict(study: Path, pretrained: Path, output: Path) -> dict[str, Any]:
    command = ["planes", "predict", str(study), "--pretrained", str(pretrained)]
    assert main([*command, "-o", str(output), "--device", "cpu"]) == 0
    assert (output / "predictions.png").stat().st_size > 100
    return json.loads((output / "report.json").read_text())


def test_the_weights_that_were_measured_are_used_again(
    studies: Path, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = json.loads((trained / "report.json").read_text())
    held_out = np.random.default_rng((0, 4)).permutation(4)[0]
    found = predict(studies / f"p{held_out}", trained, tmp_path / "out")
    # To what another layout of the weights in memory changes in rounding.
    for name, figures in found["lines"].items():
        for key in ("degrees", "mm"):
            assert figures[key] == pytest.approx(report["lines"][name][key], abs=0.01)
    assert set(found["lines"]) == set(report["lines"])
    assert found["location"]["error"] == pytest.approx(report["location"]["error"], abs=1e-3)
    assert [entry["true"] for entry in found["locations"]] == pytest.approx([1, 0.75, 0.5, 0.25, 0])
    command = ["planes", "predict", str(studies / "p0"), "--pretrained", str(trained)]
    assert main([*command, "-o", str(tmp_path / "out")]) == 2
    assert "output-exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    "change",
    [
        {"kinds": ["heart"]},
        {"kinds": ["short-axis"]},
        {"planes": {"side": 32}},
        {"planes": None},
        {"network": {"target": "os.system", "decoder": True}},
        {"network": {"target": "UNet2D", "features": [10**9] * 6}},
        {"location_head_sha256": "0"},
    ],
)
def test_a_record_that_was_tampered_with_is_refused(
    trained: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    for file in trained.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    path = tmp_path / "pretrained.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(TomoSegError) as caught:
        load_plane_network(tmp_path)
    assert caught.value.code == "pretrained-mismatch"


def test_a_stopped_training_goes_on_bit_by_bit(studies: Path, tmp_path: Path) -> None:
    assert pretrain_planes(what(studies, tmp_path / "whole")) is not None
    steps = 0

    def stop() -> bool:
        return steps >= 4

    def tell(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        nonlocal steps
        steps = done if stage == "train" else 0

    assert pretrain_planes(what(studies, tmp_path / "parts"), tell, stop) is None
    assert not (tmp_path / "parts" / "pretrained.json").exists()
    assert pretrain_planes(what(studies, tmp_path / "parts")) is not None
    whole, parts = (
        load_file(tmp_path / name / "pretrained.safetensors") for name in ("whole", "parts")
    )
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    with pytest.raises(TomoSegError) as caught:
        pretrain_planes(what(studies, tmp_path / "parts", learning_rate=0.1))
    assert caught.value.code == "checkpoint-different"


@pytest.mark.parametrize("stage", ["find", "read"])
def test_it_stops_while_studies_are_read(studies: Path, tmp_path: Path, stage: str) -> None:
    seen: list[tuple[str, int]] = []

    def tell(name: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        seen.append((name, done))

    def stop() -> bool:
        return seen[-1] == (stage, 2)

    assert pretrain_planes(what(studies, tmp_path / "out"), tell, stop) is None
    assert seen[-1] == (stage, 2)
    assert not (tmp_path / "out").exists()


def test_the_location_task_alone_keeps_the_encoder_only(studies: Path, tmp_path: Path) -> None:
    report = pretrain_planes(what(studies, tmp_path, tasks=("location",), steps=2))
    assert report is not None and "lines" not in report and "location" in report
    found = predict(studies / "p0", tmp_path, tmp_path / "prediction")
    assert "lines" not in found and "location" in found
    weights = load_file(tmp_path / "pretrained.safetensors")
    assert weights and all(is_encoder_weight(name) for name in weights)


def test_the_orientation_task_alone_reports_lines(studies: Path, tmp_path: Path) -> None:
    job = what(studies, tmp_path, tasks=("orientation",), steps=2)
    job = replace(job, encoder="resnet10")
    report = pretrain_planes(job)
    assert report is not None and "location" not in report
    assert set(report["lines"]) >= {"short-axis by 4-chamber", "4-chamber by short-axis", "all"}
    assert json.loads((tmp_path / "pretrained.json").read_text())["network"]["backbone"]
    found = predict(studies / "p0", tmp_path, tmp_path / "prediction")
    assert "location" not in found and "lines" in found


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tasks": ("colour",)}, "no plane tasks"),
        ({"tasks": ()}, "no plane tasks"),
        ({"side": 40}, "do not fit"),
        ({"encoder": "resnet99"}, "no encoder"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    studies: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    job = what(studies, tmp_path)
    if "tasks" in change:
        job = replace(job, training=replace(job.training, **change))  # type: ignore[arg-type]
    elif "side" in change:
        job = replace(job, planes=replace(PLANES, **change))  # type: ignore[arg-type]
    else:
        job = replace(job, **change)  # type: ignore[arg-type]
    with pytest.raises(TomoSegError, match=says):
        pretrain_planes(job)


def test_a_task_without_targets_is_refused(tmp_path: Path) -> None:
    make_study(tmp_path / "in" / "a", 0)
    for name in ("4ch", "2ch"):
        (tmp_path / "in" / "a" / f"{name}.nii.gz").unlink()
    with pytest.raises(TomoSegError, match="nothing to learn from") as caught:
        pretrain_planes(what(tmp_path / "in", tmp_path / "out"))
    assert caught.value.code == "pretraining-options"


def test_a_bad_study_is_named_and_the_rest_goes_on(
    studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    for n in range(2):
        make_study(folder / f"p{n}", n)
    (folder / "empty").mkdir()
    (folder / "p0" / "4ch.nii.gz").write_bytes((folder / "p0" / "4ch.nii.gz").read_bytes()[:-300])
    arguments = ["pretrain", "planes", "--studies", str(folder), "-o", str(tmp_path / "out")]
    arguments += ["--steps", "2", "--batch-size", "2", "--features", "4,4,4,4,4,4", "--side", "32"]
    arguments += ["--spacing", "4", "--device", "cpu"]
    assert main(arguments) == 0
    output = capsys.readouterr()
    assert "'empty' is left out" in output.err and "4ch.nii.gz" in output.err
    assert "degrees" in output.out and "of the stack" in output.out
