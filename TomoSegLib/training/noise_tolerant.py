"""A loss for labels that are partly wrong and partly unknown."""

from __future__ import annotations

import torch
from monai.losses import DiceLoss
from monai.networks import one_hot
from torch import Tensor, nn

from TomoSegLib.training.pseudo_labels import UNSURE


class NoiseTolerantLoss(nn.Module):
    r"""Soft Dice and generalised cross-entropy over the voxels that are known.

    .. math:: L = L_{Dice} + \frac{1}{|K|} \sum_{x \in K} \frac{1 - p_{y(x)}(x)^q}{q}

    with K the voxels whose class is not `UNSURE`. At q = 1 the second term is the mean absolute
    error, which forgives wrong labels; towards q = 0 it becomes cross-entropy, which learns faster
    (Z. Zhang, M. Sabuncu, "Generalized cross entropy loss for training deep neural networks with
    noisy labels", NeurIPS 2018; their q is the default).

    Args:
        exponent: q, in (0, 1].
    """

    def __init__(self, exponent: float = 0.7) -> None:
        super().__init__()
        self.exponent = exponent
        self.dice = DiceLoss(include_background=False, batch=True)

    def forward(self, logits: Tensor, classes: Tensor) -> Tensor:
        """The loss.

        Args:
            logits: ``(B, K, ...)``, the background first.
            classes: ``(B, 1, ...)`` integers below K, or `UNSURE`.
        """
        known = classes != UNSURE
        target = one_hot(classes.masked_fill(~known, 0), logits.shape[1]) * known
        probability = torch.softmax(logits, dim=1) * known
        of_target = (probability * target).sum(dim=1, keepdim=True)
        # The power's gradient has no limit at 0; what is unknown has probability 0 here.
        errors = (1 - of_target.clamp_min(1e-6) ** self.exponent) / self.exponent
        mean = (errors * known).sum() / known.sum().clamp_min(1)
        loss: Tensor = self.dice(probability, target) + mean
        return loss
