"""What pre-training on anatomy-oriented planes is worth, on simulated hearts.

    python Testing/Benchmarks/planes_transfer.py --hearts DIR --output DIR \\
        [--ct cxr.nii.gz --labels mask.nii.gz] [--size small|paper] [--seeds 0 1 2] \\
        [--starts scratch multitask ...] [--studies 1 2 5 10 50] [--real STUDY] [--device cuda]

Hearts are simulated first where DIR holds none. The last ones are for test, the first ones have
labels (end diastole and end systole of the short-axis stack), and all but the test hearts are
pre-trained on, without labels. Every start is pre-trained once for each seed and fine-tuned on each
number of labelled studies with the same options; the same seed draws the same studies for every
start. No other labels are used: there is no validation, the last weights count. What is finished
already is not done again, so a run that was stopped goes on.

With ``--real`` the commands 'tomoseg planes predict' and 'tomoseg run' are applied to a folder of
NIfTI files, with the first seed's multitask networks; files named sax* are segmented.

Results: report.md, runs.csv, pretext.csv, figure.png in the output folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transfer_report import draw, read_csv, seed_means, spread, teller, write_csv

from TomoSegLib.cli import main as tomoseg
from TomoSegLib.datasets.hearts import MANIFEST, HeartSimulation, simulate_hearts
from TomoSegLib.datasets.hearts_scan import ScanRecipe
from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.sequence import open_sequence
from TomoSegLib.imaging.volume import Volume
from TomoSegLib.jobs.devices import choose_device, device_title
from TomoSegLib.networks.unet2d import FEATURES
from TomoSegLib.pretraining.planes_run import PlanePretraining, pretrain_planes
from TomoSegLib.pretraining.planes_targets import PlaneOptions
from TomoSegLib.pretraining.planes_training import PlaneTraining
from TomoSegLib.studies.reading import read_study
from TomoSegLib.training.finetune import finetune
from TomoSegLib.training.segmentation_manifest import parse_labels
from TomoSegLib.training.segmentation_plan import IMAGENET, SCRATCH, Finetuning
from TomoSegLib.training.segmentation_trainer import FinetuningOptions

TASKS = {
    "rotation": ("rotation",),
    "restoration": ("restoration",),
    "orientation": ("orientation",),
    "location": ("location",),
    "multitask": ("orientation", "location"),
}
TITLES = {name: name for name in (SCRATCH, IMAGENET, *TASKS)}
LABELS = "LV=1,MYO=2,RV=3"
SYSTOLE = 0.36  # of the cycle, see `tomoseg simulate hearts`
_SAME_MM = 0.01


@dataclass(frozen=True)
class Size:
    """A bench: hearts, network, images and steps."""

    hearts: int
    labelled: int
    tests: int
    scan: ScanRecipe
    features: tuple[int, ...]
    planes: PlaneOptions
    pretraining: PlaneTraining
    finetuning: FinetuningOptions


SIZES = {
    # Two cores: a minute a row.
    "small": Size(
        80,
        50,
        12,
        ScanRecipe(side=96, phases=3, pixel_mm=(3.0, 3.7)),
        (8, 16, 32, 64, 64, 8),
        PlaneOptions(spacing_mm=4.0, side=64),
        PlaneTraining(steps=1000, batch_size=8, validate_every=250),
        FinetuningOptions(
            steps=200,
            batch_size=8,
            patch=(1, 64, 64),
            validate_every=200,
            overlap=0.25,
            flips=(),  # left is not right in a heart
            augmentation=3.0,
        ),
    ),
    # The paper's images and network; its numbers of steps are not known.
    "paper": Size(
        160,
        50,
        30,
        ScanRecipe(),
        FEATURES,
        PlaneOptions(),
        PlaneTraining(steps=20_000, batch_size=16, validate_every=500),
        FinetuningOptions(steps=4_000, batch_size=16, patch=(1, 224, 224), validate_every=100),
    ),
}


class Bench:
    """Pre-trains and fine-tunes what is asked for, once."""

    def __init__(self, options: argparse.Namespace) -> None:
        size = SIZES[options.size]
        for name in ("pretraining", "finetuning"):
            if steps := getattr(options, f"{name}_steps"):
                size = replace(size, **{name: replace(getattr(size, name), steps=steps)})
        self.size, self.folder, self.workers = size, options.output, options.workers
        self.hearts: Path = options.hearts
        self.device = str(choose_device(options.device))

    def simulate(self, ct: Path | None, labels: Path | None, workers: int) -> None:
        """Simulate hearts where there are none."""
        if not (self.hearts / MANIFEST).exists():
            size = self.size
            what = HeartSimulation(self.hearts, size.hearts, size.scan, 0, workers, ct, labels)
            simulate_hearts(what, lambda done, total: print(f"hearts {done}/{total}", flush=True))

    def prepare(self) -> None:
        """Write labelled stacks with their manifest, and the folder of studies without labels."""
        rows = read_csv(self.hearts / MANIFEST)
        tests = rows[len(rows) - self.size.tests :]
        pool = self.folder / "studies"
        pool.mkdir(parents=True, exist_ok=True)
        for row in rows[: len(rows) - self.size.tests]:
            if not (pool / row["id"]).exists():
                (pool / row["id"]).symlink_to((self.hearts / row["study"]).resolve())
        if (self.folder / "stacks.csv").exists():
            return
        found = [["image", "label", "split", "group", "modality"]]
        for split, part in (("train", rows[: self.size.labelled]), ("test", tests)):
            for row in part:
                for image, label in self._stacks(row):
                    found.append([image, label, split, row["id"], "MR"])
        with (self.folder / "stacks.csv").open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(found)
        # The models' cards say that the hearts are simulated.
        record = json.loads((self.hearts / "simulation.json").read_text(encoding="utf-8"))
        (self.folder / "simulation.json").write_text(json.dumps(record), encoding="utf-8")

    def _stacks(self, row: Mapping[str, str]) -> list[tuple[str, str]]:
        """Short-axis stacks at end diastole and end systole with their labels."""
        study = read_study(self.hearts / row["study"])
        view = next(view for view in study.views if view.kind == "short-axis")
        labels = open_sequence(self.hearts / row["labels"] / "short-axis.nii.gz")
        assert labels is not None
        folder = self.folder / "stacks"
        folder.mkdir(exist_ok=True)
        names = []
        for moment, phase in (("ed", 0), ("es", round(SYSTOLE * view.phases))):
            label = next(labels.frames([phase], constant=True))
            corners = [
                label.geometry.index_to_lps(np.array([0.0, 0.0, k]))
                for k in range(label.array.shape[0])
            ]
            order = []
            for corner in corners:  # as the labels have them
                apart = [float(np.linalg.norm(plane.origin - corner)) for plane in view.planes]
                assert min(apart) < _SAME_MM
                order.append(int(np.argmin(apart)))
            image = np.stack([view.sources[phase][n].read() for n in order]).astype(np.float32)
            pair = (f"stacks/{row['id']}-{moment}.nii.gz", f"stacks/{row['id']}-{moment}-l.nii.gz")
            for file, array in zip(pair, (image, label.array.astype(np.uint8)), strict=True):
                write_volume(Volume(array, label.geometry), self.folder / file)
            names.append(pair)
        return names

    def pretrained(self, start: str, seed: int) -> str:
        """What `Finetuning` begins with."""
        if start not in TASKS:
            return start
        folder = self.folder / "pretrained" / f"{start}-{seed}"
        if not (folder / "pretrained.json").exists():
            what = PlanePretraining(
                self.folder / "studies",
                folder,
                replace(self.size.pretraining, tasks=TASKS[start], seed=seed),
                self.size.planes,
                features=self.size.features,
                validation=0.1,
                workers=self.workers,
                device=self.device,
            )
            pretrain_planes(what, teller(f"pre-train {start}, seed {seed}"))
        return str(folder)

    def finetuned(self, start: str, seed: int, studies: int) -> Path:
        """Folder of a fine-tuning on a number of labelled studies."""
        name = f"{start}-{studies}-{seed}"
        folder = self.folder / "finetuned" / name
        if not (folder / "finetuning.json").exists():
            what = Finetuning(
                self.folder / "stacks.csv",
                folder,
                parse_labels(LABELS),
                dimensions=2,
                start=self.pretrained(start, seed),
                fraction=Fraction(studies, self.size.labelled),
                options=replace(self.size.finetuning, seed=seed),
                spacing_mm=self.size.planes.spacing_mm,
                features=None if start == IMAGENET else self.size.features,
                workers=self.workers,
                device=self.device,
                command="python Testing/Benchmarks/planes_transfer.py",
            )
            finetune(what, teller(f"fine-tune {name}"))
        return folder


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hearts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--ct", type=Path, help="of 'tomoseg simulate hearts'")
    parser.add_argument("--labels", type=Path, help="likewise")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--starts", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--studies", type=int, nargs="+", default=[1, 2, 5, 10, 50])
    parser.add_argument("--real", type=Path, help="folder of a study as NIfTI files")
    parser.add_argument("--pretraining-steps", type=int)
    parser.add_argument("--finetuning-steps", type=int)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.output.mkdir(parents=True, exist_ok=True)
    bench = Bench(options)
    if not all(1 <= count <= bench.size.labelled for count in options.studies):
        parser.error(f"--studies lie between 1 and {bench.size.labelled}")
    warnings.simplefilter("ignore", TomoSegWarning)  # hundreds of the same
    bench.simulate(options.ct, options.labels, max(1, options.workers))
    bench.prepare()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for count in options.studies:
            for start in options.starts:
                folder = bench.finetuned(start, seed, count)
                rows += [
                    {"task": start, "seed": seed, "studies": count, **row}
                    for row in read_csv(folder / "test.csv")
                ]
            report(bench, options, rows)  # what there is so far
    if options.real:
        real(bench, options)
    return 0


def report(bench: Bench, options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables, the figure and the report."""
    size = bench.size
    write_csv(bench.folder / "runs.csv", rows)
    counts = sorted({row["studies"] for row in rows})
    starts = list(dict.fromkeys(row["task"] for row in rows))
    lines = [
        "# Transfer of a pre-training on planes, simulated hearts",
        "",
        "Command: `" + " ".join(["python", *sys.argv]) + "`",
        "",
        f"Size {options.size} on {device_title(bench.device)}: {size.hearts} simulated hearts, "
        f"{size.tests} of them for test; pre-training {size.pretraining.steps} steps on the "
        f"others, fine-tuning {size.finetuning.steps} steps. Mean and standard deviation over "
        "seeds of the mean Dice of the test stacks (end diastole and end systole), percent.",
    ]
    groups = ["all", *dict.fromkeys(row["label"] for row in rows)]
    for label in groups:
        lines += [
            "",
            f"## {'Mean of the labels' if label == 'all' else label}",
            "",
            f"| start | {' | '.join(f'{n} labelled' for n in counts)} | seeds |",
            f"|---|{'---|' * len(counts)}---|",
        ]
        for start in starts:
            mine = [r for r in rows if r["task"] == start and label in ("all", r["label"])]
            cells = [spread([r for r in mine if r["studies"] == n]) for n in counts]
            seeds = len({r["seed"] for r in mine})
            lines.append(f"| {TITLES[start]} | {' | '.join(cells)} | {seeds} |")
    lines += _gains(rows, starts, counts)
    lines += _pretext(bench, options)
    (bench.folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    draw(
        bench.folder / "figure.png",
        rows,
        TITLES,
        panel=lambda row: row["label"],
        place=lambda row: row["studies"],
        along="labelled studies",
    )


def _gains(
    rows: Sequence[Mapping[str, Any]], starts: Sequence[str], counts: Sequence[int]
) -> list[str]:
    """Over scratch, seed by seed: pairs have their labelled studies in common."""
    lines = [
        "",
        "## Gain over scratch",
        "",
        "Points of mean Dice; least and greatest of the seeds in brackets.",
        "",
        f"| start | {' | '.join(f'{n} labelled' for n in counts)} |",
        f"|---|{'---|' * len(counts)}",
    ]
    for start in starts:
        cells = []
        for count in counts:
            part = [r for r in rows if r["studies"] == count]
            both = [{r["seed"] for r in part if r["task"] == s} for s in (start, SCRATCH)]
            part = [r for r in part if r["seed"] in both[0] & both[1]]
            own, other = (seed_means([r for r in part if r["task"] == s]) for s in (start, SCRATCH))
            gains = [a - b for a, b in zip(own, other, strict=True)]
            cells.append(
                f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f})" if gains else "-"
            )
        if start != SCRATCH:
            lines.append(f"| {TITLES[start]} | {' | '.join(cells)} |")
    return lines if SCRATCH in starts and len(starts) > 1 else []


def _pretext(bench: Bench, options: argparse.Namespace) -> list[str]:
    """How well the pretext tasks were learned, on the hearts held out of the pre-training."""
    rows = []
    for start in options.starts:
        for seed in options.seeds:
            path = bench.folder / "pretrained" / f"{start}-{seed}" / "report.json"
            if not path.exists():
                continue
            found = json.loads(path.read_text(encoding="utf-8"))
            row: dict[str, Any] = dict.fromkeys(
                ("degrees", "guess_degrees", "mm", "guess_mm", "location", "guess_location"), ""
            )
            if "lines" in found:
                every = found["lines"]["all"]
                for unit in ("degrees", "mm"):
                    row[unit] = every[unit]["mean"]
                    row[f"guess_{unit}"] = every.get(f"guess_{unit}", {}).get("mean", "")
            if "location" in found:
                row["location"] = found["location"]["error"]["mean"]
                row["guess_location"] = found["location"].get("error_of_guess", {}).get("mean", "")
            rows.append({"task": start, "seed": seed, **row})
    if not any(row["degrees"] != "" or row["location"] != "" for row in rows):
        return []
    write_csv(bench.folder / "pretext.csv", rows)
    lines = [
        "",
        "## Pretext tasks",
        "",
        "Errors on the hearts held out of the pre-training, and of a guess that looks at no image.",
        "",
        "| task | seed | lines, degrees (guess) | lines, mm (guess) | location (guess) |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            "" if row[name] == "" else f"{row[name]:.3g} ({_number(row[f'guess_{name}'])})"
            for name in ("degrees", "mm", "location")
        ]
        if any(cells):
            lines.append(f"| {row['task']} | {row['seed']} | {' | '.join(cells)} |")
    return lines


def _number(value: Any) -> str:
    return "-" if value == "" else f"{value:.3g}"


def real(bench: Bench, options: argparse.Namespace) -> None:
    """Apply the commands to a real study, with the networks of the first seed."""
    seed, count = options.seeds[0], max(options.studies)
    output = bench.folder / "real"
    pretrained = bench.pretrained("multitask", seed)
    command = ["planes", "predict", str(options.real), "--pretrained", pretrained]
    tomoseg([*command, "--output", str(output / "lines"), "--overwrite", "--device", "cpu"])
    model = bench.finetuned("multitask", seed, count) / "model"
    for stack in sorted(options.real.glob("sax*.nii*")):
        command = ["run", str(stack), "--model", str(model), "--overwrite", "--device", "cpu"]
        tomoseg([*command, "--output", str(output / stack.name.split(".")[0])])


if __name__ == "__main__":
    sys.exit(main())
