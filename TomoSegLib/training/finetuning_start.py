"""What a fine-tuning of any kind begins with: network, grid and intensities that follow from it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol, get_args

from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.modality import known_modality, looks_like_ct
from TomoSegLib.models.card import (
    LONGEST_LICENSE,
    LONGEST_MODALITY,
    NAME,
    Intensity,
    Preprocessing,
    is_file_name_everywhere,
)
from TomoSegLib.networks.efficientnet import NAME as EFFICIENTNET
from TomoSegLib.networks.unet2d import Backbone
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.weights import Pretrained, load_pretrained

SCRATCH = "scratch"
IMAGENET = "imagenet"
ENCODERS = ("unet", *get_args(Backbone), EFFICIENTNET)

Foreground = Literal["nonzero", "body", "brain", "none"]


class Wanted(Protocol):
    """What is asked for, as far as it matters here; `Finetuning` says what it means."""

    @property
    def start(self) -> str: ...
    @property
    def like(self) -> str | None: ...
    @property
    def dimensions(self) -> int | None: ...
    @property
    def encoder(self) -> str | None: ...
    @property
    def spacing_mm(self) -> float | None: ...
    @property
    def intensity(self) -> Intensity | None: ...
    @property
    def foreground(self) -> Foreground | None: ...


class CaseOnDisk(Protocol):
    """What is asked of a case."""

    @property
    def paths(self) -> tuple[Path, ...]: ...
    @property
    def modality(self) -> str: ...


def weights_of(what: Wanted) -> tuple[Pretrained | None, Pretrained | None]:
    """The weights to begin with, and those whose network, grid and intensities count.

    Raises:
        TomoSegError: Those of `load_pretrained`.
    """
    random = what.start in (SCRATCH, IMAGENET)
    pretrained = None if random else load_pretrained(Path(what.start))
    return pretrained, pretrained if what.like is None else load_pretrained(Path(what.like))


def encoder_of(what: Wanted, model: Pretrained | None) -> str:
    """The encoder of a 2D network; empty for a 3D one.

    Raises:
        TomoSegError: ``finetuning-options``.
    """
    dimensions = what.dimensions or (model.dimensions if model else None)
    dimensions = dimensions or (2 if what.start == IMAGENET or what.encoder else 3)
    by_start = EFFICIENTNET if what.start == IMAGENET else (model.encoder if model else "unet")
    encoder = what.encoder or by_start
    problem = ""
    if dimensions not in (2, 3):
        problem = f"There are no networks of {dimensions} dimensions."
    elif dimensions == 3 and (what.encoder is not None or what.start == IMAGENET):
        problem = "A 3D network has no other encoder, and no start from ImageNet."
    elif encoder not in ENCODERS:
        problem = f"There is no encoder '{encoder}'."
    elif what.start == IMAGENET and encoder != EFFICIENTNET:
        problem = f"A network with the encoder '{encoder}' cannot begin with ImageNet's weights."
    if problem:
        raise TomoSegError(
            "finetuning-options",
            problem,
            f"--dimensions is 2 or 3; 2D encoders are {', '.join(ENCODERS)}; --from imagenet is "
            f"2D with {EFFICIENTNET}.",
        )
    return encoder if dimensions == 2 else ""


def refuse_card_texts(name: str | None, license: str) -> None:
    """Refuse what the model's card could not hold, before the training rather than after it.

    Raises:
        TomoSegError: ``finetuning-options``.
    """
    if name is not None and not (re.fullmatch(NAME, name) and is_file_name_everywhere(name)):
        raise TomoSegError(
            "finetuning-options",
            f"'{name}' is no name of a model.",
            "Use small letters, digits, '.', '-' and '_', up to 64, and no name of a device.",
        )
    if len(license) > LONGEST_LICENSE:
        raise TomoSegError(
            "finetuning-options",
            f"The licence has {len(license)} characters, and at most {LONGEST_LICENSE} fit.",
            "Give its identifier, for example CC-BY-NC-SA-4.0.",
        )


def modality_of(cases: Sequence[CaseOnDisk], *, single_slice: bool = False) -> str:
    """What the manifest says, or what the first volume looks like.

    Raises:
        TomoSegError: ``manifest-modality`` and those of `read_volume`.
    """
    named = {known_modality(case.modality) or case.modality.upper() for case in cases}
    named.discard("")
    if named:
        if len(named) > 1:
            raise TomoSegError(
                "manifest-modality",
                f"The manifest has volumes of several modalities: {', '.join(sorted(named))}.",
                "A network sees all normalised in one way: make a manifest for each, or give "
                "--modality and --intensity.",
            )
        (name,) = named
        if len(name) > LONGEST_MODALITY:
            raise TomoSegError(
                "manifest-modality",
                f"The modality {name[:20]}... has more than {LONGEST_MODALITY} characters.",
                "Write CT or MR, or give --modality.",
            )
        return name
    first = read_volume(cases[0].paths[0], single_slice=single_slice)
    if (said := known_modality(first.metadata.get("Modality", ""))) is not None:
        return said  # DICOM
    found = "CT" if looks_like_ct(first.array) else "MR"
    warnings.warn(
        TomoSegWarning(
            "modality-guessed",
            f"By the intensities of '{first.name}' the volumes are taken for {found}.",
            "Add a column modality to the manifest, or give --modality.",
        ),
        stacklevel=4,
    )
    return found


def preprocessing_of(
    what: Wanted, modality: str, model: Pretrained | None, *, in_plane: bool
) -> Preprocessing:
    """Grid and intensities of the model: what was asked for, else as the pre-training had them."""
    ct = modality == "CT"
    intensity = what.intensity or (model.intensity(modality) if model else None)
    if intensity is None:
        intensity = (
            Intensity(method="window", lower=-1000.0, upper=1000.0)
            if ct
            else Intensity(method="zscore", lower=-5.0, upper=5.0)
        )
    return Preprocessing(
        spacing_mm=what.spacing_mm
        or (model.spacing_mm if model else None)
        or (PlaneOptions.spacing_mm if in_plane else 1.0),
        intensity=intensity,
        foreground=what.foreground or ("none" if ct or in_plane else "nonzero"),
        in_plane=in_plane,
    )


def start_title(start: str, pretrained: Pretrained | None) -> str:
    """What a card calls the weights that a training began with."""
    if pretrained is None:
        return start
    return str(pretrained.record.get("title") or Path(start).name)
