"""Where models live: those that ship, those of the user, and how one gets in."""

from __future__ import annotations

import difflib
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.folder import (
    CARD,
    MAX_CARD_BYTES,
    MAX_FILE_BYTES,
    ModelFolder,
    hash_mismatch,
    model_hash,
    new_folder,
    parse_card,
    read_bounded,
    read_model,
    save_model,
    verified_bytes,
)
from TomoSegLib.models.locations import shipped_models_folder, user_models_folder
from TomoSegLib.models.zip_members import ZipRefused, checked_members

__all__ = [
    "ModelFolder",
    "find_model",
    "import_model",
    "list_models",
    "model_hash",
    "read_model",
    "save_model",
    "shipped_models_folder",
    "user_models_folder",
    "verified_bytes",
    "verify_model",
]

MAX_MODEL_BYTES = 4 << 30


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
    folder.

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
        return read_model(path)
    names = [model.name for model in models or list_models()]
    close = difflib.get_close_matches(wanted, names, n=1)
    if path.is_file():
        hint = f"Import it first with: tomoseg models import {wanted}"
    elif close:
        hint = f"Did you mean {close[0]}?"
    else:
        hint = f"Give the folder of a model or one of: {', '.join(names) or '(none installed)'}."
    raise TomoSegError("model-unknown", f"There is no model {wanted!r}.", hint)


def verify_model(model: ModelFolder, *, load: bool = True) -> str:
    """Check a model's files against its card.

    Args:
        model: The model.
        load: Whether to load the network too, which tells whether weights and card fit.

    Returns:
        Its `model_hash`.

    Raises:
        TomoSegError: What `verified_bytes` and `load_encoder` raise.
    """
    for name in model.card.files:
        verified_bytes(model, name)
    if load and model.card.task == "heatmap":
        # Imports torch, which takes seconds.
        from TomoSegLib.models.loading import load_encoder

        load_encoder(model)
    return model_hash(model)


def import_model(source: str | os.PathLike[str], *, replace: bool = False) -> ModelFolder:
    """Copy a model folder, or a zip archive of one, into the user's store.

    Only the card and the files that it lists are copied, after all that `verify_model` checks.
    Nothing is left behind after an error. A model that is there already, the same in every byte,
    is returned as it is.

    Args:
        source: The folder, or the archive with ``card.json`` at its top or in its one folder.
        replace: Whether another model of that name in the user's store is replaced. Shipped
            models never are.

    Raises:
        TomoSegError: ``model-unknown``, ``model-zip-invalid``, ``model-card-invalid``,
            ``model-exists``, ``model-unwritable`` and what `verify_model` raises.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _import(lambda name, limit: _read_in_folder(path, name, limit), path, replace)
    if not path.is_file():
        raise TomoSegError(
            "model-unknown",
            f"There is no model at {path}.",
            "Give the folder of a model, or a zip archive of one.",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            members = checked_members(archive, MAX_MODEL_BYTES)
            folder = _folder_in_zip(members)

            def read(name: str, limit: int) -> bytes:
                info = members.get(folder + name)
                if info is None or info.file_size > limit:
                    problem = "missing" if info is None else f"larger than {limit} bytes"
                    raise ZipRefused(f"{folder + name} is {problem}")
                return archive.read(info)

            return _import(read, path, replace)
    except ZipRefused as error:
        raise _bad_zip(path, str(error)) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        raise _bad_zip(path, "it is not a readable zip archive") from None


def _import(read: Callable[[str, int], bytes], source: Path, replace: bool) -> ModelFolder:
    content = read(CARD, MAX_CARD_BYTES)
    card = parse_card(content, f"{CARD} in {source}")
    there = next((model for model in list_models() if model.name == card.name), None)
    if there is not None:
        if model_hash(there) == model_hash(card):
            verify_model(there)
            return there
        if there.origin == "shipped" or not replace:
            raise TomoSegError(
                "model-exists",
                f"There is another model named {card.name}, version {there.card.version}.",
                "Choose another name on the card."
                if there.origin == "shipped"
                else "Import it with --replace, or choose another name on the card.",
            )
    target = there.path if there is not None else user_models_folder() / card.name
    with new_folder(target, overwrite=replace) as new:
        (new / CARD).write_bytes(content)
        for name, expected in card.files.items():
            data = read(name, MAX_FILE_BYTES)
            if hashlib.sha256(data).hexdigest() != expected:
                raise hash_mismatch(source / name)
            (new / name).write_bytes(data)
        verify_model(ModelFolder(card, new))
    return ModelFolder(card, target, "user")


def _read_in_folder(folder: Path, name: str, limit: int) -> bytes:
    if (folder / name).is_symlink():
        raise TomoSegError(
            "model-file-missing",
            f"{folder / name} is a link, not a file.",
            "Copy the model's files themselves into the folder.",
        )
    missing = "model-unknown" if name == CARD else "model-file-missing"
    return read_bounded(folder / name, limit, missing)


def _folder_in_zip(members: dict[str, zipfile.ZipInfo]) -> str:
    cards = [
        name
        for name in members
        if name.split("/")[-1] == CARD and name.count("/") <= 1 and not name.startswith("__MACOSX")
    ]
    if len(cards) != 1:
        raise ZipRefused(f"it holds {len(cards)} model cards, not one")
    return cards[0][: -len(CARD)]


def _bad_zip(path: Path, reason: str) -> TomoSegError:
    return TomoSegError(
        "model-zip-invalid",
        f"The archive {path} cannot be imported: {reason}.",
        "Get it again from where it came from, or unpack it and import the folder.",
    )
