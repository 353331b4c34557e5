"""What a worker says while it works: typed events, one JSON object a line.

Only the standard library is needed to read them, so that a program without the engine's
dependencies (Slicer's own interpreter) can follow a job and show why it cannot start.

A job's stream is ``started``, then any number of ``progress``, ``preview`` and ``warning``, and
last exactly one ``result`` or ``error``. A stream that ends without either means that the worker
died; `TomoSegLib.jobs.client` turns that into an ``error`` with the code ``worker-died``.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import threading
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union

PROTOCOL_VERSION = 1

EXIT_OK = 0
EXIT_INTERNAL = 1
EXIT_USER_ERROR = 2
EXIT_CANCELLED = 130


@dataclass(frozen=True)
class StartedEvent:
    """The document is valid and the computation begins."""

    event: ClassVar[str] = "started"
    kind: str
    pid: int
    version: str
    protocol: int = PROTOCOL_VERSION


@dataclass(frozen=True)
class ProgressEvent:
    """How far a stage has come.

    Attributes:
        stage: ``read``, ``prepare``, ``load-model``, ``heatmap`` or ``segment``, ``mask``,
            ``write``, ...
        done: Units finished; what a unit is depends on the stage (slices for ``heatmap``, windows
            for ``segment``).
        total: Units in all, 0 where unknown.
        eta_s: Seconds left in this stage as far as its own speed tells, or None.
        device: Where it computes, e.g. ``cpu`` or ``cuda:0``.
        memory_mb: Resident memory of the computing process, MiB.
        device_memory_mb: The most memory this process has held on the GPU, MiB, or None.
    """

    event: ClassVar[str] = "progress"
    stage: str
    done: int
    total: int
    eta_s: float | None = None
    device: str = "cpu"
    memory_mb: float | None = None
    device_memory_mb: float | None = None


@dataclass(frozen=True)
class PreviewEvent:
    """The heatmap from the directions so far; the file is complete when the event comes."""

    event: ClassVar[str] = "preview"
    path: str
    directions: int


@dataclass(frozen=True)
class WarningEvent:
    """Something that the user should know; the job goes on."""

    event: ClassVar[str] = "warning"
    code: str
    message: str
    hint: str = ""


@dataclass(frozen=True)
class ResultEvent:
    """The job is done and its files are in place.

    Attributes:
        path: The folder of the outputs (of the model, for ``import-model``), or None for a job
            that writes none.
        data: The answer to a question (``probe``, ``verify-model``), or what was imported.
    """

    event: ClassVar[str] = "result"
    path: str | None = None
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ErrorEvent:
    """The job ended without a result; nothing was written.

    Attributes:
        code: Stable hyphenated identifier; ``cancelled``, ``worker-died`` and ``internal`` (a
            defect of the program) among them.
        traceback: Only for ``internal``.
        log: Only for ``worker-died``: the last lines of the worker's stderr.
    """

    event: ClassVar[str] = "error"
    code: str
    message: str
    hint: str = ""
    traceback: str | None = None
    log: str | None = None

    @property
    def exit_status(self) -> int:
        """The exit status of a worker whose last event this is."""
        return {
            "cancelled": EXIT_CANCELLED,
            "internal": EXIT_INTERNAL,
            "worker-died": EXIT_INTERNAL,
        }.get(self.code, EXIT_USER_ERROR)


Event = Union[StartedEvent, ProgressEvent, PreviewEvent, WarningEvent, ResultEvent, ErrorEvent]

_CLASSES: dict[str, type[Any]] = {
    cls.event: cls
    for cls in (StartedEvent, ProgressEvent, PreviewEvent, WarningEvent, ResultEvent, ErrorEvent)
}


def encode(event: Event) -> bytes:
    """The event as one line of ASCII JSON, with its newline.

    Non-ASCII text is escaped, so the line survives any locale of the reading side. JSON has no
    NaN or infinity: they become null.
    """
    record = {"event": event.event}
    record.update(
        (name, value) for name, value in dataclasses.asdict(event).items() if value is not None
    )
    return json.dumps(_finite(record), separators=(",", ":"), allow_nan=False).encode() + b"\n"


def decode(line: bytes) -> Event:
    """The event of a line.

    Fields that this version does not know are dropped, so that an older panel can follow a newer
    worker.

    Raises:
        ValueError: The line is no event.
    """
    record = json.loads(line.decode("utf-8"))
    cls = _CLASSES.get(str(record.get("event"))) if isinstance(record, dict) else None
    if cls is None:
        raise ValueError("not an event")
    values = {}
    for item in dataclasses.fields(cls):
        if item.name in record:
            values[item.name] = record[item.name]
            if not _fits(values[item.name], str(item.type)):
                raise ValueError(f"{item.name} is not {item.type}")
    try:
        event: Event = cls(**values)
    except TypeError as error:  # a field without a default is missing
        raise ValueError(str(error)) from None
    return event


class EventWriter:
    """Writes events to a file descriptor, whole lines, from any thread."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        self.write_line(encode(event))

    def write_line(self, line: bytes) -> None:
        """Write bytes that end in a newline.

        Raises:
            OSError: The reading side has gone.
        """
        with self._lock:
            view = memoryview(line)
            while view:
                view = view[os.write(self._descriptor, view) :]


def _fits(value: Any, annotation: str) -> bool:
    """Whether a JSON value has the type of a field, written as above: ``float | None``."""
    if value is None:
        return annotation.endswith("| None")
    expected: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "dict": dict}
    return not isinstance(value, bool) and isinstance(
        value, expected[annotation.split(" ")[0].split("[")[0]]
    )


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
