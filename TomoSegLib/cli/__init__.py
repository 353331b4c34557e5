"""The command ``tomoseg``.

Results go to stdout, everything else to stderr. Exit status: 0 done, 2 an error that the user can
mend (one line: code, message, hint), 1 a defect or a died worker, 130 cancelled; ``tomoseg rerun``
ends with 3 where the outputs differ.

Nothing heavy is imported before a command needs it: ``tomoseg --help`` is instant.
"""

from __future__ import annotations

import os
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status."""
    from TomoSegLib.cli.console import print_error
    from TomoSegLib.errors import TomoSegError, name_error

    # As the workers do, see `worker_command`; before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):  # a path may hold what the locale cannot show
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except TomoSegError as error:
        print_error(error.code, error.message, error.hint)
        return 2
    except KeyboardInterrupt:
        print_error("cancelled", "Cancelled.")
        return 130
    except (OSError, RuntimeError) as error:
        if isinstance(error, BrokenPipeError):  # `tomoseg models list | head`
            sys.stdout = None
            return 0
        if named := name_error(error):
            print_error(named.code, named.message, named.hint)
            return 2
        raise
    except MemoryError:
        print_error(
            "out-of-memory",
            "There is not enough memory for this.",
            "Close other programs, or use a machine with more memory.",
        )
        return 2


def _run(arguments: list[str]) -> int:
    import typer

    from TomoSegLib.cli.app import app
    from TomoSegLib.cli.console import print_error

    # Typer has brought click's classes along since 0.26, and used click's own before.
    usage_error: type[Exception] = typer.BadParameter.__mro__[1]
    try:
        status = app(arguments, prog_name="tomoseg", standalone_mode=False)
    except usage_error as error:
        message = error.format_message()  # type: ignore[attr-defined]
        if not message:  # no arguments at all: the help has been shown
            return 2
        context = getattr(error, "ctx", None)
        command = context.command_path if context is not None else "tomoseg"
        print_error(
            "usage", " ".join(message.split()).rstrip(".") + ".", f"See '{command} --help'."
        )
        return 2
    except typer.Abort:
        return 130
    except typer.Exit as exit_:
        return int(exit_.exit_code)
    return status if isinstance(status, int) else 0
