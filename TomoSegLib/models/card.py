"""The model card: what a model is, what it needs, and how its output becomes a heatmap and a mask.

A model is a folder with ``card.json`` and the files that the card lists with their SHA-256. The
card is validated strictly: unknown fields are refused, because a misspelt setting that is silently
ignored would change results.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from TomoSegLib.models.card_network import (
    FILE_NAME,
    FiniteFloat,
    Intensity,
    Network,
    Preprocessing,
    Slices,
    SlidingWindow,
    StackInput,
    StrictModel,
)

__all__ = [
    "CamKind",
    "Channel",
    "Components",
    "Intensity",
    "Label",
    "MaskSettings",
    "Method",
    "MethodSettings",
    "ModelCard",
    "Network",
    "Preprocessing",
    "RefinementMethod",
    "RefinementSettings",
    "Slices",
    "SlidingWindow",
    "StackInput",
    "StrictModel",
    "Threshold",
    "TrainingData",
    "Window",
]

Method = Literal["tonno", "cam", "averaged-cam", "tomographic-cam"]
CamKind = Literal["cam", "gradcam", "gradcam++", "layercam"]
Window = Literal["hann", "cosine", "none"]
PLATEAU_ML = 5.0
"""Volume whose mean heat a threshold of the kind ``plateau`` is a fraction of."""

Components = Literal["all", "largest", "peak"]
RefinementMethod = Literal["threshold", "random-walker", "geodesic", "graph-cut"]

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
"""Of models and channels."""

MOST_CHANNELS = 16
LONGEST_LICENSE = 200  # characters
LONGEST_MODALITY = 64
# Names that Windows keeps for devices, with any extension.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}


def is_file_name_everywhere(name: str) -> bool:
    """Whether Windows, too, can have a file of this name."""
    return not name.endswith(".") and name.split(".")[0].lower() not in _RESERVED


Text = Annotated[str, Field(max_length=4000)]


class Channel(StrictModel):
    """One input image of the model; several are resampled to the grid of the first."""

    name: Annotated[str, Field(pattern=NAME)]
    description: Text = ""


class Label(StrictModel):
    """One output structure.

    Attributes:
        value: Voxel value in label maps.
        color: Red, green, blue in [0, 1].
        terminology: Slicer's serialised terminology entry (``~``-separated: category and type as
            ``code^scheme^meaning``), kept verbatim in ``.seg.nrrd`` files.
    """

    name: Annotated[str, Field(min_length=1, max_length=128)]
    value: Annotated[int, Field(ge=1, le=255)] = 1
    color: tuple[float, float, float] = (0.9, 0.3, 0.2)
    terminology: Text = ""

    @field_validator("color")
    @classmethod
    def _color_in_unit_range(cls, color: tuple[float, float, float]) -> tuple[float, float, float]:
        if not all(0 <= c <= 1 for c in color):
            raise ValueError("color components must lie in [0, 1]")
        return color


class Threshold(StrictModel):
    """A heatmap value above which a voxel belongs to the mask.

    ``absolute``: in the heatmap's own units; ``peak``: as a fraction of the heatmap's maximum
    (within the foreground); ``plateau``: as a fraction of the mean of its hottest
    `PLATEAU_ML`, which a single hot spot moves less.
    """

    kind: Literal["absolute", "peak", "plateau"] = "absolute"
    value: FiniteFloat


class MethodSettings(StrictModel):
    """How one heatmap method is run with this model, chosen on validation data.

    Attributes:
        directions: Direction set, e.g. ``fibonacci:64``.
        filter_order: p of the filter ``|k|^p``, in [0, 2]; 2 is the exact inverse of the plane
            Radon transform, smaller orders suit encoders whose logit saturates with area.
            Ignored by ``cam`` and ``averaged-cam``, which filter nothing.
        cutoff: Cutoff as a fraction of the Nyquist frequency of the slice distance, in (0, 1].
        window: Apodisation of the filter up to the cutoff.
        rectified: Whether class activation maps are clipped at zero slice by slice.
        threshold: Calibrated threshold for the mask, or None if it was never calibrated.
    """

    directions: Annotated[str, Field(max_length=4096)] = "fibonacci:64"
    filter_order: Annotated[float, Field(ge=0, le=2)] = 2.0
    cutoff: Annotated[float, Field(gt=0, le=1)] = 1.0
    window: Window = "hann"
    rectified: bool = False
    threshold: Threshold | None = None


class MaskSettings(StrictModel):
    """From heatmap to mask: which connected components are kept."""

    minimum_size_ml: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    components: Components = "all"


class RefinementSettings(StrictModel):
    """How a mask follows the image's own borders, see `TomoSegLib.refinement.refine`.

    Heat is measured in units of the mask's threshold: at 1 the mask begins. The defaults were
    chosen on simulated validation volumes.

    Attributes:
        method: What decides the voxels that the heatmap leaves unsure.
        inside: From this heat on a voxel is certainly inside where all directions agree.
        doubt: How much hotter it must be where they do not: by ``1 + doubt (1 - agreement)``.
        outside: Below this heat a voxel is certainly outside.
        reach_mm: Further from the mask without refinement too: the heatmap is not coarser than
            that, but the image's edges may lead far away, along vessels.
        level: Where between the median intensities of outside and inside seeds the border lies.
        heat_weight: What a doubling of the heat adds to the log odds of a voxel being inside.
        boundary_mm: How much a mm^2 of border counts against a mm^3 of evidence: the larger, the
            smoother the mask. With ``geodesic`` how long a step across an edge of the image is;
            with ``threshold`` nothing.
        smoothing_mm: Standard deviation of the Gaussian that takes noise from the image first.
        closing_mm: Gaps up to twice as wide are closed (morphological closing by a ball): the
            rims of lesions are broken where they do not enhance.
        fill_holes: Whether cavities of the mask are filled, then.
    """

    method: RefinementMethod = "random-walker"
    inside: Annotated[float, Field(gt=0, le=100)] = 1.0
    doubt: Annotated[float, Field(ge=0, le=100)] = 1.0
    outside: Annotated[float, Field(ge=0, le=1)] = 0.1
    reach_mm: Annotated[float, Field(gt=0, le=1000)] = 15.0
    level: Annotated[float, Field(gt=0, lt=1)] = 0.4
    heat_weight: Annotated[float, Field(ge=0, le=100)] = 0.5
    boundary_mm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    smoothing_mm: Annotated[float, Field(ge=0, le=20)] = 0.7
    closing_mm: Annotated[float, Field(ge=0, le=50)] = 0.0
    fill_holes: bool = True


class TrainingData(StrictModel):
    """Where the model's knowledge comes from; ``simulated`` is shown wherever the model is."""

    description: Text
    simulated: bool
    command: Text = ""
    volumes: Annotated[int, Field(ge=0)] = 0
    seed: int | None = None


class ModelCard(StrictModel):
    """The card of a model: ``card.json``, schema version 1.

    ``slices``, ``method``, ``methods``, ``refinement``, ``network.features`` and
    ``network.output`` are for the task ``heatmap`` (a 2D encoder), ``sliding_window`` for
    ``segmentation`` (a 3D network, or a 2D one); the mask settings are for both. ``stack`` is for
    ``classification``, whose labels are the classes.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=NAME)]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(max_length=200)]
    description: Text = ""
    task: Literal["heatmap", "segmentation", "classification"] = "heatmap"
    modality: Annotated[str, Field(max_length=LONGEST_MODALITY)]
    anatomy: Annotated[str, Field(max_length=64)] = ""
    channels: Annotated[list[Channel], Field(min_length=1, max_length=MOST_CHANNELS)]
    labels: Annotated[list[Label], Field(min_length=1, max_length=255)]
    preprocessing: Preprocessing = Preprocessing()
    network: Network
    slices: Slices = Slices()
    method: Method = "tonno"
    methods: dict[Method, MethodSettings] = Field(default_factory=dict)
    mask: MaskSettings = MaskSettings()
    sliding_window: SlidingWindow | None = None
    stack: StackInput | None = None
    refinement: RefinementSettings | None = None
    training_data: TrainingData
    license: Annotated[str, Field(max_length=LONGEST_LICENSE)]
    intended_use: Text
    limitations: list[Text] = Field(default_factory=list)
    contributors: list[Text] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    files: dict[
        Annotated[str, Field(pattern=FILE_NAME)], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    ]

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if self.network.file not in self.files:
            raise ValueError(f"files: the hash of {self.network.file} is missing")
        for name in (self.name, *self.files):
            if not is_file_name_everywhere(name):
                raise ValueError(f"{name!r} is no name for a file on every system")
        for what, names in (
            ("channels", [c.name for c in self.channels]),
            ("labels", [label.value for label in self.labels]),
            ("files", ["card.json", *(name.lower() for name in self.files)]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: duplicate entries")
        if self.task != "segmentation" and self.sliding_window is not None:
            raise ValueError("sliding_window: only for the task segmentation")
        if self.task != "classification" and self.stack is not None:
            raise ValueError("stack: only for the task classification")
        if self.task == "segmentation":
            self._check_segmenter()
        elif self.task == "classification":
            self._check_classifier()
        elif self.preprocessing.in_plane:
            raise ValueError("preprocessing.in_plane: not for the task heatmap")
        return self

    def _check_segmenter(self) -> None:
        window = self.sliding_window
        if window is None:
            raise ValueError("sliding_window: missing, the task segmentation needs it")
        depth = window.roi_size[0]
        if self.preprocessing.in_plane != (depth == 1) or 1 < depth < 8:
            raise ValueError(
                "sliding_window.roi_size: the first side is 1 with preprocessing.in_plane, "
                "else 8 or more"
            )
        self._refuse_settings("slices", "method", "methods", "refinement")
        background = [0] if window.activation == "softmax" else []
        if sorted(self.outputs) != sorted([*background, *(label.value for label in self.labels)]):
            raise ValueError(
                "sliding_window.outputs: each label's value once"
                + (", and 0 once" if background else "")
            )

    def _check_classifier(self) -> None:
        if self.stack is None:
            raise ValueError("stack: missing, the task classification needs it")
        if not self.preprocessing.in_plane:
            raise ValueError("preprocessing.in_plane: the task classification needs it")
        names = [label.name for label in self.labels]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError("labels: two classes or more, each with its own name")
        self._refuse_settings("slices", "method", "methods", "refinement")
        if self.mask != MaskSettings():
            raise ValueError("mask: not for the task classification")

    def _refuse_settings(self, *names: str) -> None:
        """Refuse settings of heatmaps."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"{name}: only for the task heatmap")
        if self.network.features is not None or self.network.output != 0:
            raise ValueError("network: features and output are only for the task heatmap")

    @property
    def outputs(self) -> list[int]:
        """The label value of each of a segmenter's outputs, 0 for the background."""
        assert self.sliding_window is not None, "not a segmenter"
        if self.sliding_window.outputs is not None:
            return self.sliding_window.outputs
        background = [0] if self.sliding_window.activation == "softmax" else []
        return [*background, *(label.value for label in self.labels)]

    def settings(self, method: Method) -> MethodSettings:
        """The settings for a method: the card's, or the defaults where it has none.

        Plain ``cam`` is the one-orientation baseline: axial unless the card says otherwise.
        """
        default = MethodSettings(directions="axial") if method == "cam" else MethodSettings()
        return self.methods.get(method, default)
