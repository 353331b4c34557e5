"""What a network pre-trained on planes sees in a study: ``tomoseg planes predict``."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import save
from torch import Tensor

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path, make_folder
from TomoSegLib.models.building import read_weights
from TomoSegLib.models.folder import MAX_FILE_BYTES, read_bounded
from TomoSegLib.networks.unet2d import (
    EfficientNetUNet2D,
    EncoderDecoder,
    LocationNetwork,
    ResNetUNet2D,
    UNet2D,
)
from TomoSegLib.pretraining.planes_baselines import BASELINES
from TomoSegLib.pretraining.planes_data import read_examples
from TomoSegLib.pretraining.planes_report import draw_predictions, measure, predict
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.weights import load_pretrained
from TomoSegLib.studies.reading import read_study
from TomoSegLib.studies.study import KINDS

HEAD = "location-head.safetensors"
REPORT = "report.json"
_DRAWN = 8
_LARGEST_CHANNELS = 4096


def save_head(folder: Path, weights: Mapping[str, Tensor]) -> str:
    """Write the location head beside the network; returns its SHA-256."""
    content = save({name: t.detach().cpu().contiguous().clone() for name, t in weights.items()})
    with atomic_path(folder / HEAD) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def predict_study(
    folder: Path,
    pretrained: Path,
    output: Path,
    *,
    table: Path | None = None,
    phases: int = 1,
    device: str = "cpu",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Predict lines and locations for a study, and measure them against its geometry.

    Args:
        folder: The study, see `read_study`.
        pretrained: Folder of a pre-training on planes.
        output: Folder for ``report.json`` and ``predictions.png``.
        table: A corrected ``views.csv``.
        phases: Time points of a cine view.
        device: torch device.
        overwrite: Replace predictions that are there.

    Returns:
        The report, see `measure`; there is no guess to compare with.

    Raises:
        TomoSegError: Those of `read_study` and `load_pretrained`, ``pretrained-mismatch`` (of
            another task), ``study-no-targets``, ``output-exists`` or ``output-unwritable``.
    """
    if (output / REPORT).exists() and not overwrite:
        raise TomoSegError(
            "output-exists",
            f"'{output}' already holds predictions.",
            "Choose another --output, or give --overwrite.",
        )
    network, kinds, options, tasks = load_plane_network(pretrained)
    study = read_study(folder, table)
    examples = read_examples(study, kinds, options, phases)
    if not examples:
        raise TomoSegError(
            "study-no-targets",
            f"'{folder}' has no image that another view cuts or that has a place in a stack.",
            "Look at it with 'tomoseg planes inspect', and correct its views.csv.",
        )
    network.to(device)
    maps, found = predict(network, examples, options, orientation="orientation" in tasks)
    places = found if "location" in tasks else None
    report = measure(maps, places, examples, [], kinds, options)
    report["study"] = study.name
    if places is not None:
        report["locations"] = [
            {"view": e.view, "phase": e.phase, "predicted": round(p, 4), "true": e.location}
            for e, p in zip(examples, places, strict=True)
            if e.location is not None
        ]
    make_folder(output)
    with atomic_path(output / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    chosen = np.linspace(0, len(examples) - 1, min(_DRAWN, len(examples))).round().astype(int)
    draw_predictions(
        [maps[n] for n in chosen],
        None if places is None else [places[n] for n in chosen],
        [examples[n] for n in chosen],
        kinds,
        options,
        output / "predictions.png",
    )
    return report


def load_plane_network(
    folder: Path,
) -> tuple[LocationNetwork, tuple[str, ...], PlaneOptions, tuple[str, ...]]:
    """A network as `pretrain_planes` left it.

    Returns:
        The network, the kinds of its channels, how its images are made, and its tasks.

    Raises:
        TomoSegError: Those of `load_pretrained`, or ``pretrained-mismatch``.
    """
    pretrained = load_pretrained(folder)
    record = pretrained.record
    try:
        kinds = tuple(record["kinds"])
        tasks = tuple(record["training"]["tasks"])
        if set(tasks) & set(BASELINES):
            raise ValueError(f"the task '{tasks[0]}' predicts neither lines nor places")
        options = _options(record["planes"])
        network = LocationNetwork(_built(record["network"], len(kinds)))
        if not set(kinds) <= set(KINDS) or not tasks:
            raise ValueError("unknown views")
        # A network of the location task alone was saved without its decoder.
        missing, unexpected = network.network.load_state_dict(
            dict(pretrained.weights), strict="orientation" in tasks
        )
        if unexpected or ("orientation" in tasks and missing):
            raise ValueError("weights of another network")
        if "location" in tasks:
            content = read_bounded(folder / HEAD, MAX_FILE_BYTES, missing="pretrained-unknown")
            if hashlib.sha256(content).hexdigest() != record["location_head_sha256"]:
                raise ValueError(f"{HEAD} is not the file that the record describes")
            network.head.load_state_dict(dict(read_weights(content, HEAD)))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise TomoSegError(
            "pretrained-mismatch",
            f"'{folder}' does not hold a network pre-trained on planes: "
            f"{str(error).splitlines()[0]}.",
            "Give the folder of a 'tomoseg pretrain planes'.",
        ) from None
    return network.eval(), kinds, options, tasks


def _built(described: Mapping[str, Any], channels: int) -> EncoderDecoder:
    target = str(described["target"]).rsplit(".", 1)[-1]
    if target == UNet2D.__name__:
        features = [int(n) for n in described["features"]]
        if len(features) != 6 or not all(0 < n <= _LARGEST_CHANNELS for n in features):
            raise ValueError("impossible numbers of channels")
        return UNet2D(1, channels, features)
    if target == ResNetUNet2D.__name__:
        return ResNetUNet2D(1, channels, described["backbone"])
    if target == EfficientNetUNet2D.__name__:
        return EfficientNetUNet2D(1, channels)
    raise ValueError(f"an unknown network {target!r}")


def _options(values: Mapping[str, Any]) -> PlaneOptions:
    known = {item.name for item in fields(PlaneOptions)}
    if set(values) != known:
        raise ValueError("unknown settings of images")
    numbers = {name: float(value) for name, value in values.items()}
    if not all(math.isfinite(value) for value in numbers.values()):
        raise ValueError("settings that are no numbers")
    side = int(numbers.pop("side"))
    if not (16 <= side <= 2048 and 0.05 <= numbers["spacing_mm"] <= 50 < 50 + numbers["sigma_mm"]):
        raise ValueError("impossible settings of images")
    return PlaneOptions(side=side, **numbers)
