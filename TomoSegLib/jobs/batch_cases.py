"""Which volumes a batch is made of: a table, or a folder.

* A **CSV file** has a row a case, comma-separated, UTF-8, with a header: ``path`` (or
  ``path_<channel>`` for each channel of the model; ``image`` likewise), and if wanted ``id`` and
  ``foreground``. Other columns are ignored, so that the manifest of a training will do. Paths are
  relative to its folder.
* A **folder with volume files** in it (NIfTI, NRRD, MetaImage) has a case a file.
* A **folder of folders with DICOM series** is a batch if every one of them holds other studies
  than the rest: then they are different examinations. The series of one study are not: they show
  the same patient in different ways, and a model is for one of these.

Everything else, a folder with one DICOM series above all, is one volume.
"""

from __future__ import annotations

import csv
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

from TomoSegLib.errors import TomoSegError, TomoSegWarning, shown_name

_NAMES = ("path", "image")
_SEGMENTATIONS = (".seg.nrrd", ".seg.nhdr")

Document = dict[str, object]


def find_cases(path: Path) -> list[Document] | None:
    """The cases of a batch as documents of `BatchCase`, or None where the path is one volume.

    Args:
        path: A CSV file, or a folder.

    Raises:
        TomoSegError: ``batch-unreadable``, ``batch-columns``, ``batch-row``, ``batch-empty`` or
            ``path-invalid``.
    """
    if not _is_text(str(path)):
        raise TomoSegError(
            "path-invalid", f"The name {shown_name(str(path))} is not UTF-8.", "Rename it."
        )
    if path.suffix.lower() == ".csv" and path.is_file():
        return _named(_read_table(path))
    if not path.is_dir():
        return None
    from TomoSegLib.files import suffix_of
    from TomoSegLib.imaging.dicom import is_dicom_file
    from TomoSegLib.imaging.itk import ITK_SUFFIXES
    from TomoSegLib.imaging.nifti import NIFTI_SUFFIXES

    files = _readable_names(path)
    volumes = [
        item
        for item in files
        if suffix_of(item) in NIFTI_SUFFIXES + ITK_SUFFIXES
        and not item.name.lower().endswith(_SEGMENTATIONS)
        and item.is_file()
    ]
    if volumes:
        return _named(
            (item.name[: -len(suffix_of(item))], {"input": str(item)}) for item in volumes
        )
    if any(item.is_file() and is_dicom_file(item) for item in files):
        return None
    folders = _examinations([item for item in files if item.is_dir()])
    if folders is None:
        return None
    return _named((item.name, {"input": str(item)}) for item in folders)


def _readable_names(folder: Path) -> list[Path]:
    """What is in a folder, sorted; warns of names that are not UTF-8, which JSON cannot hold."""
    files = sorted(item for item in folder.iterdir() if not item.name.startswith("."))
    for item in files:
        if not _is_text(item.name):
            warnings.warn(
                TomoSegWarning(
                    "path-invalid",
                    f"'{shown_name(item.name)}' is left out: its name is not UTF-8.",
                    "Rename it.",
                ),
                stacklevel=2,
            )
    return [item for item in files if _is_text(item.name)]


def _is_text(name: str) -> bool:
    return shown_name(name) == name


def _examinations(folders: list[Path]) -> list[Path] | None:
    """The folders with DICOM images, if there are several, and no study is in two of them."""
    studies: dict[Path, set[str]] = {}
    for folder in folders:
        if found := _studies(folder):
            studies[folder] = found
    everything = [uid for found in studies.values() for uid in found]
    if len(studies) < 2 or len(set(everything)) < len(everything):
        return None
    return list(studies)


def _studies(folder: Path) -> set[str]:
    from TomoSegLib.imaging.dicom import is_dicom_file, read_header

    found = set()
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            header = read_header(path) if is_dicom_file(path) else None
            if header is not None and "Rows" in header:
                found.add(str(header.get("StudyInstanceUID", "")))
    return found


def _read_table(path: Path) -> Iterable[tuple[str, Document]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = list(reader)
            columns = [name for name in reader.fieldnames or [] if name]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TomoSegError(
            "batch-unreadable",
            f"The table {path} cannot be read: {error}.",
            "Give a comma-separated file in UTF-8 with a header.",
        ) from None
    # A training with few labels calls the volumes so.
    single = next((n for n in _NAMES if any(c == n or c.startswith(f"{n}_") for c in columns)), "")
    channels = [name for name in columns if single and name.startswith(f"{single}_")]
    read = [name.lower() if name in channels else name for name in columns]
    if not single or (single in columns) == bool(channels) or len(set(read)) < len(read):
        raise TomoSegError(
            "batch-columns",
            f"The table {path} has the columns {', '.join(columns) or 'of nothing'}.",
            "It needs one column 'path', or one 'path_<channel>' for each channel of the model.",
        )
    for number, row in enumerate(rows, 2):
        if None in row or any(not (row[name] or "").strip() for name in channels or [single]):
            raise TomoSegError(
                "batch-row",
                f"Line {number} of {path} has no path, or too many cells.",
                "Correct this row, or leave it out.",
            )
        yield _row(row, path.absolute().parent, single, channels)


def _row(
    row: Mapping[str, str], folder: Path, single: str, channels: list[str]
) -> tuple[str, Document]:
    def absolute(text: str) -> str:
        return os.path.normpath(folder / Path(text.strip()).expanduser())

    case: Document = {}
    if channels:
        case["channels"] = {
            name[len(single) + 1 :].lower(): absolute(row[name]) for name in channels
        }
    else:
        case["input"] = absolute(row[single])
    if foreground := (row.get("foreground") or "").strip():
        case["foreground"] = absolute(foreground)
    name = (row.get("id") or "").strip()
    return name or row[channels[0] if channels else single].strip(), case


def case_name(name: str) -> str:
    """A name of a file as an id that is a folder's name on any system."""
    stem = re.sub(r"\.(nii\.gz|[A-Za-z]{2,4})$", "", name)
    stem = re.sub(r'[\\/:*?"<>|\x00-\x1f]+', "_", stem).strip(" ._")[-100:].strip(" ._")
    return stem or "case"


def _named(cases: Iterable[tuple[str, Document]]) -> list[Document]:
    """Gives every case an id that is a folder's name on any system, and no other's."""
    named: list[Document] = []
    taken: set[str] = set()
    for name, case in cases:
        stem = case_name(name)
        identifier, count = stem, 1
        while identifier.casefold() in taken:
            count += 1
            identifier = f"{stem}-{count}"
        taken.add(identifier.casefold())
        named.append({"id": identifier, **case})
    if not named:
        raise TomoSegError(
            "batch-empty", "There is no volume to work on.", "Give a table with at least one row."
        )
    return named
