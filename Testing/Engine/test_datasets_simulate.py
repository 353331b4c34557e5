"""Data sets of simulated volumes: manifest, resumption, refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from TomoSegLib.datasets import simulate
from TomoSegLib.datasets.manifest import read_manifest
from TomoSegLib.datasets.recipes import Recipe
from TomoSegLib.datasets.simulate import Simulation, simulate_dataset
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import read_volume


@pytest.fixture
def what(head_files: tuple[Path, Path], tmp_path: Path) -> Simulation:
    return Simulation(
        tmp_path / "data set",
        {"train": 4, "val": 2, "test": 1},
        {"train": "one", "val": "two", "test": "two"},
        {"one": head_files[0], "two": head_files[1]},
        Recipe(spacing_mm=6.0),
        seed=7,
    )


class _Here:
    """A pool of no processes, which would take seconds to start: everything is done at once."""

    def __init__(self, workers: int, context: object, start: object, arguments: tuple) -> None:
        simulate._anatomies.clear()
        simulate._files.clear()
        simulate._files.update(*arguments)

    def __enter__(self) -> _Here:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def submit(self, function, *arguments):  # type: ignore[no-untyped-def]
        from concurrent.futures import Future

        future: Future = Future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def shutdown(self, cancel_futures: bool) -> None:
        pass


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "ProcessPoolExecutor", _Here)


def refused(what: Simulation) -> TomoSegError:
    with pytest.raises(TomoSegError) as caught:
        simulate_dataset(what)
    return caught.value


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns) for p in files}


def test_volumes_masks_parameters_and_a_manifest_are_written(what: Simulation, here: None) -> None:
    told: list[tuple[int, int]] = []
    path = simulate_dataset(what, lambda done, total: told.append((done, total)))
    assert path == what.output / "manifest.csv"
    assert told == [(n, 7) for n in range(8)]
    cases = read_manifest(path).cases
    assert [case.split for case in cases] == ["train"] * 4 + ["val"] * 2 + ["test"]
    assert [case.label for case in cases] == [0, 1, 0, 1, 0, 1, 0]
    for case in cases:
        # Training's head is never seen in validation or test.
        assert case.group == ("one" if case.split == "train" else "two")
        image, mask = read_volume(case.paths["image"]), case.mask
        assert mask is not None
        parameters = json.loads((path.parent / "volumes" / f"{case.id}.json").read_text())
        assert parameters["label"] == case.label
        assert parameters["anatomy"] == case.group
        if case.label:
            found = read_volume(mask)
            assert found.geometry.is_close(image.geometry)
            voxels = int((found.array > 0).sum())
            assert voxels * 0.216 == pytest.approx(parameters["lesion_ml"], abs=1e-3)
    record = json.loads((what.output / "simulation.json").read_text())
    assert record["simulated"] is True
    assert record["recipe_version"] == Recipe.VERSION
    assert record["seed"] == 7
    assert record["recipe"]["spacing_mm"] == 6.0


def test_nothing_half_written_stays_behind(what: Simulation, here: None) -> None:
    simulate_dataset(what)
    assert {path.name for path in what.output.iterdir()} == {
        "manifest.csv",
        "simulation.json",
        "volumes",
    }
    assert len(list((what.output / "volumes").iterdir())) == 3 * 7


def test_a_simulation_that_was_stopped_goes_on_and_keeps_what_is_there(
    what: Simulation, here: None
) -> None:
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 3:
            raise Stopped

    with pytest.raises(Stopped):
        simulate_dataset(what, stop)
    assert not (what.output / "manifest.csv").exists()
    # This case lacks its mask, as if the process had been killed before it was written.
    (what.output / "volumes" / "train-0001-mask.nii.gz").unlink()
    before = contents(what.output)
    simulate_dataset(what)
    after = contents(what.output)
    assert len(read_manifest(what.output / "manifest.csv").cases) == 7
    for name, (content, time_ns) in before.items():
        assert name.startswith("volumes/train-0001") or after[name] == (content, time_ns)
    fresh = replace(what, output=what.output.with_name("at once"))
    simulate_dataset(fresh)
    assert {n: c for n, (c, _) in contents(fresh.output).items()} == {
        n: c for n, (c, _) in after.items()
    }


def test_a_larger_set_begins_with_the_volumes_of_a_smaller_one(
    what: Simulation, here: None
) -> None:
    simulate_dataset(what)
    larger = replace(
        what, output=what.output.with_name("larger"), counts={"train": 6, "val": 2, "test": 2}
    )
    simulate_dataset(larger)
    small, large = contents(what.output / "volumes"), contents(larger.output / "volumes")
    assert set(small) < set(large)
    assert all(large[name][0] == content for name, (content, _) in small.items())


@pytest.mark.parametrize("split", ["val", "test"])
def test_training_s_head_in_another_split_is_refused(what: Simulation, split: str) -> None:
    anatomies = {**what.anatomies, split: "one"}
    error = refused(replace(what, anatomies=anatomies))  # type: ignore[arg-type]
    assert error.code == "simulation-leak"
    assert split in error.message
    assert not what.output.exists()


def test_one_file_by_two_names_is_a_leak_too(what: Simulation) -> None:
    files = {"one": what.files["one"], "two": what.files["one"]}
    assert refused(replace(what, files=files)).code == "simulation-leak"


def test_an_anatomy_that_is_missing_is_told_before_anything_is_written(what: Simulation) -> None:
    error = refused(replace(what, files={"one": what.files["one"]}))
    assert error.code == "anatomy-not-found"
    assert "two" in error.message
    assert not what.output.exists()


@pytest.mark.parametrize("change", ["seed", "counts", "recipe", "something else"])
def test_a_folder_with_something_else_is_refused_and_left_alone(
    what: Simulation, here: None, change: str
) -> None:
    if change == "something else":
        what.output.mkdir()
        (what.output / "thesis.txt").write_text("the only copy")
    else:
        simulate_dataset(replace(what, counts={"train": 1}))
    before = contents(what.output)
    other = {
        "seed": replace(what, counts={"train": 1}, seed=8),
        "counts": what,
        "recipe": replace(what, counts={"train": 1}, recipe=Recipe(spacing_mm=5.0)),
    }.get(change, what)
    assert refused(other).code == "output-exists"
    assert contents(what.output) == before


def test_an_output_that_is_a_file_is_refused(what: Simulation) -> None:
    what.output.write_text("")
    assert refused(what).code == "output-unwritable"


@pytest.mark.skipif(os.name != "posix", reason="sends signals as a terminal does")
def test_the_command_line_simulates_in_processes_and_ctrl_c_leaves_a_set_that_goes_on(
    what: Simulation, here: None
) -> None:
    arguments = [
        *(sys.executable, "-m", "TomoSegLib.cli", "simulate", "lesions", "-o", str(what.output)),
        *("--train", "400", "--val", "0", "--test", "0", "--train-anatomy", "one"),
        *("--anatomy", f"one={what.files['one']}", "--spacing", "5", "--workers", "1"),
        *("--seed", "7"),
    ]
    process = subprocess.Popen(
        arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    volumes = what.output / "volumes"
    deadline = time.monotonic() + 100
    while len(list(volumes.glob("*-mask.nii.gz"))) < 2:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert stdout.startswith("stopped; give the same command again to go on.")
    assert "Traceback" not in stderr
    done = len(list(volumes.glob("*-mask.nii.gz")))
    assert 2 <= done < 400
    assert not (what.output / "manifest.csv").exists()
    assert all(path.suffix in (".gz", ".json") for path in volumes.iterdir())
    # What was written in another process is what the same seed gives in this one.
    sample = replace(
        what,
        output=what.output.with_name("sample"),
        counts={"train": 2},
        recipe=Recipe(spacing_mm=5.0),
    )
    simulate_dataset(sample)
    for path in (sample.output / "volumes").iterdir():
        assert path.read_bytes() == (volumes / path.name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("--train-anatomy", "nowhere"), "anatomy-not-found"),
        (("--train-anatomy", "one", "--test-anatomy", "one"), "simulation-leak"),
        (("--anatomy", "nonsense"), "usage"),
        (
            ("--anatomy", "x=nowhere.nii.gz", "--train-anatomy", "x", "--val", "0"),
            "volume-not-found",
        ),
    ],
)
def test_the_command_line_refuses_in_one_line(
    arguments: tuple[str, ...], code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from TomoSegLib.cli import main

    output = tmp_path / "out"
    small = ("--train", "1", "--val", "1", "--test", "0")
    assert main(["simulate", "lesions", "-o", str(output), *small, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith(f"tomoseg: error [{code}]: ")
    assert not output.exists()
