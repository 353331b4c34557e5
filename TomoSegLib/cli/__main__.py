"""``python -m TomoSegLib.cli``: the command ``tomoseg``."""

from __future__ import annotations

import sys

from TomoSegLib.cli import main

if __name__ == "__main__":
    sys.exit(main())
