"""Helpers of commands that train: options that hold several values, and warnings."""

from __future__ import annotations

import contextlib
import math
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from TomoSegLib.errors import TomoSegError, TomoSegWarning

_MOST_PROCESSES = 16


@contextlib.contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show warnings as errors are shown, each once."""

    def show(message: Warning | str, category: type[Warning], *_: object) -> None:
        if isinstance(message, TomoSegWarning):
            text = f"[{message.code}]: {message.message} {message.hint}".rstrip()
            print(f"tomoseg: warning {text}", file=sys.stderr)

    with warnings.catch_warnings():
        warnings.showwarning = show  # type: ignore[assignment]
        yield


def loader_processes(asked: int | None, device: str) -> int:
    """How many processes prepare batches: on a CPU they would take the trainer's own cores."""
    if asked is not None:
        return asked
    return 0 if device == "cpu" else min(_MOST_PROCESSES, max(1, (os.cpu_count() or 1) - 1))


def one_of(option: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse a value that is not one of those allowed."""
    if value not in allowed:
        raise TomoSegError(
            "usage",
            f"'--{option} {value}' is not known.",
            f"Choose one of {', '.join(allowed)}.",
        )


def numbers_of(option: str, text: str, separator: str, count: int | None, kind: Any) -> Any:
    """The numbers in a text as a tuple; ``count`` of them unless it is None."""
    try:
        numbers = tuple(kind(part) for part in text.split(separator))
        if not all(map(math.isfinite, numbers)):
            numbers = ()
    except (ValueError, ZeroDivisionError, OverflowError):
        numbers = ()
    if not numbers or (count is not None and len(numbers) != count):
        wanted = f"{count} numbers" if count else "numbers"
        wanted = "a number" if count == 1 else f"{wanted} separated by '{separator}'"
        raise TomoSegError(
            "usage",
            f"'--{option} {text}' is not {wanted}.",
            "'--help' shows the default.",
        )
    return numbers


def range_of(option: str, text: str) -> tuple[float, float]:
    """``LOW:HIGH``."""
    low, high = numbers_of(option, text, ":", 2, float)
    if not low < high:
        raise TomoSegError(
            "usage", f"'--{option} {text}' is no range.", "Give the lower value first."
        )
    return low, high


def named_files(option: str, items: Sequence[str]) -> dict[str, str]:
    """``NAME=FILE`` of several channels by their names, in small letters as models have them."""
    files: dict[str, str] = {}
    for item in items:
        name, equals, path = item.partition("=")
        name = name.lower()
        if not (name and equals and path) or name in files:
            raise TomoSegError(
                "usage",
                f"'--{option} {item}' is not NAME=FILE, or names a channel twice.",
                "Example: --channel t1=t1.nii.gz; 'tomoseg models show' lists a model's channels.",
            )
        files[name] = path
    return files
