"""Which volumes a batch is made of, and what is one volume and no batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.batch_cases import find_cases


def series(folder: Path, study: str | None = None, images: int = 2) -> str:
    """Files with what tells a series from others; returns the study's UID."""
    folder.mkdir(parents=True, exist_ok=True)
    study, uid = study or generate_uid(), generate_uid()
    for number in range(images):
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        item = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        item.SOPClassUID, item.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
        item.StudyInstanceUID, item.SeriesInstanceUID = study, uid
        item.Rows = item.Columns = 2
        item.PixelData = np.zeros(4, "<u2").tobytes()
        item.BitsAllocated = 16
        item.save_as(folder / f"{number}", enforce_file_format=True)
    return study


def test_a_folder_of_volume_files_has_a_case_a_file(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nrrd", "a.mha", "c.seg.nrrd", "notes.txt", ".hidden.nii"):
        (tmp_path / name).touch()
    cases = find_cases(tmp_path)
    assert cases is not None
    assert [case["id"] for case in cases] == ["a", "a-2", "b"]
    assert cases[2]["input"] == str(tmp_path / "b.nii.gz")


def test_a_file_and_a_folder_without_volumes_are_no_batch(tmp_path: Path) -> None:
    (tmp_path / "scan.nii.gz").touch()
    (tmp_path / "empty").mkdir()
    assert find_cases(tmp_path / "scan.nii.gz") is None
    assert find_cases(tmp_path / "empty") is None
    assert find_cases(tmp_path / "nothing") is None
    assert find_cases(tmp_path / "nothing.csv") is None


def test_a_dicom_series_is_one_volume_wherever_it_lies(tmp_path: Path) -> None:
    series(tmp_path / "flat")
    series(tmp_path / "deep" / "patient" / "study" / "series")
    assert find_cases(tmp_path / "flat") is None
    assert find_cases(tmp_path / "deep") is None


def test_series_of_one_study_are_no_batch(tmp_path: Path) -> None:
    """A T1 scan of the patient is not to be run through a model for FLAIR unasked."""
    study = series(tmp_path / "flair")
    series(tmp_path / "t1", study)
    assert find_cases(tmp_path) is None


def test_folders_of_different_studies_are_a_batch(tmp_path: Path) -> None:
    series(tmp_path / "p2" / "series")
    series(tmp_path / "p1")
    (tmp_path / "nothing").mkdir()
    cases = find_cases(tmp_path)
    assert cases is not None
    assert [case["id"] for case in cases] == ["p1", "p2"]


def test_a_study_that_is_spread_over_two_folders_is_not_guessed_at(tmp_path: Path) -> None:
    study = series(tmp_path / "a")
    series(tmp_path / "b", study)
    series(tmp_path / "c")
    assert find_cases(tmp_path) is None


def test_a_table_names_paths_ids_and_foregrounds(tmp_path: Path) -> None:
    table = tmp_path / "Täble.CSV"
    table.write_text(
        "id,path,foreground,label,age\nx,sub/a.nii.gz,m.nii.gz,1,7\n,/abs/b.nii.gz,,0,8\n",
        encoding="utf-8",
    )
    assert find_cases(table) == [
        {
            "id": "x",
            "input": str(tmp_path / "sub" / "a.nii.gz"),
            "foreground": str(tmp_path / "m.nii.gz"),
        },
        {"id": "abs_b", "input": "/abs/b.nii.gz"},
    ]


def test_a_table_may_have_a_column_for_each_channel(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("path_flair,path_t1c\nf.nii,t.nii\n", encoding="utf-8-sig")
    cases = find_cases(table)
    assert cases == [
        {
            "id": "f",
            "channels": {"flair": str(tmp_path / "f.nii"), "t1c": str(tmp_path / "t.nii")},
        }
    ]


def test_ids_are_names_of_folders_and_differ(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    rows = ["../../etc", "..", "CON:x", "a", "A", "x" * 300, "a/b"]
    table.write_text("id,path\n" + "".join(f"{row},v.nii\n" for row in rows), encoding="utf-8")
    cases = find_cases(table)
    assert cases is not None
    ids = [str(case["id"]) for case in cases]
    assert ids[:5] == ["etc", "case", "CON_x", "a", "A-2"]
    assert len(ids[5]) == 100
    assert ids[6] == "a_b"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "batch-columns"),
        ("name,label\na,1\n", "batch-columns"),
        ("path,path_flair\na,b\n", "batch-columns"),
        ("path,path\na,b\n", "batch-columns"),
        ("path\n", "batch-empty"),
        ("path,id\n,a\n", "batch-row"),
        ("path\na.nii,b,c\n", "batch-row"),
        ('path\n"unfinished\n', "batch-unreadable"),
    ],
)
def test_tables_that_make_no_sense_are_refused(tmp_path: Path, text: str, code: str) -> None:
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    with pytest.raises(TomoSegError) as caught:
        find_cases(tmp_path / "t.csv")
    assert caught.value.code == code


def test_a_table_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"path\n\xff\xfe\x00")
    with pytest.raises(TomoSegError) as caught:
        find_cases(tmp_path / "t.csv")
    assert caught.value.code == "batch-unreadable"
