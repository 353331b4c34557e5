"""Public data sets of several views, in the folders in which they are published, as studies.

Nothing is downloaded. Images that a study can hold as they are (NIfTI, DICOM) are linked, not
copied; arrays without a geometry (MRNet, fastMRI) are written as NIfTI. Those have **no true
geometry**: their pixel size and slice distance are nominal, and all stacks of a patient are laid
parallel, so that no line of one in another can be taken for true. They serve relative location
and the baselines; the orientation task is refused with them.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from TomoSegLib.datasets.adapters import (
    NIFTI,
    acdc,
    check_layout,
    files_named,
    mnms2,
    not_the_layout,
)
from TomoSegLib.datasets.nominal_stacks import read_fastmri, read_mrnet
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.dicom import is_dicom_file
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.study import KNEE_KINDS
from TomoSegLib.studies.table import FILE_NAME, set_kinds


@dataclass(frozen=True)
class Found:
    """A patient's study as it is published.

    Attributes:
        name: Of its folder.
        links: Files by what they are called in the study.
        stacks: What reads the stacks that have to be written, by their names.
        folders: The kind of view that a folder of the study holds, by the start of its name.
    """

    name: str
    links: Mapping[str, Path] = field(default_factory=dict)
    stacks: Mapping[str, Callable[[], Volume]] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PlaneLayout:
    """How a data set of several views lies on disk.

    Attributes:
        title: As its authors call it.
        find: From its folder to its studies.
        note: What has to be known of its geometry.
    """

    title: str
    find: Callable[[Path], list[Found]]
    note: str = ""


def acdc_studies(folder: Path) -> list[Found]:
    """ACDC: ``patientNNN/patientNNN_4d.nii.gz``, or its frames; short-axis stacks alone."""
    chosen = {
        re.sub(r"_4d$", "", _stem(path)): path
        for path in files_named(folder, r"patient\d+_4d" + NIFTI)
    }
    for scan in acdc(folder):
        chosen.setdefault(scan.group, next(iter(scan.paths.values())))
    return [
        Found(name, {f"short-axis{_suffix(path)}": path}) for name, path in sorted(chosen.items())
    ]


def mnms2_studies(folder: Path) -> list[Found]:
    """M&Ms-2: ``NNN/NNN_SA_CINE.nii.gz`` and ``NNN_LA_CINE``, or the frames ``_ED`` and ``_ES``.

    The long-axis images are 4-chamber views.
    """
    found: dict[str, dict[str, Path]] = {}
    cine = {_stem(path): path for path in files_named(folder, r"\d+_[SL]A_CINE" + NIFTI)}
    frames = {scan.id: next(iter(scan.paths.values())) for scan in mnms2(folder)}
    # The later ones win: ED over ES, and the cine over both.
    for ending in ("ES", "ED", "CINE"):
        for name, path in {**frames, **cine}.items():
            patient, axis, kind = name.split("_")
            if kind.upper() == ending:
                view = "short-axis" if axis.upper() == "SA" else "4-chamber"
                found.setdefault(patient, {})[view] = path
    return [
        Found(patient, {f"{view}{_suffix(path)}": path for view, path in views.items()})
        for patient, views in sorted(found.items())
    ]


def dsbcc_studies(folder: Path) -> list[Found]:
    """Second Annual Data Science Bowl: ``N/study/sax_5``, ``2ch_21`` and ``4ch_16`` with DICOM.

    What a folder's name says of its images counts where the scanner's words do not say it.
    """
    kinds = {"sax": "short-axis", "2ch": "2-chamber", "3ch": "3-chamber", "4ch": "4-chamber"}
    studies = []
    for study in sorted(path for path in folder.rglob("study") if path.is_dir()):
        links = {
            f"{view.name}/{path.name}": path
            for view in sorted(study.iterdir())
            if view.is_dir() and view.name.split("_")[0].lower() in kinds
            for path in sorted(view.iterdir())
            if is_dicom_file(path)
        }
        if links:
            studies.append(Found(study.parent.name, links, folders=kinds))
    return studies


def fastmri_studies(folder: Path) -> list[Found]:
    """fastMRI knees: ``fileN.h5`` with ``reconstruction_rss``, coronal, without a position."""
    return [
        Found(path.stem, stacks={"coronal-nominal.nii.gz": partial(read_fastmri, path)})
        for path in files_named(folder, r"file\w+\.h5")
    ]


def mrnet_studies(folder: Path) -> list[Found]:
    """MRNet: ``axial/0000.npy``, ``coronal/0000.npy``, ``sagittal/0000.npy`` in train and valid."""
    found: dict[str, dict[str, Callable[[], Volume]]] = {}
    for path in files_named(folder, r"\d+\.npy"):
        kind = path.parent.name.lower()
        if kind in KNEE_KINDS:
            stacks = found.setdefault(path.stem, {})
            stacks[f"{kind}-nominal.nii.gz"] = partial(read_mrnet, path)
    return [Found(name, stacks=stacks) for name, stacks in sorted(found.items())]


_NOMINAL = (
    "it has no geometry: distances are nominal, and there is location and no orientation to learn"
)
PLANE_LAYOUTS = {
    "acdc": PlaneLayout(
        "ACDC",
        acdc_studies,
        "it has no long-axis views: there is location and no orientation to learn. Check base and "
        "apex with 'tomoseg planes inspect'",
    ),
    "mnms2": PlaneLayout("M&Ms-2", mnms2_studies),
    "dsbcc": PlaneLayout("Second Annual Data Science Bowl", dsbcc_studies),
    "fastmri": PlaneLayout("fastMRI knee", fastmri_studies, _NOMINAL),
    "mrnet": PlaneLayout("MRNet", mrnet_studies, _NOMINAL),
}


def find_plane_studies(layout: str, folder: Path) -> list[Found]:
    """The studies of a data set in a known layout.

    Raises:
        TomoSegError: ``dataset-layout`` (unknown, or the folder is something else) or
            ``dataset-incomplete`` (two patients of one name).
    """
    check_layout(layout, PLANE_LAYOUTS, folder)
    found = PLANE_LAYOUTS[layout].find(folder)
    if not found:
        raise not_the_layout(folder, f"no files as in {PLANE_LAYOUTS[layout].title} are in it")
    names = [study.name for study in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TomoSegError(
            "dataset-incomplete",
            f"{folder} holds two patients called {twice[0]}.",
            "Give a folder with one copy of the data set.",
        )
    return found


def check_output(folder: Path, output: Path) -> None:
    """Refuse to make studies where the data set itself lies, which would be replaced.

    Raises:
        TomoSegError: ``output-inside-input``.
    """
    source, target = folder.resolve(), output.resolve()
    if target.is_relative_to(source) or source.is_relative_to(target):
        raise TomoSegError(
            "output-inside-input",
            f"The studies would lie in the data set's own folder, or it among them: {output}.",
            "Choose an --output beside the data set.",
        )


def make_study(study: Found, output: Path) -> None:
    """Make the folder of a study in a folder of studies; what is there already is replaced.

    Raises:
        TomoSegError: ``dataset-incomplete`` (an array is damaged), ``dependency-missing``,
            ``output-unwritable``, ``output-no-space``.
    """
    # Arrays first: if one cannot be read, nothing is left behind.
    stacks = {name: read() for name, read in study.stacks.items()}
    target = output / study.name
    try:
        if target.exists():
            shutil.rmtree(target)
        for name, path in study.links.items():
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            _link(Path(os.path.abspath(path)), place)
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TomoSegError(
            "output-unwritable",
            f"The study {target} cannot be made: {error.strerror or error}.",
            "Choose a folder in which you may write.",
        ) from error
    for name, volume in stacks.items():
        write_volume(volume, target / name)
    if study.folders:
        _tell_kinds(target, study.folders)


def _link(source: Path, place: Path) -> None:
    """A symbolic link, or where the system forbids it a hard link, or a copy at last."""
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(source, place)
            return
        except OSError:
            if make is shutil.copyfile:
                raise


def _tell_kinds(folder: Path, kinds: Mapping[str, str]) -> None:
    """Correct the kinds of the views in a study's table by the folders that they lie in."""
    study = read_study(folder)
    told = {
        view.id: kinds[view.sources[0][0].path.parent.name.split("_")[0].lower()]
        for view in study.views
    }
    if any(told[view.id] != view.kind for view in study.views):
        set_kinds(study, told, folder / FILE_NAME)


def _stem(path: Path) -> str:
    return re.sub(NIFTI + "$", "", path.name)


def _suffix(path: Path) -> str:
    return path.name[len(_stem(path)) :]
