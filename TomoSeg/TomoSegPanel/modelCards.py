"""Model cards as the panel reads them: for people to read, and to see whether a volume fits.

Only the standard library is used, for Slicer's Python need not have the engine's packages yet.
Cards are validated by the worker before it uses a model; here a card that cannot be understood is
left out of the list, with the reason.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.locations import shipped_models_folder, user_models_folder

CARD = "card.json"
CardContent = tuple[dict[str, Any], str]
"""A card, and all its words in small letters to search in."""

_MAX_CARD_BYTES = 1 << 20
_MAX_TEXT, _MAX_CHANNELS, _MAX_LABELS = 4000, 16, 255  # as the engine's own checks
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_COARSE = 3.0
_SMALL = 16
_FEW_VALUES = 30


@dataclass(frozen=True)
class VolumeFacts:
    """What can be said of a volume at a glance.

    Attributes:
        spacing: Voxel size in mm, along ``(i, j, k)``.
        dimensions: Voxels along ``(i, j, k)``.
        scalarRange: Least and greatest intensity (not finite where a voxel is not), or None where
            they are not known.
        modality: DICOM modality (``MR``, ``CT``), or "" where it is not known.
        isInteger: Whether intensities are whole numbers by their type.
        isMap: Whether it is one of TomoSeg's own maps.
    """

    spacing: tuple[float, float, float]
    dimensions: tuple[int, int, int]
    scalarRange: tuple[float, float] | None
    modality: str = ""
    isInteger: bool = False
    isMap: bool = False


@dataclass(frozen=True)
class MethodDefaults:
    """What a card says of a heatmap method; the names are those of a job document."""

    directions: str
    filterOrder: float
    cutoff: float
    window: str
    rectified: bool
    hasThreshold: bool


class Card:
    """A model's card.

    Args:
        folder: The model's folder.
        shipped: Whether it came with TomoSeg.
        content: What `readCard` has read there, if it has already.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not a card, or not one that can be shown.
    """

    def __init__(self, folder: Path, shipped: bool, content: CardContent | None = None) -> None:
        self.folder, self.shipped = folder, shipped
        self._card, self._words = content or readCard(folder)
        try:
            self._read()
        except KeyError as error:
            raise ValueError(_("the card lacks {field}").format(field=error)) from None
        except (TypeError, AttributeError):
            raise ValueError(_("the card is not built like a card")) from None

    def _read(self) -> None:
        card = self._card
        self.name = str(card["name"])
        if not _NAME.fullmatch(self.name):
            raise ValueError(_("the model's name is not valid"))
        self.version = _clipped(card["version"], 40)
        self.title = _clipped(card["title"], 200)
        self.modality = _clipped(card["modality"], 64)
        self.channels = [str(channel["name"]) for channel in card["channels"]]
        self.labels = [dict(label) for label in card["labels"]]
        if not 1 <= len(self.channels) <= _MAX_CHANNELS or len(set(self.channels)) != len(
            self.channels
        ):
            raise ValueError(_("the card has no channels, too many, or one of them twice"))
        if not 1 <= len(self.labels) <= _MAX_LABELS:
            raise ValueError(_("the card has no labels, or too many"))
        self.simulated = bool(card["training_data"]["simulated"])
        if not isinstance(card["files"], dict):
            raise TypeError
        self.task = str(card.get("task", "heatmap"))
        self.method = str(card.get("method", "tonno"))
        self.spacingMm = _positive(card.get("preprocessing", {}).get("spacing_mm", 2.0))
        self.sliceDistanceMm = _positive(card.get("slices", {}).get("distance_mm", 2.0))
        intensity = card.get("preprocessing", {}).get("intensity", {})
        self._window: tuple[float, float] | None = None
        if intensity.get("method") == "window":
            self._window = float(intensity.get("lower", -5)), float(intensity.get("upper", 5))
        for method in ("tonno", "tomographic-cam", "averaged-cam", "cam"):
            self.settings(method)
        self._html = self._makeHtml()  # now, when it can still be refused

    def settings(self, method: str) -> MethodDefaults:
        """What the card says of a method, or the engine's defaults where it says nothing."""
        default = {"directions": "axial"} if method == "cam" else {}
        given = self._card.get("methods", {}).get(method, default)
        return MethodDefaults(
            directions=_clipped(given.get("directions", "fibonacci:64"), 4096),
            filterOrder=float(given.get("filter_order", 2.0)),
            cutoff=float(given.get("cutoff", 1.0)),
            window=str(given.get("window", "hann")),
            rectified=bool(given.get("rectified", False)),
            hasThreshold=bool(given.get("threshold")),
        )

    def channelDescription(self, channel: str) -> str:
        """What the card says of a channel."""
        for each in self._card["channels"]:
            if each["name"] == channel:
                return _clipped(each.get("description", ""))
        return ""

    def matches(self, text: str) -> bool:
        """Whether every word of a search text is somewhere on the card."""
        return all(word in self._words for word in text.casefold().split())

    def misfits(self, facts: VolumeFacts) -> list[str]:
        """Reasons why a volume may not be what the model has learnt on; empty if none is known."""
        reasons = []
        if facts.isMap:
            reasons.append(_("It is a map that TomoSeg has made, not a scan."))
        coarsest = max(facts.spacing)
        if coarsest > _COARSE * self.spacingMm:
            reasons.append(
                _(
                    "Its voxels are up to {volume} mm large, the model works at {model} mm: "
                    "lesions smaller than a voxel cannot be found."
                ).format(volume=f"{coarsest:.3g}", model=f"{self.spacingMm:.3g}")
            )
        size = min(n * mm for n, mm in zip(facts.dimensions, facts.spacing, strict=True))
        if size < _SMALL * self.spacingMm:
            reasons.append(
                _(
                    "It is only {size} mm thick: slices in oblique directions hold little of it, "
                    "and the heatmap will be blurred."
                ).format(size=f"{size:.3g}")
            )
        reasons += self._intensityMisfits(facts)
        if facts.modality and self.modality not in ("", "any") and not self._isOf(facts.modality):
            reasons.append(
                _("Its modality is {volume}, the model is for {model}.").format(
                    volume=facts.modality, model=self.modality
                )
            )
        return reasons

    def html(self) -> str:
        """The card for people."""
        return self._html

    def _makeHtml(self) -> str:
        card, data = self._card, self._card["training_data"]
        learnt = _("SIMULATED data") if self.simulated else _("real data")
        tasks = {"segmentation": _("segmentation"), "classification": _("classification")}
        rows = [
            (_("Task"), tasks.get(self.task, _("heatmap"))),
            (_("Modality"), ", ".join(filter(None, [self.modality, card.get("anatomy", "")]))),
            (_("Volumes it needs"), ", ".join(map(self._channelText, self.channels))),
            (_("Finds"), ", ".join(str(label.get("name", "")) for label in self.labels)),
            (_("Works at"), _("{spacing} mm").format(spacing=f"{self.spacingMm:g}")),
            (_("Trained on"), f"{learnt}: {data['description']}"),
            (_("Intended use"), card.get("intended_use", "")),
            (_("Limits"), " ".join(map(str, card.get("limitations", [])))),
            (_("Licence"), card.get("license", "")),
            (_("By"), ", ".join(map(str, card.get("contributors", [])))),
            (_("Version"), self.version),
            (_("Folder"), str(self.folder)),
        ]
        lines = "".join(
            f"<tr><td><b>{html.escape(title)}</b>&nbsp;</td>"
            f"<td>{html.escape(_clipped(text))}</td></tr>"
            for title, text in rows
            if text
        )
        return (
            f"<h3>{html.escape(self.title)}</h3>"
            f"<p>{html.escape(_clipped(card.get('description', '')))}</p><table>{lines}</table>"
        )

    def _channelText(self, channel: str) -> str:
        description = self.channelDescription(channel)
        return f"{channel} ({description})" if description else channel

    def _isOf(self, modality: str) -> bool:
        """Whether the card's modality (``MR``, ``MRI FLAIR``, ``CT``...) is a DICOM modality."""
        names = {"MR": ("mr", "mri"), "CT": ("ct",), "PT": ("pt", "pet")}
        words = self.modality.casefold().replace("-", " ").replace("/", " ").split()
        return any(name in words for name in names.get(modality, (modality.casefold(),)))

    def _intensityMisfits(self, facts: VolumeFacts) -> list[str]:
        if facts.scalarRange is None:
            return []
        low, high = facts.scalarRange
        if not (math.isfinite(low) and math.isfinite(high)):
            return [_("Some of its voxels are not numbers.")]
        if not low < high:
            return [_("All its voxels have the same intensity.")]
        texts = {"low": f"{low:.4g}", "high": f"{high:.4g}"}
        if self._window is not None:
            lower, upper = self._window
            if high <= lower or low >= upper or (lower < 0 <= low):
                return [
                    _(
                        "Its intensities go from {low} to {high}, the model looks between {lower} "
                        "and {upper}: are they in the units that the model wants?"
                    ).format(**texts, lower=f"{lower:g}", upper=f"{upper:g}")
                ]
        if facts.isInteger and high - low <= _FEW_VALUES:
            return [
                _(
                    "Its intensities are whole numbers from {low} to {high}: "
                    "is it a label map instead of a scan?"
                ).format(**texts)
            ]
        return []


def _clipped(text: Any, length: int = _MAX_TEXT) -> str:
    """A text of a card, which may come from anywhere, no longer than is shown."""
    text = str(text)
    return text if len(text) <= length else text[: length - 1] + "…"


def _positive(value: Any) -> float:
    number = float(value)
    if not 0.01 <= number <= 100:
        raise ValueError(_("a spacing on the card makes no sense"))
    return number


def readCard(folder: Path) -> CardContent:
    """Read a card's file, which may be large; for a thread.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is not JSON, or too large.
    """
    path = folder / CARD
    if path.stat().st_size > _MAX_CARD_BYTES:
        raise ValueError("the card is too large")
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("the card is not built like a card") from None
    return card, json.dumps(card, ensure_ascii=False).casefold()


def readCards(
    roots: Sequence[tuple[Path, bool]] | None = None,
) -> list[tuple[Path, bool, CardContent | Exception]]:
    """Read the cards of all models; for a thread.

    Args:
        roots: Folders of models, and whether they ship; None: where models are kept.

    Returns:
        Of each model its folder, whether it ships, and its card or why that could not be read.
    """
    found: list[tuple[Path, bool, CardContent | Exception]] = []
    if roots is None:
        roots = [(user_models_folder(), False)]
        try:
            roots.insert(0, (shipped_models_folder(), True))
        except TomoSegError as error:
            found.append((Path("TomoSeg"), True, error))
    for root, shipped in roots:
        try:
            folders = sorted(root.iterdir()) if root.is_dir() else []
        except OSError as error:
            found.append((root, shipped, error))
            continue
        for folder in folders:
            if folder.name.startswith(".") or not (folder / CARD).is_file():
                continue
            content: CardContent | Exception
            try:
                content = readCard(folder)
            except (OSError, ValueError) as error:
                content = error
            found.append((folder, shipped, content))
    return found


def makeCards(
    found: Sequence[tuple[Path, bool, CardContent | Exception]],
) -> tuple[list[Card], list[tuple[Path, str]]]:
    """The models that can be chosen.

    Args:
        found: What `readCards` has found.

    Returns:
        The cards in the order of their titles, and the folders with cards that cannot be used,
        each with the reason.
    """
    cards: dict[str, Card] = {}
    broken: list[tuple[Path, str]] = []
    for folder, shipped, content in found:
        try:
            if isinstance(content, Exception):
                raise content
            card = Card(folder, shipped, content)
        except (OSError, ValueError, TomoSegError) as error:
            broken.append((folder, str(error)))
        else:
            cards.setdefault(card.name, card)  # a shipped model is never replaced
    return sorted(cards.values(), key=lambda card: card.title.casefold()), broken


def modalities(cards: Sequence[Card]) -> list[Any]:
    """The modalities of some cards, each once."""
    return sorted({card.modality for card in cards})
