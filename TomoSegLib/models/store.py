"""Where models live: those that ship and those of the user, and how one is found by its name."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.folder import CARD, ModelFolder, model_hash, read_model, save_model
from TomoSegLib.models.locations import shipped_models_folder, user_models_folder

__all__ = [
    "ModelFolder",
    "find_model",
    "list_models",
    "model_hash",
    "read_model",
    "save_model",
    "shipped_models_folder",
    "user_models_folder",
]


def list_models(
    on_error: Callable[[Path, TomoSegError], None] | None = None,
) -> list[ModelFolder]:
    """All models that have a name: the shipped ones, then the user's, each sorted by name.

    Args:
        on_error: Called with the folder and the error of each model whose card is invalid. Such a
            model is left out and does not keep the others from being listed.
    """
    models: list[ModelFolder] = []
    for origin, root in (("shipped", shipped_models_folder()), ("user", user_models_folder())):
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            if folder.name.startswith(".") or not (folder / CARD).is_file():
                continue
            try:
                model = read_model(folder, "shipped" if origin == "shipped" else "user")
            except TomoSegError as error:
                if on_error is not None:
                    on_error(folder, error)
                continue
            # A user's model never takes the place of a shipped one.
            if all(model.name != other.name for other in models):
                models.append(model)
    return models


def find_model(name_or_folder: str | os.PathLike[str]) -> ModelFolder:
    """Find a model by its name in the store, or by its folder.

    A name comes before a folder of that name in the working directory; write ``./name`` for the
    folder. The folder of a training, which has its model in ``model``, will do as well.

    Raises:
        TomoSegError: ``model-unknown``, ``model-card-invalid``.
    """
    wanted = os.fspath(name_or_folder)
    if re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", wanted):
        broken: list[TomoSegError] = []
        models = list_models(
            lambda folder, error: broken.append(error) if folder.name == wanted else None
        )
        for model in models:
            if model.name == wanted:
                return model
        if broken:
            raise broken[0]
    else:
        models = []
    path = Path(wanted).expanduser()
    if path.name == CARD:
        path = path.parent
    if wanted and path.is_dir():
        if not (path / CARD).exists() and (path / "model" / CARD).is_file():
            path = path / "model"
        return read_model(path.absolute())
    names = [model.name for model in models or list_models()]
    close = difflib.get_close_matches(wanted, names, n=1)
    if path.is_file():
        hint = f"Import it first with: tomoseg models import {wanted}"
    elif close:
        hint = f"Did you mean {close[0]}?"
    else:
        hint = f"Give the folder of a model or one of: {', '.join(names) or '(none installed)'}."
    raise TomoSegError("model-unknown", f"There is no model {wanted!r}.", hint)
