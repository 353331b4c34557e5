"""Modalities: their names, and what a volume's header and intensities say of its own."""

from __future__ import annotations

import re
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.imaging.volume import Volume

Modality = Literal["CT", "MR"]
MODALITIES: tuple[Modality, ...] = get_args(Modality)

_AIR_BELOW_HU = -300.0  # only CT has a tenth of its voxels below that
_VOXELS_LOOKED_AT = 1 << 20


def known_modality(text: str) -> Modality | None:
    """CT or MR, MR also where it is written MRI or MRT; None if it is neither."""
    for modality in MODALITIES:
        if text.upper() in (modality, f"{modality}I", f"{modality}T"):
            return modality
    return None


def looks_like_ct(array: npt.NDArray[np.generic]) -> bool:
    """Whether intensities are those of CT with air in it: a tenth is far below zero.

    Args:
        array: Voxels ``[k, j, i]``; of many only some, drawn by chance, are looked at.
    """
    return float(np.percentile(_some_of(array).astype(np.float32), 10)) < _AIR_BELOW_HU


def modality_doubt(volume: Volume, modality: str, hounsfield: bool) -> TomoSegWarning | None:
    """A warning where a volume cannot well be of the modality that a model has learnt.

    Intensities of another modality are brought into the same range as any, and what comes out
    looks like a result. DICOM says what a scan is. Of other files only what is plain is doubted:
    CT given to a model of MR, and something without a value below zero where the model takes a
    window of Hounsfield units.

    Args:
        volume: As it was read.
        modality: The model's, e.g. ``CT`` or ``MR FLAIR``; about others nothing is known.
        hounsfield: Whether the model takes CT's values as they are, by a window.
    """
    named = {known_modality(word) for word in re.split(r"[\s/,+-]+", modality)} - {None}
    if len(named) != 1:
        return None
    learnt = named.pop()
    said = known_modality(volume.metadata.get("Modality", ""))
    if said is not None:
        if said == learnt:
            return None
        return TomoSegWarning(
            "modality-doubtful",
            f"'{volume.name}' is {said} by its DICOM files, and the model has learnt from "
            f"{learnt}.",
            f"What it finds there means nothing: choose a model of {said}.",
        )
    if learnt == "MR" and looks_like_ct(volume.array):
        return TomoSegWarning(
            "modality-doubtful",
            f"'{volume.name}' looks like CT, and the model has learnt from MR.",
            "What it finds there means nothing: choose a model of CT.",
        )
    if learnt == "CT" and hounsfield and volume.array.min() >= 0:
        return TomoSegWarning(
            "modality-doubtful",
            f"'{volume.name}' has no value below zero, and the model expects Hounsfield units of "
            "CT.",
            "If it is CT, convert it again from its DICOM files; if not, choose another model.",
        )
    return None


def _some_of(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    """All voxels, or so many by chance, the same for the same shape."""
    flat = array.reshape(-1)
    if flat.size <= _VOXELS_LOOKED_AT:
        return flat
    return flat[np.random.default_rng(0).integers(0, flat.size, _VOXELS_LOOKED_AT)]
