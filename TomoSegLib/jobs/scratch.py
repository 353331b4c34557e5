"""The hidden folder in which a job works, so that results appear whole or not at all.

A job writes into ``.tomoseg-<output>-<id>``, in the output folder where that exists, else beside
the place where it will be: always on the file system of the results, so that the last step is a
rename. A folder that a killed process has left is recognised by its owner's process, which is
gone, and removed by the next job with the same output.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import re
import shutil
import socket
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from TomoSegLib.errors import TomoSegError

OWNER_FILE = "owner.json"
_FOREIGN_AGE_S = 3600.0
"""A folder of another machine (a cluster's shared disk) is abandoned after so long a silence."""

_UNFINISHED = re.compile(r"\.tomoseg-[0-9a-f]{32}\.")


class Scratch:
    """A job's working folder, made at once and removed by `discard` or `commit`.

    Args:
        output: Folder in which the results shall be at the end.
        names: Names of the files and folders that the job may write; the last is written last and
            removed first, so that where it is, the set is complete.
        overwrite: Whether results that are there already are replaced.

    Raises:
        TomoSegError: ``output-exists`` or ``output-unwritable``.
    """

    heartbeat_s = 30.0

    def __init__(self, output: Path, names: Sequence[str], overwrite: bool = False) -> None:
        self.output = output
        self._names = tuple(names)
        self._overwrite = overwrite
        self._made_parents: list[Path] = []
        with _output_errors(output):
            if output.exists() and not output.is_dir():
                raise TomoSegError(
                    "output-unwritable",
                    f"The output folder {output} is a file.",
                    "Choose another folder.",
                )
            remove_stale(output)
            self._refuse_existing()
            parent = output if output.is_dir() else output.parent
            self._make_parents(parent)
            self.path = parent / f"{_prefix(output)}{uuid.uuid4().hex[:12]}"
            try:
                self.path.mkdir()
                (self.path / OWNER_FILE).write_text(json.dumps(_this_process()), encoding="utf-8")
                self.results.mkdir()
            except BaseException:
                self.discard()
                raise

    @property
    def results(self) -> Path:
        """Where the job writes its results."""
        return self.path / "results"

    def touch(self) -> None:
        """Show other machines that the job still runs; to be called every `heartbeat_s`."""
        with contextlib.suppress(OSError):
            os.utime(self.path / OWNER_FILE)

    def commit(self) -> None:
        """Move the results into place; each file appears whole.

        Raises:
            TomoSegError: ``output-unwritable`` or ``output-no-space``.
        """
        with _output_errors(self.output):
            self._refuse_existing()  # another job may have been quicker
            if not self.output.exists():
                os.replace(self.results, self.output)
            else:
                for name in reversed(self._names):
                    _remove(self.output / name)
                for name in self._names:
                    if (self.results / name).exists():
                        os.replace(self.results / name, self.output / name)
        self._made_parents.clear()
        self.discard()

    def discard(self) -> None:
        """Remove the folder, and what was made on the way to it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made_parents:
            with contextlib.suppress(OSError):
                folder.rmdir()
        self._made_parents.clear()

    def _refuse_existing(self) -> None:
        existing = [name for name in self._names if (self.output / name).exists()]
        if existing and not self._overwrite:
            raise TomoSegError(
                "output-exists",
                f"The output folder {self.output} already has results ({existing[0]}).",
                "Choose another folder, or allow them to be replaced with --overwrite.",
            )

    def _make_parents(self, folder: Path) -> None:
        missing = []
        while not folder.exists():
            missing.append(folder)
            folder = folder.parent
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            self._made_parents.insert(0, path)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_stale(output: Path) -> None:
    """Remove working folders for this output whose process is gone."""
    for parent in (output, output.parent):
        if parent.is_dir():
            for path in parent.glob(f"{glob.escape(_prefix(output))}*"):
                if path.is_dir() and not path.is_symlink() and _is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)


def remove_stale_below(folder: Path) -> None:
    """Remove such working folders for every output in a folder."""
    if folder.is_dir():
        for pattern in (".tomoseg-*", "*/.tomoseg-*"):
            for path in folder.glob(pattern):
                if path.is_dir() and not path.is_symlink() and _is_abandoned(path):
                    shutil.rmtree(path, ignore_errors=True)


def remove_unfinished_files(folder: Path) -> None:
    """Remove the files in a folder, and in those in it, that a killed `atomic_path` has left.

    Only for a folder whose one writer is known to be gone: such files do not tell whose they are.
    """
    for pattern in (".tomoseg-*", "*/.tomoseg-*"):
        for path in folder.glob(pattern):
            if _UNFINISHED.match(path.name) and not path.is_dir():
                path.unlink(missing_ok=True)


def _prefix(output: Path) -> str:
    return f".tomoseg-{output.name}-"


def _this_process() -> dict[str, object]:
    import psutil

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "created": psutil.Process().create_time(),
    }


def _is_abandoned(path: Path) -> bool:
    import psutil

    owner_file = path / OWNER_FILE
    try:
        owner = json.loads(owner_file.read_text(encoding="utf-8"))
        age = time.time() - owner_file.stat().st_mtime
        if owner["host"] != socket.gethostname():
            return age > _FOREIGN_AGE_S
        created = psutil.Process(owner["pid"]).create_time()
        return abs(created - float(owner["created"])) > 1.0  # the number was given out again
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
    except (OSError, ValueError, KeyError, TypeError):
        # Killed between making the folder and naming its owner, or about to name it.
        with contextlib.suppress(OSError):
            return time.time() - path.stat().st_mtime > 10.0
        return False


@contextlib.contextmanager
def _output_errors(output: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if space := no_space_error(error, output):
            raise space from None
        raise TomoSegError(
            "output-unwritable",
            f"The output folder {output} cannot be written: {error.strerror or error}.",
            "Choose a folder in which you may write.",
        ) from None


def no_space_error(error: OSError, output: Path) -> TomoSegError | None:
    """The error for a full disk, an exhausted quota or a file-size limit; else None."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return None
    return TomoSegError(
        "output-no-space",
        f"There is no space left to write the results to {output}.",
        "Free some space on that disk, or choose another output folder.",
    )
