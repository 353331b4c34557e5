"""Fine-tuning 2D networks on stacks, from pre-training on planes to masks on the stack's grid."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.foreground import foreground_mask
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.preprocessing import prepare, sample_on, slices_grid
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Preprocessing
from TomoSegLib.models.segmenter import load_segmenter
from TomoSegLib.models.store import find_model
from TomoSegLib.networks.imagenet import PACKAGE, imagenet_unet
from TomoSegLib.networks.unet2d import ResNetUNet2D, UNet2D
from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.weights import save_pretrained
from TomoSegLib.segmentation.inference import predict
from TomoSegLib.segmentation.labelmap import to_source
from TomoSegLib.training.finetune import finetune
from TomoSegLib.training.segmentation_manifest import parse_labels
from TomoSegLib.training.segmentation_plan import Finetuning, make_plan
from TomoSegLib.training.segmentation_trainer import FinetuningOptions

FEATURES = (4, 4, 4, 8, 8, 4)
LABELS = parse_labels("LV=1,MYO=2,RV=3")
# A slice turned about two axes: nothing runs along an axis of the patient.
ANGLES = np.deg2rad([35.0, -50.0])
TURN = np.array(
    [
        [np.cos(ANGLES[0]), -np.sin(ANGLES[0]), 0],
        [np.sin(ANGLES[0]), np.cos(ANGLES[0]), 0],
        [0, 0, 1],
    ]
) @ np.array(
    [
        [1, 0, 0],
        [0, np.cos(ANGLES[1]), -np.sin(ANGLES[1])],
        [0, np.sin(ANGLES[1]), np.cos(ANGLES[1])],
    ]
)


def grid(slices):
    return Geometry.from_parts((slices, 32, 36), (1.5, 1.5, 9.0), TURN, (12, -40, 7))


def stack(seed, slices):
    """A bright disc (1) in a dark ring (2), and a grey box (3) beside it; noise."""
    rng = np.random.default_rng(seed)
    j, i = np.mgrid[:32, :36]
    label = np.zeros((slices, 32, 36), np.uint8)
    for k in range(slices):
        radius = np.hypot(j - 15 - rng.uniform(-2, 2), i - 22 - rng.uniform(-2, 2))
        label[k][(abs(j - 15) < 7) & (i > 4) & (i < 14)] = 3
        label[k][radius < 9] = 2
        label[k][radius < 6] = 1
    levels = np.array([3.0, 9.0, 1.0, 6.0], np.float32)[label]
    return (levels + rng.normal(0, 0.2, label.shape)).astype(np.float32), label


def write_cases(folder, slices=(3, 3, 1, 4), splits=("train", "train", "val", "test")):
    rows = [["image", "label", "split", "modality"]]
    for number, (count, split) in enumerate(zip(slices, splits, strict=True)):
        image, label = stack(number, count)
        write_volume(Volume(image, grid(count)), folder / f"{number}.nii.gz")
        write_volume(Volume(label, grid(count)), folder / f"{number}-label.nii.gz")
        rows.append([f"{number}.nii.gz", f"{number}-label.nii.gz", split, "MR"])
    with (folder / "cases.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    return folder / "cases.csv"


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
    options = FinetuningOptions(
        steps=changes.pop("steps", 60),
        patch=(1, 32, 32),
        loss="dice-ce",
        learning_rate=0.01,
        last_layer_factor=1.0,
        validate_every=20,
        flips=(),
    )
    return Finetuning(manifest, output, LABELS, options=options, **changes)


@pytest.fixture(scope="module")
def model(cases, planes, tmp_path_factory):
    return finetune(asked(cases, tmp_path_factory.mktemp("run"), start=str(planes)))


def test_a_stack_of_oblique_slices_keeps_its_slices_and_changes_its_pixels():
    image, _ = stack(0, 5)
    volume = Volume(image, grid(5))
    found = slices_grid(volume.geometry, foreground_mask(volume, "none"), 1.26)
    np.testing.assert_allclose(found.spacing, (1.26, 1.26, 9.0))
    cosines = np.abs(found.direction.T @ volume.geometry.direction)  # the same axes, in some order
    np.testing.assert_allclose(np.sort(cosines, axis=None), [0] * 6 + [1] * 3, atol=1e-9)
    # Each plane lies in a slice: the index across is the same for every point of it.
    for k in range(5):
        points = found.index_to_lps(np.array([[0, 0, k], [11, 5, k]], float))
        np.testing.assert_allclose(volume.geometry.lps_to_index(points)[:, 2], k, atol=1e-6)


def test_a_stack_is_seen_alike_and_segmented_alike_however_its_file_stores_it(model):
    image, _ = stack(2, 3)
    axes = grid(3).affine
    last_i, last_j = axes[:3, 0] * (image.shape[2] - 1), axes[:3, 1] * (image.shape[1] - 1)

    def stored(array, columns, rows, origin):
        affine = axes.copy()
        affine[:3, 0], affine[:3, 1], affine[:3, 3] = columns, rows, origin
        return Volume(np.ascontiguousarray(array), Geometry(array.shape, affine))

    columns, rows, origin = axes[:3, 0], axes[:3, 1], axes[:3, 3]
    turned = image.transpose(0, 2, 1)
    ways = [
        stored(image, columns, rows, origin),
        stored(image[:, :, ::-1], -columns, rows, origin + last_i),
        stored(image[:, ::-1], columns, -rows, origin + last_j),
        stored(turned, rows, columns, origin),
        stored(turned[:, ::-1, ::-1], -rows, -columns, origin + last_i + last_j),
    ]
    segmenter = load_segmenter(model)
    seen = [prepare([volume], model.card.preprocessing) for volume in ways]
    masks = []
    for volume, found in zip(ways, seen, strict=True):
        np.testing.assert_allclose(found.image, seen[0].image, atol=1e-3)
        answer = predict(found, segmenter)
        foreground = found.source_foreground
        _, mask = to_source(
            answer.probabilities, found.geometry, found.source, foreground, model.card
        )
        masks.append(sample_on(mask, volume.geometry, grid(3), order=0))
    assert len(np.unique(masks[0])) > 2
    for mask in masks[1:]:
        assert (mask == masks[0]).mean() > 0.999


def test_slices_are_not_mixed_when_pixels_are_resampled():
    image = np.random.default_rng(0).normal(0, 1e-3, (3, 32, 36)).astype(np.float32)
    image += np.array([0, 100, 0], np.float32)[:, None, None]
    spec = Preprocessing(spacing_mm=2.5, foreground="none", in_plane=True)
    spec = spec.model_copy(
        update={"intensity": spec.intensity.model_copy(update={"method": "zscore"})}
    )
    found = prepare([Volume(image, grid(3))], spec).image[0, :, 2:-2, 2:-2]
    assert np.ptp(found[0]) < 0.01 and np.ptp(found[1]) < 0.01
    assert abs(found[0].mean() - found[2].mean()) < 0.01 and found[1].mean() - found[0].mean() > 2


def test_a_pre_training_on_planes_becomes_a_segmenter_of_stacks(model, planes):
    card = model.card
    assert card.preprocessing.in_plane and card.preprocessing.spacing_mm == pytest.approx(1.4)
    assert card.sliding_window.roi_size == (1, 32, 32)
    assert card.network.target.endswith("UNet2D")
    assert "started from Planes" in card.training_data.description
    assert [label.terminology.split("~")[2].split("^")[1] for label in card.labels] == [
        "87878005",
        "74281007",
        "53085002",
    ]
    assert card.metrics["test Dice LV"] > 0.7 and card.metrics["test Dice RV"] > 0.5


def test_run_segments_a_stack_of_one_slice_on_its_own_grid(model, tmp_path):
    slices = 1
    image, label = stack(9, slices)
    write_volume(Volume(image, grid(slices)), tmp_path / "stack.nii.gz")
    command = ["run", str(tmp_path / "stack.nii.gz"), "--model", str(model.path)]
    assert main([*command, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    results = next((tmp_path / "out").rglob("mask.seg.nrrd")).parent
    mask = read_volume(results / "mask.nii.gz", single_slice=True)
    assert mask.geometry.is_close(grid(slices), 1e-3)
    both = int(((mask.array == 1) & (label == 1)).sum())
    assert 2 * both / int((mask.array == 1).sum() + (label == 1).sum()) > 0.7
    header = sitk.ReadImage(str(results / "mask.seg.nrrd"))
    keys = header.GetMetaDataKeys()
    assert {header.GetMetaData(k) for k in keys if k.endswith("_Name")} >= {"LV", "MYO", "RV"}
    probabilities = sitk.ReadImage(str(results / "probabilities.nrrd"))
    assert probabilities.GetSize() == (36, 32, slices)


def test_a_slice_is_segmented_as_it_is_alone_in_its_stack(model):
    from TomoSegLib.models.segmenter import load_segmenter
    from TomoSegLib.segmentation.inference import predict

    image, _ = stack(5, 3)
    scan = prepare([Volume(image, grid(3))], model.card.preprocessing)
    segmenter = load_segmenter(find_model(str(model.path)))
    whole = predict(scan, segmenter).probabilities
    window = torch.from_numpy(scan.image[None, :, 1:2])
    padded = torch.nn.functional.pad(window, (0, 8, 0, 8))[..., :32, :32]
    alone = torch.softmax(segmenter.logits(padded), 1)[0]
    assert whole.shape[1] == 3 and alone.shape == (4, 1, 32, 32)
    # The first window alone decides the first pixels, which no other window reaches.
    np.testing.assert_allclose(whole[:, 1, :2, :2], alone[:, 0, :2, :2].numpy(), atol=1e-4)


def test_a_sequence_is_segmented_frame_by_frame(model, tmp_path):
    frames = np.stack([stack(20 + n, 2)[0] for n in range(3)])
    images = [sitk.GetImageFromArray(frame) for frame in frames]
    for image in images:
        image.SetSpacing((1.5, 1.5, 9.0))
    sitk.WriteImage(sitk.JoinSeries(images), str(tmp_path / "cine.nii.gz"))
    command = ["run", str(tmp_path / "cine.nii.gz"), "--model", str(model.path)]
    assert main([*command, "--output", str(tmp_path / "out"), "--device", "cpu"]) == 0
    mask = sitk.ReadImage(str(tmp_path / "out" / "mask.nii.gz"))
    assert mask.GetSize() == (36, 32, 2, 3) and mask.GetSpacing()[:3] == (1.5, 1.5, 9.0)
    assert len(list((tmp_path / "out" / "segmentations").glob("*.seg.nrrd"))) == 3
    for frame, found in enumerate(sitk.GetArrayFromImage(mask)):
        label = stack(20 + frame, 2)[1]
        both = int(((found == 1) & (label == 1)).sum())
        assert 2 * both / int((found == 1).sum() + (label == 1).sum()) > 0.7


def test_a_stopped_run_goes_on_and_ends_the_same(cases, tmp_path):
    whole = finetune(asked(cases, tmp_path / "whole", steps=4, dimensions=2, features=FEATURES))
    steps = []

    def stop():
        return len(steps) >= 2

    what = asked(cases, tmp_path / "parts", steps=4, dimensions=2, features=FEATURES)
    told = lambda stage, done, total, figures: steps.append(done) if stage == "train" else None  # noqa: E731
    assert finetune(what, told, stop) is None
    parts = finetune(what)
    assert parts.card.files == whole.card.files


def test_weights_of_another_network_are_refused(cases, planes, tmp_path):
    (tmp_path / "volumes").mkdir()
    save_pretrained(tmp_path / "volumes", UNet3D(1, 1, FEATURES).state_dict(), {})
    for start, changes in (
        (tmp_path / "volumes", {"dimensions": 2}),
        (planes, {"encoder": "resnet18"}),
        (planes, {"features": (4, 4, 4, 8, 16, 4)}),
    ):
        with pytest.raises(TomoSegError) as caught:
            finetune(asked(cases, tmp_path / "run", start=str(start), **changes))
        assert caught.value.code == "pretrained-mismatch"


@pytest.mark.parametrize(
    "changes",
    [
        {"start": "imagenet", "encoder": "resnet18"},
        {"start": "imagenet", "dimensions": 3},
        {"encoder": "vgg"},
        {"dimensions": 3, "encoder": "unet"},
    ],
)
def test_options_that_contradict_each_other_are_refused(cases, tmp_path, changes):
    with pytest.raises(TomoSegError) as caught:
        make_plan(asked(cases, tmp_path, **changes))
    assert caught.value.code == "finetuning-options"


def test_a_resnet_starts_from_its_encoder_alone(cases, tmp_path):
    torch.manual_seed(1)
    source = ResNetUNet2D(1, 1, "resnet10")
    weights = {n: w for n, w in source.state_dict().items() if n.startswith("encoder.")}
    record = {"network": {"backbone": "resnet10"}, "planes": {"spacing_mm": 1.26}}
    (tmp_path / "resnet").mkdir()
    save_pretrained(tmp_path / "resnet", weights, record)
    plan = make_plan(asked(cases, tmp_path / "run", start=str(tmp_path / "resnet")))
    network = plan.network()
    assert isinstance(network, ResNetUNet2D) and plan.encoder == "resnet10"
    assert all(torch.equal(network.state_dict()[n], w) for n, w in weights.items())


def test_imagenet_is_a_start_with_its_own_encoder(cases, tmp_path):
    pytest.importorskip(PACKAGE)
    plan = make_plan(asked(cases, tmp_path, start="imagenet"))
    found, expected = plan.network().state_dict(), imagenet_unet().state_dict()
    names = [name for name in expected if name.startswith("encoder.")]
    assert names and all(torch.equal(found[name], expected[name]) for name in names)
    assert plan.identity()["start"] == "imagenet" and plan.encoder == "efficientnet-lite0"


def test_a_label_on_another_grid_is_refused(tmp_path, capsys):
    manifest = write_cases(tmp_path)
    moved = Geometry.from_parts((3, 32, 36), (1.5, 1.5, 9.0), TURN, (12, -40, 12))
    write_volume(Volume(stack(0, 3)[1], moved), tmp_path / "0-label.nii.gz")
    command = ["finetune", "--dimensions", "2", "--manifest", str(manifest), "--patch", "32x32x1"]
    options = ["--labels", "LV=1", "--features", "4,4,4,8,8,4", "--steps", "1", "--device", "cpu"]
    assert main([*command, *options, "--output", str(tmp_path / "run")]) != 0
    assert "label-geometry" in capsys.readouterr().err


def test_the_record_says_which_encoder_it_was(model):
    record = json.loads((model.path.parent / "finetuning.json").read_text())
    assert record["encoder"] == "unet" and record["options"]["patch"] == [1, 32, 32]
