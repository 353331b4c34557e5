"""The network's levels, the pretext tasks, the adversary and the probe."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from TomoSegLib.errors import TomoSegError
from TomoSegLib.networks.unet3d import UNet3D, is_encoder_weight
from TomoSegLib.pretraining.adversary import (
    ModalityDiscriminator,
    confusion_loss,
    discriminator_loss,
    modality_weights,
    reverse_gradient,
)
from TomoSegLib.pretraining.baselines import (
    ContrastivePrediction,
    Jigsaw,
    PatchLocation,
    Rotation,
    distant_permutations,
    grid_pieces,
    overlapping_pieces,
    rotated,
)
from TomoSegLib.pretraining.cubes import Cube
from TomoSegLib.pretraining.options import PretrainingOptions
from TomoSegLib.pretraining.probe import modality_probe
from TomoSegLib.pretraining.tasks import Restoration
from TomoSegLib.pretraining.trainer import Pretrainer
from TomoSegLib.pretraining.transforms import GenesisTransforms
from TomoSegLib.training.precision import chosen_precision

FEATURES = (4, 6, 8, 10, 12, 4)
SHAPE = (16, 32, 32)


def network(seed=0):
    torch.manual_seed(seed)
    return UNet3D(1, 1, FEATURES)


def cube(seed=0, scale=0, modality=0, shape=SHAPE):
    image = np.random.default_rng(seed).random((1, *shape), dtype=np.float32)
    return Cube(image, scale, modality)


def batch_of(task, count=4):
    rows = [task.prepare(cube(n), np.random.default_rng(n)) for n in range(count)]
    found = {
        name: torch.from_numpy(np.stack([np.asarray(row[name]) for row in rows]))
        for name in rows[0]
    }
    return found | {"scale": torch.arange(count) % 3, "modality": torch.arange(count) % 2}


def test_the_network_is_monais_and_its_encoder_stands_alone():
    from monai.networks.nets import BasicUNet

    own = network().eval()
    other = BasicUNet(3, 1, 1, FEATURES, act=("relu", {"inplace": True}), norm="batch").eval()
    other.load_state_dict(own.state_dict())
    x = torch.randn(1, 1, 16, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(own(x), other(x))
        levels = own.encode(x)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (FEATURES[n], 16 >> n, 32 >> n, 48 >> n) for n in range(5)
    ]
    encoder = {name for name in own.state_dict() if is_encoder_weight(name)}
    assert encoder and all(not name.startswith(("upcat", "final")) for name in encoder)
    assert any("running_mean" in name for name in encoder)  # batch norm


def test_restoration_is_the_mean_squared_error_of_the_untransformed_cube():
    task, unet = Restoration(12, 3), network()
    batch = batch_of(task)
    outcome = task.run(unet, batch)
    unet.train()
    restored = torch.sigmoid(unet(batch["image"]))
    expected = F.mse_loss(restored, batch["target"])
    torch.testing.assert_close(outcome.losses["restoration"], expected)
    assert set(outcome.losses) == {"restoration", "scale"}
    assert set(Restoration(12, 0).run(unet, batch).losses) == {"restoration"}
    # Flipped alike, so that input and target belong together.
    assert batch["target"].shape == batch["image"].shape


@pytest.mark.parametrize(
    ("task", "ways", "loss"),
    [
        (Rotation(12), 10, "rotation"),
        (PatchLocation(12, SHAPE), 26, "location"),
        (Jigsaw(12, SHAPE, permutations=30), 30, "permutation"),
        (ContrastivePrediction(12, SHAPE), None, "contrast"),
    ],
)
def test_baselines_train_the_encoder_and_start_near_chance(task, ways, loss):
    unet = network()
    batch = batch_of(task)
    outcome = task.run(unet, batch)
    value = outcome.losses[loss]
    chance = ways or 4 * 9  # the other pieces of a layer in a batch of four
    assert float(value.detach()) == pytest.approx(np.log(chance), abs=1.0)
    value.backward()
    touched = {name for name, p in unet.named_parameters() if p.grad is not None}
    assert touched and all(is_encoder_weight(name) for name in touched)
    if ways:
        labels = {int(task.prepare(cube(), np.random.default_rng(n))["label"]) for n in range(900)}
        assert labels == set(range(ways))


def test_the_ten_rotations_differ_and_are_rotations():
    volume = np.random.default_rng(0).random((1, 6, 6, 6), dtype=np.float32)
    turned = [rotated(volume, label) for label in range(10)]
    assert np.array_equal(turned[0], volume)
    for n in range(10):
        assert np.array_equal(np.sort(turned[n], axis=None), np.sort(volume, axis=None))
        assert all(not np.array_equal(turned[n], turned[m]) for m in range(n))
    for axis in range(3):
        again = rotated(turned[1 + 3 * axis], 3 + 3 * axis)  # 90 degrees, then 270
        assert np.array_equal(again, volume)


def test_pieces_lie_where_the_labels_say():
    position = np.indices((32, 64, 64)).astype(np.float32)
    pieces = grid_pieces(position, np.random.default_rng(0))
    assert pieces.shape == (27, 3, 9, 19, 19)  # cells of 10 x 21 x 21, less a gap
    for n, place in enumerate(np.ndindex(3, 3, 3)):
        cell = np.array([10, 21, 21])
        low = pieces[n].reshape(3, -1).min(axis=1)
        high = pieces[n].reshape(3, -1).max(axis=1)
        assert np.all(low >= place * cell) and np.all(high < (np.array(place) + 1) * cell)
    overlapping = overlapping_pieces(position)
    assert overlapping.shape == (27, 3, 16, 32, 32)
    assert overlapping[26].max() == 63 and overlapping[13, 1].min() == 16


def test_permutations_are_always_the_same_and_far_apart():
    chosen = distant_permutations(50)
    assert all(sorted(row) == list(range(27)) for row in chosen.tolist())
    distance = (chosen[:, None] != chosen[None]).sum(axis=2) + 27 * np.eye(50)
    assert distance.min() >= 22
    assert np.array_equal(chosen[:10], distant_permutations(10))


def test_the_discriminator_sees_the_four_deepest_levels():
    torch.manual_seed(0)
    levels = [
        level.detach().requires_grad_() for level in network().encode(torch.randn(2, 1, *SHAPE))
    ]
    logits = ModalityDiscriminator(FEATURES[:5])(levels)
    assert logits.shape == (2,)
    logits.sum().backward()
    assert levels[0].grad is None
    assert all(level.grad is not None and level.grad.abs().sum() > 0 for level in levels[1:])


def test_a_reversed_gradient_is_the_negative_one():
    x = torch.randn(5, requires_grad=True)
    reverse_gradient(x, 0.5).square().sum().backward()
    torch.testing.assert_close(x.grad, -0.5 * 2 * x.detach())


def test_the_encoders_side_of_the_game():
    logits = torch.tensor([2.0, -1.0], requires_grad=True)
    modality = torch.tensor([1, 0])
    minimax = confusion_loss(logits, modality, "minimax")
    torch.testing.assert_close(minimax, -discriminator_loss(logits, modality))
    # Equation 3: log M(CT) + log(1 - M(MR)) with M the probability of the right answer for CT.
    expected = (torch.log(torch.sigmoid(logits[0])) + torch.log(1 - torch.sigmoid(logits[1]))) / 2
    torch.testing.assert_close(minimax, expected)
    undecided = torch.zeros(2, requires_grad=True)
    uniform = confusion_loss(undecided, modality, "uniform")
    uniform.backward()
    assert float(uniform.detach()) == pytest.approx(np.log(2)) and undecided.grad.abs().max() == 0


def test_modalities_count_alike_in_the_game_however_many_cubes_they_have():
    few = np.array([0] + [1] * 9)
    weights = modality_weights(few)
    assert weights.tolist() == pytest.approx([5.0, 10 / 18])
    logits, modality = torch.linspace(-2, 1, 10), torch.from_numpy(few)
    for loss in (discriminator_loss, lambda *a: confusion_loss(*a[:2], "uniform", *a[2:])):
        of_each = [loss(logits[modality == kind], modality[modality == kind]) for kind in (0, 1)]
        torch.testing.assert_close(loss(logits, modality, weights), sum(of_each) / 2)
    assert modality_weights(np.array([0, 1])).tolist() == [1.0, 1.0]


class Cubes:
    """Cubes in memory whose mean intensity tells the modality."""

    def __init__(self, count=32, volumes=4):
        rng = np.random.default_rng(0)
        modality = np.arange(count) % 2
        self.images = rng.random((count, 1, 16, 16, 16), dtype=np.float32) * 0.1
        self.images += 0.5 * modality[:, None, None, None, None].astype(np.float32)
        file = np.arange(count) % volumes
        self.table = np.stack([file, np.arange(count) // volumes, modality * 0, modality], axis=1)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, n):
        return Cube(self.images[n], 0, int(self.table[n, 3]))


def trained(game, weight, steps=40, **changes):
    """A network whose loss is the adversary's alone."""
    options = PretrainingOptions(
        steps=steps,
        batch_size=8,
        learning_rates=(0.02, 0.02, 0.05),
        weights={"restoration": 0.0, "adversary": weight},
        game=game,
        validate_every=steps,
        **changes,
    )
    unet = network()
    task = Restoration(12, 0, GenesisTransforms(0, 0, 0, 0))
    trainer = Pretrainer(unet, task, Cubes(), Cubes(0), options)
    while not trainer.finished:
        trainer.step()
    return trainer


@pytest.mark.parametrize(
    "task",
    [
        Restoration(12, 3),
        Rotation(12),
        PatchLocation(12, (16, 16, 16)),
        Jigsaw(12, (16, 16, 16)),
        ContrastivePrediction(12, (16, 16, 16)),
    ],
    ids=lambda task: type(task).__name__,
)
def test_a_validation_renews_batch_norms_statistics_with_the_weights_as_they_are(task):
    unet = network()
    statistics = {n: v for n, v in unet.named_buffers() if n.endswith("running_var")}
    for value in statistics.values():
        value.fill_(1e6)  # one training step would leave nine tenths of it
    options = PretrainingOptions(
        steps=1, batch_size=4, optimizer="adam", learning_rates=(1e-3, 1e-3, 1e-3), game=None
    )
    trainer = Pretrainer(unet, task, Cubes(), Cubes(8), options)
    trainer.step()
    assert trainer.finished
    for name, value in statistics.items():
        assert value.max() < 1e3, name
        assert torch.equal(trainer.best[name], value)


@pytest.mark.parametrize(
    ("game", "objective"),
    [
        ("alternating", "minimax"),
        ("alternating", "uniform"),
        ("gradient-reversal", "minimax"),
    ],
)
def test_the_discriminator_learns_and_the_encoder_hinders_it(game, objective):
    alone = trained(game, 0.0, objective=objective)
    assert alone.state.history[-1]["train discriminator accuracy"] > 0.8
    played = trained(game, 5.0, objective=objective)
    loss = [t.state.history[-1]["train discriminator"] for t in (alone, played)]
    assert loss[1] > 1.25 * loss[0]


def test_the_discriminators_turns_can_be_several():
    once = trained("alternating", 0.0, steps=10).state.history[-1]["train discriminator"]
    more = trained("alternating", 0.0, steps=10, discriminator_steps=5)
    assert more.state.history[-1]["train discriminator"] < once


def test_rates_fall_along_a_cosine_where_asked():
    options = PretrainingOptions(
        steps=4, batch_size=8, learning_rates=(0.4, 0.2, 0.1), schedule="cosine", validate_every=99
    )
    task = Restoration(12, 3, GenesisTransforms(0, 0, 0, 0))
    trainer = Pretrainer(network(), task, Cubes(), Cubes(0), options)
    rates = []
    while not trainer.finished:
        trainer.step()
        rates.append(
            [g["lr"] for optimizer in trainer.optimizers.values() for g in optimizer.param_groups]
        )
    shares = [1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]
    assert np.allclose(rates, np.outer(shares, [0.4, 0.2, 0.1]))


def test_without_a_weight_neither_game_moves_the_encoder():
    for game in ("alternating", "gradient-reversal"):
        trainer = trained(game, 0.0, steps=2)
        for (name, value), begun in zip(
            trainer.network.named_parameters(), network().parameters(), strict=True
        ):
            assert torch.equal(value, begun), name


def test_the_probe_finds_what_is_in_the_features_and_nothing_else():
    found = modality_probe(network(), Cubes())
    assert found.accuracy > 0.95 and found.auc > 0.95 and found.cubes == 32
    noise = Cubes(64, volumes=8)
    noise.images = np.random.default_rng(1).random(noise.images.shape, dtype=np.float32)
    assert modality_probe(network(), noise).accuracy == pytest.approx(0.5, abs=0.25)
    one_scanner = Cubes(32, volumes=2)  # one volume a modality: places are held out instead
    assert modality_probe(network(), one_scanner).accuracy > 0.95


def test_the_probe_needs_both_modalities():
    cubes = Cubes(8)
    cubes.table[:, 3] = 0
    with pytest.raises(TomoSegError) as caught:
        modality_probe(network(), cubes)
    assert caught.value.code == "probe-one-modality"


def test_reduced_precision_is_chosen_for_gpus_alone():
    assert chosen_precision("auto", torch.device("cpu")) == "float32"
    assert chosen_precision("bfloat16", torch.device("cpu")) == "bfloat16"
