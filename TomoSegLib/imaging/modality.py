"""What a volume's intensities say about the scanner that it comes from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.imaging.volume import Volume

_AIR_BELOW_HU = -300.0  # only CT has a tenth of its voxels below that
_KNOWN = ("CT", "MR")
_VOXELS_LOOKED_AT = 1 << 20


def looks_like_ct(array: npt.NDArray[np.generic]) -> bool:
    """Whether intensities are those of CT with air in it: a tenth is far below zero.

    Args:
        array: Voxels ``[k, j, i]``; of many only some, evenly spread, are looked at.
    """
    return float(np.percentile(_some_of(array).astype(np.float32), 10)) < _AIR_BELOW_HU


def modality_doubt(volume: Volume, modality: str) -> TomoSegWarning | None:
    """A warning where a volume cannot well be of the modality that a model has learnt.

    Intensities of another modality are brought into the same range as any, and what comes out
    looks like a result. DICOM says what a scan is. Of other files only what is plain is doubted:
    CT given to a model of MR, and to one of CT something without a value below zero, which cannot
    be Hounsfield units.

    Args:
        volume: As it was read.
        modality: The model's; about others than CT and MR nothing is known.
    """
    said = volume.metadata.get("Modality")
    if said in _KNOWN and modality in _KNOWN and said != modality:
        return TomoSegWarning(
            "modality-doubtful",
            f"'{volume.name}' is {said} by its DICOM files, and the model has learnt from "
            f"{modality}.",
            f"What it finds there means nothing: choose a model of {said}.",
        )
    if modality == "MR" and said != "MR" and looks_like_ct(volume.array):
        return TomoSegWarning(
            "modality-doubtful",
            f"'{volume.name}' looks like CT, and the model has learnt from MR.",
            "What it finds there means nothing: choose a model of CT.",
        )
    if modality == "CT" and volume.array.min() >= 0:
        return TomoSegWarning(
            "modality-doubtful",
            f"'{volume.name}' has no value below zero, and the model expects Hounsfield units of "
            "CT.",
            "If it is CT, convert it again from its DICOM files; if not, choose another model.",
        )
    return None


def _some_of(array: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
    flat = array.reshape(-1)
    # An odd step goes through all columns of a grid of even sides.
    return flat[:: (flat.size // _VOXELS_LOOKED_AT) | 1]
