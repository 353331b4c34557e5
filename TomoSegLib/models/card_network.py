"""What a model card says of a network: its grid and intensities, what it sees, and which it is."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

FILE_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"
_DOTTED = r"^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*$"

PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
WindowSide = Annotated[int, Field(ge=8, le=1024)]
OutputValue = Annotated[int, Field(ge=0, le=255)]


class StrictModel(BaseModel):
    """Base of every document: immutable, and an unknown field is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


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
            array's first axis, stay as they are, and ``spacing_mm`` is their pixel size. Columns
            and rows run as radiologists read them, whatever ``orientation`` says.
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


class StackInput(StrictModel):
    """What a network that classifies stacks sees of one.

    The network maps stacks ``(B, C, K, *size)`` of any number K of prepared slices to logits
    ``(B, N)`` of the card's labels in their order; a softmax makes probabilities of them.

    Attributes:
        size: Rows and columns of the slices: their middle is cropped, or padded with the
            background.
    """

    size: tuple[WindowSide, WindowSide]


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
    file: Annotated[str, Field(pattern=FILE_NAME)] = "weights.safetensors"

    @model_validator(mode="after")
    def _target_for_modules(self) -> Network:
        if self.format == "module" and self.target is None:
            raise ValueError("network: format 'module' needs a target")
        return self
