"""What a network is asked during pre-training: one class a pretext task.

All tasks are given the same cubes by the same loader and train the same U-Net; they differ in what
they make of a cube (`PretextTask.prepare`, in the loader's processes) and in the loss. Here is
restoration, with or without scale discrimination; `TomoSegLib.pretraining.baselines` has the
others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset

from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.cubes import Cube, CubePool
from TomoSegLib.pretraining.transforms import GenesisTransforms
from TomoSegLib.training.loader import Batch

SPREAD = "restored spread"

Prepared = dict[str, npt.NDArray[np.generic]]
Preparation = Callable[[Cube, np.random.Generator], Prepared]


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


@dataclass
class Outcome:
    """What a task makes of a batch.

    Attributes:
        losses: Scalars by name, not weighted.
        levels: The encoder's levels of the batch, which the adversary looks at; their first axis
            may hold several pieces of each cube.
        figures: Other scalars worth watching, such as accuracies.
    """

    losses: dict[str, Tensor]
    levels: Sequence[Tensor]
    figures: dict[str, Tensor] = field(default_factory=dict)


class PretextTask(nn.Module, ABC):
    """A pretext task: its heads are its parameters.

    Attributes:
        trains_decoder: Whether the U-Net's decoder takes part.
        prepare: Makes arrays of a cube that are stacked to batches. It runs in the loader's
            processes, so it is a function of a module, with nothing of the network in it.
    """

    trains_decoder = False
    prepare: Preparation

    def seen(self, batch: Mapping[str, Tensor]) -> Tensor:
        """What the network is given of a batch."""
        return batch["image"]

    @abstractmethod
    def run(self, network: UNet3D, batch: Mapping[str, Tensor]) -> Outcome:
        """Losses of a batch."""


class Restoration(PretextTask):
    """Restore cubes that were transformed as in Models Genesis; tell their scale as well.

    The scale-aware module is global average pooling of the deepest level and two fully connected
    layers. The output passes a sigmoid, as in Models Genesis, since cubes lie in [0, 1]; its
    spread over the batch's voxels is told too, which is zero where the sigmoid is saturated.

    Args:
        channels: Channels of the deepest level.
        scales: Number of scales to tell apart; below two there is no scale head.
        transforms: The transforms.
    """

    trains_decoder = True

    def __init__(
        self, channels: int, scales: int, transforms: GenesisTransforms | None = None
    ) -> None:
        super().__init__()
        self.prepare = partial(_to_restore, transforms or GenesisTransforms())
        self.scale_head: nn.Module | None = None
        if scales >= 2:
            self.scale_head = nn.Sequential(
                nn.Linear(channels, max(8, channels // 2)),
                nn.ReLU(),
                nn.Linear(max(8, channels // 2), scales),
            )

    def run(self, network: UNet3D, batch: Mapping[str, Tensor]) -> Outcome:
        levels = network.encode(self.seen(batch))
        restored = torch.sigmoid(network.decode(levels).float())
        outcome = Outcome({"restoration": F.mse_loss(restored, batch["target"])}, levels)
        outcome.figures[SPREAD] = restored.detach().std()
        if self.scale_head is not None:
            logits = self.scale_head(pooled(levels)).float()
            outcome.losses["scale"] = F.cross_entropy(logits, batch["scale"])
            outcome.figures["scale accuracy"] = accuracy(logits, batch["scale"])
        return outcome


def _to_restore(transforms: GenesisTransforms, cube: Cube, rng: np.random.Generator) -> Prepared:
    image, target = transforms(cube.image, rng)
    return {"image": image, "target": target}


def pooled(levels: Sequence[Tensor]) -> Tensor:
    """``(B, F)``: the deepest level, averaged over space."""
    return levels[-1].mean(dim=(2, 3, 4))


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Share of rows whose highest logit is the label's."""
    return (logits.argmax(dim=1) == labels).float().mean().detach()
