"""What benches of transfer share: mean and spread over seeds, curves, tables, progress."""

from __future__ import annotations

import csv
import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegLib.files import atomic_path

Rows = Sequence[Mapping[str, Any]]


def spread(rows: Rows, figure: str = "dice") -> str:
    """Mean and standard deviation over seeds of the mean figure of the cases, percent."""
    means = seed_means(rows, figure)
    return f"{np.mean(means):.2f} +- {deviation(means):.2f}" if means else "-"


def seed_means(rows: Rows, figure: str = "dice") -> list[float]:
    """Of each seed the mean figure of its cases, percent; cases without one do not count."""
    means = []
    for seed in sorted({row["seed"] for row in rows}):
        values = [float(row[figure]) for row in rows if row["seed"] == seed]
        values = [value for value in values if not math.isnan(value)]
        if values:
            means.append(100 * float(np.mean(values)))
    return means


def gain(rows: Rows, task: str, baseline: str, figure: str = "dice") -> str:
    """What a task is above another, seed by seed: pairs have their labelled cases in common.

    The mean in points, and in brackets the least, the greatest and in how many seeds it is ahead.
    """
    seeds = [{r["seed"] for r in rows if r["task"] == name} for name in (task, baseline)]
    paired = [r for r in rows if r["seed"] in seeds[0] & seeds[1]]
    own, other = (
        seed_means([r for r in paired if r["task"] == name], figure) for name in (task, baseline)
    )
    gains = [a - b for a, b in zip(own, other, strict=True)]
    if not gains:
        return "-"
    ahead = sum(value > 0 for value in gains)
    return (
        f"{np.mean(gains):+.1f} ({min(gains):+.1f} to {max(gains):+.1f}; "
        f"{ahead} of {len(gains)} ahead)"
    )


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; zero of a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def draw(
    path: Path,
    rows: Rows,
    titles: Mapping[str, str],
    panel: Callable[[Mapping[str, Any]], str],
    place: Callable[[Mapping[str, Any]], float] | None,
    along: str,
    above: str = "Dice of the test cases, %",
    figure: str = "dice",
) -> None:
    """Curves of a figure, or a bar of each task, with a point for each seed.

    Args:
        path: The picture.
        rows: With ``task``, ``seed`` and the figure.
        titles: Of the tasks.
        panel: Title of the panel that a row belongs to.
        place: Where a row lies along a curve; None: each task has its own place.
        along: Title of that axis.
        above: Title of the other.
        figure: Column of the figure.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(map(panel, rows)))
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    drawing = Figure(figsize=(5 * len(panels), 3.6), layout="constrained")
    FigureCanvasAgg(drawing)
    for axis, title in zip(drawing.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for number, task in enumerate(tasks):
            part = [row for row in rows if panel(row) == title and row["task"] == task]
            where = [float(number) if place is None else place(row) for row in part]
            x = sorted(set(where))
            of_each = [
                seed_means([r for r, p in zip(part, where, strict=True) if p == at], figure)
                for at in x
            ]
            x = [at for at, values in zip(x, of_each, strict=True) if values]
            of_each = [values for values in of_each if values]
            axis.plot(
                [at for at, values in zip(x, of_each, strict=True) for _ in values],
                [value for values in of_each for value in values],
                ".", color=f"C{number}", alpha=0.5,
            )  # fmt: skip
            axis.errorbar(
                x,
                [np.mean(values) for values in of_each],
                [deviation(values) for values in of_each],
                fmt="o" if place is None else "o-",
                capsize=3, color=f"C{number}", label=titles[task],
            )  # fmt: skip
        axis.set(title=title, ylabel=above)
        if place is None:
            names = [titles[task] for task in tasks]
            axis.set_xticks(range(len(tasks)), names, rotation=40, ha="right")
        else:
            axis.set(xlabel=along, xscale="log")
            axis.legend(fontsize=7)
    with atomic_path(path) as temporary:
        drawing.savefig(temporary, dpi=130, format="png")


def write_csv(path: Path, rows: Rows) -> None:
    """Write rows that all have the same columns."""
    if rows:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a table."""
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def teller(title: str) -> Callable[[str, int, int, Mapping[str, float]], None]:
    """A line a tenth of the steps, with the time that is left."""
    start = time.monotonic()
    told = -1

    def tell(stage: str, done: int, total: int, figures: Mapping[str, float]) -> None:
        nonlocal told
        if stage == "train" and done * 10 // total > told:
            told = done * 10 // total
            left = (time.monotonic() - start) / max(done, 1) * (total - done)
            text = json.dumps({k: round(v, 4) for k, v in figures.items()})
            print(f"{title}: {done}/{total}, {left / 60:.1f} min left {text}", flush=True)

    return tell


def positive(text: str) -> int:
    """An argument that is a number of things."""
    if (value := int(text)) < 1:
        raise ValueError(f"{text} is not positive")
    return value


def is_pretrained(folder: Path, asked: Mapping[str, Any]) -> bool:
    """Whether a pre-training is there; one that differs in what was asked for ends the bench.

    Args:
        folder: Of the pre-training.
        asked: What its record or the options in it have to say.
    """
    path = folder / "pretrained.json"
    if not path.exists():
        return False
    record = json.loads(path.read_text(encoding="utf-8"))
    said = record.get("options", {}) | record
    for name, value in json.loads(json.dumps(dict(asked))).items():
        if said.get(name) != value:
            sys.exit(
                f"{folder} was trained with {name} {said.get(name)}, not {value}: "
                "choose another --output."
            )
    return True


def finished(folder: Path, options: Mapping[str, Any]) -> bool:
    """Whether a fine-tuning is there; one with other options ends the bench."""
    path = folder / "finetuning.json"
    if not path.exists():
        return False
    recorded = json.loads(path.read_text(encoding="utf-8"))["options"]
    if recorded != json.loads(json.dumps(options)):
        sys.exit(f"{folder} was trained with other options: choose another --output.")
    return True
