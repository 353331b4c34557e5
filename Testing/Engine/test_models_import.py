"""Importing models from folders and archives that may be hostile."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models import importing, store, tiny_blob, verification, zip_members
from TomoSegLib.models.folder import read_model


@pytest.fixture(autouse=True)
def user_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "store"
    monkeypatch.setenv("TOMOSEG_MODELS", str(folder))
    return folder


def build(folder: Path, weights: bytes | None = None, **changes: Any) -> Path:
    """A model folder named ``mine``; with other weights, their hash is put on the card."""
    tiny_blob.build(folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card |= {"name": "mine", **changes}
    if weights is not None:
        (folder / "weights.safetensors").write_bytes(weights)
        card["files"]["weights.safetensors"] = hashlib.sha256(weights).hexdigest()
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return folder


def zipped(folder: Path, beneath: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", compression) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, beneath + file.name)
    return path


def assert_refused(source: Path, code: str, store_folder: Path, **keywords: Any) -> str:
    before = sorted(source.parent.parent.rglob("*"))
    with pytest.raises(TomoSegError) as caught:
        importing.import_model(source, **keywords)
    assert caught.value.code == code, str(caught.value)
    assert caught.value.hint and "\n" not in str(caught.value)
    # Nothing is left behind, inside the store or out of it (the empty store itself may be).
    assert [p for p in sorted(source.parent.parent.rglob("*")) if p != store_folder] == [
        p for p in before if p != store_folder
    ]
    return caught.value.message


@pytest.mark.parametrize("beneath", ["", "mine-1.0.0/"])
def test_a_zip_archive_is_imported_from_its_top_or_its_one_folder(
    tmp_path: Path, user_store: Path, beneath: str
) -> None:
    source = build(tmp_path / "in" / "source")
    (source / "README.txt").write_text("not on the card", encoding="utf-8")
    model = importing.import_model(zipped(source, beneath))
    assert model.origin == "user" and model.path == user_store / "mine"
    assert sorted(p.name for p in model.path.iterdir()) == ["card.json", "weights.safetensors"]
    assert sorted(user_store.iterdir()) == [model.path]
    assert verification.verify_model(store.find_model("mine")) == store.model_hash(
        read_model(source)
    )


def test_a_folder_is_imported_twice_without_harm_and_replaced_only_when_told(
    tmp_path: Path, user_store: Path
) -> None:
    source = build(tmp_path / "in" / "source")
    assert importing.import_model(source).path == importing.import_model(source).path
    other = build(tmp_path / "in" / "other", version="2.0.0")
    assert_refused(other, "model-exists", user_store)
    assert store.find_model("mine").card.version == "1.0.0"
    importing.import_model(other, replace=True)
    assert store.find_model("mine").card.version == "2.0.0"
    assert [p.name for p in user_store.iterdir()] == ["mine"]


def test_a_shipped_model_is_never_replaced(tmp_path: Path, user_store: Path) -> None:
    impostor = build(tmp_path / "in" / "source", name="tiny-blob", title="An impostor")
    assert_refused(impostor, "model-shipped", user_store, replace=True)


def test_a_failed_replacement_keeps_the_old_model(tmp_path: Path, user_store: Path) -> None:
    importing.import_model(build(tmp_path / "in" / "source"))
    broken = build(tmp_path / "in" / "broken", weights=b"\0" * 40, version="2.0.0")
    assert_refused(broken, "model-weights-invalid", user_store, replace=True)
    assert verification.verify_model(store.find_model("mine"))


def member(name: str, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("../evil.txt", stat.S_IFREG),
        ("a/../../evil.txt", stat.S_IFREG),
        ("/tmp/evil.txt", stat.S_IFREG),
        ("C:/evil.txt", stat.S_IFREG),
        ("..\\evil.txt", stat.S_IFREG),
        ("evil\n.txt", stat.S_IFREG),
        ("evil\0.txt", stat.S_IFREG),
        ("link", stat.S_IFLNK),
        ("pipe", stat.S_IFIFO),
        ("CARD.json", stat.S_IFREG),
    ],
)
def test_an_archive_with_a_member_that_leaves_it_is_refused_whole(
    tmp_path: Path, user_store: Path, name: str, mode: int
) -> None:
    path = zipped(build(tmp_path / "in" / "source"))
    with zipfile.ZipFile(path, "a") as archive:
        info = member("x" * len(name), mode | 0o644)
        archive.writestr(info, "/etc/passwd")
    # zipfile corrects names when it writes them, so the name is put in afterwards.
    content = path.read_bytes().replace(b"x" * len(name), name.encode())
    path.write_bytes(content)
    assert_refused(path, "model-zip-invalid", user_store)


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, user_store: Path) -> None:
    folder = build(tmp_path / "in" / "source", weights=bytes(30 << 20))
    message = assert_refused(zipped(folder), "model-zip-invalid", user_store)
    assert "bomb" in message


def test_a_member_larger_than_it_says_is_refused(tmp_path: Path, user_store: Path) -> None:
    source = build(tmp_path / "in" / "source")
    path = zipped(source, compression=zipfile.ZIP_DEFLATED)
    size = struct.pack("<I", (source / "weights.safetensors").stat().st_size)
    content = path.read_bytes()
    assert content.count(size) >= 2
    path.write_bytes(content.replace(size, struct.pack("<I", 8)))
    assert_refused(path, "model-zip-invalid", user_store)


def test_archives_that_are_too_much_or_no_archives_are_refused(
    tmp_path: Path, user_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build(tmp_path / "in" / "source")
    path = zipped(source)
    with monkeypatch.context() as limits:
        limits.setattr(importing, "MAX_MODEL_BYTES", 100)
        assert "unpacks" in assert_refused(path, "model-zip-invalid", user_store)
    with monkeypatch.context() as limits:
        limits.setattr(zip_members, "_MAX_MEMBERS", 1)
        assert "members" in assert_refused(path, "model-zip-invalid", user_store)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert_refused(path, "model-zip-invalid", user_store)
    path.write_text("not an archive", encoding="utf-8")
    assert_refused(path, "model-zip-invalid", user_store)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/card.json", "{}")
        archive.writestr("b/card.json", "{}")
    assert "2 model cards" in assert_refused(path, "model-zip-invalid", user_store)
    assert_refused(tmp_path / "in" / "nothing.zip", "model-unknown", user_store)


def test_a_huge_card_in_an_archive_is_refused(tmp_path: Path, user_store: Path) -> None:
    source = build(tmp_path / "in" / "source")
    (source / "card.json").write_bytes(os.urandom(1 << 20).hex().encode())
    assert_refused(zipped(source), "model-zip-invalid", user_store)
    assert_refused(source, "model-file-too-large", user_store)


def test_links_in_a_folder_are_refused(tmp_path: Path, user_store: Path) -> None:
    source = build(tmp_path / "in" / "source")
    secret = tmp_path / "in" / "secret"
    (source / "weights.safetensors").rename(secret)
    try:
        (source / "weights.safetensors").symlink_to(secret)
    except OSError:
        pytest.skip("this system does not let us make links")
    assert_refused(source, "model-file-missing", user_store)


def safetensors(
    header: dict[str, Any] | bytes, data: bytes = b"", length: int | None = None
) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


GOOD_SHAPES = {
    "classifier.bias": [1],
    "classifier.weight": [1, 2],
    "ramps.bias": [2],
    "ramps.weight": [2, 1, 1, 1],
}


def tensors(dtype: str, width: int, fill: bytes) -> bytes:
    header, offset = {}, 0
    for name, shape in GOOD_SHAPES.items():
        size = width
        for n in shape:
            size *= n
        header[name] = entry(dtype, shape, offset, offset + size)
        offset += size
    return safetensors(header, (fill * offset)[:offset])


@pytest.mark.parametrize(
    ("weights", "code"),
    [
        (b"PK\x03\x04" + bytes(60), "model-weights-pickle"),
        (b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x02os.", "model-weights-pickle"),
        (b"", "model-weights-invalid"),
        (b"\xff" * 64, "model-weights-invalid"),
        (safetensors(b"{}", length=1 << 62), "model-weights-invalid"),
        (safetensors(b" " * 100 + b"[]"), "model-weights-invalid"),
        (safetensors(b"[" * 50_000), "model-weights-invalid"),
        (
            safetensors({"a": entry("F32", [1 << 40, 1 << 40], 0, 4)}, b"1234"),
            "model-weights-invalid",
        ),
        (safetensors({"a": entry("F32", [1], 0, 400)}, b"1234"), "model-weights-invalid"),
        (safetensors({"a": entry("F32", [2], 0, 4)}, b"1234"), "model-weights-invalid"),
        (safetensors({"a": entry("PICKLE", [4], 0, 4)}, b"1234"), "model-weights-invalid"),
        (safetensors({"a": 7}, b"1234"), "model-weights-invalid"),
        (tensors("F32", 4, b"\x00\x00\xc0\x7f"), "model-weights-invalid"),  # NaN
        (tensors("F64", 8, struct.pack("<d", 1e300)), "model-weights-invalid"),  # inf as float32
        (tensors("C64", 8, b"\0"), "model-weights-invalid"),
        (tensors("I32", 4, b"\1"), "model-weights-mismatch"),
        (safetensors({"a": entry("F32", [1], 0, 4)}, b"1234"), "model-weights-mismatch"),
        (
            tensors("F32", 4, b"\0").replace(b'"ramps.bias"', b'"ramps.blas"'),
            "model-weights-mismatch",
        ),
        (
            tensors("F32", 4, b"\0").replace(b"[2, 1, 1, 1]", b"[1, 1, 2, 1]"),
            "model-weights-mismatch",
        ),
    ],
)
def test_weights_that_are_no_fitting_safetensors_are_refused(
    tmp_path: Path, user_store: Path, weights: bytes, code: str
) -> None:
    assert_refused(build(tmp_path / "in" / "source", weights=weights), code, user_store)


def test_the_hand_made_weights_of_these_tests_are_fine_when_nothing_is_wrong(
    tmp_path: Path,
) -> None:
    for dtype, width in (("F32", 4), ("F64", 8), ("F16", 2), ("BF16", 2)):
        source = build(tmp_path / "in" / dtype, weights=tensors(dtype, width, b"\0"))
        importing.import_model(source, replace=True)


@pytest.mark.parametrize("first_bytes", [b"\x80", b"PK"])
def test_weights_whose_header_is_as_long_as_a_pickle_begins_are_no_pickle(
    tmp_path: Path, first_bytes: bytes
) -> None:
    header = json.loads(tensors("F32", 4, b"\0")[8:].split(b"}}")[0] + b"}}")
    text = json.dumps(header).encode()
    text += b" " * (
        int.from_bytes(first_bytes, "little") + 256 * (first_bytes == b"\x80") - len(text)
    )
    weights = safetensors(text, bytes(4 * 7))
    assert weights.startswith(first_bytes)
    importing.import_model(build(tmp_path / "in" / "source", weights=weights))


@pytest.mark.parametrize(
    ("network", "code"),
    [
        ({"target": "os.system"}, "model-target-not-allowed"),
        ({"target": "torch.hub.load"}, "model-target-not-allowed"),
        ({"target": "torch.nn.functional.relu"}, "model-target-not-allowed"),
        ({"target": "torch.nn.modules.module.Any"}, "model-target-not-allowed"),
        ({"target": "torch.nn.NoSuchClass"}, "model-target-not-allowed"),
        ({"target": "torch.nn.no_such_module.Thing"}, "model-target-not-allowed"),
        ({"target": "TomoSegLib.jobs.worker.main"}, "model-target-not-allowed"),
        ({"target": "TomoSegLib.networks.bright_area.torch"}, "model-target-not-allowed"),
        ({"target": "monai.networks.nets.resnet.get_act_layer"}, "model-target-not-allowed"),
        ({"arguments": {"chanels": 1}}, "model-arguments-invalid"),
        ({"arguments": {"channels": "one"}}, "model-arguments-invalid"),
        ({"arguments": {"channels": 1 << 40}}, "model-arguments-invalid"),
        ({"arguments": {"pretrained": True}}, "model-arguments-invalid"),
        ({"arguments": {"pretrained_url": "https://example.org"}}, "model-arguments-invalid"),
        (
            {"target": "monai.networks.nets.cell_sam_wrapper.CellSamWrapper", "arguments": {}},
            "model-arguments-invalid",
        ),
        ({"target": "monai.networks.nets.Transchex", "arguments": {}}, "model-arguments-invalid"),
        ({"arguments": {"channels": 2}}, "model-weights-mismatch"),
        ({"output": 1}, "model-network-invalid"),
        ({"features": "no.such.layer"}, "model-network-invalid"),
    ],
)
def test_networks_that_are_not_allowed_or_do_not_fit_are_refused(
    tmp_path: Path, user_store: Path, network: dict[str, Any], code: str
) -> None:
    fields = tiny_blob.card_fields()["network"] | network
    assert_refused(build(tmp_path / "in" / "source", network=fields), code, user_store)


def test_wrong_hashes_are_refused(tmp_path: Path, user_store: Path) -> None:
    wrong: Callable[[str], dict[str, str]] = lambda digit: {"weights.safetensors": digit * 64}  # noqa: E731
    source = build(tmp_path / "in" / "source", files=wrong("0"))
    assert_refused(source, "model-hash-mismatch", user_store)
    assert_refused(zipped(source), "model-hash-mismatch", user_store)


def test_a_store_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = build(tmp_path / "in" / "source")
    blocker = tmp_path / "in" / "blocker"
    blocker.write_text("a file where a folder should be", encoding="utf-8")
    monkeypatch.setenv("TOMOSEG_MODELS", str(blocker))
    assert_refused(source, "model-unwritable", blocker)
