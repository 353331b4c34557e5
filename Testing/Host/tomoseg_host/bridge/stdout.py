"""``sys.stdout`` inside Slicer: it writes, and is hardly a file."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class PythonQtStdOutRedirect:
    """What stands in ``sys.stdout`` and ``sys.stderr``: no fileno, encoding, buffer or errors."""

    __slots__ = ("_target", "closed")

    def __init__(self, target: TextIO):
        self._target = target
        self.closed = False

    def write(self, text: str) -> None:
        """Write a text."""
        if not isinstance(text, str):
            raise TypeError("write() argument must be str")
        self._target.write(text)

    def flush(self) -> None:
        """Flush what was written."""
        self._target.flush()

    def isatty(self) -> bool:
        """Never a terminal."""
        return False


@contextmanager
def redirected() -> Iterator[None]:
    """Within this context, ``sys.stdout`` and ``sys.stderr`` are as Slicer has them."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(PythonQtStdOutRedirect, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
