"""``python -m TomoSegLib.jobs JOB.json``: carry out one job; see `TomoSegLib.jobs.worker`."""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m TomoSegLib.jobs",
        description="Carry out one job and report typed events on stdout, one JSON object a line.",
    )
    parser.add_argument("job", help="job document (JSON), or - for one line of JSON on stdin")
    parser.add_argument(
        "--detached", action="store_true", help="outlive stdin and the parent process"
    )
    arguments = parser.parse_args()
    from TomoSegLib.jobs.worker import work

    return work(arguments.job, detached=arguments.detached)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--task"]:  # the computing child of a worker
        from TomoSegLib.jobs.task import main as task_main

        status = task_main(sys.argv[2])
    else:
        status = main()
    sys.stderr.flush()
    os._exit(status)  # threads that still wait for input do not hold the process up
