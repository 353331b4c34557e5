"""The montage shows the patient the right way round, in millimetres, with what was found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from matplotlib.image import imread

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging import montage as module
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.itk import sitk_image
from TomoSegLib.imaging.montage import display_grid, display_window, heatmap_range, montage
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Label


def scan(geometry: Geometry) -> tuple[Volume, np.ndarray]:
    """A scan that is bright towards the patient's left, front and head, and its LPS positions."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    points = geometry.index_to_lps(np.stack([i, j, k], axis=-1))
    return Volume(points[..., 0].astype(np.float32), geometry), points


@pytest.mark.parametrize(
    ("view", "axis", "rows", "columns"),
    [("axial", 0, "P", "L"), ("coronal", 1, "I", "L"), ("sagittal", 2, "I", "P")],
)
def test_slices_follow_radiological_convention(
    view: str, axis: int, rows: str, columns: str, any_geometry: Geometry
) -> None:
    volume, points = scan(any_geometry)
    grid = display_grid(volume)
    chosen = module.VIEWS[axis]
    assert chosen.name == view
    assert (chosen.letters[1], chosen.letters[3]) == (columns, rows)
    coordinate = {"L": (0, 1), "P": (1, 1), "I": (2, -1)}
    for towards, along in ((rows, 0), (columns, 1)):
        component, sign = coordinate[towards]
        values = np.ascontiguousarray(sign * points[..., component], dtype=np.float32)
        layer = sitk_image(values, any_geometry)
        plane = chosen.cut(layer, grid, grid.shape[axis] // 2, np.nan)
        step = np.diff(plane, axis=along)
        step = step[np.isfinite(step)]
        assert step.size
        # One pixel on is one display voxel further in that direction: the aspect is in mm.
        # (Beyond the outermost voxels' centres, values stay as they are.)
        assert np.median(step) == pytest.approx(grid.spacing[0], rel=1e-3)
        assert step.min() > -1e-3


def test_the_display_grid_holds_the_whole_object(any_geometry: Geometry) -> None:
    volume, _ = scan(any_geometry)
    index = display_grid(volume).lps_to_index(any_geometry.corners())
    assert index.min() > -0.5 - 1e-6
    assert np.all(index.max(axis=0) < np.array(display_grid(volume).size) - 0.5 + 1e-6)
    assert np.ptp(display_grid(volume).spacing) == 0


def test_slices_run_through_the_largest_lesion() -> None:
    geometry = Geometry.from_parts((30, 40, 50), (1, 1, 2), None, (5, 6, 7))
    volume, _ = scan(geometry)
    grid = display_grid(volume)
    mask = np.zeros(geometry.shape, np.uint8)
    mask[20:26, 10:16, 30:40] = 1
    mask[2, 2, 2] = 1
    centers, spans = module.slice_positions(None, mask, geometry, grid)
    middle = grid.index_to_lps(centers[::-1])
    np.testing.assert_allclose(middle, geometry.index_to_lps([34.5, 12.5, 22.5]), atol=1e-6)
    np.testing.assert_allclose(spans, [11, 6, 10], atol=1e-6)


def test_grey_levels_come_from_the_foreground() -> None:
    array = np.full((20, 20, 20), -3.16, np.float32)
    array[5:15, 5:15, 5:15] = np.linspace(0, 10, 1000).reshape(10, 10, 10)
    low, high = display_window(array)
    assert 0 < low < 0.2 and 9.8 < high < 10
    foreground = np.zeros(array.shape, np.bool_)
    foreground[5:10, 5:15, 5:15] = True
    assert display_window(array, foreground)[1] == pytest.approx(5, abs=0.1)


def test_the_overlay_begins_above_noise() -> None:
    heatmap = np.zeros((10, 10, 10), np.float32)
    assert heatmap_range(heatmap) == (0.0, 1.0)
    heatmap[3:6] = 6.0
    assert heatmap_range(heatmap) == pytest.approx((2.0, 6.0))


def picture(path: Path) -> np.ndarray:
    result: np.ndarray = imread(path)[..., :3]
    return result


def test_heatmap_and_outline_are_drawn_in_colour(any_geometry: Geometry, tmp_path: Path) -> None:
    volume, points = scan(any_geometry)
    distance = np.linalg.norm(points - any_geometry.center, axis=-1)
    mask = (distance < 0.3 * distance.max()).astype(np.uint8)
    heatmap = np.exp(-((distance / distance.max()) ** 2) * 8).astype(np.float32)
    path = tmp_path / "Übersicht 図.png"
    montage(volume, heatmap, mask, path, title="a title", footer="small print", threshold=0.5)
    both = picture(path)
    assert both.shape[1] > both.shape[0] / 2
    colored = np.ptp(both, axis=-1) > 0.2
    assert 0.01 < colored.mean() < 0.6
    montage(volume, None, None, path, title="a title", footer="small print")
    assert not (np.ptp(picture(path), axis=-1) > 0.2).any()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_each_label_is_outlined_in_its_own_colour_and_named(tmp_path: Path) -> None:
    volume, _ = scan(Geometry.from_parts((20, 24, 28), (2, 2, 2)))
    mask = np.zeros(volume.array.shape, np.uint8)
    mask[5:12, 6:12, 6:12] = 3
    mask[6:13, 14:20, 14:20] = 9
    labels = [
        Label(name="liver", value=3, color=(1.0, 0.0, 0.0)),
        Label(name="spleen", value=9, color=(0.0, 1.0, 0.0)),
        Label(name="not there", value=4, color=(0.0, 0.0, 1.0)),
    ]
    montage(volume, None, mask, tmp_path / "a.png", title="", footer="", labels=labels)
    red, green, blue = np.moveaxis(picture(tmp_path / "a.png"), -1, 0)
    legend = slice(int(0.8 * len(red)), None)
    for color, others in ((red, green + blue), (green, red + blue)):
        pure = (color > 0.8) & (others < 0.3)
        assert pure[: legend.start].sum() > 50 and pure[legend].sum() > 10
    assert not ((blue > 0.5) & (red + green < 0.3)).any()


def test_an_empty_result_is_drawn_too(tmp_path: Path) -> None:
    volume, _ = scan(Geometry.from_parts((10, 12, 14), (1, 1, 1)))
    nothing = np.zeros(volume.array.shape, np.float32)
    montage(volume, nothing, nothing, tmp_path / "a.png", title="nothing found", footer="")
    assert (tmp_path / "a.png").stat().st_size > 5000


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    volume, _ = scan(Geometry.from_parts((10, 12, 14), (1, 1, 1)))
    with pytest.raises(TomoSegError) as caught:
        montage(volume, None, None, tmp_path / "none" / "a.png", title="", footer="")
    assert caught.value.code == "output-unwritable"


def test_a_real_scan_with_thick_slices_is_drawn(shared_data: Path, tmp_path: Path) -> None:
    volume = read_volume(shared_data / "pyradiomics" / "brain1_image.nrrd")
    mask = read_volume(shared_data / "pyradiomics" / "brain1_label.nrrd").array
    montage(volume, None, mask, tmp_path / "a.png", title="brain", footer="")
    # Width and height of a coronal slice are in millimetres: 200 x 163 mm.
    grid = display_grid(volume)
    assert grid.shape[0] * grid.spacing[0] == pytest.approx(25 * 6.5, rel=0.05)
    assert picture(tmp_path / "a.png").max() > 0.9
    assert sitk.ReadImage(str(tmp_path / "a.png")).GetNumberOfComponentsPerPixel() >= 3
