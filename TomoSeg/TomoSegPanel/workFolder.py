"""A folder for the files of one piece of work, which goes with it even while a thread uses it."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class WorkFolder:
    """A new temporary folder.

    Args:
        parent: Where it is made.

    Attributes:
        path: Its path.

    Raises:
        OSError: It cannot be made.
    """

    def __init__(self, parent: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="tomoseg-", dir=parent))
        self._gone = threading.Event()

    @property
    def isGone(self) -> bool:
        """Whether it has been removed; a thread need not go on with its files."""
        return self._gone.is_set()

    def using(self, function: Callable[[], T]) -> Callable[[], T]:
        """The same function, to be called in a thread while the folder may be removed."""

        def call() -> T:
            try:
                return function()
            finally:
                # What was written meanwhile is still there, and Windows keeps what is open.
                if self.isGone:
                    self._removeFiles()

        return call

    def remove(self) -> None:
        """Remove it with all that is in it."""
        self._gone.set()  # first, or a thread that ends in between would leave its last file
        self._removeFiles()

    def _removeFiles(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
