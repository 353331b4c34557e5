"""``tomoseg evaluate``: methods and baseline on the cases of a manifest, as tables and a figure."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Protocol, cast, get_args

import typer

from TomoSegLib.errors import TomoSegError

_COLUMNS = (
    ("dice", "Dice"),
    ("average_precision", "AP"),
    ("hd95_mm", "HD95 mm"),
    ("pointing_game", "pointing"),
    ("balanced_accuracy", "bal. acc."),
    ("f1_pooled", "F1 pooled"),
    ("volume_auc", "AUC"),
    ("oracle_dice", "oracle Dice"),
)


def evaluate(
    manifest: Annotated[
        Path, typer.Option("--manifest", metavar="CSV", help="path, label, split, mask, group.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the results.")],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Name or folder of a model.")
    ] = "flair-lesion",
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="intensity, cam, averaged-cam, tomographic-cam, tonno; default: all.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Cases to evaluate: train, val or test.")] = "test",
    validation: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Manifest whose val cases the intensity baseline is chosen on; default: the same.",
        ),
    ] = None,
    directions: Annotated[
        str | None,
        typer.Option(help="In place of the model's: fibonacci:N, orthogonal, ... or a file."),
    ] = None,
    cam: Annotated[
        str, typer.Option(help="Kind of map: cam, gradcam, gradcam++ or layercam.")
    ] = "cam",
    refine: Annotated[
        bool, typer.Option("--refine", help="Each heatmap method with a refined mask, too.")
    ] = False,
    segmenter: Annotated[
        list[str], typer.Option(metavar="MODEL", help="Compare with a segmenter; may be repeated.")
    ] = [],  # noqa: B006 - Typer copies it
    threshold: Annotated[str, typer.Option(help="card, otsu, percentile:Q or a value.")] = "card",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    batch_size: Annotated[int | None, typer.Option(help="Slices per pass.", min=1)] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0)] = 0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another evaluation that is there.")
    ] = False,
) -> int:
    """Measure methods, and the baseline one has without them, on cases with known lesions.

    An evaluation that was stopped goes on where it was when the same command is given again.
    """
    from TomoSegLib.datasets.manifest import SPLITS, Split
    from TomoSegLib.evaluation.evaluate import METHODS, Evaluation
    from TomoSegLib.evaluation.evaluate import evaluate as run
    from TomoSegLib.models.card import CamKind

    _require("--split", split, SPLITS)
    _require("--cam", cam, get_args(CamKind))
    chosen = METHODS if methods is None else tuple(name.strip() for name in methods.split(","))
    for name in chosen:
        _require("--methods", name, METHODS)
    what = Evaluation(
        manifest=manifest,
        model=model,
        output=output,
        methods=chosen,
        split=cast(Split, split),
        validation=validation,
        directions=directions,
        cam=cast(CamKind, cam),
        refine=refine,
        segmenters=segmenter,
        threshold=_number_or_word(threshold),
        device=device,
        batch_size=batch_size,
        seed=seed,
        overwrite=overwrite,
    )
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    with _progress() as show:
        summary = run(what, on_progress=show.step, on_warning=show.warn)
    _print_table(summary)
    for name in ("cases.csv", "summary.json", "evaluation.png"):
        print(output / name)
    return 0


def _require(option: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise TomoSegError(
            "usage", f"'{option} {value}' is not known.", f"Choose among {', '.join(known)}."
        )


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


class _Show(Protocol):
    def step(self, done: float, total: int, text: str) -> None: ...

    def warn(self, code: str, message: str) -> None: ...


@contextmanager
def _progress() -> Iterator[_Show]:
    """A bar on a terminal; elsewhere one line for each finished step."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TimeRemainingColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )
    task = bar.add_task("", total=None)

    class Show:
        last = ""

        def step(self, done: float, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)
            if bar.disable and text != self.last:
                self.last = text
                print(f"{done:.0f}/{total} {text}", file=sys.stderr)

        def warn(self, code: str, message: str) -> None:
            line = f"tomoseg: warning [{code}]: {message}"
            if bar.disable:
                print(line, file=sys.stderr)
            else:
                bar.console.print(line, markup=False, highlight=False)

    with bar:
        yield Show()


def _print_table(summary: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from TomoSegLib.evaluation.figures import method_name

    simulated = summary["model"]["trained_on_simulated_data"]
    table = Table(
        title=f"{summary['model']['name']} {summary['model']['version']}"
        f"{' (trained on simulated data)' if simulated else ''}, {summary['split']} split: "
        f"{summary['cases']} cases, {summary['positives']} positive",
        caption="mean [95 % interval]; oracle Dice: at each case's own best threshold",
    )
    table.add_column("method")
    for _, title in _COLUMNS:
        table.add_column(title, justify="right")
    for method, figures in summary["methods"].items():
        table.add_row(method_name(method), *(_cell(figures[name]) for name, _ in _COLUMNS))
    # A file or a pipe has no width to fit into.
    Console(width=None if sys.stdout.isatty() else 200).print(table)


def _cell(figure: Mapping[str, float | None]) -> str:
    value, lower, upper = figure["value"], figure["lower"], figure["upper"]
    if value is None:
        return "-"
    digits = 1 if abs(value) >= 10 else 2
    interval = "" if lower is None else f"\n\\[{lower:.{digits}f}, {upper:.{digits}f}]"
    return f"{value:.{digits}f}{interval}"
