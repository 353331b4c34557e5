"""Run a scripted module in the stand-in application.

Usage::

    python Testing/Host/run_host.py --module TomoSeg/TomoSeg.py [--scene FILE] [--offscreen]
                                    [--script FILE] [--screenshot FILE] [--no-testing]

Without a script the window stays open until it is closed; a script is executed with ``host``,
``slicer``, ``qt`` and ``ctk`` as names, and the application ends after it. Slicer's own options
that tests are run with are taken too: ``--additional-module-path(s)``, ``--python-script``,
``--python-code``, ``--no-main-window`` and those that change nothing here.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


#: Options of Slicer's that make no difference here.
IGNORED = ("--testing", "--no-splash", "--ignore-slicerrc", "--disable-cli-modules")


def main() -> int:
    """Parse the arguments and run; the exit status is 1 where something raised or a test failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--module", action="append", default=[], help="a module's .py file")
    parser.add_argument("--scene", help="a scene (.mrb, .mrml) to open")
    parser.add_argument("--offscreen", action="store_true", help="need no display")
    parser.add_argument(
        "--script", "--python-script", help="a Python file to execute in the application"
    )
    parser.add_argument("--python-code", help="Python code to execute in the application")
    parser.add_argument(
        "--additional-module-path",
        "--additional-module-paths",
        action="extend",
        nargs="+",
        default=[],
        help="folders of which every .py file is a module",
    )
    parser.add_argument("--no-main-window", action="store_true", help="have no main window")
    for option in IGNORED:
        parser.add_argument(option, action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--screenshot", help="save a picture of the main window")
    parser.add_argument("--no-testing", action="store_true", help="show message boxes")
    arguments, rest = parser.parse_known_args()
    if rest and not arguments.script:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    displayless = sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if arguments.offscreen or displayless:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from tomoseg_host.application import host as application
    from tomoseg_host.bridge import stdout

    # As Slicer does, so that a module path must hold nothing else.
    modules = [
        each for path in arguments.additional_module_path for each in Path(path).glob("*.py")
    ]
    modules += arguments.module
    host = application.start(
        main_window=not arguments.no_main_window,
        testing=not arguments.no_testing,
        modules=modules,
    )
    with stdout.redirected():
        if arguments.scene:
            import slicer

            slicer.util.loadScene(os.path.abspath(arguments.scene))
        if arguments.module:
            host.select(Path(arguments.module[-1]).stem)
        if arguments.script:
            code = Path(arguments.script).read_text(encoding="utf-8")
            sys.argv = [arguments.script, *rest]  # what is left is the script's
            run_code(host, code, arguments.script)
        if arguments.python_code:
            run_code(host, arguments.python_code, "--python-code")
        if arguments.screenshot:
            host.screenshot(arguments.screenshot)
        scripted = arguments.script or arguments.python_code or arguments.screenshot
        if not (scripted or arguments.offscreen or displayless):
            host.application.setQuitOnLastWindowClosed(True)
            host.application.exec()
    return type(host.app).exit_status or (1 if host.errors else 0)


def run_code(host: object, code: str, name: str) -> None:
    """Execute code in the application; ``name`` is where it comes from."""
    import ctk
    import qt
    import slicer

    names = {"__name__": "__main__", "__file__": name, "host": host}
    names |= {"slicer": slicer, "qt": qt, "ctk": ctk}
    exec(compile(code, name, "exec"), names)


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    from tomoseg_host.application.host import leave

    leave(status or 0)
