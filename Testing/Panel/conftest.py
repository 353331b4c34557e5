"""The panel's tests need no display, but the stand-in for 3D Slicer."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

MISSING = [name for name in ("slicer", "PySide6") if importlib.util.find_spec(name) is None]
# Without it, what the tree itself says can be tested still.
_KEPT = ("test_host_install.py", "test_panel_packaging.py")
_ALL = [path.name for path in Path(__file__).parent.glob("test_*.py")]
collect_ignore = [name for name in _ALL if name not in _KEPT] if MISSING else []


def pytest_terminal_summary(terminalreporter: object) -> None:
    """Say what was left out."""
    if MISSING:
        terminalreporter.section("left out")
        terminalreporter.write_line(
            f"The panel's tests: {' and '.join(MISSING)} are not installed for this Python."
        )
