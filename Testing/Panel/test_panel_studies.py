"""Studies in the panel: simulated hearts, a real study, and what the scenarios do not show."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import slicer  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel import studyScene  # noqa: E402
from TomoSegPanel.display import matrixOf  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench, plainText  # noqa: E402
from TomoSegPanel.scenarios.studies import assertLinesLieOnBothPlanes  # noqa: E402
from TomoSegPanel.studyTable import kindTitles  # noqa: E402

from TomoSegLib.datasets.hearts import HeartSimulation, simulate_hearts  # noqa: E402
from TomoSegLib.datasets.hearts_scan import ScanRecipe  # noqa: E402
from TomoSegLib.errors import TomoSegError  # noqa: E402
from TomoSegLib.studies.reading import read_study  # noqa: E402
from TomoSegLib.studies.study import KINDS  # noqa: E402


@pytest.fixture
def bench():
    """The panel with the section open, on an empty scene."""
    with Bench() as opened:
        opened.ui.studySection.collapsed = False
        yield opened


@pytest.fixture(scope="module")
def heart(tmp_path_factory):
    """A simulated heart as DICOM, oblique views of two phases."""
    folder = tmp_path_factory.mktemp("hearts") / "set"
    recipe = ScanRecipe(side=32, phases=2, pixel_mm=(9.0, 11.0))
    try:
        simulate_hearts(HeartSimulation(folder, 1, recipe, workers=1))
    except TomoSegError as error:
        pytest.skip(f"the labelled CT is not there: {error.hint}")
    (study,) = (folder / "studies").iterdir()
    return study


@pytest.fixture
def real_study():
    """The cardiac study of ../shared/data, where it is there."""
    folder = Path(os.environ.get("TOMOSEG_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "mnms2").is_dir():
        pytest.skip("no real data: neither ../shared/data nor TOMOSEG_SHARED_DATA is there")
    return folder / "mnms2"


def inspect(bench, folder):
    """Inspect a study; what the panel says."""
    bench.ui.studyFolderEdit.setCurrentPath(str(folder))
    bench.ui.inspectButton.click()
    bench.until(lambda: bench.ui.inspectCancelButton.isHidden(), "the inspection is over", 60)
    return plainText(bench.ui.studyNote.text)


def planes_of(folder):
    """A point and the normal of the middle slice of each view, RAS, as the engine reads them."""
    flip = np.array([-1.0, -1.0, 1.0])
    planes = {view.name: view.middle_plane for view in read_study(folder).views}
    return {name: (plane.origin * flip, plane.normal * flip) for name, plane in planes.items()}


def assert_volumes_hold_their_views(folder):
    """See that voxels lie where the images' own headers put them."""
    for view in read_study(folder).views:
        volume = studyScene.volumeOf(view.name)
        array = slicer.util.arrayFromVolume(volume)
        assert array.shape == (len(view.planes), *view.planes[0].shape)
        for index in (0, len(view.planes) - 1):
            np.testing.assert_allclose(array[index], view.sources[0][index].read(), rtol=1e-6)
            place = matrixOf(volume) @ [3, 2, index, 1]
            expected = view.planes[index].pixel_to_lps((3, 2)) * [-1, -1, 1]
            np.testing.assert_allclose(place[:3], expected, atol=0.01)


def test_the_lines_of_a_simulated_heart_lie_on_both_planes(bench, heart):
    said = inspect(bench, heart)
    assert "4 views, 12 lines" in said, said
    assert assertLinesLieOnBothPlanes(planes_of(heart)) == 12
    assert_volumes_hold_their_views(heart)
    tree = bench.ui.viewsTree
    assert {tree.topLevelItem(i).text(3) for i in range(tree.topLevelItemCount)} == {"2"}


def test_the_lines_of_a_real_study_lie_on_both_planes(bench, real_study):
    said = inspect(bench, real_study)
    assert "4 views" in said and "sax_ed.nii.gz" in said, said
    # Of two phases in one place one is drawn.
    assert assertLinesLieOnBothPlanes(planes_of(real_study)) == 4
    assert_volumes_hold_their_views(real_study)


def test_every_kind_of_view_that_the_engine_knows_can_be_chosen():
    assert set(kindTitles()) == set(KINDS)


def test_a_table_that_cannot_be_saved_is_said(bench, monkeypatch, tmp_path):
    from TomoSegPanel.scenarios.studies import _select, _study

    _study(bench)
    inspect(bench, bench.folder / "Studie ä")
    _select(bench, "unclear")
    bench.chooseItem(bench.ui.viewKindCombo, "3-chamber")
    inspect(bench, bench.folder / "Studie ä")

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("TomoSegPanel.studyTable.os.replace", full)
    bench.ui.saveTableButton.click()
    assert "No space left" in bench.messages[0]
    names = sorted(path.name for path in (bench.folder / "Studie ä").iterdir())
    assert names == ["4ch.nrrd", "sax.nrrd", "unclear.nrrd"]
    monkeypatch.undo()
    (bench.folder / "Studie ä" / "views.csv").write_text("id,name,kind,use,base\n")
    bench.ui.saveTableButton.click()  # the answer is no
    assert "Replace it?" in bench.messages[1]
    text = (bench.folder / "Studie ä" / "views.csv").read_text(encoding="utf-8")
    assert "3-chamber" not in text


NO_STUDIES = [
    "",
    "{",
    "[]",
    '{"data": 5}',
    '{"data": {"views": [{}]}}',
    '{"folder": "a", "table": "", "data": {"views": [], "unused": [{"name": 5}], "lines": []}}',
]


@pytest.mark.parametrize("text", NO_STUDIES)
def test_what_is_no_study_in_a_scene_is_passed_over(bench, text):
    bench.parameters.study = text
    bench.processEvents()
    assert bench.ui.viewsTree.topLevelItemCount == 0
    assert not bench.ui.removeStudyButton.enabled
