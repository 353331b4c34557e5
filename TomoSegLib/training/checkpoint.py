"""Checkpoints from which training goes on exactly where it was; safetensors, never a pickle."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from TomoSegLib.errors import TomoSegError
from TomoSegLib.training.weak_supervision import Trainer, TrainingState

FILE = "checkpoint.safetensors"


def save_checkpoint(trainer: Trainer, folder: Path, identity: Mapping[str, Any]) -> None:
    """Write everything that the next step depends on, atomically.

    Args:
        trainer: The training so far.
        folder: Where ``checkpoint.safetensors`` is written or replaced.
        identity: What the training is of (data, options, network): a checkpoint is only ever
            continued by a run of the same identity.
    """
    tensors: dict[str, Tensor] = {}
    for group, values in (
        ("network", trainer.network.state_dict()),
        ("averaged", trainer.averaged),
        ("best", trainer.best),
    ):
        tensors.update({f"{group}/{name}": value for name, value in values.items()})
    for index, moments in trainer.optimizer.state_dict()["state"].items():
        tensors.update({f"optimizer/{index}/{name}": value for name, value in moments.items()})
    if trainer.pending_losses:
        tensors["losses"] = torch.stack(trainer.pending_losses)
    metadata = {
        "state": json.dumps(asdict(trainer.state)),
        "identity": json.dumps(identity, sort_keys=True),
    }
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}"
    try:
        # Contiguous copies on the CPU: the same tensor may stand in two groups.
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(copies, temporary, metadata)
        os.replace(temporary, folder / FILE)
    finally:
        temporary.unlink(missing_ok=True)


def load_checkpoint(trainer: Trainer, folder: Path, identity: Mapping[str, Any]) -> bool:
    """Bring a new trainer to where a checkpoint was.

    Returns:
        Whether there was one.

    Raises:
        TomoSegError: ``checkpoint-invalid`` (not a whole checkpoint, or of another network) or
            ``checkpoint-different`` (of other data or options).
    """
    path = folder / FILE
    if not path.exists():
        return False
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no dict
        state, found = json.loads(metadata["state"]), json.loads(metadata["identity"])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise _invalid(path, str(error)) from None
    wanted = json.loads(json.dumps(identity, sort_keys=True))
    if found != wanted:
        changed = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
        raise TomoSegError(
            "checkpoint-different",
            f"{folder} holds the training of something else: {', '.join(changed)} changed.",
            "Choose another --output, or give --overwrite to start again.",
        )
    try:
        trainer.network.load_state_dict(_group(tensors, "network"))
        for group, values in (("averaged", trainer.averaged), ("best", trainer.best)):
            saved = _group(tensors, group)
            for name, value in values.items():
                value.copy_(saved[name])
        optimizer = trainer.optimizer.state_dict()
        for name, value in _group(tensors, "optimizer").items():
            index, _, moment = name.partition("/")
            optimizer["state"].setdefault(int(index), {})[moment] = value
        trainer.optimizer.load_state_dict(optimizer)
        trainer.state = TrainingState(**state)
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise _invalid(path, str(error)) from None
    if "losses" in tensors:
        trainer.pending_losses = list(tensors["losses"].to(trainer.device))
    return True


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = prefix + "/"
    return {k[len(start) :]: v for k, v in tensors.items() if k.startswith(start)}


def _invalid(path: Path, reason: str) -> TomoSegError:
    return TomoSegError(
        "checkpoint-invalid",
        f"{path} is not a whole checkpoint of this network: {reason}",
        "Give --overwrite to start again.",
    )
