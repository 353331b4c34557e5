"""The pretext tasks that those of planes are compared with: rotation and restoration of 2D images.

* ``rotation``: by which of 0, 90, 180 and 270 degrees an image was turned (Gidaris et al. 2018).
  Only the part of it that covers itself when it is turned is shown, so that the shape of the field
  of view tells nothing.
* ``restoration``: an image from what the transforms of Models Genesis made of it, in 2D.

They know nothing of geometry, and learn from every image of a study, recognised or not. Network,
crops, augmentation and training are those of the plane tasks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from TomoSegLib.files import atomic_path
from TomoSegLib.networks.unet2d import LocationNetwork
from TomoSegLib.pretraining.planes_data import PlaneDataset, PlaneExample
from TomoSegLib.pretraining.planes_targets import (
    PlaneOptions,
    crop_plane,
    sample_image,
    standardised,
    varied_contrast,
)
from TomoSegLib.pretraining.transforms import BLOCKS, GenesisTransforms
from TomoSegLib.training.loader import Batch

ROTATION, RESTORATION = "rotation", "restoration"
BASELINES = (ROTATION, RESTORATION)
QUARTER_TURNS = 4

# How often each pixel lies in a shuffled block, about as for the cubes of Models Genesis.
_COVERAGE = 2.0
_BATCH = 8


class BaselineDataset(PlaneDataset):
    """Images and targets of a baseline; keys and randomness are as in `PlaneDataset`.

    An item has ``image`` ``(1, S, S)``, and

    * for rotation ``label``: the quarter turns, counter-clockwise,
    * for restoration ``target`` ``(1, S, S)``, standardised, and ``inside`` ``(1, S, S)``, 1 in
      the field of view. The image is standardised by the same mean and deviation.

    Args:
        examples: The images.
        options: See `PlaneOptions`.
        task: ``rotation`` or ``restoration``.
        seed: As in `PlaneDataset`. Without, turns and transforms follow from the image's index.
    """

    def __init__(
        self,
        examples: Sequence[PlaneExample],
        options: PlaneOptions,
        task: str,
        seed: tuple[int, ...] | None = None,
    ) -> None:
        super().__init__(examples, options, seed)
        self._task = task
        self._transforms = GenesisTransforms(flip=0.0, blocks=shuffled_blocks(options.side))

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor]:
        position, index = key
        example, options = self.examples[index], self._options
        rng = None if self._seed is None else np.random.default_rng((*self._seed, position))
        target = crop_plane(example.plane, options, rng)
        image, inside = sample_image(example.image, example.plane, target)
        if self._task == RESTORATION:
            clean = np.clip(image, 0, 1)
            # A cube of one slice: what is three-dimensional in the transforms has no effect.
            changed, _ = self._transforms(clean[None, None], rng or np.random.default_rng(index))
            values = clean[inside] if inside.any() else clean
            mean, scale = float(values.mean()), max(float(values.std()), 1e-6)
            return {
                "image": torch.from_numpy(((changed[0] - mean) / scale).astype(np.float32)),
                "target": torch.from_numpy(((clean[None] - mean) / scale).astype(np.float32)),
                "inside": torch.from_numpy(inside[None].astype(np.float32)),
            }
        turned = [np.rot90(inside, turns) for turns in range(QUARTER_TURNS)]
        visible = np.logical_and.reduce(turned)
        image = standardised((image * visible).astype(np.float32), visible)
        label = index % QUARTER_TURNS if rng is None else int(rng.integers(QUARTER_TURNS))
        image = np.rot90(image, label).copy()
        if rng is not None:
            image = varied_contrast(image, options, rng)
        return {"image": torch.from_numpy(image[None]), "label": torch.tensor(label)}


def shuffled_blocks(side: int) -> int:
    """Blocks to shuffle in an image: as many as cover it twice. This project's choice.

    The 10,000 of a cube would leave nothing of an image.
    """
    mean = (1 + max(side // 10, 1)) / 2
    return max(1, min(round(_COVERAGE * (side / mean) ** 2), BLOCKS))


def baseline_loss(network: LocationNetwork, task: str, batch: Batch) -> Tensor:
    """Cross-entropy of the turns, or mean squared error within the field of view."""
    if task == ROTATION:
        return F.cross_entropy(network.answer(batch["image"]).float(), batch["label"])
    restored = network.network(batch["image"]).float()
    return _squared_error(restored, batch).mean()


def _squared_error(image: Tensor, batch: Batch) -> Tensor:
    """``(B,)`` mean squared errors within the field of view."""
    inside = batch["inside"]
    errors = ((image - batch["target"]).square() * inside).sum(dim=(1, 2, 3))
    return errors / inside.sum(dim=(1, 2, 3)).clamp_min(1.0)


def report_baseline(
    network: LocationNetwork,
    task: str,
    examples: Sequence[PlaneExample],
    options: PlaneOptions,
    drawn: Sequence[int],
    path: Path,
) -> dict[str, Any]:
    """How well a baseline was learned, and a picture of some images.

    Args:
        network: The network.
        task: The baseline.
        examples: Images to measure on.
        options: See `PlaneOptions`.
        drawn: Indices of the images that are drawn.
        path: Of the picture.

    Returns:
        For rotation the ``accuracy``, beside that of a guess; for restoration the
        ``mean_squared_error``, in variances of an image, beside that of the transformed image.
    """
    data = BaselineDataset(examples, options, task)
    device = next(network.parameters()).device
    network.eval()
    figures: list[float] = []
    untouched: list[float] = []
    pictures: list[tuple[str, list[Any]]] = []
    with torch.no_grad():
        for start in range(0, len(examples), _BATCH):
            indices = range(start, min(start + _BATCH, len(examples)))
            items = [data[(0, index)] for index in indices]
            batch = {
                name: torch.stack([item[name] for item in items]).to(device) for name in items[0]
            }
            if task == ROTATION:
                found = network.answer(batch["image"]).argmax(dim=1)
                figures += (found == batch["label"]).float().tolist()
            else:
                found = network.network(batch["image"]).float()
                figures += _squared_error(found, batch).tolist()
                untouched += _squared_error(batch["image"], batch).tolist()
            for index in set(indices) & set(drawn):
                item, answer = items[index - start], found[index - start].cpu()
                if task == ROTATION:
                    title = f"turned {90 * int(item['label'])}, told {90 * int(answer)}"
                    pictures.append((title, [item["image"][0]]))
                else:
                    shown = [item["image"][0], answer[0], item["target"][0]]
                    pictures.append(("given, restored, true", shown))
    _draw(pictures, path)
    mean = round(float(np.mean(figures)), 4)
    if task == ROTATION:
        return {
            ROTATION: {
                "images": len(figures),
                "accuracy": mean,
                "accuracy_of_guess": 1 / QUARTER_TURNS,
            }
        }
    return {
        RESTORATION: {
            "images": len(figures),
            "mean_squared_error": mean,
            "of_transformed": round(float(np.mean(untouched)), 4),
        }
    }


def _draw(pictures: Sequence[tuple[str, Sequence[Tensor]]], path: Path) -> None:
    """A column for each image, from top to bottom."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count, rows = len(pictures), len(pictures[0][1])
    figure = Figure(
        figsize=(2.3 * count + 0.2, 2.3 * rows + 0.4), facecolor="black", layout="constrained"
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, count, squeeze=False)
    for n, (title, images) in enumerate(pictures):
        low, high = np.percentile(images[-1].numpy(), (1, 99.5))
        for row, image in enumerate(images):
            axes[row, n].imshow(image.numpy(), cmap="gray", vmin=low, vmax=high)
            axes[row, n].set_axis_off()
        axes[0, n].set_title(title, color="#e8e8e8", fontsize=7)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, dpi=120, facecolor="black", format="png")
