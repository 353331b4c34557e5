"""What CMake packages is what the tree holds."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def listed(cmake: Path, variable: str) -> list[str]:
    """The entries of a ``set(variable ...)``."""
    text = re.sub(r"#.*", "", cmake.read_text(encoding="utf-8"))
    match = re.search(rf"set\({variable}\s([^)]*)\)", text)
    assert match is not None, f"{cmake} sets no {variable}"
    return match.group(1).split()


def files(folder: Path, *, python: bool) -> set[str]:
    """Files of a half of the project, relative to it."""
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file()
        and "__pycache__" not in path.parts
        and path.name != "CMakeLists.txt"
        and (path.suffix == ".py") == python
    }


@pytest.mark.parametrize(
    ("half", "scripts", "resources"),
    [
        ("TomoSeg", "MODULE_PYTHON_SCRIPTS", "MODULE_PYTHON_RESOURCES"),
        ("TomoSegLib", "TomoSegLib_SCRIPTS", "TomoSegLib_RESOURCES"),
    ],
)
def test_every_file_of_a_half_is_listed_once(half: str, scripts: str, resources: str) -> None:
    cmake = ROOT / half / "CMakeLists.txt"
    for variable, python in ((scripts, True), (resources, False)):
        entries = listed(cmake, variable)
        assert len(entries) == len(set(entries))
        assert set(entries) == files(ROOT / half, python=python)


def test_only_the_module_itself_lies_where_slicer_takes_every_file_for_a_module() -> None:
    assert [path.name for path in (ROOT / "TomoSeg").glob("*.py")] == ["TomoSeg.py"]


def test_every_control_says_what_it_does_and_can_be_reached_by_the_tab_key() -> None:
    import xml.etree.ElementTree as ElementTree

    root = ElementTree.parse(ROOT / "TomoSeg" / "Resources" / "UI" / "TomoSeg.ui").getroot()
    stops = [stop.text for stop in root.iterfind("tabstops/tabstop")]
    assert len(stops) == len(set(stops))
    names = [widget.get("name") for widget in root.iter("widget")]
    assert stops == [name for name in names if name in stops], "the tab key jumps about"
    mute = ("QLabel", "QWidget", "qMRMLWidget", "QProgressBar", "ctkCollapsibleButton")
    for widget in root.iter("widget"):
        if widget.get("class") in mute:
            continue
        name = widget.get("name")
        assert name in stops, f"{name} is in no tab order"
        tip = widget.find("property[@name='toolTip']/string")
        assert tip is not None and tip.text, f"{name} has no tooltip"


def test_torch_and_other_heavy_packages_are_never_imported_at_file_scope() -> None:
    heavy = re.compile(r"^(import|from) (torch|scipy|SimpleITK|monai|pydantic|skimage)\b", re.M)
    for path in (ROOT / "TomoSeg").rglob("*.py"):
        assert not heavy.search(path.read_text(encoding="utf-8")), path


def test_the_entry_for_the_extension_index_says_what_cmake_says() -> None:
    entry = json.loads((ROOT / "TomoSeg.json").read_text(encoding="utf-8"))
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    said = dict(re.findall(r'^set\(EXTENSION_(\w+) "(.*)"\)$', cmake, re.M))
    assert entry["category"] == said["CATEGORY"]
    assert entry["build_dependencies"] == said["DEPENDS"].split()
    assert entry["scm_url"] == f"{said['HOMEPAGE']}.git"
    assert (ROOT / entry["build_subdirectory"] / "CMakeLists.txt").is_file()
    assert entry["tier"] in range(1, 6)


def test_icon_and_screenshots_of_the_extension_are_in_the_tree() -> None:
    cmake = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    urls = re.findall(r"https://raw\.githubusercontent\.com/tomoseg/TomoSeg/main/([^\s\"]+)", cmake)
    assert len(urls) >= 4
    assert [url for url in urls if not (ROOT / url).is_file()] == []
