"""Runs with a segmenter: what they write, on any grid, and how they refuse.

The network is a single convolution with weights set by hand: it takes what is brighter than half
of the intensity window.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK as sitk
import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.itk import geometry_of
from TomoSegLib.imaging.segmentation import read_segmentation
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.document import RunJob, parse_job
from TomoSegLib.jobs.events import ErrorEvent, Event, ProgressEvent, ResultEvent, WarningEvent
from TomoSegLib.jobs.inputs import read_inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import SegmentationResult, read_result, repeated
from TomoSegLib.jobs.segment import segment
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.folder import save_model

OUTPUTS = {"probabilities.nrrd", "mask.seg.nrrd", "mask.nii.gz", "overlay.png"}
TERMINOLOGY = "A list~SCT^49755003^Morphologically Altered Structure~SCT^4147007^Mass~^^~~^^~^^"


def make_model(
    folder: Path, *, channels: int = 1, values: tuple[int, ...] = (3,), **changes: Any
) -> Path:
    """A segmenter: structure n is where channel n is bright, on a grid of 1.5 mm."""
    fields = tiny_blob.card_fields()
    for name in ("slices", "method", "methods"):
        del fields[name]
    outputs = 1 + len(values)
    fields |= {
        "name": "tiny-segmenter",
        "title": "Bright parts (test model)",
        "task": "segmentation",
        "channels": [{"name": f"channel-{n}"} for n in range(channels)],
        "labels": [
            {
                "name": f"part {value}",
                "value": value,
                "color": [0.1, 0.2, value / 10],
                "terminology": TERMINOLOGY,
            }
            for value in values
        ],
        "preprocessing": {
            "spacing_mm": 1.5,
            "orientation": "RAS",
            "intensity": {"method": "window", "lower": 0, "upper": 100},
            "foreground": "none",
        },
        "network": {
            "target": "torch.nn.Conv3d",
            "arguments": {"in_channels": channels, "out_channels": outputs, "kernel_size": 1},
        },
        "sliding_window": {"roi_size": [8, 8, 8], "overlap": 0.25},
    } | changes
    weight, bias = torch.zeros(outputs, channels, 1, 1, 1), torch.zeros(outputs)
    for n in range(len(values)):
        weight[n + 1, n % channels], bias[n + 1] = 40.0, -20.0
    save_model(folder, fields, {"weight": weight, "bias": bias})
    return folder


def bright_part(
    geometry: Geometry, center: npt.NDArray[np.float64] | None = None, radius_mm: float = 0.0
) -> tuple[Volume, npt.NDArray[np.float64]]:
    """A soft-edged ellipsoid, and how far inside of its border each voxel is, about, in mm.

    By default it lies off the grid's centre and is as large as the grid allows.
    """
    extent = float(min(np.array(geometry.size) * geometry.spacing))
    if center is None:
        center = geometry.center + extent * np.array([0.1, -0.06, 0.13])
    k, j, i = np.indices(geometry.shape)
    points = (geometry.index_to_lps(np.stack([i, j, k], axis=-1)) - center) / [1, 0.8, 0.9]
    distance = (radius_mm or 0.3 * extent) - np.linalg.norm(points, axis=-1)
    array = 50 + np.clip(distance * 10, -50, 50)  # 10 mm from dark to bright: no aliasing
    return Volume(array.astype(np.float32), geometry, "scan"), distance


OBLIQUE = Geometry.from_parts(
    (12, 26, 24),
    (1.1, 0.9, 2.5),
    [[0.8, -0.6, 0.0], [0.48, 0.64, -0.6], [0.36, 0.48, 0.8]],
    (-31.5, 12.25, 40.0),
)


def compute(output: Path, model: Path, **document: Any) -> tuple[SegmentationResult, list[Event]]:
    """A run in this process."""
    output.mkdir()
    events: list[Event] = []
    job = parse_job({"kind": "run", "model": str(model), "output": str(output), **document})
    assert isinstance(job, RunJob)
    report = Reporter(events.append)
    segment(read_inputs(job, report), output, report)
    result = read_result(output)
    assert isinstance(result, SegmentationResult)
    return result, events


def labels_of(folder: Path) -> npt.NDArray[np.uint8]:
    array = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "mask.nii.gz")))
    assert array.dtype == np.uint8
    return array


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny-segmenter")


def test_the_labels_are_right_on_the_scans_own_grid_whatever_it_is(
    any_geometry: Geometry, model: Path, tmp_path: Path
) -> None:
    volume, distance = bright_part(any_geometry)
    write_volume(volume, tmp_path / "scan ü.nrrd")
    result, _ = compute(tmp_path / "out", model, input=str(tmp_path / "scan ü.nrrd"))
    mask, labels = read_segmentation(tmp_path / "out" / "mask.seg.nrrd")
    found = labels_of(tmp_path / "out")
    assert mask.geometry.is_close(any_geometry) and np.array_equal(mask.array, found)
    assert set(np.unique(found)) == {0, 3}
    wrong = (found == 3) != (distance > 0)
    # Only voxels at the border may differ, by less than half the size of the model's voxels.
    assert np.abs(distance[wrong]).max(initial=0) < 0.75
    assert [(label.name, label.value, label.terminology) for label in labels] == [
        ("part 3", 3, TERMINOLOGY)
    ]
    shares = read_volume(tmp_path / "out" / "probabilities.nrrd")
    assert shares.geometry.is_close(any_geometry) and shares.array.dtype == np.float32
    assert np.array_equal(shares.array > 0.5, found == 3)
    part = result.segments[0].parts[0]
    assert found[part.ijk[::-1]] == 3
    np.testing.assert_allclose(any_geometry.index_to_lps(part.ijk), part.lps_mm, atol=1e-3)


def test_the_record_says_what_was_done(model: Path, tmp_path: Path) -> None:
    volume, _ = bright_part(OBLIQUE)
    write_volume(volume, tmp_path / "scan.nii.gz")
    result, events = compute(tmp_path / "out", model, input=str(tmp_path / "scan.nii.gz"))
    assert {path.name for path in (tmp_path / "out").iterdir()} == OUTPUTS | {"result.json"}
    assert result.task == "segmentation" and result.job.method is None
    assert result.settings.outputs == [0, 3] and result.settings.roi_size == (8, 8, 8)
    assert result.model.simulated and result.environment.device == "cpu"
    assert set(result.files) == OUTPUTS
    assert {"read", "prepare", "segment", "mask", "write", "segment.network"} <= set(
        result.timings_s
    )
    found = labels_of(tmp_path / "out")
    segment_ = result.segments[0]
    assert segment_.voxels == np.count_nonzero(found) and segment_.components == 1
    assert segment_.volume_ml == pytest.approx(segment_.voxels * OBLIQUE.voxel_volume_ml)
    assert segment_.parts[0].volume_ml == pytest.approx(segment_.volume_ml)
    assert 0.5 < segment_.parts[0].probability <= 1
    progress = [e for e in events if isinstance(e, ProgressEvent) and e.stage == "segment"]
    assert progress[-1].done == progress[-1].total == result.windows > 1


def test_several_channels_on_different_grids_make_several_structures(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", channels=2, values=(7, 2))
    centers = OBLIQUE.center + [[6, 1, 0], [-7, 2, 0]]
    other_grid = Geometry.from_parts((30, 28, 26), (1.3, 1.2, 1.4), origin=centers[1] - 18)
    write_volume(bright_part(OBLIQUE, centers[0], 7)[0], tmp_path / "first.nrrd")
    write_volume(bright_part(other_grid, centers[1], 6)[0], tmp_path / "second.nii.gz")
    result, _ = compute(
        tmp_path / "out",
        model,
        input=str(tmp_path / "first.nrrd"),
        channels={"channel-1": str(tmp_path / "second.nii.gz")},
    )
    found = labels_of(tmp_path / "out")
    first = bright_part(OBLIQUE, centers[0], 7)[1]
    second = bright_part(OBLIQUE, centers[1], 6)[1]
    assert (found[(first > 1) & (second < -1)] == 7).all()
    assert (found[(first < -1) & (second > 1)] == 2).all()
    assert not found[(first < -1) & (second < -1)].any()
    assert (first > 1).sum() > 50 and (second > 1).sum() > 50
    assert [(s.value, s.voxels) for s in result.segments] == [
        (7, int((found == 7).sum())),
        (2, int((found == 2).sum())),
    ]
    image = sitk.ReadImage(str(tmp_path / "out" / "probabilities.nrrd"))
    assert image.GetNumberOfComponentsPerPixel() == 2 and geometry_of(image).is_close(OBLIQUE)
    assert image.GetMetaData("TomoSeg_Label0") == "7 part 7"
    assert list(result.inputs) == ["channel-0", "channel-1"]


def test_a_region_of_interest_has_the_labels_of_the_whole(model: Path, tmp_path: Path) -> None:
    volume, _ = bright_part(OBLIQUE)
    write_volume(volume, tmp_path / "scan.nrrd")
    region = {"start": [8, 7, 4], "stop": [14, 13, 7]}
    path = str(tmp_path / "scan.nrrd")
    whole, _ = compute(tmp_path / "whole", model, input=path)
    part, _ = compute(tmp_path / "part", model, input=path, region=region)
    inside = np.zeros(OBLIQUE.shape, dtype=np.bool_)
    inside[4:7, 7:13, 8:14] = True
    of_whole, of_part = labels_of(tmp_path / "whole"), labels_of(tmp_path / "part")
    assert of_whole[inside].any() and of_whole[~inside].any()
    assert np.array_equal(of_part, np.where(inside, of_whole, 0))
    assert 0 < part.windows < whole.windows


def test_only_the_foreground_is_segmented(model: Path, tmp_path: Path) -> None:
    volume, _ = bright_part(OBLIQUE)
    mask = np.zeros(OBLIQUE.shape, np.uint8)
    mask[:, 13:, :] = 1
    write_volume(volume, tmp_path / "scan.nrrd")
    write_volume(Volume(mask, OBLIQUE), tmp_path / "mask.nrrd")
    arguments = {"input": str(tmp_path / "scan.nrrd"), "foreground": str(tmp_path / "mask.nrrd")}
    compute(tmp_path / "out", model, **arguments)
    found = labels_of(tmp_path / "out")
    assert found[:, 13:].any() and not found[:, :13].any()


def test_small_parts_can_be_dropped(model: Path, tmp_path: Path) -> None:
    volume, _ = bright_part(OBLIQUE)
    array = np.array(volume.array)
    array[1:3, 1:3, 1:4] = 100
    write_volume(volume.with_array(array), tmp_path / "scan.nrrd")
    path = str(tmp_path / "scan.nrrd")
    everything, _ = compute(tmp_path / "all", model, input=path)
    largest, _ = compute(tmp_path / "largest", model, input=path, components="largest")
    large, _ = compute(tmp_path / "large", model, input=path, minimum_size_ml=0.2)
    assert [r.segments[0].components for r in (everything, largest, large)] == [2, 1, 1]
    assert everything.segments[0].parts[0] == largest.segments[0].parts[0]
    assert not labels_of(tmp_path / "large")[1:3, 1:3, 1:4].any()


def test_nothing_found_is_a_result_too(model: Path, tmp_path: Path) -> None:
    dark = np.random.default_rng(0).normal(10, 1, OBLIQUE.shape).astype(np.float32)
    write_volume(Volume(dark, OBLIQUE), tmp_path / "scan.nrrd")
    result, _ = compute(tmp_path / "out", model, input=str(tmp_path / "scan.nrrd"))
    assert not labels_of(tmp_path / "out").any()
    assert result.segments[0].parts == [] and result.segments[0].components == 0
    assert [label.name for label in read_segmentation(tmp_path / "out" / "mask.seg.nrrd")[1]] == [
        "part 3"
    ]


@pytest.mark.parametrize(
    "option",
    [
        {"method": "tonno"},
        {"cam": "cam"},
        {"rectified": False},
        {"directions": "axial"},
        {"filter_order": 1.0},
        {"cutoff": 0.5},
        {"window": "hann"},
        {"threshold": "otsu"},
        {"refine": "random-walker"},
    ],
)
def test_settings_of_heatmaps_are_refused_by_name(
    option: dict[str, Any], model: Path, tmp_path: Path
) -> None:
    with pytest.raises(TomoSegError, match="option-heatmap-only") as caught:
        compute(tmp_path / "out", model, input="nowhere.nrrd", **option)
    assert next(iter(option)).replace("_", " ") in caught.value.message
    assert "tiny-segmenter" in caught.value.message


def hashes(folder: Path) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sorted(OUTPUTS)
    }


def tomoseg(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "TomoSegLib.cli", *map(str, arguments)],
        capture_output=True,
        encoding="utf-8",
        timeout=120,
    )


def test_the_command_line_and_a_repetition_through_the_door_give_the_same_bytes(
    model: Path, tmp_path: Path
) -> None:
    place = tmp_path / "mit Leerzeichen é"
    place.mkdir()
    write_volume(bright_part(OBLIQUE)[0], place / "scan.nii.gz")
    done = tomoseg(
        "run", place / "scan.nii.gz", "--model", model, "--output", place / "cli", "--threads", "1"
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "segment     part 3: " in done.stdout and "simulated data" in done.stdout
    first = read_result(place / "cli")
    assert hashes(place / "cli") == first.files
    again = run_job(repeated(first, place / "again").model_dump(mode="json"))
    assert isinstance(again, ResultEvent), again
    assert hashes(place / "again") == hashes(place / "cli")
    assert sorted(path.name for path in place.iterdir()) == ["again", "cli", "scan.nii.gz"]


def test_a_segmentation_takes_the_place_of_a_heatmap_only_when_told(
    model: Path, tmp_path: Path
) -> None:
    write_volume(bright_part(OBLIQUE)[0], tmp_path / "scan.nrrd")
    job = {"kind": "run", "input": str(tmp_path / "scan.nrrd"), "output": str(tmp_path / "out")}
    (tmp_path / "out").mkdir()
    for name in ("heatmap.nrrd", "agreement.nrrd", "mask.nii.gz", "notes.txt"):
        (tmp_path / "out" / name).write_text("of another run")
    refused = run_job({**job, "model": str(model)})
    assert isinstance(refused, ErrorEvent) and refused.code == "output-exists"
    assert isinstance(run_job({**job, "model": str(model), "overwrite": True}), ResultEvent)
    kept = {path.name for path in (tmp_path / "out").iterdir()}
    assert kept == OUTPUTS | {"result.json", "notes.txt"}


def test_results_from_before_there_were_segmenters_are_read_as_heatmaps(tmp_path: Path) -> None:
    with pytest.raises(TomoSegError) as caught:
        (tmp_path / "result.json").write_text('{"schema_version": 1}')
        read_result(tmp_path)
    assert caught.value.code == "result-invalid" and "heatmap" in caught.value.message
    (tmp_path / "result.json").write_text('{"task": "magic"}')
    with pytest.raises(TomoSegError, match="result-invalid"):
        read_result(tmp_path)


def spoil(folder: Path, what: str) -> Path:
    """A model with something wrong, whose card and hashes are right all the same."""
    weight, bias = torch.zeros(2, 1, 1, 1, 1), torch.zeros(2)
    card = json.loads((make_model(folder) / "card.json").read_text())
    if what == "outputs":
        card["network"]["arguments"]["out_channels"] = 3
        weight, bias = torch.zeros(3, 1, 1, 1, 1), torch.zeros(3)
    elif what == "channels":
        card["channels"].append({"name": "another"})
    elif what == "shapes":
        weight = torch.zeros(2, 1, 3, 3, 3)
    elif what == "encoder":
        card["network"] = tiny_blob.card_fields()["network"]
        content = (
            tiny_blob.build(folder.with_name("blob")).path / "weights.safetensors"
        ).read_bytes()
    if what != "encoder":
        from safetensors.torch import save

        content = save({"weight": weight, "bias": bias})
    (folder / "weights.safetensors").write_bytes(content)
    card["files"]["weights.safetensors"] = hashlib.sha256(content).hexdigest()
    (folder / "card.json").write_text(json.dumps(card))
    return folder


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("outputs", "model-network-invalid"),
        ("shapes", "model-weights-mismatch"),
        ("encoder", "model-network-invalid"),
    ],
)
def test_weights_that_do_not_fit_the_card_are_refused(what: str, code: str, tmp_path: Path) -> None:
    folder = spoil(tmp_path / "model", what)
    write_volume(bright_part(OBLIQUE)[0], tmp_path / "scan.nrrd")
    with pytest.raises(TomoSegError) as caught:
        compute(tmp_path / "out", folder, input=str(tmp_path / "scan.nrrd"))
    assert caught.value.code == code and "\n" not in str(caught.value)


def test_a_channel_that_is_missing_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "model", channels=2)
    with pytest.raises(TomoSegError, match="channel-missing"):
        compute(tmp_path / "out", folder, input="nowhere.nrrd")


def test_the_warning_about_memory_is_in_the_record(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = torch.nn.Conv3d.forward

    def forward(self: torch.nn.Conv3d, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise MemoryError
        return original(self, x)

    monkeypatch.setattr(torch.nn.Conv3d, "forward", forward)
    write_volume(bright_part(OBLIQUE)[0], tmp_path / "scan.nrrd")
    result, events = compute(
        tmp_path / "out", model, input=str(tmp_path / "scan.nrrd"), batch_size=2
    )
    assert [note.code for note in result.warnings] == ["memory-batch-halved"]
    assert [e.code for e in events if isinstance(e, WarningEvent)] == ["memory-batch-halved"]
    assert result.environment.batch_size == 1 and labels_of(tmp_path / "out").any()
