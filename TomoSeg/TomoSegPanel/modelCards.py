"""Model cards as the panel reads them: for people to read, and to see whether a volume fits.

Only the standard library is used, for Slicer's Python need not have the engine's packages yet.
Cards are validated by the worker before it uses a model; here a card that cannot be understood is
left out of the list, with the reason.
"""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from slicer.i18n import tr as _

from TomoSegLib.models.locations import shipped_models_folder, user_models_folder

CARD = "card.json"
_MAX_CARD_BYTES = 1 << 20
_COARSE = 3.0
_SMALL = 16


@dataclass(frozen=True)
class VolumeFacts:
    """What can be said of a volume at a glance.

    Attributes:
        spacing: Voxel size in mm, along ``(i, j, k)``.
        dimensions: Voxels along ``(i, j, k)``.
        scalarRange: Least and greatest intensity.
        modality: DICOM modality (``MR``, ``CT``), or "" where it is not known.
    """

    spacing: tuple[float, float, float]
    dimensions: tuple[int, int, int]
    scalarRange: tuple[float, float]
    modality: str = ""


class Card:
    """A model's card.

    Raises:
        ValueError: The file is not a card.
    """

    def __init__(self, folder: Path, shipped: bool) -> None:
        self.folder, self.shipped = folder, shipped
        path = folder / CARD
        if path.stat().st_size > _MAX_CARD_BYTES:
            raise ValueError("the card is too large")
        self._card = json.loads(path.read_text(encoding="utf-8"))
        try:
            self.name = str(self._card["name"])
            self.version = str(self._card["version"])
            self.title = str(self._card["title"])
            self.modality = str(self._card["modality"])
            self.channels = [str(channel["name"]) for channel in self._card["channels"]]
            self.labels = [dict(label) for label in self._card["labels"]]
            self.simulated = bool(self._card["training_data"]["simulated"])
            self._card["training_data"]["description"], self._card["files"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"the card lacks {error}") from None
        self.task = str(self._card.get("task", "heatmap"))
        self.method = str(self._card.get("method", "tonno"))
        self.spacingMm = float(self._card.get("preprocessing", {}).get("spacing_mm", 2.0))
        self.sliceDistanceMm = float(self._card.get("slices", {}).get("distance_mm", 2.0))

    def directions(self, method: str) -> str:
        """The direction set that the card asks for."""
        settings = self._card.get("methods", {}).get(method, {})
        return str(settings.get("directions", "axial" if method == "cam" else "fibonacci:64"))

    def hasThreshold(self, method: str) -> bool:
        """Whether the card has a calibrated threshold for the method."""
        return bool(self._card.get("methods", {}).get(method, {}).get("threshold"))

    def channelDescription(self, channel: str) -> str:
        """What the card says of a channel."""
        for each in self._card["channels"]:
            if each["name"] == channel:
                return str(each.get("description", ""))
        return ""

    def matches(self, text: str) -> bool:
        """Whether every word of a search text is somewhere on the card."""
        everything = json.dumps(self._card, ensure_ascii=False).casefold()
        return all(word in everything for word in text.casefold().split())

    def misfits(self, facts: VolumeFacts) -> list[str]:
        """Reasons why a volume may not be what the model has learnt on; empty if none is known."""
        reasons = []
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
        card, data = self._card, self._card["training_data"]
        learnt = _("SIMULATED data") if self.simulated else _("real data")
        rows = [
            (_("Task"), _("segmentation") if self.task == "segmentation" else _("heatmap")),
            (_("Modality"), ", ".join(filter(None, [self.modality, card.get("anatomy", "")]))),
            (_("Volumes it needs"), ", ".join(map(self._channelText, self.channels))),
            (_("Finds"), ", ".join(str(label.get("name", "")) for label in self.labels)),
            (_("Trained on"), f"{learnt}: {data['description']}"),
            (_("Intended use"), card.get("intended_use", "")),
            (_("Limits"), " ".join(map(str, card.get("limitations", [])))),
            (_("Licence"), card.get("license", "")),
            (_("By"), ", ".join(map(str, card.get("contributors", [])))),
            (_("Version"), self.version),
            (_("Folder"), str(self.folder)),
        ]
        lines = "".join(
            f"<tr><td><b>{html.escape(title)}</b>&nbsp;</td><td>{html.escape(str(text))}</td></tr>"
            for title, text in rows
            if text
        )
        return (
            f"<h3>{html.escape(self.title)}</h3>"
            f"<p>{html.escape(str(card.get('description', '')))}</p><table>{lines}</table>"
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
        low, high = facts.scalarRange
        if not low < high:
            return [_("All its voxels have the same intensity.")]
        intensity = self._card.get("preprocessing", {}).get("intensity", {})
        if intensity.get("method") == "window":
            lower, upper = float(intensity["lower"]), float(intensity["upper"])
            if high <= lower or low >= upper or (lower < 0 <= low):
                return [
                    _(
                        "Its intensities go from {low} to {high}, the model looks between {lower} "
                        "and {upper}: are they in the units that the model wants?"
                    ).format(
                        low=f"{low:.4g}", high=f"{high:.4g}", lower=f"{lower:g}", upper=f"{upper:g}"
                    )
                ]
        return []


def listCards(
    folders: Sequence[tuple[Path, bool]] | None = None,
) -> tuple[list[Card], list[tuple[Path, str]]]:
    """All models: the shipped ones and the user's.

    Args:
        folders: Folders of models, and whether they ship; None: where models are kept.

    Returns:
        The cards in the order of their titles, and the folders with cards that cannot be read,
        each with the reason.
    """
    if folders is None:
        folders = [(shipped_models_folder(), True), (user_models_folder(), False)]
    cards: dict[str, Card] = {}
    broken: list[tuple[Path, str]] = []
    for root, shipped in folders:
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if folder.name.startswith(".") or not (folder / CARD).is_file():
                continue
            try:
                card = Card(folder, shipped)
            except (OSError, ValueError, TypeError, AttributeError) as error:
                broken.append((folder, str(error)))
            else:
                cards.setdefault(card.name, card)  # a shipped model is never replaced
    return sorted(cards.values(), key=lambda card: card.title.casefold()), broken


def modalities(cards: Sequence[Card]) -> list[Any]:
    """The modalities of some cards, each once."""
    return sorted({card.modality for card in cards})
