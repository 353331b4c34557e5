"""Fine-tuning from the manifest to the model, through stops and bad input."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.batch_cases import find_cases
from TomoSegLib.models.card import Intensity
from TomoSegLib.networks.unet3d import UNet3D, is_encoder_weight
from TomoSegLib.pretraining import weights as pretrained_weights
from TomoSegLib.pretraining.weights import load_pretrained, save_pretrained
from TomoSegLib.training.finetune import finetune
from TomoSegLib.training.segmentation_manifest import LabelSpec
from TomoSegLib.training.segmentation_plan import Finetuning, make_plan
from TomoSegLib.training.segmentation_trainer import Finetuner, FinetuningOptions

FEATURES = (4, 4, 4, 8, 8, 4)
LABELS = [LabelSpec("blob", (1,)), LabelSpec("tumour core", (2, 4))]
OPTIONS = FinetuningOptions(
    steps=6, batch_size=2, patch=(16, 16, 16), validate_every=4, learning_rate=0.01
)
AFFINE = Geometry.from_parts(
    (20, 24, 28), (1.0, 1.5, 2.0), [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, 1]], (5, -7, 3)
)


def case(seed, channels):
    """Noise with a bright box (1) and a brighter one (2, 4) in it, on an oblique grid."""
    rng = np.random.default_rng(seed)
    label = np.zeros(AFFINE.shape, np.uint8)
    k, j, i = rng.integers(2, 8, 3)
    label[k : k + 10, j : j + 10, i : i + 10] = 1
    label[k + 2 : k + 6, j + 2 : j + 6, i + 2 : i + 8] = 2
    label[k + 4 : k + 6, j + 2 : j + 6, i + 2 : i + 8] = 4
    levels = np.array([2.0, 5.0, 9.0, 0, 9.0], np.float32)[label]
    images = [levels + rng.normal(0, 0.3, label.shape) for _ in range(channels)]
    return [image.astype(np.float32) for image in images], label


def write_cases(folder, channels=("image",), splits=("train", "train", "val", "test")):
    names = ["image"] if channels == ("image",) else [f"image_{name}" for name in channels]
    rows = [[*names, "label", "split", "modality"]]
    for number, split in enumerate(splits):
        images, label = case(number, len(channels))
        files = [f"{number}-{n}.nii.gz" for n in range(len(channels))]
        for image, file in zip(images, files, strict=True):
            write_volume(Volume(image, AFFINE), folder / file)
        write_volume(Volume(label, AFFINE), folder / f"{number}-label.nii.gz")
        rows.append([*files, f"{number}-label.nii.gz", split, "MR"])
    with (folder / "cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "cases.csv"


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_cases(tmp_path_factory.mktemp("cases"))


def asked(manifest, output, **changes):
    what = Finetuning(manifest, output, LABELS, options=OPTIONS, features=FEATURES, threads=1)
    return replace(what, **changes)


def weights(output):
    return load_file(output / "model" / "weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_comes_out_is_a_model_that_segments_what_it_has_seen(manifest, tmp_path):
    options = replace(OPTIONS, steps=60, batch_size=4, validate_every=20, loss="dice-ce")
    model = finetune(asked(manifest, tmp_path, options=options))
    card = model.card
    assert card.task == "segmentation" and card.outputs == [0, 1, 2]
    assert [(label.name, label.value) for label in card.labels] == [("blob", 1), ("tumour core", 2)]
    assert "Neoplasm" in card.labels[1].terminology and card.labels[0].color != card.labels[1].color
    assert card.sliding_window.roi_size == (16, 16, 16)
    assert not card.training_data.simulated and card.training_data.volumes == 2
    assert card.metrics["test Dice blob"] > 0.5
    rows = list(csv.DictReader((tmp_path / "test.csv").open()))
    assert [row["label"] for row in rows] == ["blob", "tumour core"]
    reference = case(3, 1)[1]
    assert float(rows[1]["volume_ml"]) == pytest.approx((reference > 1).sum() * 3e-3, abs=1e-4)
    assert (tmp_path / "curves.png").stat().st_size > 1000
    record = json.loads((tmp_path / "finetuning.json").read_text())
    assert record["start"] == "scratch" and len(record["training_cases"]) == 2


def test_several_channels_have_their_names_on_the_card(tmp_path):
    manifest = write_cases(tmp_path, ("flair", "t1c"), ("train", "val"))
    model = finetune(asked(manifest, tmp_path / "run", options=replace(OPTIONS, steps=2)))
    assert [channel.name for channel in model.card.channels] == ["flair", "t1c"]
    assert weights(tmp_path / "run")["conv_0.conv_0.conv.weight"].shape[1] == 2


def test_what_was_stopped_anywhere_comes_to_the_same_weights(manifest, tmp_path):
    assert finetune(asked(manifest, tmp_path / "whole")) is not None
    for last in (1, 4, 5, 99):
        steps = []
        model = finetune(
            asked(manifest, tmp_path / "parts"),
            lambda stage, done, total, figures, s=steps: s.append(done) if stage == "train" else 0,
            lambda s=steps, n=last: bool(s) and s[-1] >= n,
        )
        assert (model is not None) == (last == 99)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def emptied(manifest, number):
    """The manifest again, with nothing labelled in one of its cases."""
    label = Volume(np.zeros(AFFINE.shape, np.uint8), AFFINE)
    write_volume(label, manifest.parent / f"{number}-label.nii.gz")
    return manifest


def test_validation_cases_without_a_label_do_not_choose_the_weights(tmp_path):
    manifest = emptied(write_cases(tmp_path, splits=("train", "train", "val")), 2)
    with pytest.warns(TomoSegWarning, match="blob, tumour core: the last weights are kept"):
        finetune(asked(manifest, tmp_path / "run"))
    record = json.loads((tmp_path / "run" / "finetuning.json").read_text())
    assert record["kept_step"] == OPTIONS.steps


def test_a_label_that_is_missing_from_validation_is_told(tmp_path):
    manifest = write_cases(tmp_path, splits=("train", "train", "val"))
    label = (case(2, 1)[1] == 1).astype(np.uint8)
    write_volume(Volume(label, AFFINE), tmp_path / "2-label.nii.gz")
    with pytest.warns(TomoSegWarning, match="has tumour core: weights are chosen by the others"):
        finetune(asked(manifest, tmp_path / "run"))


def test_a_test_case_that_does_not_fit_is_told_before_the_training(tmp_path):
    manifest = write_cases(tmp_path)
    other = Geometry.from_parts((20, 24, 28), (1.0, 1.5, 2.0), np.eye(3), (5, -7, 3))
    write_volume(Volume(case(3, 1)[1], other), tmp_path / "3-label.nii.gz")
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path / "run"))
    assert caught.value.code == "label-geometry" and "3-label" in caught.value.message
    assert not (tmp_path / "run" / "checkpoint").exists()


def test_a_constant_label_map_of_another_grid_is_refused(tmp_path):
    manifest = write_cases(tmp_path)
    small = Geometry.from_parts((3, 3, 3), (1.0, 1.0, 1.0), np.eye(3), (0, 0, 0))
    write_volume(Volume(np.ones((3, 3, 3), np.uint8), small), tmp_path / "0-label.nii.gz")
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path / "run"))
    assert caught.value.code == "label-geometry"


def test_the_last_weights_are_averaged_and_a_stop_changes_nothing(tmp_path, monkeypatch):
    manifest = write_cases(tmp_path, splits=("train", "train"))  # the last weights are kept
    options = replace(OPTIONS, steps=6, averaged=0.5, validate_every=2)
    seen = []
    step = Finetuner.step

    def watched(trainer):
        figures = step(trainer)
        seen.append(trainer.network.state_dict()["final_conv.weight"].clone())
        return figures

    monkeypatch.setattr(Finetuner, "step", watched)
    found = finetune(asked(manifest, tmp_path / "whole", options=options))
    assert found is not None and len(seen) == 6
    mean = torch.stack(seen[3:]).mean(dim=0)
    torch.testing.assert_close(weights(tmp_path / "whole")["final_conv.weight"], mean)
    assert not torch.allclose(mean, seen[-1])
    for last in (3, 5, 99):
        steps = []
        finetune(
            asked(manifest, tmp_path / "parts", options=options),
            lambda stage, done, total, figures, s=steps: s.append(done) if stage == "train" else 0,
            lambda s=steps, n=last: bool(s) and s[-1] >= n,
        )
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_the_number_of_processes_changes_nothing(manifest, tmp_path):
    finetune(asked(manifest, tmp_path / "none"))
    finetune(asked(manifest, tmp_path / "two", workers=2))
    assert same(weights(tmp_path / "none"), weights(tmp_path / "two"))


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A pre-training's folder with known weights."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(5)
    network = UNet3D(1, 1, FEATURES)
    save_pretrained(
        folder, network.state_dict(), {"title": "SAR", "network": {"features": FEATURES}}
    )
    return folder


def start_weights(manifest, folder, start, **changes):
    """Weights before the first step: those that a run without learning ends with."""
    options = replace(OPTIONS, steps=1, learning_rate=0.0)
    finetune(asked(manifest, folder, start=str(start), options=options, **changes))
    found = weights(folder)
    return {k: v for k, v in found.items() if "running" not in k and "num_batches" not in k}


def test_encoder_and_decoder_begin_with_the_pretrained_weights(manifest, pretrained, tmp_path):
    begun = start_weights(manifest, tmp_path / "run", pretrained, features=None)
    stored = load_file(pretrained / "pretrained.safetensors")
    for name, value in begun.items():
        assert torch.equal(value, stored[name]) == (not name.startswith("final_conv"))


def test_pretrained_weights_get_the_scale_of_random_ones_and_compute_the_same(pretrained):
    torch.manual_seed(0)
    network = UNet3D(1, 1, FEATURES)
    sizes = {name: float(value.float().norm()) for name, value in network.state_dict().items()}
    stored = load_pretrained(pretrained)
    long = {  # as after a long training
        name: value * (3 if ".conv.weight" in name or ".conv.bias" in name else 1)
        for name, value in stored.weights.items()
    }
    for name in long:
        if name.endswith(("running_mean", "running_var")):
            long[name] = long[name] * (3 if name.endswith("mean") else 9)
    plain, x = UNet3D(1, 1, FEATURES).eval(), torch.rand(1, 1, 16, 16, 16)
    last = {name: value for name, value in network.state_dict().items() if "final_conv" in name}
    plain.load_state_dict({**long, **last})
    pretrained_weights.begin_with(network, replace(stored, weights=long), rescaled=True)
    scaled = [n for n in sizes if n.endswith("conv.weight") and ".conv." in n]
    assert len(scaled) == 18  # two for each of nine blocks
    for name in scaled:
        assert float(network.state_dict()[name].norm()) == pytest.approx(sizes[name], rel=1e-4)
    torch.testing.assert_close(network.eval()(x), plain(x), rtol=1e-2, atol=1e-3)


def test_an_encoder_alone_leaves_the_decoder_as_scratch_has_it(manifest, pretrained, tmp_path):
    stored = load_file(pretrained / "pretrained.safetensors")
    encoder = {k: v for k, v in stored.items() if is_encoder_weight(k)}
    save_file(encoder, tmp_path / "encoder.safetensors")
    begun = start_weights(manifest, tmp_path / "run", tmp_path / "encoder.safetensors")
    scratch = start_weights(manifest, tmp_path / "scratch", "scratch")
    for name, value in begun.items():
        expected = encoder[name] if is_encoder_weight(name) else scratch[name]
        assert torch.equal(value, expected)


def test_one_pretrained_channel_becomes_several_that_respond_alike(pretrained, tmp_path):
    manifest = write_cases(tmp_path, ("a", "b"), ("train", "val"))
    begun = start_weights(manifest, tmp_path / "run", pretrained)
    stored = load_file(pretrained / "pretrained.safetensors")
    name = "conv_0.conv_0.conv.weight"
    torch.testing.assert_close(begun[name].sum(dim=1, keepdim=True), stored[name])


@pytest.mark.parametrize(
    ("pretrained_start", "changes", "expected"),
    [
        (True, {}, 10.0),
        (False, {}, 10.0),  # or scratch could not be compared with pre-trained weights
        (True, {"last_layer_factor": 2.0}, 2.0),
        (False, {"last_layer_factor": 3.0}, 3.0),
    ],
)
def test_the_new_last_layer_learns_faster_and_alike_from_every_start(
    manifest, pretrained, tmp_path, pretrained_start, changes, expected
):
    start = str(pretrained) if pretrained_start else "scratch"
    before = start_weights(manifest, tmp_path / "before", start)
    # Adam's first step is the learning rate, whatever the gradient is.
    options = replace(OPTIONS, steps=1, learning_rate=1e-3, **changes)
    finetune(asked(manifest, tmp_path / "after", start=start, options=options))
    after = weights(tmp_path / "after")
    moved = {n: float((after[n] - value).abs().max()) for n, value in before.items()}
    assert moved["final_conv.weight"] == pytest.approx(1e-3 * expected, rel=0.01)
    assert moved["upcat_1.convs.conv_1.conv.weight"] == pytest.approx(1e-3, rel=0.01)
    record = json.loads((tmp_path / "after" / "finetuning.json").read_text())
    assert record["options"]["last_layer_factor"] == expected


def test_a_public_checkpoint_of_monais_network_is_a_start(manifest, tmp_path):
    from monai.networks.nets import BasicUNet

    torch.manual_seed(1)
    network = BasicUNet(3, 1, 3, FEATURES, norm="batch", act="relu")
    save_file(network.state_dict(), tmp_path / "public.safetensors")
    start = tmp_path / "public.safetensors"
    begun = start_weights(manifest, tmp_path / "run", start, features=None)
    name = "upcat_1.upsample.deconv.weight"
    assert torch.equal(begun[name], network.state_dict()[name])


def test_weights_that_come_with_the_program_are_found_by_their_name(pretrained, monkeypatch):
    monkeypatch.setattr(pretrained_weights, "shipped_folder", lambda: pretrained.parent)
    found = pretrained_weights.load_pretrained(Path(pretrained.name))
    assert found.record["title"] == "SAR" and found.features == FEATURES
    with pytest.raises(TomoSegError):
        pretrained_weights.load_pretrained(Path("unheard-of"))


def test_the_weights_that_ship_are_a_start_and_say_what_they_are(manifest, tmp_path):
    plan = make_plan(asked(manifest, tmp_path, start="sar-brain-mr", features=None))
    assert plan.pretrained is not None
    record = plan.pretrained.record
    assert record["task"] == "sar" and list(plan.features) == record["network"]["features"]
    assert record["license"] == "Apache-2.0" and record["training_data"]["simulated"]
    assert "tomoseg pretrain sar" in record["training_data"]["commands"][-1]
    assert plan.preprocessing.spacing_mm == 2.0
    assert plan.preprocessing.intensity.method == "percentile"
    pretrained_weights.begin_with(UNet3D(2, 3, plan.features), plan.pretrained)


def test_a_fine_tuning_normalises_and_resamples_as_its_pre_training_did(
    manifest, pretrained, tmp_path
):
    record = {**json.loads((pretrained / "pretrained.json").read_text())}
    cubes = {"spacing_mm": 2.0, "ct_window": [-900.0, 900.0], "mr_percentiles": [1.0, 98.0]}
    source = tmp_path / "source"
    source.mkdir()
    save_pretrained(source, load_file(pretrained / "pretrained.safetensors"), {
        **record, "cubes": cubes,
    })  # fmt: skip

    def preprocessing(**changes):
        plan = make_plan(asked(manifest, tmp_path / "run", features=None, **changes))
        assert plan.features == FEATURES
        return plan, plan.preprocessing

    plan, found = preprocessing(start=str(source))
    assert plan.pretrained is not None and found.spacing_mm == 2.0
    assert found.intensity == Intensity(method="percentile", lower=1.0, upper=98.0)
    # The fair comparison: everything alike but the weights.
    plan, same = preprocessing(like=str(source))
    assert plan.pretrained is None and same == found
    assert preprocessing(start=str(source), spacing_mm=3.0)[1].spacing_mm == 3.0
    window = preprocessing(start=str(source), modality="CT")[1].intensity
    assert (window.method, window.lower, window.upper) == ("window", -900.0, 900.0)

    save_pretrained(source, load_file(pretrained / "pretrained.safetensors"), {
        **record, "cubes": {**cubes, "spacing_mm": "wide"},
    })  # fmt: skip
    with pytest.raises(TomoSegError, match="spacing_mm") as caught:
        preprocessing(start=str(source))
    assert caught.value.code == "pretrained-invalid"


def test_without_validation_cases_the_last_weights_are_kept(tmp_path):
    manifest = write_cases(tmp_path, splits=("train",))
    finetune(asked(manifest, tmp_path / "run"))
    assert json.loads((tmp_path / "run" / "finetuning.json").read_text())["kept_step"] == 6


def test_a_fraction_uses_whole_patients_and_smaller_ones_are_parts_of_larger(tmp_path):
    manifest = write_cases(tmp_path, splits=("train",) * 4)
    used = []
    for share in (Fraction(1, 10), Fraction(1, 2), Fraction(1)):
        options = replace(OPTIONS, steps=1)
        output = tmp_path / str(share.denominator)
        finetune(asked(manifest, output, fraction=share, options=options))
        used.append(set(json.loads((output / "finetuning.json").read_text())["training_cases"]))
    assert [len(cases) for cases in used] == [1, 2, 4]
    assert used[0] < used[1] < used[2]


def test_a_checkpoint_of_another_training_is_refused(manifest, tmp_path):
    finetune(asked(manifest, tmp_path, options=replace(OPTIONS, steps=1)))
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path, options=replace(OPTIONS, steps=1, seed=1)))
    assert caught.value.code == "checkpoint-different"
    finetune(asked(manifest, tmp_path, options=replace(OPTIONS, steps=1, seed=1), overwrite=True))


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(
    manifest, tmp_path, monkeypatch
):
    step = Finetuner.step

    def broken(self):
        if self.state.step == 5:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("inf"))
        return step(self)

    monkeypatch.setattr(Finetuner, "step", broken)
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path))
    assert caught.value.code == "training-diverged"
    kept = load_file(tmp_path / "checkpoint" / "checkpoint.safetensors")
    assert all(torch.isfinite(v).all() for v in kept.values() if v.is_floating_point())
    assert not (tmp_path / "model").exists()


def shifted_label(folder):
    affine = AFFINE.affine.copy()
    affine[0, 3] += 2
    write_volume(Volume(case(0, 1)[1], Geometry(AFFINE.shape, affine)), folder / "0-label.nii.gz")


def fractional_label(folder):
    label = case(0, 1)[1].astype(np.float32) * 0.5
    write_volume(Volume(label, AFFINE), folder / "0-label.nii.gz")


@pytest.mark.parametrize(
    ("spoil", "code"),
    [(shifted_label, "label-geometry"), (fractional_label, "label-not-integer")],
)
def test_labels_that_do_not_belong_to_their_images_are_refused(tmp_path, spoil, code):
    manifest = write_cases(tmp_path, splits=("train",))
    spoil(tmp_path)
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path / "run"))
    assert caught.value.code == code and "0-label" in caught.value.message


def test_values_without_a_name_count_as_background_and_are_told(manifest, tmp_path):
    options = replace(OPTIONS, steps=1)
    with pytest.warns(TomoSegWarning, match="Values 1 of"):
        finetune(asked(manifest, tmp_path, labels=LABELS[1:], options=options))


def test_a_label_that_occurs_nowhere_is_refused(manifest, tmp_path):
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path, labels=[*LABELS, LabelSpec("vessel", (7,))]))
    assert caught.value.code == "label-class-missing" and "vessel" in caught.value.message


def test_a_case_without_any_label_is_a_negative_example(tmp_path):
    manifest = write_cases(tmp_path, splits=("train", "train", "test"))
    for number in (1, 2):
        empty = Volume(np.zeros(AFFINE.shape, np.uint8), AFFINE)
        write_volume(empty, tmp_path / f"{number}-label.nii.gz")
    finetune(asked(manifest, tmp_path / "run"))
    rows = list(csv.DictReader((tmp_path / "run" / "test.csv").open()))
    assert {row["dice"] for row in rows} == {"nan"}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"features": (4, 4, 8, 8, 8, 4)}, "pretrained-mismatch"),
        ({"fraction": Fraction(2)}, "finetuning-options"),
        ({"options": replace(OPTIONS, patch=(16, 16, 20))}, "finetuning-options"),
        ({"options": replace(OPTIONS, patch=(16, 16, 16), batch_size=1)}, "finetuning-options"),
        ({"start": "/nowhere"}, "pretrained-unknown"),
    ],
)
def test_what_cannot_work_is_refused_at_once(manifest, pretrained, tmp_path, changes, code):
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path, **{"start": str(pretrained), **changes}))
    assert caught.value.code == code


def test_damaged_pretrained_weights_are_refused(manifest, pretrained, tmp_path):
    for name in ("pretrained.json", "pretrained.safetensors"):
        (tmp_path / name).write_bytes((pretrained / name).read_bytes())
    content = bytearray((tmp_path / "pretrained.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "pretrained.safetensors").write_bytes(content)
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path / "run", start=str(tmp_path)))
    assert caught.value.code == "pretrained-invalid"


def test_weights_of_another_network_or_without_numbers_are_refused(manifest, tmp_path):
    path = tmp_path / "other.safetensors"
    for weights_, code in (
        ({"layer.weight": torch.zeros(3)}, "pretrained-mismatch"),
        ({"conv_0.conv_0.conv.weight": torch.zeros(3)}, "pretrained-mismatch"),
        ({"conv_0.conv_0.conv.weight": torch.tensor([np.nan])}, "pretrained-invalid"),
    ):
        save_file(weights_, path)
        with pytest.raises(TomoSegError) as caught:
            finetune(asked(manifest, tmp_path / "run", start=str(path)))
        assert caught.value.code == code


def test_the_command_finetunes_and_refuses_what_it_does_not_know(manifest, tmp_path, capsys):
    arguments = (
        f"finetune --manifest {manifest} --output {tmp_path} --from scratch --steps 1 --seed 2 "
        "--fraction 1/2 --patch 16x16x16 --features 4,4,4,8,8,4 --batch-size 2 --device cpu "
        "--intensity percentile:1:99 --foreground none --flips ij --threads 1 --labels"
    ).split()
    assert main([*arguments, "blob=1,tumour core=2+4"]) == 0
    assert str(tmp_path / "model") in capsys.readouterr().out
    card = json.loads((tmp_path / "model" / "card.json").read_text())
    assert card["preprocessing"]["intensity"]["method"] == "percentile"
    assert card["training_data"]["seed"] == 2 and card["training_data"]["volumes"] == 1
    for wrong in ("blob", "blob=1,core=1", "blob=0", "blob=1,blob=2"):
        assert main([*arguments, wrong]) == 2
        assert "[labels-invalid]" in capsys.readouterr().err


def test_labels_that_were_corrected_do_not_go_into_a_training_that_began_without_them(tmp_path):
    manifest = write_cases(tmp_path)
    assert finetune(asked(manifest, tmp_path / "run"))
    assert finetune(asked(manifest, tmp_path / "run"))  # nothing changed
    _, label = case(5, 1)
    write_volume(Volume(label, AFFINE), tmp_path / "0-label.nii.gz")
    with pytest.raises(TomoSegError, match="files changed") as caught:
        finetune(asked(manifest, tmp_path / "run"))
    assert caught.value.code == "checkpoint-different"


def test_what_starts_again_and_is_stopped_leaves_no_earlier_model(manifest, tmp_path):
    what = asked(manifest, tmp_path)
    assert finetune(what)
    begun = []
    stopped = finetune(
        replace(what, overwrite=True),
        lambda stage, *_: begun.append(stage),
        lambda: "train" in begun,
    )
    assert stopped is None and (tmp_path / "checkpoint").is_dir()
    assert not [n for n in ("model", "finetuning.json", "test.csv") if (tmp_path / n).exists()]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_that_is_no_model_is_never_replaced_by_one(manifest, tmp_path, overwrite):
    mine = tmp_path / "model" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("not of a training")
    with pytest.raises(TomoSegError) as caught:
        finetune(asked(manifest, tmp_path, overwrite=overwrite))
    assert caught.value.code == "model-exists"
    assert mine.exists() and not (tmp_path / "checkpoint").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "model").write_text("a file")
    with pytest.raises(TomoSegError, match="is a file"):
        finetune(asked(manifest, tmp_path / "run", overwrite=overwrite))


@pytest.mark.parametrize("overwrite", [False, True])
def test_an_output_that_is_a_file_is_refused_before_anything_is_read(manifest, tmp_path, overwrite):
    (tmp_path / "file").write_text("mine")
    read = []
    for output in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(TomoSegError, match="is a file") as caught:
            finetune(asked(manifest, output, overwrite=overwrite), lambda *told: read.append(told))
        assert caught.value.code == "output-unwritable"
    assert (tmp_path / "file").read_text() == "mine" and not read


def test_a_licence_too_long_for_the_card_is_refused_before_the_training(manifest, tmp_path):
    with pytest.raises(TomoSegError, match="201 characters") as caught:
        make_plan(asked(manifest, tmp_path, license="x" * 201))
    assert caught.value.code == "finetuning-options"


@pytest.mark.parametrize("name", ["My Model", "con", "nul.v1", "model."])
def test_names_that_no_system_has_for_a_file_are_refused_before_the_training(
    manifest, tmp_path, name
):
    with pytest.raises(TomoSegError, match="no name of a model") as caught:
        make_plan(asked(manifest, tmp_path, name=name))
    assert caught.value.code == "finetuning-options"


def test_mr_and_mri_are_one_modality(tmp_path):
    manifest = write_cases(tmp_path)
    manifest.write_text(manifest.read_text().replace("train,MR", "train,MRI", 1))
    assert make_plan(asked(manifest, tmp_path / "run")).modality == "MR"


def test_the_folder_of_a_fine_tuning_names_its_weights_as_a_start(manifest, tmp_path):
    finetune(asked(manifest, tmp_path / "first"))
    with pytest.raises(TomoSegError, match="it holds a fine-tuning") as caught:
        make_plan(asked(manifest, tmp_path / "second", start=str(tmp_path / "first")))
    named = tmp_path / "first" / "model" / "weights.safetensors"
    assert str(named) in caught.value.hint and named.is_file()


def test_a_short_training_has_its_losses_among_tensorboards_curves(manifest, tmp_path):
    finetune(asked(manifest, tmp_path))
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert events.read_bytes().count(b"train/loss") == OPTIONS.steps


def test_a_stop_does_not_replace_a_sound_checkpoint_by_one_without_numbers(
    manifest, tmp_path, monkeypatch
):
    step, done = Finetuner.step, []

    def broken(self):
        figures = step(self)
        done.append(self.state.step)
        if self.state.step == 5:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        return figures

    monkeypatch.setattr(Finetuner, "step", broken)
    stopped = finetune(asked(manifest, tmp_path), should_stop=lambda: bool(done) and done[-1] == 5)
    kept = load_file(tmp_path / "checkpoint" / "checkpoint.safetensors")
    assert stopped is None and done[-1] == 5
    assert all(torch.isfinite(v).all() for v in kept.values() if v.is_floating_point())


def test_the_manifest_of_a_training_is_a_table_to_run_its_model_on(tmp_path):
    manifest = write_cases(tmp_path, ("FLAIR", "T1ce"))
    plan = make_plan(asked(manifest, tmp_path / "run"))
    found = find_cases(manifest)
    assert plan.channels == ("flair", "t1ce")
    assert all(tuple(case["channels"]) == plan.channels for case in found)
