"""From a manifest with one label per volume to a model folder: ``tomoseg train encoder``."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from TomoSegLib.datasets.manifest import Case, Manifest, read_manifest
from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.prepared import prepare_case
from TomoSegLib.files import make_folder
from TomoSegLib.imaging.io import read_volume
from TomoSegLib.imaging.preprocessing import prepare
from TomoSegLib.models.card import Method, ModelCard
from TomoSegLib.models.folder import refuse_existing
from TomoSegLib.models.loading import LoadedEncoder, build_network, load_encoder
from TomoSegLib.models.store import ModelFolder, save_model
from TomoSegLib.refinement.calibration import choose_refinement
from TomoSegLib.tomography.directions import parse_directions
from TomoSegLib.training.calibration import calibrate
from TomoSegLib.training.checkpoint import load_checkpoint, save_checkpoint
from TomoSegLib.training.curves import draw_history
from TomoSegLib.training.slices import LabelledVolume, SliceSampler
from TomoSegLib.training.stepwise import remove_earlier
from TomoSegLib.training.weak_supervision import Trainer, TrainingOptions

METHODS: tuple[Method, ...] = ("cam", "averaged-cam", "tomographic-cam", "tonno")
MODEL = "model"
VALIDATION_DIRECTIONS = "fibonacci:12"

Stage = Literal["read", "train", "calibrate"]
Progress = Callable[[Stage, int, int, Mapping[str, float]], None]


class _Stopped(Exception):
    """It was asked to stop while reading or calibrating, when nothing is left half done."""


@dataclass(frozen=True)
class EncoderTraining:
    """What to train.

    Attributes:
        manifest: CSV with path, label, split and optionally mask and group.
        output: Folder of the run: the model in ``model/``, checkpoint, curves and record.
        template: A card without hashes: everything about the model that training does not find
            out itself (channels, preprocessing, network, texts).
        options: Of the optimisation.
        directions: Direction set for calibration and for the card.
        calibration_cases: Positive validation volumes used at most for calibration.
        device: torch device.
        threads: CPU threads, or None for torch's default.
        overwrite: Start again over a training that is there.
    """

    manifest: Path
    output: Path
    template: Mapping[str, Any]
    options: TrainingOptions = field(default_factory=TrainingOptions)
    directions: str = "fibonacci:64"
    calibration_cases: int = 24
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False


def train_encoder(
    what: EncoderTraining,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> ModelFolder | None:
    """Train an encoder from volume labels, calibrate it, and save it as a model.

    Training that was stopped or killed goes on where its last checkpoint was when the same is
    asked again. Masks are read for calibration alone, and of validation volumes alone; without
    any, the card keeps the template's settings and no threshold.

    Returns:
        The model, or None if it was asked to stop.

    Raises:
        TomoSegError: Those of the manifest, of reading and of `load_encoder`,
            ``template-invalid``, ``directions-invalid``, ``output-unwritable``,
            ``checkpoint-different``, ``model-exists``, ``training-diverged`` and others.
    """
    stop = should_stop or (lambda: False)

    def tell(stage: Stage, done: int, total: int, figures: Mapping[str, float]) -> None:
        if on_progress is not None:
            on_progress(stage, done, total, figures)
        if stage != "train" and stop():
            raise _Stopped

    try:
        return _trained(what, tell, stop)
    except _Stopped:
        return None


def _trained(what: EncoderTraining, tell: Progress, stop: Callable[[], bool]) -> ModelFolder | None:
    if what.threads is not None:
        torch.set_num_threads(what.threads)
    manifest = read_manifest(what.manifest)
    refuse_existing(what.output / MODEL, overwrite=True)  # nothing but a model is replaced
    train_cases = manifest.split("train", both_classes=True)
    validation_cases = manifest.split("val", both_classes=True)
    # What can be wrong is told before hours have been spent.
    card = _draft(what.template)
    parse_directions(what.directions)
    _check_network(card)
    make_folder(what.output)

    device = torch.device(what.device)
    count = len(train_cases) + len(validation_cases)
    content = hashlib.sha256()
    train = _sampler(train_cases, card, device, content, lambda n: tell("read", n, count, {}))
    validation = _sampler(
        validation_cases,
        card,
        device,
        content,
        lambda n: tell("read", len(train_cases) + n, count, {}),
    )
    trainer = Trainer(
        _network(card, what.options.seed),
        train,
        validation,
        # Normals in voxel axes (k, j, i); the sampler's grid has no other orientation.
        torch.from_numpy(parse_directions(VALIDATION_DIRECTIONS).vectors[:, ::-1].copy()).float(),
        what.options,
    )
    identity = _identity(what, manifest, content.hexdigest())
    folder = what.output / "checkpoint"
    if what.overwrite:
        # Nobody wants to find the earlier model where this training was stopped.
        remove_earlier(what.output, [MODEL])
    else:
        load_checkpoint(trainer, folder, identity)
    try:
        _train(trainer, folder, identity, tell, stop)
    finally:
        draw_history(trainer.state.history, what.output / "curves.png")
    # Not after an error: the last checkpoint is sound, the state in the middle of a step is not.
    save_checkpoint(trainer, folder, identity)
    if not trainer.finished:
        return None

    positives = [case for case in validation_cases if case.label == 1 and case.mask is not None]
    figures: dict[str, Any] = {"validation_auc": round(trainer.state.kept_auc, 4)}
    methods = {}
    if positives:
        draft = _saved(what, card, trainer, manifest, what.output / "uncalibrated")
        encoder = load_encoder(draft, what.device)
        shutil.rmtree(draft.path, ignore_errors=True)
        prepared = [prepare_case(case, card) for case in positives[: what.calibration_cases]]
        supported: tuple[Method, ...] = METHODS if encoder.supports_linear_cam else ("tonno",)
        total = (len(supported) + 1) * len(prepared)
        for index, method in enumerate(supported):
            before = index * len(prepared)
            chosen = calibrate(
                prepared,
                encoder,
                draft.card,
                method,
                "axial" if method == "cam" else what.directions,
                partial(_tell_calibrated, tell, before, total),
            )
            methods[method] = chosen.settings
            figures[f"validation_dice_{method}"] = round(chosen.dice, 4)
            figures[f"candidates_{method}"] = chosen.tried
        card = card.model_copy(update={"methods": {**card.methods, **methods}})
        before = len(supported) * len(prepared)
        refinement, figures["refinement"] = choose_refinement(
            prepared,
            encoder,
            draft.card.model_copy(update={"methods": card.methods}),
            lambda done, _: tell("calibrate", before + done, total, {}),
        )
        card = card.model_copy(update={"refinement": refinement})
    card = card.model_copy(update={"metrics": figures})
    return _saved(what, card, trainer, manifest, what.output / MODEL)


def _tell_calibrated(tell: Progress, before: int, total: int, done: int, _cases: int) -> None:
    tell("calibrate", before + done, total, {})


def _train(
    trainer: Trainer,
    folder: Path,
    identity: Mapping[str, Any],
    tell: Progress,
    stop: Callable[[], bool],
) -> None:
    every = trainer.options.validate_every
    while not trainer.finished and not stop():
        trainer.step()
        state = trainer.state
        last = state.history[-1] if state.history else {}
        tell("train", state.step, trainer.options.steps, last)
        if state.step % every == 0:
            save_checkpoint(trainer, folder, identity)


def _draft(template: Mapping[str, Any]) -> ModelCard:
    """The template as a card; hashes are not known yet."""
    from pydantic import ValidationError

    network = template.get("network")
    file = "weights.safetensors"
    if isinstance(network, Mapping):
        file = str(network.get("file", file))
    try:
        card = ModelCard.model_validate({**template, "files": {file: "0" * 64}})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise TomoSegError(
            "template-invalid",
            f"The model template is not valid: {where}: {first['msg']}.",
            "Compare it with a card that 'tomoseg models show --json' prints.",
        ) from None
    if card.network.format != "module" or card.task != "heatmap":
        raise TomoSegError(
            "template-invalid",
            "Only networks of format 'module' for task 'heatmap' can be trained here.",
            "Name a class, for example TomoSegLib.networks.encoders.EvidenceEncoder.",
        )
    return card


def _check_network(card: ModelCard) -> None:
    """Whether the network can be built, takes the card's slices and gives one logit a slice."""
    network = build_network(card.network).eval()
    layer = None
    if card.network.features is not None:
        try:
            layer = network.get_submodule(card.network.features)
        except AttributeError:
            raise TomoSegError(
                "template-invalid",
                f"The network has no layer {card.network.features}.",
                "Correct network.features in the template.",
            ) from None
    encoder = LoadedEncoder(network, card, layer)
    side = card.slices.size or card.slices.multiple * -(-64 // card.slices.multiple)
    with torch.no_grad():
        output = network(torch.zeros(2, encoder.channels, side, side))
    if not isinstance(output, torch.Tensor) or output.numel() != 2:
        raise TomoSegError(
            "template-invalid",
            "The network does not give one logit a slice.",
            "Correct network.arguments in the template, e.g. out_channels or num_classes to 1.",
        )
    if card.method != "tonno" and not encoder.supports_linear_cam:
        raise TomoSegError(
            "template-invalid",
            f"The method {card.method} needs features with a linear head, which the network lacks.",
            "Name the layer before global pooling as network.features, or use the method tonno.",
        )


def _network(card: ModelCard, seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return build_network(card.network)


def _sampler(
    cases: Sequence[Case],
    card: ModelCard,
    device: torch.device,
    content: hashlib._Hash,
    on_read: Callable[[int], None],
) -> SliceSampler:
    """Read the cases; what was read goes into the hash ``content`` too."""
    volumes = []
    for number, case in enumerate(cases):
        paths = case.channel_paths([channel.name for channel in card.channels])
        found = prepare([read_volume(path) for path in paths], card.preprocessing)
        volumes.append(LabelledVolume(found.image, found.foreground, case.label, case.id))
        content.update(np.ascontiguousarray(found.image).data)
        on_read(number + 1)
    side = card.slices.size or _side_for(volumes, card)
    return SliceSampler(
        volumes,
        spacing=card.slices.spacing_mm / card.preprocessing.spacing_mm,
        size=side,
        background=card.preprocessing.background,
        device=device,
    )


def _side_for(volumes: Sequence[LabelledVolume], card: ModelCard) -> int:
    """A side that holds the slices of nearly every orientation of nearly every volume."""
    longest = [max(volume.foreground.shape) for volume in volumes]
    pixels = float(np.percentile(longest, 95))
    pixels *= card.preprocessing.spacing_mm / card.slices.spacing_mm
    return int(np.ceil(pixels / card.slices.multiple)) * card.slices.multiple


def _identity(what: EncoderTraining, manifest: Manifest, content: str) -> dict[str, Any]:
    network = what.template["network"]
    rows = [[c.id, c.label, c.split, *map(str, c.paths.values())] for c in manifest.cases]
    return {
        "manifest": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "volumes": content,  # files may have been replaced, or channels swapped
        # Names of files and layers change nothing about training.
        "network": {k: network.get(k) for k in ("target", "arguments", "output")},
        "preprocessing": what.template.get("preprocessing"),
        "slices": what.template.get("slices"),
        "options": what.options.as_dict(),
    }


def _saved(
    what: EncoderTraining, card: ModelCard, trainer: Trainer, manifest: Manifest, folder: Path
) -> ModelFolder:
    document = card.model_dump(mode="json", exclude_defaults=True, exclude={"files"})
    training_data = dict(document.get("training_data", {}))
    training_data["volumes"] = len(manifest.split("train"))
    training_data["seed"] = what.options.seed
    document["training_data"] = training_data
    weights = {name: value.cpu() for name, value in trainer.best.items()}
    return save_model(folder, document, weights, overwrite=True)
