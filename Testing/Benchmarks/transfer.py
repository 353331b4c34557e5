"""What pre-training is worth: Tables 2, 3 and 4 of the SAR paper, and the probe of its adversary.

    python Testing/Benchmarks/transfer.py table2 --pool pool.csv --target tumour cases.csv \\
        "tumour=1" --fraction 1/10 --output DIR [--size small|paper] [--seeds 0 1 2] [--device cuda]
    python Testing/Benchmarks/transfer.py table4 ...      the same options; Dice against labels
    python Testing/Benchmarks/transfer.py probe --pool pool.csv --heads heads.csv --output DIR

``--pool`` are manifests for 'tomoseg pretrain sar', ``--target NAME CSV LABELS`` (may be repeated)
one for 'tomoseg finetune' with test cases. Every row is pre-trained and fine-tuned once for each
seed with the same options; what is finished already is not done again, so a run that was stopped
goes on. With ``--pretrainings N`` seed s begins with pre-training s modulo N: where few cases have
labels it matters most which, and more draws of them need no more pre-trainings. Dice is that of
the test cases on their own grids; small, medium and large are the thirds of the test cases by the
reference's volume. The probe tells CT from MR by frozen features of the cubes of ``--heads``, which
should show the same part of the body in both.

Results: report.md, runs.csv, figure.png in the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transfer_report import (
    deviation,
    draw,
    finished,
    gain,
    is_pretrained,
    positive,
    read_csv,
    spread,
    teller,
    write_csv,
)

from TomoSegLib.jobs.devices import choose_device, device_title
from TomoSegLib.networks.unet3d import FEATURES, UNet3D
from TomoSegLib.pretraining.cubes import CubeOptions, CubePool, make_cubes
from TomoSegLib.pretraining.manifest import read_pool
from TomoSegLib.pretraining.options import PretrainingOptions
from TomoSegLib.pretraining.presets import PRESETS
from TomoSegLib.pretraining.probe import modality_probe
from TomoSegLib.pretraining.run import Pretraining, pretrain
from TomoSegLib.pretraining.transforms import GenesisTransforms
from TomoSegLib.pretraining.weights import RECORD, begin_with, load_pretrained
from TomoSegLib.training.finetune import finetune
from TomoSegLib.training.segmentation_manifest import LabelSpec, parse_labels
from TomoSegLib.training.segmentation_plan import SCRATCH, Finetuning
from TomoSegLib.training.segmentation_trainer import FinetuningOptions

FRACTIONS = ("1/2", "1/5", "1/10", "1/20", "1/50")
TITLES = {SCRATCH: "scratch", **{name: preset.title for name, preset in PRESETS.items()}}
_CUBES_LOOKED_AT = 500
PROBED = (SCRATCH, "models-genesis", "sar-no-adversary", "sar")


@dataclass(frozen=True)
class Size:
    """A bench: network, cubes, patches and steps."""

    features: tuple[int, ...]
    cubes: CubeOptions
    transforms: GenesisTransforms
    pretraining: PretrainingOptions
    finetuning: FinetuningOptions
    spacing_mm: float


SIZES = {
    # Two cores: a quarter of an hour a pre-training, a minute a fine-tuning.
    "small": Size(
        (8, 16, 32, 64, 64, 8),
        # Thinner cubes leave pieces of four slices, of which nothing can be told. Of the few
        # volumes of CT (see transfer_data.py) more are cut, or the adversary hardly sees any.
        CubeOptions(
            shape=(32, 32, 32),
            counts=(8, 8, 8),
            dataset_counts={"chest": (160, 160, 160), "heads": (80, 80, 80)},
            spacing_mm=1.5,
        ),
        # With the paper's, nine cubes of ten change their contrast and as many are painted over:
        # in so few steps hardly anything of them is restored.
        GenesisTransforms(shuffle=0.3, nonlinear=0.6, paint=0.3),
        # With the paper's SGD so few steps come to nothing. At twice the rate, and without a
        # schedule, scales are hardly told apart after 3000 steps.
        PretrainingOptions(
            steps=2000,
            batch_size=6,
            optimizer="adam",
            learning_rates=(1e-3, 1e-3, 1e-3),
            schedule="cosine",
            validate_every=250,
            validation_cubes=192,
        ),
        FinetuningOptions(
            steps=400,
            batch_size=2,
            patch=(32, 32, 32),
            validate_every=50,
            loss="dice-ce",  # many patches lack a label: Dice does not forbid it in them
            overlap=0.25,
            averaged=0.4,  # without it the last step is a lottery
        ),
        2.0,
    ),
    # The paper's cubes and network; its numbers of steps are not known.
    "paper": Size(
        FEATURES,
        CubeOptions(),
        GenesisTransforms(),
        PretrainingOptions(steps=50_000, batch_size=32, validate_every=500),
        FinetuningOptions(steps=5_000, batch_size=8, patch=(32, 64, 64), validate_every=100),
        1.0,
    ),
}


@dataclass(frozen=True)
class Target:
    """What networks are fine-tuned on."""

    name: str
    manifest: Path
    labels: list[LabelSpec]


class Bench:
    """Pre-trains and fine-tunes what is asked for, once."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.folder: Path = options.output
        size = SIZES[options.size]
        if options.pretraining_steps:
            size = replace(
                size, pretraining=replace(size.pretraining, steps=options.pretraining_steps)
            )
        if options.finetuning_steps:
            size = replace(
                size, finetuning=replace(size.finetuning, steps=options.finetuning_steps)
            )
        if options.objective:
            size = replace(size, pretraining=replace(size.pretraining, objective=options.objective))
        self.size, self.pool, self.workers = size, options.pool, options.workers
        self.pretrainings: int | None = options.pretrainings
        self.device = str(choose_device(options.device))

    def cubes_of(self, manifests: Path | Sequence[Path]) -> CubePool:
        """The cubes of all volumes of a pool."""
        volumes, cubes = read_pool(manifests), self.size.cubes
        files = make_cubes(volumes, cubes, self.folder / "cubes", self.workers)
        return CubePool(files, volumes, cubes)

    @cached_property
    def guesses(self) -> dict[str, float]:
        """What a network without an idea would reach in validation, by the figure's name."""
        pool, volumes = self.cubes_of(self.pool), read_pool(self.pool)
        held_out = [n for n, row in enumerate(pool.table) if volumes[row[0]].validation]
        some = np.random.default_rng(0).permutation(held_out or len(pool))[:_CUBES_LOOKED_AT]
        return {
            "restoration": float(np.mean([pool[n].image.var() for n in some.tolist()])),
            "scale accuracy": float(np.bincount(pool.table[:, 2]).max() / len(pool)),
            "rotation accuracy": 1 / 10,
            "location accuracy": 1 / 26,
            "permutation accuracy": 1 / 100,
            # Of nine columns of pieces in each cube of the batch.
            "contrast accuracy": 1 / (9 * self.size.pretraining.batch_size),
        }

    def pretrained(self, task: str, seed: int) -> str:
        """Folder of the weights that a seed begins with, or ``scratch``."""
        if task == SCRATCH:
            return SCRATCH
        if self.pretrainings:
            seed %= self.pretrainings
        folder = self.folder / "pretrained" / f"{task}-{seed}"
        size = self.size
        asked = size.pretraining.as_dict() | {"seed": seed}
        del asked["game"]  # off in tasks without an adversary
        asked |= {"cubes": asdict(size.cubes), "transforms": asdict(size.transforms)}
        if not is_pretrained(folder, asked):
            what = Pretraining(
                tuple(self.pool),
                folder,
                task,
                replace(size.pretraining, seed=seed),
                size.cubes,  # the same cubes for every seed: they are cut once
                size.features,
                cache=self.folder / "cubes",
                workers=self.workers,
                device=self.device,
                transforms=size.transforms,
            )
            pretrain(what, teller(f"pre-train {task}, seed {seed}"))
        return str(folder)

    def dice(self, task: str, seed: int, target: Target, fraction: str) -> list[dict[str, str]]:
        """Rows of ``test.csv`` of a task's network, fine-tuned on a share of the cases."""
        name = f"{target.name}-{fraction.replace('/', 'of')}-{task}-{seed}"
        folder = self.folder / "finetuned" / name
        options = replace(self.size.finetuning, seed=seed)
        if not finished(folder, options.as_dict()):
            start = self.pretrained(task, seed)
            what = Finetuning(
                target.manifest,
                folder,
                target.labels,
                start=start,
                # Everything alike but the weights: intensities too.
                like=self.pretrained("sar", seed) if start == SCRATCH else None,
                fraction=Fraction(fraction),
                options=options,
                spacing_mm=self.size.spacing_mm,
                features=self.size.features,
                workers=self.workers,
                device=self.device,
            )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # modality by intensities, other labels
                finetune(what, teller(f"fine-tune {name}"))
        return read_csv(folder / "test.csv")


def main() -> int:
    """Run a table, or the probe."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=["table2", "table4", "probe"])
    parser.add_argument("--pool", type=Path, nargs="+", required=True)
    parser.add_argument("--target", nargs=3, action="append", metavar=("NAME", "CSV", "LABELS"))
    parser.add_argument("--heads", type=Path, help="manifest of CT and MR of one part of the body")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrainings", type=positive, help="by default one for each seed")
    parser.add_argument("--fraction", default="1/10")
    parser.add_argument("--fractions", nargs="+", default=list(FRACTIONS))
    parser.add_argument("--tasks", nargs="+", choices=list(TITLES))
    parser.add_argument("--pretraining-steps", type=int)
    parser.add_argument("--finetuning-steps", type=int)
    parser.add_argument("--objective", choices=["minimax", "uniform"])
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    if options.what == "probe":
        if options.heads is None:
            parser.error("probe needs --heads")
        return probe(bench, options)
    if not options.target:
        parser.error(f"{options.what} needs --target")
    targets = [Target(name, Path(path), parse_labels(text)) for name, path, text in options.target]
    table4 = options.what == "table4"
    tasks = options.tasks or ([SCRATCH, "sar"] if table4 else list(TITLES))
    rows = []
    for target in targets:
        for fraction in options.fractions if table4 else [options.fraction]:
            for task in tasks:
                for seed in options.seeds:
                    for row in bench.dice(task, seed, target, fraction):
                        rows.append(
                            {"target": target.name, "fraction": fraction, "task": task,
                             "seed": seed, **row}
                        )  # fmt: skip
                    report(options.output, options, bench, rows)  # what there is so far
    return 0


def report(
    folder: Path, options: argparse.Namespace, bench: Bench, rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the table, the figure and the report."""
    write_csv(folder / "runs.csv", rows)
    lines = [
        f"# {options.what}",
        "",
        "Command: `" + " ".join(["python", *sys.argv]) + "`",
        "",
        f"Size {options.size} on {device_title(bench.device)}; pre-training "
        f"{bench.size.pretraining.steps} steps, fine-tuning {bench.size.finetuning.steps} steps. "
        "Mean and standard deviation over seeds of the mean Dice of the test cases, percent; over "
        "scratch in points, with the least and the greatest of the seeds and how many gain.",
    ]
    groups = list(dict.fromkeys((row["target"], row["label"]) for row in rows))
    for target, label in groups:
        mine = [row for row in rows if (row["target"], row["label"]) == (target, label)]
        fractions = list(dict.fromkeys(row["fraction"] for row in mine))
        thirds = _thirds(mine)
        for fraction in fractions:
            lines += ["", f"## {target}: {label}, {fraction} of the labels", ""]
            lines += [
                "| start | small | medium | large | all | over scratch | seeds |",
                "|---|---|---|---|---|---|---|",
            ]
            for task in dict.fromkeys(row["task"] for row in mine):
                part = [r for r in mine if (r["task"], r["fraction"]) == (task, fraction)]
                if part:
                    cells = [
                        spread([r for r in part if size in ("all", thirds[r["case"]])])
                        for size in ("small", "medium", "large", "all")
                    ]
                    alike = [r for r in mine if r["fraction"] == fraction]
                    cells.append("" if task == SCRATCH else gain(alike, task, SCRATCH))
                    seeds = len({r["seed"] for r in part})
                    lines.append(f"| {TITLES[task]} | {' | '.join(cells)} | {seeds} |")
    lines += pretext(bench, rows)
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    by_fraction = options.what == "table4"
    draw(
        folder / "figure.png",
        rows,
        TITLES,
        panel=lambda row: f"{row['target']}: {row['label']}",
        place=(lambda row: float(Fraction(row["fraction"]))) if by_fraction else None,
        along="share of the labelled cases",
    )


def pretext(bench: Bench, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table of what the pre-trainings have learnt, beside what a guess would reach.

    A start whose task came to no more than the guess says nothing about the task.
    """
    lines = [
        "",
        "## What was learnt",
        "",
        "On validation cubes, mean and standard deviation over pre-trainings. Restoration is the "
        "mean squared error, and its guess each cube's own mean; the others are accuracies.",
        "",
        "| start | figure | reached | guess |",
        "|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows if row["task"] != SCRATCH):
        folders = {bench.pretrained(task, row["seed"]) for row in rows if row["task"] == task}
        figures = [
            json.loads((Path(folder) / RECORD).read_text(encoding="utf-8"))["figures"]
            for folder in sorted(folders)
        ]
        for name, guess in bench.guesses.items():
            values = [found[f"val {name}"] for found in figures if f"val {name}" in found]
            if values:
                reached = f"{np.mean(values):.3f} +- {deviation(values):.3f}"
                lines.append(f"| {TITLES[task]} | {name} | {reached} | {guess:.3f} |")
    return lines


def probe(bench: Bench, options: argparse.Namespace) -> int:
    """Tell CT from MR by frozen features, with and without the adversary."""
    pool = bench.cubes_of(options.heads)
    rows = []
    for task in options.tasks or PROBED:
        for seed in options.seeds:
            torch.manual_seed(seed)
            network = UNet3D(1, 1, bench.size.features)
            start = bench.pretrained(task, seed)
            if start != SCRATCH:
                begin_with(network, load_pretrained(Path(start)))
            network.to(bench.device)
            for level in range(1, 5):
                found = modality_probe(network, pool, level)
                row = {"task": task, "seed": seed, "level": level}
                rows.append(
                    row | {"accuracy": round(found.accuracy, 4), "auc": round(found.auc, 4)}
                )
    write_csv(bench.folder / "probe.csv", rows)
    lines = [
        "# Probe: CT or MR, from frozen features",
        "",
        "Command: `" + " ".join(["python", *sys.argv]) + "`",
        "",
        f"{len(pool)} cubes of {len(np.unique(pool.table[:, 0]))} volumes; balanced accuracy of "
        "logistic regression in cross-validation, percent, mean and standard deviation over seeds. "
        "50 is chance.",
        "",
        "| start | level 1 | level 2 | level 3 | level 4 (deepest) |",
        "|---|---|---|---|---|",
    ]
    for task in dict.fromkeys(row["task"] for row in rows):
        cells = []
        for level in range(1, 5):
            values = [100 * r["accuracy"] for r in rows if (r["task"], r["level"]) == (task, level)]
            cells.append(f"{np.mean(values):.1f} +- {deviation(values):.1f}")
        lines.append(f"| {TITLES[task]} | {' | '.join(cells)} |")
    (bench.folder / "probe.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines[6:]))
    return 0


def _thirds(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Which third by the reference's volume each case belongs to; cases without it to none."""
    volumes = {r["case"]: float(r["volume_ml"]) for r in rows if float(r["volume_ml"]) > 0}
    ranked = sorted(volumes, key=lambda case: volumes[case])
    names = ("small", "medium", "large")
    found = {case: names[min(3 * n // len(ranked), 2)] for n, case in enumerate(ranked)}
    return {r["case"]: found.get(r["case"], "") for r in rows}


if __name__ == "__main__":
    sys.exit(main())
