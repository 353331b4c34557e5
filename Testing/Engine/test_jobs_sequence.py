"""Runs on sequences: every frame as a volume of its own would be, and sequences out."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import open_sequence, read_volume, read_volume_or_sequence, write_volume
from TomoSegLib.imaging.segmentation import read_segmentation
from TomoSegLib.imaging.sequence import FrameIndex
from TomoSegLib.imaging.sequence_nifti import NiftiSequenceWriter
from TomoSegLib.imaging.sequence_nrrd import SequenceWriter
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.batch import run_batch
from TomoSegLib.jobs.computation import computation
from TomoSegLib.jobs.document import BatchJob, RunJob, parse_job
from TomoSegLib.jobs.events import Event, ProgressEvent
from TomoSegLib.jobs.inputs import read_inputs
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import (
    RunSequenceResult,
    SegmentationSequenceResult,
    read_result,
)
from TomoSegLib.jobs.worker import describe_failure
from TomoSegLib.models import loading, tiny_blob
from TomoSegLib.models.folder import save_model

GRID = Geometry.from_parts((14, 16, 18), (2.0, 2.0, 2.5), np.diag([-1, -1, 1]), (10.0, 5.0, -3.0))
INDEX = FrameIndex("time", "ms", ("0", "40", "95"))
SETTINGS: dict[str, Any] = {"model": "tiny-blob", "directions": "orthogonal", "device": "cpu"}


def blobs(*places: int) -> list[np.ndarray]:
    """Noise with a bright ball that wanders along i."""
    k, j, i = np.indices(GRID.shape)
    noise = np.random.default_rng(0).integers(20, 30, GRID.shape)
    return [
        np.where((k - 7) ** 2 + (j - 8) ** 2 + (i - p) ** 2 <= 9, 100, noise).astype(np.int16)
        for p in places
    ]


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three frames, and each as a volume of its own."""
    folder = tmp_path_factory.mktemp("scan")
    with SequenceWriter(folder / "scan.seq.nrrd", GRID, INDEX, np.int16) as writer:
        for number, array in enumerate(blobs(6, 9, 12)):
            writer.append(array)
            write_volume(Volume(array, GRID), folder / f"{number}.nrrd")
    return folder / "scan.seq.nrrd"


def make_model(folder: Path, values: tuple[int, ...] = (3,)) -> Path:
    """A segmenter of one convolution: every structure is where the image is bright."""
    fields = tiny_blob.card_fields()
    for name in ("slices", "method", "methods"):
        del fields[name]
    fields |= {
        "name": "tiny-segmenter",
        "title": "Bright parts (test model)",
        "task": "segmentation",
        "labels": [{"name": f"part {value}", "value": value} for value in values],
        "preprocessing": {
            "spacing_mm": 2.0,
            "orientation": "RAS",
            "intensity": {"method": "window", "lower": 0, "upper": 100},
            "foreground": "none",
        },
        "network": {
            "target": "torch.nn.Conv3d",
            "arguments": {"in_channels": 1, "out_channels": 1 + len(values), "kernel_size": 1},
        },
        "sliding_window": {"roi_size": [8, 8, 8], "overlap": 0.25},
    }
    weight = torch.tensor([0.0, *(40.0 + n for n in range(len(values)))]).reshape(-1, 1, 1, 1, 1)
    bias = torch.tensor([0.0, *(-20.0 - n for n in range(len(values)))])
    save_model(folder, fields, {"weight": weight, "bias": bias})
    return folder


def save_image(path: Path, place: float, value: int, trigger: float | None = None) -> None:
    """One axial MR image at a place; its pixels begin at a thousand times the value."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    # Copies have the same.
    meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=[str(place), str(value)])
    item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    item.SeriesInstanceUID, item.FrameOfReferenceUID = "1.2.3", "1.2.4"
    item.PatientID, item.Modality = "A1", "MR"
    item.Rows, item.Columns = 12, 10
    item.SamplesPerPixel, item.PhotometricInterpretation = 1, "MONOCHROME2"
    item.BitsAllocated = item.BitsStored = 16
    item.HighBit, item.PixelRepresentation = 15, 0
    item.ImagePositionPatient = ["0", "0", str(place)]
    item.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    item.PixelSpacing = ["1.5", "1.5"]
    if trigger is not None:
        item.TriggerTime = str(trigger)
    item.PixelData = (np.arange(120) + 1000 * value).astype("<u2").tobytes()
    item.save_as(path, enforce_file_format=True)


def run(output: Path, events: list[Event] | None = None, **document: Any) -> Path:
    """Do the job in this process."""
    job = parse_job({"kind": "run", "output": str(output), **SETTINGS, **document})
    assert isinstance(job, RunJob)
    report = Reporter((events if events is not None else []).append)
    inputs = read_inputs(job, report)
    output.mkdir()
    computation(inputs)(inputs, output, report)
    return output


@pytest.fixture(scope="module")
def finished(scan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("heatmaps") / "out"
    return run(output, input=str(scan), refine="random-walker")


def code(call: Any) -> str:
    with pytest.raises(TomoSegError) as raised:
        call()
    assert raised.value.hint
    return raised.value.code


def test_every_frame_is_what_a_run_on_it_alone_gives(
    scan: Path, finished: Path, tmp_path: Path
) -> None:
    heatmaps = open_sequence(finished / "heatmap.seq.nrrd")
    agreements = open_sequence(finished / "agreement.seq.nrrd")
    assert heatmaps is not None and agreements is not None
    assert heatmaps.index == agreements.index == INDEX
    assert heatmaps.geometry.is_close(GRID)
    masks = nibabel.load(finished / "mask.nii.gz")
    result = read_result(finished)
    assert isinstance(result, RunSequenceResult)
    for number in range(3):
        frame = str(scan.with_name(f"{number}.nrrd"))
        alone = run(tmp_path / str(number), input=frame, refine="random-walker")
        heatmap, agreement = next(heatmaps.frames([number])), next(agreements.frames([number]))
        np.testing.assert_array_equal(heatmap.array, read_volume(alone / "heatmap.nrrd").array)
        np.testing.assert_array_equal(agreement.array, read_volume(alone / "agreement.nrrd").array)
        mask, labels = read_segmentation(alone / "mask.seg.nrrd")
        assert mask.array.any()
        np.testing.assert_array_equal(np.asarray(masks.dataobj)[..., number].T, mask.array)
        segment, same = read_segmentation(finished / f"segmentations/frame-000{number}.seg.nrrd")
        np.testing.assert_array_equal(segment.array, mask.array)
        assert same == labels
        single = read_result(alone)
        assert (result.frames[number].number, result.frames[number].value) == (
            number,
            INDEX.values[number],
        )
        assert result.frames[number].mask == single.mask
        assert result.frames[number].heatmap == single.heatmap


def test_the_record_names_every_file_with_its_hash(finished: Path) -> None:
    result = read_result(finished)
    there = {p.relative_to(finished).as_posix() for p in finished.rglob("*") if p.is_file()}
    assert set(result.files) == there - {"result.json"}
    assert "segmentations/frame-0002.seg.nrrd" in there and "overlay.png" in there
    assert result.inputs["image"].frames == 3
    assert result.job.frames == "0:3"


def test_the_network_is_loaded_once_and_progress_goes_over_frames(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from TomoSegLib.jobs import run as module

    loaded: list[str] = []

    def load(*arguments: Any) -> Any:
        loaded.append("encoder")
        return loading.load_encoder(*arguments)

    monkeypatch.setattr(module, "load_encoder", load)
    events: list[Event] = []
    run(tmp_path / "out", events, input=str(scan))
    assert loaded == ["encoder"]
    progress = [event for event in events if isinstance(event, ProgressEvent)]
    assert {event.stage for event in progress} == {"read", "frames", "write"}
    done = [event.done for event in progress if event.stage == "frames"]
    assert done == sorted(done) and done[-1] == 3
    assert {event.total for event in progress if event.stage == "frames"} == {3}


@pytest.mark.parametrize("short", [False, True])
def test_only_where_memory_was_short_the_next_frame_begins_smaller(
    scan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: bool
) -> None:
    from TomoSegLib.jobs import run as module

    real, sizes = module.find, []

    def find(inputs: Any, report: Reporter) -> Any:
        sizes.append(inputs.job.batch_size)
        if short and len(sizes) == 1:
            report.warn("memory-batch-halved", "Memory does not suffice.")
        return dataclasses.replace(
            found := real(inputs, report), found=dataclasses.replace(found.found, batch_size=5)
        )

    monkeypatch.setattr(module, "find", find)
    result = read_result(run(tmp_path / "out", input=str(scan), batch_size=9))
    assert sizes == ([9, 5, 5] if short else [9, 9, 9])
    assert [note.code for note in result.warnings] == ["memory-batch-halved"] * short


def test_chosen_frames_keep_their_numbers_and_times(scan: Path, tmp_path: Path) -> None:
    result = read_result(run(tmp_path / "out", input=str(scan), frames="1:"))
    assert [(frame.number, frame.value) for frame in result.frames] == [(1, "40"), (2, "95")]
    assert result.job.frames == "1:3"
    heatmaps = open_sequence(tmp_path / "out" / "heatmap.seq.nrrd")
    assert heatmaps is not None and heatmaps.index.values == ("40", "95")


def test_a_segmenter_gives_probabilities_of_each_frame(scan: Path, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", values=(3, 5))
    document = {"input": str(scan), "model": str(model), "directions": None}
    output = run(tmp_path / "out", **document)
    result = read_result(output)
    assert isinstance(result, SegmentationSequenceResult)
    assert [len(frame.segments) for frame in result.frames] == [2, 2, 2]
    alone = run(tmp_path / "alone", **document | {"input": str(scan.with_name("1.nrrd"))})
    assert result.frames[1].segments == read_result(alone).segments
    import SimpleITK as sitk

    # One component a label, the fastest axis; the list of frames is the slowest.
    header = (output / "probabilities.seq.nrrd").read_bytes().split(b"\n\n")[0].decode()
    assert "sizes: 2 18 16 14 3" in header and "vector domain domain domain list" in header
    assert "TomoSeg_Label1:=5 part 5" in header
    import gzip

    raw = (output / "probabilities.seq.nrrd").read_bytes().split(b"\n\n", 1)[1]
    values = np.frombuffer(gzip.decompress(raw), np.float32).reshape(3, *GRID.shape, 2)
    expected = sitk.GetArrayFromImage(sitk.ReadImage(str(alone / "probabilities.nrrd")))
    np.testing.assert_array_equal(values[1], expected)


def test_it_runs_again_byte_for_byte_by_the_command(scan: Path, tmp_path: Path) -> None:
    first, again = str(tmp_path / "first"), str(tmp_path / "again")
    options = ["--model", "tiny-blob", "--directions", "axial", "--threads", "1"]
    assert main(["run", str(scan), "--output", first, "--frames", "0:3:2", *options]) == 0
    assert main(["rerun", first, "--output", again]) == 0
    # Replaced as a whole: no segmentation of the first run is left.
    assert main(["run", str(scan), "-o", first, "--frames", "1", "--overwrite", *options]) == 0
    assert [p.name for p in (tmp_path / "first/segmentations").iterdir()] == ["frame-0001.seg.nrrd"]


def test_another_frame_than_before_is_noticed(scan: Path, tmp_path: Path) -> None:
    before = read_result(run(tmp_path / "out", input=str(scan), frames="0:2"))
    other = tmp_path / "scan.seq.nrrd"
    with SequenceWriter(other, GRID, INDEX, np.int16) as writer:
        for array in blobs(6, 10, 12):
            writer.append(array)
    expected = {"inputs": {"image": before.inputs["image"].hash}}
    document = {"input": str(other), "frames": "0:2", "expected": expected}
    assert code(lambda: run(tmp_path / "no", **document)) == "input-changed"


def test_frames_of_one_volume_are_refused(scan: Path, tmp_path: Path) -> None:
    frame = str(scan.with_name("0.nrrd"))
    assert code(lambda: run(tmp_path / "o", input=frame, frames="0:2")) == "frames-no-sequence"
    assert code(lambda: run(tmp_path / "o", input=str(scan), frames="2:9")) == "frames-outside"
    for text in ("-1:2", "a", "1:2:0", "1,2", ""):
        with pytest.raises(TomoSegError, match="frames"):
            parse_job({"kind": "run", "input": "x", "output": "y", "model": "m", "frames": text})


def test_sequences_of_other_lengths_are_refused(scan: Path, tmp_path: Path) -> None:
    mask = tmp_path / "mask.seq.nrrd"
    with SequenceWriter(mask, GRID, FrameIndex.of_numbers(2), np.uint8) as writer:
        for array in blobs(6, 9):
            writer.append(array > 50)
    document = {"input": str(scan), "foreground": str(mask)}
    assert code(lambda: run(tmp_path / "o", **document)) == "sequence-channels"


def test_a_foreground_may_be_one_volume_or_a_sequence(scan: Path, tmp_path: Path) -> None:
    halves = np.zeros((3, *GRID.shape), np.uint8)
    halves[:, 4:, 3:-3, 3:-3] = 1
    write_volume(Volume(halves[0], GRID), tmp_path / "one.nrrd")
    with SequenceWriter(tmp_path / "three.seq.nrrd", GRID, INDEX, np.uint8) as writer:
        for half in halves:
            writer.append(half)
    results = [
        read_result(run(tmp_path / name, input=str(scan), foreground=str(tmp_path / file)))
        for name, file in (("a", "one.nrrd"), ("b", "three.seq.nrrd"))
    ]
    assert results[0].frames == results[1].frames
    assert results[0].files["heatmap.seq.nrrd"] == results[1].files["heatmap.seq.nrrd"]
    heatmaps = open_sequence(tmp_path / "a" / "heatmap.seq.nrrd")
    assert heatmaps is not None
    assert all(not frame.array[:4].any() for frame in heatmaps.frames([0, 1, 2]))


def test_a_cine_series_is_sorted_by_trigger_time(tmp_path: Path) -> None:
    folder = tmp_path / "cine"
    folder.mkdir()
    values = np.random.default_rng(1).permutation(12).reshape(3, 4) + 1
    for phase in range(3):
        for place in range(4):
            value = int(values[phase, place])
            save_image(folder / f"{value:02}.dcm", 8.0 * place, value, 40.5 * phase)
    sequence = read_volume_or_sequence(folder)
    assert not isinstance(sequence, Volume)
    assert sequence.index == FrameIndex("time", "ms", ("0", "40.5", "81"))
    for phase, frame in enumerate(sequence.frames([0, 1, 2])):
        assert (frame.array[:, 0, 0] // 1000).tolist() == values[phase].tolist()
    np.testing.assert_allclose(sequence.geometry.affine[:3, 2], (0, 0, 8))
    document = {"input": str(folder), "model": str(make_model(tmp_path / "model"))}
    result = read_result(run(tmp_path / "out", **document, directions=None))
    assert [frame.value for frame in result.frames] == ["0", "40.5", "81"]
    assert code(lambda: read_volume(folder)) == "dicom-several-volumes"


def test_copies_of_a_series_are_no_sequence(tmp_path: Path) -> None:
    folder = tmp_path / "copies"
    folder.mkdir()
    for place in range(4):
        for copy in "ab":
            save_image(folder / f"{place}{copy}.dcm", 8.0 * place, place)
    assert code(lambda: run(tmp_path / "o", input=str(folder))) == "dicom-several-volumes"


def test_a_batch_takes_sequences_and_volumes_alike(scan: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    with NiftiSequenceWriter(folder / "many.nii.gz", GRID, INDEX, np.int16) as writer:
        for array in blobs(6, 9, 12):
            writer.append(array)
    write_volume(read_volume(scan.with_name("0.nrrd")), folder / "one.nrrd")
    cases = [{"id": p.name.split(".")[0], "input": str(p)} for p in sorted(folder.iterdir())]
    job = parse_job({"kind": "batch", "cases": cases, "output": str(tmp_path / "o"), **SETTINGS})
    assert isinstance(job, BatchJob)
    for expected in ({"done": 2, "skipped": 0}, {"done": 0, "skipped": 2}):
        counts = run_batch(job, Reporter(lambda e: None), lambda e: None, describe_failure)
        assert counts == {**expected, "failed": 0}
    with (tmp_path / "o" / "summary.csv").open() as stream:
        rows = {row["case"]: row for row in csv.DictReader(stream)}
    assert rows["many"]["frames"] == "3" and rows["one"]["frames"] == ""
    frames = json.loads((tmp_path / "o/many/result.json").read_text())["frames"]
    mean = sum(frame["mask"]["volume_ml"] for frame in frames) / 3
    assert float(rows["many"]["volume_ml"]) == pytest.approx(mean)


def test_export_gives_statistics_and_surfaces_of_each_frame(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "exported"
    assert main(["export", str(finished), "--csv", "--stl", "--output", str(output)]) == 0
    with (output / "statistics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    result = read_result(finished)
    assert [(row["frame"], row["frame_value"]) for row in rows] == [
        ("0", "0"),
        ("1", "40"),
        ("2", "95"),
    ]
    for row, frame in zip(rows, result.frames, strict=True):
        assert int(row["voxels"]) == frame.mask.voxels
        assert float(row["image_maximum"]) == 100
        assert float(row["heatmap_maximum"]) == pytest.approx(frame.heatmap.maximum, rel=1e-4)
    assert sorted(p.name for p in output.glob("*.stl")) == [
        f"bright-blob-frame-000{number}.stl" for number in range(3)
    ]
    capsys.readouterr()
    assert main(["export", str(finished), "--dicom-seg", "--output", str(output)]) == 2
    assert "[export-sequence]" in capsys.readouterr().err
