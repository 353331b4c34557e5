"""``tomoseg classify``: one stack, many, a cine sequence, and models of the wrong task."""

from __future__ import annotations

import csv
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import hash_volume
from TomoSegLib.models.classifier import load_classifier
from TomoSegLib.models.folder import model_hash, parse_card, read_model, save_model
from TomoSegLib.models.loading import load_encoder
from TomoSegLib.models.segmenter import load_segmenter
from TomoSegLib.networks.stack_classifier import StackClassifier
from TomoSegLib.training.classification import finetune_classifier
from TomoSegLib.training.classification_plan import ClassifierTraining
from TomoSegLib.training.classification_trainer import ClassifierOptions

sys.path.append(str(Path(__file__).parent))

from classification_cases import CLASSES, FEATURES, stack, write_cases

ROOT = Path(__file__).resolve().parents[2]
TINY = ROOT / "Resources" / "Models" / "tiny-blob"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cases(folder)
    return folder


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    options = ClassifierOptions(
        steps=40,
        slices=3,
        size=(32, 32),
        learning_rate=0.01,
        last_layer_factor=1.0,
        validate_every=20,
    )
    output = tmp_path_factory.mktemp("run")
    what = ClassifierTraining(data / "classes.csv", output, features=FEATURES, options=options)
    found = finetune_classifier(what)
    assert found.card.metrics["test balanced accuracy"] == 1
    return found


def classify(input, model, output, *more):
    command = ["classify", *([] if input is None else [str(input)]), "--device", "cpu"]
    return main([*command, "--model", str(model.path), "--output", str(output), *more])


def table(folder):
    with (folder / "classes.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_stack_gets_its_class_and_what_it_was_found_with(data, model, tmp_path, capsys):
    path = data / "dilated-4.nii.gz"
    assert classify(path, model, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert found["class"] == "dilated" and found["frames"] is None
    assert list(found["probabilities"]) == list(CLASSES)
    assert sum(found["probabilities"].values()) == pytest.approx(1)
    assert found["probabilities"]["dilated"] > 0.5
    assert found["model"]["hash"] == model_hash(model)
    assert found["inputs"]["image"]["hash"] == hash_volume(read_volume(path))
    (row,) = table(tmp_path / "out")
    assert (row["case"], row["frame"], row["class"]) == ("dilated-4", "", "dilated")
    assert "dilated" in capsys.readouterr().out


def test_it_answers_as_the_test_of_the_training_did(data, model, tmp_path):
    path = data / "normal-4.nii.gz"
    assert classify(path, model, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())["probabilities"]
    with (model.path.parent / "test.csv").open(newline="") as stream:
        (row,) = [r for r in csv.DictReader(stream) if r["case"] == path.name]
    assert float(row["probability normal"]) == pytest.approx(found["normal"], abs=1e-6)


def test_a_stack_of_one_slice_is_classified(data, model, tmp_path):
    write_volume(stack(5, "normal", 1), tmp_path / "one.nii.gz")
    assert classify(tmp_path / "one.nii.gz", model, tmp_path / "out") == 0
    assert json.loads((tmp_path / "out" / "result.json").read_text())["class"] == "normal"


def cine(path, names=("dilated", "normal", "dilated")):
    frames = [stack(30 + n, name, 3).array for n, name in enumerate(names)]
    images = [sitk.GetImageFromArray(frame) for frame in frames]
    for image in images:
        image.SetSpacing((1.5, 1.5, 9.0))
    sitk.WriteImage(sitk.JoinSeries(images), str(path))
    return frames


def test_of_a_sequence_every_phase_and_their_mean_are_classified(model, tmp_path):
    cine(tmp_path / "cine.nii.gz")
    assert classify(tmp_path / "cine.nii.gz", model, tmp_path / "out") == 0
    found = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [frame["class"] for frame in found["frames"]] == ["dilated", "normal", "dilated"]
    assert [frame["number"] for frame in found["frames"]] == [0, 1, 2]
    mean = np.mean([frame["probabilities"]["dilated"] for frame in found["frames"]])
    assert found["probabilities"]["dilated"] == pytest.approx(mean) and found["class"] == "dilated"
    assert [row["frame"] for row in table(tmp_path / "out")] == ["0", "1", "2", "mean"]


def test_some_phases_can_be_chosen(model, tmp_path):
    cine(tmp_path / "cine.nii.gz")
    assert classify(tmp_path / "cine.nii.gz", model, tmp_path / "out", "--frames", "1:3") == 0
    assert [row["frame"] for row in table(tmp_path / "out")] == ["1", "2", "mean"]


def test_a_phase_is_classified_as_a_stack_of_its_own(model, tmp_path):
    frame = cine(tmp_path / "cine.nii.gz")[1]
    image = sitk.GetImageFromArray(frame)
    image.SetSpacing((1.5, 1.5, 9.0))
    sitk.WriteImage(image, str(tmp_path / "frame.nii.gz"))
    for name in ("cine", "frame"):
        assert classify(tmp_path / f"{name}.nii.gz", model, tmp_path / name) == 0
    whole = json.loads((tmp_path / "cine" / "result.json").read_text())["frames"][1]
    alone = json.loads((tmp_path / "frame" / "result.json").read_text())
    assert whole["probabilities"] == alone["probabilities"]


def test_a_folder_of_stacks_gives_a_table_and_a_record_of_each(data, model, tmp_path, capsys):
    assert classify(data, model, tmp_path / "out") == 0
    rows = table(tmp_path / "out")
    assert len(rows) == 12 and not (tmp_path / "out" / "result.json").exists()
    assert all(row["class"] == row["case"].split("-")[0] for row in rows[6:8])
    record = json.loads((tmp_path / "out" / "cases" / "normal-0.json").read_text())
    assert record["case"] == "normal-0" and record["probabilities"]["normal"] == pytest.approx(
        float(next(row for row in rows if row["case"] == "normal-0")["probability normal"]),
        abs=1e-6,
    )
    assert "12 done, 0 failed" in capsys.readouterr().out


def test_the_manifest_of_the_training_is_a_table_of_stacks(data, model, tmp_path):
    assert classify(data / "classes.csv", model, tmp_path / "out") == 0
    assert {row["case"] for row in table(tmp_path / "out")} == {
        f"{name}-{number}" for name in CLASSES for number in range(6)
    }


def test_what_is_wrong_with_one_of_many_is_recorded_and_the_rest_goes_on(model, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in CLASSES:
        write_volume(stack(3, name), tmp_path / "in" / f"{name}.nii.gz")
    broken = stack(4, "normal")
    array = broken.array.copy()
    array[0, 0, 0] = np.nan
    write_volume(broken.with_array(array, "x"), tmp_path / "in" / "hole.nii.gz")
    assert classify(tmp_path / "in", model, tmp_path / "out") == 4
    rows = {row["case"]: row for row in table(tmp_path / "out")}
    assert rows["hole"]["error"] == "volume-not-finite" and "hole.nii.gz" in rows["hole"]["message"]
    assert rows["dilated"]["class"] == "dilated" and rows["normal"]["class"] == "normal"
    captured = capsys.readouterr()
    assert "2 done, 1 failed" in captured.out and "hole.nii.gz" in captured.err


def test_what_is_wrong_with_the_only_stack_is_an_error_and_leaves_nothing(model, tmp_path, capsys):
    (tmp_path / "no.nii.gz").write_bytes(b"no volume")
    assert classify(tmp_path / "no.nii.gz", model, tmp_path / "out") == 2
    assert "no.nii.gz" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert classify(tmp_path / "lost.nii.gz", model, tmp_path / "out") == 2
    assert classify(None, model, tmp_path / "out") == 2
    assert "error [usage]" in capsys.readouterr().err


def test_what_needs_a_mask_refuses_a_classification(data, model, tmp_path, capsys):
    assert classify(data / "dilated-4.nii.gz", model, tmp_path / "out") == 0
    assert main(["export", str(tmp_path / "out"), "--csv"]) == 2
    error = capsys.readouterr().err
    assert "error [result-invalid]" in error and "another task: classification" in error


def test_results_that_are_there_are_replaced_only_if_asked(data, model, tmp_path, capsys):
    path = data / "dilated-4.nii.gz"
    assert classify(path, model, tmp_path / "out") == 0
    assert classify(path, model, tmp_path / "out") == 2
    assert "output-exists" in capsys.readouterr().err
    assert classify(path, model, tmp_path / "out", "--overwrite") == 0


def test_a_channel_that_the_model_has_not_is_refused(data, model, tmp_path, capsys):
    path = data / "dilated-4.nii.gz"
    assert classify(None, model, tmp_path / "a", "--channel", f"Image={path}") == 0  # in any case
    assert classify(None, model, tmp_path / "b", "--channel", f"late={path}") == 2
    assert "channel-unknown" in capsys.readouterr().err


def test_run_refuses_a_classifier_and_names_the_command_for_it(data, model, tmp_path, capsys):
    path = str(data / "dilated-4.nii.gz")
    for input in (path, str(data)):
        command = ["run", input, "--model", str(model.path), "--output", str(tmp_path / "out")]
        assert main([*command, "--device", "cpu"]) == 2
        error = capsys.readouterr().err
        assert "error [model-task]" in error and "tomoseg classify" in error
    assert not (tmp_path / "out").exists()


def test_classify_refuses_other_models_and_names_the_command_for_them(data, tmp_path, capsys):
    path = data / "dilated-4.nii.gz"
    assert classify(path, read_model(TINY), tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "error [model-task]" in error and "tomoseg run" in error


def test_whatever_loads_a_model_says_what_it_is_for(model):
    for load in (load_encoder, load_segmenter):
        with pytest.raises(TomoSegError) as caught:
            load(model)
        assert caught.value.code == "model-task" and "tomoseg classify" in caught.value.hint
    with pytest.raises(TomoSegError) as caught:
        load_classifier(read_model(TINY))
    assert caught.value.code == "model-task" and "tomoseg run" in caught.value.hint


def test_a_classifier_is_listed_shown_verified_and_imported(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TOMOSEG_MODELS", str(tmp_path / "store"))
    assert main(["models", "verify", str(model.path)]) == 0
    assert main(["models", "import", str(model.path)]) == 0
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert "classification" in listed
    assert main(["models", "show", model.name]) == 0
    shown = capsys.readouterr().out
    assert "32 x 32 pixels" in shown and "1 dilated, 2 normal" in shown


def card(**changes):
    fields = {
        "name": "hearts",
        "version": "1.0.0",
        "title": "Hearts",
        "task": "classification",
        "modality": "MR",
        "channels": [{"name": "image"}],
        "labels": [{"name": "a", "value": 1}, {"name": "b", "value": 2}],
        "preprocessing": {"in_plane": True},
        "network": {
            "target": f"{StackClassifier.__module__}.StackClassifier",
            "arguments": {"features": list(FEATURES)},
        },
        "stack": {"size": [32, 32]},
        "training_data": {"description": "", "simulated": True},
        "license": "CC0",
        "intended_use": "",
    }
    return {**fields, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stack": None}, "stack: missing"),
        ({"stack": {"size": [32]}}, "stack.size"),
        ({"stack": {"size": [32, 32], "more": 1}}, "stack.more"),
        ({"preprocessing": {"in_plane": False}}, "in_plane"),
        ({"labels": [{"name": "a", "value": 1}]}, "labels"),
        ({"labels": [{"name": "a", "value": 1}, {"name": "a", "value": 2}]}, "labels"),
        ({"sliding_window": {"roi_size": [1, 32, 32]}}, "sliding_window"),
        ({"method": "cam"}, "method"),
        ({"refinement": {}}, "refinement"),
        ({"mask": {"components": "largest"}}, "mask"),
        ({"task": "heatmap"}, "stack: only for the task classification"),
        ({"task": "classify"}, "task"),
    ],
)
def test_a_card_that_contradicts_itself_is_refused(changes, message):
    files = {"weights.safetensors": "0" * 64}
    parse_card(json.dumps(card(files=files)).encode(), "card.json")
    with pytest.raises(TomoSegError) as caught:
        parse_card(json.dumps(card(files=files, **changes)).encode(), "card.json")
    assert caught.value.code == "model-card-invalid" and message in caught.value.message


def test_the_hash_of_a_card_without_the_new_field_is_what_it_was():
    text = (TINY / "card.json").read_bytes()
    found = parse_card(text, "card.json")
    dumped = found.model_dump(mode="json", exclude_defaults=True)
    assert "stack" not in dumped
    canonical = json.dumps(dumped, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert model_hash(found) == hashlib.sha256(canonical.encode()).hexdigest()


class TwoAnswers(torch.nn.Module):
    def forward(self, x):
        return x.mean(dim=(1, 2, 3, 4))[:, None].repeat(1, 3)


def test_a_network_that_gives_something_else_than_the_classes_is_refused(tmp_path):
    torch.manual_seed(0)
    weights = StackClassifier(1, 2, "unet", FEATURES).state_dict()
    saved = save_model(tmp_path / "model", card(), weights)
    classifier = load_classifier(saved)
    classifier.check()
    classifier.network = TwoAnswers()
    with pytest.raises(TomoSegError) as caught:
        classifier.check()
    assert caught.value.code == "model-network-invalid" and "(2, 3)" in caught.value.message
    weights["head.bias"] = torch.tensor([3e38, 3e38])
    weights["head.weight"] = torch.full((2, 8), 3e38)
    overflowing = load_classifier(save_model(tmp_path / "inf", card(), weights))
    with pytest.raises(TomoSegError) as caught:
        overflowing.probabilities(np.full((1, 2, 32, 32), 1e4, np.float32))
    assert caught.value.code == "response-not-finite"
