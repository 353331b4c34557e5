"""Fixtures that the engine's tests share: real data where it is there, small volumes where not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume

REPOSITORY = Path(__file__).resolve().parents[2]

# A shell starts what is sent to the background with SIGINT ignored, and every child inherits that:
# tests that press Ctrl+C would press it in vain.
signal.signal(signal.SIGINT, signal.default_int_handler)


def rotation(x_degrees: float, y_degrees: float, z_degrees: float) -> npt.NDArray[np.float64]:
    """``(3, 3)`` rotation about x, then y, then z."""
    x, y, z = np.deg2rad([x_degrees, y_degrees, z_degrees])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


# Every kind of grid that a scanner or a converter produces, by name.
GEOMETRIES: dict[str, Geometry] = {
    "plain": Geometry.from_parts((10, 12, 14), (1.0, 1.0, 1.0)),
    "anisotropic": Geometry.from_parts((6, 20, 24), (0.78, 0.79, 6.5), origin=(-30.5, 12.25, 7)),
    "flipped": Geometry.from_parts((10, 12, 14), (1, 1.5, 2), np.diag([-1, -1, 1]), (9, -3, 4)),
    "left-handed": Geometry.from_parts((10, 12, 14), (1, 1.5, 2), np.diag([1, 1, -1]), (9, -3, 4)),
    "sagittal": Geometry.from_parts(
        (8, 16, 18), (0.9, 0.9, 3.0), [[0, 0, 1], [1, 0, 0], [0, -1, 0]], (-12, -80, 77)
    ),
    "oblique": Geometry.from_parts(
        (10, 12, 14), (0.9, 1.3, 2.7), rotation(23, -31, 57), (-101.37, 55.5, 12.125)
    ),
    "oblique left-handed": Geometry.from_parts(
        (10, 12, 14), (0.9, 1.3, 2.7), rotation(-12, 40, 5) @ np.diag([1, -1, 1]), (3.25, -8, 70)
    ),
}


def blob(geometry: Geometry, radius_mm: float | None = None) -> npt.NDArray[np.float32]:
    """A smooth bump at the grid's centre, in physical space: equal shape on every grid."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    points = geometry.index_to_lps(np.stack([i, j, k], axis=-1))
    if radius_mm is None:
        radius_mm = float(min(np.array(geometry.size) * geometry.spacing)) / 5
    distance = np.linalg.norm(points - geometry.center, axis=-1)
    return np.exp(-0.5 * (distance / radius_mm) ** 2).astype(np.float32)


@pytest.fixture(params=list(GEOMETRIES))
def any_geometry(request: pytest.FixtureRequest) -> Geometry:
    """Each of the grids in turn."""
    return GEOMETRIES[request.param]


@pytest.fixture
def make_volume() -> Callable[..., Volume]:
    """``make_volume(geometry, dtype)``: noise, different in every voxel, on the given grid."""

    def make(
        geometry: Geometry | str = "plain", dtype: npt.DTypeLike = np.int16, seed: int = 0
    ) -> Volume:
        grid = GEOMETRIES[geometry] if isinstance(geometry, str) else geometry
        values = np.random.default_rng(seed).normal(0, 300, grid.shape)
        if np.issubdtype(np.dtype(dtype), np.unsignedinteger):
            values = np.abs(values)
        if np.dtype(dtype) == np.uint8:
            values = np.clip(values / 4, 0, 255)
        return Volume(values.astype(dtype), grid, name="noise")

    return make


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real scans beside the checkout, or ``TOMOSEG_SHARED_DATA``; skips where absent."""
    folder = Path(os.environ.get("TOMOSEG_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: neither ../shared/data nor TOMOSEG_SHARED_DATA is there")
    return folder


@pytest.fixture(scope="session")
def head_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two T1-like heads of 3.5 mm voxels: grey matter around white, CSF within and around."""
    folder = tmp_path_factory.mktemp("heads")
    return _write_head(folder / "one.nii.gz", 1.0), _write_head(folder / "two.nii.gz", -1.0)


def _write_head(path: Path, fold: float) -> Path:
    geometry = Geometry.from_parts((44, 54, 46), (3.5, 3.5, 3.5), origin=(-80, -95, -75))
    k, j, i = np.indices(geometry.shape)
    x, y, z = np.moveaxis(
        geometry.index_to_lps(np.stack([i, j, k], axis=-1)) - geometry.center, -1, 0
    )
    folds = 0.06 * fold * np.sin(x / 6) * np.sin(y / 7) * np.sin(z / 5)
    depth = np.sqrt((x / 64) ** 2 + (y / 78) ** 2 + (z / 62) ** 2)
    image = np.where(depth + folds < 0.8, 110.0, 75.0)
    image[depth + folds > 0.95] = 30
    image[np.sqrt((x / 18) ** 2 + (y / 30) ** 2 + (z / 14) ** 2) + folds < 1] = 30
    image += np.random.default_rng(0).normal(0, 4, image.shape)
    array = np.where(depth < 1, image.clip(10), 0).astype(np.int16)
    write_volume(Volume(array, geometry, path.stem), path)
    return path
