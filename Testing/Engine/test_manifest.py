"""Manifests: what is read, what is refused and how it is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from TomoSegLib.datasets.manifest import Case, Manifest, read_manifest, write_manifest
from TomoSegLib.errors import TomoSegError


def manifest_at(folder: Path, text: str, *, files: bool = True) -> Path:
    """A manifest with the given text; the files that its first columns name are created."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "manifest.csv"
    path.write_text(text, encoding="utf-8")
    if files:
        for line in text.splitlines()[1:]:
            for value in line.split(","):
                if value.endswith(".nii"):
                    target = folder / value
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.touch()
    return path


def code_of(path: Path) -> str:
    with pytest.raises(TomoSegError) as caught:
        read_manifest(path)
    return caught.value.code


GOOD = "path,label,split\na.nii,1,train\nb.nii,0,train\nc.nii,1,val\n"


def test_paths_are_relative_to_the_manifest_and_survive_blanks_and_accents(tmp_path: Path) -> None:
    text = "path,label,split,mask\nTête 1/x y.nii,1,test,Tête 1/m.nii\n\n"
    manifest = read_manifest(manifest_at(tmp_path / "ö ä", text))
    (case,) = manifest.cases
    assert case.paths == {"image": tmp_path / "ö ä" / "Tête 1" / "x y.nii"}
    assert case.mask == tmp_path / "ö ä" / "Tête 1" / "m.nii"
    assert (case.id, case.group, case.label) == ("Tête 1/x y.nii", "Tête 1/x y.nii", 1)


def test_byte_order_mark_and_other_columns_are_ignored(tmp_path: Path) -> None:
    path = manifest_at(tmp_path, "\ufeffpath,label,split,age\na.nii,1,train,63\n")
    assert read_manifest(path).cases[0].label == 1


def test_channels_come_in_the_order_that_the_model_asks_for(tmp_path: Path) -> None:
    text = "path_flair,path_t1c,label,split\na.nii,b.nii,1,test\n"
    manifest = read_manifest(manifest_at(tmp_path, text))
    assert manifest.channels == ("flair", "t1c")
    assert manifest.cases[0].channel_paths(["t1c", "flair"]) == [
        tmp_path / "b.nii",
        tmp_path / "a.nii",
    ]
    with pytest.raises(TomoSegError) as caught:
        manifest.cases[0].channel_paths(["t2"])
    assert caught.value.code == "manifest-channels"
    assert "path_t2" in caught.value.hint


def test_plain_path_fits_a_model_with_one_channel_only(tmp_path: Path) -> None:
    case = read_manifest(manifest_at(tmp_path, GOOD)).cases[0]
    assert case.channel_paths(["flair"]) == [tmp_path / "a.nii"]
    with pytest.raises(TomoSegError):
        case.channel_paths(["flair", "t1c"])


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("manifest-columns", "file,label,split\na.nii,1,train\n"),
        ("manifest-columns", "path,split\na.nii,train\n"),
        ("manifest-columns", "path,label\na.nii,1\n"),
        ("manifest-columns", "path,path_t1,label,split\na.nii,b.nii,1,train\n"),
        ("manifest-columns", "path,label,label,split\na.nii,1,1,train\n"),
        ("manifest-columns", "path;label;split\na.nii;1;train\n"),
        ("manifest-columns", ""),
        ("manifest-empty", "path,label,split\n"),
        ("manifest-label", "path,label,split\na.nii,yes,train\n"),
        ("manifest-label", "path,label,split\na.nii,2,train\n"),
        ("manifest-split", "path,label,split\na.nii,1,training\n"),
        ("manifest-path", "path,label,split\n,1,train\n"),
        ("manifest-unreadable", "path,label,split\na.nii,1\n"),
        ("manifest-unreadable", 'path,label,split\n"a.nii,1,train\n'),
        ("manifest-duplicate", "path,label,split\na.nii,1,train\n./a.nii,0,train\n"),
        ("manifest-duplicate", "path,label,split,id\na.nii,1,train,x\nb.nii,0,train,x\n"),
        ("manifest-leak", "path,label,split,group\na.nii,1,train,p\nb.nii,0,test,p\n"),
    ],
)
def test_malformed_manifests_are_refused(tmp_path: Path, code: str, text: str) -> None:
    assert code_of(manifest_at(tmp_path, text)) == code


def test_missing_and_binary_manifests_are_refused(tmp_path: Path) -> None:
    assert code_of(tmp_path / "none.csv") == "manifest-not-found"
    assert code_of(tmp_path) == "manifest-not-found"
    (tmp_path / "binary.csv").write_bytes(b"\xff\xfe\x00\x01" * 50)
    assert code_of(tmp_path / "binary.csv") == "manifest-unreadable"


def test_missing_files_are_counted_and_the_first_named(tmp_path: Path) -> None:
    rows = "".join(f"v{n}.nii,{n % 2},train\n" for n in range(7))
    path = manifest_at(tmp_path, "path,label,split\n" + rows, files=False)
    (tmp_path / "v0.nii").touch()
    with pytest.raises(TomoSegError) as caught:
        read_manifest(path)
    assert caught.value.code == "manifest-missing-files"
    assert "6 of the 7" in caught.value.message
    assert "v1.nii" in caught.value.message and "3 more" in caught.value.message
    assert len(read_manifest(path, check_files=False).cases) == 7


def test_a_series_in_a_dicom_folder_exists_where_the_folder_does(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    path = manifest_at(tmp_path, "path,label,split\nstudy::1.2.3,1,test\n")
    assert str(read_manifest(path).cases[0].paths["image"]).endswith("study::1.2.3")


def test_splits_are_selected_and_must_not_be_empty_or_of_one_class(tmp_path: Path) -> None:
    manifest = read_manifest(manifest_at(tmp_path, GOOD))
    assert [case.id for case in manifest.split("train", both_classes=True)] == ["a.nii", "b.nii"]
    assert [case.id for case in manifest.split("val", "train")] == ["a.nii", "b.nii", "c.nii"]
    for call, code in (
        (lambda: manifest.split("test"), "manifest-split-empty"),
        (lambda: manifest.split("val", both_classes=True), "manifest-one-class"),
    ):
        with pytest.raises(TomoSegError) as caught:
            call()
        assert caught.value.code == code


@pytest.mark.parametrize("channels", [("image",), ("flair", "t1c")])
def test_what_is_written_is_read_again(tmp_path: Path, channels: tuple[str, ...]) -> None:
    folder = tmp_path / "with, comma"
    folder.mkdir()
    elsewhere = tmp_path / "elsewhere.nii"
    cases = [
        Case(
            id=f"case {n}",
            paths={name: folder / f"{name}{n}.nii" for name in channels},
            label=n % 2,
            split="test" if n > 1 else "train",
            mask=elsewhere if n % 2 else None,
            group=f"head{n // 2}",
        )
        for n in range(4)
    ]
    write_manifest(folder / "manifest.csv", cases)
    manifest = read_manifest(folder / "manifest.csv", check_files=False)
    assert manifest == Manifest(folder / "manifest.csv", channels, tuple(cases))
    header, first = (folder / "manifest.csv").read_text(encoding="utf-8").splitlines()[:2]
    assert ("path," in header) == (channels == ("image",))
    assert str(tmp_path) not in first  # the folder can be moved
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.csv"]
