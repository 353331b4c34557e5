"""What pre-training on anatomy-oriented planes is worth, on simulated hearts.

    python Testing/Benchmarks/planes_transfer.py --hearts DIR --output DIR \\
        [--ct cxr.nii.gz --labels mask.nii.gz] [--size small|paper] [--seeds 0 1 2] \\
        [--pretrainings N] \\
        [--starts scratch multitask ...] [--studies 1 2 5 10 50] [--real STUDY] [--device cuda] \\
        [--task segmentation|classification]

Hearts are simulated first where DIR holds none. The last ones are for test, the first ones have
labels (end diastole and end systole of the short-axis stack), and all but the test hearts are
pre-trained on, without labels. Every start is pre-trained once for each seed and fine-tuned on each
number of labelled studies with the same options; the same seed draws the same studies for every
start. With ``--pretrainings N`` seed s begins with pre-training s modulo N: where few studies have
labels it matters most which, and more draws of them need no more pre-trainings. No other labels
are used: there is no validation, the last weights count. What is finished already is not done
again, so a run that was stopped goes on.

With ``--real`` the commands 'tomoseg planes predict' and 'tomoseg run' are applied to a folder of
NIfTI files, with the first seed's multitask networks; files named sax* are segmented.

With ``--task classification`` the end-diastolic stacks are classified by the thickness of the wall
(see planes_classes.py), and the numbers of studies are of each of the two classes. Pre-trainings
are shared between the tasks.

Results: report.md, runs.csv, pretext.csv, figure.png in the output folder; of the classification
report-classes.md and so on.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from planes_classes import ClassBench, class_rows
from planes_report import CLASS_TABLES, SEGMENTATION_TABLES, pretext_table, write_report
from transfer_report import finished, is_pretrained, positive, read_csv, teller

from TomoSegLib.cli import main as tomoseg
from TomoSegLib.datasets.hearts import MANIFEST, HeartSimulation, simulate_hearts
from TomoSegLib.datasets.hearts_scan import ScanRecipe
from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.imaging.io import open_sequence, write_volume
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
STARTS = [SCRATCH, IMAGENET, *TASKS]
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
    # Two cores: six minutes a pre-training, half a minute a fine-tuning.
    "small": Size(
        120,
        50,
        16,
        ScanRecipe(side=96, phases=3, pixel_mm=(3.0, 3.7)),
        (8, 16, 32, 64, 64, 8),
        PlaneOptions(spacing_mm=4.0, side=64),
        PlaneTraining(steps=6000, batch_size=8, validate_every=500),
        FinetuningOptions(
            steps=400,
            batch_size=8,
            patch=(1, 64, 64),
            validate_every=400,
            overlap=0.25,
            flips=(),  # left is not right in a heart
            augmentation=3.0,
            rotation=25.0,
            zoom=1.15,
            averaged=0.4,
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
        FinetuningOptions(
            steps=4_000,
            batch_size=16,
            patch=(1, 224, 224),
            validate_every=100,
            flips=(),
            rotation=25.0,
            zoom=1.15,
            averaged=0.4,
        ),
    ),
}


class Bench:
    """Pre-trains and fine-tunes what is asked for, once."""

    def __init__(self, options: argparse.Namespace) -> None:
        size = SIZES[options.size]
        for name in ("pretraining", "finetuning"):
            if steps := getattr(options, f"{name}_steps"):
                size = replace(size, **{name: replace(getattr(size, name), steps=steps)})
        flips = tuple(sorted("kji".index(axis) for axis in options.flips))
        size = replace(size, finetuning=replace(size.finetuning, flips=flips))
        self.size, self.folder, self.workers = size, options.output, options.workers
        self.hearts: Path = options.hearts
        self.pretrainings: int | None = options.pretrainings
        self.device = str(choose_device(options.device))

    def simulate(self, ct: Path | None, labels: Path | None, workers: int) -> None:
        """Simulate hearts where there are none."""
        if not (self.hearts / MANIFEST).exists():
            size = self.size
            what = HeartSimulation(self.hearts, size.hearts, size.scan, 0, workers, ct, labels)
            simulate_hearts(what, lambda done, total: print(f"hearts {done}/{total}", flush=True))

    def prepare(self) -> None:
        """Write labelled stacks with their manifest, and the folder of studies without labels."""
        record = json.loads((self.hearts / "simulation.json").read_text(encoding="utf-8"))
        own = self.folder / "simulation.json"
        if own.exists() and json.loads(own.read_text(encoding="utf-8")) != record:
            sys.exit(f"{self.folder} is of other hearts: choose another --output.")
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
        own.write_text(json.dumps(record), encoding="utf-8")

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
        """What `Finetuning` begins with, for a seed."""
        if start not in TASKS:
            return start
        if self.pretrainings:
            seed %= self.pretrainings
        folder = self.folder / "pretrained" / f"{start}-{seed}"
        training = replace(self.size.pretraining, tasks=TASKS[start], seed=seed)
        asked = {"training": asdict(training), "planes": asdict(self.size.planes)}
        if not is_pretrained(folder, asked):
            what = PlanePretraining(
                self.folder / "studies",
                folder,
                training,
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
        options = replace(self.size.finetuning, seed=seed)
        if not finished(folder, options.as_dict()):
            what = Finetuning(
                self.folder / "stacks.csv",
                folder,
                parse_labels(LABELS),
                dimensions=2,
                start=self.pretrained(start, seed),
                fraction=Fraction(studies, self.size.labelled),
                options=options,
                spacing_mm=self.size.planes.spacing_mm,
                features=None if start == IMAGENET else self.size.features,
                workers=self.workers,
                device=self.device,
                command="python Testing/Benchmarks/planes_transfer.py",
            )
            finetune(what, teller(f"fine-tune {name}"))
        return folder

    def classified(self, start: str, seed: int, studies: int) -> Path:
        """Folder of a fine-tuning for classification on a number of studies of each class."""
        name, size = f"{start}-{studies}-{seed}", self.size
        bench = ClassBench(
            self.folder,
            size.labelled,
            size.finetuning,
            size.planes.spacing_mm,
            self.workers,
            self.device,
        )
        features = None if start == IMAGENET else size.features
        begin, tell = self.pretrained(start, seed), teller(f"classify {name}")
        return bench.finetuned(name, begin, seed, studies, features, tell)


def main() -> int:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--hearts", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument(
        "--task", choices=["segmentation", "classification"], default="segmentation"
    )
    parser.add_argument("--ct", type=Path, help="of 'tomoseg simulate hearts'")
    parser.add_argument("--labels", type=Path, help="likewise")
    parser.add_argument("--size", choices=list(SIZES), default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--pretrainings", type=positive, help="by default one for each seed")
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--studies", type=int, nargs="+", default=[1, 2, 5, 10, 50])
    parser.add_argument("--real", type=Path, help="folder of a study as NIfTI files")
    parser.add_argument(
        "--flips", default="", help="as of 'tomoseg finetune'; i where files may be mirrored"
    )
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
    classes = options.task == "classification"
    if classes and options.real:
        parser.error("--real is for segmentation")
    warnings.simplefilter("ignore", TomoSegWarning)  # hundreds of the same
    bench.simulate(options.ct, options.labels, max(1, options.workers))
    bench.prepare()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        for count in options.studies:
            for start in options.starts:
                if classes:
                    found = class_rows(bench.classified(start, seed, count))
                else:
                    found = read_csv(bench.finetuned(start, seed, count) / "test.csv")
                rows += [{"task": start, "seed": seed, "studies": count, **row} for row in found]
            told(bench, options, rows)
    if options.real:
        real(bench, options)
    return 0


def told(bench: Bench, options: argparse.Namespace, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the tables, the figure and the report of what there is so far."""
    size, classes = bench.size, options.task == "classification"
    if classes:
        measured = (
            "balanced accuracy and AUC of the test hearts' end-diastolic stacks, in percent; "
            "studies are of each class, at most all"
        )
    else:
        measured = "mean Dice of the test stacks (end diastole and end systole), percent"
    heading = [
        "# Transfer of a pre-training on planes, simulated hearts",
        "",
        "Command: `" + " ".join(["python", *sys.argv]) + "`",
        "",
        f"Size {options.size} on {device_title(bench.device)}: {size.hearts} simulated hearts, "
        f"{size.tests} of them for test; pre-training {size.pretraining.steps} steps on the "
        f"others, fine-tuning {size.finetuning.steps} steps. Mean and standard deviation over "
        f"seeds of the {measured}.",
    ]
    pretext = pretext_table(bench.folder, options.starts, options.seeds)
    if classes:
        write_report(bench.folder, rows, heading, pretext, CLASS_TABLES)
    else:
        write_report(bench.folder, rows, heading, pretext, SEGMENTATION_TABLES)


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
