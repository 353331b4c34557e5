"""The one data loader of all pretext tasks: seeded, exact to resume, any number of processes."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from TomoSegLib.pretraining.cubes import CubePool
from TomoSegLib.pretraining.tasks import Preparation

Batch = dict[str, Tensor]


class CubeDataset(Dataset[Batch]):
    """Cubes as a task wants them; what is random follows from the place in the training alone.

    Args:
        pool: The cubes.
        prepare: A task's, see `PretextTask`.
        seed: Of the randomness.
    """

    def __init__(self, pool: CubePool, prepare: Preparation, seed: tuple[int, ...]) -> None:
        self.pool, self._prepare, self._seed = pool, prepare, seed

    def __getitem__(self, key: tuple[int, int]) -> Batch:
        position, index = key
        cube = self.pool[index]
        prepared = self._prepare(cube, np.random.default_rng((*self._seed, position)))
        prepared["scale"] = np.array(cube.scale)
        prepared["modality"] = np.array(cube.modality)
        return {name: torch.from_numpy(np.asarray(v, order="C")) for name, v in prepared.items()}


def order(
    cubes: int, batch_size: int, seed: int, first_step: int, last_step: int
) -> Iterator[list[tuple[int, int]]]:
    """Which cubes each step sees: every epoch a permutation of all.

    Args:
        cubes: Number of cubes.
        batch_size: Cubes of a step.
        seed: Of the training.
        first_step: Step to begin with.
        last_step: Step to end before.

    Yields:
        For each step, the place in the whole training and the cube's index of each cube.
    """
    epoch, permutation = -1, np.empty(0, dtype=np.int64)
    for step in range(first_step, last_step):
        batch = []
        for position in range(step * batch_size, (step + 1) * batch_size):
            if position // cubes != epoch:
                epoch = position // cubes
                permutation = np.random.default_rng((seed, 0, epoch)).permutation(cubes)
            batch.append((position, int(permutation[position % cubes])))
        yield batch


def ignore_interrupts(worker: int = 0) -> None:
    """In a process that prepares data: Ctrl-C reaches all of them, and the first one ends the rest.

    Without this a step that is being finished would wait for a batch that never comes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
