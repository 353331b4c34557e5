"""Inspecting a study as a job: views as volumes where they lie, lines, a table to correct."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.jobs.client import run_job
from TomoSegLib.jobs.document import InspectStudyJob, parse_job
from TomoSegLib.jobs.events import ErrorEvent, Event, ResultEvent, WarningEvent
from TomoSegLib.jobs.inspect_study import inspect_study
from TomoSegLib.jobs.report import Reporter
from TomoSegLib.studies.image_plane import ImagePlane
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.study import View
from TomoSegLib.studies.volumes import view_volume


def turned(shape: tuple[int, int, int], angles: tuple[float, float]) -> Geometry:
    """An oblique, anisotropic grid ``(k, j, i)`` about one centre."""
    (c, s), (d, t) = ((np.cos(a), np.sin(a)) for a in np.radians(angles))
    direction = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array(
        [[1, 0, 0], [0, d, -t], [0, t, d]]
    )
    spacing = np.array([1.1, 1.5, 9.0])
    half = direction @ (spacing * (np.array(shape[::-1]) - 1) / 2)
    return Geometry.from_parts(shape, spacing, direction, np.array([5.0, -8, 12]) - half)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "Patientin Ä"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name, shape, angles in (
        ("sax.nii.gz", (6, 30, 36), (-48, 37)),
        ("4ch.nii.gz", (1, 28, 44), (30, 100)),
        ("unclear.nii.gz", (1, 28, 44), (75, 80)),
    ):
        array = random.integers(1, 500, shape).astype(np.int16)
        write_volume(Volume(array, turned(shape, angles)), folder / name)
    return folder


def done(folder: Path, output: Path, **fields: str) -> tuple[dict[str, Any], list[Event]]:
    """Carry the job out in this process."""
    job = parse_job(
        {"kind": "inspect-study", "study": str(folder), "output": str(output), **fields}
    )
    assert isinstance(job, InspectStudyJob)
    output.mkdir()
    events: list[Event] = []
    result = inspect_study(output, job, Reporter(events.append))
    assert result.path == str(output)
    return result.data, events


def test_views_are_volumes_where_their_files_say_and_lines_lie_on_both(
    study: Path, tmp_path: Path
) -> None:
    data, _ = done(study, tmp_path / "out")
    assert [view["id"] for view in data["views"]] == sorted(p.name for p in study.iterdir())
    grids, others = {}, {view["name"] for view in data["views"]}
    for view in data["views"]:
        source = read_volume(study / view["file"], single_slice=True)
        made = read_volume(tmp_path / "out" / view["volume"]["file"], single_slice=True)
        np.testing.assert_array_equal(made.array, source.array)
        geometry = Geometry(made.geometry.shape, np.array(view["volume"]["ijk_to_lps"]))
        assert geometry.is_close(made.geometry)
        corners = source.geometry.index_to_lps([0, 0, view["middle_slice"]])
        assert np.allclose(view["corners_mm"][0], corners, atol=1e-4)
        assert np.allclose(geometry.affine[:3, :2], source.geometry.affine[:3, :2], atol=1e-4)
        grids[view["name"]] = geometry, view["middle_slice"]
        assert sorted(view["others"]) == sorted(others - {view["name"]})
    drawn = [line for line in data["lines"] if "reason" not in line]
    assert len(drawn) == 6
    for line in drawn:
        for name in (line["view"], line["other"]):
            grid, middle = grids[name]
            for point in line["endpoints_mm"]:
                assert grid.lps_to_index(point)[2] == pytest.approx(middle, abs=1e-4)
    assert data["lines"] == json.loads((tmp_path / "out" / "lines.json").read_text())


def test_a_corrected_table_decides_and_what_it_leaves_out_is_still_in_the_next(
    study: Path, tmp_path: Path
) -> None:
    data, _ = done(study, tmp_path / "first")
    assert {view["name"]: view["kind"] for view in data["views"]}["4ch"] == "4-chamber"
    table = tmp_path / "corrected.csv"
    rows = list(csv.DictReader((tmp_path / "first" / "views.csv").open(encoding="utf-8")))
    for row in rows:
        row["kind"] = {"unclear": "3-chamber"}.get(row["name"], row["kind"])
        row["use"] = "no" if row["name"] == "4ch" else "yes"
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    data, _ = done(study, tmp_path / "second", views=str(table))
    kinds = {view["name"]: view["kind"] for view in data["views"]}
    assert kinds == {"sax": "short-axis", "unclear": "3-chamber"}
    assert [view["id"] for view in data["unused"]] == ["4ch.nii.gz"]
    # The table that was written says all of it, so it can be kept as the study's own.
    (study / "views.csv").write_bytes((tmp_path / "second" / "views.csv").read_bytes())
    again = read_study(study)
    assert [view.name for view in again.views] == ["sax", "unclear"]
    assert [view.name for view in again.unused] == ["4ch"]


def test_what_cannot_be_used_is_a_warning_with_its_file(study: Path, tmp_path: Path) -> None:
    (study / "broken.nii.gz").write_bytes(b"no image")
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 4, 4)), None), study / "nowhere.nii.gz")
    data, events = done(study, tmp_path / "out")
    assert len(data["views"]) == 3
    warnings = [event for event in events if isinstance(event, WarningEvent)]
    for name in ("broken.nii.gz", "nowhere.nii.gz"):
        assert any(name in warning.message for warning in warnings), warnings


def test_of_an_uneven_stack_the_even_part_with_the_middle_slice_is_a_volume() -> None:
    class Nothing:
        path = Path("stack.dcm")

        def read(self) -> Any:
            raise AssertionError

    heights = [0.0, 8.0, 16.0, 24.0, 32.0, 47.0, 55.0]
    planes = tuple(
        ImagePlane(np.array([1.0, 2.0, z]), np.array([1.0, 0, 0]), np.array([0, 2.0, 0]), (3, 4))
        for z in heights
    )
    view = View("s", "sax", "short-axis", planes, ((Nothing(),) * 7,))
    images = [np.full((3, 4), index, np.float32) for index in range(7)]
    made = view_volume(view, [images[0], None, *images[2:]])
    assert made.first == 0 and made.volume.array[:, 0, 0].tolist() == [0, 0, 2, 3, 4]
    assert made.volume.geometry.index_to_lps([0, 0, 4]).tolist() == [1, 2, 32]
    assert made.problem is not None and "1 to 5 of 7" in str(made.problem)
    assert "stack.dcm" in str(made.problem)


@pytest.mark.parametrize(
    ("name", "code"),
    [("gone", "study-not-found"), ("empty", "study-empty"), ("text", "study-empty")],
)
def test_without_a_view_there_is_one_clear_error_and_no_file(
    name: str, code: str, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no image")
    document = {
        "kind": "inspect-study",
        "study": str(tmp_path / name),
        "output": str(tmp_path / "out"),
    }
    outcome = run_job(document)
    assert isinstance(outcome, ErrorEvent) and outcome.code == code
    assert outcome.hint and name in outcome.message
    assert not (tmp_path / "out").exists()


def test_an_inspection_that_is_there_is_kept(study: Path, tmp_path: Path) -> None:
    document = {"kind": "inspect-study", "study": str(study), "output": str(tmp_path / "out")}
    assert isinstance(run_job(document), ResultEvent)
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["lines.json", "study.json", "views.csv", "volumes"]
    outcome = run_job(document)
    assert isinstance(outcome, ErrorEvent) and outcome.code == "output-exists"


def test_views_of_long_names_keep_them_through_a_table(study: Path, tmp_path: Path) -> None:
    name = "4-chamber cine, breath hold at expiration, second try after the patient had moved"
    (study / "4ch.nii.gz").rename(study / f"{name}.nii.gz")
    done(study, tmp_path / "first")
    data, _ = done(study, tmp_path / "second", views=str(tmp_path / "first" / "views.csv"))
    assert name in [view["name"] for view in data["views"]]
