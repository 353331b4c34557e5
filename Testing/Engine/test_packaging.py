"""The wheel: what users install has the models and leaves the tests at home."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESOURCES = ROOT / "Resources"

pytest.importorskip("build", reason="the wheel is built with the package 'build'")
pytest.importorskip("hatchling", reason="the wheel is built with hatchling")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("tomoseg-*.whl")
    return zipfile.ZipFile(path)


def test_wheel_has_every_module_of_the_engine(wheel: zipfile.ZipFile) -> None:
    # dot-folders and files that git ignores (caches) are not part of the engine
    modules = {p.relative_to(ROOT).as_posix() for p in (ROOT / "TomoSegLib").rglob("*.py")}
    assert modules - set(wheel.namelist()) == set()


@pytest.mark.parametrize("kind", ["Models", "Pretrained", "Samples"])
def test_wheel_has_what_ships_inside_the_package(wheel: zipfile.ZipFile, kind: str) -> None:
    shipped = {
        f"TomoSegLib/Resources/{p.relative_to(RESOURCES).as_posix()}"
        for p in (RESOURCES / kind).rglob("*")
        if p.is_file()
    }
    assert shipped
    assert shipped - set(wheel.namelist()) == set()


def test_wheel_has_only_the_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"TomoSegLib"}


def test_wheel_has_licence_and_command(wheel: zipfile.ZipFile) -> None:
    def read(name: str) -> str:
        (member,) = [n for n in wheel.namelist() if n.endswith(f".dist-info/{name}")]
        return wheel.read(member).decode()

    assert "Apache License" in read("licenses/LICENSE")
    assert "tomoseg = TomoSegLib.cli:main" in read("entry_points.txt")
    metadata = HeaderParser().parsestr(read("METADATA"))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.10"


def test_the_source_archive_has_all_that_the_repository_has(tmp_path: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git repository: nothing to compare with")
    command = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path]
    subprocess.run([*command, ROOT], check=True, capture_output=True)
    (path,) = tmp_path.glob("tomoseg-*.tar.gz")
    with tarfile.open(path) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    assert {name for name in tracked - found if not name.startswith(".")} == set()
