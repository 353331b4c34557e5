"""Training step by step: going on after a stop, divergence, patience."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from TomoSegLib.errors import TomoSegError
from TomoSegLib.networks.bright_area import BrightArea
from TomoSegLib.networks.encoders import EvidenceEncoder
from TomoSegLib.training import weak_supervision
from TomoSegLib.training.checkpoint import FILE, load_checkpoint, save_checkpoint
from TomoSegLib.training.slices import LabelledVolume, SliceSampler
from TomoSegLib.training.weak_supervision import Trainer, TrainingOptions

OPTIONS = TrainingOptions(
    steps=9, volumes_per_step=4, slices_per_volume=2, validate_every=4, local_weight=0.5, seed=3
)
IDENTITY = {"manifest": "abc", "options": OPTIONS.as_dict()}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sampler(seed: int) -> SliceSampler:
    generator = np.random.default_rng(seed)
    volumes = []
    for label in (0, 1, 0, 1):
        image = generator.normal(0, 1, (1, 12, 12, 12)).astype(np.float32)
        image[0, 4:8, 4:8, 4:8] += 3 * label
        volumes.append(LabelledVolume(image, np.ones((12, 12, 12), dtype=bool), label))
    return SliceSampler(volumes, spacing=1.0, size=12, background=0.0, device=torch.device("cpu"))


def trainer(options: TrainingOptions = OPTIONS, **arguments: Any) -> Trainer:
    torch.manual_seed(0)
    settings = {"widths": (4,), "strides": (2,), "blocks": (1,), "kernels": (3,)}
    network = EvidenceEncoder(**{**settings, "evidence_dropout": 0.3, **arguments})
    return Trainer(network, sampler(0), sampler(1), torch.eye(3), options)


def assert_same(one: Trainer, other: Trainer) -> None:
    """Bit by bit."""
    for name in ("averaged", "best"):
        for key, value in getattr(one, name).items():
            assert torch.equal(value, getattr(other, name)[key]), (name, key)
    for key, value in one.network.state_dict().items():
        assert torch.equal(value, other.network.state_dict()[key]), key
    assert one.state == other.state


@pytest.mark.parametrize("stop", [4, 6])
def test_a_training_that_was_killed_goes_on_to_the_same_weights_bit_by_bit(
    stop: int, tmp_path: Path
) -> None:
    whole = trainer()
    whole.run()
    assert whole.state.step == 9
    assert [entry["step"] for entry in whole.state.history] == [4, 8, 9]
    first = trainer()
    first.run(should_stop=lambda: first.state.step == stop)
    assert first.state.step == stop
    save_checkpoint(first, tmp_path, IDENTITY)
    torch.manual_seed(99)  # another process has another state
    second = trainer(evidence_dropout=0.3)
    assert load_checkpoint(second, tmp_path, IDENTITY)
    assert_same(first, second)
    second.run()
    assert_same(whole, second)
    assert {path.name for path in tmp_path.iterdir()} == {FILE}


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path: Path) -> None:
    assert not load_checkpoint(trainer(), tmp_path, IDENTITY)


def test_a_checkpoint_of_something_else_is_refused_and_says_what_changed(tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path, IDENTITY)
    with pytest.raises(TomoSegError) as caught:
        load_checkpoint(trainer(), tmp_path, {**IDENTITY, "manifest": "xyz"})
    assert caught.value.code == "checkpoint-different"
    assert "manifest" in caught.value.message
    assert "options" not in caught.value.message


@pytest.mark.parametrize("size", [0, 7, 200, -1])
def test_a_truncated_checkpoint_is_refused(size: int, tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path, IDENTITY)
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(TomoSegError) as caught:
        load_checkpoint(trainer(), tmp_path, IDENTITY)
    assert caught.value.code == "checkpoint-invalid"


@pytest.mark.parametrize("place", [-1, -5000])
def test_a_checkpoint_with_a_wrong_bit_is_refused(place: int, tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path, IDENTITY)
    path = tmp_path / FILE
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(TomoSegError, match="has changed since") as caught:
        load_checkpoint(trainer(), tmp_path, IDENTITY)
    assert caught.value.code == "checkpoint-invalid"


def test_a_checkpoint_of_a_version_that_wrote_no_hash_goes_on(tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path, IDENTITY)
    path = tmp_path / FILE
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    assert metadata.pop("sha256")
    save_file(load_file(path), path, metadata)
    assert load_checkpoint(trainer(), tmp_path, IDENTITY)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    save_checkpoint(trainer(), tmp_path, IDENTITY)
    with pytest.raises(TomoSegError) as caught:
        load_checkpoint(trainer(widths=(5,)), tmp_path, IDENTITY)
    assert caught.value.code == "checkpoint-invalid"


def test_a_loss_that_is_not_finite_ends_training_and_keeps_the_best_state() -> None:
    found = trainer()
    found.run(should_stop=lambda: found.state.step == 4)
    best = {key: value.clone() for key, value in found.best.items()}
    with torch.no_grad():
        next(found.network.parameters()).fill_(float("nan"))
    with pytest.raises(TomoSegError) as caught:
        found.run()
    assert caught.value.code == "training-diverged"
    assert found.state.step == 8  # at the next validation
    assert found.state.best_step == 4
    for key, value in found.best.items():
        assert torch.equal(value, best[key])
        assert torch.isfinite(value).all()


def aucs(monkeypatch: pytest.MonkeyPatch, values: list[float]) -> None:
    """Validations find these, one after the other."""
    left = iter(values)
    monkeypatch.setattr(weak_supervision, "area_under_curve", lambda *_: next(left))


def test_training_stops_when_patience_runs_out(monkeypatch: pytest.MonkeyPatch) -> None:
    aucs(monkeypatch, [0.6, 0.8, 0.7, 0.75, 0.9])
    found = trainer(replace(OPTIONS, steps=100, validate_every=1, patience=2))
    kept: dict[int, dict[str, torch.Tensor]] = {}
    found.run(
        on_step=lambda state: kept.__setitem__(
            state.step, {key: value.clone() for key, value in found.averaged.items()}
        )
    )
    assert found.finished
    assert (found.state.step, found.state.best_step, found.state.best_auc) == (4, 2, 0.8)
    for key, value in found.best.items():
        assert torch.equal(value, kept[2][key])


def test_of_equal_validations_the_latest_is_kept_but_patience_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aucs(monkeypatch, [1.0] * 10)
    found = trainer(replace(OPTIONS, steps=100, validate_every=1, patience=3))
    found.run()
    assert (found.state.step, found.state.best_step) == (4, 4)


def test_a_difference_within_the_tolerance_is_a_tie_that_does_not_drift(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    aucs(monkeypatch, [0.90, 0.95, 0.935, 0.92, 0.90])
    options = replace(OPTIONS, steps=100, validate_every=1, patience=3, tolerance=0.02)
    found = trainer(options)
    found.run()
    # 0.935 ties with 0.95 and was trained longer; 0.92 ties with 0.935 but not with the highest.
    assert (found.state.step, found.state.best_step, found.state.best_auc) == (5, 3, 0.95)
    assert found.state.kept_auc == 0.935  # what the model's card may claim


def test_the_learning_rate_warms_up_and_falls_to_zero() -> None:
    found = trainer(replace(OPTIONS, steps=100, learning_rate=1.0))
    rates = [found.learning_rate(step) for step in range(101)]
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert all(a >= b for a, b in zip(rates[5:], rates[6:], strict=False))
    assert rates[5 + 95 // 2] == pytest.approx(0.5, abs=0.02)
    assert rates[100] == pytest.approx(0, abs=1e-9)


def test_without_averaging_the_last_weights_are_validated() -> None:
    found = trainer(replace(OPTIONS, average=0.0))
    found.run(should_stop=lambda: found.state.step == 3)
    for key, value in found.network.state_dict().items():
        assert torch.equal(found.averaged[key], value), key


def test_half_of_every_batch_is_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    found = trainer(replace(OPTIONS, volumes_per_step=6))
    seen: list[torch.Tensor] = []
    draw = found.train_sampler.draw

    def keep(indices: torch.Tensor, *others: Any) -> Any:
        seen.append(found.train_sampler.labels[indices])
        return draw(indices, *others)

    monkeypatch.setattr(found.train_sampler, "draw", keep)
    found.run(should_stop=lambda: found.state.step == 3)
    assert [labels.sum().item() for labels in seen] == [3, 3, 3]


def test_the_local_loss_needs_an_evidence_map() -> None:
    with pytest.raises(TomoSegError) as caught:
        Trainer(BrightArea(), sampler(0), sampler(1), torch.eye(3), OPTIONS)
    assert caught.value.code == "template-invalid"


def test_the_checkpoint_is_plain_tensors_and_json(tmp_path: Path) -> None:
    found = trainer()
    found.step()
    save_checkpoint(found, tmp_path, IDENTITY)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert json.loads(file.metadata()["state"])["step"] == 1
        assert json.loads(file.metadata()["identity"]) == IDENTITY


def test_bright_blobs_are_learnt_from_labels_alone() -> None:
    found = trainer(replace(OPTIONS, steps=40, validate_every=20, slices_per_volume=4))
    found.run()
    assert found.state.best_auc == 1.0
    first, last = (entry["loss"] for entry in found.state.history)
    assert last < first
