"""What the README says can be done: commands parse, the example runs, links lead somewhere."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
import typer.main

from TomoSegLib.cli.app import app
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.models.store import list_models

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
SHELL = [line for kind, block in BLOCKS if kind == "sh" for line in block.splitlines()]
COMMANDS = [line for line in SHELL if line.startswith("tomoseg ")]


def test_there_are_commands_to_check() -> None:
    verbs = {tuple(shlex.split(line)[1:3]) for line in COMMANDS}
    assert {("train", "encoder"), ("simulate", "lesions"), ("models", "list")} <= verbs


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_understood(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["tomoseg run x --modle y --output z", "tomoseg models lost"])
def test_a_misspelt_command_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match="(?i)no such"):
        parse(line)


def parse(line: str) -> None:
    """Parse a command as the command line does, without carrying it out."""
    arguments = shlex.split(line)[1:]
    command = typer.main.get_command(app)
    context = command.make_context("tomoseg", arguments)
    while hasattr(command, "resolve_command"):
        rest = [*getattr(context, "_protected_args", []), *context.args]
        name, command, rest = command.resolve_command(context, rest)
        assert name is not None and command is not None
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("target", re.findall(r"^make (\w+)", "\n".join(SHELL), re.MULTILINE))
def test_every_make_target_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_link_and_picture_is_there() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert "Resources/Screenshots/overlay.png" in links
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


def test_every_script_that_it_names_is_there() -> None:
    scripts = set(re.findall(r"python (Testing/[\w/]+\.py)", README))
    assert {"Testing/make_screenshots.py", "Testing/Benchmarks/run_overhead.py"} <= scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_the_python_example_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (example,) = [block for kind, block in BLOCKS if kind == "python"]
    if "flair-lesion" not in [model.name for model in list_models()]:
        example = example.replace("flair-lesion", "tiny-blob")
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "Resources" / "Samples", tmp_path / "Resources" / "Samples")
    exec(compile(example, "README.md", "exec"), {})
    mask = read_volume(tmp_path / "mask.nii.gz")
    scan = read_volume(ROOT / "Resources" / "Samples" / "simulated-flair.nii.gz")
    assert np.allclose(mask.geometry.affine, scan.geometry.affine)
    assert mask.array.shape == scan.array.shape
    assert mask.array.any()


def test_what_is_simulated_is_said_beside_the_picture() -> None:
    before, picture, after = README.partition("Resources/Screenshots/overlay.png")
    assert picture and "simulated" in after[:200]
    assert "Not a medical device" in README
