"""The pictures of the README and of the extension's page, made again: Resources/Screenshots.

    python Testing/make_screenshots.py [--model flair-lesion]

They are what the demo leaves: its drawing of the simulated scan that ships, and the panel in the
stand-in application at real size. Look at them before you commit them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCREENSHOTS = ROOT / "Resources" / "Screenshots"
#: What the demo leaves -> name of the picture.
PICTURES = {
    "overlay.png": "overlay.png",
    "panel/window-before.png": "directions.png",
    "panel/window-running.png": "running.png",
    "panel/window-segment.png": "segment.png",
    "panel/window-dark.png": "segment-dark.png",
}


def main() -> int:
    """Run the demo in a temporary folder and keep its pictures; the exit status is the demo's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="flair-lesion", help="name or folder of a model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        demo = [sys.executable, ROOT / "Testing" / "demo.py", "--model", options.model]
        # Without a display and without the user's own models: the pictures are the same everywhere.
        own = {"QT_QPA_PLATFORM": "offscreen", "TOMOSEG_MODELS": str(Path(folder) / "models")}
        environment = {**os.environ, **own}
        status = subprocess.run([*demo, "--output", folder], env=environment).returncode
        if status:
            return status
        missing = [name for name in PICTURES if not (Path(folder) / name).is_file()]
        if missing:
            print(f"The demo has not made {', '.join(missing)}.", file=sys.stderr)
            return 1
        SCREENSHOTS.mkdir(exist_ok=True)
        for made, name in PICTURES.items():
            shutil.copyfile(Path(folder) / made, SCREENSHOTS / name)
            print(f"written: {SCREENSHOTS / name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
