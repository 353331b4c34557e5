"""How much of the modality is left in a network's features: a linear probe on frozen features.

A modality-invariant adversary works if a classifier that is trained afterwards, on features that no
longer change, tells CT from MR worse than without it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.metrics import volume_auc
from TomoSegLib.networks.unet3d import UNet3D
from TomoSegLib.pretraining.cubes import CubePool

FloatArray = npt.NDArray[np.float64]

_RIDGE = 1e-2  # on standardised features; keeps the fit finite where classes can be separated
_STEPS = 100


@dataclass(frozen=True)
class ProbeResult:
    """What a probe found on cubes that it was not fitted to.

    Attributes:
        accuracy: Mean of the shares of CT and of MR cubes that it told right; 0.5 is chance.
        auc: Area under the ROC curve.
        cubes: Number of cubes.
    """

    accuracy: float
    auc: float
    cubes: int


def modality_probe(
    network: UNet3D, pool: CubePool, level: int = 4, folds: int = 5, batch_size: int = 16
) -> ProbeResult:
    """Tell CT from MR by logistic regression on pooled features of one of the encoder's levels.

    Cubes are taken as they are, without transforms. Whole volumes are held out in turn where each
    modality has two or more; else the places of the cubes are, which shares the scanner.

    Args:
        network: The U-Net; it is left in evaluation mode.
        pool: Cubes of both modalities.
        level: The encoder's level, 4 the deepest.
        folds: Parts of the cross-validation at most.
        batch_size: Cubes at a time.

    Raises:
        TomoSegError: ``probe-one-modality``.
    """
    modality = pool.table[:, 3]
    if len(set(modality.tolist())) < 2:
        raise TomoSegError(
            "probe-one-modality",
            "The cubes are all of one modality: there is nothing to tell.",
            "Give a manifest with CT and MR volumes.",
        )
    features = pooled_features(network, pool, level, batch_size)
    fold = _folds(pool, folds)
    scores = np.empty(len(modality))
    for number in np.unique(fold):
        test = fold == number
        scores[test] = _logistic(features[~test], modality[~test], features[test])
    right = (scores > 0) == (modality > 0)
    return ProbeResult(
        float(np.mean([right[modality == m].mean() for m in (0, 1)])),
        volume_auc(modality.tolist(), scores.tolist()),
        len(modality),
    )


@torch.no_grad()
def pooled_features(
    network: UNet3D, pool: CubePool, level: int = 4, batch_size: int = 16
) -> FloatArray:
    """``(N, F)``: an encoder level's features of every cube, averaged over space."""
    network.eval()
    device = next(network.parameters()).device
    rows: list[Tensor] = []
    for start in range(0, len(pool), batch_size):
        cubes = [pool[n].image for n in range(start, min(start + batch_size, len(pool)))]
        levels = network.encode(torch.from_numpy(np.stack(cubes)).to(device))
        rows.append(levels[level].mean(dim=(2, 3, 4)).double().cpu())
    found: FloatArray = torch.cat(rows).numpy()
    return found


def _folds(pool: CubePool, folds: int) -> npt.NDArray[np.int64]:
    """A number for each cube: of the part in which it is held out."""
    file, place, modality = pool.table[:, 0], pool.table[:, 1], pool.table[:, 3]
    volumes = [sorted(set(file[modality == m].tolist())) for m in (0, 1)]
    least = min(len(names) for names in volumes)
    if least < 2:
        return place % folds
    rank = {name: n for names in volumes for n, name in enumerate(names)}
    return np.array([rank[name] % min(folds, least) for name in file.tolist()])


def _logistic(
    features: FloatArray, labels: npt.NDArray[np.int64], others: FloatArray
) -> FloatArray:
    """Logits of other rows by a ridge-penalised logistic regression with balanced classes."""
    mean, scale = features.mean(axis=0), features.std(axis=0)
    scale[scale < 1e-12] = 1.0
    x = torch.from_numpy((features - mean) / scale)
    y = torch.from_numpy(labels > 0).double()
    share = float(y.mean())
    balance = torch.where(y > 0, 0.5 / share, 0.5 / (1 - share))
    weights = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weights], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = x @ weights[:-1] + weights[-1]
        loss = F.binary_cross_entropy_with_logits(logits, y, weight=balance)
        loss = loss + _RIDGE * weights[:-1].square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    found = weights.detach().numpy()
    logits: FloatArray = (others - mean) / scale @ found[:-1] + found[-1]
    return logits
