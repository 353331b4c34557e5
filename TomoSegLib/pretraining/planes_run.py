"""From a folder of studies to pre-trained weights: ``tomoseg pretrain planes``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path
from TomoSegLib.networks.efficientnet import NAME
from TomoSegLib.networks.imagenet import begin_with_imagenet, build_unet2d
from TomoSegLib.networks.unet2d import (
    FEATURES,
    EfficientNetUNet2D,
    EncoderDecoder,
    EncoderUNet2D,
    UNet2D,
    is_encoder_weight,
)
from TomoSegLib.pretraining.planes_baselines import (
    BASELINES,
    RESTORATION,
    report_baseline,
)
from TomoSegLib.pretraining.planes_data import (
    PlaneExample,
    find_studies,
    kinds_of,
    read_examples,
)
from TomoSegLib.pretraining.planes_predict import HEAD, save_head
from TomoSegLib.pretraining.planes_report import draw_predictions, measure, predict
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.planes_training import TASKS, PlaneTrainer, PlaneTraining
from TomoSegLib.pretraining.weights import RECORD, WEIGHTS, save_pretrained
from TomoSegLib.studies.study import Study
from TomoSegLib.training.checkpoint import refuse_unwritable
from TomoSegLib.training.stepwise import train_steps

REPORT = "report.json"
_DRAWN = 6

# Images that errors are measured on at most, spread evenly.
_MEASURED = 400

Progress = Callable[[str, int, int, Mapping[str, float]], None]


class _Stopped(Exception):
    """It was asked to stop while studies were looked for, when nothing is lost."""


@dataclass(frozen=True)
class PlanePretraining:
    """What to pre-train.

    Attributes:
        studies: Folder with a folder for each patient.
        output: Folder of the run: weights, record, report, curves, pictures and checkpoint.
        training: How it is trained.
        planes: How images and targets are made.
        encoder: ``unet``, ``efficientnet-lite0`` or the name of a ResNet.
        start: ``imagenet`` to begin with its weights, or nothing.
        features: Channels of the U-Net's levels.
        phases: Time points of a cine view.
        validation: Share of the studies that is kept for validation; no study is split.
        workers: Processes that prepare images.
        device: torch device.
        threads: CPU threads, or None for torch's default.
        overwrite: Start again over a pre-training that is there.
    """

    studies: Path
    output: Path
    training: PlaneTraining = field(default_factory=PlaneTraining)
    planes: PlaneOptions = field(default_factory=PlaneOptions)
    encoder: str = "unet"
    features: tuple[int, ...] = FEATURES
    phases: int = 2
    validation: float = 0.2
    workers: int = 0
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False
    start: str = ""


def pretrain_planes(
    what: PlanePretraining,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> dict[str, Any] | None:
    """Pre-train a network; what was stopped or killed goes on where its last checkpoint was.

    Returns:
        The report, or None if it was asked to stop.

    Raises:
        TomoSegError: ``study-not-found``, ``study-empty``, ``pretraining-options``,
            ``checkpoint-invalid``, ``checkpoint-different``, ``training-diverged``,
            ``output-unwritable``, and those of `begin_with_imagenet`.
    """
    tell = on_progress or (lambda stage, done, total, figures: None)
    stop = should_stop or (lambda: False)
    _check(what)
    refuse_unwritable(what.output)
    if what.threads is not None:
        torch.set_num_threads(what.threads)

    def on_study(done: int, total: int) -> None:
        tell("find", done, total, {})
        if stop():
            raise _Stopped

    try:
        studies = find_studies(what.studies, on_study)
    except _Stopped:
        return None
    kinds = kinds_of(studies)
    held_out = _held_out(studies, what)
    train: list[PlaneExample] = []
    validation: list[PlaneExample] = []
    for number, study in enumerate(studies):
        if stop():
            return None
        found = read_examples(
            study, kinds, what.planes, what.phases, all_images=bool(what.training.baseline)
        )
        (validation if number in held_out else train).extend(found)
        tell("read", number + 1, len(studies), {})
    _check_targets(what.training.tasks, train)
    network = _network(what, 1 if what.training.baseline else len(kinds))
    trainer = PlaneTrainer(
        network, train, validation, what.planes, what.training, what.device, what.workers
    )
    identity = _identity(what, kinds, train, validation)
    if not train_steps(
        trainer,
        what.output,
        identity,
        what.overwrite,
        partial(tell, "train"),
        stop,
        (RECORD, WEIGHTS, HEAD, REPORT),
    ):
        return None
    report = _report(what, trainer, kinds, train, validation)
    weights = {
        name.removeprefix("network."): value
        for name, value in trainer.best.items()
        if name.startswith("network.")
    }
    decoder = "orientation" in what.training.tasks or what.training.baseline == RESTORATION
    if not decoder:
        weights = {name: value for name, value in weights.items() if is_encoder_weight(name)}
    record = _record(what, kinds, trainer, decoder, studies, report)
    if "location" in what.training.tasks:
        head = trainer.network.head.state_dict()  # the best, as measured
        record["location_head_sha256"] = save_head(what.output, head)
    save_pretrained(what.output, weights, record)
    return report


def _check(what: PlanePretraining) -> None:
    def refuse(message: str, hint: str) -> TomoSegError:
        return TomoSegError("pretraining-options", message, hint)

    tasks = what.training.tasks
    planes = len(set(tasks)) == len(tasks) and set(tasks) <= set(TASKS)
    if not tasks or not (planes or (len(tasks) == 1 and tasks[0] in BASELINES)):
        raise refuse(
            f"'{','.join(tasks)}' names no plane tasks.",
            f"Choose of {' and '.join(TASKS)}, or {' or '.join(BASELINES)} alone.",
        )
    if what.start not in ("", "imagenet") or (what.start and what.encoder != NAME):
        raise refuse(
            f"A network with the encoder '{what.encoder}' cannot begin with '{what.start}'.",
            f"Give --encoder {NAME} with --from imagenet.",
        )
    stride = UNet2D.stride if what.encoder == "unet" else EncoderUNet2D.stride
    if what.planes.side < stride or what.planes.side % stride:
        raise refuse(
            f"Crops of {what.planes.side} pixels do not fit the network.",
            f"Choose a multiple of {stride}.",
        )
    if len(what.features) != 6 or min(what.features) < 2:
        raise refuse(
            "The network needs six numbers of channels.", "Example: 64,128,256,512,1024,64"
        )
    if not 0 <= what.validation < 1:
        raise refuse("The share of validation studies is not below 1.", "Example: 0.2.")


def _check_targets(tasks: Sequence[str], train: Sequence[PlaneExample]) -> None:
    if not train:
        raise TomoSegError(
            "pretraining-options",
            "There is nothing to learn from: no image of the studies can be read or used.",
            "Look at a study with 'tomoseg planes inspect'.",
        )
    cut = any(other is not None for example in train for other in example.cutting)
    located = any(example.location is not None for example in train)
    for task, there, needs in (
        ("orientation", cut, "a view that is cut by another kind of view"),
        ("location", located, "a short-axis stack, or a knee's, of two slices or more"),
    ):
        if task in tasks and not there:
            raise TomoSegError(
                "pretraining-options",
                f"The task '{task}' has nothing to learn from: no study has {needs}.",
                "Look at a study with 'tomoseg planes inspect'; correct its views.csv if views "
                "were not recognised.",
            )


def _held_out(studies: Sequence[Study], what: PlanePretraining) -> set[int]:
    """Which studies are for validation; at least one of two or more where any are asked for."""
    count = round(what.validation * len(studies))
    if what.validation > 0 and len(studies) > 1:
        count = min(max(1, count), len(studies) - 1)
    order = np.random.default_rng((what.training.seed, 4)).permutation(len(studies))
    return {int(number) for number in order[:count]}


def _network(what: PlanePretraining, channels: int) -> EncoderDecoder:
    torch.manual_seed(what.training.seed)
    try:
        network = build_unet2d(what.encoder, 1, channels, what.features)
    except ValueError:
        raise TomoSegError(
            "pretraining-options",
            f"There is no encoder '{what.encoder}'.",
            f"Choose unet, resnet10, resnet18, resnet34, resnet50 or {NAME}.",
        ) from None
    if what.start and isinstance(network, EfficientNetUNet2D):
        begin_with_imagenet(network)
    return network


def _identity(
    what: PlanePretraining,
    kinds: Sequence[str],
    train: Sequence[PlaneExample],
    validation: Sequence[PlaneExample],
) -> dict[str, Any]:
    digest = hashlib.sha256()
    for example in (*train, *validation):
        digest.update(f"{example.study}/{example.view}/{example.phase}/{example.kind}/".encode())
        digest.update(example.image.tobytes())
        digest.update(example.plane.corners.astype(np.float32).tobytes())
    return {
        "images": digest.hexdigest(),
        "validation": len(validation),
        "balanced": True,  # since there is `balanced`: what began before cannot go on
        "kinds": list(kinds),
        "encoder": what.encoder,
        "features": list(what.features) if what.encoder == "unet" else [],
        **({"start": what.start} if what.start else {}),
        "planes": asdict(what.planes),
        "training": asdict(what.training),
    }


def _report(
    what: PlanePretraining,
    trainer: PlaneTrainer,
    kinds: Sequence[str],
    train: Sequence[PlaneExample],
    validation: Sequence[PlaneExample],
) -> dict[str, Any]:
    """Measure the best weights on the validation images, or on the training images without."""
    measured = validation or train
    if len(measured) > _MEASURED:
        spread = np.linspace(0, len(measured) - 1, _MEASURED).round().astype(int)
        measured = [measured[n] for n in spread]
    trainer.network.load_state_dict(trainer.best)
    chosen = np.linspace(0, len(measured) - 1, min(_DRAWN, len(measured))).round().astype(int)
    pictures = what.output / "predictions.png"
    tasks = what.training.tasks
    if baseline := what.training.baseline:
        report = report_baseline(
            trainer.network, baseline, measured, what.planes, chosen.tolist(), pictures
        )
        return _saved(report, what, bool(validation))
    maps, found = predict(
        trainer.network, measured, what.planes, orientation="orientation" in tasks
    )
    places = found if "location" in tasks else None
    report = measure(maps, places, measured, train, kinds, what.planes)
    draw_predictions(
        [maps[n] for n in chosen],
        None if places is None else [places[n] for n in chosen],
        [measured[n] for n in chosen],
        kinds,
        what.planes,
        pictures,
    )
    return _saved(report, what, bool(validation))


def _saved(report: dict[str, Any], what: PlanePretraining, validation: bool) -> dict[str, Any]:
    report["images"] = "validation" if validation else "training"
    with atomic_path(what.output / REPORT) as temporary:
        temporary.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _record(
    what: PlanePretraining,
    kinds: Sequence[str],
    trainer: PlaneTrainer,
    decoder: bool,
    studies: Sequence[Study],
    report: Mapping[str, Any],
) -> dict[str, Any]:
    network = trainer.network.network
    target = f"{type(network).__module__}.{type(network).__name__}"
    return {
        "schema_version": 1,
        "task": "planes-" + "-".join(what.training.tasks),
        "title": f"Baseline of anatomy-oriented planes: {what.training.baseline}"
        if what.training.baseline
        else "Anatomy-oriented planes: relative " + " and ".join(what.training.tasks),
        "network": {
            "target": target,
            "decoder": decoder,
            **(
                {"features": list(what.features)}
                if what.encoder == "unet"
                else {"backbone": what.encoder}
            ),
            **({"start": what.start} if what.start else {}),
        },
        "kinds": list(kinds),
        "planes": asdict(what.planes),
        "training": asdict(what.training),
        "studies": len(studies),
        "images": {
            "training": len(set(trainer.train_data.examples)),  # without repetitions
            "validation": len(trainer.validation_data),
        },
        "steps": trainer.state.step,
        "best_step": trainer.state.best_step,
        "report": report,
    }
