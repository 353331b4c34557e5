"""The manifest of an unlabelled pool: which volumes, of which modality, from which data set.

One row a volume, comma-separated, UTF-8, with a header. Columns, in any order:

* ``image``: the volume file or DICOM folder, relative to the manifest's folder or absolute.
* ``modality``: ``CT`` or ``MR``; may be left out where the command names one for all.
* ``dataset`` (optional): what the volume comes from; numbers of cubes can be set for each.
* ``group`` (optional): the patient, or what else volumes share.
* ``split`` (optional): ``train`` or ``val``. Without any ``val`` a tenth of each modality's
  volumes is held out by chance, whole groups of them; of up to five none, as long as there are
  others. Rows of the split ``test`` are left alone: what is measured on later must not be seen.

Other columns are ignored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from TomoSegLib.datasets.manifest import read_rows, refuse_missing_files
from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.modality import MODALITIES, Modality, known_modality

_HELD_OUT = 0.1


@dataclass(frozen=True)
class PoolVolume:
    """One volume of the pool.

    Attributes:
        path: Where it lies.
        modality: CT or MR.
        dataset: What it comes from; empty if the manifest does not say.
        validation: Whether it is held out for the validation loss.
        group: The patient, or what else it shares with others; empty if the manifest does not say.
    """

    path: Path
    modality: Modality
    dataset: str = ""
    validation: bool = False
    group: str = ""


def read_pool(
    paths: Path | Sequence[Path], modality: str | None = None, seed: int = 0
) -> list[PoolVolume]:
    """Read the manifest of an unlabelled pool, or several that make one pool.

    Args:
        paths: The CSV file or files.
        modality: Of rows that name none.
        seed: Of the choice of validation volumes where the manifest makes none.

    Raises:
        TomoSegError: ``manifest-not-found``, ``manifest-unreadable``, ``manifest-columns``,
            ``manifest-modality``, ``manifest-split``, ``manifest-duplicate``,
            ``manifest-missing-files``, ``manifest-split-empty``.
    """
    paths = [paths] if isinstance(paths, Path) else list(paths)
    volumes = [volume for path in paths for volume in _read(path, modality)]
    _refuse(", ".join(path.name for path in paths), volumes)
    if any(volume.validation for volume in volumes):
        return volumes
    kinds = [[n for n, v in enumerate(volumes) if v.modality == kind] for kind in MODALITIES]
    counts = [round(_HELD_OUT * len(kind)) for kind in kinds]
    if not any(counts):
        # Few volumes of a modality are all needed for training: of the larger one can be spared.
        most = int(np.argmax([len(kind) for kind in kinds]))
        counts[most] = int(len(kinds[most]) > 1)
    held_out: set[int] = set()
    for kind, count in zip(kinds, counts, strict=True):
        for number in np.random.default_rng(seed).permutation(kind).tolist():
            if len(held_out.intersection(kind)) >= count:
                break
            more = held_out.union(_group_of(number, volumes))
            if all(not each or set(each) - more for each in kinds):  # some of each stay
                held_out = more
    return [replace(volume, validation=n in held_out) for n, volume in enumerate(volumes)]


def _group_of(number: int, volumes: Sequence[PoolVolume]) -> list[int]:
    """The volumes of a volume's group; itself alone if it has none."""
    group = volumes[number].group
    if not group:
        return [number]
    return [n for n, volume in enumerate(volumes) if volume.group == group]


def _read(path: Path, modality: str | None) -> list[PoolVolume]:
    header, rows = read_rows(path)
    if "image" not in header:
        raise TomoSegError(
            "manifest-columns",
            f"{path.name} has no column image (it has {', '.join(header)}).",
            "Name the columns image and modality; dataset, group and split are optional.",
        )
    folder = Path(os.path.abspath(path.parent))
    volumes: list[PoolVolume] = []
    for line, row in rows:
        split = row.get("split") or "train"
        if split not in ("train", "val", "test"):
            raise TomoSegError(
                "manifest-split",
                f"{path.name}, line {line}: the split is {split!r}.",
                "A split is train, val or test.",
            )
        if split != "test":
            file = folder / row["image"]
            kind = _modality(path, line, row.get("modality") or modality or "")
            volumes.append(
                PoolVolume(file, kind, row.get("dataset", ""), split == "val", row.get("group", ""))
            )
    return volumes


def _modality(path: Path, line: int, text: str) -> Modality:
    if (modality := known_modality(text)) is not None:
        return modality
    raise TomoSegError(
        "manifest-modality",
        f"{path.name}, line {line}: the modality is {text!r}.",
        "A modality is CT or MR: add a column modality, or give --modality for all rows.",
    )


def _refuse(name: str, volumes: list[PoolVolume]) -> None:
    if not any(not volume.validation for volume in volumes):
        raise TomoSegError(
            "manifest-split-empty",
            f"{name} has no volume to train on.",
            "Add one row a volume, in split train.",
        )
    files = [volume.path for volume in volumes]
    twice = [file for file, count in Counter(files).items() if count > 1]
    if twice:
        raise TomoSegError(
            "manifest-duplicate",
            f"{name} names {twice[0]} in several rows.",
            "Keep one row for each volume.",
        )
    refuse_missing_files(name, files)
