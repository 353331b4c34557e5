"""What an evaluation compares: the heatmap methods of a model, and the intensity baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.baseline import IntensityBaseline
from TomoSegLib.evaluation.prepared import PreparedCase, prepare_case
from TomoSegLib.imaging.preprocessing import sample_on
from TomoSegLib.models.card import CamKind, Method, MethodSettings, ModelCard, RefinementSettings
from TomoSegLib.models.store import ModelFolder, model_hash

if TYPE_CHECKING:
    from TomoSegLib.models.segmenter import LoadedSegmenter

REFINED = "+refined"
"""What the name of a heatmap method ends in when its mask is refined."""

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
        agreement: ``(k, j, i)`` of the directions, where there are any.
    """

    heatmap: Float32Array
    mask: BoolArray
    threshold: float
    agreement: Float32Array | None = None


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
        self._last: tuple[PreparedCase, Outcome] | None = None

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
        """See `EvaluatedMethod`; the last case's outcome is kept for `RefinedMethod`."""
        from TomoSegLib.heatmaps.mask import heatmap_to_mask
        from TomoSegLib.heatmaps.pipeline import compute_heatmap

        if self._last is not None and self._last[0] is prepared:
            return self._last[1]
        card = self._encoder.model.card
        model_input = prepared.model_input
        found = compute_heatmap(
            model_input,
            self._encoder(),
            card,
            self.method,
            self.method_settings,
            self._cam,
            device=self._encoder.device,
            batch_size=self._batch_size,
            on_progress=on_progress,
        )
        mask, threshold = heatmap_to_mask(
            found.heatmap,
            model_input.source_foreground,
            self._threshold,
            card.mask,
            model_input.source,
            calibrated=self.method_settings.threshold,
        )
        outcome = Outcome(found.heatmap, mask.astype(bool), threshold, found.agreement)
        self._last = prepared, outcome
        return outcome


class RefinedMethod:
    """A heatmap method whose mask follows the image's borders, as ``tomoseg run --refine`` does."""

    def __init__(self, heatmap: HeatmapMethod, card: ModelCard, refinement: RefinementSettings):
        self.name = f"{heatmap.name}{REFINED}"
        self._heatmap, self._card, self._refinement = heatmap, card, refinement

    def settings(self) -> dict[str, Any]:
        """See `EvaluatedMethod`."""
        return {
            **self._heatmap.settings(),
            "refinement": self._refinement.model_dump(mode="json"),
            "mask": self._card.mask.model_dump(mode="json"),
        }

    def run(self, prepared: PreparedCase, on_progress: OnProgress) -> Outcome:
        """See `EvaluatedMethod`."""
        from TomoSegLib.refinement.refine import refined_mask

        outcome = self._heatmap.run(prepared, on_progress)
        assert outcome.agreement is not None
        mask = refined_mask(
            prepared.image.array,
            outcome.heatmap,
            outcome.agreement,
            prepared.model_input.source,
            self._refinement,
            self._card.mask,
            threshold=outcome.threshold,
            foreground=prepared.model_input.source_foreground,
        )
        return replace(outcome, mask=mask.astype(bool))


class SegmenterMethod:
    """A segmenter, as ``tomoseg run`` would run it; its probability stands for the heatmap."""

    def __init__(self, model: ModelFolder, device: str) -> None:
        self.name = model.name
        self._model, self._device = model, device
        self._segmenter: LoadedSegmenter | None = None

    def settings(self) -> dict[str, Any]:
        """See `EvaluatedMethod`."""
        return {"model": model_hash(self._model)}

    def run(self, prepared: PreparedCase, on_progress: OnProgress) -> Outcome:
        """See `EvaluatedMethod`."""
        from TomoSegLib.models.segmenter import load_segmenter
        from TomoSegLib.segmentation.inference import predict
        from TomoSegLib.segmentation.labelmap import clean, to_source

        if self._segmenter is None:
            self._segmenter = load_segmenter(self._model, self._device)
        card = self._model.card
        scan = prepare_case(prepared.case, card).model_input
        found = predict(scan, self._segmenter, on_progress=on_progress)
        probabilities, labelmap = to_source(
            found.probabilities, scan.geometry, scan.source, scan.source_foreground, card
        )
        clean(labelmap, probabilities, card.labels, card.mask, scan.source)
        value = card.labels[0].value
        return Outcome(probabilities[..., 0], labelmap == value, 0.5)


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
