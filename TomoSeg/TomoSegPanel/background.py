"""Work that would hold up the user interface, done in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import qt

_POLL_MS = 5
_SHARE_S = 0.005
"""Each poll waits so long for the thread: Slicer's event loop keeps Python's lock to itself, and a
thread advances only while the main thread waits in Python."""


class Background:
    """Runs functions in threads and hands their results back in the main thread.

    The functions must touch neither Qt nor MRML, and should do their work in large pieces that
    release Python's lock (reading and writing files, zlib, NumPy).
    """

    def __init__(self) -> None:
        self._tasks: list[_Task] = []
        self._timer = qt.QTimer()
        self._timer.setInterval(_POLL_MS)
        self._timer.connect("timeout()", self._poll)

    def run(
        self,
        function: Callable[[], Any],
        onDone: Callable[[Any], None],
        onError: Callable[[Exception], None],
        waitMs: int = 0,
    ) -> None:
        """Start a function.

        Args:
            function: What to do, in a thread.
            onDone: Called with its result.
            onError: Called with the exception that it raised.
            waitMs: Wait so long for it to end, and if it does call back before this returns.
        """
        task = _Task(function, onDone, onError)
        self._tasks.append(task)
        if waitMs and task.finished.wait(waitMs / 1000):
            self._poll()
        if self._tasks:
            self._timer.start()

    def forget(self) -> None:
        """Nobody wants to hear of what still runs; it comes to its end unheard."""
        self._tasks.clear()
        self._timer.stop()

    def _poll(self) -> None:
        for task in list(self._tasks):
            if not task.finished.wait(_SHARE_S / len(self._tasks)):
                continue
            if task not in self._tasks:  # forgotten by an earlier task's callback
                continue
            self._tasks.remove(task)
            if task.error is not None:
                task.onError(task.error)
            else:
                task.onDone(task.result)
        if not self._tasks:
            self._timer.stop()


class _Task:
    def __init__(
        self,
        function: Callable[[], Any],
        onDone: Callable[[Any], None],
        onError: Callable[[Exception], None],
    ) -> None:
        self.onDone, self.onError = onDone, onError
        self.result: Any = None
        self.error: Exception | None = None
        self.finished = threading.Event()
        self._function = function
        threading.Thread(target=self._work, daemon=True).start()

    def _work(self) -> None:
        try:
            self.result = self._function()
        except Exception as error:
            self.error = error
        finally:
            self.finished.set()
