"""The chosen directions as vectors: made in the background, for that loads SciPy."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
from slicer.i18n import tr as _

from TomoSegLib.errors import TomoSegError
from TomoSegPanel.background import Background


class Directions:
    """Makes the vectors of a direction set, and knows what is wrong with it.

    Args:
        onChanged: Called when vectors or problem have changed.

    Attributes:
        vectors: ``(A, 3)`` unit vectors in RAS in the order in which a run takes them, or None
            while they are not known.
        problem: Why no run can be made with these directions, "" where nothing is wrong.
        note: Why they are not known although nothing is wrong with them.
    """

    def __init__(self, onChanged: Callable[[], None]) -> None:
        self._onChanged = onChanged
        self._background = Background()
        self._key: tuple[str, int] | None = None
        self.vectors: np.ndarray | None = None
        self.problem = ""
        self.note = ""

    @property
    def key(self) -> tuple[str, int] | None:
        """What the vectors are made of: the set's name, and the time of its file."""
        return self._key

    def choose(self, text: str) -> None:
        """Make the vectors of another set, unless they are there.

        Args:
            text: The direction set as a job document names it.
        """
        try:
            time = os.stat(text).st_mtime_ns if os.path.isfile(text) else 0
        except (OSError, ValueError):
            time = 0
        key = (text, time)
        if key == self._key:
            return
        self._key, self.vectors, self.problem, self.note = key, None, "", ""

        def done(vectors: np.ndarray) -> None:
            if self._key == key:
                self.vectors = vectors
                self._onChanged()

        def failed(error: Exception) -> None:
            if self._key != key:
                return
            if isinstance(error, TomoSegError):
                self.problem = f"{error.message} {error.hint}"
            elif isinstance(error, ImportError):
                self._key = None  # may be there the next time
                self.note = _(
                    "The directions can be shown when the Python packages are installed: "
                    "see the section Computing."
                )
            else:
                self.problem = str(error)
            self._onChanged()

        self._background.forget()
        self._background.run(lambda: directionVectors(text), done, failed)

    def forget(self) -> None:
        """Nobody wants to know any more."""
        self._background.forget()
        self._key, self.vectors, self.problem, self.note = None, None, "", ""


def directionVectors(text: str) -> np.ndarray:
    """The directions ``(A, 3)``, unit vectors in RAS, in the order in which a run takes them.

    Raises:
        TomoSegError: ``directions-invalid``.
    """
    from TomoSegLib.tomography.directions import parse_directions, progressive_order

    vectors = parse_directions(text).vectors
    return vectors[progressive_order(vectors)] * np.array([-1.0, -1.0, 1.0])
