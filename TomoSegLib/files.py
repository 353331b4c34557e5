"""Files of any kind: what they are by their names, and writing them whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

from TomoSegLib.errors import TomoSegError


def suffix_of(path: Path) -> str:
    """The suffix that decides the format, lower-case; ``.nii.gz`` counts as one."""
    name = path.name.lower()
    return ".nii.gz" if name.endswith(".nii.gz") else Path(name).suffix


def make_folder(folder: Path, hint: str = "Choose another --output.") -> None:
    """Make a folder, with those above it, unless it is there.

    Raises:
        TomoSegError: ``output-unwritable``, with the hint.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise TomoSegError(
            "output-unwritable", f"The folder {folder} cannot be made: {reason}.", hint
        ) from None


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that replaces it when the block succeeds.

    It ends like ``path``, so that libraries recognise the format. Nothing stays behind on
    failure, and failures to write become `TomoSegError` ``output-no-space`` or
    ``output-unwritable``.
    """
    suffix = ".seg.nrrd" if path.name.lower().endswith(".seg.nrrd") else suffix_of(path)
    temporary = path.with_name(f".tomoseg-{uuid.uuid4().hex}{suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        # SimpleITK only says that it failed; whether the disk is full has to be looked up.
        number = getattr(error, "errno", None)
        folder = path.parent
        if number in (errno.ENOSPC, errno.EDQUOT) or _free_bytes(folder) < 1 << 20:
            raise TomoSegError(
                "output-no-space",
                f"There is no space left in '{folder}' to write '{path.name}'.",
                "Free some space, or choose an output folder on another disk.",
            ) from error
        raise TomoSegError(
            "output-unwritable",
            f"'{path}' cannot be written: {last_line(error)}.",
            "Check that the folder exists and that you may write in it.",
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _free_bytes(folder: Path) -> int:
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return sys.maxsize


def last_line(error: object) -> str:
    """What an error says last, without a full stop: libraries put the reason there."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__).rstrip(".")
