"""What came out of a batch: ``summary.csv``, and ``index.html`` with a picture of each case."""

from __future__ import annotations

import csv
import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from urllib.parse import quote

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path
from TomoSegLib.jobs.events import ErrorEvent
from TomoSegLib.jobs.result import (
    AnyResult,
    HeatmapFrame,
    RunResult,
    SequenceRecord,
    parts_of,
)
from TomoSegLib.models.card import ModelCard

SUMMARY_NAME = "summary.csv"
PAGE_NAME = "index.html"
THUMBNAILS_NAME = "thumbnails"
_SCALE = 0.35
"""Of thumbnails, against the montage."""


@dataclass(frozen=True)
class CaseOutcome:
    """A row of ``summary.csv``; cells of what is not known are empty.

    Attributes:
        case: Its id, and the name of its folder.
        status: ``done``, ``skipped`` (the same results were there) or ``failed``.
        volume_ml: Volume of the mask, of all segments together; of a sequence, the mean over its
            frames.
        components: Its parts; of a sequence, the most in one frame.
        peak: The heatmap's maximum; of a sequence, over all frames.
        threshold: The heatmap value at which the mask begins, where it is the same for all frames.
        frames: How many frames of a sequence were worked on.
        warnings: Number of warnings of the run.
        seconds: Time that it took now.
        error: Code of the error.
        message: What happened, and what to do.
        input: Path of the first channel.
    """

    case: str
    status: str
    volume_ml: float | None = None
    components: int | None = None
    peak: float | None = None
    threshold: float | None = None
    frames: int | None = None
    warnings: int | None = None
    seconds: float | None = None
    error: str | None = None
    message: str | None = None
    input: str | None = None

    @classmethod
    def of_result(cls, case: str, status: str, result: AnyResult, seconds: float) -> CaseOutcome:
        """The row of a case that has results."""
        frames = result.frames if isinstance(result, SequenceRecord) else [result]
        parts = [parts_of(frame) for frame in frames]
        maps = [frame for frame in frames if isinstance(frame, (RunResult, HeatmapFrame))]
        thresholds = {frame.mask.threshold for frame in maps}
        return cls(
            case,
            status,
            volume_ml=sum(part.volume_ml for found in parts for part in found) / len(frames),
            components=max(sum(part.components for part in found) for found in parts),
            peak=max((frame.heatmap.maximum for frame in maps), default=None),
            threshold=thresholds.pop() if len(thresholds) == 1 else None,
            frames=len(frames) if isinstance(result, SequenceRecord) else None,
            warnings=len(result.warnings),
            seconds=round(seconds, 1),
            input=next(iter(result.inputs.values())).path,
        )

    @classmethod
    def of_failure(cls, case: str, failure: ErrorEvent, seconds: float) -> CaseOutcome:
        """The row of a case that has failed."""
        message = f"{failure.message} {failure.hint}".strip()
        return cls(case, "failed", seconds=round(seconds, 1), error=failure.code, message=message)


def write_summary(
    folder: Path, card: ModelCard, outcomes: Sequence[CaseOutcome], total: int
) -> None:
    """Write both files, each atomically, and the thumbnails that are missing.

    Args:
        folder: The batch's folder.
        card: The model's.
        outcomes: Of the cases so far.
        total: Number of all cases.

    Raises:
        TomoSegError: ``output-no-space`` or ``output-unwritable``.
    """
    with (
        atomic_path(folder / SUMMARY_NAME) as path,
        path.open("w", encoding="utf-8", newline="") as stream,
    ):
        writer = csv.DictWriter(
            stream, [field.name for field in fields(CaseOutcome)], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(asdict(outcome) for outcome in outcomes)
    for outcome in outcomes:
        _draw_thumbnail(folder, outcome)
    with atomic_path(folder / PAGE_NAME) as path:
        path.write_text(_page(folder, card, outcomes, total), encoding="utf-8", newline="\n")


def _draw_thumbnail(folder: Path, outcome: CaseOutcome) -> None:
    source = folder / outcome.case / "overlay.png"
    target = _thumbnail(folder, outcome)
    if outcome.status == "failed" or not source.is_file():
        return
    if target.is_file() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns:
        return
    from matplotlib.image import thumbnail

    try:
        target.parent.mkdir(exist_ok=True)
        with atomic_path(target) as path:
            thumbnail(str(source), str(path), scale=_SCALE, interpolation="antialiased")
    except (OSError, ValueError, SyntaxError, TomoSegError):
        return  # the page links the picture itself


def _thumbnail(folder: Path, outcome: CaseOutcome) -> Path:
    return folder / THUMBNAILS_NAME / f"{outcome.case}.png"


def _page(folder: Path, card: ModelCard, outcomes: Sequence[CaseOutcome], total: int) -> str:
    counts = {
        state: sum(outcome.status == state for outcome in outcomes)
        for state in ("done", "skipped", "failed")
    }
    state = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
    if len(outcomes) < total:
        state += f", {total - len(outcomes)} to come"
    trained = "trained on simulated data; " if card.training_data.simulated else ""
    return _TEMPLATE.format(
        title=html.escape(folder.name),
        model=html.escape(f"{card.title} ({card.name} {card.version})"),
        note=html.escape(f"{trained}{card.intended_use}"),
        state=html.escape(f"{total} cases: {state}"),
        rows="\n".join(_row(folder, outcome) for outcome in outcomes),
    )


def _row(folder: Path, outcome: CaseOutcome) -> str:
    name = html.escape(outcome.case)
    if outcome.status == "failed":
        return (
            f'<tr class="failed"><td>{name}</td><td>failed</td><td colspan="3">'
            f"{html.escape(outcome.message or '')} <code>{html.escape(outcome.error or '')}</code>"
            f"</td><td></td></tr>"
        )
    link = quote(outcome.case)
    frames = "" if outcome.frames is None else f"<br>{outcome.frames} frames"
    picture = f"{THUMBNAILS_NAME}/{link}.png"
    if not _thumbnail(folder, outcome).is_file():
        picture = f"{link}/overlay.png"
    return (
        f"<tr><td>{name}</td><td>{outcome.status}{frames}</td>"
        f'<td class="number">{outcome.volume_ml or 0:.2f} mL</td>'
        f'<td class="number">{outcome.components}</td>'
        f'<td class="number">{outcome.warnings}</td>'
        f'<td><a href="{link}/overlay.png"><img loading="lazy" src="{picture}" '
        f'alt="{name}"></a></td></tr>'
    )


_TEMPLATE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}: TomoSeg</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2em; color: #222; background: #fff; }}
table {{ border-collapse: collapse; }}
th, td {{ text-align: left; vertical-align: top; padding: .4em 1em; border-top: 1px solid #ccc; }}
.number {{ text-align: right; }}
.failed td {{ background: #fbeaea; }}
img {{ width: 28em; background: #000; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{model}: {note}</p>
<p>{state}. All figures are in <a href="summary.csv">summary.csv</a>.</p>
<table>
<thead><tr><th>case</th><th>state</th><th class="number">mask</th><th class="number">parts</th>
<th class="number">warnings</th><th>scan, heatmap and mask</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""
