"""Studies of public data sets, from tiny folders in the layouts in which they are published."""

from __future__ import annotations

import builtins
import json
import pickle
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.uid import MRImageStorage, generate_uid

from TomoSegLib.cli import main
from TomoSegLib.datasets import nominal_stacks
from TomoSegLib.datasets.adapters import find_scans
from TomoSegLib.errors import TomoSegError
from TomoSegLib.studies.reading import read_study


def nifti(path: Path, shape: tuple[int, ...] = (16, 16, 4), turned: bool = False) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([2.0, 2, 8, 1])
    if turned:
        affine = np.array([[2.0, 0, 0, 0], [0, 0, 8, 16], [0, 2, 0, 0], [0, 0, 0, 1]])
    values = np.random.default_rng(0).integers(0, 200, shape).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, affine), path)


def acdc(folder: Path) -> None:
    for case, frames in (("patient001", (1, 12)), ("patient101", (1, 14))):
        part = folder / ("training" if case == "patient001" else "testing") / case
        nifti(part / f"{case}_4d.nii.gz", (16, 16, 4, 3))
        (part / "Info.cfg").write_text("ED: 1\nGroup: DCM\n")
        for frame in frames:
            nifti(part / f"{case}_frame{frame:02d}.nii.gz")
            nifti(part / f"{case}_frame{frame:02d}_gt.nii.gz")


def mnms2(folder: Path) -> None:
    for patient in ("001", "002"):
        for axis in ("SA", "LA"):
            kinds = ("ED", "ED_gt", "ES", "ES_gt", *(("CINE",) if patient == "001" else ()))
            for kind in kinds:
                shape = (16, 16, 1 if axis == "LA" else 4, *((3,) if kind == "CINE" else ()))
                path = folder / "dataset" / patient / f"{patient}_{axis}_{kind}.nii.gz"
                nifti(path, shape, axis == "LA")


def dicom(path: Path, series: str, position: float, phase: int, axial: bool, words: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = MRImageStorage, generate_uid()
    data.SeriesInstanceUID, data.Modality = series, "MR"
    data.PatientID, data.PatientName, data.SeriesDescription = "1", "x", words
    data.ImageOrientationPatient = [1, 0, 0, 0, 1, 0] if axial else [1, 0, 0, 0, 0, -1]
    data.ImagePositionPatient = [-16, -16, position] if axial else [-16, position, 16]
    data.PixelSpacing, data.TriggerTime, data.InstanceNumber = [2, 2], phase * 30, phase + 1
    data.Rows = data.Columns = 16
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation, data.SamplesPerPixel = 15, 0, 1
    data.PhotometricInterpretation = "MONOCHROME2"
    data.PixelData = np.full((16, 16), 100 + phase, np.uint16).tobytes()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.save_as(path, enforce_file_format=True)


def dsbcc(folder: Path) -> None:
    for patient in ("1", "500"):
        views = folder / ("train" if patient == "1" else "validate") / patient / "study"
        for number, position in ((5, 0.0), (6, 10.0), (7, 20.0)):
            for phase in range(2):
                name = f"sax_{number}/IM-{number:04d}-{phase + 1:04d}.dcm"
                dicom(views / name, f"1.2.{number}", position, phase, True, f"sax {number}")
        for phase in range(2):
            # The scanner's words are of no help here.
            dicom(views / f"2ch_21/IM-0021-{phase:04d}.dcm", "1.2.21", 0.0, phase, False, "trufi")
    (folder / "train.csv").write_text("Id,Systole,Diastole\n1,100,200\n")


def mrnet(folder: Path) -> None:
    for split, exam in (("train", "0000"), ("train", "0001"), ("valid", "1130")):
        for number, kind in enumerate(("axial", "coronal", "sagittal")):
            path = folder / split / kind / f"{exam}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            rng = np.random.default_rng(number)
            np.save(path, rng.integers(0, 255, (5 + number, 32, 32), dtype=np.uint8))
    (folder / "train-acl.csv").write_text("0000,1\n0001,0\n")


HEADER = (
    '<?xml version="1.0"?><ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>'
    "<encodedSpace><matrixSize><x>64</x><y>36</y><z>1</z></matrixSize></encodedSpace><reconSpace>"
    "<matrixSize><x>32</x><y>32</y><z>1</z></matrixSize>"
    "<fieldOfView_mm><x>140</x><y>140</y><z>4.5</z></fieldOfView_mm></reconSpace></encoding>"
    "</ismrmrdHeader>"
)


def fastmri(folder: Path, header: str = HEADER, name: str = "file1000001") -> None:
    h5py = pytest.importorskip("h5py")
    (folder / "singlecoil_train").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "singlecoil_train" / f"{name}.h5", "w") as file:
        file["reconstruction_rss"] = np.random.default_rng(0).random((6, 32, 32), np.float32)
        file["ismrmrd_header"] = header.encode()
        file.attrs["acquisition"] = "CORPD_FBK"


def make(layout: str, folder: Path, output: Path) -> int:
    return main(["planes", "studies", layout, str(folder), "-o", str(output)])


@pytest.mark.parametrize(
    ("write", "names", "views"),
    [
        (acdc, ["patient001", "patient101"], {"short-axis": (4, 3)}),
        (mnms2, ["001", "002"], {"short-axis": (4, 3), "4-chamber": (1, 3)}),
        (dsbcc, ["1", "500"], {"short-axis": (3, 2), "2-chamber": (1, 2)}),
        (
            mrnet,
            ["0000", "0001", "1130"],
            {"axial": (5, 1), "coronal": (6, 1), "sagittal": (7, 1)},
        ),
        (fastmri, ["file1000001"], {"coronal": (6, 1)}),
    ],
)
def test_a_data_set_becomes_studies_with_the_right_views(
    tmp_path: Path, write: Any, names: list[str], views: dict[str, tuple[int, int]]
) -> None:
    source, output = tmp_path / "set", tmp_path / "studies"
    write(source)
    before = {p: p.stat().st_mtime_ns for p in source.rglob("*")}
    assert make(write.__name__, source, output) == 0
    assert sorted(p.name for p in output.iterdir()) == names
    study = read_study(output / names[0])
    assert {v.kind: (len(v.planes), v.phases) for v in study.views} == views
    assert all(view.sources[0][0].read().std() >= 0 for view in study.views)
    assert {p: p.stat().st_mtime_ns for p in source.rglob("*")} == before
    if write in (acdc, mnms2, dsbcc):
        images = [p for p in output.rglob("*.*") if p.name != "views.csv" and not p.is_dir()]
        assert images and all(path.is_symlink() for path in images)


def test_frames_stand_in_where_there_is_no_cine(tmp_path: Path) -> None:
    mnms2(tmp_path / "set")
    assert make("mnms2", tmp_path / "set", tmp_path / "studies") == 0
    links = sorted((tmp_path / "studies" / "002").iterdir())
    assert [p.resolve().name for p in links] == ["002_LA_ED.nii.gz", "002_SA_ED.nii.gz"]


@pytest.mark.parametrize("write", [mrnet, fastmri])
def test_arrays_without_geometry_are_for_location_alone(
    tmp_path: Path, write: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "set")
    if write is fastmri:
        fastmri(tmp_path / "set", name="file1000002")
    studies = tmp_path / "studies"
    assert make(write.__name__, tmp_path / "set", studies) == 0
    assert "no geometry" in capsys.readouterr().out
    command = ["pretrain", "planes", "--studies", str(studies), "--steps", "1", "--side", "32"]
    small = ["--features", "2,2,2,2,2,2", "--spacing", "4", "--device", "cpu", "-o"]
    assert main([*command, "--tasks", "orientation", *small, str(tmp_path / "o")]) == 2
    assert "'orientation' has nothing to learn from" in capsys.readouterr().err
    assert main([*command, "--tasks", "location", *small, str(tmp_path / "l")]) == 0
    assert json.loads((tmp_path / "l" / "report.json").read_text())["location"]["images"] > 1


def test_fastmri_s_header_says_how_large_pixels_are(tmp_path: Path) -> None:
    fastmri(tmp_path)
    volume = nominal_stacks.read_fastmri(tmp_path / "singlecoil_train" / "file1000001.h5")
    assert volume.geometry.spacing == pytest.approx([140 / 32, 140 / 32, 4.5])


@pytest.mark.parametrize(
    "header",
    ["", "<a/>", '<!DOCTYPE a [<!ENTITY b "c">]><a/>', HEADER.replace("<x>32<", "<x>0<")],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, header: str) -> None:
    fastmri(tmp_path, header)
    with pytest.raises(TomoSegError) as caught:
        nominal_stacks.read_fastmri(tmp_path / "singlecoil_train" / "file1000001.h5")
    assert caught.value.code == "dataset-incomplete"


def test_without_h5py_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return there(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TomoSegError) as caught:
        nominal_stacks.read_fastmri(tmp_path / "file1.h5")
    assert caught.value.code == "dependency-missing" and "fastmri" in caught.value.hint


def test_damaged_arrays_are_named_and_the_rest_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "set"
    mrnet(source)
    (source / "train/axial/0000.npy").write_bytes(pickle.dumps({"a": 1}))
    np.save(source / "valid/axial/1130.npy", np.array([{}], dtype=object), allow_pickle=True)
    assert make("mrnet", source, tmp_path / "studies") == 0
    told = capsys.readouterr()
    assert "1 studies" in told.out and "0000.npy" in told.err and "1130.npy" in told.err
    assert [p.name for p in (tmp_path / "studies").iterdir()] == ["0001"]


def test_the_data_set_s_own_folder_is_never_written_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mnms2(tmp_path / "set")
    before = sorted(tmp_path.rglob("*"))
    for output in ("set", "set/dataset", "."):
        command = ["planes", "studies", "mnms2", str(tmp_path / "set"), "--overwrite", "-o"]
        assert main([*command, str(tmp_path / output)]) == 2
        assert "output-inside-input" in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_studies_that_are_there_are_replaced_only_when_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acdc(tmp_path / "set")
    assert make("acdc", tmp_path / "set", tmp_path / "studies") == 0
    assert make("acdc", tmp_path / "set", tmp_path / "studies") == 2
    assert "output-exists" in capsys.readouterr().err
    command = ["planes", "studies", "acdc", str(tmp_path / "set"), "--overwrite", "-o"]
    assert main([*command, str(tmp_path / "studies")]) == 0


def test_another_folder_and_another_layout_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for layout in ("acdc", "mnms2", "dsbcc", "fastmri", "mrnet", "heart"):
        assert make(layout, tmp_path, tmp_path.parent / "out") == 2
        assert "dataset-layout" in capsys.readouterr().err


@pytest.mark.parametrize(("write", "count"), [(acdc, 4), (mnms2, 8)])
def test_labels_come_into_a_manifest_with_their_patients(
    tmp_path: Path, write: Any, count: int
) -> None:
    write(tmp_path)
    scans = find_scans(write.__name__, tmp_path)
    assert len(scans) == count and all(scan.label is not None for scan in scans)
    assert all(scan.label.name.replace("_gt", "") in str(scan.paths) for scan in scans)  # type: ignore
    assert len({scan.group for scan in scans}) == 2
    table = tmp_path.parent / f"{write.__name__}.csv"
    command = ["manifest", write.__name__, str(tmp_path), "--labelled", "--split", "1:1:0"]
    assert main([*command, "-o", str(table), "--overwrite"]) == 0
    rows = table.read_text().splitlines()
    assert rows[0] == "id,image,label,split,group,modality" and len(rows) == count + 1
