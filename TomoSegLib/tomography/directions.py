"""Sets of plane normals with quadrature weights, and the order in which to use them.

A plane has two unit normals, ``n`` and ``-n``, so a direction is a point of the projective plane:
neighbourhoods, weights and orders here are those of the set together with its antipodes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, SphericalVoronoi

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.volume import FloatArray

_MAXIMUM = 10_000
_SAME = 1e-5  # sine of the angle below which two directions count as the same
_KINDS = (
    "Use axial, coronal, sagittal, orthogonal, icosahedral:N, fibonacci:N or the path of a file "
    "with one LPS vector of three numbers a line."
)


@dataclass(frozen=True, eq=False)
class DirectionSet:
    """Plane normals and their shares of the sphere.

    Attributes:
        vectors: ``(A, 3)`` unit normals, LPS.
        weights: ``(A,)`` quadrature weights, positive, of sum 1: a mean over all directions of the
            sphere is approximated by ``sum_i weights[i] g(vectors[i])`` for even g.
        name: The specification it came from, e.g. ``fibonacci:64``.
    """

    vectors: FloatArray
    weights: FloatArray
    name: str

    def __len__(self) -> int:
        return len(self.vectors)

    def in_progressive_order(self) -> DirectionSet:
        """The same directions in an order of which every prefix is nearly uniform."""
        order = progressive_order(self.vectors)
        return DirectionSet(self.vectors[order], self.weights[order], self.name)


def parse_directions(spec: str) -> DirectionSet:
    """The directions named by a specification.

    * ``axial``, ``coronal``, ``sagittal``: the one orientation.
    * ``orthogonal``: these three.
    * ``icosahedral:N``: the 5 N^2 + 1 axes of an icosahedron whose edges are divided into N.
    * ``fibonacci:N``: N directions, ``z = (i + 1/2) / N``, ``phi = pi (1 + sqrt 5) i``: nearly
      uniform on the hemisphere for every N.
    * Anything else is the path of a file of LPS vectors, which need not have unit length: text or
      CSV (three numbers a line, ``#`` starts a comment), JSON (a list of lists, or an object with
      ``vectors``) or ``.npy``.

    Weights are the areas of the spherical Voronoi cells.

    Raises:
        TomoSegError: ``directions-invalid`` if the specification or the file makes no sense.
    """
    kind, _, argument = spec.strip().partition(":")
    kind = kind.lower()
    axes = {"sagittal": [0], "coronal": [1], "axial": [2], "orthogonal": [2, 1, 0]}
    if kind in axes and not argument:
        return _direction_set(np.eye(3)[axes[kind]], spec)
    if kind in ("fibonacci", "icosahedral"):
        limit = _MAXIMUM if kind == "fibonacci" else 44
        if not argument.isdecimal() or not 1 <= int(argument) <= limit:
            raise TomoSegError(
                "directions-invalid",
                f"The directions '{spec}' are not {kind}:N with N from 1 to {limit}.",
                f"For example {'fibonacci:64' if kind == 'fibonacci' else 'icosahedral:3'}.",
            )
        number = int(argument)
        vectors = fibonacci_hemisphere(number) if kind == "fibonacci" else icosahedral_axes(number)
        return _direction_set(vectors, spec)
    return _direction_set(_read_vectors(Path(spec)), spec)


def fibonacci_hemisphere(count: int) -> FloatArray:
    """``(count, 3)`` nearly uniform unit vectors with positive z."""
    i = np.arange(count)
    z = (i + 0.5) / count
    phi = np.pi * (1 + np.sqrt(5)) * i
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(phi), radius * np.sin(phi), z], axis=1)


def icosahedral_axes(frequency: int) -> FloatArray:
    """The ``5 N^2 + 1`` axes of the geodesic icosahedron whose edges are divided into N.

    N = 1 gives the six axes through opposite corners of the icosahedron.
    """
    golden = (1 + np.sqrt(5)) / 2
    corners = np.array(
        [np.roll((0.0, a, b * golden), roll) for roll in range(3) for a in (1, -1) for b in (1, -1)]
    )
    faces = corners[ConvexHull(corners).simplices]
    shares = np.array(
        [(a, b, frequency - a - b) for a in range(frequency + 1) for b in range(frequency + 1 - a)]
    )
    points = np.einsum("pc,fcx->fpx", shares / frequency, faces).reshape(-1, 3)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    # One of each antipodal pair, by the sign of the first coordinate from the top that is not
    # zero; corners and edges shared by faces come several times.
    upper = points.round(9) + 0.0
    z, y, x = upper[:, 2], upper[:, 1], upper[:, 0]
    keep = (z > 0) | ((z == 0) & ((y > 0) | ((y == 0) & (x > 0))))
    _, first = np.unique(upper[keep], axis=0, return_index=True)
    return np.asarray(points[keep][np.sort(first)])


def quadrature_weights(vectors: npt.ArrayLike) -> FloatArray:
    """Shares of the sphere: areas of the Voronoi cells of the vectors and their antipodes.

    Args:
        vectors: ``(A, 3)`` unit vectors, no two of which are parallel.

    Returns:
        ``(A,)`` of sum 1. Directions in one plane get the widths of their lunes.
    """
    v = np.asarray(vectors, dtype=np.float64)
    if len(v) <= 2:
        return np.full(len(v), 1 / len(v))
    _, singular, axes = np.linalg.svd(v, full_matrices=False)
    if singular[2] < 1e-4 * singular[0]:
        angle = np.arctan2(v @ axes[1], v @ axes[0]) % np.pi
        order = np.argsort(angle)
        gaps = np.diff(angle[order], append=angle[order[0]] + np.pi)
        areas = np.empty(len(v))
        areas[order] = (gaps + np.roll(gaps, 1)) / 2
    else:
        voronoi = SphericalVoronoi(np.concatenate([v, -v]), radius=1.0, threshold=_SAME / 2)
        voronoi.sort_vertices_of_regions()
        areas = voronoi.calculate_areas()[: len(v)]
    return np.asarray(areas / areas.sum())


def progressive_order(vectors: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """An order of directions of which every prefix is nearly uniform.

    Starts with the direction closest to the body's long axis; then each time takes the direction
    that repels those taken least, by the energy ``sum 1 / sin^2`` of the angles between them (this
    project's choice: its prefixes cover the sphere, and balance, better than farthest-point
    sampling; their covering radius is within 1.3 of a Fibonacci set of the same size).

    Args:
        vectors: ``(A, 3)`` unit vectors, no two of which are parallel.

    Returns:
        ``(A,)`` indices, a permutation.
    """
    v = np.asarray(vectors, dtype=np.float64)
    order = np.empty(len(v), dtype=np.int64)
    order[0] = np.argmax(np.abs(v[:, 2]))
    energy = np.zeros(len(v))
    energy[order[0]] = np.inf
    for position in range(1, len(v)):
        sine2 = 1.0 - (v @ v[order[position - 1]]) ** 2
        energy += 1.0 / np.maximum(sine2, 1e-12)
        # Rounded, so that symmetric sets do not hang on the last bit of a sum.
        order[position] = np.argmin(energy.round(9))
        energy[order[position]] = np.inf
    return order


def _direction_set(vectors: FloatArray, name: str) -> DirectionSet:
    return DirectionSet(vectors, quadrature_weights(vectors), name)


def _read_vectors(path: Path) -> FloatArray:
    """Unit vectors from a text, CSV, JSON or npy file."""

    def invalid(reason: str, hint: str = _KINDS) -> TomoSegError:
        return TomoSegError("directions-invalid", f"The directions '{path}': {reason}.", hint)

    if not path.is_file():
        raise invalid("neither a known set nor a file")
    if path.stat().st_size > 200 * _MAXIMUM:
        raise invalid(f"the file is too large for at most {_MAXIMUM} vectors")
    try:
        if path.suffix.lower() == ".npy":
            loaded = np.load(path, allow_pickle=False)
        elif path.suffix.lower() == ".json":
            loaded = json.loads(path.read_text(encoding="utf-8-sig"))
            loaded = loaded["vectors"] if isinstance(loaded, dict) else loaded
        else:
            lines = (
                line.partition("#")[0].replace(",", " ").replace(";", " ").split()
                for line in path.read_text(encoding="utf-8-sig").splitlines()
            )
            loaded = [[float(number) for number in line] for line in lines if line]
        vectors = np.array(loaded, dtype=np.float64)
    except (ValueError, TypeError, KeyError, OSError, EOFError, RecursionError) as error:
        raise invalid(f"not vectors of three numbers ({error})") from error

    if vectors.ndim != 2 or vectors.shape[1] != 3 or not 1 <= len(vectors) <= _MAXIMUM:
        raise invalid(f"not one to {_MAXIMUM} vectors of three numbers")
    lengths = np.linalg.norm(vectors, axis=1)
    if not np.all(np.isfinite(lengths)) or lengths.min() < 1e-6:
        raise invalid("a vector has no direction", "Remove vectors that are zero or not finite.")
    vectors /= lengths[:, None]
    for i, vector in enumerate(vectors[:-1]):
        sines = np.linalg.norm(np.cross(vectors[i + 1 :], vector), axis=1)
        if sines.min() < _SAME:
            raise invalid(
                f"vectors {i + 1} and {i + 2 + int(sines.argmin())} are parallel",
                "Name each plane once: n and -n are the same planes.",
            )
    return vectors
