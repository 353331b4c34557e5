"""The state of a training on disk: tensors and a record in one safetensors file, no pickle."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.file_state import file_state

FILE = "checkpoint.safetensors"

_SCHEDULE = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")


class CheckpointParts:
    """Collects, or gives back, the parts of a checkpoint.

    Args:
        tensors: Tensors by name; names are ``part/name``.
        record: Whatever else there is, as JSON.
    """

    def __init__(
        self, tensors: dict[str, Tensor] | None = None, record: dict[str, Any] | None = None
    ) -> None:
        self.tensors: dict[str, Tensor] = tensors if tensors is not None else {}
        self.record: dict[str, Any] = record if record is not None else {}

    def put(self, part: str, values: Mapping[str, Tensor]) -> None:
        """Add tensors under a name."""
        self.tensors.update({f"{part}/{name}": value for name, value in values.items()})

    def get(self, part: str) -> dict[str, Tensor]:
        """The tensors under a name."""
        start = part + "/"
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}

    def fill(self, part: str, values: Mapping[str, Tensor]) -> None:
        """Copy the tensors under a name into those given."""
        saved = self.get(part)
        for name, value in values.items():
            value.copy_(saved[name])

    def put_moments(self, part: str, optimizer: torch.optim.Optimizer) -> None:
        """Add an optimiser's moments."""
        for index, moments in optimizer.state_dict()["state"].items():
            values = {k: v for k, v in moments.items() if isinstance(v, Tensor)}
            self.put(f"{part}/{index}", values)

    def get_moments(self, part: str, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimiser its moments back."""
        state = optimizer.state_dict()
        for name, value in self.get(part).items():
            index, _, moment = name.partition("/")
            state["state"].setdefault(int(index), {})[moment] = value
        optimizer.load_state_dict(state)

    def put_optimizer(self, part: str, optimizer: torch.optim.Optimizer) -> None:
        """Add an optimiser's moments and learning rates."""
        self.put_moments(part, optimizer)
        self.record[part] = [group["lr"] for group in optimizer.param_groups]

    def get_optimizer(self, part: str, optimizer: torch.optim.Optimizer) -> None:
        """Bring an optimiser to where it was."""
        self.get_moments(part, optimizer)
        for group, rate in zip(optimizer.param_groups, self.record[part], strict=True):
            group["lr"] = float(rate)

    def put_schedule(self, part: str, schedule: torch.optim.lr_scheduler.ReduceLROnPlateau) -> None:
        """Add what a schedule remembers."""
        state = schedule.state_dict()
        self.record[part] = {name: state[name] for name in _SCHEDULE}

    def get_schedule(self, part: str, schedule: torch.optim.lr_scheduler.ReduceLROnPlateau) -> None:
        """Bring a schedule to where it was."""
        schedule.load_state_dict({name: self.record[part][name] for name in _SCHEDULE})


class Resumable(Protocol):
    """A training that goes on exactly where it was."""

    def parts(self) -> CheckpointParts:
        """Everything that the next step depends on."""

    def restore(self, parts: CheckpointParts) -> None:
        """Go on from where `parts` was called.

        Raises:
            RuntimeError, KeyError, TypeError, ValueError: The parts are not of this training.
        """


def save_checkpoint(training: Resumable, folder: Path, identity: Mapping[str, Any]) -> None:
    """Write a checkpoint; the one that is there stays until the new one is whole.

    Args:
        training: The training so far.
        folder: Where ``checkpoint.safetensors`` is written or replaced.
        identity: What is trained on what, and how: a checkpoint is only continued by the same.

    Raises:
        TomoSegError: ``output-unwritable``.
    """
    parts = training.parts()
    metadata = {
        "state": json.dumps(parts.record),
        "identity": json.dumps(identity, sort_keys=True),
    }
    temporary = folder / f".{FILE}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Copies: the same tensor may stand in two parts.
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in parts.tensors.items()}
        save_file(copies, temporary, {**metadata, "sha256": _hash(copies, metadata["state"])})
        os.replace(temporary, folder / FILE)
    except (OSError, SafetensorError) as error:
        raise TomoSegError(
            "output-unwritable",
            f"The checkpoint in {folder} cannot be written: {error}.",
            "Free some space, or choose another --output; the last checkpoint is kept.",
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


def files_identity(paths: Iterable[Path]) -> str:
    """A hash of sizes and times of files, for an identity: files may have been corrected since.

    Args:
        paths: See `file_state`.

    Raises:
        TomoSegError: ``manifest-missing-files``.
    """
    states = []
    for path in sorted({str(path) for path in paths}):
        try:
            states.append([path, file_state(path)])
        except OSError as error:
            raise TomoSegError(
                "manifest-missing-files",
                f"{path} is not there any more: {error.strerror}.",
                "Put it back, or correct the manifest.",
            ) from None
    return hashlib.sha256(json.dumps(states).encode()).hexdigest()


def refuse_unwritable(output: Path) -> None:
    """Refuse a folder that cannot be made, before anything takes time.

    Raises:
        TomoSegError: ``output-unwritable``.
    """
    # Not Path.exists, which raises where a folder above may not be looked into.
    above = (output, *output.absolute().parents)
    there = next((folder for folder in above if os.path.exists(folder)), None)
    problem = ""
    if there is None:
        problem = "there is no such drive"
    elif not there.is_dir():
        problem = f"{there} is a file"
    elif not os.access(there, os.W_OK | os.X_OK):
        problem = f"nothing may be written in {there}"
    if problem:
        raise TomoSegError(
            "output-unwritable",
            f"The output folder {output} cannot be used: {problem}.",
            "Choose another --output.",
        )


def load_checkpoint(training: Resumable, folder: Path, identity: Mapping[str, Any]) -> bool:
    """Bring a new training to where a checkpoint was.

    Returns:
        Whether there was one.

    Raises:
        TomoSegError: See `read_checkpoint`.
    """
    parts = read_checkpoint(folder, identity)
    if parts is None:
        return False
    try:
        training.restore(parts)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _invalid(folder / FILE, str(error).splitlines()[0]) from None
    return True


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> CheckpointParts | None:
    """Read a checkpoint, if there is one.

    Raises:
        TomoSegError: ``checkpoint-invalid`` (not a whole checkpoint) or ``checkpoint-different``
            (of another network, other data or options).
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        record, found = json.loads(metadata["state"]), json.loads(metadata["identity"])
        there = _hash(tensors, metadata["state"])
        if metadata.get("sha256", there) != there:  # earlier versions wrote none
            raise ValueError("its content has changed since it was written")
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _invalid(path, str(error)) from None
    wanted = json.loads(json.dumps(identity, sort_keys=True))
    if found != wanted:
        raise TomoSegError(
            "checkpoint-different",
            f"{folder} holds the training of something else: "
            f"{', '.join(_different(found, wanted))} changed.",
            "Choose another --output, or give --overwrite to start again.",
        )
    return CheckpointParts(tensors, record)


def _hash(tensors: Mapping[str, Tensor], state: str) -> str:
    """SHA-256 of a checkpoint's content: a wrong bit would train on unnoticed."""
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _different(found: Any, wanted: Any, prefix: str = "") -> Iterator[str]:
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted({*found, *wanted}):
            yield from _different(found.get(name), wanted.get(name), f"{prefix}{name}.")
    elif found != wanted:
        yield prefix.rstrip(".") or "all"


def _invalid(path: Path, reason: str) -> TomoSegError:
    return TomoSegError(
        "checkpoint-invalid",
        f"{path} is not a whole checkpoint of this training: {reason}.",
        "Give --overwrite to start again.",
    )


def all_finite(weights: Mapping[str, Tensor]) -> bool:
    """Whether no weight is NaN or infinite."""
    return all(
        bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point()
    )
