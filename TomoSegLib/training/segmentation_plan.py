"""What is fine-tuned, and what follows from that: cases, channels, grid, intensities, network."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import Intensity, Preprocessing
from TomoSegLib.networks.efficientnet import NAME as EFFICIENTNET
from TomoSegLib.networks.imagenet import begin_with_imagenet, build_unet2d
from TomoSegLib.networks.unet import STRIDE
from TomoSegLib.networks.unet2d import FEATURES as FEATURES_2D
from TomoSegLib.networks.unet2d import (
    EfficientNetUNet2D,
    EncoderDecoder,
    EncoderUNet2D,
    ResNetUNet2D,
    UNet2D,
)
from TomoSegLib.networks.unet3d import FEATURES, UNet3D
from TomoSegLib.pretraining.weights import Pretrained, begin_with
from TomoSegLib.training.checkpoint import files_identity
from TomoSegLib.training.finetuning_start import (
    IMAGENET,
    SCRATCH,
    Foreground,
    encoder_of,
    modality_of,
    preprocessing_of,
    refuse_card_texts,
    weights_of,
)
from TomoSegLib.training.pseudo_labels import UNSURE
from TomoSegLib.training.segmentation_manifest import (
    LabelledCase,
    LabelSpec,
    fraction_of,
    read_labelled,
)
from TomoSegLib.training.segmentation_trainer import FinetuningOptions

PATCH_2D = (1, 128, 128)


@dataclass(frozen=True)
class Finetuning:
    """What to fine-tune.

    Attributes:
        manifest: CSV with image (or image_<channel>), label, split; optional modality, group, id.
        output: Folder of the run: the model in ``model/``, scores, curves, checkpoint.
        labels: What to segment.
        dimensions: 3, or 2: each slice of a stack by itself, without resampling across them; None:
            as ``start`` or ``like`` has it, else 3.
        encoder: Of a 2D network, see `build_unet2d`; None: as ``start`` or ``like`` has it, else
            ``unet``.
        start: ``scratch``, ``imagenet`` (2D, encoder efficientnet-lite0), the folder of a
            pre-training, the name of weights that ship, or a safetensors file of the same network.
        like: Another such start, or None: its network, voxel size and intensities are used, its
            weights are not. With ``scratch`` that is the fair comparison with starting from it.
        fraction: Share of the training cases that is used.
        options: Of the optimisation.
        modality: CT or MR, or None: what the manifest says, else what the intensities look like.
        spacing_mm: Voxel size of the model's grid, or pixel size of slices; None: the
            pre-training's, else 1 mm, or 1.26 mm for slices.
        intensity: How intensities are normalised; None: as the pre-training did, since its filters
            expect that; else z-score for MR, window for CT.
        foreground: Kind of foreground; None: ``nonzero`` for volumes of MR, else ``none``.
        features: Channels of the U-Net's levels; None: those of the pre-trained weights, else
            Models Genesis'.
        name: Of the model.
        license: Of the model.
        simulated: Whether the volumes are simulated, for the card; a simulation's own record beside
            the manifest says so too.
        command: How it was called, for the card.
        workers: Processes that draw patches.
        device: torch device.
        threads: CPU threads, or None for torch's default.
        overwrite: Start again over a fine-tuning that is there.
    """

    manifest: Path
    output: Path
    labels: Sequence[LabelSpec]
    dimensions: int | None = None
    encoder: str | None = None
    start: str = SCRATCH
    like: str | None = None
    fraction: Fraction = Fraction(1)
    options: FinetuningOptions = field(default_factory=FinetuningOptions)
    modality: str | None = None
    spacing_mm: float | None = None
    intensity: Intensity | None = None
    foreground: Foreground | None = None
    features: tuple[int, ...] | None = None
    name: str | None = None
    license: str = "unspecified"
    simulated: bool = False
    command: str = ""
    workers: int = 0
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """What a fine-tuning works with.

    Attributes:
        what: What was asked for.
        channels: Names of the channels.
        cases: All cases of the manifest.
        used: The training cases that are used.
        modality: CT or MR.
        preprocessing: Of the model.
        features: Channels of the U-Net's levels.
        pretrained: Weights to start from, or None.
        encoder: Of a 2D network; empty for a 3D one.
    """

    what: Finetuning
    channels: tuple[str, ...]
    cases: Sequence[LabelledCase]
    used: Sequence[LabelledCase]
    modality: str
    preprocessing: Preprocessing
    features: tuple[int, ...]
    pretrained: Pretrained | None
    encoder: str = ""

    def network(self) -> UNet3D | EncoderDecoder:
        """The network with random weights, or its start."""
        inputs, outputs = len(self.channels), len(self.what.labels) + 1
        network: UNet3D | EncoderDecoder
        if not self.encoder:
            network = UNet3D(inputs, outputs, self.features)
        else:
            network = build_unet2d(self.encoder, inputs, outputs, self.features)
        if self.pretrained is not None:
            begin_with(network, self.pretrained, rescaled=bool(self.encoder))
        elif self.what.start == IMAGENET and isinstance(network, EfficientNetUNet2D):
            begin_with_imagenet(network)
        return network

    def network_arguments(self) -> dict[str, Any]:
        """Class and arguments of the network, for the card."""
        kind: type = UNet3D
        arguments: dict[str, Any] = {"features": list(self.features)}
        if self.encoder == EFFICIENTNET:
            kind, arguments = EfficientNetUNet2D, {}
        elif self.encoder == "unet":
            kind = UNet2D
        elif self.encoder:
            kind, arguments = ResNetUNet2D, {"backbone": self.encoder}
        return {
            "target": f"{kind.__module__}.{kind.__name__}",
            "arguments": {
                "in_channels": len(self.channels),
                "out_channels": len(self.what.labels) + 1,
                **arguments,
            },
        }

    def split(self, split: str) -> list[LabelledCase]:
        """The cases of a split."""
        return [case for case in self.cases if case.split == split]

    def identity(self) -> dict[str, Any]:
        """What makes it this training and no other."""
        start = self.what.start if self.what.start == IMAGENET else SCRATCH
        rows = [[c.id, c.split, str(c.label), *map(str, c.paths)] for c in self.cases]
        return {
            "manifest": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
            "files": files_identity(
                file for case in self.cases for file in (*case.paths, case.label)
            ),
            "cases": [case.id for case in self.used],
            "channels": list(self.channels),
            "labels": [asdict(label) for label in self.what.labels],
            "features": list(self.features),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "encoder": self.encoder,
            "start": start if self.pretrained is None else self.pretrained.sha256,
            "options": self.what.options.as_dict(),
        }


def make_plan(what: Finetuning) -> Plan:
    """Check what was asked for and find out the rest.

    Raises:
        TomoSegError: ``finetuning-options``, ``manifest-modality`` and those of `read_labelled`
            and `load_pretrained`.
    """
    pretrained, model = weights_of(what)
    encoder = encoder_of(what, model)
    if encoder and what.options.patch == FinetuningOptions.patch:
        what = replace(what, options=replace(what.options, patch=PATCH_2D))
    _check(what, encoder)
    channels, cases = read_labelled(what.manifest)
    modality = what.modality or modality_of(cases, single_slice=bool(encoder))
    training = [case for case in cases if case.split == "train"]
    return Plan(
        what,
        channels,
        cases,
        fraction_of(training, what.fraction, what.options.seed),
        modality,
        preprocessing_of(what, modality, model, in_plane=bool(encoder)),
        what.features
        or (model.features if model else None)
        or (FEATURES_2D if encoder else FEATURES),
        pretrained,
        encoder,
    )


def _check(what: Finetuning, encoder: str) -> None:
    def refuse(message: str, hint: str) -> TomoSegError:
        return TomoSegError("finetuning-options", message, hint)

    stride = STRIDE if encoder in ("", "unet") else EncoderUNet2D.stride
    k, j, i = what.options.patch
    if any(n < stride or n % stride for n in (j, i) + (() if encoder else (k,))):
        raise refuse(
            f"A patch of {i} x {j} x {k} voxels does not fit the network.",
            f"Choose sides that are multiples of {stride}.",
        )
    if encoder and k != 1:
        raise refuse(
            f"A patch of {i} x {j} x {k} voxels is none of a 2D network.",
            f"Give one slice: --patch {i}x{j}x1.",
        )
    deepest = what.options.batch_size * math.prod(max(1, n // stride) for n in (k, j, i))
    if deepest == 1:
        raise refuse(
            f"A batch of one patch of {i} x {j} x {k} voxels is a single value on the network's "
            "deepest level, which batch normalisation cannot use.",
            "Give --batch-size 2 or more, or a larger --patch.",
        )
    if not 0 < what.fraction <= 1:
        raise refuse(
            f"{what.fraction} is no share of the training cases.",
            "Give a fraction above 0, up to 1, for example 1/10.",
        )
    if what.features is not None and (len(what.features) != 6 or min(what.features) < 1):
        raise refuse(
            "The network needs six numbers of channels.", "Example: --features 32,64,128,256,512,32"
        )
    if what.options.loss == "noise-tolerant" and any(UNSURE in n.values for n in what.labels):
        raise refuse(
            f"With the loss noise-tolerant the value {UNSURE} means that nothing is known.",
            "Give the label another value.",
        )
    refuse_card_texts(what.name, what.license)
