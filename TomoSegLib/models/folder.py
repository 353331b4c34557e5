"""One model on disk: a folder with ``card.json`` and the files that the card lists.

Everything in it is hostile until it is checked: sizes are bounded before anything is read, the
card is validated strictly, and every byte that is used has been compared with the card's hash.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import ModelCard

if TYPE_CHECKING:
    from torch import Tensor

CARD = "card.json"
MAX_CARD_BYTES = 1 << 20
MAX_FILE_BYTES = 2 << 30

Origin = Literal["shipped", "user", "folder"]


@dataclass(frozen=True)
class ModelFolder:
    """A model on disk whose card is valid. Its files are checked by `verified_bytes`.

    Attributes:
        card: The validated card.
        path: The folder.
        origin: ``shipped``, ``user`` (in the user's store) or ``folder`` (anywhere else).
    """

    card: ModelCard
    path: Path
    origin: Origin = "folder"

    @property
    def name(self) -> str:
        """The card's name."""
        return self.card.name


def parse_card(content: bytes, where: str) -> ModelCard:
    """Validate the content of a ``card.json``.

    Args:
        content: The file's bytes.
        where: Name of the file, for messages.

    Raises:
        TomoSegError: ``model-card-invalid``, naming the first wrong field.
    """

    def invalid(reason: str) -> TomoSegError:
        return TomoSegError(
            "model-card-invalid",
            f"The model card {where} is invalid: {reason}.",
            "Correct the card, or get the model again from where it came from.",
        )

    if len(content) > MAX_CARD_BYTES:
        raise invalid(f"it has more than {MAX_CARD_BYTES} bytes")
    try:
        text = content.decode("utf-8")
        # Duplicate fields and NaN pass the validation below unseen.
        json.loads(text, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
        return ModelCard.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "card"
        raise invalid(f"{field}: {first['msg'].removeprefix('Value error, ')}") from None
    except UnicodeDecodeError:
        raise invalid("it is not UTF-8 text") from None
    except RecursionError:
        raise invalid("it is nested too deeply") from None
    except ValueError as error:
        raise invalid(f"it is not valid JSON ({error})") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"duplicate field {next(n for n in names if names.count(n) > 1)!r}")
    return fields


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def read_model(folder: Path, origin: Origin = "folder") -> ModelFolder:
    """Read the card of a model folder.

    Raises:
        TomoSegError: ``model-unknown`` (no card there), ``model-card-invalid``.
    """
    path = folder / CARD
    content = read_bounded(path, MAX_CARD_BYTES, missing="model-unknown")
    return ModelFolder(parse_card(content, str(path)), folder, origin)


def model_hash(card: ModelCard | ModelFolder) -> str:
    """SHA-256 of a model: of its card in canonical form, which holds the hashes of its files.

    Fields that have their default value are left out, so that a later field with a default does
    not change the hash of a model that does not use it.
    """
    card = card.card if isinstance(card, ModelFolder) else card
    canonical = json.dumps(
        card.model_dump(mode="json", exclude_defaults=True),
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
    )
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()


def verified_bytes(model: ModelFolder, name: str) -> bytes:
    """The content of a model's file, compared with the card's hash.

    The bytes that were hashed are the bytes that are used: reading a file a second time would
    let it change in between.

    Raises:
        TomoSegError: ``model-file-missing``, ``model-file-too-large``, ``model-hash-mismatch``.
    """
    path = model.path / name
    content = read_bounded(path, MAX_FILE_BYTES, missing="model-file-missing")
    if hashlib.sha256(content).hexdigest() != model.card.files[name]:
        raise hash_mismatch(path)
    return content


def hash_mismatch(path: Path) -> TomoSegError:
    """The error for a file that is not the one on the card."""
    return TomoSegError(
        "model-hash-mismatch",
        f"The file {path} is not the one that the model's card describes.",
        "Get the model again from where it came from; the file is damaged or was changed.",
    )


def read_bounded(path: Path, limit: int, missing: str, hint: str = "") -> bytes:
    """Read a regular file of at most `limit` bytes.

    Args:
        path: The file; a pipe is not waited for.
        limit: Bytes.
        missing: The code if it cannot be read.
        hint: What to do then; by default, to give a model's folder.

    Raises:
        TomoSegError: ``missing`` or ``model-file-too-large``.
    """
    what = "The file" if hint else "The model's file"
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise TomoSegError(
                    missing, f"{path} is not a regular file.", hint or "Give the folder of a model."
                )
            # One byte more than it has, in case it grows; memory is taken for all that is asked.
            content = file.read(status.st_size + 1) if status.st_size <= limit else b""
    except OSError as error:
        raise TomoSegError(
            missing,
            f"{what} {path} cannot be read: {error.strerror or error}.",
            hint or f"Give the folder of a model, which holds {CARD} and the files that it lists.",
        ) from None
    if status.st_size > limit or len(content) > limit:
        raise TomoSegError(
            "model-file-too-large",
            f"{path} has more than {limit} bytes.",
            hint or "Get the model again from where it came from; a model's files are smaller.",
        )
    return content


def _open_at_once(path: str, flags: int) -> int:
    """Open a file without waiting, as a named pipe would make one."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def save_model(
    folder: Path,
    card: ModelCard | Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    overwrite: bool = False,
) -> ModelFolder:
    """Write a model of format ``module``: the weights as safetensors, and the card with their hash.

    The folder appears at once and complete, or not at all; the same card and weights always give
    the same bytes.

    Args:
        folder: The folder to make.
        card: The card's fields; ``files`` is filled in (and replaced where it is there).
        weights: The network's state dict.
        overwrite: Whether an existing model folder is replaced.

    Raises:
        TomoSegError: ``model-exists``, ``model-card-invalid``, ``model-weights-invalid`` (not
            finite), ``model-unwritable``.
    """
    import torch
    from safetensors.torch import save

    for name, tensor in weights.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise TomoSegError(
                "model-weights-invalid",
                f"The weights {name} hold values that are not finite.",
                "Train with a smaller learning rate.",
            )
    content = save({name: t.detach().cpu().contiguous().clone() for name, t in weights.items()})
    fields = (
        card.model_dump(mode="json", exclude_none=True)
        if isinstance(card, ModelCard)
        else dict(card)
    )
    name = fields.get("network", {}).get("file", "weights.safetensors")
    fields["files"] = {name: hashlib.sha256(content).hexdigest()}
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    checked = parse_card(text.encode("utf-8"), str(folder / CARD))
    with new_folder(folder, overwrite) as new:
        (new / name).write_bytes(content)
        (new / CARD).write_text(text, encoding="utf-8", newline="\n")
    return ModelFolder(checked, folder)


@contextmanager
def new_folder(folder: Path, overwrite: bool) -> Iterator[Path]:
    """A folder to fill that takes its name at the end; nothing is left of it after an error."""
    refuse_existing(folder, overwrite)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".model-", dir=folder.parent))
    except OSError as error:
        raise unwritable(folder, error) from None
    try:
        new = work / "new"
        new.mkdir()
        yield new
        put_in_place(new, folder)
    except OSError as error:
        raise unwritable(folder, error) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def refuse_existing(folder: Path, overwrite: bool) -> None:
    """Raise ``model-exists`` where something is in a new model's place that must stay."""
    if folder.exists() and not overwrite:
        raise TomoSegError(
            "model-exists",
            f"There is already something at {folder}.",
            "Choose another name, or say that it is to be replaced.",
        )
    if folder.exists() and not folder.is_dir():
        raise TomoSegError("model-exists", f"{folder} is a file.", "Choose another folder.")
    if folder.exists() and any(folder.iterdir()) and not (folder / CARD).is_file():
        raise TomoSegError(
            "model-exists", f"{folder} is not empty and no model.", "Choose another folder."
        )


def put_in_place(new: Path, folder: Path) -> None:
    """Give a complete folder its name; a folder of that name ends up beside the old place.

    Raises:
        OSError: Everything is as it was.
    """
    old = new.with_name(f"{new.name}-before")
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def unwritable(folder: Path, reason: OSError | str) -> TomoSegError:
    """The error for a place where no model can be written."""
    if isinstance(reason, OSError):
        reason = reason.strerror or str(reason)
    return TomoSegError(
        "model-unwritable",
        f"The model cannot be written to {folder}: {reason}.",
        "Free some space, or choose a folder that you may write to.",
    )
