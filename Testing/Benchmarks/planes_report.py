"""Tables and curves of the bench of transfer from planes, of segmentation and of classification."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transfer_report import Rows, draw, gain, spread, write_csv

SCRATCH = "scratch"


@dataclass(frozen=True)
class Tables:
    """What is told of the rows of a task.

    Attributes:
        figure: Column with the figure of a row.
        suffix: Of the files' names.
        whole: Title of a table over all labels, or empty for none.
        gain_label: The label whose gain over scratch is told, or empty for all.
        gain: What that is called.
        above: Title of the curves' axis.
        along: Title of the other.
    """

    figure: str
    suffix: str
    whole: str
    gain_label: str
    gain: str
    above: str
    along: str


SEGMENTATION_TABLES = Tables(
    figure="dice",
    suffix="",
    whole="Mean of the labels",
    gain_label="",
    gain="mean Dice",
    above="Dice of the test cases, %",
    along="labelled studies",
)
CLASS_TABLES = Tables(
    figure="value",
    suffix="-classes",
    whole="",
    gain_label="AUC",
    gain="AUC",
    above="of the test hearts, %",
    along="labelled studies of each class",
)


def write_report(
    folder: Path, rows: Rows, heading: Sequence[str], pretext: Sequence[str], tables: Tables
) -> None:
    """Write the rows, the report and the figure.

    Args:
        folder: Of the bench.
        rows: With ``task`` (the start), ``seed``, ``studies``, ``label`` and the figure.
        heading: Lines that come first.
        pretext: Lines that come last.
        tables: What is told of the rows.
    """
    write_csv(folder / f"runs{tables.suffix}.csv", rows)
    counts = sorted({row["studies"] for row in rows})
    starts = list(dict.fromkeys(row["task"] for row in rows))
    labels = list(dict.fromkeys(row["label"] for row in rows))
    lines = list(heading)
    for label in ["", *labels] if tables.whole else labels:
        lines += [
            "",
            f"## {label or tables.whole}",
            "",
            f"| start | {' | '.join(f'{n} labelled' for n in counts)} | seeds |",
            f"|---|{'---|' * len(counts)}---|",
        ]
        for start in starts:
            mine = [r for r in rows if r["task"] == start and label in ("", r["label"])]
            cells = [spread([r for r in mine if r["studies"] == n], tables.figure) for n in counts]
            seeds = len({r["seed"] for r in mine})
            lines.append(f"| {start} | {' | '.join(cells)} | {seeds} |")
    compared = [r for r in rows if tables.gain_label in ("", r["label"])]
    lines += [*_gains(compared, starts, counts, tables), *pretext]
    text = "\n".join(lines) + "\n"
    (folder / f"report{tables.suffix}.md").write_text(text, encoding="utf-8")
    draw(
        folder / f"figure{tables.suffix}.png",
        rows,
        {start: start for start in starts},
        panel=lambda row: row["label"],
        place=lambda row: row["studies"],
        along=tables.along,
        above=tables.above,
        figure=tables.figure,
    )


def _gains(rows: Rows, starts: Sequence[str], counts: Sequence[int], tables: Tables) -> list[str]:
    """Over scratch, seed by seed: pairs have their labelled studies in common."""
    lines = [
        "",
        "## Gain over scratch",
        "",
        f"Points of {tables.gain}; in brackets the least and the greatest of the seeds, and how "
        "many gain.",
        "",
        f"| start | {' | '.join(f'{n} labelled' for n in counts)} |",
        f"|---|{'---|' * len(counts)}",
    ]
    for start in starts:
        cells = [
            gain([r for r in rows if r["studies"] == count], start, SCRATCH, tables.figure)
            for count in counts
        ]
        if start != SCRATCH:
            lines.append(f"| {start} | {' | '.join(cells)} |")
    return lines if SCRATCH in starts and len(starts) > 1 else []


def pretext_table(folder: Path, starts: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """How well the pretext tasks were learned, on the hearts held out of the pre-training."""
    rows = []
    for start in starts:
        for seed in seeds:
            path = folder / "pretrained" / f"{start}-{seed}" / "report.json"
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
    write_csv(folder / "pretext.csv", rows)
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
