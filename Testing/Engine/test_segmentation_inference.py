"""A segmenter's window moved over a scan: what it sees, what is passed over, and too little memory.

The networks are single convolutions whose answer is known.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.imaging.preprocessing import ModelInput
from TomoSegLib.imaging.volume import Geometry
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.card import ModelCard
from TomoSegLib.models.segmenter import LoadedSegmenter
from TomoSegLib.segmentation.inference import WindowPasses, predict
from TomoSegLib.segmentation.labelmap import to_source

SHAPE = (20, 27, 33)


def make_card(channels: int = 1, labels: int = 1, **window: Any) -> ModelCard:
    fields = tiny_blob.card_fields() | {"files": {"weights.safetensors": "0" * 64}}
    for name in ("slices", "method", "methods"):
        del fields[name]
    fields |= {
        "task": "segmentation",
        "channels": [{"name": f"channel-{n}"} for n in range(channels)],
        "labels": [{"name": f"label {n + 1}", "value": n + 1} for n in range(labels)],
        "sliding_window": {"roi_size": (8, 12, 16), **window},
    }
    return ModelCard.model_validate(fields)


def convolution(channels: int = 1, outputs: int = 2, side: int = 1) -> nn.Conv3d:
    torch.manual_seed(3)
    return nn.Conv3d(channels, outputs, side, padding=side // 2).eval()


def scan(
    channels: int = 1,
    shape: tuple[int, int, int] = SHAPE,
    foreground: npt.NDArray[np.bool_] | None = None,
) -> ModelInput:
    """Noise on a grid that is the scan's own."""
    rng = np.random.default_rng(5)
    geometry = Geometry.from_parts(shape, (2.0, 2.0, 2.0), origin=(-7, 3, 11))
    if foreground is None:
        foreground = np.ones(shape, dtype=np.bool_)
    image = rng.normal(0, 1, (channels, *shape)).astype(np.float32)
    image[:, ~foreground] = 0
    return ModelInput(image, foreground, geometry, geometry, foreground)


def whole(network: nn.Module, model_input: ModelInput) -> npt.NDArray[np.float32]:
    """The network's probabilities of the whole scan in one pass."""
    with torch.no_grad():
        logits = network(torch.from_numpy(model_input.image)[None])[0]
    return np.asarray(torch.softmax(logits, 0).numpy())


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.6])
def test_windows_give_what_one_pass_over_the_whole_scan_gives(mode: str, overlap: float) -> None:
    network = convolution(channels=2, outputs=3)
    segmenter = LoadedSegmenter(network, make_card(2, 2, mode=mode, overlap=overlap))
    model_input = scan(2)
    told: list[tuple[int, int]] = []
    found = predict(model_input, segmenter, on_progress=lambda *done: told.append(done))
    np.testing.assert_allclose(found.probabilities, whole(network, model_input), atol=1e-5)
    assert found.probabilities.shape == (3, *SHAPE)
    assert told[-1] == (found.windows, found.windows)  # the total is right from the beginning
    assert {total for _, total in told} == {found.windows}


def test_sigmoid_takes_each_output_by_itself() -> None:
    network = convolution(outputs=2)
    segmenter = LoadedSegmenter(network, make_card(1, 2, activation="sigmoid"))
    model_input = scan()
    with torch.no_grad():
        expected = torch.sigmoid(network(torch.from_numpy(model_input.image)[None]))[0].numpy()
    np.testing.assert_allclose(predict(model_input, segmenter).probabilities, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 27, 33), (1, 1, 1), (7, 11, 15)])
def test_a_scan_smaller_than_a_window_is_padded_and_cut_again(shape: tuple[int, int, int]) -> None:
    network = convolution(side=3)
    model_input = scan(shape=shape)
    found = predict(model_input, LoadedSegmenter(network, make_card()))
    assert found.probabilities.shape == (2, *shape)
    if max(shape) < 16:  # one window: the convolution pads with zeros, the card's background
        np.testing.assert_allclose(found.probabilities, whole(network, model_input), atol=1e-5)


def test_windows_without_foreground_are_passed_over_and_nothing_else_changes() -> None:
    foreground = np.zeros(SHAPE, dtype=np.bool_)
    foreground[12:15, 2:6, 20:31] = True
    foreground[3, 20, 4] = True
    model_input = scan(foreground=foreground)
    segmenter = LoadedSegmenter(convolution(side=3), make_card())
    found = predict(model_input, segmenter)
    everywhere = ModelInput(
        model_input.image,
        np.ones_like(foreground),
        model_input.geometry,
        model_input.source,
        model_input.source_foreground,
    )
    whole_scan = predict(everywhere, segmenter)
    assert 0 < found.windows < whole_scan.windows / 2
    np.testing.assert_allclose(
        found.probabilities[:, foreground], whole_scan.probabilities[:, foreground], atol=1e-6
    )


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_what_is_passed_over_is_background(activation: str) -> None:
    foreground = np.zeros(SHAPE, dtype=np.bool_)
    foreground[0, 0, 0] = True
    outputs = {"outputs": [2, 1, 0] if activation == "softmax" else [2, 1]}
    card = make_card(labels=2, activation=activation, **outputs)
    segmenter = LoadedSegmenter(convolution(outputs=len(card.outputs)), card)
    found = predict(scan(foreground=foreground), segmenter)
    far = found.probabilities[:, -5:, -5:, -5:]
    assert np.allclose(far[:2], 0) and np.allclose(far[2:], 1)


def test_a_part_has_the_values_of_the_whole_and_needs_fewer_windows() -> None:
    model_input = scan()
    segmenter = LoadedSegmenter(convolution(side=3), make_card())
    inside = np.zeros(SHAPE, dtype=np.bool_)
    inside[4:8, 9:14, 17:25] = True
    part, all_of_it = predict(model_input, segmenter, inside), predict(model_input, segmenter)
    assert 0 < part.windows < all_of_it.windows / 2
    grids = (model_input.geometry, model_input.source)
    of_part, labels = to_source(part.probabilities, *grids, inside, segmenter.card)
    of_all, all_labels = to_source(
        all_of_it.probabilities, *grids, np.ones_like(inside), segmenter.card
    )
    np.testing.assert_allclose(of_part[inside], of_all[inside], atol=1e-6)
    assert np.array_equal(labels[inside], all_labels[inside]) and not labels[~inside].any()


def test_a_part_without_foreground_is_an_error() -> None:
    nothing = np.zeros(SHAPE, dtype=np.bool_)
    with pytest.raises(TomoSegError, match="foreground-empty"):
        predict(scan(), LoadedSegmenter(convolution(), make_card()), nothing)


class Forgetful(nn.Module):
    """A network whose memory suffices for so many windows at a time."""

    def __init__(self, room: int, error: Exception) -> None:
        super().__init__()
        self.inner = convolution()
        self.room = room
        self.error = error
        self.passes: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.passes.append(len(x))
        if len(x) > self.room:
            raise self.error
        return self.inner(x)


MEMORY_ERRORS = [
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
]


@pytest.mark.parametrize("error", MEMORY_ERRORS, ids=lambda error: type(error).__name__)
def test_too_little_memory_halves_the_passes_and_says_so(error: Exception) -> None:
    network = Forgetful(2, error)
    model_input = scan()
    warnings: list[tuple[str, str]] = []
    found = predict(
        model_input,
        LoadedSegmenter(network.eval(), make_card()),
        batch_size=9,
        on_warning=lambda *warning: warnings.append(warning),
    )
    np.testing.assert_allclose(found.probabilities, whole(network.inner, model_input), atol=1e-5)
    assert [code for code, _ in warnings] == ["memory-batch-halved"] * 2  # 9, 4, 2
    assert "9 windows" in warnings[0][1] and "with 4" in warnings[0][1]
    assert found.batch_size == 2 and max(network.passes[2:]) == 2  # it does not try 9 again


def test_no_memory_for_a_single_window_is_an_error_after_all_steps() -> None:
    warnings: list[str] = []
    with pytest.raises(TomoSegError) as caught:
        predict(
            scan(),
            LoadedSegmenter(Forgetful(0, MemoryError()).eval(), make_card()),
            batch_size=4,
            on_warning=lambda code, message: warnings.append(code),
        )
    assert caught.value.code == "out-of-memory" and caught.value.hint
    assert warnings == ["memory-batch-halved", "memory-batch-halved"]


class Elsewhere(LoadedSegmenter):
    """Pretends to lie on a GPU that is full; the CPU has room for one window at a time."""

    def to(self, device: torch.device | str) -> LoadedSegmenter:
        self.device = torch.device(device)
        return self

    def logits(self, x: Tensor) -> Tensor:
        if self.device.type != "cpu":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return super().logits(x)


@pytest.mark.parametrize("room", [1, 0])
def test_a_full_gpu_gives_way_to_the_cpu_whose_end_is_the_end(
    room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    segmenter = Elsewhere(Forgetful(room, MemoryError()).eval(), make_card())
    segmenter.device = torch.device("xpu")
    monkeypatch.setattr(Tensor, "to", lambda self, device: self)  # there is no such device here
    warnings: list[str] = []
    passes = WindowPasses(segmenter, 2, lambda code, message: warnings.append(code))
    windows = torch.randn(4, 1, 8, 12, 16)
    steps = ["memory-batch-halved", "memory-device-cpu", "memory-batch-halved"]
    if room:
        assert passes(windows).shape == (4, 2, 8, 12, 16)
        assert warnings == steps and passes.largest == 1 and str(segmenter.device) == "cpu"
    else:
        with pytest.raises(TomoSegError, match="out-of-memory"):
            passes(windows)
        assert warnings[:2] == steps[:2]


class Wrong(nn.Module):
    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (lambda x: x, "model-network-invalid"),  # one output where two are expected
        (lambda x: x.mean((2, 3, 4)), "model-network-invalid"),
        (lambda x: [x, x], "model-network-invalid"),
        (lambda x: x[..., ::2].repeat(1, 2, 1, 1, 1), "model-network-invalid"),
        (lambda x: x.reshape(3, 7), "model-network-invalid"),
        (lambda x: torch.cat([x, x / 0], 1), "response-not-finite"),
    ],
)
def test_a_network_that_answers_something_else_is_refused(answer: Any, code: str) -> None:
    segmenter = LoadedSegmenter(Wrong(answer), make_card())
    for use in (segmenter.check, lambda: predict(scan(), segmenter)):
        with pytest.raises(TomoSegError) as caught:
            use()
        assert caught.value.code == code and "\n" not in caught.value.message


def test_a_network_left_in_training_mode_is_noticed() -> None:
    network = nn.Sequential(convolution(), nn.BatchNorm3d(2)).train()
    with pytest.raises(TomoSegError, match="training mode"):
        LoadedSegmenter(network, make_card()).check()
    LoadedSegmenter(network.eval(), make_card()).check()
