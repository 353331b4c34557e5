"""What goes between panel and worker: volumes in files, and masks that are the engine's."""

import gzip
import os
import sys
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import slicer  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel.mask import MaskSettings, makeMask  # noqa: E402
from TomoSegPanel.volumeFiles import readNrrd, writeNrrd  # noqa: E402

from TomoSegLib.heatmaps.mask import heatmap_to_mask  # noqa: E402
from TomoSegLib.imaging.io import read_volume, write_volume  # noqa: E402
from TomoSegLib.imaging.volume import Geometry, Volume  # noqa: E402
from TomoSegLib.models.card import MaskSettings as EngineSettings  # noqa: E402


def matrix():
    """An oblique, anisotropic matrix from voxel to RAS."""
    random = np.random.default_rng(5)
    result = np.eye(4)
    rotation = np.linalg.qr(random.normal(size=(3, 3)))[0]
    result[:3, :3], result[:3, 3] = rotation * [0.7, 1.5, 3.0], [10.0, -20.5, 30.25]
    return result


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64, np.uint32, ">i2"])
def test_the_engine_reads_what_the_panel_writes(tmp_path, dtype):
    array = np.abs(np.random.default_rng(1).normal(size=(3, 4, 5)) * 50).astype(dtype)
    path = tmp_path / "ä b.nrrd"
    writeNrrd(path, array, matrix())
    np.testing.assert_array_equal(readNrrd(path), array)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, array)
    corner = volume.geometry.index_to_lps((1, 2, 0)) * [-1, -1, 1]
    np.testing.assert_allclose(corner, (matrix() @ [1, 2, 0, 1])[:3], atol=1e-9)


def test_the_panel_reads_what_the_engine_writes(tmp_path):
    array = np.random.default_rng(2).normal(size=(6, 5, 4)).astype(np.float32)
    write_volume(Volume(array, Geometry.from_parts((6, 5, 4), (1, 2, 3))), tmp_path / "é.nrrd")
    np.testing.assert_array_equal(readNrrd(tmp_path / "é.nrrd"), array)


def test_a_view_of_voxels_in_another_order_is_written_as_it_looks(tmp_path):
    array = np.arange(60, dtype=np.int16).reshape(3, 4, 5)[::-1, :, ::2]
    writeNrrd(tmp_path / "view.nrrd", array, np.eye(4))
    np.testing.assert_array_equal(readNrrd(tmp_path / "view.nrrd"), array)


HEADER = "NRRD0004\ntype: {type}\ndimension: {dimension}\nsizes: {sizes}\nencoding: {encoding}\n\n"
GOOD = {"type": "uint8", "dimension": "3", "sizes": "2 2 2", "encoding": "raw"}
GOOD["type"] = "unsigned char"


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({}, b"1234567"),
        ({}, b"123456789"),
        ({"type": "block"}, b"12345678"),
        ({"dimension": "4"}, b"12345678"),
        ({"encoding": "bzip2"}, b"12345678"),
        ({"encoding": "gzip"}, b"no gzip at all"),
        ({"encoding": "gzip"}, gzip.compress(b"12345678", mtime=0)[:-10]),
        ({"encoding": "gzip"}, gzip.compress(b"1" * 100_000, mtime=0)),
        ({"sizes": "2 2"}, b"1234"),
        ({"sizes": "2 -2 -2"}, b"12345678"),
        ({"sizes": "many"}, b"12345678"),
    ],
)
def test_a_file_that_is_not_what_its_header_says_is_refused(tmp_path, changes, data):
    path = tmp_path / "bad.nrrd"
    path.write_bytes(HEADER.format(**(GOOD | changes)).encode() + data)
    with pytest.raises((ValueError, OSError)):
        readNrrd(path)


def test_what_is_no_nrrd_file_is_refused(tmp_path):
    (tmp_path / "x.nrrd").write_bytes(b"PK\x03\x04")
    with pytest.raises(ValueError, match="no NRRD"):
        readNrrd(tmp_path / "x.nrrd")
    with pytest.raises(OSError):
        readNrrd(tmp_path / "none.nrrd")


@pytest.mark.parametrize("components", ["all", "largest", "peak"])
@pytest.mark.parametrize("minimum_size_ml", [0.0, 0.05])
def test_the_mask_is_the_engine_s(components, minimum_size_ml):
    heatmap = np.random.default_rng(3).normal(size=(12, 13, 14)).astype(np.float32)
    foreground = np.zeros(heatmap.shape, bool)
    foreground[2:-2, 2:-2, 2:-2] = True
    heatmap[~foreground] = 0
    expected, _ = heatmap_to_mask(
        heatmap,
        foreground,
        0.9,
        EngineSettings(components=components, minimum_size_ml=minimum_size_ml),
        Geometry(heatmap.shape, np.diag([2.0, 2.5, 3.0, 1.0])),
    )
    mask = makeMask(heatmap, (2.0, 2.5, 3.0), MaskSettings(0.9, components, minimum_size_ml))
    np.testing.assert_array_equal(mask, expected)
