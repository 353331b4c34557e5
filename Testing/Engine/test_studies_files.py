"""A folder of NIfTI, NRRD or MetaImage files is a study; its table of views can be corrected."""

from __future__ import annotations

import csv
from pathlib import Path

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.recognition import is_label_name, kind_from_words
from TomoSegLib.studies.study import Study
from TomoSegLib.studies.table import write_table

OBLIQUE = Rotation.from_euler("xyz", (40, 35, 20), degrees=True).as_matrix()


def write(
    folder: Path, name: str, shape: tuple[int, int, int] = (5, 9, 8), flip: bool = False
) -> Geometry:
    direction = OBLIQUE @ np.diag([1, 1, -1 if flip else 1])
    geometry = Geometry.from_parts(shape, (1.2, 1.4, 8.0), direction, (10, -20, 30))
    array = np.random.default_rng(0).integers(0, 999, shape).astype(np.int16)
    folder.mkdir(exist_ok=True)
    write_volume(Volume(array, geometry, name), folder / name)
    return geometry


def problem_of(study: Study, file: str) -> str:
    return next(p.code for p in study.problems if file in p.files)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("flip", [False, True])
def test_slices_lie_where_the_direction_matrix_says(
    tmp_path: Path, suffix: str, flip: bool
) -> None:
    geometry = write(tmp_path, f"sax{suffix}", flip=flip)
    view = read_study(tmp_path).views[0]
    assert (view.name, view.kind, len(view.planes), view.phases) == ("sax", "short-axis", 5, 1)
    expected = geometry.index_to_lps([(7, 2, 3), (0, 8, 3)])
    got = view.planes[3].pixel_to_lps([(7, 2), (0, 8)])
    np.testing.assert_allclose(got, expected, atol=1e-4)
    array = np.random.default_rng(0).integers(0, 999, (5, 9, 8))
    np.testing.assert_array_equal(view.sources[0][3].read(), array[3])


@pytest.mark.parametrize("across", [0, 1, 2])
def test_slices_across_any_axis_are_found(tmp_path: Path, across: int) -> None:
    size, spacing = np.array([9, 9, 9]), np.array([1.0, 1.0, 1.0])
    size[across], spacing[across] = 4, 6.0
    geometry = Geometry.from_parts(tuple(size[::-1]), spacing, OBLIQUE, (1, 2, 3))
    array = np.random.default_rng(0).normal(size=size[::-1]).astype(np.float32)
    write_volume(Volume(array, geometry), tmp_path / "sax.nii.gz")
    view = read_study(tmp_path).views[0]
    assert len(view.planes) == 4
    image, plane = view.sources[0][1].read(), view.planes[1]
    for column, row in ((0, 0), (8, 2), (3, 7)):
        i, j, k = geometry.lps_to_index(plane.pixel_to_lps((column, row))).round().astype(int)
        assert image[row, column] == pytest.approx(array[k, j, i])


def test_a_cine_file_has_phases(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(8, 9, 3, 6)).astype(np.float32)
    image = nibabel.Nifti1Image(array, np.diag([-1.5, -1.5, 8, 1]))
    nibabel.save(image, tmp_path / "sa_cine.nii.gz")
    view = read_study(tmp_path).views[0]
    assert (view.phases, len(view.planes)) == (6, 3)
    np.testing.assert_allclose(view.sources[4][2].read(), array[:, :, 2, 4].T)


def test_what_cannot_be_a_view_is_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "sax.nii.gz")
    write(tmp_path, "sax_gt.nii.gz")
    (tmp_path / "torn.nii.gz").write_bytes((tmp_path / "sax.nii.gz").read_bytes()[:60])
    (tmp_path / "text.nrrd").write_text("no image")
    plain = nibabel.Nifti1Image(np.zeros((4, 5, 1), np.float32), None)
    nibabel.save(plain, tmp_path / "placeless.nii")
    sheared = np.diag([-1.0, -1, 1, 1])
    sheared[0, 1] = 0.4
    nibabel.save(
        nibabel.Nifti1Image(np.zeros((4, 5, 2), np.float32), sheared), tmp_path / "sheared.nii"
    )
    twofold = nibabel.Nifti1Image(np.zeros((4, 5, 1), np.float32), np.diag([-1.0, -1, 1, 1]))
    twofold.set_qform(np.diag([1.0, 1, 1, 1]), code=1)
    nibabel.save(twofold, tmp_path / "twofold.nii")
    study = read_study(tmp_path)
    assert [view.name for view in study.views] == ["sax", "twofold"]
    assert problem_of(study, "sax_gt.nii.gz") == "not-an-image"
    assert problem_of(study, "torn.nii.gz") in ("volume-truncated", "volume-unreadable")
    assert problem_of(study, "text.nrrd") == "volume-unreadable"
    assert problem_of(study, "placeless.nii") == "missing-geometry"
    assert problem_of(study, "sheared.nii") == "geometry-sheared"
    assert problem_of(study, "twofold.nii") == "contradictory-geometry"


def test_folders_that_hold_no_study_are_refused(tmp_path: Path) -> None:
    for folder, code in ((tmp_path / "none", "study-not-found"), (tmp_path, "study-empty")):
        with pytest.raises(TomoSegError) as caught:
            read_study(folder)
        assert caught.value.code == code


def edited(path: Path, change: dict[str, dict[str, str]]) -> Path:
    """The table with cells of some views changed."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row.update(change.get(row["name"], {}))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_a_corrected_table_names_types_turns_and_leaves_out_views(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write(study, "a.nii.gz")
    write(study, "b.nii.gz", (1, 9, 8))
    write(study, "c.nii.gz", (1, 9, 8))
    table = tmp_path / "views.csv"
    write_table(read_study(study), table)
    before = read_study(study, table)
    assert [view.name for view in before.views] == ["a", "b", "c"]
    edited(
        table,
        {
            "a": {"kind": "short-axis", "base": "last"},
            "b": {"kind": "4-chamber", "name": "long axis"},
            "c": {"use": "no"},
        },
    )
    after = read_study(study, table)
    assert [(v.name, v.kind) for v in after.views] == [
        ("a", "short-axis"),
        ("long axis", "4-chamber"),
    ]
    np.testing.assert_allclose(after.views[0].locations(), [1, 0.75, 0.5, 0.25, 0], atol=1e-6)
    # A table in the study's own folder is used without being asked for.
    (study / "views.csv").write_bytes(table.read_bytes().replace(b",", b";"))
    assert [view.name for view in read_study(study).views] == ["a", "long axis"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"a": {"kind": "heart"}}, "line 2 says 'heart' under 'kind'"),
        ({"b": {"use": "perhaps"}}, "line 3 says 'perhaps'"),
        ({"b": {"base": "top"}}, "under 'base'"),
        ({"b": {"name": "a"}}, "two views are called 'a'"),
        ({"b": {"name": "../../etc"}}, "no usable name"),
        ({"b": {"id": "a.nii.gz"}}, "repeats"),
        ({"a": {"use": "no"}, "b": {"use": "no"}}, "no view is left"),
    ],
)
def test_a_table_that_makes_no_sense_is_refused_with_its_line(
    tmp_path: Path, change: dict[str, dict[str, str]], says: str
) -> None:
    study = tmp_path / "study"
    write(study, "a.nii.gz")
    write(study, "b.nii.gz", (1, 9, 8))
    table = tmp_path / "views.csv"
    write_table(read_study(study), table)
    with pytest.raises(TomoSegError, match=says) as caught:
        read_study(study, edited(table, change))
    assert caught.value.code == "views-invalid"


@pytest.mark.parametrize("content", [b"", b"id,name\n1,2\n", b"\xff\xfe\x00", b"a" * 2_000_000])
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "a.nii.gz")
    (tmp_path / "views.csv").write_bytes(content)
    with pytest.raises(TomoSegError) as caught:
        read_study(tmp_path)
    assert caught.value.code == "views-invalid"


def test_views_a_table_knows_but_the_study_does_not_are_told(tmp_path: Path) -> None:
    study = tmp_path / "study"
    write(study, "a.nii.gz")
    table = tmp_path / "views.csv"
    write_table(read_study(study), table)
    (study / "a.nii.gz").rename(study / "z.nii.gz")
    found = read_study(study, table)
    assert [view.name for view in found.views] == ["z"]
    assert "views-unknown" in [problem.code for problem in found.problems]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("cine_sax_10slices", "short-axis"),
        ("001_SA_ED", "short-axis"),
        ("Short Axis", "short-axis"),
        ("lax_4c_ed", "4-chamber"),
        ("trufi cine 4ch_bh", "4-chamber"),
        ("Four Chamber", "4-chamber"),
        ("HLA", "4-chamber"),
        ("CH2", "2-chamber"),
        ("LA2CH", "2-chamber"),
        ("3Ch LVOT", "3-chamber"),
        ("4CH localizer for SAX", "4-chamber"),
        ("t2_tse_sag_fs", "sagittal"),
        ("COR PD", "coronal"),
        ("AX T2", "axial"),
        ("fl2d cine", "unknown"),
        ("T2 w", "unknown"),
        ("", "unknown"),
    ],
)
def test_descriptions_tell_the_view(text: str, kind: str) -> None:
    assert kind_from_words(text) == kind


def test_names_tell_labels() -> None:
    assert is_label_name("001_SA_ED_gt") and is_label_name("patient.seg")
    assert not is_label_name("sagittal") and not is_label_name("masked sequence")
