"""Iterative reconstruction from plane integrals: CGLS, SIRT and FISTA.

Encoder responses are plane integrals only up to an unknown offset (and perhaps a slow trend) of
each direction, to which filtered backprojection of order 2 is blind and least squares is not. So
all three minimise over what is left when these are projected out of every profile,

    minimise || P (R f - q) ||^2,

with P the orthogonal projection that removes mean or line from each row.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from TomoSegLib.tomography.radon import PlaneRadon

Detrend = Literal["none", "mean", "linear"]
Progress = Callable[[int, int], None]


def remove_trends(profiles: Tensor, detrend: Detrend, weights: Tensor | None = None) -> Tensor:
    """Project the mean, or the line, out of each row.

    Args:
        profiles: ``(A, S)``.
        detrend: What to remove.
        weights: ``(A, S)`` non-negative: the inner product in which the projection is orthogonal.

    Returns:
        ``(A, S)``.
    """
    if detrend == "none":
        return profiles
    weights = torch.ones_like(profiles) if weights is None else weights
    total = weights.sum(dim=1, keepdim=True).clamp(min=1e-30)
    result = profiles - (weights * profiles).sum(dim=1, keepdim=True) / total
    if detrend == "linear":
        s = torch.linspace(-1, 1, profiles.shape[1], dtype=profiles.dtype, device=profiles.device)
        s = s - (weights * s).sum(dim=1, keepdim=True) / total
        power = (weights * s * s).sum(dim=1, keepdim=True).clamp(min=1e-30)
        result = result - (weights * s * result).sum(dim=1, keepdim=True) / power * s
    return result


def cgls(
    operator: PlaneRadon,
    responses: Tensor,
    *,
    iterations: int = 20,
    detrend: Detrend = "mean",
    on_progress: Progress | None = None,
) -> Tensor:
    """Conjugate gradients on the normal equations; few iterations regularise.

    Args:
        operator: The plane-Radon transform.
        responses: ``(A, S)`` plane integrals.
        iterations: How many; noise comes in with too many.
        detrend: What is unknown of each row.
        on_progress: Called with iterations done and in all.

    Returns:
        ``(K, J, I)``.
    """
    residual = remove_trends(responses.to(operator.device, operator.dtype), detrend)
    gradient = operator.adjoint(residual)  # P is symmetric, and the residual is in its range
    volume = torch.zeros_like(gradient)
    direction = gradient.clone()
    norm = _square(gradient)
    for done in range(iterations):
        if norm == 0:
            break
        image = remove_trends(operator.forward(direction), detrend)
        step = norm / max(_square(image), 1e-300)
        volume.add_(direction, alpha=step)
        residual.sub_(image, alpha=step)
        gradient = operator.adjoint(residual)
        norm, before = _square(gradient), norm
        direction.mul_(norm / before).add_(gradient)
        if on_progress is not None:
            on_progress(done + 1, iterations)
    return volume


def sirt(
    operator: PlaneRadon,
    responses: Tensor,
    *,
    iterations: int = 50,
    detrend: Detrend = "mean",
    nonnegative: bool = False,
    on_progress: Progress | None = None,
) -> Tensor:
    """Simultaneous iterative reconstruction, ``f += C R* P' W P (q - R f)``.

    W and C are the inverse row and column sums of R, and P is orthogonal in the inner product of
    W, with which the iteration converges for every P.

    Args:
        operator: The plane-Radon transform.
        responses: ``(A, S)`` plane integrals.
        iterations: How many.
        detrend: What is unknown of each row.
        nonnegative: Whether to clip at zero in every iteration.
        on_progress: Called with iterations done and in all.

    Returns:
        ``(K, J, I)``.
    """
    ones = torch.ones(operator.geometry.shape, dtype=operator.dtype, device=operator.device)
    rows = operator.forward(ones)
    columns = operator.adjoint(torch.ones_like(rows))
    # Planes that all but miss the support say nothing: their weight would be huge.
    weight = torch.where(rows > 1e-3 * rows.max(), 1 / rows.clamp(min=1e-30), 0)
    scale = torch.where(columns > 0, 1 / columns.clamp(min=1e-30), 0)
    target = responses.to(operator.device, operator.dtype)
    volume = torch.zeros_like(ones)
    for done in range(iterations):
        residual = remove_trends(target - operator.forward(volume), detrend, weight)
        volume.add_(scale * operator.adjoint(weight * residual))
        if nonnegative:
            volume.clamp_(min=0)
        if on_progress is not None:
            on_progress(done + 1, iterations)
    return volume


def fista(
    operator: PlaneRadon,
    responses: Tensor,
    *,
    iterations: int = 50,
    detrend: Detrend = "mean",
    nonnegative: bool = True,
    tv: float = 0.0,
    on_progress: Progress | None = None,
) -> Tensor:
    """Accelerated proximal gradients (Beck and Teboulle 2009), non-negative, with total variation.

    Minimises ``1/2 ||P (R f - q)||^2 + tv L TV(f)``, f >= 0, where L is the largest eigenvalue of
    ``R* P R``, so that ``tv`` is in the units of f whatever the operator: about 0.001 of the
    contrast sought, more with noise. The momentum restarts when it points uphill (O'Donoghue and
    Candes 2015). The proximal map of the sum is approximated by that of TV (Chambolle's, from
    scikit-image), then clipping.

    Args:
        operator: The plane-Radon transform.
        responses: ``(A, S)`` plane integrals.
        iterations: How many.
        detrend: What is unknown of each row.
        nonnegative: Whether f >= 0.
        tv: Weight of the isotropic total variation over voxels; 0 for none. Runs on the CPU.
        on_progress: Called with iterations done and in all.

    Returns:
        ``(K, J, I)``.
    """
    target = remove_trends(responses.to(operator.device, operator.dtype), detrend)
    lipschitz = _largest_eigenvalue(operator, detrend)
    volume = torch.zeros(operator.geometry.shape, dtype=operator.dtype, device=operator.device)
    point, momentum = volume, 1.0
    for done in range(iterations):
        residual = remove_trends(operator.forward(point), detrend) - target
        new = point - operator.adjoint(residual) / lipschitz
        if tv > 0:
            new = _tv_proximal(new, tv)
        if nonnegative:
            new.clamp_(min=0)
        if float(torch.sum((point - new) * (new - volume))) > 0:
            momentum = 1.0
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        point = new + (momentum - 1) / following * (new - volume)
        volume, momentum = new, following
        if on_progress is not None:
            on_progress(done + 1, iterations)
    return volume


def _tv_proximal(volume: Tensor, weight: float) -> Tensor:
    from skimage.restoration import denoise_tv_chambolle

    array = volume.cpu().numpy()
    smooth = denoise_tv_chambolle(array, weight=weight, max_num_iter=20)
    return torch.from_numpy(np.ascontiguousarray(smooth)).to(volume)


def _largest_eigenvalue(operator: PlaneRadon, detrend: Detrend, iterations: int = 8) -> float:
    """Of ``R* P R`` by power iteration, with a margin for what that underestimates."""
    generator = torch.Generator().manual_seed(0)
    vector = torch.rand(operator.geometry.shape, generator=generator).to(
        operator.device, operator.dtype
    )
    value = 0.0
    for _ in range(iterations):
        vector = vector / max(_square(vector), 1e-300) ** 0.5
        vector = operator.adjoint(remove_trends(operator.forward(vector), detrend))
        value = _square(vector) ** 0.5
    return 1.05 * value if value else 1.0


def _square(tensor: Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor)) ** 2
