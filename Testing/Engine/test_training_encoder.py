"""From a manifest to a model folder, and every way in which that is refused or stopped."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from TomoSegLib.datasets.anatomy import load_anatomy
from TomoSegLib.datasets.lesions import simulate_case
from TomoSegLib.datasets.manifest import SINGLE, Case, write_manifest
from TomoSegLib.datasets.recipes import Recipe
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.models.loading import load_encoder
from TomoSegLib.models.store import ModelFolder
from TomoSegLib.training import encoder as training
from TomoSegLib.training import weak_supervision
from TomoSegLib.training.checkpoint import FILE
from TomoSegLib.training.encoder import METHODS, EncoderTraining, train_encoder
from TomoSegLib.training.weak_supervision import TrainingOptions

TEMPLATE: dict[str, Any] = {
    "schema_version": 1,
    "name": "tiny",
    "version": "0.1.0",
    "title": "A test",
    "modality": "MR",
    "channels": [{"name": "flair"}],
    "labels": [{"name": "Lesion", "value": 1}],
    "preprocessing": {"spacing_mm": 6.0, "foreground": "nonzero"},
    "network": {
        "target": "TomoSegLib.networks.encoders.EvidenceEncoder",
        "arguments": {
            "channels": 1,
            "widths": [4],
            "strides": [2],
            "blocks": [1],
            "kernels": [3],
        },
        "features": "stages",
    },
    "slices": {"spacing_mm": 6.0, "distance_mm": 6.0, "multiple": 4},
    "training_data": {"description": "Simulated.", "simulated": True},
    "license": "Apache-2.0",
    "intended_use": "Tests.",
}
OPTIONS = TrainingOptions(
    steps=8, volumes_per_step=4, slices_per_volume=2, validate_every=4, seed=11
)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def cases(head_files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    """8 volumes for training and 4 for validation, of two heads, half of them with lesions."""
    folder = tmp_path_factory.mktemp("simulated")
    heads = [load_anatomy(name, p) for name, p in zip(("one", "two"), head_files, strict=True)]
    found = []
    for number in range(12):
        split = "train" if number < 8 else "val"
        head = heads[split == "val"]
        case = simulate_case(head, number % 2, number, Recipe(spacing_mm=6.0))
        image, mask = folder / f"{number}.nrrd", folder / f"{number}-mask.nrrd"
        write_volume(case.image, image)
        write_volume(case.mask, mask)
        found.append(Case(str(number), {SINGLE: image}, number % 2, split, mask, head.name))  # type: ignore[arg-type]
    return found


@pytest.fixture
def what(cases: list[Case], tmp_path: Path) -> EncoderTraining:
    write_manifest(tmp_path / "manifest.csv", cases)
    return EncoderTraining(
        tmp_path / "manifest.csv",
        tmp_path / "run",
        TEMPLATE,
        OPTIONS,
        directions="fibonacci:6",
        calibration_cases=2,
    )


def without_masks(what: EncoderTraining, cases: list[Case]) -> EncoderTraining:
    """The same without calibration, which takes most of the time."""
    path = what.manifest.with_name("unmasked.csv")
    write_manifest(path, [replace(case, mask=None) for case in cases])
    return replace(what, manifest=path)


def trained(what: EncoderTraining, **arguments: Any) -> ModelFolder:
    model = train_encoder(what, **arguments)
    assert model is not None
    return model


def weights(model: ModelFolder) -> str:
    return hashlib.sha256((model.path / "weights.safetensors").read_bytes()).hexdigest()


def steps_done(what: EncoderTraining) -> int:
    with safe_open(what.output / "checkpoint" / FILE, framework="pt") as file:
        return int(json.loads(file.metadata()["state"])["step"])


def refused(what: EncoderTraining) -> TomoSegError:
    with pytest.raises(TomoSegError) as caught:
        train_encoder(what)
    return caught.value


def test_a_model_that_loads_comes_of_labels_and_its_card_says_how(
    what: EncoderTraining, cases: list[Case]
) -> None:
    told: list[tuple[str, int, int]] = []
    model = trained(
        what, on_progress=lambda stage, done, total, _: told.append((stage, done, total))
    )
    assert model.path == what.output / "model"
    card = model.card
    assert card.training_data.seed == 11
    assert card.training_data.volumes == 8
    assert card.training_data.simulated
    assert set(card.methods) == set(METHODS)
    for method, settings in card.methods.items():
        assert settings.directions == ("axial" if method == "cam" else "fibonacci:6")
        assert settings.threshold is not None
        assert 0 <= card.metrics[f"validation_dice_{method}"] <= 1
    assert 0 <= card.metrics["validation_auc"] <= 1
    assert card.refinement is not None
    assert card.metrics["refinement"]["with"] >= card.metrics["refinement"]["tried"][0]["dice"]
    encoder = load_encoder(model)
    logits = encoder.logits(torch.randn(3, 1, 24, 24))
    assert logits.shape == (3,)
    assert torch.isfinite(logits).all()
    assert {p.name for p in what.output.iterdir()} == {"checkpoint", "curves.png", "model"}
    assert told[11] == ("read", 12, 12)
    assert ("train", 8, 8) in told
    assert told[-1] == ("calibrate", 10, 10)

    # Masks of training volumes are never read: with unreadable ones all is the same.
    folder = what.manifest.parent
    spoilt = []
    for case in cases:
        mask = case.mask
        if case.split == "train":
            mask = folder / f"spoilt-{case.id}.nrrd"
            mask.write_text("not a volume")
        spoilt.append(replace(case, mask=mask))
    write_manifest(folder / "spoilt.csv", spoilt)
    again = trained(replace(what, manifest=folder / "spoilt.csv", output=folder / "again"))
    assert weights(again) == weights(model)
    assert again.card == card


@pytest.mark.parametrize("end", ["stopped", "killed"])
def test_a_training_that_ended_early_goes_on_to_the_same_model(
    end: str, what: EncoderTraining, cases: list[Case]
) -> None:
    what = without_masks(what, cases)
    whole = trained(replace(what, output=what.output.with_name("whole")))
    step = 0

    def follow(stage: str, done: int, total: int, figures: object) -> None:
        nonlocal step
        step = done if stage == "train" else 0
        if end == "killed" and step == 6:
            raise MemoryError

    if end == "stopped":
        assert train_encoder(what, follow, lambda: step == 6) is None
        assert steps_done(what) == 6
    else:
        with pytest.raises(MemoryError):
            train_encoder(what, follow)
        assert steps_done(what) == 4  # the last validation
    assert not (what.output / "model").exists()
    assert weights(trained(what)) == weights(whole)
    assert steps_done(what) == 8


@pytest.mark.parametrize("stage", ["read", "calibrate"])
def test_reading_and_calibration_can_be_stopped_too(stage: str, what: EncoderTraining) -> None:
    seen: list[str] = []
    done = train_encoder(what, lambda s, *_: seen.append(s), lambda: seen[-1:] == [stage])
    assert done is None
    assert seen.count(stage) == 1
    assert not (what.output / "model").exists()
    assert not (what.output / "uncalibrated").exists()


def test_another_seed_is_refused_over_a_checkpoint_unless_it_shall_start_again(
    what: EncoderTraining, cases: list[Case]
) -> None:
    what = without_masks(what, cases)
    first = weights(trained(what))
    other = replace(what, options=replace(OPTIONS, seed=12))
    error = refused(other)
    assert error.code == "checkpoint-different"
    assert "options" in error.message
    assert weights(ModelFolder(trained(what).card, what.output / "model")) == first
    seen: list[str] = []
    again_stopped = partial(
        train_encoder, replace(other, overwrite=True), lambda stage, *_: seen.append(stage)
    )
    assert again_stopped(lambda: seen[-1:] == ["read"]) is None
    assert (what.output / "model").exists()  # nothing has begun
    assert again_stopped(lambda: seen[-1:] == ["train"]) is None
    assert not (what.output / "model").exists()  # it would be taken for the new training's
    again = trained(replace(other, overwrite=True))
    assert weights(again) != first
    assert again.card.training_data.seed == 12


def test_a_folder_called_model_that_is_none_is_left_alone(what: EncoderTraining) -> None:
    (what.output / "model").mkdir(parents=True)
    thesis = what.output / "model" / "thesis.txt"
    thesis.write_text("years")
    assert refused(replace(what, overwrite=True)).code == "model-exists"
    assert thesis.read_text() == "years"


def test_a_volume_whose_file_was_replaced_makes_it_another_training(
    what: EncoderTraining, cases: list[Case], tmp_path: Path
) -> None:
    copy = tmp_path / "copy.nrrd"
    volume = read_volume(cases[0].paths[SINGLE])
    write_volume(volume, copy)
    changed = [replace(cases[0], paths={SINGLE: copy}), *cases[1:]]
    what = without_masks(what, changed)
    trained(what)
    write_volume(volume.with_array(volume.array[::-1], "flipped"), copy)
    assert refused(what).code == "checkpoint-different"


def test_without_masks_there_is_no_threshold(what: EncoderTraining, cases: list[Case]) -> None:
    card = trained(without_masks(what, cases)).card
    assert card.methods == {}
    assert set(card.metrics) == {"validation_auc"}


def test_a_diverged_training_is_told_each_time_and_leaves_a_sound_checkpoint(
    what: EncoderTraining, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    what = without_masks(what, cases)
    loss = weak_supervision.slice_loss
    calls = 0

    def broken(logits: torch.Tensor, *others: Any) -> torch.Tensor:
        nonlocal calls
        calls += 1
        found = loss(logits, *others)
        return found * float("nan") if calls == 6 else found

    monkeypatch.setattr(weak_supervision, "slice_loss", broken)
    assert refused(what).code == "training-diverged"
    assert steps_done(what) == 4
    calls = 4
    assert refused(what).code == "training-diverged"
    assert not (what.output / "model").exists()
    with safe_open(what.output / "checkpoint" / FILE, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - no dict
            assert np.isfinite(file.get_tensor(name)).all()


@pytest.mark.parametrize("split", ["train", "val"])
def test_one_class_alone_is_refused(what: EncoderTraining, cases: list[Case], split: str) -> None:
    write_manifest(what.manifest, [c for c in cases if c.split != split or c.label == 1])
    assert refused(what).code == "manifest-one-class"


def template(**changes: Any) -> dict[str, Any]:
    network = {**TEMPLATE["network"], **changes.pop("network", {})}
    return {**TEMPLATE, "network": network, **changes}


DENSE_NET = {
    "target": "monai.networks.nets.DenseNet",
    "arguments": {
        "spatial_dims": 2,
        "in_channels": 1,
        "out_channels": 1,
        "init_features": 4,
        "growth_rate": 4,
        "block_config": [1, 1],
    },
    "features": "class_layers.relu",
}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"speed": "high"}, "template-invalid"),
        ({"name": "NO NAME"}, "template-invalid"),
        ({"network": {"format": "torchscript"}}, "template-invalid"),
        ({"network": {"features": "nowhere"}}, "template-invalid"),
        ({"network": {"target": "os.system"}}, "model-target-not-allowed"),
        ({"network": {"arguments": {"widths": [4]}}}, "model-arguments-invalid"),
        ({"channels": [{"name": "t1"}, {"name": "flair"}]}, "model-network-invalid"),
        (
            {"network": {**DENSE_NET, "arguments": {**DENSE_NET["arguments"], "out_channels": 2}}},
            "template-invalid",
        ),
        ({"network": {**DENSE_NET, "features": None}, "method": "cam"}, "template-invalid"),
    ],
)
def test_a_bad_template_is_refused_before_any_volume_is_read(
    changes: dict[str, Any],
    code: str,
    what: EncoderTraining,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(training, "read_volume", None)
    assert refused(replace(what, template=template(**changes))).code == code
    assert not what.output.exists()


def test_wrong_directions_are_refused_before_training(what: EncoderTraining) -> None:
    assert refused(replace(what, directions="fibonacci:none")).code == "directions-invalid"
    assert not what.output.exists()


def test_an_output_that_is_a_file_is_refused(what: EncoderTraining) -> None:
    what.output.write_text("")
    assert refused(what).code == "output-unwritable"


@pytest.mark.parametrize(
    ("features", "methods"), [("class_layers.relu", set(METHODS)), (None, {"tonno"})]
)
def test_a_network_of_monai_is_trained_and_calibrated_for_what_it_supports(
    features: str | None, methods: set[str], what: EncoderTraining
) -> None:
    network = {**DENSE_NET, "features": features}
    options = replace(OPTIONS, steps=2, validate_every=2)
    model = trained(replace(what, template=template(network=network), options=options))
    assert set(model.card.methods) == methods
    assert load_encoder(model).logits(torch.zeros(2, 1, 32, 32)).shape == (2,)


def test_two_channels_are_read_in_the_order_of_the_card(
    what: EncoderTraining, cases: list[Case], tmp_path: Path
) -> None:
    network = {"arguments": {**TEMPLATE["network"]["arguments"], "channels": 2}}
    found = []
    for names in (("t1", "flair"), ("flair", "t1")):
        two = []
        for case in cases:
            path = case.paths[SINGLE]
            darker = tmp_path / f"darker-{case.id}.nrrd"
            if not darker.exists():
                volume = read_volume(path)
                write_volume(volume.with_array((volume.array**0.5).astype(np.float32)), darker)
            two.append(replace(case, paths={"flair": path, "t1": darker}, mask=None))
        manifest = tmp_path / f"two-{names[0]}.csv"
        write_manifest(manifest, two)
        card = template(network=network, channels=[{"name": name} for name in names])
        model = trained(replace(what, manifest=manifest, template=card, output=tmp_path / names[0]))
        assert [channel.name for channel in model.card.channels] == list(names)
        found.append(weights(model))
    assert found[0] != found[1]


def command(what: EncoderTraining, template: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "TomoSegLib.cli", "train", "encoder", "--device", "cpu"),
        *("--manifest", str(what.manifest), "--template", str(template)),
        *("-o", str(what.output), "--volumes-per-step", "4", "--slices-per-volume", "2"),
        *("--threads", "1", "--validate-every", "1000", "--directions", "fibonacci:4", *more),
    ]


ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("template", "template-invalid"),
        ("remedy", "usage"),
        ("manifest", "manifest-not-found"),
    ],
)
def test_the_command_line_refuses_in_one_line(
    fault: str, code: str, what: EncoderTraining, tmp_path: Path
) -> None:
    path = tmp_path / "template.json"
    path.write_text("{" if fault == "template" else json.dumps(TEMPLATE))
    more = ("--noise-remedy", "prayer") if fault == "remedy" else ()
    if fault == "manifest":
        what.manifest.unlink()
    done = subprocess.run(
        command(what, path, *more), capture_output=True, text=True, env=ENVIRONMENT, timeout=200
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tomoseg: error [{code}]: ")
    assert not what.output.exists()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal as a terminal does")
def test_ctrl_c_saves_and_the_same_command_goes_on(
    what: EncoderTraining, cases: list[Case], tmp_path: Path
) -> None:
    what = without_masks(what, cases)
    path = tmp_path / "template.json"
    path.write_text(json.dumps(TEMPLATE))
    arguments = command(what, path, "--steps", "400")
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert process.stderr is not None
    lines = []
    while not any(line.startswith("train") for line in lines):
        lines.append(process.stderr.readline())
        assert lines[-1], lines
    process.send_signal(signal.SIGINT)
    start = time.monotonic()
    stdout, stderr = process.communicate(timeout=100)
    assert process.returncode == 130, stderr
    assert time.monotonic() - start < 20
    assert stdout.startswith("stopped; give the same command again to go on.")
    assert "Traceback" not in stderr
    stopped = steps_done(what)
    assert 0 < stopped < 400
    done = subprocess.run(arguments, capture_output=True, text=True, env=ENVIRONMENT, timeout=200)
    assert done.returncode == 0, done.stderr
    assert steps_done(what) == 400
    assert "model in" in done.stdout
    # It went on where it was: the steps before are not told again.
    told = [int(x.split()[1].split("/")[0]) for x in done.stderr.splitlines() if x[:5] == "train"]
    assert min(told) > stopped
