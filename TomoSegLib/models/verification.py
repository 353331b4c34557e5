"""Whether a model is what its card says: its files, and a network that loads and answers."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.folder import ModelFolder, model_hash, verified_bytes
from TomoSegLib.models.store import find_model


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: ``card``, the name of a file, or ``network``.
        ok: Whether it is right; None if it could not be tried because of what went before.
        why: One sentence.
        code: The error's code, where it is not right.
        hint: What to do then.
    """

    what: str
    ok: bool | None
    why: str
    code: str = ""
    hint: str = ""


def verify_model(model: ModelFolder) -> str:
    """Check a model's files against its card, and load its network.

    Returns:
        Its `model_hash`.

    Raises:
        TomoSegError: What `verified_bytes`, `load_encoder`, `LoadedSegmenter.check` and
            `LoadedClassifier.check` raise.
    """
    for name in model.card.files:
        verified_bytes(model, name)
    _try_network(model)
    return model_hash(model)


def check_model(
    name_or_folder: str | os.PathLike[str],
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[ModelFolder | None, list[Check]]:
    """Look at everything that `verify_model` looks at, and say of each what is found.

    Args:
        name_or_folder: What `find_model` finds the model by.
        on_progress: Receives the number of checks done and in all.

    Returns:
        The model (None if its card is invalid) and the checks.

    Raises:
        TomoSegError: ``model-unknown``.
    """
    try:
        model = find_model(name_or_folder)
    except TomoSegError as error:
        if error.code == "model-unknown":
            raise
        return None, [_failed("card", error)]
    card = model.card
    total = 2 + len(card.files)
    checks = [Check("card", True, f"A valid card of schema version {card.schema_version}.")]
    for name, digest in card.files.items():
        on_progress(len(checks), total)
        try:
            size = len(verified_bytes(model, name))
        except TomoSegError as error:
            checks.append(_failed(name, error))
        else:
            why = f"{size} bytes with the SHA-256 that the card gives, {digest[:12]}..."
            checks.append(Check(name, True, why))
    on_progress(len(checks), total)
    if not all(check.ok for check in checks):
        checks.append(Check("network", None, "Not loaded, because a file is not right."))
    else:
        try:
            parameters = _try_network(model)
        except TomoSegError as error:
            checks.append(_failed("network", error))
        else:
            why = f"It loads and answers; it has {parameters:,} parameters."
            checks.append(Check("network", True, why))
    on_progress(total, total)
    return model, checks


def _try_network(model: ModelFolder) -> int:
    """Load a network, let it answer, and count its parameters."""
    # Both import torch, which takes seconds.
    if model.card.task == "segmentation":
        from TomoSegLib.models.segmenter import load_segmenter

        segmenter = load_segmenter(model)
        segmenter.check()
        network = segmenter.network
    elif model.card.task == "classification":
        from TomoSegLib.models.classifier import load_classifier

        classifier = load_classifier(model)
        classifier.check()
        network = classifier.network
    else:
        from TomoSegLib.models.loading import load_encoder

        network = load_encoder(model).network
    return sum(parameter.numel() for parameter in network.parameters())


def _failed(what: str, error: TomoSegError) -> Check:
    return Check(what, False, error.message, error.code, error.hint)
