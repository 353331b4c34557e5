"""What ``tomoseg models ...`` does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from TomoSegLib.cli.console import JobFailed, follow_job, print_error
from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.events import EXIT_USER_ERROR
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.store import ModelFolder, find_model, list_models, model_hash


def list_(as_json: bool) -> int:
    """One line for each model; broken ones are named on stderr."""

    def tell(folder: Path, error: TomoSegError) -> None:
        print_error(error.code, error.message, error.hint)

    models = list_models(tell)
    if as_json:
        print(json.dumps([_summary(model) for model in models], indent=2))
        return 0
    rows = [("NAME", "VERSION", "TASK", "MODALITY", "TRAINED ON", "FROM", "TITLE")]
    for model in models:
        card = model.card
        trained = "simulated data" if card.training_data.simulated else "real data"
        rows.append(
            (card.name, card.version, card.task, card.modality, trained, model.origin, card.title)
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, [*widths, 0], strict=True)))
    return 0


def show(name: str, as_json: bool) -> int:
    """The card, for people or as JSON."""
    model = find_model(name)
    card = model.card
    if as_json:
        print(json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return 0
    data = card.training_data
    lines = {
        "name": f"{card.name} {card.version}: {card.title}",
        "": card.description,
        "task": card.task,
        "modality": card.modality + (f", {card.anatomy}" if card.anatomy else ""),
        "channels": ", ".join(
            c.name + (f" ({c.description})" if c.description else "") for c in card.channels
        ),
        "labels": ", ".join(f"{label.value} {label.name}" for label in card.labels),
        "method": card.method if card.task == "heatmap" else "",
        "window": _window(card),
        "slices": "" if card.stack is None else "{1} x {0} pixels".format(*card.stack.size),
        "grid": f"{card.preprocessing.spacing_mm:g} mm, "
        + (
            "each slice by itself"
            if card.preprocessing.in_plane
            else card.preprocessing.orientation
        ),
        "trained on": ("SIMULATED data: " if data.simulated else "real data: ") + data.description,
        "use": card.intended_use,
        "limits": " ".join(card.limitations),
        "licence": card.license,
        "by": ", ".join(card.contributors),
        "hash": model_hash(model),
        "folder": str(model.path),
    }
    for title, text in lines.items():
        if text:
            print(f"{title:<11} {text}")
    for method, settings in card.methods.items():
        threshold = settings.threshold
        print(
            f"  {method}: directions {settings.directions}, filter order "
            f"{settings.filter_order:g}, cutoff {settings.cutoff:g} ({settings.window}), threshold "
            + ("not calibrated" if threshold is None else f"{threshold.value:g} {threshold.kind}")
        )
    return 0


def verify(name: str, as_json: bool) -> int:
    """Check card, hashes, weights and network, in a worker as the panel does."""
    try:
        found = follow_job({"kind": "verify-model", "model": name}).data
    except JobFailed as failure:
        return failure.status
    if as_json:
        print(json.dumps(found, indent=2))
    else:
        words = {True: "right", False: "WRONG", None: "-"}
        for check in found["checks"]:
            print(f"{words[check['ok']]:<6} {check['what']}: {check['why']}")
    for check in found["checks"]:
        if check["ok"] is False:
            print_error(check["code"], check["why"], check["hint"])
            return EXIT_USER_ERROR
    if not as_json:
        print(f"{found['name']} {found['version']} is as its card says: {found['hash']}")
    return 0


def import_(source: Path, replace: bool) -> int:
    """Copy a model into the user's store, after all checks, in a worker as the panel does."""
    try:
        found = follow_job({"kind": "import-model", "source": str(source), "replace": replace}).data
    except JobFailed as failure:
        return failure.status
    print(f"{found['name']} {found['version']} is in {found['folder']}")
    if found["card"]["training_data"]["simulated"]:
        print("It was trained on simulated data.", file=sys.stderr)
    return 0


def _window(card: ModelCard) -> str:
    """How a segmenter works, in a line."""
    window = card.sliding_window
    if window is None:
        return ""
    i, j, k = reversed(window.roi_size)
    return (
        f"{i} x {j} x {k} voxels, overlap {window.overlap:g} ({window.mode}), {window.activation}"
    )


def _summary(model: ModelFolder) -> dict[str, object]:
    card = model.card
    return {
        "name": card.name,
        "version": card.version,
        "title": card.title,
        "task": card.task,
        "modality": card.modality,
        "simulated": card.training_data.simulated,
        "license": card.license,
        "origin": model.origin,
        "path": str(model.path),
        "hash": model_hash(model),
    }
