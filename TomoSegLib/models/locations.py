"""Where models live. The standard library is enough, so that the panel can look there too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from TomoSegLib.errors import TomoSegError


def shipped_models_folder() -> Path:
    """The folder of the models that ship.

    An installed wheel and an installed Slicer extension hold it inside the package, at
    ``TomoSegLib/Resources/Models``; a source tree, installed for development or not, beside the
    package, at ``Resources/Models``.

    Raises:
        TomoSegError: ``models-missing`` if neither is there.
    """
    package = Path(__file__).resolve().parents[1]
    for root in (package, package.parent):
        folder = root / "Resources" / "Models"
        if folder.is_dir():
            return folder
    raise TomoSegError(
        "models-missing",
        f"The models that ship with TomoSeg are not in {package / 'Resources' / 'Models'}.",
        "Install TomoSeg again.",
    )


def user_models_folder() -> Path:
    """The folder that `import_model` fills: ``TOMOSEG_MODELS``, or the platform's data folder."""
    if chosen := os.environ.get("TOMOSEG_MODELS"):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(base) / "TomoSeg" / "Models"
