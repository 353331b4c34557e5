"""The mask of a heatmap anew, along the image's borders: the job ``refine-mask``."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.document import RefineMaskJob, parse_job
from TomoSegLib.jobs.events import ErrorEvent, ResultEvent
from TomoSegLib.jobs.refine_mask import refine_mask
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.jobs.result import RunResult, read_result
from TomoSegLib.models.card import RefinementSettings

GEOMETRY = Geometry.from_parts((18, 20, 22), (2.0, 2.2, 2.5), origin=(-20, 10, 5))


def distance(shift: tuple[int, int, int] = (0, 0, 0)) -> npt.NDArray[np.float64]:
    """mm of each voxel from a place that is so far from the grid's centre."""
    k, j, i = np.indices(GEOMETRY.shape)
    points = GEOMETRY.index_to_lps(np.stack([i, j, k], axis=-1)) - GEOMETRY.center
    result: npt.NDArray[np.float64] = np.linalg.norm(points - np.array(shift), axis=-1)
    return result


def write(path: Path, array: npt.NDArray[np.generic], geometry: Geometry = GEOMETRY) -> str:
    write_volume(Volume(array, geometry, path.name), path)
    return str(path)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan with two bright blobs, of which one is smaller."""
    noise = np.random.default_rng(7).normal(0, 5, GEOMETRY.shape)
    array = np.where(distance() < 18, 100 + noise, 0)
    array[distance((4, -3, 2)) < 7] += 100
    array[distance((-10, 6, -4)) < 4] += 100
    path = tmp_path_factory.mktemp("scan") / "scan.nii.gz"
    write(path, array.astype(np.int16))
    return path


@pytest.fixture
def soft(tmp_path: Path, scan: Path) -> dict[str, Any]:
    """A document about a blob of 7 mm with a heatmap that is 1 at 8 mm from its centre."""
    inside = distance() < 18
    heat = np.where(inside, np.exp2(4 - distance((4, -3, 2)) / 8 * 4), 0).astype(np.float32)
    return {
        "kind": "refine-mask",
        "image": str(scan),
        "heatmap": write(tmp_path / "heatmap.nrrd", heat),
        "agreement": write(tmp_path / "agreement.nrrd", inside.astype(np.float32)),
        "threshold": 1.0,
        "refinement": {"method": "random-walker"},
        "output": str(tmp_path / "out" / "mask.nrrd"),
    }


def refined(document: dict[str, Any], folder: Path) -> npt.NDArray[np.bool_]:
    """The mask of a document, made in this process."""
    job = parse_job(document)
    assert isinstance(job, RefineMaskJob)
    folder.mkdir(exist_ok=True)
    refine_mask(folder, job, Reporter(lambda event: None))
    mask: npt.NDArray[np.bool_] = read_volume(folder / Path(job.output).name).array != 0
    return mask


def refused(document: dict[str, Any], folder: Path) -> str:
    with pytest.raises(TomoSegError) as caught:
        refined(document, folder)
    assert caught.value.hint
    return caught.value.code


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"components": "largest", "minimum_size_ml": 0.2},
        {"region": {"start": [4, 3, 2], "stop": [16, 18, 17]}, "threshold": "otsu"},
    ],
    ids=["as the card says", "the largest island", "a region"],
)
def test_the_mask_is_the_run_s_byte_by_byte(
    tmp_path: Path, scan: Path, settings: dict[str, Any]
) -> None:
    run: dict[str, Any] = {
        "kind": "run",
        "input": str(scan),
        "model": "tiny-blob",
        "output": str(tmp_path / "run"),
    }
    run |= {"directions": "icosahedral:1", "refine": "graph-cut", "threads": 1, **settings}
    assert isinstance(run_job(run), ResultEvent)
    result = read_result(tmp_path / "run")
    assert isinstance(result, RunResult) and result.refinement is not None
    document = {
        "kind": "refine-mask",
        "image": str(scan),
        "heatmap": str(tmp_path / "run" / "heatmap.nrrd"),
        "agreement": str(tmp_path / "run" / "agreement.nrrd"),
        "threshold": result.mask.threshold,
        "model": "tiny-blob",
        "refine": "graph-cut",
        "components": result.job.components,
        "minimum_size_ml": result.job.minimum_size_ml,
    }
    for name in ("mask.seg.nrrd", "mask.nii.gz"):
        outcome = run_job({**document, "output": str(tmp_path / "again" / name)})
        assert isinstance(outcome, ResultEvent), outcome
        again = (tmp_path / "again" / name).read_bytes()
        assert again == (tmp_path / "run" / name).read_bytes()
        assert outcome.data["voxels"] == result.mask.voxels > 0
        assert outcome.data["refinement"] == result.refinement.model_dump(mode="json")
    # And with the parameters by themselves, for a model that is gone.
    del document["model"], document["refine"]
    document["refinement"] = result.refinement.model_dump(mode="json")
    mask = refined({**document, "output": str(tmp_path / "mask.nrrd")}, tmp_path / "third")
    expected = read_volume(tmp_path / "run" / "mask.nii.gz").array
    np.testing.assert_array_equal(mask, expected != 0)


def test_the_border_is_the_image_s_wherever_the_threshold_is(
    soft: dict[str, Any], tmp_path: Path
) -> None:
    blob = distance((4, -3, 2)) < 7
    for threshold in (1.0, 1.5, 3.0):
        mask = refined({**soft, "threshold": threshold}, tmp_path / "work")
        assert 2 * np.count_nonzero(mask & blob) / (mask.sum() + blob.sum()) > 0.95


def test_strokes_add_what_the_heatmap_missed_and_take_what_it_took(
    soft: dict[str, Any], tmp_path: Path
) -> None:
    missed, taken = distance((-10, 6, -4)) < 2.5, distance((4, -3, 2)) < 2.5
    for name, drawn in (("inside", missed), ("outside", taken)):
        soft[name] = write(tmp_path / f"{name}.nrrd", drawn.astype(np.uint8))
    mask = refined(soft, tmp_path / "work")
    assert mask[missed].all() and not mask[taken].any()
    nothing = write(tmp_path / "nothing.nrrd", np.zeros(GEOMETRY.shape, np.uint8))
    plain = refined({**soft, "inside": None, "outside": None}, tmp_path / "work")
    blank = refined({**soft, "inside": nothing, "outside": nothing}, tmp_path / "work")
    np.testing.assert_array_equal(plain, blank)


def test_a_stroke_beside_a_lesion_takes_its_part_and_not_all(
    soft: dict[str, Any], tmp_path: Path
) -> None:
    half = (distance((4, -3, 2)) < 7) & (np.arange(GEOMETRY.shape[2]) < 13)
    soft["outside"] = write(tmp_path / "outside.nrrd", half.astype(np.uint8))
    mask = refined(soft, tmp_path / "work")
    rest = (distance((4, -3, 2)) < 7) & ~half
    assert not mask[half].any() and mask[rest].mean() > 0.7


def test_a_region_bounds_the_mask(soft: dict[str, Any], tmp_path: Path) -> None:
    soft["region"] = {"start": [0, 0, 0], "stop": [13, 20, 18]}
    mask = refined(soft, tmp_path / "work")
    assert mask.any() and not mask[:, :, 13:].any()
    soft["region"]["stop"] = [23, 20, 18]
    assert refused(soft, tmp_path / "work") == "region-outside"


def test_a_heatmap_without_heat_gives_an_empty_mask(soft: dict[str, Any], tmp_path: Path) -> None:
    cold = write(tmp_path / "cold.nrrd", np.zeros(GEOMETRY.shape, np.float32))
    document = {**soft, "heatmap": cold, "agreement": cold}
    outcome = run_job(document)
    assert isinstance(outcome, ResultEvent) and outcome.data["voxels"] == 0
    assert not read_volume(soft["output"], constant=True).array.any()


def test_what_does_not_fit_is_refused_with_a_reason(soft: dict[str, Any], tmp_path: Path) -> None:
    moved = Geometry.from_parts(GEOMETRY.shape, GEOMETRY.spacing, origin=(-20, 10, 9))
    values = np.zeros(GEOMETRY.shape, np.float32)
    elsewhere = write(tmp_path / "moved.nrrd", values, moved)
    for name in ("heatmap", "agreement", "inside", "outside"):
        assert refused({**soft, name: elsewhere}, tmp_path / "work") == "refinement-geometry"
    assert refused({**soft, "threshold": 0.0}, tmp_path / "work") == "refinement-threshold"
    assert refused({**soft, "output": str(tmp_path / "m.png")}, tmp_path / "work") == (
        "output-format"
    )
    missing = {**soft, "heatmap": str(tmp_path / "none.nrrd")}
    assert refused(missing, tmp_path / "work") == "volume-not-found"
    nobody = {**soft, "refinement": None, "model": "nobody"}
    assert refused(nobody, tmp_path / "work") == "model-unknown"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"refinement": None}, "neither a model"),
        ({"refine": "magic"}, "refine"),
        ({"boundary_mm": 0}, "boundary_mm"),
        ({"reach_mm": -1}, "reach_mm"),
        ({"closing_mm": 51}, "closing_mm"),
        ({"refinement": {"levle": 0.5}}, "levle"),
        ({"refinement": {"level": 2.0}}, "less than 1"),
        ({"refinement": {"method": "magic"}}, "refinement"),
        ({"threshold": "otsu"}, "threshold"),
        ({"threshold": None}, "threshold"),
        ({"minimum_size_ml": -1}, "minimum_size_ml"),
        ({"components": "some"}, "components"),
        ({"smoothing": 1}, "smoothing"),
        ({"output": ""}, "output"),
    ],
)
def test_a_document_with_a_mistake_is_refused(
    soft: dict[str, Any], change: dict[str, Any], what: str
) -> None:
    with pytest.raises(TomoSegError) as caught:
        parse_job({**soft, **change})
    assert caught.value.code == "job-invalid"
    assert what in caught.value.message


def test_files_are_found_beside_the_document(soft: dict[str, Any], tmp_path: Path) -> None:
    job = parse_job({**soft, "heatmap": "h.nrrd", "inside": "in.nrrd"}, tmp_path)
    assert isinstance(job, RefineMaskJob)
    assert job.heatmap == str(tmp_path / "h.nrrd") and job.inside == str(tmp_path / "in.nrrd")
    assert job.refinement == RefinementSettings()


def test_a_mask_that_is_there_is_replaced_only_if_asked_for(
    soft: dict[str, Any], tmp_path: Path
) -> None:
    output = Path(soft["output"])
    output.parent.mkdir()
    output.write_text("mine")
    (output.parent / "other.txt").write_text("mine too")
    outcome = run_job(soft)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "output-exists"
    assert output.read_text() == "mine"
    assert isinstance(run_job({**soft, "overwrite": True}), ResultEvent)
    assert read_volume(output).array.any()
    assert sorted(path.name for path in output.parent.iterdir()) == ["mask.nrrd", "other.txt"]


def test_a_refinement_that_is_cancelled_leaves_nothing(soft: dict[str, Any]) -> None:
    cancel = threading.Event()
    outcome = run_job(soft, lambda event: cancel.set(), cancel)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "cancelled"
    assert not Path(soft["output"]).parent.exists()


def test_neither_torch_nor_what_goes_with_it_is_loaded() -> None:
    code = (
        "import sys, TomoSegLib.jobs.task, TomoSegLib.jobs.refine_mask\n"
        "heavy = {'torch', 'monai', 'matplotlib', 'skimage.io'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
