"""Heatmaps of encoders whose answer is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.heatmaps.pipeline import HeatmapResult, compute_heatmap
from TomoSegLib.imaging.preprocessing import ModelInput
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models.card import MethodSettings, ModelCard
from TomoSegLib.models.loading import LoadedEncoder
from TomoSegLib.networks.bright_area import BrightArea

SPACING = 2.0
SIGMA = 7.0
LESION = np.array([6.0, -5.0, 4.0])  # from the head's centre, LPS mm
HEAD = 34.0

Array = npt.NDArray[Any]


@pytest.fixture(autouse=True)
def _single_thread() -> None:
    torch.set_num_threads(1)


def rotation(x: float, y: float, z: float) -> Array:
    return Rotation.from_euler("xyz", [x, y, z], degrees=True).as_matrix()


def make_card(**slices: Any) -> ModelCard:
    return ModelCard.model_validate(
        {
            "name": "analytic",
            "version": "1.0.0",
            "title": "Analytic",
            "modality": "any",
            "channels": [{"name": "image"}],
            "labels": [{"name": "blob"}],
            "network": {"target": "TomoSegLib.networks.bright_area.BrightArea"},
            "slices": {
                "spacing_mm": SPACING,
                "distance_mm": SPACING,
                "multiple": 4,
                **slices,
            },
            "training_data": {"description": "", "simulated": True},
            "license": "Apache-2.0",
            "intended_use": "",
            "files": {"weights.safetensors": "0" * 64},
        }
    )


def positions(geometry: Geometry) -> Array:
    k, j, i = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    return geometry.index_to_lps(np.stack([i, j, k], axis=-1))


def gaussian(geometry: Geometry, center: Array) -> Array:
    r = np.linalg.norm(positions(geometry) - center - LESION, axis=-1)
    return np.exp(-0.5 * (r / SIGMA) ** 2).astype(np.float32)


def head(geometry: Geometry, center: Array) -> Array:
    return np.linalg.norm(positions(geometry) - center, axis=-1) <= HEAD


def scan(source: Geometry, direction: Array | None = None, background: float = 0.0) -> ModelInput:
    """A Gaussian of height 1 in a spherical head, on a model grid that may be turned."""
    n = 2 * int(HEAD / SPACING) + 5
    direction = np.eye(3) if direction is None else direction
    origin = source.center - direction @ np.full(3, (n - 1) / 2 * SPACING)
    model = Geometry.from_parts((n, n, n), [SPACING] * 3, direction, origin)
    inside = head(model, source.center)
    image = gaussian(model, source.center) + background
    image[~inside] = background
    return ModelInput(image[None], inside, model, source, head(source, source.center))


def grid(name: str) -> Geometry:
    direction = rotation(23, -31, 57)
    return {
        "plain": Geometry.from_parts((40, 40, 40), (2.0, 2.0, 2.0)),
        "anisotropic": Geometry.from_parts((17, 82, 80), (1.0, 1.0, 5.0), origin=(-40, 12, 7)),
        "oblique": Geometry.from_parts((25, 42, 50), (1.9, 2.3, 3.7), direction, (-101, 55, 12)),
        "left-handed": Geometry.from_parts(
            (25, 42, 50), (1.9, 2.3, 3.7), direction @ np.diag([1, -1, 1]), (3, -8, 70)
        ),
    }[name]


def bright_area(offset: float = 0.0, threshold: float = 0.0, stride: int = 4) -> LoadedEncoder:
    network = BrightArea(1, threshold, SPACING**2, offset, stride)
    return LoadedEncoder(network.eval(), make_card())


def run(
    model_input: ModelInput,
    encoder: LoadedEncoder,
    method: Any = "tonno",
    cam: Any = "cam",
    settings: dict[str, Any] | None = None,
    card: ModelCard | None = None,
    **options: Any,
) -> HeatmapResult:
    values = {"directions": "fibonacci:48", "window": "none", **(settings or {})}
    return compute_heatmap(
        model_input,
        encoder,
        card or encoder.card,
        method,
        MethodSettings.model_validate(values),
        cam,
        **options,
    )


@pytest.mark.parametrize("name", ["plain", "anisotropic", "oblique", "left-handed"])
@pytest.mark.parametrize("turned", [False, True])
def test_tonno_of_the_bright_area_is_the_brightness_itself_in_absolute_scale(
    name: str, turned: bool
) -> None:
    source = grid(name)
    model_input = scan(source, rotation(-20, 35, 10) if turned else None)

    found = run(model_input, bright_area(offset=123.0), settings={"directions": "fibonacci:96"})

    expected = gaussian(source, source.center)
    inside = model_input.source_foreground
    assert found.heatmap.dtype == np.float32 and found.heatmap.shape == source.shape
    error = np.abs(found.heatmap - expected)[inside]
    assert error.max() < 0.08 and np.sqrt(np.mean(error**2)) < 0.02
    assert not found.heatmap[~inside].any() and not found.agreement[~inside].any()


def test_responses_are_the_plane_integrals_on_common_offsets() -> None:
    model_input = scan(grid("plain"))

    found = run(model_input, bright_area(offset=50.0), settings={"directions": "fibonacci:9"})

    assert found.responses.shape == (9, len(found.offsets))
    for normal, row in zip(found.directions.vectors, found.responses, strict=True):
        s = found.offsets + normal @ (found.center - model_input.source.center - LESION)
        expected = 2 * np.pi * SIGMA**2 * np.exp(-0.5 * (s / SIGMA) ** 2) - 50
        assert np.abs(row - expected).max() < 4
    assert found.responses[:, 0] == pytest.approx(-50)


def test_background_that_is_not_zero_is_emptiness_too() -> None:
    plain = run(scan(grid("plain")), bright_area(), settings={"filter_order": 1})
    card = make_card().model_copy(
        update={"preprocessing": make_card().preprocessing.model_copy(update={"background": -3.0})}
    )
    shifted = run(
        scan(grid("plain"), background=-3.0),
        bright_area(threshold=-3.0),
        settings={"filter_order": 1},
        card=card,
    )
    np.testing.assert_allclose(shifted.heatmap, plain.heatmap, atol=2e-5)


def test_a_region_of_interest_gets_the_values_of_the_whole() -> None:
    source = grid("oblique")
    model_input = scan(source)
    whole = run(model_input, bright_area())
    affine = source.affine.copy()
    affine[:3, 3] = source.index_to_lps((9, 8, 5))
    part = run(model_input, bright_area(), target=Geometry((12, 20, 30), affine))

    np.testing.assert_allclose(part.heatmap, whole.heatmap[5:17, 8:28, 9:39], atol=1e-6)
    np.testing.assert_allclose(part.agreement, whole.agreement[5:17, 8:28, 9:39], atol=1e-5)


def test_another_target_grid_shows_the_same_heatmap() -> None:
    model_input = scan(grid("plain"))
    target = Geometry.from_parts(
        (30, 30, 30), (2.5, 2.5, 2.5), rotation(5, 8, 30), (-12.0, 6.0, 5.0)
    )

    found = run(model_input, bright_area(), target=target)

    inside = np.linalg.norm(positions(target) - model_input.source.center, axis=-1) < HEAD - 4
    expected = gaussian(target, model_input.source.center)
    assert np.abs(found.heatmap - expected)[inside].max() < 0.1


def test_agreement_is_high_in_the_lesion_and_low_far_from_it() -> None:
    model_input = scan(grid("plain"))
    found = run(model_input, bright_area(), settings={"window": "hann"})

    truth = gaussian(model_input.source, model_input.source.center)
    assert found.agreement.min() >= 0 and found.agreement.max() <= 1
    assert found.agreement[truth > 0.8].min() > 0.7
    far = model_input.source_foreground & (truth < 1e-3)
    assert np.median(found.agreement[far]) < 0.2


@pytest.mark.parametrize("method", ["tonno", "averaged-cam", "tomographic-cam"])
def test_batches_do_not_change_the_heatmap(method: str) -> None:
    model_input = scan(grid("plain"))
    card = make_card(size=40)  # all slices alike: batches may span directions
    one, many = (
        run(
            model_input,
            bright_area(),
            method,
            settings={"directions": "fibonacci:7"},
            card=card,
            batch_size=size,
        )
        for size in (1, 100)
    )
    np.testing.assert_allclose(one.heatmap, many.heatmap, atol=1e-5)
    assert one.slices == many.slices


def test_the_same_run_gives_the_same_bytes() -> None:
    model_input = scan(grid("oblique"))
    first, second = (run(model_input, bright_area(), "tomographic-cam") for _ in range(2))
    assert first.heatmap.tobytes() == second.heatmap.tobytes()
    assert first.agreement.tobytes() == second.agreement.tobytes()


def test_previews_come_at_doublings_and_approach_the_heatmap() -> None:
    model_input = scan(grid("plain"))
    seen: dict[int, Array] = {}

    found = run(
        model_input,
        bright_area(),
        settings={"directions": "fibonacci:20"},
        on_preview=lambda count, compute: seen.update({count: compute()}),
    )

    assert list(seen) == [1, 2, 4, 8, 16]
    errors = [float(np.abs(preview - found.heatmap).mean()) for preview in seen.values()]
    assert errors[-1] < errors[2] < errors[0]


def test_progress_counts_slices_up_to_their_total() -> None:
    seen: list[tuple[int, int]] = []
    found = run(
        scan(grid("plain")),
        bright_area(),
        settings={"directions": "orthogonal"},
        batch_size=10,
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (found.slices, found.slices)
    assert all(total == found.slices for _, total in seen)


def test_empty_slices_are_not_encoded_but_answered_once_per_shape() -> None:
    class Counting(BrightArea):
        slices = 0

        def forward(self, x: Tensor) -> Tensor:
            Counting.slices += len(x)
            return super().forward(x)

    network = Counting(1, 0.0, SPACING**2, 0.0, 4)
    encoder = LoadedEncoder(network.eval(), make_card())
    Counting.slices = 0
    found = run(scan(grid("plain")), encoder, card=make_card(size=40))

    assert Counting.slices == found.slices + 1
    assert found.slices < found.responses.size


def test_a_run_ends_at_the_next_batch_when_cancelled() -> None:
    batches = []

    with pytest.raises(TomoSegError) as caught:
        run(
            scan(grid("plain")),
            bright_area(),
            batch_size=4,
            on_progress=lambda done, total: batches.append(done),
            should_cancel=lambda: len(batches) == 3,
        )

    assert caught.value.code == "cancelled"
    assert batches == [4, 8, 12]


class Forgetful(BrightArea):
    """Has room for a limited number of slices."""

    room = 10**6

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp:114] can't allocate memory")
        return super().forward(x)


def test_a_full_memory_halves_the_batch_and_says_so() -> None:
    model_input = scan(grid("plain"))
    network = Forgetful(1, 0.0, SPACING**2, 0.0, 4)
    encoder = LoadedEncoder(network.eval(), make_card())
    network.room = 5
    warnings: list[str] = []

    found = run(
        model_input,
        encoder,
        batch_size=32,
        on_warning=lambda code, message: warnings.append(code),
    )

    assert set(warnings) == {"memory-batch-halved"}
    assert found.batch_size <= 5
    np.testing.assert_allclose(
        found.heatmap, run(model_input, bright_area(), batch_size=32).heatmap, atol=1e-5
    )


def test_a_memory_without_room_for_one_slice_is_an_error() -> None:
    network = Forgetful(1, 0.0, SPACING**2, 0.0, 4)
    encoder = LoadedEncoder(network.eval(), make_card())
    network.room = 0
    with pytest.raises(TomoSegError) as caught:
        run(scan(grid("plain")), encoder, batch_size=4)
    assert caught.value.code == "out-of-memory"


def test_a_gpu_without_room_for_one_slice_gives_way_to_the_cpu() -> None:
    class Elsewhere(LoadedEncoder):
        """Pretends to lie on a GPU that is full."""

        def to(self, device: torch.device | str) -> LoadedEncoder:
            self.device = torch.device(device)
            return self

        def logits(self, x: Tensor) -> Tensor:
            if self.device.type != "cpu":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().logits(x)

    # "meta" tensors would hold no numbers, so only the ladder itself is tried here.
    from TomoSegLib.heatmaps.responses import StackEncoder
    from TomoSegLib.heatmaps.tonno import logit_evaluator
    from TomoSegLib.tomography.planes import foreground_runs, plane_stack

    model_input = scan(grid("plain"))
    encoder = Elsewhere(BrightArea(1, 0.0, 4.0, 0.0, 4).eval(), make_card())
    encoder.device = torch.device("xpu")
    runs = foreground_runs(model_input.foreground, model_input.geometry)
    stack = plane_stack((0, 0, 1), model_input.geometry, runs, encoder.card.slices)
    warnings: list[str] = []
    slices = StackEncoder(
        encoder,
        torch.from_numpy(model_input.image),
        model_input.geometry,
        0.0,
        logit_evaluator(encoder),
        batch_size=4,
        on_warning=lambda code, message: warnings.append(code),
    )
    encoded = slices._encode([stack], [(0, np.arange(10, 14))])[0]

    assert warnings == ["memory-batch-halved", "memory-batch-halved", "memory-device-cpu"]
    assert encoder.device.type == "cpu" and encoded.shape == (4,)


def test_an_error_that_is_not_about_memory_is_not_hidden() -> None:
    class Broken(BrightArea):
        broken = False

        def forward(self, x: Tensor) -> Tensor:
            if self.broken:
                raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
            return super().forward(x)

    network = Broken(1, 0.0, 4.0, 0.0, 4)
    encoder = LoadedEncoder(network.eval(), make_card())
    network.broken = True
    with pytest.raises(RuntimeError, match="mat1"):
        run(scan(grid("plain")), encoder)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    class Sick(BrightArea):
        def forward(self, x: Tensor) -> Tensor:
            # Fails on the sphere's slices only: their corners are exactly zero.
            return super().forward(x) / (x[:, 0, 0, 0] != 0).float()

    encoder = LoadedEncoder(Sick(1, 0.0, 4.0, 0.0, 4).eval(), make_card())
    with pytest.raises(TomoSegError) as caught:
        run(scan(grid("plain")), encoder)
    assert caught.value.code == "response-not-finite"


# Activation maps


class PlaneConstant(nn.Module):
    """Maps of one pixel: constant in plane, and their only value is the logit but for a bias."""

    def features(self, x: Tensor) -> Tensor:
        return x.clamp(min=0).sum(dim=(2, 3), keepdim=True).sqrt()  # saturates with area

    def class_activation_map(self, features: Tensor) -> Tensor:
        return 3.0 * features[:, 0]

    def head(self, features: Tensor) -> Tensor:
        return self.class_activation_map(features).sum(dim=(1, 2)) - 7.0

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


@pytest.mark.parametrize("order", [0.0, 0.5, 1.0, 2.0])
def test_tomographic_cam_is_tonno_where_maps_are_constant_in_plane(order: float) -> None:
    encoder = LoadedEncoder(PlaneConstant().eval(), make_card())
    model_input = scan(grid("oblique"))
    settings = {"filter_order": order, "window": "hann", "cutoff": 0.8}

    tonno = run(model_input, encoder, settings=settings)
    tomographic = run(model_input, encoder, "tomographic-cam", settings=settings)

    # The profile's table is rounded to 1/64 of a slice distance, see Backprojector.
    peak = np.abs(tonno.heatmap).max()
    assert peak > 0
    assert np.abs(tomographic.heatmap - tonno.heatmap).max() < 0.01 * peak
    assert np.abs(tomographic.agreement - tonno.agreement).mean() < 0.01


@pytest.mark.parametrize("name", ["plain", "oblique", "left-handed"])
def test_averaged_cam_of_a_local_encoder_is_its_local_evidence(name: str) -> None:
    source = grid(name)
    model_input = scan(source)
    # Without strides the map of a slice is the brightness in it, times the pixel's area.
    found = run(model_input, bright_area(stride=1), "averaged-cam", card=make_card(multiple=1))

    inside = np.linalg.norm(positions(source) - source.center, axis=-1) < HEAD - 4
    expected = SPACING**2 * gaussian(source, source.center)
    # Slices and maps are interpolated linearly, which costs a Gaussian this narrow 4% of its peak.
    assert np.abs(found.heatmap - expected)[inside].max() < 0.05 * SPACING**2


def test_maps_of_strided_encoders_lie_where_the_evidence_is() -> None:
    source = grid("plain")
    model_input = scan(source)
    found = run(model_input, bright_area(stride=4), "averaged-cam")

    weights = found.heatmap.clip(min=0.3 * found.heatmap.max()) - 0.3 * found.heatmap.max()
    centroid = (positions(source) * weights[..., None]).sum(axis=(0, 1, 2)) / weights.sum()
    assert np.linalg.norm(centroid - source.center - LESION) < 0.5


def test_cam_on_one_orientation_lights_the_lesion_in_axial_slices() -> None:
    source = grid("plain")
    model_input = scan(source)
    found = run(
        model_input,
        bright_area(stride=1),
        "cam",
        settings={"directions": "axial"},
        card=make_card(multiple=1),
    )
    expected = SPACING**2 * gaussian(source, source.center)
    inside = np.linalg.norm(positions(source) - source.center, axis=-1) < HEAD - 4
    # Slices and maps are interpolated linearly, which costs a Gaussian this narrow 4% of its peak.
    assert np.abs(found.heatmap - expected)[inside].max() < 0.05 * SPACING**2
    assert len(found.directions) == 1
    # One direction agrees with itself, wherever it says yes.
    assert found.agreement[expected > 1].min() > 0.999


def test_cam_on_three_orientations_is_the_mean_of_the_three() -> None:
    model_input = scan(grid("plain"))
    axes = ("axial", "coronal", "sagittal")
    singles = [
        run(model_input, bright_area(), "cam", settings={"directions": axis}).heatmap
        for axis in axes
    ]
    together = run(model_input, bright_area(), "cam", settings={"directions": "orthogonal"})
    np.testing.assert_allclose(together.heatmap, np.mean(singles, axis=0), atol=1e-5)


@pytest.mark.parametrize("cam", ["gradcam", "gradcam++", "layercam"])
@pytest.mark.parametrize("rectified", [False, True])
def test_every_kind_of_map_finds_the_lesion(cam: str, rectified: bool) -> None:
    source = grid("plain")
    model_input = scan(source)
    found = run(
        model_input,
        bright_area(threshold=0.3),
        "averaged-cam",
        cam,
        settings={"rectified": rectified, "directions": "fibonacci:12"},
    )
    peak = np.unravel_index(found.heatmap.argmax(), source.shape)
    distance = np.linalg.norm(source.index_to_lps(peak[::-1]) - source.center - LESION)
    assert found.heatmap.max() > 0 and distance < 8


def test_an_encoder_without_features_can_do_tonno_only() -> None:
    class LogitOnly(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(dim=(1, 2, 3))

    encoder = LoadedEncoder(torch.jit.script(LogitOnly()).eval(), make_card())
    model_input = scan(grid("plain"))
    assert run(model_input, encoder).heatmap.max() > 0
    for method in ("cam", "averaged-cam", "tomographic-cam"):
        with pytest.raises(TomoSegError) as caught:
            run(model_input, encoder, method)
        assert caught.value.code == "method-not-supported"
