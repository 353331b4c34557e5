"""Pre-training from the manifest to the weights, through stops, kills and bad input."""

from __future__ import annotations

import csv
import json
import os
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.pretraining.cubes import CubeOptions
from TomoSegLib.pretraining.options import PretrainingOptions
from TomoSegLib.pretraining.presets import PRESETS
from TomoSegLib.pretraining.run import Pretraining, pretrain
from TomoSegLib.pretraining.trainer import Pretrainer
from TomoSegLib.pretraining.weights import load_pretrained

FEATURES = (4, 4, 4, 8, 8, 4)
CUBES = CubeOptions(shape=(16, 16, 16), counts=(2, 2, 4))
OPTIONS = PretrainingOptions(
    steps=6, batch_size=4, learning_rates=(0.1, 0.05, 0.01), validate_every=4, validation_cubes=4
)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Two smooth random volumes each that stand for CT and MR, and their manifest."""
    folder = tmp_path_factory.mktemp("pool")
    rows = [["image", "modality", "split"]]
    for number, modality in enumerate(("CT", "MR", "CT", "MR")):
        rng = np.random.default_rng(number)
        array = np.kron(rng.normal(size=(5, 5, 5)), np.ones((8, 8, 8))).astype(np.float32)
        array = array * 400 if modality == "CT" else 100 + 50 * array
        geometry = Geometry.from_parts(array.shape, (1, 1, 1))
        write_volume(Volume(array, geometry), folder / f"{number}.nii.gz")
        rows.append([f"{number}.nii.gz", modality, "val" if number > 1 else "train"])
    with (folder / "pool.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "pool.csv"


def asked(pool, output, **changes):
    what = Pretraining(
        (pool,), output, "sar", OPTIONS, CUBES, FEATURES, cache=pool.parent / "cubes", threads=1
    )
    return replace(what, **changes)


def weights(output):
    return load_file(output / "pretrained.safetensors")


def checkpoint(output):
    return load_file(output / "checkpoint" / "checkpoint.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("task", list(PRESETS))
def test_every_row_of_the_tables_trains_with_the_same_network_and_loader(pool, tmp_path, task):
    options = replace(OPTIONS, steps=2, validate_every=2)
    assert pretrain(asked(pool, tmp_path, task=task, options=options))
    record = json.loads((tmp_path / "pretrained.json").read_text())
    assert record["task"] == task and record["steps"] == 2
    figures = record["figures"]
    assert np.isfinite(figures["val total"])
    preset = PRESETS[task]
    assert ("val scale" in figures) == preset.scale_head
    assert ("train discriminator" in figures) == preset.adversary
    assert ("val restoration" in figures) == (preset.pretext == "restoration")
    of_each_volume = {None: 8, (0,): 2, (1,): 2, (2,): 4}[preset.scales]
    assert record["training_cubes"] == 2 * of_each_volume
    has_decoder = any(name.startswith("upcat") for name in weights(tmp_path))
    assert has_decoder == (preset.pretext == "restoration") == record["network"]["decoder"]
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize(
    ("game", "optimizer", "schedule"),
    [
        ("alternating", "sgd", "plateau"),
        ("gradient-reversal", "sgd", "plateau"),
        ("alternating", "adam", "plateau"),
        ("alternating", "adam", "cosine"),
    ],
)
def test_what_was_stopped_anywhere_comes_to_the_same_weights(
    pool, tmp_path, game, optimizer, schedule
):
    options = replace(OPTIONS, game=game, optimizer=optimizer, schedule=schedule)
    assert pretrain(asked(pool, tmp_path / "whole", options=options))
    parts = asked(pool, tmp_path / "parts", options=options)
    for last in (1, 3, 5, 99):  # between validations as well as at one
        steps = []
        finished = pretrain(
            parts,
            lambda stage, done, total, figures, s=steps: s.append(done) if stage == "train" else 0,
            lambda s=steps, n=last: bool(s) and s[-1] >= n,
        )
        assert finished == (last == 99)
    assert same(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts"))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_what_was_killed_goes_on_from_its_last_checkpoint(pool, tmp_path, monkeypatch):
    assert pretrain(asked(pool, tmp_path / "whole"))
    step = Pretrainer.step

    def killed(self):
        if self.state.step == 5:
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(Pretrainer, "step", killed)
    with pytest.raises(KeyboardInterrupt):
        pretrain(asked(pool, tmp_path / "parts"))
    monkeypatch.undo()
    steps = []
    assert pretrain(
        asked(pool, tmp_path / "parts"), lambda stage, done, *_: steps.append((stage, done))
    )
    assert [done for stage, done in steps if stage == "train"] == [5, 6]
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_the_number_of_processes_changes_nothing(pool, tmp_path):
    assert pretrain(asked(pool, tmp_path / "none"))
    assert pretrain(asked(pool, tmp_path / "two", workers=2))
    assert same(weights(tmp_path / "none"), weights(tmp_path / "two"))


def test_another_seed_comes_to_other_weights(pool, tmp_path):
    options = replace(OPTIONS, steps=1)
    assert pretrain(asked(pool, tmp_path / "a", options=options))
    assert pretrain(asked(pool, tmp_path / "b", options=replace(options, seed=1)))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "b"))


def test_several_manifests_make_one_pool(pool, tmp_path):
    rows = pool.read_text().splitlines()
    halves = []
    for number, part in enumerate((rows[1:3], rows[3:])):
        halves.append(pool.parent / f"half-{number}.csv")
        halves[-1].write_text("\n".join([rows[0], *part]) + "\n")
    assert pretrain(asked(pool, tmp_path / "one"))
    assert pretrain(replace(asked(pool, tmp_path / "two"), manifests=tuple(halves)))
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


def test_reduced_precision_trains(pool, tmp_path):
    assert pretrain(asked(pool, tmp_path, options=replace(OPTIONS, precision="bfloat16")))
    assert all(torch.isfinite(value).all() for value in weights(tmp_path).values())


def test_one_modality_alone_turns_the_adversary_off_and_says_so(pool, tmp_path):
    rows = pool.read_text().splitlines()
    (pool.parent / "ct.csv").write_text("\n".join(r for r in rows if "MR" not in r) + "\n")
    with pytest.warns(TomoSegWarning, match="All volumes are CT"):
        assert pretrain(asked(pool.parent / "ct.csv", tmp_path))
    assert "train discriminator" not in json.loads((tmp_path / "pretrained.json").read_text())


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_state(pool, tmp_path, monkeypatch):
    step = Pretrainer.step

    def broken(self):
        if self.state.step == 5:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        return step(self)

    monkeypatch.setattr(Pretrainer, "step", broken)
    with pytest.raises(TomoSegError) as caught:
        pretrain(asked(pool, tmp_path))
    assert caught.value.code == "training-diverged"
    kept = checkpoint(tmp_path)
    assert all(torch.isfinite(v).all() for v in kept.values() if v.is_floating_point())
    assert not (tmp_path / "pretrained.json").exists()


def test_what_diverges_before_its_first_validation_leaves_a_sound_checkpoint(
    pool, tmp_path, monkeypatch
):
    step = Pretrainer.step

    def broken(self):
        figures = step(self)
        if self.state.step == 4:
            with torch.no_grad():
                next(self.network.parameters()).fill_(float("nan"))
        return figures

    monkeypatch.setattr(Pretrainer, "step", broken)
    with pytest.raises(TomoSegError) as caught:
        pretrain(asked(pool, tmp_path, options=replace(OPTIONS, steps=9, validate_every=9)))
    assert caught.value.code == "training-diverged"
    with safe_open(tmp_path / "checkpoint" / "checkpoint.safetensors", "pt") as file:
        assert json.loads(file.metadata()["state"])["state"]["step"] == 2
    kept = checkpoint(tmp_path).values()
    assert all(torch.isfinite(v).all() for v in kept if v.is_floating_point())


def test_scans_that_were_replaced_do_not_go_into_a_training_that_began_without_them(pool, tmp_path):
    assert pretrain(asked(pool, tmp_path))
    first, time = pool.parent / "0.nii.gz", (pool.parent / "0.nii.gz").stat().st_mtime_ns
    try:
        os.utime(first, ns=(time + 10**9, time + 10**9))
        with pytest.raises(TomoSegError, match="files changed") as caught:
            pretrain(asked(pool, tmp_path))
    finally:
        os.utime(first, ns=(time, time))
    assert caught.value.code == "checkpoint-different"
    assert pretrain(asked(pool, tmp_path))


def test_what_starts_again_and_is_stopped_leaves_no_earlier_weights(pool, tmp_path):
    assert pretrain(asked(pool, tmp_path))
    begun = []
    again = asked(pool, tmp_path, overwrite=True)
    assert not pretrain(again, lambda stage, *_: begun.append(stage), lambda: "train" in begun)
    with pytest.raises(TomoSegError, match="not finished"):
        load_pretrained(tmp_path)


def test_scratch_is_told_where_it_belongs(pool, tmp_path):
    with pytest.raises(TomoSegError) as caught:
        pretrain(asked(pool, tmp_path, task="scratch"))
    assert "finetune --from scratch" in caught.value.hint


def test_numbers_of_cubes_for_a_data_set_that_is_not_there_are_told(pool, tmp_path):
    cubes = replace(CUBES, dataset_counts={"lnua": (1, 1, 1)})
    with pytest.warns(TomoSegWarning, match="lnua") as caught:
        pretrain(asked(pool, tmp_path, cubes=cubes, options=replace(OPTIONS, steps=1)))
    assert "cubes-dataset-absent" in [w.message.code for w in caught]


def test_a_checkpoint_of_something_else_is_refused(pool, tmp_path):
    assert pretrain(asked(pool, tmp_path, options=replace(OPTIONS, steps=2)))
    for changes in (
        {"features": (4, 4, 8, 8, 8, 4)},
        {"options": replace(OPTIONS, steps=2, seed=3)},
        {"task": "models-genesis", "options": replace(OPTIONS, steps=2)},
    ):
        with pytest.raises(TomoSegError) as caught:
            pretrain(asked(pool, tmp_path, **changes))
        assert caught.value.code == "checkpoint-different"
    assert pretrain(asked(pool, tmp_path, overwrite=True))


@pytest.mark.parametrize("damage", ["cut", "text", "tensor"])
def test_a_damaged_checkpoint_is_refused_and_can_be_started_over(pool, tmp_path, damage):
    what = asked(pool, tmp_path, options=replace(OPTIONS, steps=2))
    assert pretrain(what)
    path = tmp_path / "checkpoint" / "checkpoint.safetensors"
    content = path.read_bytes()
    if damage == "tensor":
        from safetensors.torch import save_file

        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        save_file(dict(list(load_file(path).items())[1:]), path, metadata)
    else:
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"nothing")
    with pytest.raises(TomoSegError) as caught:
        pretrain(what)
    assert caught.value.code == "checkpoint-invalid"
    assert pretrain(replace(what, overwrite=True))


@pytest.mark.parametrize(
    "changes",
    [
        {"task": "sudoku"},
        {"cubes": replace(CUBES, shape=(16, 16, 20))},
        {"cubes": replace(CUBES, counts=(1, 2))},
        {"cubes": replace(CUBES, scales=(0.5, 0.5, 0.25))},
        {"cubes": replace(CUBES, counts=(0, 2, 2)), "task": "sar-large"},
        {"features": (4, 4)},
        {"cubes": replace(CUBES, mr_percentiles=(-5.0, 99.0))},
        {"cubes": replace(CUBES, mr_percentiles=(1.0, 200.0))},
        {"options": replace(OPTIONS, learning_rates=(0.1, 0.1, -1.0))},
    ],
)
def test_options_that_make_no_sense_are_refused(pool, tmp_path, changes):
    with pytest.raises(TomoSegError) as caught:
        pretrain(asked(pool, tmp_path, **changes))
    assert caught.value.code == "pretraining-options"


@pytest.mark.parametrize("game", ["alternating", "gradient-reversal"])
def test_the_total_by_which_weights_are_kept_leaves_the_adversary_out(pool, tmp_path, game):
    rows = list(csv.reader(pool.open()))
    for row in rows[1:]:
        row[0], row[2] = str(pool.parent / row[0]), "train"
    alone = tmp_path / "alone.csv"  # one volume of each modality: none can be held out
    with alone.open("w", newline="") as stream:
        csv.writer(stream).writerows(rows[:3])
    options = replace(OPTIONS, game=game, steps=4, validate_every=2)
    seen = []

    def follow(stage, done, total, figures):
        if stage == "train":
            seen.append(figures)

    assert pretrain(asked(alone, tmp_path / "run", options=options), follow)
    weighted = {"restoration": 10.0, "scale": 1.0}
    assert seen and all("discriminator" in figures for figures in seen)
    for figures in seen:
        expected = sum(weight * figures[name] for name, weight in weighted.items())
        assert figures["total"] == pytest.approx(expected, rel=1e-4)


def test_the_command_trains_and_tells_where_the_weights_are(pool, tmp_path, capsys):
    arguments = (
        f"pretrain sar --manifest {pool} --output {tmp_path} --steps 2 --batch-size 4 --seed 3 "
        "--features 4,4,4,8,8,4 --cube 16x16x16 --scales 1/2,1/4,1/8 --cubes 2:2:4 --device cpu "
        f"--game gradient-reversal --cache {pool.parent / 'cubes'} --threads 1"
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert main(arguments.split()) == 0
    assert str(tmp_path) in capsys.readouterr().out
    record = json.loads((tmp_path / "pretrained.json").read_text())
    assert record["options"]["seed"] == 3 and record["options"]["game"] == "gradient-reversal"
    assert main([*arguments.split(), "--game", "chess"]) == 2
    assert "[usage]" in capsys.readouterr().err


def test_a_restoration_whose_sigmoid_is_saturated_stops_and_says_what_to_do(pool, tmp_path):
    options = replace(
        OPTIONS, steps=60, learning_rates=(1000.0, 0.1, 0.001), validate_every=20, momentum=0.9
    )
    with pytest.raises(TomoSegError) as caught:
        pretrain(asked(pool, tmp_path, task="models-genesis", options=options))
    assert caught.value.code == "training-diverged"
    # At the first validation, though the mean over its steps has one in which it lived.
    assert "step 20 " in caught.value.message and "saturated" in caught.value.message
    assert "adam" in caught.value.hint


def test_weights_say_which_transforms_licence_and_simulation_they_come_from(pool, tmp_path):
    command = ["pretrain", "sar", "--manifest", str(pool), "--output", str(tmp_path / "run")]
    command += ["--task", "models-genesis", "--steps", "2", "--features", "4,4,4,8,8,4"]
    command += ["--cube", "16x16x16", "--cubes", "2:2:4", "--batch-size", "2", "--device", "cpu"]
    command += ["--optimizer", "adam", "--learning-rates", "0.002,0.002,0.001"]
    command += ["--paint", "0.25", "--license", "CC0-1.0", "--description", "noise"]
    (pool.parent / "simulation.json").write_text('{"simulated": true}')
    try:
        assert main(command) == 0
    finally:
        (pool.parent / "simulation.json").unlink()
    record = json.loads((tmp_path / "run" / "pretrained.json").read_text())
    assert record["license"] == "CC0-1.0" and record["transforms"]["paint"] == 0.25
    data = record["training_data"]
    assert data["simulated"] is True and data["description"] == "noise"
    assert data["command"].startswith("tomoseg")
