"""Run a scripted module in the stand-in application.

Usage::

    python Testing/Host/run_host.py --module TomoSeg/TomoSeg.py [--scene FILE] [--offscreen]
                                    [--script FILE] [--screenshot FILE] [--no-testing]

Without a script the window stays open until it is closed; a script is executed with ``host``,
``slicer``, ``qt`` and ``ctk`` as names, and the application ends after it.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))


def main() -> int:
    """Parse the arguments and run; the exit status is 1 where something raised."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--module", action="append", default=[], help="a module's .py file")
    parser.add_argument("--scene", help="a scene (.mrb, .mrml) to open")
    parser.add_argument("--offscreen", action="store_true", help="need no display")
    parser.add_argument("--script", help="a Python file to execute in the application")
    parser.add_argument("--screenshot", help="save a picture of the main window")
    parser.add_argument("--no-testing", action="store_true", help="show message boxes")
    arguments = parser.parse_args()
    displayless = sys.platform == "linux" and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )
    if arguments.offscreen or displayless:
        os.environ["QT_QPA_PLATFORM"] = "offscreen"
    from tomoseg_host.application import host as application
    from tomoseg_host.bridge import stdout

    host = application.start(testing=not arguments.no_testing, modules=arguments.module)
    with stdout.redirected():
        if arguments.scene:
            import slicer

            slicer.util.loadScene(os.path.abspath(arguments.scene))
        if arguments.module:
            host.select(Path(arguments.module[-1]).stem)
        if arguments.script:
            run_script(host, Path(arguments.script))
        if arguments.screenshot:
            host.screenshot(arguments.screenshot)
        if not (arguments.script or arguments.screenshot or arguments.offscreen or displayless):
            host.application.setQuitOnLastWindowClosed(True)
            host.application.exec()
    return 1 if host.errors else 0


def run_script(host: object, path: Path) -> None:
    """Execute a file in the application."""
    import ctk
    import qt
    import slicer

    names = {"__name__": "__main__", "__file__": str(path), "host": host}
    names |= {"slicer": slicer, "qt": qt, "ctk": ctk}
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), names)


if __name__ == "__main__":
    try:
        status = main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # Qt, VTK and Python take themselves down in an order that none of them can stand.
    os._exit(status or 0)
