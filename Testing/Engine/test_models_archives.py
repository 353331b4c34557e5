"""TorchScript and torch.export files: those that work, and those that would do more than work."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.archives import load_exported, load_torchscript
from TomoSegLib.models.loading import LoadedEncoder, load_encoder


class Small(nn.Module):
    """A network with batch norm, an in-place ReLU and a linear head after mean pooling."""

    def __init__(self, with_features: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 1)
        self.with_features = with_features

    def forward(self, x: Tensor) -> Any:
        features = F.relu(self.norm(self.conv(x)), inplace=True)
        logits = self.head(features.mean(dim=(2, 3)))
        return (logits, features) if self.with_features else logits


class SmallLogits(Small):
    """The same for TorchScript, which wants one type of output."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


def small(kind: type[Small] = Small, **arguments: Any) -> Small:
    torch.manual_seed(0)
    network = kind(**arguments)
    network(torch.randn(4, 1, 32, 32))
    return network.eval()


def exported(network: nn.Module) -> bytes:
    sizes = {0: torch.export.Dim("b", max=4096)} | {
        axis: 2 * torch.export.Dim(f"half{axis}", min=4, max=512) for axis in (2, 3)
    }
    program = torch.export.export(
        network, (torch.zeros(2, 1, 32, 48),), dynamic_shapes=(sizes,), strict=False
    )
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def program() -> bytes:
    return exported(small())


def scripted(network: nn.Module, trace: bool = False) -> bytes:
    buffer = io.BytesIO()
    script: Any = torch.jit.trace(network, torch.zeros(2, 1, 32, 48)) if trace else None
    torch.jit.save(script if trace else torch.jit.script(network), buffer)
    return buffer.getvalue()


def saved(folder: Path, content: bytes, kind: str) -> Path:
    folder.mkdir()
    card = tiny_blob.card_fields()
    card["network"] = {"format": kind, "file": "network.bin"}
    card["files"] = {"network.bin": hashlib.sha256(content).hexdigest()}
    (folder / "network.bin").write_bytes(content)
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def assert_same(encoder: LoadedEncoder, network: Small) -> None:
    """The loaded encoder has the logits, the gradients and the linear head of the network."""
    x = torch.randn(3, 1, 40, 64)
    with torch.no_grad():
        expected, features_expected = network(x)
    torch.testing.assert_close(encoder.logits(x), expected[:, 0])
    logits, features = encoder.forward_with_features(x)
    torch.testing.assert_close(features.detach(), features_expected)
    (gradient,) = torch.autograd.grad(logits.sum(), features)
    pixels = features.shape[2] * features.shape[3]
    weights = network.head.weight[0].detach()
    torch.testing.assert_close(gradient[1, :, 3, 2] * pixels, weights)
    head = encoder.linear_head()
    assert head is not None and head.pooling == "mean"
    torch.testing.assert_close(head.weights, weights, rtol=1e-4, atol=1e-5)
    maps = encoder.class_activation_map(features).sum(dim=(1, 2)) + head.bias
    torch.testing.assert_close(maps, logits, rtol=1e-4, atol=1e-5)


def test_an_exported_program_is_the_network_it_was(tmp_path: Path, program: bytes) -> None:
    assert_same(load_encoder(saved(tmp_path / "m", program, "export")), small())


def test_a_traced_module_is_the_network_it_was(tmp_path: Path) -> None:
    content = scripted(small(), trace=True)
    assert_same(load_encoder(saved(tmp_path / "m", content, "torchscript")), small())


def test_archives_that_give_logits_only_work_without_activation_maps(tmp_path: Path) -> None:
    network = small(SmallLogits)
    x = torch.randn(2, 1, 32, 32)
    for kind, content in (("torchscript", scripted(network)), ("export", exported(network))):
        encoder = load_encoder(saved(tmp_path / kind, content, kind))
        torch.testing.assert_close(encoder.logits(x), network(x)[:, 0].detach())
        assert not encoder.supports_cam


def test_a_scripted_network_of_monai_loads(tmp_path: Path) -> None:
    from monai.networks.nets import ResNet

    network = ResNet("basic", [1, 1, 1, 1], [4, 8, 8, 16], 2, n_input_channels=1, num_classes=1)
    content = scripted(network.eval())
    encoder = load_encoder(saved(tmp_path / "m", content, "torchscript"))
    x = torch.randn(2, 1, 64, 64)
    torch.testing.assert_close(encoder.logits(x), network(x)[:, 0].detach())


def test_a_program_that_was_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    content = exported(small().train())
    with pytest.raises(TomoSegError) as caught:
        load_encoder(saved(tmp_path / "m", content, "export"))
    assert caught.value.code in ("model-network-invalid", "model-archive-refused")


def test_weights_in_an_archive_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = small()
    with torch.no_grad():
        network.conv.weight[0, 0, 0, 0] = float("inf")
    for kind, content in (
        ("torchscript", scripted(network, trace=True)),
        ("export", exported(network)),
    ):
        with pytest.raises(TomoSegError) as caught:
            load_encoder(saved(tmp_path / kind, content, kind))
        assert caught.value.code == "model-weights-invalid"


# From here on: hostile files. A canary tells whether anything in them ran.


class Bomb:
    """A pickle of this makes a folder when it is opened."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.canary),)


def rewritten(content: bytes, change: Callable[[dict[str, bytes]], None]) -> bytes:
    """The archive with its members changed; they are named without the folder they lie in."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = archive.namelist()[0].partition("/")[0]
        members = {n.partition("/")[2]: archive.read(n) for n in archive.namelist()}
    change(members)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{root}/{name}", data)
    return buffer.getvalue()


def changed_json(name: str, change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    def apply(members: dict[str, bytes]) -> None:
        document = json.loads(members[name])
        change(document)
        members[name] = json.dumps(document).encode()

    return apply


def graph_change(change: Callable[[Any], None]) -> Callable[[dict[str, bytes]], None]:
    return changed_json("models/model.json", lambda d: change(d["graph_module"]["graph"]))


def set_shape_expressions(value: Any, text: str) -> int:
    """Put a text in the place of every shape expression in a document; how many there were."""
    count = 0
    if isinstance(value, dict):
        if "expr_str" in value:
            value["expr_str"] = text
            count += 1
        value = list(value.values())
    if isinstance(value, list):
        count += sum(set_shape_expressions(inner, text) for inner in value)
    return count


def test_rewriting_alone_does_not_make_an_archive_hostile(program: bytes) -> None:
    load_exported(rewritten(program, lambda members: None), "network.pt2")
    load_torchscript(rewritten(scripted(small(SmallLogits)), lambda members: None), "network.pt")


def test_torch_itself_would_run_what_these_tests_put_in_an_archive(
    tmp_path: Path, program: bytes
) -> None:
    canary = tmp_path / "canary"

    def put_pickle(members: dict[str, bytes]) -> None:
        buffer = io.BytesIO()
        torch.save(Bomb(canary), buffer)
        members["data/sample_inputs/model.pt"] = buffer.getvalue()

    hostile = rewritten(program, put_pickle)
    load_exported(hostile, "network.pt2")  # the pickle is left out
    assert not canary.exists()
    with pytest.raises(Exception):  # noqa: B017  (that it fails comes too late)
        torch.export.load(io.BytesIO(hostile))
    assert canary.exists()


EVALUATED = "__import__('os').mkdir({canary!r})"


def test_guards_of_an_exported_program_are_not_executed(tmp_path: Path, program: bytes) -> None:
    canary = tmp_path / "canary"
    guard = EVALUATED.format(canary=str(canary))
    hostile = rewritten(
        program, changed_json("models/model.json", lambda d: d.update(guards_code=[guard]))
    )
    load_exported(hostile, "network.pt2")(torch.zeros(2, 1, 32, 32))
    assert not canary.exists()


def first_target(target: str) -> Callable[[Any], None]:
    return lambda graph: graph["nodes"][0].update(target=target)


def rename_input(graph: Any) -> None:
    graph["inputs"][-1]["as_tensor"]["name"] = "x=__import__('os').getcwd()"


EXPORT_ATTACKS: dict[str, Callable[[dict[str, bytes]], None]] = {
    "evaluated shape": graph_change(lambda g: set_shape_expressions(g, EVALUATED)),
    "shape with an attribute": graph_change(lambda g: set_shape_expressions(g, "Integer.mro")),
    "shape with a word after a symbol": graph_change(
        lambda g: set_shape_expressions(g, "Integer('s1'eval)")
    ),
    "huge shape": graph_change(
        lambda g: set_shape_expressions(g, "Pow(Integer(9), Pow(Integer(9), Integer(99)))")
    ),
    "call of os.system": graph_change(first_target("torch.os.system")),
    "call of torch.load": graph_change(first_target("torch.load")),
    "operator on files": graph_change(first_target("torch.ops.aten.from_file.default")),
    "operator that prints": graph_change(first_target("torch.ops.aten._print.default")),
    "no operator": graph_change(first_target("torch.ops.aten.conv2d.overloads")),
    "operator of another library": graph_change(first_target("torch.ops.prims.add.default")),
    "higher-order operator": graph_change(first_target("torch.ops.higher_order.cond")),
    "input name that is code": graph_change(rename_input),
    "native object": graph_change(
        lambda g: g.update(custom_obj_values={"a": {"name": "a", "class_fqn": "b"}})
    ),
    "default factory": changed_json(
        "models/model.json",
        lambda d: d["graph_module"]["module_call_graph"][0]["signature"].update(
            in_spec='[1, {"type": "collections.defaultdict", "context": "null", '
            '"children_spec": []}]'
        ),
    ),
    "pickled weights": changed_json(
        "data/weights/model_weights_config.json",
        lambda d: next(iter(d["config"].values())).update(use_pickle=True),
    ),
    "pickled constant": changed_json(
        "data/constants/model_constants_config.json",
        lambda d: d["config"].update(a={"path_name": "opaque_obj_0", "use_pickle": False}),
    ),
    "weights outside": changed_json(
        "data/weights/model_weights_config.json",
        lambda d: next(iter(d["config"].values())).update(path_name="../../secret"),
    ),
    "weights missing": lambda members: members.pop("data/weights/weight_0") and None,
    "weights too short": lambda members: members.update({"data/weights/weight_0": b"1234"}),
    "no graph": changed_json("models/model.json", lambda d: d.pop("graph_module")),
    "no JSON": lambda members: members.update({"models/model.json": b"{"}),
    "deep JSON": lambda members: members.update({"models/model.json": b"[" * 100_000}),
    "list for a program": lambda members: members.update({"models/model.json": b"[]"}),
    "older format": lambda members: members.pop("archive_format") and None,
}


@pytest.mark.parametrize("attack", EXPORT_ATTACKS)
def test_a_hostile_exported_program_is_refused(tmp_path: Path, program: bytes, attack: str) -> None:
    canary = tmp_path / "canary"
    hostile = rewritten(program, EXPORT_ATTACKS[attack])
    hostile = hostile.replace(b"{canary!r}", repr(str(canary)).encode())
    with pytest.raises(TomoSegError) as caught:
        load_exported(hostile, "network.pt2")
    assert caught.value.code == "model-archive-refused" and "\n" not in str(caught.value)
    assert not canary.exists()


def test_shape_expressions_are_there_to_be_attacked(program: bytes) -> None:
    counts: list[int] = []
    rewritten(
        program, graph_change(lambda g: counts.append(set_shape_expressions(g, "Integer(2)")))
    )
    assert counts[0] > 0


class Writes(nn.Module):
    """Writes a file when it runs."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: Tensor) -> Tensor:
        torch.save(x, self.path)
        return x.mean(dim=(1, 2, 3))


class WritesOnLoading(Writes):
    """Writes a file when it is loaded."""

    @torch.jit.export
    def __getstate__(self) -> int:
        return 1

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = False
        torch.save(torch.zeros(1), "canary")

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3))


class MapsAFile(nn.Module):
    """Reads, and could make, a file when it runs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(1, 2, 3)) + torch.from_file("canary", True, 4).mean()


class Prints(nn.Module):
    """Writes to standard output, where the worker's events go."""

    def forward(self, x: Tensor) -> Tensor:
        print("{}")
        return x.mean(dim=(1, 2, 3))


class Forks(nn.Module):
    """Starts threads."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(torch.mean, x)) + x.mean(dim=(1, 2, 3))


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (Writes("canary"), "aten::save"),
        (WritesOnLoading("canary"), "__setstate__"),
        (MapsAFile(), "aten::from_file"),
        (Prints(), "prim::Print"),
        (Forks(), "prim::fork"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_a_script_that_does_more_than_compute_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, network: nn.Module, reason: str
) -> None:
    monkeypatch.chdir(tmp_path)
    content = scripted(network)
    (tmp_path / "canary").unlink(missing_ok=True)
    with pytest.raises(TomoSegError, match=reason) as caught:
        load_torchscript(content, "network.pt")
    assert caught.value.code == "model-archive-refused"
    assert not (tmp_path / "canary").exists()


def test_native_classes_in_a_script_are_refused() -> None:
    script = scripted(small(SmallLogits))

    def put_class(members: dict[str, bytes]) -> None:
        members["data.pkl"] += b"c__torch__.torch\nclasses.quantized.Conv2dPackedParamsBase\n"

    with pytest.raises(TomoSegError, match="native classes"):
        load_torchscript(rewritten(script, put_class), "network.pt")


def python_pickle(tmp_path: Path) -> bytes:
    return pickle.dumps(Bomb(tmp_path / "canary"))


def state_dict_pickle(tmp_path: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"bomb": Bomb(tmp_path / "canary")}, buffer)
    return buffer.getvalue()


def doubled(content: bytes) -> bytes:
    """An archive with a member twice, of which different readers take a different one."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = archive.namelist()[0].partition("/")[0]
    buffer = io.BytesIO(content)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr(f"{root}/VERSION", "6")
        archive.writestr(f"{root}/Archive_Format", "pt2")
    return buffer.getvalue()


@pytest.mark.parametrize("load", [load_torchscript, load_exported])
@pytest.mark.parametrize("make", [python_pickle, state_dict_pickle, lambda _: b"", lambda _: b"PK"])
def test_pickles_and_files_that_are_no_archives_are_refused(
    tmp_path: Path, load: Callable[[bytes, str], nn.Module], make: Callable[[Path], bytes]
) -> None:
    with pytest.raises(TomoSegError) as caught:
        load(make(tmp_path), "network.bin")
    assert caught.value.code == "model-archive-refused"
    assert not (tmp_path / "canary").exists()


def test_a_member_that_is_there_twice_is_refused(program: bytes) -> None:
    with pytest.raises(TomoSegError, match="twice"):
        load_exported(doubled(program), "network.pt2")
    with pytest.raises(TomoSegError, match="twice"):
        load_torchscript(doubled(scripted(small(SmallLogits))), "network.pt")
