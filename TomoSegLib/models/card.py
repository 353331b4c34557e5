"""The model card: what a model is, what it needs, and how its output becomes a heatmap and a mask.

A model is a folder with ``card.json`` and the files that the card lists with their SHA-256. The
card is validated strictly: unknown fields are refused, because a misspelt setting that is silently
ignored would change results.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Method = Literal["tonno", "cam", "averaged-cam", "tomographic-cam"]
CamKind = Literal["cam", "gradcam", "gradcam++", "layercam"]
Window = Literal["hann", "cosine", "none"]
Components = Literal["all", "largest", "peak"]
RefinementMethod = Literal["threshold", "random-walker", "graph-cut"]

_NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
_FILE = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_DOTTED = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$"
# Names that Windows keeps for devices, with any extension.
_RESERVED = {"con", "prn", "aux", "nul", *(f"{d}{n}" for d in ("com", "lpt") for n in range(10))}

Text = Annotated[str, Field(max_length=4000)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
WindowSide = Annotated[int, Field(ge=8, le=1024)]
OutputValue = Annotated[int, Field(ge=0, le=255)]


class StrictModel(BaseModel):
    """Base of every document: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Channel(StrictModel):
    """One input image of the model; several are resampled to the grid of the first."""

    name: Annotated[str, Field(pattern=_NAME)]
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


class Intensity(StrictModel):
    """How raw intensities become network input, computed over the foreground only.

    * ``robust-zscore``: (x - median) / (IQR / 1.349), clipped to ``[lower, upper]``.
    * ``zscore``: (x - mean) / std, clipped likewise.
    * ``percentile``: the ``lower`` and ``upper`` percentiles go to 0 and 1, clipped.
    * ``window``: the values ``lower`` and ``upper`` (e.g. Hounsfield units) go to 0 and 1, clipped.
    """

    method: Literal["robust-zscore", "zscore", "percentile", "window"] = "robust-zscore"
    lower: FiniteFloat = -5.0
    upper: FiniteFloat = 5.0

    @model_validator(mode="after")
    def _ordered(self) -> Intensity:
        if not self.lower < self.upper:
            raise ValueError("intensity: lower must be less than upper")
        if self.method == "percentile" and not (0 <= self.lower and self.upper <= 100):
            raise ValueError("intensity: percentiles lie in [0, 100]")
        return self


class Preprocessing(StrictModel):
    """From a file's voxels to the network's grid and intensities.

    Attributes:
        spacing_mm: Isotropic voxel size of the model's grid.
        orientation: Axis codes of the model's grid, along ``(i, j, k)``; axes are permuted and
            flipped to the closest match, never rotated by a fraction.
        intensity: Intensity normalisation over the foreground.
        foreground: ``nonzero`` (differs from the background value), ``body`` (largest component
            above an automatic threshold), ``brain`` (as ``nonzero`` where the scan is already
            skull-stripped, else brain extraction) or ``none`` (everything).
        background: Value given to voxels outside the foreground, after normalisation.
        in_plane: For networks that see a stack slice by slice: slices, which are those along the
            array's first axis, stay as they are, and ``spacing_mm`` is their pixel size. Axes stay
            in the file's order, whatever ``orientation`` says.
    """

    spacing_mm: Annotated[float, Field(ge=0.1, le=20)] = 2.0
    orientation: Annotated[str, Field(pattern=r"^[LRAPSI]{3}$")] = "LPS"
    intensity: Intensity = Intensity()
    foreground: Literal["nonzero", "body", "brain", "none"] = "nonzero"
    background: FiniteFloat = 0.0
    in_plane: bool = False


class Slices(StrictModel):
    """The planes that the 2D encoder sees.

    Attributes:
        spacing_mm: Pixel size in the plane.
        distance_mm: Distance of neighbouring planes of a stack.
        size: Side of a square slice in pixels, or None to fit each stack to the foreground
            (rounded up to a multiple of ``multiple``), for encoders whose output does not depend
            on how much empty margin a slice has.
        multiple: Sides are multiples of this, normally the encoder's stride.
    """

    spacing_mm: PositiveFloat = 2.0
    distance_mm: PositiveFloat = 2.0
    size: Annotated[int, Field(ge=8, le=2048)] | None = None
    multiple: Annotated[int, Field(ge=1, le=256)] = 16


class SlidingWindow(StrictModel):
    """How a segmenter is moved over the model's grid, and what its logits mean.

    The network maps windows ``(B, C, *roi_size)`` of the prepared scan (axes as in arrays) to
    logits ``(B, K, *roi_size)``. Logits of windows that overlap are averaged with weights; the
    activation makes probabilities of them.

    Attributes:
        roi_size: Voxels of a window along the array's axes ``(k, j, i)``. ``k`` is 1 with
            `Preprocessing.in_plane`: the network then maps ``(B, C, j, i)`` to ``(B, K, j, i)``.
        overlap: Fraction of a window's side that neighbouring windows share.
        mode: Weights of a window's logits: ``gaussian`` (less towards its border) or
            ``constant``.
        activation: ``softmax`` over the K outputs, one of which is the background, or ``sigmoid``
            of each output by itself.
        outputs: For each of the K outputs the label value that it stands for, 0 for the
            background; None: the background (``softmax`` only), then the card's labels in their
            order.
        threshold: For ``sigmoid``: a voxel belongs to a label if its probability is above this.
            Where labels overlap the last in ``outputs`` wins, so that nested regions go from
            the largest to the smallest. For ``softmax`` the most probable output wins.
    """

    roi_size: tuple[Annotated[int, Field(ge=1, le=1024)], WindowSide, WindowSide]
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    mode: Literal["gaussian", "constant"] = "gaussian"
    activation: Literal["softmax", "sigmoid"] = "softmax"
    outputs: Annotated[list[OutputValue], Field(min_length=1, max_length=256)] | None = None
    threshold: Annotated[float, Field(gt=0, lt=1)] = 0.5


class Network(StrictModel):
    """Which torch module, with which arguments, from which file.

    Attributes:
        format: ``module`` (a class from this package, MONAI or torch.nn, built with
            ``arguments`` and filled from a safetensors file), ``torchscript`` or ``export``.
        target: For ``module``: the dotted name of the class.
        arguments: Its keyword arguments.
        features: Dotted name of the submodule whose output the CAMs use (``module`` only).
        output: Index of the logit that is reconstructed, where the network has several.
        file: Name of the weights' file in the model folder.
    """

    format: Literal["module", "torchscript", "export"] = "module"
    target: Annotated[str, Field(pattern=_DOTTED, max_length=256)] | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)
    features: Annotated[str, Field(pattern=_DOTTED, max_length=1024)] | None = None
    output: Annotated[int, Field(ge=0)] = 0
    file: Annotated[str, Field(pattern=_FILE)] = "weights.safetensors"

    @model_validator(mode="after")
    def _target_for_modules(self) -> Network:
        if self.format == "module" and self.target is None:
            raise ValueError("network: format 'module' needs a target")
        return self


class Threshold(StrictModel):
    """A heatmap value above which a voxel belongs to the mask.

    ``absolute``: in the heatmap's own units; ``peak``: as a fraction of the heatmap's maximum
    (within the foreground).
    """

    kind: Literal["absolute", "peak"] = "absolute"
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
        level: Where between the median intensities of outside and inside seeds the border lies.
        heat_weight: What a doubling of the heat adds to the log odds of a voxel being inside.
        boundary_mm: How much a mm^2 of border counts against a mm^3 of evidence: the larger, the
            smoother the mask.
        smoothing_mm: Standard deviation of the Gaussian that takes noise from the image first.
        fill_holes: Whether cavities of the mask are filled.
    """

    method: RefinementMethod = "random-walker"
    inside: Annotated[float, Field(gt=0, le=100)] = 1.0
    doubt: Annotated[float, Field(ge=0, le=100)] = 1.0
    outside: Annotated[float, Field(ge=0, le=1)] = 0.1
    level: Annotated[float, Field(gt=0, lt=1)] = 0.4
    heat_weight: Annotated[float, Field(ge=0, le=100)] = 0.5
    boundary_mm: Annotated[float, Field(gt=0, le=1000)] = 1.0
    smoothing_mm: Annotated[float, Field(ge=0, le=20)] = 0.7
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
    ``segmentation`` (a 3D network, or a 2D one); the mask settings are for both.
    """

    schema_version: Literal[1] = 1
    name: Annotated[str, Field(pattern=_NAME)]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    title: Annotated[str, Field(max_length=200)]
    description: Text = ""
    task: Literal["heatmap", "segmentation"] = "heatmap"
    modality: Annotated[str, Field(max_length=64)]
    anatomy: Annotated[str, Field(max_length=64)] = ""
    channels: Annotated[list[Channel], Field(min_length=1, max_length=16)]
    labels: Annotated[list[Label], Field(min_length=1, max_length=255)]
    preprocessing: Preprocessing = Preprocessing()
    network: Network
    slices: Slices = Slices()
    method: Method = "tonno"
    methods: dict[Method, MethodSettings] = Field(default_factory=dict)
    mask: MaskSettings = MaskSettings()
    sliding_window: SlidingWindow | None = None
    refinement: RefinementSettings | None = None
    training_data: TrainingData
    license: Annotated[str, Field(max_length=64)]
    intended_use: Text
    limitations: list[Text] = Field(default_factory=list)
    contributors: list[Text] = Field(default_factory=list)
    metrics: dict[str, Any] = Field(default_factory=dict)
    files: dict[
        Annotated[str, Field(pattern=_FILE)], Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    ]

    @model_validator(mode="after")
    def _consistent(self) -> ModelCard:
        if self.network.file not in self.files:
            raise ValueError(f"files: the hash of {self.network.file} is missing")
        for name in (self.name, *self.files):
            if name.endswith(".") or name.split(".")[0].lower() in _RESERVED:
                raise ValueError(f"{name!r} is no name for a file on every system")
        for what, names in (
            ("channels", [c.name for c in self.channels]),
            ("labels", [label.value for label in self.labels]),
            ("files", ["card.json", *(name.lower() for name in self.files)]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"{what}: duplicate entries")
        if self.task == "segmentation":
            self._check_segmenter()
        elif self.sliding_window is not None:
            raise ValueError("sliding_window: only for the task segmentation")
        elif self.preprocessing.in_plane:
            raise ValueError("preprocessing.in_plane: only for the task segmentation")
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
        for name in ("slices", "method", "methods", "refinement"):
            if getattr(self, name) != type(self).model_fields[name].get_default(
                call_default_factory=True
            ):
                raise ValueError(f"{name}: only for the task heatmap")
        if self.network.features is not None or self.network.output != 0:
            raise ValueError("network: features and output are only for the task heatmap")
        background = [0] if window.activation == "softmax" else []
        if sorted(self.outputs) != sorted([*background, *(label.value for label in self.labels)]):
            raise ValueError(
                "sliding_window.outputs: each label's value once"
                + (", and 0 once" if background else "")
            )

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
