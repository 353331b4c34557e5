"""The job with every setting filled in: what the user left out is the model card's to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeVar

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.document import HEATMAP_ONLY, RunJob
from TomoSegLib.models.card import (
    MaskSettings,
    Method,
    MethodSettings,
    ModelCard,
    RefinementMethod,
    RefinementSettings,
)
from TomoSegLib.models.folder import ModelFolder
from TomoSegLib.models.tasks import wrong_task

Warn = Callable[[str, str, str], None]
_T = TypeVar("_T")


def complete(job: RunJob, model: ModelFolder, warn: Warn) -> RunJob:
    """Fill in what was left out.

    Args:
        job: The job as it was asked for.
        model: Its model.
        warn: Receives code, message and hint.

    Returns:
        The same job with every setting that the model's task has, all channels by name in the
        card's order, and a model that is named, or given by its folder if it is in no store.

    Raises:
        TomoSegError: ``model-task``, ``option-heatmap-only``, ``channel-unknown``,
            ``channel-missing`` or ``threshold-not-calibrated``.
    """
    card = model.card
    if card.task == "classification":
        raise wrong_task(card, "heatmap", "segmentation")
    settings = _heatmap_settings(job, card, warn) if card.task == "heatmap" else {}
    for name in HEATMAP_ONLY if card.task != "heatmap" else ():
        if getattr(job, name) is not None:
            raise TomoSegError(
                "option-heatmap-only",
                f"The model {card.name} is a segmenter: it has no setting "
                f"'{name.replace('_', ' ')}', which is for heatmaps.",
                "Leave the setting out, or choose a model that makes heatmaps.",
            )
    return job.model_copy(
        update={
            "input": None,
            "channels": channel_files(job.input, job.channels, card),
            "model": str(model.path) if model.origin == "folder" else card.name,
            "components": job.components or card.mask.components,
            "minimum_size_ml": _first(job.minimum_size_ml, card.mask.minimum_size_ml),
            **settings,
        }
    )


def _heatmap_settings(job: RunJob, card: ModelCard, warn: Warn) -> dict[str, Any]:
    method = job.method or card.method
    defaults = card.settings(method)
    threshold = job.threshold
    if threshold in (None, "card") and defaults.threshold is None:
        message = f"The card of {card.name} has no calibrated threshold for the method {method}."
        if threshold == "card":
            raise TomoSegError(
                "threshold-not-calibrated",
                message,
                "Choose otsu, percentile:Q or a number as the threshold.",
            )
        warn("threshold-not-calibrated", f"{message} Otsu's is used.", "Adjust it on the heatmap.")
        threshold = "otsu"
    return {
        "method": method,
        "cam": None if method == "tonno" else job.cam or "cam",
        "rectified": _first(job.rectified, defaults.rectified),
        "directions": job.directions or defaults.directions,
        "filter_order": _first(job.filter_order, defaults.filter_order),
        "cutoff": _first(job.cutoff, defaults.cutoff),
        "window": job.window or defaults.window,
        "threshold": "card" if threshold is None else threshold,
        "refine": job.refine or _card_refinement(card, method),
    }


def method_settings(job: RunJob, card: ModelCard) -> MethodSettings:
    """The settings of a complete job, for the heatmap; the threshold is the card's."""
    assert job.method is not None
    return MethodSettings(
        directions=job.directions or "",
        filter_order=some(job.filter_order),
        cutoff=some(job.cutoff),
        window=job.window or "hann",
        rectified=bool(job.rectified),
        threshold=card.settings(job.method).threshold,
    )


def mask_settings(job: RunJob) -> MaskSettings:
    """The settings of a complete job, for the mask."""
    return MaskSettings(
        minimum_size_ml=some(job.minimum_size_ml), components=job.components or "all"
    )


def refinement_settings(job: RunJob, card: ModelCard) -> RefinementSettings | None:
    """How a complete job refines its mask: its method with the card's parameters, or None."""
    if job.refine in (None, "none"):
        return None
    return (card.refinement or RefinementSettings()).model_copy(update={"method": job.refine})


def _card_refinement(card: ModelCard, method: Method) -> RefinementMethod | Literal["none"]:
    """What the card says; the parameters were chosen for heatmaps of its own method only."""
    if card.refinement is None or method != card.method:
        return "none"
    return card.refinement.method


def check_hash(what: str, name: str, found: str, expected: str | None) -> None:
    """Refuse to go on with something else than what is asked for.

    Args:
        what: ``input``, ``foreground`` or ``model``.
        name: What to call it.
        found: Its hash.
        expected: What the hash must be, or None if anything will do.

    Raises:
        TomoSegError: ``input-changed``, ``foreground-changed`` or ``model-changed``.
    """
    if expected is not None and found != expected:
        raise TomoSegError(
            f"{what}-changed",
            f"The {what} {name} is not the one of the first run: its content has changed.",
            "Restore the original, or start a new run with 'tomoseg run'.",
        )


def channel_files(first: str | None, others: Mapping[str, str], card: ModelCard) -> dict[str, str]:
    """The file of every channel by its name, in the card's order.

    Args:
        first: Of the first channel, where it is not among the others.
        others: By the channel's name.
        card: The model's card.

    Raises:
        TomoSegError: ``channel-twice``, ``channel-unknown``, ``channel-missing``.
    """
    names = [channel.name for channel in card.channels]
    given = dict(others)
    if first is not None:
        if names[0] in given:
            raise TomoSegError(
                "channel-twice",
                f"The channel '{names[0]}' is given twice: as the input and by its name.",
                "Give it once.",
            )
        given[names[0]] = first
    hint = f"The channels of {card.name} are: {', '.join(names)}."
    for name in given:
        if name not in names:
            raise TomoSegError(
                "channel-unknown", f"The model {card.name} has no channel '{name}'.", hint
            )
    for name in names:
        if name not in given:
            raise TomoSegError("channel-missing", f"No volume for the channel '{name}'.", hint)
    return {name: given[name] for name in names}


def _first(value: _T | None, default: _T) -> _T:
    return default if value is None else value


def some(value: _T | None) -> _T:
    """A setting of a complete job."""
    assert value is not None, "the job is not complete"
    return value
