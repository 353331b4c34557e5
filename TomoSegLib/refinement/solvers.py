"""Ways to decide the unsure voxels from the same things: seeds, evidence and edges.

Each looks at a `Problem` and returns which of its unsure voxels, as they lie in memory, are
inside.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, sparse
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import LinearOperator, cg
from skimage.transform import downscale_local_mean

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models.card import RefinementMethod
from TomoSegLib.refinement.evidence import neighbours
from TomoSegLib.refinement.seeds import Seeds

BoolArray = npt.NDArray[np.bool_]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.intp]

LARGEST_GRAPH = 1_500_000
"""With more unsure voxels, a coarser grid decides where the border runs, and the full one where
exactly: seconds and a gigabyte."""


@dataclass(frozen=True, eq=False)
class Problem:
    """What is to be decided.

    Attributes:
        image: ``(k, j, i)`` smoothed intensities.
        seeds: What is known.
        evidence: ``(k, j, i)`` log odds of a voxel being inside, from intensity and heatmap.
        spacing: Along ``(i, j, k)``, mm.
        boundary_mm: How much a mm^2 of border counts against a mm^3 of evidence; with `geodesic`
            how long a step across an edge is.
    """

    image: Float32Array
    seeds: Seeds
    evidence: Float32Array
    spacing: Float64Array
    boundary_mm: float

    @property
    def voxel_mm3(self) -> float:
        """Volume of a voxel."""
        return float(np.prod(self.spacing))


def solve(problem: Problem, method: RefinementMethod) -> BoolArray:
    """The mask ``(k, j, i)`` of a problem: inside seeds, and what the method adds to them.

    Raises:
        TomoSegError: ``dependency-missing``.
    """
    if np.count_nonzero(problem.seeds.unsure) > LARGEST_GRAPH:
        problem = _near_border(problem, method)
    mask = problem.seeds.inside.copy()
    if problem.seeds.unsure.any():
        mask[problem.seeds.unsure] = SOLVERS[method](problem)
    return mask


def threshold(problem: Problem) -> BoolArray:
    """Each voxel by its own evidence; neighbours have no say."""
    return problem.evidence[problem.seeds.unsure] > 0


def random_walker(problem: Problem) -> BoolArray:
    """Where a random walker, who may also stop anywhere, more likely ends inside.

    L. Grady, "Multilabel random walker image segmentation using prior models", CVPR 2005: with L
    the graph's Laplacian, p the prior probability of the evidence and V a voxel's volume,
    ``(b L + V) x = b B x_seeds + V p``; inside is where ``x > 1/2``. The prior keeps the system
    well conditioned, so that conjugate gradients need few steps.
    """
    evidence = problem.evidence[problem.seeds.unsure].astype(np.float64)
    prior = 1 / (1 + np.exp(-evidence))
    first, second, weight, to_inside, to_outside = _graph(problem)
    pairs = sparse.coo_matrix((weight, (first, second)), (prior.size, prior.size)).tocsr()
    pairs = pairs + pairs.T
    volume = problem.voxel_mm3
    diagonal = np.asarray(pairs.sum(axis=1)).ravel() + to_inside + to_outside + volume
    jacobi = LinearOperator(pairs.shape, lambda x: x / diagonal)
    probability, _ = cg(
        sparse.diags(diagonal) - pairs,
        to_inside + volume * prior,
        x0=prior,
        rtol=1e-4,
        maxiter=500,
        M=jacobi,
    )
    inside: BoolArray = probability > 0.5
    return inside


def graph_cut(problem: Problem) -> BoolArray:
    """The minimum cut: least border (per mm^2) and least disregard of evidence (per mm^3).

    Y. Boykov, M.-P. Jolly, "Interactive graph cuts for optimal boundary and region segmentation
    of objects in N-D images", ICCV 2001.

    Raises:
        TomoSegError: ``dependency-missing``: PyMaxflow is not installed. It is not installed with
            the rest because its licence is the GPL.
    """
    try:
        import maxflow
    except ImportError:
        raise TomoSegError(
            "dependency-missing",
            "Refinement by graph cut needs the Python package PyMaxflow, which is not installed.",
            "Install it with: pip install PyMaxflow (GPL); or choose random-walker.",
        ) from None
    evidence = problem.evidence[problem.seeds.unsure].astype(np.float64) * problem.voxel_mm3
    first, second, weight, to_inside, to_outside = _graph(problem)
    graph = maxflow.GraphFloat(evidence.size, first.size)
    nodes = graph.add_nodes(evidence.size)
    graph.add_edges(first, second, weight, weight)
    graph.add_grid_tedges(
        nodes, np.maximum(evidence, 0) + to_inside, np.maximum(-evidence, 0) + to_outside
    )
    graph.maxflow()
    return ~np.asarray(graph.get_grid_segments(nodes), dtype=np.bool_)


def geodesic(problem: Problem) -> BoolArray:
    """Where the shortest way from an inside seed is shorter than that from an outside one.

    After X. Bai, G. Sapiro, "A geodesic framework for fast interactive image and video
    segmentation and matting", ICCV 2007. A step of h mm into a voxel that belongs to the way's
    side with probability p, by its evidence, is ``h / p + b d^2 / (2 s^2)`` long: what looks
    foreign is far, and so is what lies beyond an edge. d is the step in intensity, s^2 its mean
    square along the axis as in `neighbours`, and b `Problem.boundary_mm`. All ways are found by
    Dijkstra's algorithm.
    """
    unsure, inside = problem.seeds.unsure.ravel(), problem.seeds.inside.ravel()
    evidence = problem.evidence.ravel()[unsure].astype(np.float64)
    count = evidence.size
    number = np.full(unsure.size, -1, dtype=np.intp)
    number[unsure] = np.arange(count)
    neighbouring = list(neighbours(problem.image, problem.seeds.unsure, problem.spacing))
    found = []
    for side in (1, -1):
        foreign = 1 + np.exp(-side * evidence)  # 1 / p
        start = np.full(count, np.inf)
        tails, heads, lengths = [], [], []
        for pairs in neighbouring:
            for one, other in ((pairs.first, pairs.second), (pairs.second, pairs.first)):
                entered = unsure[other]
                tail, head = one[entered], number[other[entered]]
                length = pairs.step_mm * foreign[head]
                length -= problem.boundary_mm * np.log(pairs.likeness[entered])
                within = unsure[tail]
                seeded = ~within & (inside[tail] == (side > 0))
                np.minimum.at(start, head[seeded], length[seeded])
                tails.append(number[tail[within]])
                heads.append(head[within])
                lengths.append(length[within])
        begun = np.flatnonzero(np.isfinite(start))
        edges = sparse.coo_matrix(
            (
                np.concatenate([*lengths, start[begun]]),
                (
                    np.concatenate([*tails, np.full(begun.size, count)]),
                    np.concatenate([*heads, begun]),
                ),
            ),
            (count + 1, count + 1),
        )
        found.append(dijkstra(edges.tocsr(), indices=count)[:count])
    nearer: BoolArray = found[0] < found[1]
    return nearer


SOLVERS: dict[RefinementMethod, Callable[[Problem], BoolArray]] = {
    "threshold": threshold,
    "random-walker": random_walker,
    "geodesic": geodesic,
    "graph-cut": graph_cut,
}


def _graph(
    problem: Problem,
) -> tuple[IntArray, IntArray, Float64Array, Float64Array, Float64Array]:
    """The graph of the unsure voxels, numbered as they lie in memory.

    Returns:
        Numbers of the voxels at both ends of each edge ``(E,)``, its weight (mm^3), and for each
        voxel ``(N,)`` the summed weights of its neighbours that are inside, and outside.
    """
    unsure, inside = problem.seeds.unsure.ravel(), problem.seeds.inside.ravel()
    count = int(np.count_nonzero(unsure))
    number = np.full(unsure.size, -1, dtype=np.intp)
    number[unsure] = np.arange(count)
    to_inside, to_outside = np.zeros(count), np.zeros(count)
    firsts, seconds = [np.zeros(0, np.intp)], [np.zeros(0, np.intp)]
    weights = [np.zeros(0)]
    for pairs in neighbours(problem.image, problem.seeds.unsure, problem.spacing):
        a, b = pairs.first, pairs.second
        area = problem.voxel_mm3 / pairs.step_mm
        weight = area * pairs.likeness * np.float64(problem.boundary_mm)
        both = unsure[a] & unsure[b]
        firsts.append(number[a[both]])
        seconds.append(number[b[both]])
        weights.append(weight[both])
        for one, other in ((a, b), (b, a)):
            known = unsure[one] & ~unsure[other]
            for total, chosen in (
                (to_inside, known & inside[other]),
                (to_outside, known & ~inside[other]),
            ):
                total += np.bincount(number[one[chosen]], weight[chosen], count)
    return (
        np.concatenate(firsts),
        np.concatenate(seconds),
        np.concatenate(weights),
        to_inside,
        to_outside,
    )


def _near_border(problem: Problem, method: RefinementMethod) -> Problem:
    """The same with seeds wherever a grid of half the resolution leaves no doubt."""
    finest = problem.spacing[::-1].min()
    blocks = tuple(
        2 if size > 1 and mm < 1.9 * finest else 1
        for size, mm in zip(problem.image.shape, problem.spacing[::-1], strict=True)
    )
    shares = [
        downscale_local_mean(part.astype(np.float32), blocks)
        for part in (problem.seeds.inside, problem.seeds.outside)
    ]
    inside, outside = shares[0] > 0.5, shares[1] > 0.5
    coarse = Problem(
        downscale_local_mean(problem.image, blocks).astype(np.float32),
        Seeds(inside, ~(inside | outside)),
        downscale_local_mean(problem.evidence, blocks).astype(np.float32),
        problem.spacing * blocks[::-1],
        problem.boundary_mm,
    )
    found = solve(coarse, method)
    reach = ndimage.generate_binary_structure(3, 1)
    border = ndimage.binary_dilation(found, reach) & ~ndimage.binary_erosion(
        found, reach, border_value=1
    )
    for axis, block in enumerate(blocks):
        found, border = (np.repeat(array, block, axis) for array in (found, border))
    k, j, i = problem.image.shape
    found, border = found[:k, :j, :i], border[:k, :j, :i]
    unsure = problem.seeds.unsure & border
    settled = problem.seeds.unsure & ~border & found
    return Problem(
        problem.image,
        Seeds(problem.seeds.inside | settled, unsure),
        problem.evidence,
        problem.spacing,
        problem.boundary_mm,
    )
