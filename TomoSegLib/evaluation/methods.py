"""What an evaluation compares: the heatmap methods of a model, and the intensity baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.baseline import IntensityBaseline
from TomoSegLib.evaluation.prepared import PreparedCase
from TomoSegLib.imaging.preprocessing import sample_on
from TomoSegLib.models.card import CamKind, Method, MethodSettings
from TomoSegLib.models.store import ModelFolder, model_hash

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
OnProgress = Callable[[int, int], None]
OnWarning = Callable[[str, str], None]


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a method says of a case, on the source grid.

    Attributes:
        heatmap: ``(k, j, i)``.
        mask: ``(k, j, i)``.
        threshold: The heatmap value at which the mask begins.
    """

    heatmap: Float32Array
    mask: BoolArray
    threshold: float


class EvaluatedMethod(Protocol):
    """A method under its name in tables, with all that its results depend on."""

    name: str

    def settings(self) -> dict[str, Any]:
        """All that the outcome depends on besides the case, for JSON."""

    def run(self, prepared: PreparedCase, on_progress: OnProgress) -> Outcome:
        """Heatmap and mask of a case."""


class IntensityMethod:
    """The baseline of `TomoSegLib.evaluation.baseline`."""

    name = "intensity"

    def __init__(self, baseline: IntensityBaseline, model: ModelFolder) -> None:
        self.baseline = baseline
        self._preprocessing = model.card.preprocessing.model_dump(mode="json")

    def settings(self) -> dict[str, Any]:
        """See `EvaluatedMethod`."""
        return {**asdict(self.baseline), "preprocessing": self._preprocessing}

    def run(self, prepared: PreparedCase, on_progress: OnProgress) -> Outcome:
        """See `EvaluatedMethod`."""
        model_input = prepared.model_input
        heatmap = sample_on(
            self.baseline.heatmap(model_input), model_input.geometry, model_input.source
        )
        mask, threshold = self.baseline.mask(heatmap, model_input.source_foreground)
        on_progress(1, 1)
        return Outcome(heatmap, mask, threshold)


class EncoderOnce:
    """A model's encoder, loaded when it is first needed and then shared by the methods."""

    def __init__(self, model: ModelFolder, device: str) -> None:
        self.model = model
        self.device = device
        self._encoder: Any = None

    def __call__(self) -> Any:
        """The loaded encoder, on the device."""
        if self._encoder is None:
            from TomoSegLib.models.loading import load_encoder

            self._encoder = load_encoder(self.model, self.device)
        return self._encoder


class HeatmapMethod:
    """A heatmap method of a model, as ``tomoseg run`` would run it.

    Args:
        name: The method.
        encoder: The model's encoder.
        cam: Kind of class activation map.
        directions: In place of the card's; never for one-orientation CAM.
        threshold: As in a job. Where it is ``card`` and the card has none, Otsu's.
        batch_size: Slices per pass of the encoder, or None for the device's default.
        on_warning: Receives code and message of warnings.
    """

    def __init__(
        self,
        name: Method,
        encoder: EncoderOnce,
        *,
        cam: CamKind = "cam",
        directions: str | None = None,
        threshold: float | str = "card",
        batch_size: int | None = None,
        on_warning: OnWarning | None = None,
    ) -> None:
        self.name: str = name
        self.method: Method = name
        self._encoder = encoder
        self._cam = cam
        self._batch_size = batch_size
        self._on_warning = on_warning
        self.method_settings = method_settings(encoder.model, name, directions)
        if threshold == "card" and self.method_settings.threshold is None:
            threshold = "otsu"
            if on_warning is not None:
                on_warning(
                    "threshold-not-calibrated",
                    f"The card of {encoder.model.name} has no threshold for {name}: "
                    "Otsu's is used.",
                )
        self._threshold = threshold

    def settings(self) -> dict[str, Any]:
        """See `EvaluatedMethod`."""
        return {
            "model": model_hash(self._encoder.model),
            "method": self.method,
            "cam": None if self.method == "tonno" else self._cam,
            "settings": self.method_settings.model_dump(mode="json"),
            "threshold": self._threshold,
        }

    def run(self, prepared: PreparedCase, on_progress: OnProgress) -> Outcome:
        """See `EvaluatedMethod`."""
        from TomoSegLib.heatmaps.mask import heatmap_to_mask
        from TomoSegLib.heatmaps.pipeline import compute_heatmap

        card = self._encoder.model.card
        model_input = prepared.model_input
        heatmap = compute_heatmap(
            model_input,
            self._encoder(),
            card,
            self.method,
            self.method_settings,
            self._cam,
            device=self._encoder.device,
            batch_size=self._batch_size,
            on_progress=on_progress,
        ).heatmap
        mask, threshold = heatmap_to_mask(
            heatmap,
            model_input.source_foreground,
            self._threshold,
            card.mask,
            model_input.source,
            calibrated=self.method_settings.threshold,
        )
        return Outcome(heatmap, mask.astype(bool), threshold)


def method_settings(
    model: ModelFolder, method: Method, directions: str | None = None
) -> MethodSettings:
    """The card's settings of a method, with other directions if they are given.

    One-orientation CAM keeps its one orientation: the card's, or axial.
    """
    settings = model.card.settings(method)
    if method == "cam":
        if method not in model.card.methods:
            settings = settings.model_copy(update={"directions": "axial"})
    elif directions is not None:
        settings = settings.model_copy(update={"directions": directions})
    return settings


def unknown_method(name: str, known: tuple[str, ...]) -> TomoSegError:
    """The error for a method that is not there."""
    return TomoSegError(
        "method-unknown",
        f"There is no method {name!r}.",
        f"Choose among {', '.join(known)}.",
    )
