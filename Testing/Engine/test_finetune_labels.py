"""What labels are called on the command line and on the card."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.segmentation import DEFAULT_TERMINOLOGY
from TomoSegLib.training.segmentation_card import terminology
from TomoSegLib.training.segmentation_manifest import (
    LabelledCase,
    LabelSpec,
    fraction_of,
    parse_labels,
    read_labelled,
)


def test_labels_are_read_with_one_value_or_several():
    assert parse_labels("liver=1, tumour core = 2 + 3") == [
        LabelSpec("liver", (1,)),
        LabelSpec("tumour core", (2, 3)),
    ]


@pytest.mark.parametrize(
    "text", ["", "liver", "liver=", "=1", "a=0", "a=256", "a=1,a=2", "a=1,b=1"]
)
def test_labels_that_make_no_sense_are_refused(text):
    with pytest.raises(TomoSegError) as caught:
        parse_labels(text)
    assert caught.value.code == "labels-invalid"


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("liver", "SCT^10200004^Liver"),
        ("Whole tumour", "SCT^108369006^Neoplasm"),
        ("left-kidney", "SCT^64033007^Kidney"),
        ("peritumoral_edema", "SCT^79654002^Edema"),
        ("liver tumour", "SCT^108369006^Neoplasm"),
        ("lung-nodule", "SCT^27925004^Nodule"),
        ("left ventricle", "SCT^87878005^Left ventricle of heart"),
        ("Right_Ventricle", "SCT^53085002^Right ventricle of heart"),
        ("thing", "SCT^85756007^Tissue"),
    ],
)
def test_terminology_has_the_parts_of_slicers_entries(name, code):
    entry = terminology(name)
    assert entry.count("~") == DEFAULT_TERMINOLOGY.count("~") and f"~{code}~^^~" in entry
    category = entry.split("~")[1]
    assert category.split("^")[0] == "SCT" and len(category.split("^")) == 3


def cases(groups):
    return [
        LabelledCase(f"{g}-{n}", (Path("i"),), Path("l"), "train", g)
        for g in groups
        for n in range(2)
    ]


def test_fractions_take_whole_patients_by_the_seed():
    everyone = cases([f"p{n:02d}" for n in range(20)])
    for share, count in ((Fraction(1, 50), 1), (Fraction(1, 10), 2), (Fraction(1, 2), 10)):
        used = fraction_of(everyone, share, seed=0)
        assert len(used) == 2 * count and len({case.group for case in used}) == count
    others = fraction_of(everyone, Fraction(1, 2), seed=1)
    assert others != fraction_of(everyone, Fraction(1, 2), seed=0)
    assert fraction_of(everyone, Fraction(1), seed=0) == everyone


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        (["path,label,split", "a.nii,l.nii,train"], "manifest-columns"),
        (["image,image_flair,label,split", "a.nii,a.nii,l.nii,train"], "manifest-columns"),
        (["image,label,split", "a.nii,l.nii,practice"], "manifest-split"),
        (["image,label,split", "a.nii,l.nii,val"], "manifest-split-empty"),
        (["image,label,split", "a.nii,,train"], "manifest-missing-files"),
        (["image,label,split", "a.nii,none.nii,train"], "manifest-missing-files"),
        (["image,label,split", "a.nii,l.nii,train", "a.nii,l.nii,train"], "manifest-duplicate"),
        (
            ["image,label,split,group", "a.nii,l.nii,train,p1", "b.nii,l.nii,test,p1"],
            "manifest-leak",
        ),
        (
            ["id,image,label,split", "one,a.nii,l.nii,train", "two,./a.nii,l.nii,test"],
            "manifest-leak",
        ),
        (
            ["id,image,label,split", "one,a.nii::0,l.nii,train", "two,a.nii::1,l.nii,test"],
            "manifest-leak",
        ),
        (["image,image,label,split", "a.nii,b.nii,l.nii,train"], "manifest-columns"),
        (["image;label;split", "a.nii;l.nii;train"], "manifest-columns"),
    ],
)
def test_manifests_that_cannot_be_learned_from_are_refused(tmp_path, rows, code):
    for name in ("a.nii", "b.nii", "l.nii"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(TomoSegError) as caught:
        read_labelled(tmp_path / "cases.csv")
    assert caught.value.code == code


def header(folder, *columns):
    """A manifest of one case with these image columns, read."""
    rows = [
        ",".join([*columns, "label", "split"]),
        ",".join([*["a.nii"] * (len(columns) + 1), "train"]),
    ]
    (folder / "a.nii").write_bytes(b"")
    (folder / "cases.csv").write_text("\n".join(rows) + "\n")
    return read_labelled(folder / "cases.csv")


def test_channels_are_called_in_small_letters_however_they_are_written(tmp_path):
    channels, found = header(tmp_path, "image_FLAIR", "image_T1ce")
    assert channels == ("flair", "t1ce") and len(found[0].paths) == 2


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (["image_t1 gd"], "image_t1 gd is no name"),
        (["image_T1", "image_t1"], "case does not count"),
        (["image_"], "names no channel"),
        ([f"image_{n}" for n in range(17)], "17 channels are more than 16"),
    ],
)
def test_channels_that_no_model_could_have_are_refused_before_anything_is_trained(
    tmp_path, columns, problem
):
    with pytest.raises(TomoSegError, match=problem) as caught:
        header(tmp_path, *columns)
    assert caught.value.code == "manifest-columns"


def test_a_table_with_semicolons_is_told_what_separates_columns(tmp_path):
    (tmp_path / "cases.csv").write_text("image;label;split\n")
    with pytest.raises(TomoSegError) as caught:
        read_labelled(tmp_path / "cases.csv")
    assert "commas" in caught.value.hint


def test_columns_that_mean_nothing_may_repeat(tmp_path):
    (tmp_path / "a.nii").write_bytes(b"")
    (tmp_path / "cases.csv").write_text("image,label,split,note,note,,\na.nii,a.nii,train,1,2,,\n")
    channels, found = read_labelled(tmp_path / "cases.csv")
    assert channels == ("image",) and len(found) == 1


def test_several_series_of_one_folder_may_be_of_several_patients(tmp_path):
    (tmp_path / "dicom").mkdir()
    (tmp_path / "l.nii").write_bytes(b"")
    rows = ["image,label,split", "dicom::1.2,l.nii,train", "dicom::1.3,l.nii,test"]
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    assert len(read_labelled(tmp_path / "cases.csv")[1]) == 2
