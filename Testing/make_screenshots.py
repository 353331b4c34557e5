"""The pictures of the README, made again: Resources/Screenshots.

    python Testing/make_screenshots.py [--model flair-lesion]

``overlay.png`` is what the demo draws of the simulated scan that ships.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "Resources" / "Screenshots"


def main() -> int:
    """Run the demo in a temporary folder and keep its picture."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="flair-lesion", help="name or folder of a model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, ROOT / "Testing" / "demo.py", "--model", options.model]
        status = subprocess.run([*demo, "--output", folder]).returncode
        if status == 0:
            SCREENSHOTS.mkdir(exist_ok=True)
            shutil.copyfile(Path(folder) / "overlay.png", SCREENSHOTS / "overlay.png")
            print(f"written: {SCREENSHOTS / 'overlay.png'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
