"""The multi-scale cube generator: scales, intensities, the cache and the order of cubes."""

from __future__ import annotations

import csv
import os
from dataclasses import replace

import numpy as np
import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.pretraining.cubes import CubeOptions, CubePool, make_cubes, normalized, resized
from TomoSegLib.pretraining.manifest import PoolVolume, read_pool
from TomoSegLib.pretraining.tasks import CubeDataset, Restoration
from TomoSegLib.training.loader import order

OPTIONS = CubeOptions(shape=(16, 32, 32), counts=(3, 4, 5))
OBLIQUE = [[0.96, -0.28, 0], [0.28, 0.96, 0], [0, 0, -1]]


def ramps(shape, spacing, direction=None):
    """A volume whose value is its LPS position along z, and the same along x."""
    geometry = Geometry.from_parts(shape, spacing, direction)
    k, j, i = np.indices(shape)
    position = geometry.index_to_lps(np.stack([i, j, k], axis=-1))
    return Volume(position[..., 2].astype(np.float32), geometry)


def save(volume, path, modality="MR", dataset=""):
    write_volume(volume, path)
    return PoolVolume(path, modality, dataset)


def textured(seed, shape=(40, 48, 56)):
    rng = np.random.default_rng(seed)
    coarse = rng.normal(100, 30, [n // 8 for n in shape])
    array = np.kron(coarse, np.ones((8, 8, 8))) + rng.normal(0, 5, shape)
    return Volume(array.astype(np.float32), Geometry.from_parts(shape, (1, 1, 1)))


def test_crops_have_the_sides_of_their_scale(tmp_path):
    # In a volume whose intensity is the position, a cube's range tells its extent.
    volume = ramps((64, 64, 64), (1, 1, 1))
    source = save(volume, tmp_path / "v.nii.gz")
    options = replace(OPTIONS, mr_percentiles=(0.0, 100.0))
    pool = CubePool(make_cubes([source], options, tmp_path / "cubes"), [source], options)
    assert len(pool) == 12
    for index in range(len(pool)):
        cube = pool[index]
        assert cube.image.shape == (1, 16, 32, 32) and cube.image.dtype == np.float32
        side = 64 * options.scales[cube.scale]
        # 16 samples over the side along k, the first and last half a step from the ends.
        extent = (cube.image.max() - cube.image.min()) * 63
        assert extent == pytest.approx(side - side / 16, abs=0.15 * side)
    assert [pool[n].scale for n in range(12)] == [0] * 3 + [1] * 4 + [2] * 5


def test_volumes_come_to_one_voxel_size_and_orientation():
    straight = ramps((30, 40, 50), (2, 2, 3))
    turned = ramps((30, 40, 50), (2, 2, 3), OBLIQUE)
    for volume in (straight, turned):
        image = normalized(volume, PoolVolume(None, "MR"), replace(OPTIONS, scales=(0.5,)))
        assert image.shape == (90, 80, 100)
        assert image.min() >= 0 and image.max() <= 1
        # Along k the patient's z rises, whichever way the file ran.
        assert image[-1].mean() > 0.95 and image[0].mean() < 0.05
        # Splines are mirrored at the outermost voxels.
        assert np.all(np.diff(image.mean(axis=(1, 2)))[2:-2] > 0)


def test_hounsfield_units_have_a_fixed_window():
    array = np.random.default_rng(0).normal(0, 1500, (40, 40, 40)).astype(np.float32)
    array[:20, :, :] = -3000
    array[20:30] = 0
    volume = Volume(array, Geometry.from_parts(array.shape, (1, 1, 1)))
    image = normalized(volume, PoolVolume(None, "CT"), OPTIONS)
    np.testing.assert_allclose(image[2:16], 0.0, atol=0.02)
    np.testing.assert_allclose(image[24:27], 0.5, atol=0.05)
    soft = normalized(volume, PoolVolume(None, "CT"), replace(OPTIONS, ct_window=(0.0, 100.0)))
    assert soft[24:27].mean() < 0.05


def test_the_background_of_a_skull_stripped_scan_becomes_zero():
    array = np.zeros((40, 40, 40), np.float32)
    array[10:30, 10:30, 10:30] = np.random.default_rng(0).normal(0, 1, (20, 20, 20))
    volume = Volume(array, Geometry.from_parts(array.shape, (1, 1, 1)))
    image = normalized(volume, PoolVolume(None, "MR"), OPTIONS)
    assert abs(float(image[:8].max())) < 1e-6
    assert image[12:28, 12:28, 12:28].mean() == pytest.approx(0.5, abs=0.05)


def test_resizing_keeps_the_extent_and_the_mean():
    ramp = np.broadcast_to(np.linspace(0, 1, 20, dtype=np.float32)[:, None, None], (20, 24, 12))
    small = resized(ramp, (10, 48, 12))
    assert small.shape == (10, 48, 12)
    assert small.mean() == pytest.approx(0.5, abs=1e-3)
    np.testing.assert_allclose(np.diff(small.mean(axis=(1, 2)))[2:-2], 2 / 19, atol=0.01)


def test_a_data_set_can_have_its_own_numbers_of_cubes(tmp_path):
    volumes = [
        save(textured(0), tmp_path / "a.nii.gz", dataset="a"),
        save(textured(1), tmp_path / "b.nii.gz", dataset="b"),
    ]
    options = replace(OPTIONS, dataset_counts={"b": (0, 1, 2)})
    files = make_cubes(volumes, options, tmp_path / "cubes")
    assert len(CubePool(files[:1], volumes[:1], options)) == 12
    assert len(CubePool(files[1:], volumes[1:], options)) == 3
    assert len(CubePool(files, volumes, options, scales=(2,))) == 7


def test_cubes_are_made_once_and_again_where_a_file_is_damaged(tmp_path):
    volumes = [save(textured(0), tmp_path / "a.nii.gz")]
    (file,) = make_cubes(volumes, OPTIONS, tmp_path / "cubes")
    content, time = file.read_bytes(), file.stat().st_mtime_ns
    assert make_cubes(volumes, OPTIONS, tmp_path / "cubes") == [file]
    assert file.stat().st_mtime_ns == time
    file.write_bytes(content[:-100])
    make_cubes(volumes, OPTIONS, tmp_path / "cubes")
    assert file.read_bytes() == content
    write_volume(textured(1), volumes[0].path)
    os.utime(volumes[0].path, ns=(1, 1))
    (other,) = make_cubes(volumes, OPTIONS, tmp_path / "cubes")
    assert other != file and other.read_bytes() != content


def test_the_same_cubes_come_from_several_processes_and_another_manifest(tmp_path):
    volumes = [save(textured(n), tmp_path / f"{n}.nii.gz") for n in range(2)]
    here = make_cubes(volumes, OPTIONS, tmp_path / "here")
    there = make_cubes(volumes[::-1], OPTIONS, tmp_path / "there", workers=1)[::-1]
    assert [file.read_bytes() for file in here] == [file.read_bytes() for file in there]
    other = make_cubes(volumes, replace(OPTIONS, seed=1), tmp_path / "here")
    assert here[0].read_bytes() != other[0].read_bytes()


def test_files_of_one_name_are_cut_elsewhere_for_every_patient_wherever_the_pool_lies(tmp_path):
    def cubes_of(root, patient):
        (root / "pool" / "hgg" / patient).mkdir(parents=True, exist_ok=True)
        source = save(textured(0), root / "pool" / "hgg" / patient / "flair.nii.gz")
        return make_cubes([source], OPTIONS, tmp_path / "cubes")[0].read_bytes()

    first = cubes_of(tmp_path, "1")
    assert first != cubes_of(tmp_path, "2")
    assert first == cubes_of(tmp_path / "moved", "1")


def test_empty_air_is_rarely_a_cube(tmp_path):
    array = np.full((64, 64, 64), -1000, np.float32)
    array[24:40, 24:40, 24:40] = np.random.default_rng(0).normal(0, 200, (16, 16, 16))
    volume = Volume(array, Geometry.from_parts(array.shape, (1, 1, 1)))
    source = save(volume, tmp_path / "v.nii.gz", "CT")
    options = replace(OPTIONS, counts=(0, 0, 40))
    pool = CubePool(make_cubes([source], options, tmp_path / "cubes"), [source], options)
    # By chance a crop of 8 voxels would meet the 16 ** 3 in (23 / 57) ** 3 = 7 % of the places.
    filled = np.mean([pool[n].image.std() > 0.02 for n in range(40)])
    assert filled > 0.3


def test_volumes_too_small_for_the_smallest_crop_are_refused(tmp_path):
    source = save(textured(0, (16, 48, 48)), tmp_path / "thin.nii.gz")
    with pytest.raises(TomoSegError) as caught:
        make_cubes([source], OPTIONS, tmp_path / "cubes")
    assert caught.value.code == "volume-too-small"
    assert "thin.nii.gz" in caught.value.message and "48 x 48 x 16 mm" in caught.value.message


def test_every_epoch_sees_every_cube_once_and_goes_on_from_any_step():
    whole = list(order(10, 4, seed=3, first_step=0, last_step=10))
    assert [position for batch in whole for position, _ in batch] == list(range(40))
    cubes = [index for batch in whole for _, index in batch]
    for epoch in range(4):
        assert sorted(cubes[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert cubes[:10] != cubes[10:20]
    assert list(order(10, 4, seed=3, first_step=6, last_step=10)) == whole[6:]
    assert list(order(10, 4, seed=4, first_step=0, last_step=10)) != whole


def test_what_a_cube_becomes_depends_on_its_place_in_the_training_alone(tmp_path):
    source = save(textured(0), tmp_path / "v.nii.gz")
    pool = CubePool(make_cubes([source], OPTIONS, tmp_path / "cubes"), [source], OPTIONS)
    data = CubeDataset(pool, Restoration(8, 3).prepare, (0, 1))
    again = CubeDataset(pool, Restoration(8, 3).prepare, (0, 1))
    first = data[(7, 2)]
    data[(8, 2)]
    for name, value in again[(7, 2)].items():
        assert np.array_equal(value, first[name])
    assert not np.array_equal(data[(8, 2)]["image"], first["image"])
    assert first["scale"] == 0 and first["modality"] == 1


@pytest.fixture
def table(tmp_path):
    def write(*rows):
        for row in rows[1:]:
            if row[0] != "none.nii":
                (tmp_path / row[0]).write_bytes(b"")
        with (tmp_path / "pool.csv").open("w", newline="") as stream:
            csv.writer(stream).writerows(rows)
        return tmp_path / "pool.csv"

    return write


def test_a_pool_leaves_test_rows_out(table):
    path = table(
        ["image", "modality", "split"],
        ["a.nii", "ct", "train"],
        ["b.nii", "MRI", ""],
        ["c.nii", "MR", "test"],
    )
    volumes = read_pool(path)
    assert [volume.path.name for volume in volumes] == ["a.nii", "b.nii"]
    assert [volume.modality for volume in volumes] == ["CT", "MR"]


def test_some_volumes_are_held_out_but_never_the_only_one_of_a_modality(table):
    path = table(["image", "modality"], ["a.nii", "CT"], ["b.nii", "MR"], ["c.nii", "MR"])
    held_out = [[v.validation for v in read_pool(path, seed=seed)] for seed in range(8)]
    assert all(row[0] is False and sum(row) == 1 for row in held_out)
    assert len({tuple(row) for row in held_out}) == 2
    named = table(["image", "modality", "split"], ["a.nii", "CT", "val"], ["b.nii", "CT", "train"])
    assert [volume.validation for volume in read_pool(named)] == [True, False]


def test_whole_patients_are_held_out(table):
    rows = [[f"{p}-{c}.nii", "MR", f"patient {p}"] for p in range(10) for c in ("t1", "flair")]
    path = table(["image", "modality", "group"], *rows)
    for seed in range(8):
        held_out = [v for v in read_pool(path, seed=seed) if v.validation]
        assert len(held_out) == 2 and len({v.group for v in held_out}) == 1
    both = [["a.nii", "CT", "x"], ["b.nii", "MR", "x"], ["c.nii", "MR", "y"], ["d.nii", "MR", "z"]]
    for seed in range(8):  # x has the only CT
        volumes = read_pool(table(["image", "modality", "group"], *both), seed=seed)
        assert [v.group for v in volumes if v.validation] in (["y"], ["z"])


def test_few_volumes_of_a_modality_all_serve_to_train_where_others_can_be_spared(table):
    of_mr = [[f"{n}.nii", "MR"] for n in range(20)]
    path = table(["image", "modality"], ["chest.nii", "CT"], ["head.nii", "CT"], *of_mr)
    for seed in range(8):
        volumes = read_pool(path, seed=seed)
        assert [v.modality for v in volumes if v.validation] == ["MR", "MR"]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([["path"], ["a.nii"]], "manifest-columns"),
        ([["image"], ["a.nii"]], "manifest-modality"),
        ([["image", "modality"], ["a.nii", "PET"]], "manifest-modality"),
        ([["image", "modality", "split"], ["a.nii", "CT", "holdout"]], "manifest-split"),
        ([["image", "modality"], ["a.nii", "CT"], ["a.nii", "CT"]], "manifest-duplicate"),
        ([["image", "modality"], ["none.nii", "CT"]], "manifest-missing-files"),
        ([["image", "modality"]], "manifest-split-empty"),
        ([["image", "modality", "split"], ["a.nii", "CT", "val"]], "manifest-split-empty"),
    ],
)
def test_manifests_that_make_no_pool_are_refused(table, rows, code):
    with pytest.raises(TomoSegError) as caught:
        read_pool(table(*rows))
    assert caught.value.code == code


def test_a_modality_can_be_given_for_all_rows(table):
    assert read_pool(table(["image"], ["a.nii"]), "CT")[0].modality == "CT"
