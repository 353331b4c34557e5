"""``slicer.testing``: how scripts end a test run of the application."""

import slicer


def exitSuccess() -> None:  # noqa: N802
    """End the application with success."""
    slicer.util.exit(0)


def exitFailure(message: str = "") -> None:  # noqa: N802
    """End the application with failure."""
    if message:
        print(message)
    slicer.util.exit(1)
