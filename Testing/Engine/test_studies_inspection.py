"""Inspecting a study writes its lines, pictures and tables."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from TomoSegLib.cli import main
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.pictures import as_read
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.recognition import looks_turned, recognise


def write(folder: Path, name: str, shape: tuple[int, int, int], turn: tuple[float, ...]) -> None:
    direction = Rotation.from_euler("xyz", turn, degrees=True).as_matrix()
    spacing = np.array([1.1, 1.5, 9.0])
    half = direction @ (spacing * (np.array(shape[::-1]) - 1) / 2)
    geometry = Geometry.from_parts(shape, spacing, direction, np.array([5.0, -8, 12]) - half)
    array = np.random.default_rng(0).integers(0, 500, shape).astype(np.int16)
    folder.mkdir(exist_ok=True)
    write_volume(Volume(array, geometry), folder / name)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "patient"
    write(folder, "sax.nii.gz", (6, 40, 30), (-48, 37, 10))
    write(folder, "ch4.nii.gz", (1, 36, 44), (30, 10, 80))
    write(folder, "ch4 again.nii.gz", (1, 36, 44), (31, 11, 80))
    return folder


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "lines.json").read_text())


def test_lines_lie_on_both_planes_and_end_at_the_rim_of_the_image(
    study: Path, tmp_path: Path
) -> None:
    assert main(["planes", "inspect", str(study), "--output", str(tmp_path)]) == 0
    entries = lines_of(tmp_path)
    views = {view.name: view for view in read_study(study).views}
    assert {(e["view"], e["other"]) for e in entries} == {
        (a, b) for a in views for b in views if a != b
    }
    drawn = [entry for entry in entries if "reason" not in entry]
    assert len(drawn) == 4
    for entry in drawn:
        assert set(entry) == {"view", "other", "endpoints_mm", "endpoints_px"}
        # The files' own grids, without any of the code for planes.
        grids = {}
        for key in ("view", "other"):
            volume = read_volume(study / f"{entry[key]}.nii.gz", single_slice=True)
            grids[key] = volume.geometry
        for (column, row), point in zip(entry["endpoints_px"], entry["endpoints_mm"], strict=True):
            i, j, k = grids["view"].lps_to_index(point)
            assert (i, j) == pytest.approx((column, row), abs=1e-4)
            assert k == pytest.approx(grids["view"].shape[0] // 2, abs=1e-4)
            assert grids["other"].lps_to_index(point)[2] == pytest.approx(
                grids["other"].shape[0] // 2, abs=1e-4
            )
            rim = [i, j, grids["view"].size[0] - 1 - i, grids["view"].size[1] - 1 - j]
            assert min(rim) == pytest.approx(0, abs=1e-4)
    for entry in entries:
        if "reason" in entry:
            assert set(entry) == {"view", "other", "reason"}
            assert {entry["view"], entry["other"]} == {"ch4", "ch4 again"}
            assert entry["reason"].startswith("near-parallel")


def test_every_view_has_a_picture_and_there_is_one_in_space(study: Path, tmp_path: Path) -> None:
    assert main(["planes", "inspect", str(study), "-o", str(tmp_path)]) == 0
    pictures = {path.name for path in tmp_path.glob("*.png")}
    assert pictures == {"view-sax.png", "view-ch4.png", "view-ch4-again.png", "planes.png"}
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB")).astype(int)
        # Grey pixels of the images, and coloured ones of lines and frames.
        assert np.mean(pixels.max(axis=2) > 60) > 0.03
        assert np.mean(np.ptp(pixels, axis=2) > 60) > 0.0002
    document = json.loads((tmp_path / "study.json").read_text())
    assert [view["middle_slice"] for view in document["views"]] == [0, 0, 3]


def test_nothing_is_replaced_without_being_asked(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.json").write_text("mine")
    assert main(["planes", "inspect", str(study), "-o", str(tmp_path)]) == 2
    assert "output-exists" in capsys.readouterr().err
    assert (tmp_path / "lines.json").read_text() == "mine"
    assert main(["planes", "inspect", str(study), "-o", str(tmp_path), "--overwrite"]) == 0
    assert len(lines_of(tmp_path)) == 6


def test_damaged_pixels_cost_a_picture_only(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "patient"
    broken.mkdir()
    for path in study.iterdir():
        content = path.read_bytes()
        (broken / path.name).write_bytes(content[:-400] if path.name == "sax.nii.gz" else content)
    assert main(["planes", "inspect", str(broken), "-o", str(tmp_path / "out")]) == 0
    assert "sax.nii.gz" in capsys.readouterr().err
    assert sum("reason" not in entry for entry in lines_of(tmp_path / "out")) == 4


def test_a_header_that_lies_about_its_pixels_costs_a_picture_only(tmp_path: Path) -> None:
    write(tmp_path / "in", "4ch.nii.gz", (1, 20, 20), (30, 10, 80))
    header = nibabel.Nifti1Image(np.zeros((2, 2, 1), np.int16), np.diag([-0.01, -0.01, 8, 1]))
    content = bytearray(header.to_bytes())
    content[42:48] = np.array([20000, 20000, 1], "<i2").tobytes()  # dim[1..3]
    (tmp_path / "in" / "sax.nii").write_bytes(bytes(content))
    assert main(["planes", "inspect", str(tmp_path / "in"), "-o", str(tmp_path / "out")]) == 0
    problems = json.loads((tmp_path / "out" / "study.json").read_text())["problems"]
    assert any("sax.nii" in problem["message"] for problem in problems)


def test_a_single_view_has_a_picture_and_no_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "one", "sax.nii.gz", (1, 20, 20), (0, 0, 0))
    assert main(["planes", "inspect", str(tmp_path / "one"), "-o", str(tmp_path / "out")]) == 0
    assert lines_of(tmp_path / "out") == []
    assert "single-view" in capsys.readouterr().err


@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize("flips", [(), (0,), (1,), (0, 1)])
def test_any_of_eight_ways_to_store_an_image_is_read_the_same(
    transpose: bool, flips: tuple[int, ...]
) -> None:
    turn = Rotation.from_euler("xyz", (35, 20, 10), degrees=True).as_matrix()
    plane = ImagePlane(np.array([3.0, 4, 5]), turn[:, 0] * 1.5, turn[:, 1] * 1.1, (5, 7))
    image = np.arange(35, dtype=np.float32).reshape(5, 7)
    stored, pixels = plane, image
    if transpose:
        stored, pixels = stored.transposed(), pixels.T
    for axis in flips:
        stored, pixels = stored.flipped(axis), np.flip(pixels, axis)
    seen, shown = as_read(stored, pixels)
    assert shown is not None
    np.testing.assert_array_equal(shown, image)
    np.testing.assert_allclose(seen.corners, plane.corners, atol=1e-9)


def test_the_real_study_fits_together_but_is_turned_in_the_patient(shared_data: Path) -> None:
    """Its 4-chamber image equals the stack cut along its plane: the reading is right.

    Its matrices put the front of the patient at the back: that is how the files are.
    """
    folder = shared_data / "mnms2"
    views = {view.name: view for view in read_study(folder).views}
    stack = read_volume(folder / "sax_ed.nii.gz")
    view = views["lax_4c_ed"]
    rows, columns = np.indices(view.planes[0].shape)
    points = view.planes[0].pixel_to_lps(np.stack([columns, rows], axis=-1))
    i, j, k = np.moveaxis(stack.geometry.lps_to_index(points).round().astype(int), -1, 0)
    inside = np.ones(i.shape, bool)
    for index, count in zip((i, j, k), stack.geometry.size, strict=True):
        inside &= (index >= 0) & (index < count)
    real = view.sources[0][0].read()[inside]

    def likeness(array: np.ndarray) -> float:
        return float(np.corrcoef(array[k[inside], j[inside], i[inside]], real)[0, 1])

    assert likeness(stack.array) > 0.6
    for axis in range(3):
        assert likeness(np.flip(stack.array, axis)) < likeness(stack.array) - 0.1
    assert looks_turned(views["sax_ed"].planes[0])
    # All the same its long-axis view is known by its plane, where the name does not tell.
    kinds = recognise([("SA", views["sax_ed"].planes), ("LA", view.planes)])
    assert kinds == ["short-axis", "4-chamber"]
    assert any(p.code == "contradictory-geometry" for p in read_study(folder).problems)
