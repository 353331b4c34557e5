"""How a model gets into the user's store: from a folder or a zip archive that may be hostile."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import ModelCard
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
)
from TomoSegLib.models.locations import user_models_folder
from TomoSegLib.models.store import list_models
from TomoSegLib.models.verification import verify_model
from TomoSegLib.models.zip_members import ZipRefused, checked_members

MAX_MODEL_BYTES = 4 << 30


def import_model(
    source: str | os.PathLike[str], *, replace: bool = False, work: Path | None = None
) -> ModelFolder:
    """Copy a model folder, or a zip archive of one, into the user's store.

    Only the card and the files that it lists are copied, after all that `verify_model` checks.
    Nothing is left behind after an error. A model that is there already, by the same card, is
    returned as it is.

    Args:
        source: The folder, or the archive with ``card.json`` at its top or in its one folder.
        replace: Whether a model of that name in the user's store is replaced, be it another one
            or a damaged copy of this one. Shipped models never are.
        work: Leave the new folder in this one, under the name that it gets in the store, for the
            caller to put in its place.

    Returns:
        The model at its place in the store.

    Raises:
        TomoSegError: ``model-unknown``, ``model-zip-invalid``, ``model-card-invalid``,
            ``model-exists``, ``model-shipped``, ``model-unwritable`` and what `verify_model`
            raises.
    """
    path = Path(source).expanduser()
    with _reader(path) as read:
        content = read(CARD, MAX_CARD_BYTES)
        card = parse_card(content, f"{CARD} in {path}")
        there = _namesake(card, replace)
        if there is not None and model_hash(there) == model_hash(card) and not replace:
            verify_model(there)
            return there
        target = there.path if there is not None else user_models_folder() / card.name
        new_place = (
            new_folder(target, overwrite=replace)
            if work is None
            else new_folder(work / target.name, overwrite=False)
        )
        with new_place as new:
            (new / CARD).write_bytes(content)
            for name, expected in card.files.items():
                data = read(name, MAX_FILE_BYTES)
                if hashlib.sha256(data).hexdigest() != expected:
                    raise hash_mismatch(path / name)
                (new / name).write_bytes(data)
            verify_model(ModelFolder(card, new))
    return ModelFolder(card, target, "user")


def _namesake(card: ModelCard, replace: bool) -> ModelFolder | None:
    """The model of this name: the same one, or one that may be replaced."""
    there = next((model for model in list_models() if model.name == card.name), None)
    if there is None or (model_hash(there) == model_hash(card) and not replace):
        return there
    if there.origin == "shipped":
        raise TomoSegError(
            "model-shipped",
            f"The name {card.name} is that of a model which TomoSeg comes with, and which stays.",
            "Choose another name on the card.",
        )
    if not replace:
        raise TomoSegError(
            "model-exists",
            f"There is another model named {card.name}, version {there.card.version}.",
            "Import it with --replace, or choose another name on the card.",
        )
    return there


@contextmanager
def _reader(path: Path) -> Iterator[Callable[[str, int], bytes]]:
    """A function that reads a model's file by its name, up to a size, from folder or archive."""
    if path.is_dir():
        yield lambda name, limit: _read_in_folder(path, name, limit)
        return
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

            yield read
    except ZipRefused as error:
        raise _bad_zip(path, str(error)) from None
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError):
        raise _bad_zip(path, "it is not a readable zip archive") from None


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
