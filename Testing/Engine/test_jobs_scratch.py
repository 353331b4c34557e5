"""The hidden working folder: results whole or not at all, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.scratch import (
    OWNER_FILE,
    Scratch,
    remove_stale,
    remove_unfinished_files,
)

NAMES = ("heatmap.nrrd", "result.json")


def fill(scratch: Scratch, text: str = "new") -> None:
    for name in NAMES:
        (scratch.results / name).write_text(text)


def test_results_appear_at_commit_and_not_before(tmp_path: Path) -> None:
    output = tmp_path / "a" / "b c" / "öut"
    scratch = Scratch(output, NAMES)
    fill(scratch)
    assert not output.exists()
    scratch.commit()
    assert sorted(p.name for p in output.iterdir()) == sorted(NAMES)
    assert [p.name for p in output.parent.iterdir()] == ["öut"]


def test_discard_leaves_nothing_not_even_folders_made_on_the_way(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "a" / "b" / "out", NAMES)
    fill(scratch)
    scratch.discard()
    assert list(tmp_path.iterdir()) == []


def test_other_results_are_not_overwritten_unless_it_is_said(tmp_path: Path) -> None:
    (tmp_path / "heatmap.nrrd").write_text("old")
    (tmp_path / "diary.txt").write_text("mine")
    before = sorted(p.name for p in tmp_path.iterdir())
    with pytest.raises(TomoSegError) as caught:
        Scratch(tmp_path, NAMES)
    assert caught.value.code == "output-exists"
    assert sorted(p.name for p in tmp_path.iterdir()) == before

    scratch = Scratch(tmp_path, NAMES, overwrite=True)
    fill(scratch)
    assert (tmp_path / "heatmap.nrrd").read_text() == "old"
    scratch.commit()
    assert (tmp_path / "heatmap.nrrd").read_text() == "new"
    assert (tmp_path / "diary.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".tomoseg*"))


def test_of_two_jobs_with_one_output_the_second_is_refused(tmp_path: Path) -> None:
    first, second = Scratch(tmp_path / "out", NAMES), Scratch(tmp_path / "out", NAMES)
    fill(first, "first")
    fill(second, "second")
    first.commit()
    with pytest.raises(TomoSegError) as caught:
        second.commit()
    second.discard()
    assert caught.value.code == "output-exists"
    assert (tmp_path / "out" / "result.json").read_text() == "first"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("existing", [False, True], ids=["beside", "inside"])
def test_the_folder_of_a_killed_process_is_removed_by_the_next(
    tmp_path: Path, existing: bool
) -> None:
    output = tmp_path / "out [1]*"
    if existing:
        output.mkdir()
    program = (
        "import os, sys, pathlib; from TomoSegLib.jobs.scratch import Scratch;"
        f"s = Scratch(pathlib.Path({str(output)!r}), {NAMES!r});"
        "(s.results / 'heatmap.nrrd').write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program], check=False)
    assert list(tmp_path.rglob(".tomoseg*"))
    Scratch(output, NAMES).discard()
    assert not list(tmp_path.rglob(".tomoseg*"))


def test_the_folder_of_a_living_process_is_kept(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "out", NAMES)
    remove_stale(tmp_path / "out")
    assert scratch.results.is_dir()


def test_the_folder_of_another_machine_is_kept_while_it_shows_life(tmp_path: Path) -> None:
    scratch = Scratch(tmp_path / "out", NAMES)
    owner = scratch.path / OWNER_FILE
    owner.write_text(json.dumps({"host": "another", "pid": 1, "created": 0.0}))
    remove_stale(tmp_path / "out")
    assert scratch.path.is_dir()
    os.utime(owner, (0, 0))
    remove_stale(tmp_path / "out")
    assert not scratch.path.exists()


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(TomoSegError) as caught:
        Scratch(tmp_path / "out", NAMES)
    assert caught.value.code == "output-unwritable"
    with pytest.raises(TomoSegError) as caught:
        Scratch(tmp_path / "out" / "below", NAMES)
    assert caught.value.code == "output-unwritable"


def test_only_what_a_killed_writer_has_left_counts_as_unfinished(tmp_path: Path) -> None:
    left = [f".tomoseg-{'0a' * 16}.csv", f"pictures/.tomoseg-{'1b' * 16}.png"]
    others = [".tomoseg-notes.txt", "summary.csv", "pictures/a.png", ".tomoseg-out-0123/x"]
    for name in (*left, *others):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    remove_unfinished_files(tmp_path)
    remove_unfinished_files(tmp_path / "not there")
    assert not any((tmp_path / name).exists() for name in left)
    assert all((tmp_path / name).exists() for name in others)
