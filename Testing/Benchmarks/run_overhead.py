"""What ``tomoseg run`` costs beyond its encoder: the ratio of their times, in one run.

    python Testing/Benchmarks/run_overhead.py [--directions 64] [--threads 2] [--repeat 3]
    python Testing/Benchmarks/run_overhead.py --network evidence
    python Testing/Benchmarks/run_overhead.py --model flair-lesion

A brain-sized scan of 240 x 240 x 155 voxels of 1 mm is given to the real command line, in processes
of its own: start-up, reading, preparation, the heatmap of 64 directions with the agreement, the
mask, all files and the picture. Against it stands the encoder alone: the time that it takes for the
same non-empty slices, which are sampled beforehand, in the same batches. Both are repeated in turn,
and the smallest times count, as wall-clock and as CPU time: other work on the machine only ever
adds.

Without ``--model`` the encoder has random weights, which take the same time, and slices of 2 mm:
a ResNet-18, the smallest of the usual encoders, or the project's own with its default widths. What
comes beside the encoder takes about the same few seconds whatever the encoder is (Python and torch
start, files are written), so the limit is that of the ResNet-18; the others tell how far it
carries. The exit status says whether the limit is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from TomoSegLib.heatmaps.responses import StackEncoder
from TomoSegLib.heatmaps.tonno import logit_evaluator
from TomoSegLib.imaging.io import read_volume, write_volume
from TomoSegLib.imaging.preprocessing import prepare
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import Network
from TomoSegLib.models.loading import build_network, load_encoder
from TomoSegLib.models.store import ModelFolder, find_model, save_model
from TomoSegLib.tomography.directions import parse_directions
from TomoSegLib.tomography.planes import plane_stacks

LIMIT = 1.15
NETWORKS: dict[str, dict[str, Any]] = {
    "resnet18": {
        "target": "monai.networks.nets.ResNet",
        "arguments": {
            "block": "basic",
            "layers": [2, 2, 2, 2],
            "block_inplanes": [64, 128, 256, 512],
            "spatial_dims": 2,
            "n_input_channels": 1,
            "num_classes": 1,
        },
    },
    "evidence": {"target": "TomoSegLib.networks.encoders.EvidenceEncoder"},
}


def main() -> int:
    """Measure, print, and say by the exit status whether the ratio is within its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="name or folder; by default an untrained network")
    parser.add_argument("--network", choices=NETWORKS, default="resnet18")
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    directions = f"fibonacci:{options.directions}"

    whole, alone, inside, heatmap = [], [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = find_model(options.model) if options.model else untrained(folder / options.network)
        scan = folder / "scan.nii.gz"
        write_volume(brain_sized(), scan)
        for _ in range(options.repeat):
            seconds, timings = run(scan, model, directions, options.threads, folder / "results")
            whole.append(seconds)
            inside.append(timings["heatmap.encode"])
            heatmap.append(timings["heatmap"])
            slices, *pass_alone = encoder_alone(scan, model, directions)
            alone.append(pass_alone)
            print(
                f"  whole {seconds[0]:.2f} s ({seconds[1]:.2f} s of CPU), encoder alone "
                f"{pass_alone[0]:.2f} s ({pass_alone[1]:.2f} s of CPU), {slices} slices"
            )
            print("    " + ", ".join(f"{stage} {s:.2f}" for stage, s in timings.items()))

    whole_wall, whole_cpu = np.min(whole, axis=0)
    alone_wall, alone_cpu = np.min(alone, axis=0)
    ratio = whole_wall / alone_wall
    print(f"{model.card.name}, {options.directions} directions, {options.threads} threads")
    print(f"whole run         {whole_wall:8.2f} s {whole_cpu:8.2f} s of CPU")
    print(f"encoder alone     {alone_wall:8.2f} s {alone_cpu:8.2f} s of CPU")
    print(f"heatmap / encoder within the run  {np.min(np.array(heatmap) / inside):.3f}")
    print(f"whole run / encoder alone, CPU    {whole_cpu / alone_cpu:.3f}")
    verdict = "within" if ratio <= LIMIT else "above"
    print(f"whole run / encoder alone, wall   {ratio:.3f} ({verdict} {LIMIT})")
    return int(ratio > LIMIT)


def run(
    scan: Path, model: ModelFolder, directions: str, threads: int, output: Path
) -> tuple[tuple[float, float], dict[str, float]]:
    """Wall and CPU seconds of ``tomoseg run`` with all its processes, and its stages' seconds."""
    command = [sys.executable, "-m", "TomoSegLib.cli", "run", str(scan), "--method", "tonno"]
    command += ["--model", str(model.path), "--directions", directions, "--device", "cpu"]
    command += ["--threads", str(threads), "--output", str(output), "--overwrite"]
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, os.times()
    cpu = sum(getattr(after, k) - getattr(before, k) for k in ("children_user", "children_system"))
    result = json.loads((output / "result.json").read_text(encoding="utf-8"))
    return (wall, cpu), result["timings_s"]


def encoder_alone(scan: Path, model: ModelFolder, directions: str) -> tuple[int, float, float]:
    """Number of slices with foreground; wall and CPU seconds of the encoder for all of them."""
    encoder = load_encoder(model)
    evaluate = logit_evaluator(encoder)
    batches = list(slice_batches(scan, model, directions))
    evaluate(batches[0])  # what is set up once
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        evaluate(batch)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return sum(map(len, batches)), wall, cpu


def slice_batches(scan: Path, model: ModelFolder, directions: str) -> Iterator[torch.Tensor]:
    """The batches ``(B, C, H, W)`` that the run gives to its encoder."""
    card = model.card
    prepared = prepare([read_volume(scan)] * len(card.channels), card.preprocessing)
    vectors = parse_directions(directions).in_progressive_order().vectors
    stacks = plane_stacks(vectors, prepared.geometry, prepared.foreground, card.slices)
    seen: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> tuple[torch.Tensor, None]:
        seen.append(x)
        return x.new_zeros(len(x)), None

    encoder = StackEncoder(
        load_encoder(model),
        torch.from_numpy(prepared.image),
        prepared.geometry,
        card.preprocessing.background,
        keep,
    )
    occupied = [stack.occupied(prepared.foreground, prepared.geometry) for stack in stacks]
    for _ in encoder.responses(stacks, occupied):
        yield from seen
        seen.clear()


def brain_sized() -> Volume:
    """An ellipsoid with texture and noise in empty space."""
    shape = (155, 240, 240)
    k, j, i = np.ogrid[: shape[0], : shape[1], : shape[2]]
    center, radii = (np.array(shape) - 1) / 2, (70, 88, 70)
    inside = sum(((x - c) / r) ** 2 for x, c, r in zip((k, j, i), center, radii, strict=True)) <= 1
    values = 800 + 40 * (np.sin(i / 7) + np.sin(j / 5) + np.sin(k / 6))
    values = values + np.random.default_rng(0).normal(0, 30, shape)
    array = np.where(inside, values, 0).astype(np.int16)
    return Volume(array, Geometry.from_parts(shape, [1.0] * 3), "brain-sized")


def untrained(folder: Path) -> ModelFolder:
    """A model of the network that the folder is called after, with random weights."""
    torch.manual_seed(0)
    network = NETWORKS[folder.name]
    fields = {
        "name": folder.name,
        "version": "1.0.0",
        "title": "Untrained",
        "modality": "any",
        "channels": [{"name": "image"}],
        "labels": [{"name": "nothing"}],
        "network": network,
        "slices": {"multiple": 4},
        "methods": {"tonno": {"threshold": {"kind": "peak", "value": 0.5}}},
        "training_data": {"description": "none", "simulated": True},
        "license": "Apache-2.0",
        "intended_use": "benchmark",
    }
    weights = build_network(Network.model_validate(network)).state_dict()
    return save_model(folder, fields, weights)


if __name__ == "__main__":
    sys.exit(main())
