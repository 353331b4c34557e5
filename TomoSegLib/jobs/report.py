"""What a running job tells: stages with their progress and ETA, warnings, timings."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TextIO

import psutil

from TomoSegLib.errors import TomoSegWarning
from TomoSegLib.jobs.events import Event, PreviewEvent, ProgressEvent, WarningEvent

_INTERVAL_S = 0.2


class Reporter:
    """Turns calls into events, and keeps what ``result.json`` wants of them.

    Args:
        emit: Receives the events.

    Attributes:
        device: Where the job computes; part of every progress event.
        timings: Seconds that each finished stage took, all its repetitions together.
        warnings: All warnings so far.
    """

    def __init__(self, emit: Callable[[Event], None]) -> None:
        self.device = "cpu"
        self.timings: dict[str, float] = {}
        self.warnings: list[WarningEvent] = []
        self._emit = emit
        self._process = psutil.Process()

    @contextlib.contextmanager
    def stage(self, name: str, total: int = 1) -> Iterator[Callable[[float, int], None]]:
        """One stage of the job; yields the function to call with ``(done, total)``.

        A fraction of a unit that is done counts for the ETA.
        """
        start = time.monotonic()
        last = 0.0
        units = total

        def progress(done: float, total: int) -> None:
            nonlocal last, units
            units = total
            now = time.monotonic()
            if done < total and now - last < _INTERVAL_S:
                return  # a reader gets no more than it can show
            last = now
            eta = (now - start) / done * (total - done) if done else None
            self._progress(name, int(done), total, eta)

        self._progress(name, 0, total, None)
        yield progress
        seconds = self.timings.get(name, 0.0) + time.monotonic() - start
        self.timings[name] = round(seconds, 3)
        self._progress(name, units, units, 0.0)

    def warn(self, code: str, message: str, hint: str = "") -> None:
        """Tell the user, once for each code and message."""
        warning = WarningEvent(code, message, hint)
        if warning not in self.warnings:
            self.warnings.append(warning)
            self._emit(warning)

    def preview(self, path: str, directions: int) -> None:
        """A preview is complete in its file."""
        self._emit(PreviewEvent(path, directions))

    @contextlib.contextmanager
    def collecting_warnings(self) -> Iterator[None]:
        """Report each `TomoSegWarning` that is issued in the block; others stay on stderr."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", TomoSegWarning)
            show = warnings.showwarning

            def report(
                message: Warning | str,
                category: type[Warning],
                filename: str,
                lineno: int,
                file: TextIO | None = None,
                line: str | None = None,
            ) -> None:
                if isinstance(message, TomoSegWarning):
                    self.warn(message.code, message.message, message.hint)
                else:
                    show(message, category, filename, lineno, file, line)

            warnings.showwarning = report
            yield

    def _progress(self, stage: str, done: int, total: int, eta_s: float | None) -> None:
        self._emit(
            ProgressEvent(
                stage,
                done,
                total,
                None if eta_s is None else round(eta_s, 1),
                self.device,
                round(self._process.memory_info().rss / 2**20, 1),
                self._device_memory_mb(),
            )
        )

    def _device_memory_mb(self) -> float | None:
        if not self.device.startswith("cuda"):
            return None
        import torch

        return round(torch.cuda.max_memory_allocated(self.device) / 2**20, 1)
