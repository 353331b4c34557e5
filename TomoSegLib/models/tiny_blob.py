"""The test model ``tiny-blob``: nothing learnt, a few hundred bytes, made by ``python -m`` this.

Tests of the whole chain, in this project and in the applications that stand on it, run it instead
of a real model; what it answers is known in closed form (`TomoSegLib.networks.bright_area`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from TomoSegLib.models.store import ModelFolder, save_model, shipped_models_folder

NAME = "tiny-blob"


def card_fields() -> dict[str, Any]:
    """The fields of the card, without the hash of the weights."""
    spacing_mm = 2.0
    settings = {
        "directions": "fibonacci:32",
        "threshold": {"kind": "peak", "value": 0.4},
    }
    return {
        "schema_version": 1,
        "name": NAME,
        "version": "1.0.0",
        "title": "Bright blob (test model)",
        "description": "A TEST MODEL: it finds whatever is much brighter than the rest. Nothing in "
        "it is learnt; its logit is the bright area of a slice in square millimetres, less 50.",
        "task": "heatmap",
        "modality": "any",
        "channels": [{"name": "image"}],
        "labels": [{"name": "bright blob", "value": 1}],
        "preprocessing": {
            "spacing_mm": spacing_mm,
            "intensity": {"method": "robust-zscore", "lower": -5.0, "upper": 5.0},
            "foreground": "nonzero",
        },
        "network": {
            "format": "module",
            "target": "TomoSegLib.networks.bright_area.BrightArea",
            "arguments": {
                "channels": 1,
                "threshold": 2.5,
                "pixel_area": spacing_mm**2,
                "offset": 50.0,
                "stride": 4,
            },
            "file": "weights.safetensors",
        },
        "slices": {"spacing_mm": spacing_mm, "distance_mm": spacing_mm, "multiple": 4},
        "method": "tonno",
        "methods": {
            "tonno": {**settings, "filter_order": 2.0},
            "cam": {**settings, "directions": "axial"},
            "averaged-cam": settings,
            "tomographic-cam": {**settings, "filter_order": 1.0},
        },
        "training_data": {
            "description": "None: the weights are set by a formula.",
            "simulated": True,
            "command": "python -m TomoSegLib.models.tiny_blob",
        },
        "license": "Apache-2.0",
        "intended_use": "Automatic tests of TomoSeg. Not for images of patients.",
        "limitations": ["A test model: it knows nothing of any anatomy or disease."],
        "contributors": ["TomoSeg"],
    }


def build(folder: Path) -> ModelFolder:
    """Write the model to a folder, replacing what is there."""
    from TomoSegLib.models.card import Network
    from TomoSegLib.models.loading import build_network

    fields = card_fields()
    network = build_network(Network.model_validate(fields["network"]))
    return save_model(folder, fields, network.state_dict(), overwrite=True)


if __name__ == "__main__":
    print(build(shipped_models_folder() / NAME).path)
