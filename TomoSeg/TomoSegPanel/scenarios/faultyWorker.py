"""The engine's worker with one fault, for scenarios.

``python faultyWorker.py FAULT JOB.json`` does what ``python -m TomoSegLib.jobs JOB.json`` does, and
one thing goes wrong. The engine is the real one; only what is named below is put in its way:

``garbage``     something else prints to the worker's output first
``no-torch``    PyTorch cannot be imported
``memory=N``    the encoder finds no memory for more than N slices at a time
``full-disk``   there is no space left when volumes are written
``slow=S``      every batch of slices takes S seconds longer, so that there is a middle of the run
``slow-study=S``  every image of a study takes S seconds longer to read
"""

from __future__ import annotations

import errno
import os
import sys
import time


def main() -> int:
    """Be the worker, or (with ``--task``) the process that computes for it."""
    fault = sys.argv[1]
    name, _, value = fault.partition("=")
    if sys.argv[2] == "--task":
        _break(name, value)
        from TomoSegLib.jobs.task import main as task

        return task(sys.argv[3])
    if name == "garbage":
        os.write(1, b'Intel MKL WARNING: something\n\xff\xfe\x00\n{"event": 5}\n[[[\n')
    from TomoSegLib.jobs import worker

    def taskCommand(results: str) -> list[str]:
        return [sys.executable, __file__, fault, "--task", results]

    worker.task_command = taskCommand
    return worker.work(sys.argv[2])


def _break(name: str, value: str) -> None:
    """Put the fault in place, in the process that computes."""
    if name == "no-torch":
        sys.modules["torch"] = None
    elif name == "full-disk":
        from TomoSegLib.jobs import run

        def full(*arguments: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        run.write_volume = full
    elif name == "slow-study":
        from TomoSegLib.studies.file_study import FilePixels

        read = FilePixels.read

        def slow(pixels: FilePixels) -> object:
            time.sleep(float(value))
            return read(pixels)

        FilePixels.read = slow
    elif name in ("memory", "slow"):
        _wrapEncoder(name, float(value))


def _wrapEncoder(name: str, value: float) -> None:
    from TomoSegLib.heatmaps.responses import StackEncoder

    prepare = StackEncoder.__post_init__

    def wrapped(encoder: StackEncoder) -> None:
        prepare(encoder)
        evaluate = encoder.evaluate

        def faulty(slices):
            if name == "memory" and len(slices) > value:
                raise RuntimeError("out of memory: there is room for fewer slices")
            if name == "slow":
                time.sleep(value)
            return evaluate(slices)

        encoder.evaluate = faulty

    StackEncoder.__post_init__ = wrapped


if __name__ == "__main__":
    status = main()
    sys.stderr.flush()
    os._exit(status)
