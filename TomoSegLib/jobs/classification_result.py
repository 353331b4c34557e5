"""``result.json`` of a classification: the class of a stack, or of every frame of a sequence."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from TomoSegLib.jobs.document import JobModel
from TomoSegLib.jobs.result import Environment, Input, Model, RunNote


class FrameClass(JobModel):
    """One frame of a sequence.

    Attributes:
        number: Of the frame, from 0.
        value: What tells it apart, as the file says.
        class_name: The most probable class, written as ``class``.
        probabilities: Of each class.
    """

    number: int
    value: str
    class_name: str = Field(serialization_alias="class")
    probabilities: dict[str, float]


class ClassificationResult(JobModel):
    """The content of ``result.json``.

    Attributes:
        case: Its id.
        class_name: The most probable class, written as ``class``.
        probabilities: Of each class; of a sequence, the mean over its frames.
        frames: Of a sequence, each frame; None for a volume.
        index_name: What tells frames apart; empty for a volume.
        index_unit: Its unit.
        inputs: The channels with the hashes of their content.
        foreground: The foreground mask, where one was given.
        model: The model with its hash.
        settings: ``device``, ``frames`` and ``threads`` as they were asked for.
        timings_s: Seconds of each stage.
        created_at: UTC.
    """

    schema_version: Literal[1] = 1
    task: Literal["classification"] = "classification"
    tomoseg: str
    case: str
    class_name: str = Field(serialization_alias="class")
    probabilities: dict[str, float]
    frames: list[FrameClass] | None
    index_name: str = ""
    index_unit: str = ""
    inputs: dict[str, Input]
    foreground: Input | None
    model: Model
    settings: dict[str, str | int | None]
    environment: Environment
    warnings: list[RunNote]
    timings_s: dict[str, float]
    created_at: str

    def write(self, path: Path) -> None:
        """Write the file."""
        text = self.model_dump_json(indent=2, by_alias=True) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
