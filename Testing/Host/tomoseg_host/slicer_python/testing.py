"""``slicer.testing``: how scripts end a test run of the application."""

import sys
import unittest

import slicer


def exitSuccess() -> None:  # noqa: N802
    """End the application with success."""
    slicer.util.exit(0)


def exitFailure(message: str = "") -> None:  # noqa: N802
    """End the application with failure."""
    if message:
        print(message)
    slicer.util.exit(1)


def runUnitTest(path: list[str], testname: str) -> None:  # noqa: N802
    """Run the unit tests of a Python file in one of these folders, and end with their outcome."""
    sys.path[:0] = [folder for folder in path if folder not in sys.path]
    suite = unittest.TestLoader().loadTestsFromName(testname)
    # As sys.stderr, the application's own writer has all that a runner needs.
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    if result.testsRun and result.wasSuccessful():
        exitSuccess()
    else:
        exitFailure()
