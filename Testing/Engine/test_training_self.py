"""A segmenter that learns from heatmaps: what is certain, and that no mask is ever looked at."""

from __future__ import annotations

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.segmenter import load_segmenter
from TomoSegLib.training.noise_tolerant import NoiseTolerantLoss
from TomoSegLib.training.pseudo_labels import (
    UNSURE,
    Certainty,
    from_heatmap,
    from_probability,
    of_negative,
)
from TomoSegLib.training.segmentation_trainer import FinetuningOptions
from TomoSegLib.training.self_training import SelfTraining, self_train

GRID = Geometry.from_parts((24, 30, 28), (2.0, 2.0, 2.0))
OPTIONS = FinetuningOptions(
    steps=24, batch_size=2, patch=(16, 16, 16), validate_every=12, learning_rate=0.02
)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def blob(seed: int, label: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise in a box, with a bright ball if the label says so."""
    rng = np.random.default_rng(seed)
    image = np.zeros(GRID.shape, np.float32)
    image[2:-2, 2:-2, 2:-2] = 100 + rng.normal(0, 5, (20, 26, 24))
    center = rng.integers(9, 15, 3)
    k, j, i = np.ogrid[: GRID.shape[0], : GRID.shape[1], : GRID.shape[2]]
    inside = (k - center[0]) ** 2 + (j - center[1]) ** 2 + (i - center[2]) ** 2 <= 25
    mask = (inside & bool(label)).astype(np.uint8)
    return np.where(mask > 0, image + 60, image), mask


def write_cases(folder: Path, masks: bool = True) -> Path:
    rows = [["path", "label", "split", "mask"]]
    for number, split in enumerate(["train"] * 4 + ["val"] * 2):
        label = (number + 1) % 2
        image, mask = blob(number, label)
        write_volume(Volume(image, GRID), folder / f"{number}.nii.gz")
        if masks:
            write_volume(Volume(mask, GRID), folder / f"{number}-mask.nii.gz")
        rows.append([f"{number}.nii.gz", str(label), split, f"{number}-mask.nii.gz"])
    path = folder / "manifest.csv"
    with path.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return path


def asked(manifest: Path, output: Path, **changes: object) -> SelfTraining:
    what = SelfTraining(
        manifest, "tiny-blob", output, options=OPTIONS, features=(4, 4, 8, 8, 8, 4), threads=1
    )
    return replace(what, **changes)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cases")
    manifest = write_cases(folder)
    model = self_train(asked(manifest, folder / "out"))
    assert model is not None
    return manifest, folder / "out", model


def test_masks_that_are_gone_change_nothing(trained, tmp_path: Path) -> None:
    """The manifest still names them; a path that looked at one would fail or differ."""
    _, _, model = trained
    manifest = write_cases(tmp_path, masks=False)
    again = self_train(asked(manifest, tmp_path / "out"))
    assert again is not None
    one, other = (load_file(m.path / "weights.safetensors") for m in (model, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_pseudo_labels_of_positives_lie_in_the_blob_and_negatives_have_none(trained) -> None:
    manifest, output, _ = trained
    rows = list(csv.DictReader((output / "round-1" / "manifest.csv").open()))
    assert len(rows) == 6
    for row in rows:
        number = int(Path(row["image"]).name.split(".")[0])
        _, mask = blob(number, (number + 1) % 2)
        try:
            label = read_volume(Path(row["label"])).array
        except TomoSegError as error:
            assert error.code == "volume-constant" and number % 2 == 1
            continue
        assert number % 2 == 0
        assert mask[label == 1].mean() > 0.9
        assert (label[mask > 0] == 0).mean() < 0.2
    assert manifest.parent == Path(rows[0]["image"]).parent


def test_the_model_is_the_teachers_in_labels_limits_and_licence_and_says_what_it_learnt_from(
    trained,
) -> None:
    _, output, model = trained
    card = model.card
    assert model.path == output / "model"
    assert card.name == "tiny-blob-segmenter"
    assert card.task == "segmentation"
    assert [label.name for label in card.labels] == ["bright blob"]
    assert card.training_data.simulated
    assert "tiny-blob" in card.training_data.description
    assert card.training_data.volumes == 4
    assert any("against pseudo-labels" in name for name in card.metrics)
    load_segmenter(model).check()


def test_a_second_round_learns_from_the_first_ones_segmenter(trained, tmp_path: Path) -> None:
    manifest, _, _ = trained
    model = self_train(asked(manifest, tmp_path, rounds=2, certainty=Certainty(inside=0.5)))
    assert model is not None
    assert (tmp_path / "round-2" / "training" / "model" / "card.json").exists()


def test_what_was_stopped_while_labelling_goes_on_without_labelling_again(
    trained, tmp_path: Path
) -> None:
    manifest, _, model = trained
    asks = iter([False, False, True])
    assert self_train(asked(manifest, tmp_path), should_stop=lambda: next(asks)) is None
    first = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "round-1/labels").iterdir()}
    assert len(first) == 2
    again = self_train(asked(manifest, tmp_path))
    assert again is not None
    for name, time in first.items():
        assert (tmp_path / "round-1/labels" / name).stat().st_mtime_ns == time
    one, other = (load_file(m.path / "weights.safetensors") for m in (model, again))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_another_training_in_the_folder_is_refused_unless_it_may_be_replaced(trained) -> None:
    manifest, output, _ = trained
    before = (output / "model" / "card.json").read_bytes()
    with pytest.raises(TomoSegError) as refused:
        self_train(asked(manifest, output, spacing_mm=3.0))
    assert refused.value.code == "self-training-different"
    assert (output / "model" / "card.json").read_bytes() == before


def test_one_that_starts_again_and_is_stopped_leaves_no_earlier_model(
    trained, tmp_path: Path
) -> None:
    _, output, _ = trained
    copy = tmp_path / "out"
    shutil.copytree(output, copy)
    manifest = write_cases(tmp_path)
    again = asked(manifest, copy, overwrite=True)
    assert self_train(again, should_stop=lambda: True) is None
    assert not (copy / "model").exists() and (copy / "self-training.json").exists()


def test_volumes_that_were_replaced_make_another_self_training(tmp_path: Path) -> None:
    manifest = write_cases(tmp_path)
    asks = iter([False, True])
    assert self_train(asked(manifest, tmp_path / "out"), should_stop=lambda: next(asks)) is None
    row = next(csv.DictReader(manifest.open()))
    os.utime(tmp_path / row["path"], ns=(1, 1))
    with pytest.raises(TomoSegError) as refused:
        self_train(asked(manifest, tmp_path / "out"))
    assert refused.value.code == "self-training-different"


def test_what_could_not_be_saved_is_refused_before_anything_is_labelled(
    trained, tmp_path: Path
) -> None:
    manifest, _, _ = trained
    (tmp_path / "file").write_text("mine")
    (tmp_path / "out" / "model").mkdir(parents=True)
    (tmp_path / "out" / "model" / "mine.txt").write_text("no model")
    for changes, code in (
        ({"output": tmp_path / "file"}, "output-unwritable"),
        ({"output": tmp_path / "out"}, "model-exists"),
        ({"output": tmp_path / "new", "name": "My Model"}, "finetuning-options"),
    ):
        with pytest.raises(TomoSegError) as refused:
            self_train(replace(asked(manifest, tmp_path), **changes))
        assert refused.value.code == code
    assert not (tmp_path / "new").exists()


def test_a_teacher_that_is_no_heatmap_model_is_refused(trained, tmp_path: Path) -> None:
    manifest, _, model = trained
    with pytest.raises(TomoSegError) as refused:
        self_train(asked(manifest, tmp_path / "out", teacher=str(model.path)))
    assert refused.value.code == "model-task"
    assert not (tmp_path / "out").exists()


def test_a_teacher_that_finds_nothing_is_told(tmp_path: Path) -> None:
    rows = [["path", "label", "split"]]
    for number, split in enumerate(["train"] * 2 + ["val"] * 2):
        image, _ = blob(number, 0)
        write_volume(Volume(image.clip(0, 108), GRID), tmp_path / f"{number}.nii.gz")
        rows.append([f"{number}.nii.gz", str(number % 2), split])
    with (tmp_path / "manifest.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    with pytest.raises(TomoSegError) as refused:
        self_train(asked(tmp_path / "manifest.csv", tmp_path / "out"))
    assert refused.value.code == "pseudo-labels-empty"


def test_the_command_stops_with_its_error_and_status(tmp_path: Path, capsys) -> None:
    arguments = ["train", "segmenter", "--from-heatmaps", "nothing-like-it"]
    arguments += ["--manifest", str(tmp_path / "no.csv"), "--output", str(tmp_path / "out")]
    assert main(arguments) == 2
    assert "model-unknown" in capsys.readouterr().err


def test_voxels_near_a_masks_border_are_unsure_and_far_ones_are_not() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[6:16, 8:20, 8:20] = True
    heat = np.where(mask, 2.0, 0.0).astype(np.float32)
    heat[20, 25, 25] = 0.8  # warm, but outside of the mask
    labels = from_heatmap(mask, heat, GRID, Certainty(margin_mm=2.5, cool=0.6))
    assert labels is not None
    assert labels[10, 14, 14] == 1 and labels[2, 2, 2] == 0
    assert labels[6, 14, 14] == UNSURE and labels[5, 14, 14] == UNSURE
    assert labels[20, 25, 25] == UNSURE
    assert set(np.unique(labels)) == {0, 1, UNSURE}
    assert from_heatmap(np.zeros_like(mask), heat, GRID, Certainty()) is None


def test_a_lesion_too_thin_to_have_an_inside_keeps_its_mask() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[10, 10, 8:20] = True
    labels = from_heatmap(mask, mask.astype(np.float32), GRID, Certainty(margin_mm=3.0))
    assert labels is not None
    np.testing.assert_array_equal(labels == 1, mask)


def test_probabilities_between_the_two_levels_are_unsure() -> None:
    probability = np.array([0.1, 0.3, 0.5, 0.7, 0.9], np.float32).reshape(1, 1, 5)
    labels = from_probability(probability, Certainty())
    assert labels is not None
    assert labels.ravel().tolist() == [0, 0, UNSURE, 1, 1]
    assert from_probability(probability * 0.5, Certainty()) is None
    assert not of_negative(GRID).any()


def test_unsure_voxels_have_no_say_in_the_loss() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 2, 4, 4, 4, requires_grad=True)
    classes = torch.randint(0, 2, (2, 1, 4, 4, 4))
    classes[0, 0, :2] = UNSURE
    loss = NoiseTolerantLoss()(logits, classes)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert not gradient[0, :, :2].any()
    assert gradient[0, :, 2:].abs().min() > 0
    changed = logits.detach().clone()
    changed[0, :, :2] += 5
    assert float(NoiseTolerantLoss()(changed, classes)) == pytest.approx(loss.item(), abs=1e-6)


class NoDice(torch.nn.Module):
    def forward(self, probability: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return (probability * target).sum() * 0


def test_a_wrong_label_weighs_less_than_in_cross_entropy() -> None:
    """The further a confident prediction is from its label, the less the label pulls at it."""
    pulls = []
    for confidence in (0.0, 2.0, 4.0, 8.0):
        logits = torch.tensor([confidence, 0.0]).reshape(1, 2, 1, 1, 1).requires_grad_(True)
        loss = NoiseTolerantLoss()
        loss.dice = NoDice()  # the second term alone
        value = loss(logits, torch.ones(1, 1, 1, 1, 1, dtype=torch.long))
        pulls.append(float(torch.autograd.grad(value, logits)[0].abs().max()))
    assert pulls[0] > pulls[1] > pulls[2] > pulls[3]
