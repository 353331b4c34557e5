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
    ],
)
def test_manifests_that_cannot_be_learned_from_are_refused(tmp_path, rows, code):
    for name in ("a.nii", "b.nii", "l.nii"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(TomoSegError) as caught:
        read_labelled(tmp_path / "cases.csv")
    assert caught.value.code == code
