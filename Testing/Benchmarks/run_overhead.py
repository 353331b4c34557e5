"""What a ToNNO heatmap costs beyond its encoder: the ratio of their times, in one run.

    python Testing/Benchmarks/run_overhead.py [--directions 64] [--threads 2] [--repeat 3]
    python Testing/Benchmarks/run_overhead.py --model flair-lesion

A brain-sized ellipsoid at 240 x 240 x 155 voxels of 1 mm is prepared as the model's card says (2 mm
where no model is named), and the whole of `compute_heatmap` is timed: planes, sampling, encoder,
filter, backprojection and agreement on the scan's own grid. Against it stands the encoder alone on
the same non-empty slices: the share of it that is spent in the encoder, so that other work on the
machine weighs on both alike. For comparison the encoder is also timed in a pass of its own.

The memory that the process has used at most is printed as well; ``--side 512`` makes it the CT.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import numpy as np
import torch

from TomoSegLib.heatmaps.pipeline import compute_heatmap
from TomoSegLib.heatmaps.responses import StackEncoder
from TomoSegLib.heatmaps.tonno import logit_evaluator
from TomoSegLib.imaging.preprocessing import ModelInput, prepare
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models.card import MethodSettings, ModelCard
from TomoSegLib.models.loading import LoadedEncoder, load_encoder
from TomoSegLib.networks.encoders import EvidenceEncoder
from TomoSegLib.tomography.directions import parse_directions
from TomoSegLib.tomography.planes import plane_stacks

LIMIT = 1.15


def main() -> int:
    """Measure, print, and say by the exit status whether the ratio is within its limit."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="name or folder; by default an untrained EvidenceEncoder")
    parser.add_argument("--directions", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--side", type=int, help="a cube of so many voxels of 0.8 mm instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)

    encoder = load_encoder(options.model) if options.model else untrained()
    card = encoder.card
    model_input = scan(options.side, card)
    settings = card.settings("tonno").model_copy(
        update={"directions": f"fibonacci:{options.directions}"}
    )

    ratios = []
    for _ in range(options.repeat):
        start = time.perf_counter()
        result = compute_heatmap(model_input, encoder, card, "tonno", settings)
        whole = time.perf_counter() - start
        ratios.append(whole / result.timings_s["encode"])
        parts = ", ".join(f"{name} {s:.2f} s" for name, s in result.timings_s.items())
        print(f"  whole {whole:.2f} s ({parts}), {result.slices} slices: ratio {ratios[-1]:.3f}")
        if not options.side:
            alone = encoder_alone(model_input, encoder, card, settings)
            print(f"  encoder in a pass of its own {alone:.2f} s: ratio {whole / alone:.3f}")

    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    ratio = float(np.median(ratios))
    verdict = "within" if ratio <= LIMIT else "above"
    print(
        f"heatmap of {options.directions} directions / its encoder = {ratio:.3f} "
        f"({verdict} {LIMIT}), {options.threads} threads"
    )
    return int(ratio > LIMIT)


def encoder_alone(
    model_input: ModelInput, encoder: LoadedEncoder, card: ModelCard, settings: MethodSettings
) -> float:
    """Seconds for the encoder on all slices with foreground, in the pipeline's batches."""
    evaluate = logit_evaluator(encoder)
    seconds = 0.0

    def timed(x: torch.Tensor) -> tuple[torch.Tensor, None]:
        nonlocal seconds
        start = time.perf_counter()
        found = evaluate(x)
        seconds += time.perf_counter() - start
        return found[0], None

    vectors = parse_directions(settings.directions).in_progressive_order().vectors
    foreground, grid = model_input.foreground, model_input.geometry
    stacks = plane_stacks(vectors, grid, foreground, card.slices)
    slices = StackEncoder(
        encoder, torch.from_numpy(model_input.image), grid, card.preprocessing.background, timed
    )
    for _ in slices.responses(stacks, [stack.occupied(foreground, grid) for stack in stacks]):
        pass
    return seconds


def scan(side: int | None, card: ModelCard) -> ModelInput:
    """A textured ellipsoid in empty space, prepared."""
    shape = (side, side, side) if side else (155, 240, 240)
    geometry = Geometry.from_parts(shape, [0.8 if side else 1.0] * 3)
    radii = np.array(shape) * 0.47 if side else np.array([70.0, 88.0, 70.0])
    j, i = np.ogrid[: shape[1], : shape[2]]
    array = np.zeros(shape, dtype=np.int16)
    for k, plane in enumerate(array):  # slice by slice: the peak of memory is to be the run's own
        inside = sum(
            ((x - (n - 1) / 2) / r) ** 2 for x, n, r in zip((k, j, i), shape, radii, strict=True)
        )
        texture = np.sin(i / 7) + np.sin(j / 5) + np.sin(k / 6)
        plane[:] = np.where(inside <= 1, 800 + 40 * texture, 0)
    volume = Volume(array, geometry)
    return prepare([volume] * len(card.channels), card.preprocessing)


def untrained() -> LoadedEncoder:
    """The project's encoder with its default widths and random weights."""
    torch.manual_seed(0)
    card = ModelCard.model_validate(
        {
            "name": "untrained",
            "version": "1.0.0",
            "title": "Untrained",
            "modality": "any",
            "channels": [{"name": "image"}],
            "labels": [{"name": "nothing"}],
            "network": {"target": "TomoSegLib.networks.encoders.EvidenceEncoder"},
            "slices": {"multiple": 4},
            "training_data": {"description": "none", "simulated": True},
            "license": "Apache-2.0",
            "intended_use": "benchmark",
            "files": {"weights.safetensors": "0" * 64},
        }
    )
    return LoadedEncoder(EvidenceEncoder().eval(), card)


if __name__ == "__main__":
    sys.exit(main())
