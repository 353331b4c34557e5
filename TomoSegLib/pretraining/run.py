"""From a manifest of unlabelled volumes to pre-trained weights: ``tomoseg pretrain sar``."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from TomoSegLib.datasets.simulate import is_simulated
from TomoSegLib.errors import TomoSegError, TomoSegWarning
from TomoSegLib.networks.unet import STRIDE
from TomoSegLib.networks.unet3d import FEATURES, UNet3D, is_encoder_weight
from TomoSegLib.pretraining.cubes import CubeOptions, CubePool, make_cubes
from TomoSegLib.pretraining.manifest import PoolVolume, read_pool
from TomoSegLib.pretraining.options import PretrainingOptions
from TomoSegLib.pretraining.presets import PRESETS, Preset, build_task
from TomoSegLib.pretraining.trainer import Pretrainer
from TomoSegLib.pretraining.transforms import GenesisTransforms
from TomoSegLib.pretraining.weights import RECORD, WEIGHTS, save_pretrained
from TomoSegLib.training.checkpoint import files_identity, refuse_unwritable
from TomoSegLib.training.stepwise import train_steps

Stage = Literal["cubes", "train"]
Progress = Callable[[Stage, int, int, Mapping[str, float]], None]


class _Stopped(Exception):
    """It was asked to stop while cubes were made; those that are whole are kept."""


@dataclass(frozen=True)
class Pretraining:
    """What to pre-train.

    Attributes:
        manifests: CSVs of unlabelled volumes, see `TomoSegLib.pretraining.manifest`.
        output: Folder of the run: weights, record, curves and checkpoint.
        task: Name of a preset.
        options: Of the optimisation; its game is ignored where the task has no adversary.
        cubes: How cubes are cut.
        transforms: What restoration undoes.
        features: Channels of the U-Net's levels.
        modality: Of rows that name none.
        cache: Folder of the cubes, which several runs may share; in the output by default.
        workers: Processes that make and prepare cubes.
        device: torch device.
        threads: CPU threads, or None for torch's default.
        overwrite: Start again over a pre-training that is there.
        description: Of the volumes, for the record.
        license: Of the weights.
        simulated: Whether the volumes are simulated, for the record; a simulation's own record
            beside a manifest says so too.
        command: How it was called, for the record.
    """

    manifests: tuple[Path, ...]
    output: Path
    task: str = "sar"
    options: PretrainingOptions = field(default_factory=PretrainingOptions)
    cubes: CubeOptions = field(default_factory=CubeOptions)
    features: tuple[int, ...] = FEATURES
    modality: str | None = None
    cache: Path | None = None
    workers: int = 0
    device: str = "cpu"
    threads: int | None = None
    overwrite: bool = False
    transforms: GenesisTransforms = field(default_factory=GenesisTransforms)
    description: str = ""
    license: str = "unspecified"
    simulated: bool = False
    command: str = ""


def pretrain(
    what: Pretraining,
    on_progress: Progress | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> bool:
    """Pre-train a network; what was stopped or killed goes on where its last checkpoint was.

    Returns:
        Whether it is finished; False if it was asked to stop.

    Raises:
        TomoSegError: Those of `read_pool` and `make_cubes`, ``pretraining-options``,
            ``checkpoint-invalid``, ``checkpoint-different``, ``training-diverged``,
            ``output-unwritable``.
    """
    tell = on_progress or (lambda stage, done, total, figures: None)
    stop = should_stop or (lambda: False)
    _check(what)
    if what.threads is not None:
        torch.set_num_threads(what.threads)
    refuse_unwritable(what.output)
    volumes = read_pool(what.manifests, what.modality, what.options.seed)
    if absent := set(what.cubes.dataset_counts) - {volume.dataset for volume in volumes}:
        warnings.warn(
            TomoSegWarning(
                "cubes-dataset-absent",
                f"No volume is of the data set {', '.join(sorted(absent))}, which has its own "
                "numbers of cubes.",
                "Names stand in the manifest's column dataset.",
            ),
            stacklevel=2,
        )
    preset, options = _fitted(PRESETS[what.task], what.options, volumes)

    def on_volume(done: int, total: int) -> None:
        tell("cubes", done, total, {})
        if stop():
            raise _Stopped

    try:
        cache = what.cache or what.output / "cubes"
        files = make_cubes(volumes, what.cubes, cache, what.workers, on_volume)
    except _Stopped:
        return False
    trainer = _trainer(what, preset, options, volumes, files)
    identity = _identity(what, preset, options, volumes)

    def tell_step(done: int, total: int, figures: Mapping[str, float]) -> None:
        losses = {k: v for k, v in figures.items() if not k.endswith("accuracy")}
        tell("train", done, total, losses)

    results = (RECORD, WEIGHTS)
    if not train_steps(trainer, what.output, identity, what.overwrite, tell_step, stop, results):
        return False
    weights = trainer.best
    if not trainer.task.trains_decoder:
        weights = {k: v for k, v in weights.items() if is_encoder_weight(k)}
    save_pretrained(what.output, weights, _record(what, preset, trainer, volumes))
    return True


def _check(what: Pretraining) -> None:
    def refuse(message: str, hint: str) -> TomoSegError:
        return TomoSegError("pretraining-options", message, hint)

    cubes = what.cubes
    if what.task not in PRESETS:
        raise refuse(
            f"There is no task {what.task!r}.",
            "Scratch is no pre-training: 'tomoseg finetune --from scratch --like DIR' fine-tunes "
            "the same network without the weights in DIR."
            if what.task == "scratch"
            else f"Choose one of {', '.join(PRESETS)}.",
        )
    if any(n < STRIDE or n % STRIDE for n in cubes.shape):
        raise refuse(
            f"A cube of {cubes.shape[2]} x {cubes.shape[1]} x {cubes.shape[0]} voxels does not fit "
            "the network.",
            f"Choose sides that are multiples of {STRIDE}.",
        )
    if not all(0 < scale <= 1 for scale in cubes.scales) or len(set(cubes.scales)) < len(
        cubes.scales
    ):
        raise refuse("Scales are different fractions of a side.", "Example: --scales 1/2,1/4,1/8.")
    single = PRESETS[what.task].scales
    if single is not None and single[0] >= len(cubes.scales):
        raise refuse(f"The task {what.task} needs {single[0] + 1} scales.", "Give more --scales.")
    for counts in (cubes.counts, *cubes.dataset_counts.values()):
        if len(counts) != len(cubes.scales) or min(counts) < 0 or sum(counts) == 0:
            raise refuse(
                f"{':'.join(map(str, counts))} are no numbers of cubes for {len(cubes.scales)} "
                "scales.",
                "Give one number a scale, from the first scale on, for example 16:16:32.",
            )
    low, high = cubes.mr_percentiles
    if not 0 <= low < high <= 100:
        raise refuse(
            f"{low:g} and {high:g} are no percentiles.", "Example: --mr-percentiles 0.5:99.5."
        )
    if min(what.options.learning_rates) < 0:
        raise refuse("A learning rate is negative.", "Example: --learning-rates 1,0.1,0.001.")
    if len(what.features) != 6 or min(what.features) < 1:
        raise refuse(
            "The network needs six numbers of channels.", "Example: --features 32,64,128,256,512,32"
        )


def _fitted(
    preset: Preset, options: PretrainingOptions, volumes: list[PoolVolume]
) -> tuple[Preset, PretrainingOptions]:
    """Without a second modality there is nothing for the adversary to tell."""
    modalities = {volume.modality for volume in volumes if not volume.validation}
    if preset.adversary and len(modalities) == 1:
        warnings.warn(
            TomoSegWarning(
                "adversary-off",
                f"All volumes are {modalities.pop()}: the modality-invariant adversary is off.",
                "Add volumes of the other modality to the pool.",
            ),
            stacklevel=3,
        )
        preset = replace(preset, adversary=False)
    return preset, options if preset.adversary else replace(options, game=None)


def _trainer(
    what: Pretraining,
    preset: Preset,
    options: PretrainingOptions,
    volumes: list[PoolVolume],
    files: list[Path],
) -> Pretrainer:
    torch.manual_seed(options.seed)
    network = UNet3D(1, 1, what.features)
    task = build_task(preset, network, what.cubes, what.transforms)
    pools = []
    for validation in (False, True):
        chosen = [n for n, volume in enumerate(volumes) if volume.validation == validation]
        pools.append(
            CubePool(
                [files[n] for n in chosen], [volumes[n] for n in chosen], what.cubes, preset.scales
            )
        )
    if not len(pools[0]):
        raise TomoSegError(
            "pretraining-options",
            "There are no cubes to train on.",
            "Give numbers of cubes above zero for the scales that the task uses.",
        )
    return Pretrainer(network, task, pools[0], pools[1], options, what.device, what.workers)


def _identity(
    what: Pretraining, preset: Preset, options: PretrainingOptions, volumes: list[PoolVolume]
) -> dict[str, Any]:
    rows = [[str(v.path), v.modality, v.dataset, v.validation] for v in volumes]
    return {
        "manifest": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "files": files_identity(volume.path for volume in volumes),
        "features": list(what.features),
        "task": asdict(preset),
        "cubes": asdict(what.cubes),
        "transforms": asdict(what.transforms),
        "options": options.as_dict(),
    }


def _record(
    what: Pretraining, preset: Preset, trainer: Pretrainer, volumes: list[PoolVolume]
) -> dict[str, Any]:
    state = trainer.state
    kept = next((e for e in state.history if e["step"] == state.best_step), {})
    return {
        "schema_version": 1,
        "task": what.task,
        "title": preset.title,
        "license": what.license,
        "training_data": {
            "description": what.description,
            "simulated": what.simulated or any(map(is_simulated, what.manifests)),
            "command": what.command,
        },
        "network": {
            "target": f"{UNet3D.__module__}.{UNet3D.__name__}",
            "features": list(what.features),
            "decoder": trainer.task.trains_decoder,
        },
        "cubes": asdict(what.cubes),
        "transforms": asdict(what.transforms),
        "options": trainer.options.as_dict(),
        "volumes": {
            kind: sum(v.modality == kind and not v.validation for v in volumes)
            for kind in sorted({v.modality for v in volumes})
        },
        "training_cubes": len(trainer.train_data.pool),
        "waiting_share": round(trainer.waited_s / max(trainer.worked_s, 1e-9), 3),
        "steps": state.step,
        "figures": kept,
    }
