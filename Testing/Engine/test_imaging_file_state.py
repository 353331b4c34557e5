"""What tells that a volume's files were changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.file_state import file_of, file_state
from TomoSegLib.training.checkpoint import refuse_unwritable


def touched(path, content=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_is_known_by_size_and_time_whichever_of_its_volumes_is_meant(tmp_path):
    path = touched(tmp_path / "a.nii.gz")
    before = file_state(path)
    assert [name for name, *_ in before] == ["a.nii.gz"]
    assert file_state(f"{path}::3") == before
    os.utime(path, ns=(1, 1))
    assert file_state(path) != before


@pytest.mark.parametrize(("header", "data"), [("1.2.mhd", "1.2.raw"), ("a.hdr", "a.img.gz")])
def test_a_header_counts_with_the_file_of_its_voxels(tmp_path, header, data):
    path, voxels = touched(tmp_path / header), touched(tmp_path / data)
    before = file_state(path)
    assert [name for name, *_ in before] == [header, data]
    touched(voxels, b"other")
    assert file_state(path) != before


def test_a_folder_counts_with_all_below_it_but_hidden_files(tmp_path):
    touched(tmp_path / "study" / "series" / "1.dcm")
    before = file_state(f"{tmp_path / 'study'}::1.2.3")
    touched(tmp_path / "study" / ".DS_Store")
    assert file_state(tmp_path / "study") == before
    touched(tmp_path / "study" / "series" / "1.dcm", b"other")
    assert file_state(tmp_path / "study") != before


def test_a_volume_lies_in_what_stands_before_the_last_two_colons(tmp_path):
    path = touched(tmp_path / "a::b" / "s.nii.gz")
    assert file_of(f"{path}::1") == file_of(path) == path
    assert file_of(f"{path.parent}::1.2.3") == path.parent
    assert file_of("none.nii") == Path("none.nii")


def test_what_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="none"):
        file_state(tmp_path / "none.nii")


def test_an_output_in_which_nothing_may_be_written_is_refused(tmp_path, monkeypatch):
    refuse_unwritable(tmp_path / "new" / "run")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(TomoSegError, match="nothing may be written") as caught:
        refuse_unwritable(tmp_path / "new" / "run")
    assert caught.value.code == "output-unwritable"
    monkeypatch.setattr(os.path, "exists", lambda _: False)
    with pytest.raises(TomoSegError, match="no such drive"):
        refuse_unwritable(tmp_path / "new" / "run")
