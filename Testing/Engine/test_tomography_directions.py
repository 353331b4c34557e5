"""Direction sets: uniformity, weights, order, files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.tomography.directions import (
    parse_directions,
    progressive_order,
    quadrature_weights,
)

PROBES = np.random.default_rng(0).standard_normal((4000, 3))
PROBES /= np.linalg.norm(PROBES, axis=1, keepdims=True)


def covering_radius(vectors: np.ndarray) -> float:
    """Largest angle from any direction to the closest of the set, antipodes included."""
    return float(np.arccos(np.abs(PROBES @ vectors.T).max(axis=1).clip(0, 1)).max())


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        ("axial", 1),
        ("coronal", 1),
        ("sagittal", 1),
        ("orthogonal", 3),
        ("icosahedral:1", 6),
        ("icosahedral:2", 21),
        ("icosahedral:3", 46),
        ("fibonacci:1", 1),
        ("fibonacci:2", 2),
        ("fibonacci:64", 64),
        ("fibonacci:1000", 1000),
    ],
)
def test_a_set_has_unit_vectors_and_positive_weights_of_sum_one(spec: str, count: int) -> None:
    directions = parse_directions(spec)
    assert directions.vectors.shape == (count, 3)
    assert directions.name == spec
    np.testing.assert_allclose(np.linalg.norm(directions.vectors, axis=1), 1, atol=1e-12)
    assert directions.weights.min() > 0
    assert directions.weights.sum() == pytest.approx(1, abs=1e-12)
    gram = np.abs(directions.vectors @ directions.vectors.T) - np.eye(count)
    assert gram.max() < 1 - 1e-6, "a direction comes twice"


def test_axial_is_the_body_axis() -> None:
    np.testing.assert_array_equal(parse_directions("axial").vectors, [[0, 0, 1]])


def test_icosahedral_weights_obey_the_symmetry() -> None:
    np.testing.assert_allclose(parse_directions("icosahedral:1").weights, 1 / 6, atol=1e-9)
    weights = parse_directions("icosahedral:2").weights
    assert len(np.unique(weights.round(6))) == 2


def test_sets_cover_the_sphere_nearly_uniformly() -> None:
    for spec in ("fibonacci:64", "icosahedral:4"):
        directions = parse_directions(spec)
        # A hexagonal lattice of A points on the hemisphere covers with about this radius.
        ideal = np.sqrt(2 * np.pi / len(directions) * 2 / (3 * np.sqrt(3)))
        assert covering_radius(directions.vectors) < 1.35 * ideal


def test_weights_integrate_even_polynomials_over_non_uniform_sets() -> None:
    random = np.random.default_rng(5)
    vectors = random.standard_normal((400, 3)) * (0.7, 0.7, 1.4)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    moments = np.einsum("a,ai,aj->ij", quadrature_weights(vectors), vectors, vectors)
    plain = np.einsum("ai,aj->ij", vectors, vectors) / len(vectors)
    assert np.abs(moments - np.eye(3) / 3).max() < 0.01
    assert np.abs(plain - np.eye(3) / 3).max() > 0.1


def test_directions_in_one_plane_share_it_by_angle() -> None:
    angle = np.radians([0, 30, 90, 100])
    vectors = np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    vectors[1] *= -1
    weights = quadrature_weights(vectors)
    np.testing.assert_allclose(weights, np.array([55, 45, 35, 45]) / 180, atol=1e-9)


@pytest.mark.parametrize("spec", ["fibonacci:64", "fibonacci:128", "icosahedral:3"])
def test_every_prefix_of_the_progressive_order_is_nearly_uniform(spec: str) -> None:
    directions = parse_directions(spec).in_progressive_order()
    ratios = {}
    for count in range(3, len(directions) + 1):
        uniform = covering_radius(parse_directions(f"fibonacci:{count}").vectors)
        ratios[count] = covering_radius(directions.vectors[:count]) / uniform
    assert max(ratios.values()) < 1.35, ratios
    assert np.mean(list(ratios.values())) < 1.15
    # What the order is for: the set's own order is far from it.
    own = parse_directions(spec).vectors[:16]
    if spec.startswith("fibonacci"):
        assert covering_radius(own) > 1.5 * covering_radius(directions.vectors[:16])


def test_the_progressive_order_is_a_permutation_that_starts_at_the_body_axis() -> None:
    vectors = parse_directions("fibonacci:50").vectors
    order = progressive_order(vectors)
    assert sorted(order) == list(range(50))
    assert np.abs(vectors[:, 2]).argmax() == order[0]
    flipped = vectors * np.random.default_rng(0).choice([-1, 1], size=(50, 1))
    np.testing.assert_array_equal(progressive_order(flipped), order)


def test_files_of_every_kind_give_the_same_directions(tmp_path: Path) -> None:
    vectors = np.array([[2.0, 0, 0], [0, -1, 0], [1, 1, 1], [0, 0, 0.5]])
    text = tmp_path / "Richtungen für A.txt"
    text.write_text("# LPS\n" + "\n".join(" ".join(map(str, v)) for v in vectors) + "\n\n", "utf-8")
    csv = tmp_path / "d.csv"
    csv.write_text("\n".join(",".join(map(str, v)) for v in vectors))
    listed, keyed = tmp_path / "list.json", tmp_path / "keyed.json"
    listed.write_text(json.dumps(vectors.tolist()))
    keyed.write_text(json.dumps({"vectors": vectors.tolist()}))
    npy = tmp_path / "d.npy"
    np.save(npy, vectors)
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for path in (text, csv, listed, keyed, npy):
        directions = parse_directions(str(path))
        np.testing.assert_allclose(directions.vectors, expected, atol=1e-12)
        assert directions.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "1 2\n",
        "1 2 3\n4 5\n",
        "a b c\n",
        "0 0 0\n",
        "1 0 0\nnan 1 0\n",
        "1 0 0\n0 1 0\n-2 0 0\n",
        "1e-300 0 0\n",
    ],
)
def test_a_file_that_holds_no_directions_is_an_error(tmp_path: Path, content: str) -> None:
    path = tmp_path / "d.txt"
    path.write_text(content)
    with pytest.raises(TomoSegError) as caught:
        parse_directions(str(path))
    assert caught.value.code == "directions-invalid"


@pytest.mark.parametrize(
    "spec", ["fibonacci", "fibonacci:0", "fibonacci:-3", "fibonacci:x", "fibonacci:99999",
             "icosahedral:0", "axial:3", "", "nowhere.txt", "."],
)  # fmt: skip
def test_a_specification_that_means_nothing_is_an_error(spec: str) -> None:
    with pytest.raises(TomoSegError) as caught:
        parse_directions(spec)
    assert caught.value.code == "directions-invalid"


def test_a_pickle_in_a_file_of_directions_is_never_loaded(tmp_path: Path) -> None:
    path = tmp_path / "d.npy"
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(TomoSegError) as caught:
        parse_directions(str(path))
    assert caught.value.code == "directions-invalid"
