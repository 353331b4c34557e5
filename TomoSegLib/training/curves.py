"""Curves of a training, as TensorBoard's event files and as a picture."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from TomoSegLib.errors import TomoSegError
from TomoSegLib.files import atomic_path

_COLUMNS = 3


class EventFiles:
    """Writes scalars for TensorBoard; after a resumption, steps that are done again replace
    those that were written.

    Args:
        folder: Where the event files go.
        step: Step from which the training goes on.

    Raises:
        TomoSegError: ``output-unwritable``.
    """

    def __init__(self, folder: Path, step: int) -> None:
        from tensorboardX import SummaryWriter

        try:
            self._writer = SummaryWriter(str(folder), purge_step=step)
        except OSError as error:
            raise TomoSegError(
                "output-unwritable",
                f"The folder {folder} cannot be written: {error.strerror or error}.",
                "Choose another --output.",
            ) from None

    def add(self, figures: Mapping[str, float], step: int, prefix: str) -> None:
        """Add scalars of a step, named ``prefix/name``."""
        for name, value in figures.items():
            self._writer.add_scalar(f"{prefix}/{name.replace(' ', '-')}", value, step)

    def flush(self) -> None:
        """Bring to disk what was written so far; a full disk is left to what matters more."""
        with contextlib.suppress(OSError):
            self._writer.flush()

    def __enter__(self) -> EventFiles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._writer.close()


def draw_history(history: Sequence[Mapping[str, float]], path: Path) -> None:
    """Draw every figure of a training against its steps, and replace the picture at ``path``.

    Args:
        history: One entry a validation: ``step``, and figures named ``train NAME``, ``val NAME``
            or otherwise; both kinds of NAME share a plot.
        path: PNG file.
    """
    if not history:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    names: dict[str, list[str]] = {}
    for entry in history:
        for key in entry:
            if key != "step":
                plot = key.removeprefix("train ").removeprefix("val ")
                if key not in names.setdefault(plot, []):
                    names[plot].append(key)
    columns = min(_COLUMNS, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(3.6 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, (plot, keys) in zip(axes, names.items(), strict=False):
        for key in keys:
            points = [(entry["step"], entry[key]) for entry in history if key in entry]
            colour = "tab:blue" if key.startswith("val ") else "tab:gray"
            axis.plot(*zip(*points, strict=True), ".-", color=colour, label=key)
        axis.set(title=plot, xlabel="step")
        if len(keys) > 1:
            axis.legend(fontsize="small")
    for axis in axes[len(names) :]:
        axis.set_axis_off()
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, format="png")
