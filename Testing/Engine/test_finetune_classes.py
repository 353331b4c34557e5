"""Fine-tuning a classifier of stacks, from pre-training on planes to a model with figures."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.models.classifier import load_classifier
from TomoSegLib.models.store import read_model
from TomoSegLib.models.verification import verify_model
from TomoSegLib.networks.imagenet import PACKAGE, imagenet_unet
from TomoSegLib.networks.stack_classifier import StackClassifier
from TomoSegLib.networks.unet2d import ResNetUNet2D, UNet2D
from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.weights import save_pretrained
from TomoSegLib.training.classification import finetune_classifier
from TomoSegLib.training.classification_data import StackDataset, in_memory
from TomoSegLib.training.classification_manifest import fraction_of_classes, read_classified
from TomoSegLib.training.classification_plan import ClassifierTraining, make_classifier_plan
from TomoSegLib.training.classification_scores import ClassScore, report_of
from TomoSegLib.training.classification_trainer import ClassifierOptions, ClassifierTrainer

sys.path.append(str(Path(__file__).parent))

from classification_cases import CLASSES, FEATURES, read_manifest, write_cases, write_manifest

OPTIONS = ClassifierOptions(
    steps=40,
    batch_size=4,
    slices=3,
    size=(32, 32),
    learning_rate=0.01,
    last_layer_factor=1.0,
    validate_every=20,
)


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("stacks"))


@pytest.fixture(scope="module")
def planes(tmp_path_factory):
    """What a pre-training on planes leaves, with random weights and pixels of 1.4 mm."""
    folder = tmp_path_factory.mktemp("planes")
    torch.manual_seed(3)
    record = {
        "network": {"features": list(FEATURES), "decoder": True},
        "planes": asdict(PlaneOptions(spacing_mm=1.4)),
        "title": "Planes",
    }
    save_pretrained(folder, UNet2D(1, 4, FEATURES).state_dict(), record)
    return folder


def asked(manifest, output, **changes):
    options = {n: changes.pop(n) for n in list(changes) if hasattr(OPTIONS, n)}
    changes.setdefault("features", FEATURES)
    return ClassifierTraining(manifest, output, options=replace(OPTIONS, **options), **changes)


@pytest.fixture(scope="module")
def model(cases, planes, tmp_path_factory):
    output = tmp_path_factory.mktemp("run")
    return finetune_classifier(asked(cases, output, start=str(planes), features=None))


def refused(what):
    with pytest.raises(TomoSegError) as caught:
        finetune_classifier(what)
    return caught.value


def test_a_pre_training_on_planes_becomes_a_classifier_of_stacks(model):
    card = model.card
    assert card.task == "classification" and card.stack.size == (32, 32)
    assert [label.name for label in card.labels] == ["dilated", "normal"]
    assert card.preprocessing.in_plane and card.preprocessing.spacing_mm == pytest.approx(1.4)
    assert "started from Planes" in card.training_data.description
    assert card.metrics["test balanced accuracy"] == 1.0 and card.metrics["test AUC"] == 1.0
    assert verify_model(read_model(model.path)) is not None


def test_test_cases_and_figures_are_written_beside_the_model(model):
    run = model.path.parent
    rows = list(csv.DictReader((run / "test.csv").open()))
    assert list(rows[0]) == [
        "case",
        "class",
        "predicted",
        "probability dilated",
        "probability normal",
    ]
    assert len(rows) == 4 and all(row["predicted"] == row["class"] for row in rows)
    for row in rows:
        both = float(row["probability dilated"]) + float(row["probability normal"])
        assert both == pytest.approx(1, abs=1e-5)
    report = json.loads((run / "report.json").read_text())
    assert report["confusion"] == {
        "dilated": {"dilated": 2, "normal": 0},
        "normal": {"dilated": 0, "normal": 2},
    }
    assert "balanced accuracy 1.000" in (run / "report.md").read_text()
    record = json.loads((run / "finetuning.json").read_text())
    assert record["task"] == "classification" and record["classes"] == list(CLASSES)
    assert len(record["training_cases"]) == 6 and record["options"]["size"] == [32, 32]
    assert (run / "curves.png").exists() and list((run / "tensorboard").iterdir())


def test_figures_are_those_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true = rng.integers(3, size=40)
    probabilities = rng.dirichlet([1, 1, 1], size=40) + 0.3 * np.eye(3)[true]
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    scores = [ClassScore("", int(t), tuple(p)) for t, p in zip(true, probabilities, strict=True)]
    report = report_of(scores, ["a", "b", "c"])
    predicted = probabilities.argmax(axis=1)
    assert report.confusion == metrics.confusion_matrix(true, predicted).tolist()
    expected = metrics.balanced_accuracy_score(true, predicted)
    assert report.balanced_accuracy == pytest.approx(expected)
    auc = metrics.roc_auc_score(true, probabilities, multi_class="ovr", average="macro")
    assert report.mean_auc == pytest.approx(auc)


def test_a_class_without_test_cases_has_no_figures_and_spoils_no_others():
    report = report_of([ClassScore("x", 0, (0.7, 0.2, 0.1))], ["a", "b", "c"])
    assert report.balanced_accuracy == 1.0 and report.mean_auc is None
    assert report.recall == [1.0, None, None] and report.auc == [None, None, None]


def test_what_was_stopped_goes_on_and_ends_with_the_same_weights(cases, tmp_path):
    whole = finetune_classifier(asked(cases, tmp_path / "whole", steps=5, validate_every=2))
    steps = []

    def tell(stage, done, total, figures):
        if stage == "train":
            steps.append(done)

    what = asked(cases, tmp_path / "parts", steps=5, validate_every=2)
    assert finetune_classifier(what, tell, lambda: len(steps) >= 3) is None
    parts = finetune_classifier(what)
    assert parts.card.files == whole.card.files
    assert (tmp_path / "parts/test.csv").read_text() == (tmp_path / "whole/test.csv").read_text()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_command_that_is_killed_goes_on_and_ends_with_the_same_weights(cases, tmp_path):
    def command(output):
        options = ["--features", "4,4,8,8,8,4", "--patch", "32x32x1", "--steps", "15"]
        options += ["--validate-every", "3"]
        return [
            *[sys.executable, "-m", "TomoSegLib.cli", "finetune", "--task", "classification"],
            *["--manifest", str(cases), "--output", str(output), "--device", "cpu", *options],
        ]

    output = tmp_path / "killed"
    checkpoint = output / "checkpoint" / "checkpoint.safetensors"
    process = subprocess.Popen(command(output), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.exists() and not (output / "model").exists()
    assert main(command(output)[3:]) == 0 and main(command(tmp_path / "whole")[3:]) == 0
    ends = [read_model(folder / "model").card.files for folder in (output, tmp_path / "whole")]
    assert ends[0] == ends[1]


def test_the_number_of_processes_changes_nothing(cases, tmp_path):
    runs = [
        finetune_classifier(asked(cases, tmp_path / str(n), steps=2, workers=n)) for n in (0, 2)
    ]
    assert runs[0].card.files == runs[1].card.files


def test_the_encoder_begins_with_the_pre_trained_weights_and_the_decoder_is_left(cases, planes):
    network = make_classifier_plan(asked(cases, planes / "run", start=str(planes))).network()
    expected = UNet2D(1, 4, FEATURES)
    torch.manual_seed(3)
    expected = UNet2D(1, 4, FEATURES).state_dict()
    found = network.encoder.state_dict()
    assert found
    for name, value in found.items():  # the same but for the scale, which batch norm takes away
        pair = (w.float().flatten() for w in (value, expected[name]))
        one, other = (torch.nn.functional.normalize(w, dim=0) for w in pair)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert not any(name.startswith(("upcat", "final")) for name in found)


def test_a_resnet_starts_from_its_encoder_alone(cases, tmp_path):
    torch.manual_seed(1)
    source = ResNetUNet2D(1, 1, "resnet10").state_dict()
    record = {"network": {"backbone": "resnet10"}, "planes": {"spacing_mm": 1.26}}
    encoder = {name: w for name, w in source.items() if name.startswith("encoder.")}
    save_pretrained(tmp_path, encoder, record)
    plan = make_classifier_plan(asked(cases, tmp_path / "run", start=str(tmp_path)))
    found = plan.network().encoder.state_dict()
    assert plan.encoder == "resnet10"
    assert all(torch.equal(found[name], value) for name, value in encoder.items())


def test_imagenet_is_a_start_with_its_own_encoder(cases, tmp_path):
    pytest.importorskip(PACKAGE)
    plan = make_classifier_plan(asked(cases, tmp_path, start="imagenet"))
    found, expected = plan.network().encoder.state_dict(), imagenet_unet().state_dict()
    assert found
    for name, value in found.items():  # the same but for the scale, which batch norm takes away
        pair = (w.float().flatten() for w in (value, expected[name]))
        one, other = (torch.nn.functional.normalize(w, dim=0) for w in pair)
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert plan.encoder == "efficientnet-lite0" and plan.identity()["start"] == "imagenet"


def test_weights_of_a_3d_network_are_refused_with_what_to_do(cases, tmp_path):
    save_pretrained(tmp_path, UNet3D(1, 1, FEATURES).state_dict(), {})
    for changes in ({"start": str(tmp_path)}, {"like": str(tmp_path)}):
        error = refused(asked(cases, tmp_path / "run", **changes))
        assert error.code == "pretrained-mismatch" and "3D" in error.message
        assert "pretrain planes" in error.hint


def test_weights_of_another_2d_network_are_refused(cases, planes, tmp_path):
    for changes in ({"encoder": "resnet18"}, {"features": (4, 4, 8, 8, 16, 4)}):
        error = refused(asked(cases, tmp_path / "run", start=str(planes), **changes))
        assert error.code == "pretrained-mismatch"


def test_a_checkpoint_of_another_network_or_other_classes_is_refused(cases, tmp_path):
    output = tmp_path / "run"
    finetune_classifier(asked(cases, output, steps=1))
    error = refused(asked(cases, output, steps=1, features=(4, 4, 8, 8, 16, 4)))
    assert error.code == "checkpoint-different" and "features" in error.message
    rows = read_manifest(cases)
    for row in rows[1:]:
        row[0], row[1] = str(cases.parent / row[0]), f"very {row[1]}"
    other = write_manifest(tmp_path, rows)
    assert "classes" in refused(asked(other, output, steps=1)).message


def test_the_new_layer_learns_faster_than_the_encoder(cases, tmp_path):
    plan = make_classifier_plan(asked(cases, tmp_path))
    stacks = [in_memory(c, plan.classes, plan.preprocessing, (32, 32)) for c in plan.used]
    options = replace(OPTIONS, last_layer_factor=10.0)
    trainer = ClassifierTrainer(plan.network(), stacks, [], 2, 0.0, options)
    slow, fast = trainer.optimizer.param_groups
    assert fast["lr"] == pytest.approx(10 * slow["lr"])
    assert [tuple(p.shape) for p in fast["params"]] == [(2, 8), (2,)]


def test_a_rare_class_weighs_as_much_as_a_frequent_one(cases, tmp_path):
    plan = make_classifier_plan(asked(cases, tmp_path))
    stacks = [in_memory(c, plan.classes, plan.preprocessing, (32, 32)) for c in plan.used]
    dilated, normal = ([s for s in stacks if s.number == n] for n in (0, 1))
    network = plan.network()
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.zeros_(network.head.bias)
    trainer = ClassifierTrainer(network, [dilated[0], *normal], [], 2, 0.0, OPTIONS)
    batch = {
        "image": torch.zeros(4, 1, 3, 32, 32),
        "class": torch.tensor([0, 1, 1, 1]),
    }
    trainer._loss(batch).backward()
    # With every class as probable the one case pulls as hard as the three against it.
    assert network.head.bias.grad.abs().max() < 1e-6


def test_a_step_sees_slices_from_all_over_a_stack_however_few_there_are(cases, tmp_path):
    plan = make_classifier_plan(asked(cases, tmp_path))
    (one,) = [c for c in plan.used if c.id == "normal-2.nii.gz"]
    prepared = in_memory(one, plan.classes, plan.preprocessing, (32, 32))
    assert prepared.image.shape == (1, 1, 40, 40)
    numbered = np.broadcast_to(np.arange(12)[None, :, None, None], (1, 12, 40, 40))
    many = replace(prepared, image=numbered.astype(np.float16))
    for stack, counts in ((prepared, 1), (many, 4)):
        data = StackDataset([stack], (32, 32), 4, (), 0.0, 0)
        found = data[(7, 0)]["image"]
        assert found.shape == (1, 4, 32, 32)
        assert len(torch.unique(found[0, :, 0, 0])) == counts
    parts = (found[0, :, 0, 0] // 3).tolist()
    assert parts == [0, 1, 2, 3]
    assert torch.equal(data[(7, 0)]["image"], found)


def test_stacks_are_turned_and_zoomed_as_a_whole_and_filled_from_their_slices(cases, tmp_path):
    plan = make_classifier_plan(asked(cases, tmp_path))
    prepared = in_memory(plan.used[0], plan.classes, plan.preprocessing, (32, 32), 45.0, 1.2)
    rows, columns = np.indices(prepared.image.shape[2:]).astype(np.float32)
    stack = replace(prepared, image=np.stack([rows] * 5)[None].astype(np.float16))
    data = StackDataset([stack], (32, 32), 4, (), 0.0, 0, rotation=45.0, zoom=1.2)
    turns = []
    for n in range(24):
        found = data[(n, 0)]["image"].numpy()
        assert found.shape == (1, 4, 32, 32)
        np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1], found.shape))
        along = [np.diff(found[0, 0], axis=axis) for axis in (0, 1)]
        # A plane stays a plane, unless what lies beyond is made up.
        assert max((abs(slope - np.median(slope)) > 0.3).mean() for slope in along) < 0.01
        turns.append(np.degrees(np.arctan2(*(np.median(slope) for slope in along[::-1]))))
    assert 20 < np.ptp(turns) and max(map(abs, turns)) < 55  # unequal zooms shear a little


def test_turns_zooms_and_averages_are_part_of_what_a_training_is(cases, tmp_path):
    before = make_classifier_plan(asked(cases, tmp_path)).identity()["options"]
    for changes in ({"rotation": 20.0}, {"zoom": 1.2}, {"averaged": 0.5}):
        options = make_classifier_plan(asked(cases, tmp_path, **changes)).identity()["options"]
        assert options == before | changes != before


def test_the_command_turns_zooms_and_averages_and_goes_on(cases, tmp_path):
    command = ["finetune", "--task", "classification", "--manifest", str(cases), "--device", "cpu"]
    command += ["--output", str(tmp_path / "run"), "--features", "4,4,8,8,8,4"]
    command += ["--patch", "32x32x1", "--steps", "4", "--validate-every", "2"]
    command += ["--rotation", "20", "--zoom", "1.2", "--averaged", "0.5"]
    assert main(command) == 0
    record = json.loads((tmp_path / "run" / "finetuning.json").read_text())
    asked_for = {"rotation": 20.0, "zoom": 1.2, "averaged": 0.5}
    assert asked_for.items() <= record["options"].items()
    first = read_model(tmp_path / "run" / "model").card.files
    assert main(command) == 0  # nothing is left to do, and the mean of the weights is the same
    assert read_model(tmp_path / "run" / "model").card.files == first


def test_slices_are_averaged_however_many_and_in_what_parts():
    torch.manual_seed(0)
    network = StackClassifier(2, 3, "unet", FEATURES).eval()
    x = torch.randn(2, 2, 20, 32, 32)
    with torch.no_grad():
        parts = network(x)
        each = torch.stack([network.head(network.describe(x[:, :, k])) for k in range(20)])
    torch.testing.assert_close(parts, network(x).detach())
    torch.testing.assert_close(parts, each.mean(dim=0), atol=1e-5, rtol=1e-4)


def test_a_fraction_takes_some_of_every_class_and_smaller_ones_are_parts_of_larger(cases):
    training = [c for c in read_classified(cases).cases if c.split == "train"]
    found = [{c.id for c in fraction_of_classes(training, Fraction(n, 3), 4)} for n in (1, 2, 3)]
    assert [len(ids) for ids in found] == [2, 4, 6]
    assert found[0] < found[1] < found[2]
    least = fraction_of_classes(training, Fraction(1, 100), 0)
    assert sorted(c.class_name for c in least) == ["dilated", "normal"]


def test_without_validation_cases_the_last_weights_are_kept(tmp_path):
    manifest = write_cases(tmp_path / "data", ("train", "train", "test"), slices=(2, 2, 2))
    finetune_classifier(asked(manifest, tmp_path / "run", steps=3))
    record = json.loads((tmp_path / "run" / "finetuning.json").read_text())
    assert record["kept_step"] == 3


def test_without_test_cases_there_is_a_model_and_no_report(tmp_path):
    manifest = write_cases(tmp_path / "data", ("train", "val"), slices=(2, 2))
    model = finetune_classifier(asked(manifest, tmp_path / "run", steps=1))
    assert "validation balanced accuracy" in model.card.metrics
    assert not (tmp_path / "run" / "test.csv").exists()


def test_several_channels_have_their_names_on_the_card(tmp_path):
    manifest = write_cases(
        tmp_path / "data", ("train", "test"), ("image_cine", "image_late"), (2, 2)
    )
    model = finetune_classifier(asked(manifest, tmp_path / "run", steps=1))
    assert [channel.name for channel in model.card.channels] == ["cine", "late"]


def changed(rows, **columns):
    """The rows with a column's value in the first training row replaced."""
    header = rows[0]
    for name, value in columns.items():
        rows[1][header.index(name)] = value
    return rows


def without(rows, column):
    index = rows[0].index(column)
    return [row[:index] + row[index + 1 :] for row in rows]


@pytest.mark.parametrize(
    ("spoil", "code", "word"),
    [
        (
            lambda rows: [rows[0], *[r for r in rows[1:] if r[1] == "normal"]],
            "manifest-one-class",
            "normal",
        ),
        (
            lambda rows: [r for r in rows if r[1:3] != ["normal", "train"]],
            "manifest-one-class",
            "dilated",
        ),
        (
            lambda rows: [*rows, ["normal-5.nii.gz", "dead", "test", "x", "MR"]],
            "manifest-",
            "normal-5",
        ),
        (
            lambda rows: [*rows, ["./normal-5.nii.gz", "dead", "test", "x", "MR"]],
            "manifest-class",
            "dead",
        ),
        (lambda rows: without(rows, "class"), "manifest-columns", "class"),
        (lambda rows: changed(rows, **{"class": ""}), "manifest-class", "line 2"),
        (lambda rows: changed(rows, **{"class": "a\x07b"}), "manifest-class", "line 2"),
        (lambda rows: changed(rows, image="lost.nii.gz"), "manifest-missing-files", "lost.nii.gz"),
        (lambda rows: changed(rows, image=""), "manifest-missing-files", "line 2"),
        (lambda rows: changed(rows, split="training"), "manifest-split", "line 2"),
        (lambda rows: changed(rows, group="normal-5"), "manifest-leak", "normal-5"),
        (lambda rows: [r for r in rows if r[2] != "train"], "manifest-split-empty", "train"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_refused_with_its_place(
    cases, tmp_path, spoil, code, word
):
    rows = read_manifest(cases)
    folder = tmp_path / "data"
    folder.mkdir()
    for file in cases.parent.glob("*.nii.gz"):
        (folder / file.name).symlink_to(file)
    error = refused(asked(write_manifest(folder, spoil(rows)), tmp_path / "run"))
    assert error.code.startswith(code) and word in error.message and error.hint


def not_finite(path):
    volume = read_volume(path)
    array = volume.array.copy()
    array[0, 3, 3] = np.nan
    write_volume(volume.with_array(array, "x"), path)


@pytest.mark.parametrize("split", [0, 4])
@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (not_finite, "volume-not-finite"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "volume-"),
        (lambda path: path.write_bytes(b"no volume"), "volume-"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_before_the_training(tmp_path, split, spoil, code):
    manifest = write_cases(tmp_path / "data")
    spoil(tmp_path / "data" / f"normal-{split}.nii.gz")
    told = []
    with pytest.raises(TomoSegError) as caught:
        finetune_classifier(asked(manifest, tmp_path / "run"), lambda stage, *_: told.append(stage))
    assert caught.value.code.startswith(code)
    assert f"normal-{split}.nii.gz" in caught.value.message and caught.value.hint
    assert "train" not in told


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(cases, tmp_path, monkeypatch):
    step = ClassifierTrainer.step

    def broken(self):
        if self.state.step == 3:
            self.network.head.weight.data.fill_(float("nan"))
        return step(self)

    monkeypatch.setattr(ClassifierTrainer, "step", broken)
    what = asked(cases, tmp_path / "run", steps=6, validate_every=2)
    error = refused(what)
    assert error.code == "training-diverged" and "learning-rate" in error.hint
    monkeypatch.undo()
    whole = finetune_classifier(asked(cases, tmp_path / "whole", steps=6, validate_every=2))
    assert finetune_classifier(what).card.files == whole.card.files


@pytest.mark.parametrize(
    "changes",
    [
        {"size": (40, 32)},
        {"size": (16, 16), "slices": 1, "batch_size": 1},
        {"size": (48, 48), "encoder": "resnet10"},
        {"start": "imagenet", "encoder": "resnet18"},
        {"encoder": "vgg"},
        {"fraction": Fraction(0)},
        {"features": (4, 4)},
        {"name": "No Name"},
    ],
)
def test_options_that_cannot_work_are_refused(cases, tmp_path, changes):
    with pytest.raises(TomoSegError) as caught:
        make_classifier_plan(asked(cases, tmp_path, **changes))
    assert caught.value.code == "finetuning-options"


def test_the_command_finetunes_a_classifier(cases, planes, tmp_path, capsys):
    command = ["finetune", "--task", "classification", "--manifest", str(cases)]
    options = ["--from", str(planes), "--fraction", "1/3", "--steps", "2", "--seed", "1"]
    options += ["--patch", "48x32x1", "--slices", "2", "--device", "cpu", "--name", "hearts"]
    assert main([*command, *options, "--output", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "test balanced accuracy" in out and "report in" in out
    card = read_model(tmp_path / "run" / "model").card
    assert card.name == "hearts" and card.stack.size == (32, 48)
    record = json.loads((tmp_path / "run" / "finetuning.json").read_text())
    assert len(record["training_cases"]) == 2 and record["options"]["slices"] == 2


@pytest.mark.parametrize(
    "options",
    [
        ["--task", "classification", "--labels", "LV=1"],
        ["--task", "classification", "--dimensions", "3"],
        ["--task", "classification", "--loss", "dice-ce"],
        ["--task", "classification", "--patch", "32x32x16"],
        ["--task", "detection"],
        ["--labels", "LV=1", "--slices", "4"],
        [],
    ],
)
def test_options_of_the_other_task_are_refused(cases, tmp_path, options, capsys):
    command = ["finetune", "--manifest", str(cases), "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path / "run"), *options]) == 2
    assert "error [usage]" in capsys.readouterr().err


def test_a_loaded_classifier_gives_probabilities_of_slices_of_any_size(model):
    classifier = load_classifier(model)
    rng = np.random.default_rng(0)
    for shape in ((1, 1, 20, 60), (1, 40, 70, 33)):
        found = classifier.probabilities(rng.normal(size=shape).astype(np.float32))
        assert found.shape == (2,) and found.sum() == pytest.approx(1)
