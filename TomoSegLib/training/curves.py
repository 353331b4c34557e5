"""Training curves as a picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path


def draw_curves(history: Sequence[dict[str, float]], path: Path) -> None:
    """Draw loss and validation AUC against steps, and replace the picture at ``path``.

    Args:
        history: Entries with ``step``, ``loss`` and ``auc``; nothing is drawn without any.
        path: PNG file.
    """
    if not history:
        return
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    steps = [entry["step"] for entry in history]
    loss_axes = figure.subplots()
    loss_axes.plot(steps, [entry["loss"] for entry in history], color="tab:gray", label="loss")
    loss_axes.set(xlabel="step", ylabel="training loss")
    auc_axes = loss_axes.twinx()
    auc_axes.plot(steps, [entry["auc"] for entry in history], "o-", color="tab:blue")
    auc_axes.set_ylabel("AUC of the validation volumes", color="tab:blue")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        figure.savefig(temporary, dpi=120, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
