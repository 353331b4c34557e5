"""Batches of a training: seeded, exact to resume, prepared by any number of processes."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

Batch = dict[str, Tensor]
Keys = list[tuple[int, int]]
"""What a step sees: for each item its place in the whole training, and its index."""


def order(
    items: int, batch_size: int, seed: int, first_step: int, last_step: int
) -> Iterator[Keys]:
    """Which items each step sees: every epoch a permutation of all.

    Args:
        items: Their number.
        batch_size: Items of a step.
        seed: Of the training.
        first_step: Step to begin with.
        last_step: Step to end before.
    """
    epoch, permutation = -1, np.empty(0, dtype=np.int64)
    for step in range(first_step, last_step):
        batch = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            if position // items != epoch:
                epoch = position // items
                permutation = np.random.default_rng((seed, 0, epoch)).permutation(items)
            batch.append((position, int(permutation[position % items])))
        yield batch


def validation_order(items: int, at_most: int, batch_size: int, seed: int) -> list[Keys]:
    """Batches of a validation: always the same items, ``at_most`` of them."""
    count = min(at_most, items)
    chosen = np.random.default_rng((seed, 3)).permutation(items)[:count]
    keys = [(position, int(index)) for position, index in enumerate(chosen)]
    return [keys[start : start + batch_size] for start in range(0, count, batch_size)]


def load(
    data: Dataset[Batch], batches: Iterable[Keys], workers: int, device: torch.device
) -> Iterator[Batch]:
    """The batches on the device; ``workers`` processes prepare them, 0 prepares them here."""
    loader = DataLoader(
        data,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=_ignore_interrupts,
        pin_memory=device.type == "cuda",
    )
    for batch in loader:
        yield {name: value.to(device, non_blocking=True) for name, value in batch.items()}


def _ignore_interrupts(worker: int) -> None:
    """Ctrl-C reaches all processes, and the first one ends the rest.

    Without this a step that is being finished would wait for a batch that never comes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
