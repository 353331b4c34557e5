"""Which files a volume's path means, and what they look like from outside."""

from __future__ import annotations

import os
from pathlib import Path

FileState = tuple[str, int, int]
"""Name, size in bytes, time of the last change in nanoseconds."""

_DATA_BESIDE = {
    ".mhd": (".raw", ".zraw"),
    ".nhdr": (".raw", ".raw.gz"),
    ".hdr": (".img", ".img.gz"),
}
"""Endings of headers, and of the files that usually hold their voxels."""


def split_path(path: Path | str) -> tuple[Path, str | None]:
    """``FILE::NUMBER`` or ``FOLDER::SeriesInstanceUID`` as its parts.

    A path that exists is never split.
    """
    name, separator, part = str(path).rpartition("::")
    if not separator or os.path.exists(path):
        return Path(path), None
    return Path(name), part


def file_of(path: Path | str) -> Path:
    """The file or folder of a volume, see `split_path`."""
    return split_path(path)[0]


def file_state(path: Path | str) -> list[FileState]:
    """The state of all files of a volume.

    Args:
        path: A file; one with ``::`` and the number of a volume in it; a folder of DICOM files,
            with or without ``::`` and a series. In folders hidden files do not count.

    Returns:
        The file that is named first, then those that belong to it; names are relative to its
        folder, or to the folder that is named.

    Raises:
        OSError: It is not there.
    """
    first = file_of(path)
    if first.is_dir():
        found = []
        for root, folders, names in os.walk(first):
            folders.sort()
            for name in sorted(names):
                if not name.startswith("."):
                    file = Path(root) / name
                    found.append(_state(file, str(file.relative_to(first))))
        return found
    beside = (first.with_suffix(ending) for ending in _DATA_BESIDE.get(first.suffix.lower(), ()))
    return [_state(file, file.name) for file in (first, *filter(os.path.isfile, beside))]


def _state(file: Path, name: str) -> FileState:
    status = os.stat(file)
    return name, status.st_size, status.st_mtime_ns
