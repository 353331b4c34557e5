"""Pipes are not waited for, and names that are not UTF-8 cost one case, not all."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from TomoSegLib.cli import main
from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.jobs.batch_cases import find_cases
from TomoSegLib.studies.reading import read_study

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="names are bytes on Linux alone")

BAD = os.fsdecode(b"caf\xe9.nii.gz")


def nifti(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.ones((8, 8, 4), np.int16), np.diag([1, 1, 5, 1])), path)


@pytest.mark.parametrize("command", [["rerun", "-o", "out"], ["export", "--csv"]])
@pytest.mark.parametrize("inside", [False, True])
def test_a_pipe_in_the_place_of_a_result_is_not_waited_for(
    tmp_path: Path, command: list[str], inside: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "result.json")
    place = tmp_path if inside else tmp_path / "result.json"
    name, *options = command
    assert main([name, str(place), *options]) == 2
    told = capsys.readouterr().err
    assert "[result-unreadable]" in told and "regular file" in told and told.count("\n") == 1


def test_a_name_that_is_not_utf8_costs_one_case(tmp_path: Path) -> None:
    nifti(tmp_path / "good.nii.gz")
    shutil.copy(tmp_path / "good.nii.gz", tmp_path / BAD)
    with pytest.warns(TomoSegWarning) as caught:
        cases = find_cases(tmp_path)
    assert cases is not None and [case["id"] for case in cases] == ["good"]
    assert "caf\ufffd.nii.gz" in str(caught[0].message)
    json.dumps(cases).encode().decode()


def test_a_single_volume_of_such_a_name_is_refused_by_it(tmp_path: Path) -> None:
    with pytest.raises(TomoSegError, match="caf\ufffd.nii.gz") as caught:
        find_cases(tmp_path / BAD)
    assert caught.value.code == "path-invalid"


def test_a_study_with_such_names_is_inspected(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"stud\xfdy")
    folder.mkdir()
    nifti(tmp_path / "a.nii.gz")
    shutil.copy(tmp_path / "a.nii.gz", folder / BAD)
    assert main(["planes", "inspect", str(folder), "-o", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "study.json").read_text(encoding="utf-8"))
    assert record["views"][0]["middle_slice_file"] == "caf\ufffd.nii.gz"


def test_a_pipe_among_a_study_s_files_is_not_waited_for(tmp_path: Path) -> None:
    nifti(tmp_path / "a.nii.gz")
    os.mkfifo(tmp_path / "b.nii.gz")
    os.mkfifo(tmp_path / "c.dcm")
    study = read_study(tmp_path)
    assert [view.id for view in study.views] == ["a.nii.gz"]
    assert any("b.nii.gz" in problem.files for problem in study.problems)
