"""Public data sets in the folders in which they are published, as manifests.

Nothing is downloaded, moved or converted. What is known of a layout is its file names; a folder
that lacks them is refused rather than half understood.
"""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegLib.datasets.manifest import SINGLE, SPLITS
from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path

NIFTI = r"\.nii(\.gz)?"
_MAX_JSON_BYTES = 8 << 20
_LONGEST_LABEL = 128

# The last part of a file's name in BraTS 2012 to 2021, and since 2023.
_BRATS_CHANNELS = {
    "t1": "t1",
    "t1ce": "t1c",
    "t2": "t2",
    "flair": "flair",
    "t1n": "t1",
    "t1c": "t1c",
    "t2w": "t2",
    "t2f": "flair",
}


@dataclass(frozen=True)
class Scan:
    """One examination of a data set.

    Attributes:
        id: Its name.
        paths: Volume of each channel; one channel is called ``image``.
        modality: CT or MR.
        label: Its label map, if it is published.
        group: The patient, where several examinations are one's.
    """

    id: str
    paths: Mapping[str, Path]
    modality: str
    label: Path | None = None
    group: str = ""


@dataclass(frozen=True)
class Layout:
    """How a data set lies on disk.

    Attributes:
        name: As the command line calls it.
        title: As its authors call it.
        find: From its folder to its scans.
        labels: What the values of its label maps mean, as ``--labels`` of ``tomoseg finetune``
            takes it; a function of the folder where every data set of the layout has its own.
    """

    name: str
    title: str
    find: Callable[[Path], list[Scan]]
    labels: str | Callable[[Path], str]


def luna16(folder: Path) -> list[Scan]:
    """LUNA16: ``subset0/UID.mhd`` to ``subset9``; lungs in ``seg-lungs-LUNA16/UID.mhd``."""
    lungs = {path.stem: path for path in files_named(folder, r".+\.mhd", "seg-lungs-LUNA16")}
    own = Path(os.path.abspath(folder)).name  # one subset alone will do
    return [
        Scan(path.stem, {SINGLE: path}, "CT", lungs.get(path.stem))
        for path in files_named(folder, r".+\.mhd")
        if path not in lungs.values()
        and any(re.fullmatch(r"subset\d+", part) for part in (own, *path.relative_to(folder).parts))
    ]


def lits(folder: Path) -> list[Scan]:
    """LiTS: ``volume-N.nii`` with ``segmentation-N.nii``, in any folders below."""
    labels = {_number(path): path for path in files_named(folder, r"segmentation-\d+" + NIFTI)}
    return [
        Scan(f"lits-{_number(path):03d}", {SINGLE: path}, "CT", labels.get(_number(path)))
        for path in files_named(folder, r"volume-\d+" + NIFTI)
    ]


def brats(folder: Path) -> list[Scan]:
    """BraTS: a folder for each case with ``CASE_flair``, ``_t1``, ``_t1ce``, ``_t2``, ``_seg``.

    The names of 2023 and later (``CASE-t2f`` and so on) will do as well; there the case's last
    number is the examination of one patient.
    """
    found: dict[str, dict[str, Path]] = {}
    for path in files_named(folder, r".+[_-](seg|" + "|".join(_BRATS_CHANNELS) + ")" + NIFTI):
        match = re.fullmatch(r"(.+)[_-]([A-Za-z0-9]+)" + NIFTI, path.name)
        assert match is not None
        kind = match[2].lower()
        found.setdefault(match[1], {})[_BRATS_CHANNELS.get(kind, kind)] = path
    scans = []
    for case, files in sorted(found.items()):
        label = files.pop("seg", None)
        if files:
            patient = re.sub(r"-\d{3}$", "", case) if "-" in case else case
            scans.append(Scan(case, dict(sorted(files.items())), "MR", label, patient))
    complete = max((len(scan.paths) for scan in scans), default=0)
    if short := [scan.id for scan in scans if len(scan.paths) < complete]:
        raise TomoSegError(
            "dataset-incomplete",
            f"{len(short)} of {len(scans)} cases of {folder} lack channels, {short[0]} for one.",
            "Unpack the data set again, or remove these cases.",
        )
    return scans


def msd(folder: Path) -> list[Scan]:
    """A task of the Medical Segmentation Decathlon: ``dataset.json``, ``imagesTr``, ``labelsTr``.

    Where files hold several channels (brain tumours, prostate), each is one of their volumes.
    """
    description = _description(folder / "dataset.json")
    modalities = description.get("modality") or description.get("channel_names") or {}
    if not isinstance(modalities, dict) or not modalities:
        raise not_the_layout(folder, "dataset.json does not say what the channels are")
    channels = [re.sub(r"[^a-z0-9]+", "-", str(name).lower()) for name in modalities.values()]
    if len(set(channels)) < len(channels):
        raise not_the_layout(folder, "dataset.json calls two channels alike")
    kind = str(next(iter(modalities.values()))).upper()
    modality = "CT" if kind.startswith("CT") else "MR"
    scans = []
    for entry in description.get("training", []):
        image, label = (
            (entry.get("image"), entry.get("label")) if isinstance(entry, dict) else (None, None)
        )
        if not isinstance(image, str) or not isinstance(label, str):
            raise not_the_layout(folder, "dataset.json names no image and label of a case")
        path = _inside(folder, image)
        paths = {SINGLE: path}
        if len(channels) > 1:
            paths = {name: Path(f"{path}::{number}") for number, name in enumerate(channels)}
        scans.append(
            Scan(
                re.sub(NIFTI + "$", "", path.name),
                paths,
                modality,
                _inside(folder, label),
            )
        )
    return scans


def msd_labels(folder: Path) -> str:
    """The labels of ``dataset.json``, as MSD or as nnU-Net writes them.

    Empty if they are not plainly names and values, as nnU-Net's regions are not: some of them
    alone would make the rest background. What shells and ``--labels`` have other uses for is left
    out of the names.
    """
    labels = _description(folder / "dataset.json").get("labels")
    found: dict[int, str] = {}
    for key, text in labels.items() if isinstance(labels, dict) else ():
        value, name = (text, key) if isinstance(text, int) else (key, text)
        if not re.fullmatch(r"\d{1,3}", str(value)) or int(value) > 255 or int(value) in found:
            return ""
        name = re.sub(r"[^\w.()/-]+", " ", str(name)).strip()[:_LONGEST_LABEL]
        found[int(value)] = name or f"label {int(value)}"
    found.pop(0, None)
    if len(set(found.values())) < len(found):
        return ""
    return ",".join(f"{name}={value}" for value, name in sorted(found.items()))


def acdc(folder: Path) -> list[Scan]:
    """ACDC: ``patientNNN/patientNNN_frameNN.nii.gz`` with ``_gt``, short-axis stacks."""
    return _with_ground_truth(folder, r"patient\d+_frame\d+")


def mnms2(folder: Path) -> list[Scan]:
    """M&Ms-2: ``NNN/NNN_SA_ED.nii.gz``, ``_SA_ES``, ``_LA_ED`` and ``_LA_ES``, with ``_gt``."""
    return _with_ground_truth(folder, r"\d+_[SL]A_E[DS]")


def _with_ground_truth(folder: Path, stem: str) -> list[Scan]:
    """MR files of a stem that begins with the patient's name; labels end with ``_gt``."""
    labels = {path.name: path for path in files_named(folder, stem + "_gt" + NIFTI)}
    scans = []
    for path in files_named(folder, stem + NIFTI):
        name = re.sub(NIFTI + "$", "", path.name)
        label = labels.get(f"{name}_gt{path.name[len(name) :]}")
        scans.append(Scan(name, {SINGLE: path}, "MR", label, name.split("_")[0]))
    return scans


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("luna16", "LUNA16", luna16, "left lung=3,right lung=4"),
        Layout("lits", "LiTS 2017", lits, "liver=1,tumour=2"),
        Layout("brats", "BraTS", brats, "whole tumour=1+2+3+4"),
        Layout("msd", "Medical Segmentation Decathlon", msd, msd_labels),
        Layout("acdc", "ACDC", acdc, "right ventricle=1,myocardium=2,left ventricle=3"),
        Layout("mnms2", "M&Ms-2", mnms2, "left ventricle=1,myocardium=2,right ventricle=3"),
    )
}


def check_layout(layout: str, known: Collection[str], folder: Path) -> None:
    """Refuse a layout that is not known, and a folder that is none (``dataset-layout``)."""
    if layout not in known:
        raise TomoSegError(
            "dataset-layout",
            f"There is no layout {layout!r}.",
            f"Choose one of {', '.join(known)}.",
        )
    if not folder.is_dir():
        raise TomoSegError("dataset-layout", f"There is no folder {folder}.", "Check the path.")


def find_scans(layout: str, folder: Path) -> list[Scan]:
    """The scans of a data set in a known layout.

    Raises:
        TomoSegError: ``dataset-layout`` (unknown, or the folder is something else),
            ``dataset-incomplete``, ``dataset-duplicate``, ``dataset-4d``.
    """
    check_layout(layout, LAYOUTS, folder)
    scans = LAYOUTS[layout].find(folder)
    if not scans:
        raise not_the_layout(folder, f"no files named as in {LAYOUTS[layout].title} are in it")
    seen: dict[str, Scan] = {}
    for scan in scans:
        if (other := seen.setdefault(scan.id, scan)) is not scan:
            first, second = next(iter(other.paths.values())), next(iter(scan.paths.values()))
            raise TomoSegError(
                "dataset-duplicate",
                f"{folder} has {scan.id} twice: {first} and {second}.",
                "Move one of them out of the folder.",
            )
    return scans


def labels_of(layout: str, folder: Path) -> str:
    """What ``--labels`` of ``tomoseg finetune`` can be for a data set; empty if it is not known."""
    labels = LAYOUTS[layout].labels
    return labels if isinstance(labels, str) else labels(folder)


def split_groups(
    scans: Sequence[Scan], shares: tuple[float, float, float], seed: int
) -> dict[str, str]:
    """A split for each group (patient) by chance: train, val, test in these shares.

    The same groups, shares and seed always give the same splits, whatever is made of the data set:
    so a pool leaves out the test cases of a later fine-tuning.
    """
    groups = sorted({scan.group or scan.id for scan in scans})
    order = np.random.default_rng((seed, 11)).permutation(len(groups))
    ends = np.round(np.cumsum(shares) / sum(shares) * len(groups)).astype(int)
    return {
        groups[number]: SPLITS[int(np.searchsorted(ends, place, side="right"))]
        for place, number in enumerate(order.tolist())
    }


def write_pool(path: Path, scans: Sequence[Scan], splits: Mapping[str, str], dataset: str) -> int:
    """Write the manifest of an unlabelled pool, every channel a volume; returns their number."""
    rows = [
        [
            _written(file, path),
            scan.modality,
            dataset,
            splits[scan.group or scan.id],
            scan.group or scan.id,
        ]
        for scan in scans
        for file in scan.paths.values()
    ]
    _write(path, ["image", "modality", "dataset", "split", "group"], rows)
    return len(rows)


def write_labelled(
    path: Path,
    scans: Sequence[Scan],
    splits: Mapping[str, str],
    channels: Sequence[str] | None = None,
) -> int:
    """Write the manifest of the labelled scans; returns their number.

    Args:
        path: The CSV file.
        scans: The scans; those without a label map are left out.
        splits: Of each group.
        channels: Which channels, in their order; None for all.

    Raises:
        TomoSegError: ``dataset-layout`` if there are no labels or no such channel.
    """
    labelled = [scan for scan in scans if scan.label is not None]
    if not labelled:
        raise TomoSegError(
            "dataset-layout",
            "None of the scans has a label map.",
            "Get the training part of the data set, or make a pool for pre-training.",
        )
    there = list(labelled[0].paths)
    wanted = list(channels or there)
    if wrong := [name for name in wanted if name not in there]:
        raise TomoSegError(
            "dataset-layout",
            f"There is no channel {wrong[0]}.",
            f"Choose among {', '.join(there)}.",
        )
    names = ["image"] if len(wanted) == 1 else [f"image_{name}" for name in wanted]
    rows = []
    for scan in labelled:
        assert scan.label is not None
        group = scan.group or scan.id
        files = [_written(scan.paths[name], path) for name in wanted]
        rows.append(
            [scan.id, *files, _written(scan.label, path), splits[group], group, scan.modality]
        )
    _write(path, ["id", *names, "label", "split", "group", "modality"], rows)
    return len(rows)


def files_named(folder: Path, pattern: str, below: str | None = None) -> list[Path]:
    """Files below a folder by their names, without those that macOS adds to archives."""
    wanted = re.compile(pattern, re.IGNORECASE)
    return [
        path
        for path in sorted(folder.rglob("*"))
        if wanted.fullmatch(path.name)
        and not path.name.startswith("._")
        and path.is_file()
        and (below is None or below in path.relative_to(folder).parts)
    ]


def _number(path: Path) -> int:
    match = re.search(r"-(\d+)", path.name)
    assert match is not None
    return int(match[1])


def _description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise ValueError("it is too large")
        description = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(description, dict) or not isinstance(description.get("training"), list):
            raise ValueError("it lists no training cases")
    except FileNotFoundError:
        raise not_the_layout(path.parent, "dataset.json is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise not_the_layout(path.parent, f"dataset.json cannot be used ({error})") from None
    return description


def _inside(folder: Path, name: str) -> Path:
    """A file that a description names, which must lie in the data set's folder."""
    path = Path(os.path.normpath(folder / name))
    if not path.is_relative_to(Path(os.path.normpath(folder))):
        raise not_the_layout(folder, f"dataset.json names a file elsewhere, {name}")
    if not path.is_file():
        raise TomoSegError(
            "dataset-incomplete", f"{path} is missing.", "Unpack the data set again."
        )
    return path


def not_the_layout(folder: Path, reason: str) -> TomoSegError:
    return TomoSegError(
        "dataset-layout",
        f"{folder} is not a folder of that data set: {reason}.",
        "Give the folder that the data set's archives were unpacked in.",
    )


def _written(file: Path, manifest: Path) -> str:
    """Relative to the manifest's folder if it lies below it."""
    absolute, folder = Path(os.path.abspath(file)), Path(os.path.abspath(manifest.parent))
    if absolute.is_relative_to(folder):
        return absolute.relative_to(folder).as_posix()
    return str(absolute)


def _write(path: Path, header: list[str], rows: list[list[str]]) -> None:
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
