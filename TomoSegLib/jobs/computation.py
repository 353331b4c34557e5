"""Which function carries out a job: as the model's task is, and whether it is on a sequence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from TomoSegLib.jobs.inputs import Inputs
from TomoSegLib.jobs.report import Reporter

Compute = Callable[[Inputs, Path, Reporter], None]


def computation(inputs: Inputs) -> Compute:
    """The function that carries out a job whose inputs have been read.

    Only now torch and all the rest are imported.
    """
    if inputs.sequence is not None:
        from TomoSegLib.jobs.sequence import run_sequence

        return run_sequence
    if inputs.model.card.task == "segmentation":
        from TomoSegLib.jobs.segment import segment

        return segment
    from TomoSegLib.jobs.run import run

    return run
