"""The few files of Slicer's share folder that logics ask for, made on the spot.

The wheel of slicer-core has none of them.  Colours are computed; codes are SNOMED CT's.
"""

import colorsys
import json
from pathlib import Path

_CATEGORIES = {
    ("SCT", "49755003", "Morphologically Altered Structure"): [
        (("SCT", "4147007", "Mass"), (144, 238, 144)),
        (("SCT", "108369006", "Neoplasm"), (144, 238, 144)),
        (("SCT", "52988006", "Lesion"), (221, 130, 101)),
        (("SCT", "79654002", "Edema"), (140, 224, 228)),
        (("SCT", "6574001", "Necrosis"), (216, 191, 216)),
    ],
    ("SCT", "85756007", "Tissue"): [(("SCT", "85756007", "Tissue"), (128, 174, 128))],
    ("SCT", "123037004", "Anatomical Structure"): [
        (("SCT", "12738006", "Brain"), (250, 250, 225)),
        (("SCT", "80891009", "Heart"), (206, 110, 84)),
    ],
}


def _code(code: tuple[str, str, str]) -> dict:
    scheme, value, meaning = code
    return {"CodingSchemeDesignator": scheme, "CodeValue": value, "CodeMeaning": meaning}


def terminology(name: str) -> dict:
    """A short list of categories and types, in the form of Slicer's terminology files."""
    categories = [
        {
            **_code(category),
            "showAnatomy": "true",
            "Type": [{**_code(code), "recommendedDisplayRGBValue": rgb} for code, rgb in types],
        }
        for category, types in _CATEGORIES.items()
    ]
    return {
        "SegmentationCategoryTypeContextName": name,
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"
        "segment-context-schema.json#",
        "SegmentationCodes": {"Category": categories},
    }


def regions(name: str) -> dict:
    """A short list of anatomic regions."""
    return {
        "AnatomicContextName": name,
        "@schema": "https://raw.githubusercontent.com/qiicr/dcmqi/master/doc/schemas/"
        "anatomic-context-schema.json#",
        "AnatomicCodes": {
            "AnatomicRegion": [
                _code(("SCT", "12738006", "Brain")),
                _code(("SCT", "80891009", "Heart")),
            ]
        },
    }


def color_table(count: int = 64) -> str:
    """Distinct colours, in the form of Slicer's colour files."""
    lines = ["# Color table file", "0 Background 0 0 0 0"]
    for index in range(1, count):
        # Steps of the golden ratio keep neighbours apart on the colour circle.
        rgb = colorsys.hsv_to_rgb(index * 0.618034 % 1, 0.5 + 0.3 * (index % 2), 0.9)
        lines.append(f"{index} Label_{index} " + " ".join(str(int(255 * c)) for c in rgb) + " 255")
    return "\n".join(lines) + "\n"


def write(folder: Path) -> None:
    """Write all files below ``folder``."""
    colors, terms = folder / "ColorFiles", folder / "Terminologies"
    for each in (colors, terms):
        each.mkdir(parents=True, exist_ok=True)
    (colors / "GenericColors.txt").write_text(color_table(), encoding="utf-8")
    documents = {
        "SegmentationCategoryTypeModifier-SlicerGeneralAnatomy": terminology(
            "Segmentation category and type - 3D Slicer General Anatomy list"
        ),
        "SegmentationCategoryTypeModifier-DICOM-Master": terminology(
            "Segmentation category and type - DICOM master list"
        ),
        "AnatomicRegionAndModifier-DICOM-Master": regions("Anatomic codes - DICOM master list"),
    }
    for name, document in documents.items():
        (terms / f"{name}.term.json").write_text(json.dumps(document), encoding="utf-8")
