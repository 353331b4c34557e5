"""Starting nothing that outlives us: the ends of processes and of their children."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3


def claim_stdout() -> int:
    """Keep the real stdout for events alone.

    Returns:
        A new descriptor of the real stdout. File descriptor 1 and ``sys.stdout`` lead to stderr
        from now on, so that whatever libraries print, C libraries too, cannot disturb the events.
    """
    sys.stdout.flush()
    events = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    return events


def end_children(patience_s: float = 0.5) -> None:
    """Kill this process's children and theirs, and wait a little until they are gone."""
    import psutil

    me = psutil.Process()
    deadline = time.monotonic() + patience_s
    while children := me.children(recursive=True):
        for child in children:
            with contextlib.suppress(psutil.Error):
                child.kill()
        psutil.wait_procs(children, timeout=0.1)
        if time.monotonic() > deadline:
            return


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, where the system can (Linux).

    Otherwise the children of a killed child would be out of `end_children`'s reach.
    """
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent() -> None:
    """Let the system kill this process at once when its parent dies (Linux)."""
    _prctl(_PR_SET_PDEATHSIG, getattr(signal, "SIGKILL", 9))


def keep_freed_memory() -> None:
    """Let this process use freed memory again rather than give it back at once (Linux, glibc).

    An encoder allocates the same tensors for every batch of slices. If each is mapped anew, the
    system spends a sixth of the encoder's time, or more, on clearing pages.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            library = ctypes.CDLL(None)
            # Whole volumes lie above it: their memory is given back, see Benchmarks/memory.py.
            library.mallopt(_M_MMAP_THRESHOLD, 128 << 20)
            library.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)
