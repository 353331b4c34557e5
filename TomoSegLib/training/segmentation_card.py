"""The model card of a segmenter that was fine-tuned here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from TomoSegLib.models.card import Preprocessing
from TomoSegLib.training.segmentation_manifest import LabelSpec

# Okabe & Ito's colours, which people with any colour vision can tell apart.
_COLOURS = (
    (0.835, 0.369, 0.0),
    (0.0, 0.447, 0.698),
    (0.0, 0.620, 0.451),
    (0.8, 0.475, 0.655),
    (0.902, 0.624, 0.0),
    (0.337, 0.706, 0.914),
    (0.941, 0.894, 0.259),
)

_ANATOMY = "Segmentation category and type - 3D Slicer General Anatomy list"
_CATEGORY = {
    "anatomy": "SCT^123037004^Anatomical Structure",
    "lesion": "SCT^49755003^Morphologically Altered Structure",
}
# SNOMED CT codes as in Slicer's general anatomy list. A term is looked for among the label's words,
# the first ones first: a liver tumour is a tumour.
_TERMS = {
    "tumor": ("lesion", "SCT^108369006^Neoplasm"),
    "tumour": ("lesion", "SCT^108369006^Neoplasm"),
    "edema": ("lesion", "SCT^79654002^Edema"),
    "oedema": ("lesion", "SCT^79654002^Edema"),
    "necrosis": ("lesion", "SCT^6574001^Necrosis"),
    "metastasis": ("lesion", "SCT^108369006^Neoplasm"),
    "cyst": ("lesion", "SCT^367643001^Cyst"),
    "nodule": ("lesion", "SCT^27925004^Nodule"),
    "infarct": ("lesion", "SCT^55641003^Infarct"),
    "lesion": ("lesion", "SCT^52988006^Lesion"),
    "left ventricle": ("anatomy", "SCT^87878005^Left ventricle of heart"),
    "right ventricle": ("anatomy", "SCT^53085002^Right ventricle of heart"),
    "liver": ("anatomy", "SCT^10200004^Liver"),
    "spleen": ("anatomy", "SCT^78961009^Spleen"),
    "pancreas": ("anatomy", "SCT^15776009^Pancreas"),
    "kidney": ("anatomy", "SCT^64033007^Kidney"),
    "lv": ("anatomy", "SCT^87878005^Left ventricle of heart"),
    "rv": ("anatomy", "SCT^53085002^Right ventricle of heart"),
    "myo": ("anatomy", "SCT^74281007^Myocardium"),
    "myocardium": ("anatomy", "SCT^74281007^Myocardium"),
    "heart": ("anatomy", "SCT^80891009^Heart"),
    "lung": ("anatomy", "SCT^39607008^Lung"),
    "aorta": ("anatomy", "SCT^15825003^Aorta"),
    "brain": ("anatomy", "SCT^12738006^Brain"),
    "bone": ("anatomy", "SCT^272673000^Bone"),
}
_UNKNOWN = "SCT^85756007^Tissue~SCT^85756007^Tissue"


def segmenter_card(
    *,
    name: str,
    title: str,
    modality: str,
    channels: Sequence[str],
    labels: Sequence[LabelSpec],
    preprocessing: Preprocessing,
    network: Mapping[str, Any],
    patch: tuple[int, int, int],
    overlap: float,
    training_data: Mapping[str, Any],
    license: str,
    metrics: Mapping[str, Any],
) -> dict[str, Any]:
    """The card's fields, without the hash of the weights.

    ``network`` is the class and its arguments, as a card has them.
    """
    return {
        "schema_version": 1,
        "name": name,
        "version": "1.0.0",
        "title": title,
        "description": f"A {'2D' if preprocessing.in_plane else '3D'} U-Net that segments "
        f"{', '.join(label.name for label in labels)}, made by 'tomoseg finetune'.",
        "task": "segmentation",
        "modality": modality,
        "channels": [{"name": channel} for channel in channels],
        "labels": [
            {
                "name": label.name,
                "value": label.values[0],
                "color": list(_COLOURS[number % len(_COLOURS)]),
                "terminology": terminology(label.name),
            }
            for number, label in enumerate(labels)
        ],
        "preprocessing": preprocessing.model_dump(mode="json"),
        "network": {"format": "module", **network, "file": "weights.safetensors"},
        "sliding_window": {"roi_size": list(patch), "overlap": overlap},
        "training_data": dict(training_data),
        "license": license,
        "intended_use": "Research. Not for clinical use.",
        "limitations": [
            "Knows only scans like those that it was fine-tuned on; check every result.",
        ],
        "metrics": dict(metrics),
    }


def terminology(name: str) -> str:
    """Slicer's terminology entry for a label's name; "Tissue" where no word of it is known."""
    words = " ".join(name.lower().replace("-", " ").replace("_", " ").split())
    found = next((_TERMS[term] for term in _TERMS if f" {term} " in f" {words} "), None)
    terms = _UNKNOWN if found is None else f"{_CATEGORY[found[0]]}~{found[1]}"
    return f"{_ANATOMY}~{terms}~^^~Anatomic codes - DICOM master list~^^~^^"
