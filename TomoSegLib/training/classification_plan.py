"""What is fine-tuned to classify stacks, and what follows from that."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import Intensity, Preprocessing
from TomoSegLib.networks.imagenet import begin_with_imagenet
from TomoSegLib.networks.stack_classifier import StackClassifier
from TomoSegLib.networks.unet import STRIDE
from TomoSegLib.networks.unet2d import (
    FEATURES,
    EfficientNetUNet2D,
    EncoderUNet2D,
    is_encoder_weight,
)
from TomoSegLib.pretraining.weights import Pretrained, begin_with
from TomoSegLib.training.checkpoint import files_identity
from TomoSegLib.training.classification_manifest import (
    ClassifiedCase,
    ClassifiedCases,
    fraction_of_classes,
    read_classified,
)
from TomoSegLib.training.classification_trainer import ClassifierOptions
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


@dataclass(frozen=True)
class ClassifierTraining:
    """What to fine-tune.

    Attributes:
        manifest: CSV with image (or image_<channel>), class, split; optional modality, group, id.
        output: Folder of the run: the model in ``model/``, scores, curves, checkpoint.
        encoder: Of the 2D network, see `build_unet2d`; None: as ``start`` or ``like`` has it, else
            ``unet``.
        start: ``scratch``, ``imagenet`` (encoder efficientnet-lite0), the folder of a 2D
            pre-training, or a safetensors file of the same network. A decoder in it is not used.
        like: Another such start, or None: its network, pixel size and intensities are used, its
            weights are not.
        fraction: Share of the training cases of each class that is used.
        options: Of the optimisation.
        modality: CT or MR, or None: what the manifest says, else what the intensities look like.
        spacing_mm: Pixel size of the slices; None: the pre-training's, else 1.26 mm.
        intensity: How intensities are normalised; None: as the pre-training did, else z-score for
            MR, window for CT.
        foreground: Kind of foreground; None: ``none``.
        features: Channels of the U-Net's levels; None: those of the pre-trained weights, else of
            `UNet2D`.
        name: Of the model.
        license: Of the model.
        simulated: Whether the volumes are simulated, for the card; a simulation's own record beside
            the manifest says so too.
        command: How it was called, for the card.
        workers: Processes that draw slices.
        device: torch device.
        threads: CPU threads, or None for torch's default.
        overwrite: Start again over a fine-tuning that is there.
    """

    manifest: Path
    output: Path
    encoder: str | None = None
    start: str = SCRATCH
    like: str | None = None
    fraction: Fraction = Fraction(1)
    options: ClassifierOptions = field(default_factory=ClassifierOptions)
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

    @property
    def dimensions(self) -> int:
        """Of the network: it sees slices."""
        return 2


@dataclass(frozen=True)
class ClassifierPlan:
    """What a fine-tuning works with.

    Attributes:
        what: What was asked for.
        manifest: Channels, classes and all cases.
        used: The training cases that are used.
        modality: CT or MR.
        preprocessing: Of the model.
        features: Channels of the U-Net's levels.
        pretrained: Weights to start from, or None.
        encoder: Of the network.
    """

    what: ClassifierTraining
    manifest: ClassifiedCases
    used: Sequence[ClassifiedCase]
    modality: str
    preprocessing: Preprocessing
    features: tuple[int, ...]
    pretrained: Pretrained | None
    encoder: str

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.manifest.classes

    def network(self) -> StackClassifier:
        """The network with random weights, or its start.

        Raises:
            TomoSegError: Those of `begin_with` and `begin_with_imagenet`.
        """
        network = StackClassifier(**self._arguments())
        if self.pretrained is not None:
            weights = self.pretrained.weights
            encoder = {name: w for name, w in weights.items() if is_encoder_weight(name)}
            begin_with(network.encoder, replace(self.pretrained, weights=encoder), rescaled=True)
        elif self.what.start == IMAGENET and isinstance(network.encoder, EfficientNetUNet2D):
            begin_with_imagenet(network.encoder)
        return network

    def network_arguments(self) -> dict[str, Any]:
        """Class and arguments of the network, for the card."""
        target = f"{StackClassifier.__module__}.{StackClassifier.__name__}"
        return {"target": target, "arguments": self._arguments()}

    def split(self, split: str) -> list[ClassifiedCase]:
        """The cases of a split."""
        return [case for case in self.manifest.cases if case.split == split]

    def identity(self) -> dict[str, Any]:
        """What makes it this training and no other."""
        start = self.what.start if self.what.start == IMAGENET else SCRATCH
        rows = [[c.id, c.split, c.class_name, *map(str, c.paths)] for c in self.manifest.cases]
        return {
            "task": "classification",
            "manifest": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
            "files": files_identity(file for case in self.manifest.cases for file in case.paths),
            "cases": [case.id for case in self.used],
            "channels": list(self.manifest.channels),
            "classes": list(self.classes),
            "network": self._arguments(),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "start": start if self.pretrained is None else self.pretrained.sha256,
            "options": self.what.options.as_dict(),
        }

    def _arguments(self) -> dict[str, Any]:
        unet = {"features": list(self.features)} if self.encoder == "unet" else {}
        return {
            "in_channels": len(self.manifest.channels),
            "classes": len(self.classes),
            "encoder": self.encoder,
            **unet,
        }


def make_classifier_plan(what: ClassifierTraining) -> ClassifierPlan:
    """Check what was asked for and find out the rest.

    Raises:
        TomoSegError: ``finetuning-options``, ``manifest-modality``, ``pretrained-mismatch`` and
            those of `read_classified` and `load_pretrained`.
    """
    pretrained, model = weights_of(what)
    for weights in (pretrained, model):
        if weights is not None and weights.dimensions == 3:
            raise TomoSegError(
                "pretrained-mismatch",
                f"{weights.source} holds weights of a 3D network; stacks are classified by a 2D "
                "network that sees their slices.",
                "Give the folder of 'tomoseg pretrain planes', or imagenet or scratch.",
            )
    encoder = encoder_of(what, model)
    _check(what, encoder)
    manifest = read_classified(what.manifest)
    training = [case for case in manifest.cases if case.split == "train"]
    modality = what.modality or modality_of(manifest.cases, single_slice=True)
    return ClassifierPlan(
        what,
        manifest,
        fraction_of_classes(training, what.fraction, what.options.seed),
        modality,
        preprocessing_of(what, modality, model, in_plane=True),
        what.features or (model.features if model else None) or FEATURES,
        pretrained,
        encoder,
    )


def _check(what: ClassifierTraining, encoder: str) -> None:
    options, problem, hint = what.options, "", ""
    stride = STRIDE if encoder == "unet" else EncoderUNet2D.stride
    rows, columns = options.size
    if not all(stride <= n <= 1024 and n % stride == 0 for n in options.size):
        problem = f"Slices of {columns} x {rows} pixels do not fit the network."
        hint = f"Choose sides that are multiples of {stride}, up to 1024: --patch 224x224x1."
    elif options.batch_size * options.slices * (rows // stride) * (columns // stride) == 1:
        problem = "A single slice is a single value on the network's deepest level, which batch "
        problem += "normalisation cannot use."
        hint = "Give --batch-size or --slices 2 or more, or a larger --patch."
    elif options.slices < 1:
        problem, hint = "A step needs a slice of each stack.", "Give --slices 1 or more."
    elif not 0 < what.fraction <= 1:
        problem = f"{what.fraction} is no share of the training cases."
        hint = "Give a fraction above 0, up to 1, for example 1/10."
    elif what.features is not None and (len(what.features) != 6 or min(what.features) < 1):
        problem = "The network needs six numbers of channels."
        hint = "Example: --features 64,128,256,512,1024,64"
    if problem:
        raise TomoSegError("finetuning-options", problem, hint)
    refuse_card_texts(what.name, what.license)
