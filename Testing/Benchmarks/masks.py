"""What masks without a voxel label are worth: every way to one, on simulated and on real cases.

    python Testing/Benchmarks/masks.py --model flair-lesion --segmenter flair-lesion-segmenter \\
        --output DIR [--contrast flair|t1c] [--real cases.csv] [--device cuda]

Compared are axial CAM, Averaged CAM, Tomographic CAM and ToNNO of the model, each with and without
refinement, a segmenter that was trained on its heatmaps, an intensity threshold chosen on the
validation volumes with their masks, and, as the upper bound, a U-Net trained with the masks of the
same simulated volumes. These are those of 'tomoseg simulate lesions' with the seed that the shipped
models were trained with; the test volumes are of another head. ``--real`` is a manifest with path,
label, split (``test``) and mask. Nothing is fitted to real cases.

Results: report.md, with the evaluations' own tables and figures in simulated/ and real/. What is
finished already is not done again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transfer_report import finished, teller

from TomoSegLib.datasets.manifest import read_manifest
from TomoSegLib.datasets.recipes import Recipe, T1cRecipe
from TomoSegLib.datasets.simulate import Simulation, simulate_dataset
from TomoSegLib.evaluation.evaluate import Evaluation, evaluate
from TomoSegLib.evaluation.figures import method_name
from TomoSegLib.files import atomic_path
from TomoSegLib.jobs.devices import choose_device, device_title
from TomoSegLib.models.store import find_model
from TomoSegLib.training.finetune import finetune
from TomoSegLib.training.segmentation_manifest import LabelSpec
from TomoSegLib.training.segmentation_plan import Finetuning
from TomoSegLib.training.segmentation_trainer import FinetuningOptions

SUPERVISED = "supervised-upper-bound"
FIGURES = (("dice", "Dice"), ("average_precision", "AP"), ("hd95_mm", "HD95 mm"))
RECIPES: Mapping[str, type[Recipe]] = {"flair": Recipe, "t1c": T1cRecipe}


def main() -> int:
    """Simulate, train the upper bound, evaluate and report."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="heatmap model")
    parser.add_argument("--segmenter", action="append", default=[], help="may be repeated")
    parser.add_argument("--contrast", choices=sorted(RECIPES), default="flair")
    parser.add_argument("--real", type=Path, help="manifest of real cases with masks")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--train", type=int, default=320)
    parser.add_argument("--test", type=int, default=16)
    parser.add_argument("--supervised-steps", type=int, default=3000, help="0: no upper bound")
    parser.add_argument("--spacing", type=float, default=3.0, help="of simulated volumes, mm")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    folder: Path = options.output
    device = str(choose_device(options.device))
    manifest = simulated(folder / "data", options)
    segmenters = list(options.segmenter)
    if options.supervised_steps:
        segmenters.append(str(upper_bound(folder, manifest, options, device)))
    tables = {}
    for name, cases in (("simulated", manifest), ("real", options.real)):
        if cases is not None:
            what = Evaluation(
                cases,
                options.model,
                folder / name,
                validation=manifest,
                refine=True,
                segmenters=segmenters,
                device=device,
            )
            tables[name] = evaluate(what, on_progress=_tell)
    report(folder / "report.md", options, device, tables)
    return 0


def simulated(folder: Path, options: argparse.Namespace) -> Path:
    """The data set; the models' own training volumes if the counts are the defaults."""
    what = Simulation(
        folder,
        {"train": options.train, "val": 48, "test": options.test},
        {"train": "colin27", "val": "mni152", "test": "mni152"},
        recipe=RECIPES[options.contrast](spacing_mm=options.spacing),
        workers=2,
    )
    return simulate_dataset(what, lambda done, total: _tell(done, total, "simulate"))


def upper_bound(folder: Path, manifest: Path, options: argparse.Namespace, device: str) -> Path:
    """A U-Net that is trained with the masks that nobody else sees."""
    cases = read_manifest(manifest)
    table = folder / "supervised.csv"
    with atomic_path(table) as temporary, temporary.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image", "label", "split", "id", "modality"])
        for split, most in (("train", None), ("val", 24)):
            for case in cases.split(split)[:most]:
                (image,) = case.paths.values()
                writer.writerow([image.absolute(), case.mask, split, case.id, "MR"])
    card = find_model(options.model).card
    what = Finetuning(
        table,
        folder / SUPERVISED,
        [LabelSpec(card.labels[0].name, (1,))],
        options=FinetuningOptions(
            steps=options.supervised_steps,
            batch_size=4,
            patch=(32, 32, 32),
            loss="dice-ce",
            last_layer_factor=1.0,  # as in self-training
            plateau_patience=3,
            validate_every=250,
            # All training volumes are of one head, and those for validation and test of another.
            augmentation=3.0,
            rotation=45.0,
            zoom=1.2,
        ),
        spacing_mm=options.spacing,  # of the volumes: more pixels would know no more
        intensity=card.preprocessing.intensity,
        foreground=card.preprocessing.foreground,
        features=(16, 32, 64, 96, 96, 16),
        name=SUPERVISED,
        simulated=True,
        device=device,
    )
    if not finished(what.output, what.options.as_dict()):
        finetune(what, teller("supervised U-Net"))
    return what.output / "model"


def report(
    path: Path, options: argparse.Namespace, device: str, tables: Mapping[str, Mapping[str, Any]]
) -> None:
    """The tables side by side."""
    lines = ["# Masks without a voxel label", "", f"Command: `python {' '.join(sys.argv)}`", ""]
    lines.append(f"On {device_title(device)}. Mean over positive cases [95 % bootstrap interval].")
    for name, summary in tables.items():
        lines += ["", f"## {name}: {summary['cases']} cases, {summary['positives']} positive", ""]
        lines.append("| method | " + " | ".join(title for _, title in FIGURES) + " | lowest Dice |")
        lines.append("|---|" + "---|" * (len(FIGURES) + 1))
        lowest = _lowest(path.parent / name / "cases.csv")
        for method, figures in summary["methods"].items():
            cells = [_cell(figures[figure]) for figure, _ in FIGURES]
            lines.append(
                f"| {method_name(method)} | {' | '.join(cells)} | {lowest.get(method, '')} |"
            )
    with atomic_path(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(path.read_text(encoding="utf-8"))


def _lowest(path: Path) -> Mapping[str, str]:
    found: dict[str, float] = {}
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["label"] == "1" and row["dice"]:
                dice = float(row["dice"])
                found[row["method"]] = min(dice, found.get(row["method"], dice))
    return {method: f"{dice:.2f}" for method, dice in found.items()}


def _cell(figure: Mapping[str, float | None]) -> str:
    value, lower, upper = figure["value"], figure["lower"], figure["upper"]
    if value is None:
        return "-"
    digits = 0 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}" + (
        "" if lower is None else f" [{lower:.{digits}f}, {upper:.{digits}f}]"
    )


def _tell(done: float, total: int, text: str) -> None:
    if sys.stderr.isatty() or done == int(done):
        print(f"{done:.0f}/{total} {text}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
