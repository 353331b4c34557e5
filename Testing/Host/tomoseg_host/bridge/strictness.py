"""Conversions that Slicer makes silently and that are mistakes in a module.

PythonQt turns anything into text with ``str()``, cuts a float to an int, takes any object's truth
for a bool, and a text for a list of its characters.  The host refuses these by default, with
`SilentConversion`, so that a test stops at the mistake; in faithful mode it converts as Slicer
does.
"""

from collections.abc import Iterator
from contextlib import contextmanager


class SilentConversion(TypeError):
    """Slicer would have converted this value without a word; the host does not."""


class HostLacks(NotImplementedError):
    """Slicer offers this and the host does not: the host's shortcoming, not the module's."""


class _Mode:
    faithful = False
    recorded: list[str] | None = None


def is_faithful() -> bool:
    """Whether silent conversions are made as Slicer makes them."""
    return _Mode.faithful


@contextmanager
def faithful(on: bool = True) -> Iterator[None]:
    """Within this context, convert silently as Slicer does (or not, with ``on=False``)."""
    before, _Mode.faithful = _Mode.faithful, on
    try:
        yield
    finally:
        _Mode.faithful = before


def refuse(value: object, wanted: str) -> None:
    """Raise `SilentConversion` unless in faithful mode (or note it, while `recording`)."""
    if _Mode.faithful:
        return
    message = (
        f"Slicer would silently make {wanted} of {value!r} ({type(value).__name__}); "
        "convert it explicitly"
    )
    if _Mode.recorded is None:
        raise SilentConversion(message)
    _Mode.recorded.append(message)


@contextmanager
def recording() -> Iterator[list[str]]:
    """Collect what would be refused: only the overload that is taken in the end counts."""
    before, _Mode.recorded = _Mode.recorded, []
    try:
        yield _Mode.recorded
    finally:
        _Mode.recorded = before
