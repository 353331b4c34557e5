"""Manifests of public data sets, from tiny folders in the layouts in which they are published."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from TomoSegLib.cli import main
from TomoSegLib.datasets.adapters import find_scans, split_groups
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.pretraining.manifest import read_pool
from TomoSegLib.training.segmentation_manifest import parse_labels, read_labelled


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def luna16(folder):
    touch(folder, "subset0/1.2.mhd", "subset0/1.2.raw", "subset7/1.3.mhd")
    touch(folder, "seg-lungs-LUNA16/1.2.mhd", "subset0/._1.2.mhd", "other/9.mhd")


def lits(folder):
    touch(folder, "Training Batch 1/volume-0.nii", "Training Batch 1/segmentation-0.nii")
    touch(folder, "Training Batch 2/volume-28.nii", "Training Batch 2/segmentation-28.nii")
    touch(folder, "Testing/volume-100.nii.gz")


def brats(folder):
    for group, case in (("HGG", "Brats18_2013_2_1"), ("LGG", "Brats18_TCIA09_1")):
        for kind in ("flair", "t1", "t1ce", "t2", "seg"):
            touch(folder, f"{group}/{case}/{case}_{kind}.nii.gz")
    touch(folder, "survival_data.csv")


def brats2023(folder):
    for case in ("BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"):
        for kind in ("t1n", "t1c", "t2w", "t2f", "seg"):
            touch(folder, f"{case}/{case}-{kind}.nii.gz")


def msd(folder, modality=None, **changes):
    names = ("la_003.nii.gz", "la_004.nii.gz")
    for name in names:
        touch(folder, f"imagesTr/{name}", f"labelsTr/{name}", f"imagesTr/._{name}")
    touch(folder, "imagesTs/la_001.nii.gz")
    document = {
        "modality": modality or {"0": "MRI"},
        "labels": {"0": "background", "1": "left atrium"},
        "training": [{"image": f"./imagesTr/{n}", "label": f"./labelsTr/{n}"} for n in names],
        "test": ["./imagesTs/la_001.nii.gz"],
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("make", "layout", "scans", "channels", "labelled", "modality"),
    [
        (luna16, "luna16", ["1.2", "1.3"], ["image"], 1, "CT"),
        (lits, "lits", ["lits-100", "lits-000", "lits-028"], ["image"], 2, "CT"),
        (
            brats,
            "brats",
            ["Brats18_2013_2_1", "Brats18_TCIA09_1"],
            ["flair", "t1", "t1c", "t2"],
            2,
            "MR",
        ),
        (
            brats2023,
            "brats",
            ["BraTS-GLI-00005-000", "BraTS-GLI-00005-001", "BraTS-GLI-00006-000"],
            ["flair", "t1", "t1c", "t2"],
            3,
            "MR",
        ),
        (msd, "msd", ["la_003", "la_004"], ["image"], 2, "MR"),
    ],
)
def test_every_layout_gives_its_scans(
    tmp_path, capsys, make, layout, scans, channels, labelled, modality
):
    data = tmp_path / "data"
    make(data)
    found = find_scans(layout, data)
    assert [scan.id for scan in found] == scans
    assert all(list(scan.paths) == channels and scan.modality == modality for scan in found)
    assert sum(scan.label is not None for scan in found) == labelled

    pool = tmp_path / "pool.csv"
    arguments = ["manifest", layout, str(data), "--split", "1:0:0"]
    assert main([*arguments, "-o", str(pool)]) == 0
    volumes = read_pool(pool)
    assert len(volumes) == len(scans) * len(channels)
    assert {volume.modality for volume in volumes} == {modality}
    assert {volume.dataset for volume in volumes} == {layout}
    cases = tmp_path / "sub" / "cases.csv"
    cases.parent.mkdir()
    assert main([*arguments, "--labelled", "-o", str(cases)]) == 0
    names, read = read_labelled(cases)
    assert list(names) == channels and len(read) == labelled
    assert str(labelled) in capsys.readouterr().out


def test_one_channel_of_several_can_be_chosen(tmp_path):
    brats(tmp_path / "data")
    arguments = ["manifest", "brats", str(tmp_path / "data"), "--split", "1:0:0", "--labelled"]
    path = tmp_path / "cases.csv"
    assert main([*arguments, "--channel", "flair", "-o", str(path)]) == 0
    names, cases = read_labelled(path)
    assert names == ("image",) and cases[0].paths[0].name.endswith("_flair.nii.gz")
    assert main([*arguments, "--channel", "pet", "-o", str(tmp_path / "other.csv")]) == 2


def test_an_existing_manifest_is_not_replaced_unasked(tmp_path, capsys):
    msd(tmp_path)
    arguments = ["manifest", "msd", str(tmp_path), "-o", str(tmp_path / "pool.csv")]
    assert main(arguments) == 0
    assert main(arguments) == 2 and "[output-exists]" in capsys.readouterr().err
    assert main([*arguments, "--overwrite"]) == 0


def test_examinations_of_one_patient_share_a_split_and_the_split_repeats(tmp_path):
    brats2023(tmp_path)
    for number in range(10, 40):
        for examination in range(2):
            case = f"BraTS-GLI-{number:05d}-{examination:03d}"
            touch(tmp_path, *(f"{case}/{case}-{k}.nii.gz" for k in ("t1n", "t1c", "t2w", "t2f")))
    scans = find_scans("brats", tmp_path)
    splits = split_groups(scans, (2, 0, 1), seed=3)
    assert set(splits) == {scan.id[:15] for scan in scans}
    counts = [list(splits.values()).count(name) for name in ("train", "val", "test")]
    assert counts == [21, 0, 11]
    assert splits == split_groups(list(reversed(scans)), (2, 0, 1), seed=3)
    assert splits != split_groups(scans, (2, 0, 1), seed=4)


def test_a_pool_leaves_the_test_patients_of_the_fine_tuning_out(tmp_path):
    lits(tmp_path / "data")
    pool, cases = tmp_path / "pool.csv", tmp_path / "cases.csv"
    arguments = ["manifest", "lits", str(tmp_path / "data"), "--split", "1:0:1", "--seed", "1"]
    assert main([*arguments, "-o", str(pool)]) == 0
    assert main([*arguments, "--labelled", "-o", str(cases)]) == 0
    tests = {row["image"] for row in csv.DictReader(cases.open()) if row["split"] == "test"}
    seen = {str(volume.path.relative_to(tmp_path)) for volume in read_pool(pool)}
    assert not tests & seen and seen


@pytest.mark.parametrize("layout", ["luna16", "lits", "brats", "msd"])
def test_other_folders_are_refused(tmp_path, layout):
    touch(tmp_path, "holiday/beach.jpg")
    with pytest.raises(TomoSegError) as caught:
        find_scans(layout, tmp_path)
    assert caught.value.code == "dataset-layout"


def test_unknown_layouts_and_missing_folders_are_refused(tmp_path):
    for layout, folder in (("kits", tmp_path), ("msd", tmp_path / "nowhere")):
        with pytest.raises(TomoSegError) as caught:
            find_scans(layout, folder)
        assert caught.value.code == "dataset-layout"


def test_a_case_that_lacks_a_channel_is_refused(tmp_path):
    brats(tmp_path)
    (tmp_path / "LGG/Brats18_TCIA09_1/Brats18_TCIA09_1_t2.nii.gz").unlink()
    with pytest.raises(TomoSegError) as caught:
        find_scans("brats", tmp_path)
    assert caught.value.code == "dataset-incomplete" and "TCIA09" in caught.value.message


def test_a_description_that_names_files_elsewhere_or_missing_ones_is_refused(tmp_path):
    for image, code in (
        ("../../etc/passwd", "dataset-layout"),
        ("/etc/passwd", "dataset-layout"),
        ("imagesTr/none.nii.gz", "dataset-incomplete"),
    ):
        msd(tmp_path, training=[{"image": image, "label": "labelsTr/la_003.nii.gz"}])
        with pytest.raises(TomoSegError) as caught:
            find_scans("msd", tmp_path)
        assert caught.value.code == code


def test_channels_in_one_file_are_its_volumes_in_pre_training_and_fine_tuning(tmp_path):
    msd(tmp_path, {"0": "FLAIR", "1": "T1w"})
    rng = np.random.default_rng(0)
    for name in ("la_003.nii.gz", "la_004.nii.gz"):
        image = rng.normal((100, 400), 5, (20, 18, 16, 2)).astype(np.float32)
        label = np.zeros(image.shape[:3], np.uint8)
        label[4:12, 4:12, 4:12] = 1
        for folder, array in (("imagesTr", image), ("labelsTr", label)):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), tmp_path / folder / name)
    command = ["manifest", "msd", str(tmp_path), "--split", "1:0:1"]
    assert main([*command, "-o", str(tmp_path / "pool.csv")]) == 0
    pool = read_pool(tmp_path / "pool.csv")
    means = sorted(float(read_volume(volume.path).array.mean()) for volume in pool)
    assert [round(mean, -1) for mean in means] == [100, 400]
    labelled = tmp_path / "labelled.csv"
    assert main([*command, "--labelled", "--channel", "t1w", "-o", str(labelled)]) == 0
    command = ["finetune", "--manifest", str(labelled), "--labels", "atrium=1", "--steps", "1"]
    command += ["--features", "4,4,4,8,8,4", "--patch", "16x16x16", "--device", "cpu"]
    assert main([*command, "--output", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({"0": "background", "1": "left atrium", "2": "a, b=c"}, "left atrium=1,a b c=2"),
        ({"background": 0, "tumour": 2, "organ": 1}, "organ=1,tumour=2"),
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "rest": 3}, None),
        ({"1": "a,b", "2": "a b"}, None),
        ({"300": "far", "1": "near"}, None),
        ({"0": "background"}, None),
        (["background", "liver"], None),
        (
            {"1": "x\u2019; calc; \u2018y", "2": "a & calc `b` $c", "3": "'"},
            "x calc y=1,a calc b c=2,label 3=3",
        ),
    ],
)
def test_a_decathlon_task_says_what_its_labels_mean(tmp_path, capsys, labels, told):
    msd(tmp_path, labels=labels)
    command = ["manifest", "msd", str(tmp_path), "--labelled", "--split", "1:0:0"]
    assert main([*command, "-o", str(tmp_path / "cases.csv")]) == 0
    said = capsys.readouterr().out
    if told is None:
        assert "--labels" not in said
    else:
        assert f"--labels '{told}'" in said
        parse_labels(told)


def test_channels_that_are_called_alike_are_refused(tmp_path):
    msd(tmp_path, {"0": "MRI", "1": "MRI"})
    with pytest.raises(TomoSegError, match="alike"):
        find_scans("msd", tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        '{"training": 3}',
        '{"modality": {"0": "CT"}, "training": [4]}',
        '{"modality": ["CT"], "training": []}',
        "[" * 99_999,
    ],
)
def test_damaged_descriptions_are_refused(tmp_path, content):
    msd(tmp_path)
    (tmp_path / "dataset.json").write_text(content)
    with pytest.raises(TomoSegError) as caught:
        find_scans("msd", tmp_path)
    assert caught.value.code == "dataset-layout"


def test_luna16_may_lie_below_a_folder_called_like_one_of_its_own(tmp_path, monkeypatch):
    folder = tmp_path / "subset3" / "seg-lungs-LUNA16"
    luna16(folder)
    assert [scan.id for scan in find_scans("luna16", folder)] == ["1.2", "1.3"]
    monkeypatch.chdir(folder / "subset7")  # one subset alone
    assert [scan.id for scan in find_scans("luna16", Path())] == ["1.3"]


def test_a_scan_and_its_packed_copy_are_refused(tmp_path):
    lits(tmp_path)
    touch(tmp_path, "Training Batch 1/volume-0.nii.gz")
    with pytest.raises(TomoSegError, match=r"volume-0\.nii.*volume-0\.nii\.gz") as caught:
        find_scans("lits", tmp_path)
    assert caught.value.code == "dataset-duplicate"


def test_shares_that_are_no_numbers_are_refused(tmp_path, capsys):
    lits(tmp_path)
    command = ["manifest", "lits", str(tmp_path), "--output", str(tmp_path / "m.csv")]
    assert main([*command, "--split", "nan:1:1"]) == 2
    assert "nan:1:1" in capsys.readouterr().err
