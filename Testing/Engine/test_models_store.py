"""Models on disk: cards, hashes, the shipped and the user's store."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from TomoSegLib.errors import TomoSegError
from TomoSegLib.models import folder as model_folder
from TomoSegLib.models import locations, store, tiny_blob, verification
from TomoSegLib.models.folder import parse_card, read_model, save_model, verified_bytes

SHIPPED = sorted(path.parent.name for path in store.shipped_models_folder().glob("*/card.json"))


@pytest.fixture(autouse=True)
def user_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "Mödels of a user"
    monkeypatch.setenv("TOMOSEG_MODELS", str(folder))
    return folder


def make_model(folder: Path, **changes: Any) -> store.ModelFolder:
    tiny_blob.build(folder)
    card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
    card.update(changes)
    (folder / "card.json").write_text(json.dumps(card), encoding="utf-8")
    return read_model(folder)


def code_of(call: Any, *arguments: Any, **keywords: Any) -> str:
    with pytest.raises(TomoSegError) as caught:
        call(*arguments, **keywords)
    assert caught.value.hint and "\n" not in str(caught.value)
    return caught.value.code


def test_the_shipped_test_model_is_found_and_its_hashes_fit() -> None:
    model = store.find_model("tiny-blob")
    assert model.origin == "shipped"
    assert "TEST MODEL" in model.card.description and model.card.training_data.simulated
    assert re.fullmatch("[0-9a-f]{64}", verification.verify_model(model))


def test_the_shipped_test_model_is_what_its_script_builds(tmp_path: Path) -> None:
    built, shipped = tiny_blob.build(tmp_path / "again"), store.find_model("tiny-blob")
    for name in ("card.json", "weights.safetensors"):
        # A checkout may have other line ends in text files.
        assert (built.path / name).read_bytes().replace(b"\r\n", b"\n") == (
            shipped.path / name
        ).read_bytes().replace(b"\r\n", b"\n")


@pytest.mark.parametrize("beneath", ["TomoSegLib/Resources/Models", "Resources/Models"])
def test_shipped_models_are_found_inside_an_installed_package_and_beside_a_source_tree(
    tmp_path: Path, beneath: str
) -> None:
    shipped = tmp_path / "root" / beneath
    shipped.mkdir(parents=True)
    module_file = tmp_path / "root" / "TomoSegLib" / "models" / "locations.py"
    module_file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(locations.__file__, module_file)
    spec = importlib.util.spec_from_file_location("locations_elsewhere", module_file)
    assert spec is not None and spec.loader is not None
    elsewhere = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(elsewhere)
    assert elsewhere.shipped_models_folder() == shipped.resolve()
    shutil.rmtree(shipped)
    with pytest.raises(TomoSegError, match="models-missing"):
        elsewhere.shipped_models_folder()


def test_the_wheel_carries_shipped_models_where_the_package_looks_for_them() -> None:
    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert '"Resources/Models" = "TomoSegLib/Resources/Models"' in project


def test_a_user_folder_is_named_by_the_environment_or_by_the_platform(
    user_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert store.user_models_folder() == user_store
    monkeypatch.delenv("TOMOSEG_MODELS")
    assert store.user_models_folder().parts[-2:] == ("TomoSeg", "Models")


def test_the_folder_of_a_training_stands_for_its_model(tmp_path: Path) -> None:
    built = tiny_blob.build(tmp_path / "run" / "model")
    assert store.find_model(tmp_path / "run").path == built.path


def test_a_model_is_found_by_name_by_folder_and_by_card(user_store: Path) -> None:
    made = make_model(user_store / "mine", name="mine")
    assert store.find_model("mine").origin == "user"
    assert store.find_model(made.path).card == made.card
    assert store.find_model(made.path / "card.json").path == made.path


def test_a_users_model_never_takes_the_place_of_a_shipped_one(user_store: Path) -> None:
    make_model(user_store / "tiny-blob", title="An impostor")
    assert store.find_model("tiny-blob").origin == "shipped"
    assert [m.name for m in store.list_models()] == SHIPPED


def test_a_broken_model_is_reported_and_does_not_hide_the_others(user_store: Path) -> None:
    make_model(user_store / "good", name="good")
    (user_store / "bad").mkdir()
    (user_store / "bad" / "card.json").write_text("{", encoding="utf-8")
    broken: list[tuple[str, str]] = []
    models = store.list_models(lambda path, error: broken.append((path.name, error.code)))
    assert [m.name for m in models] == [*SHIPPED, "good"]
    assert broken == [("bad", "model-card-invalid")]
    assert code_of(store.find_model, "bad") == "model-card-invalid"


def test_an_unknown_model_is_refused_with_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(TomoSegError) as caught:
        store.find_model("tiny-blub")
    assert caught.value.code == "model-unknown" and "tiny-blob" in caught.value.hint
    assert code_of(store.find_model, "") == "model-unknown"
    assert code_of(store.find_model, tmp_path) == "model-unknown"
    (tmp_path / "model.zip").write_bytes(b"PK")
    with pytest.raises(TomoSegError, match="import"):
        store.find_model(tmp_path / "model.zip")


def with_field(path: str, value: Any) -> bytes:
    card = {**tiny_blob.card_fields(), "files": {"weights.safetensors": "0" * 64}}
    at = card
    *parents, last = path.split("/")
    for key in parents:
        at = at[key]
    at[last] = value
    return json.dumps(card).encode()


def test_the_card_that_the_following_cases_change_is_valid() -> None:
    assert parse_card(with_field("title", "still fine"), "card.json").title == "still fine"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff\xfe{}", "UTF-8"),
        (b"[" * 100_000, "nested"),
        (b'{"metrics": ' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}", "nested|recursion"),
        (b"{", "JSON"),
        (b"[]", "card"),
        (b" " * (model_folder.MAX_CARD_BYTES + 1), "bytes"),
        (b'{"name": "a", "name": "b"}', "duplicate"),
        (b'{"metrics": {"dice": NaN}}', "NaN"),
        (b'{"metrics": ' + b"9" * 5000 + b"}", "JSON"),
        (with_field("thresold", 0.5), "thresold"),
        (with_field("schema_version", 2), "schema_version"),
        (with_field("slices/spacing_mm", "2"), "slices.spacing_mm"),
        (with_field("slices/spacing_mm", 1e999), "Infinity"),
        (with_field("name", "../evil"), "name"),
        (with_field("name", "con.model"), "every system"),
        (with_field("name", "ends-with."), "every system"),
        (with_field("network/file", "../../weights.safetensors"), "network.file"),
        (with_field("network/target", "os.system; x"), "network.target"),
        (with_field("network/target", "torch.nn." + "a." * 5000 + "b"), "network.target"),
        (with_field("files", {"../x": "0" * 64}), "files"),
        (with_field("files", {"/etc/passwd": "0" * 64}), "files"),
        (with_field("files", {"C:evil": "0" * 64}), "files"),
        (with_field("files", {"a\\b": "0" * 64}), "files"),
        (with_field("files", {"weights.safetensors": "abc"}), "files"),
        (with_field("files", {"other": "0" * 64}), "missing"),
        (
            with_field("files", dict.fromkeys(("weights.safetensors", "card.json"), "0" * 64)),
            "duplicate",
        ),
        (
            with_field("files", dict.fromkeys(("weights.safetensors", "a", "A"), "0" * 64)),
            "duplicate",
        ),
    ],
)
def test_an_invalid_card_is_refused_naming_what_is_wrong(content: bytes, reason: str) -> None:
    with pytest.raises(TomoSegError, match=reason) as caught:
        parse_card(content, "card.json")
    assert caught.value.code == "model-card-invalid"
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_a_changed_missing_large_or_special_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model(tmp_path / "model")
    weights = model.path / "weights.safetensors"
    content = weights.read_bytes()
    assert verified_bytes(model, weights.name) == content
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert code_of(verification.verify_model, model) == "model-hash-mismatch"
    monkeypatch.setattr(model_folder, "MAX_FILE_BYTES", len(content) - 1)
    assert code_of(verification.verify_model, model) == "model-file-too-large"
    weights.unlink()
    assert code_of(verification.verify_model, model) == "model-file-missing"
    weights.mkdir()
    assert code_of(verification.verify_model, model) == "model-file-missing"
    if hasattr(os, "mkfifo"):
        weights.rmdir()
        os.mkfifo(weights)  # it must not be waited for
        assert code_of(verification.verify_model, model) == "model-file-missing"


def test_the_hash_depends_on_what_the_card_says_not_on_how_it_is_written(tmp_path: Path) -> None:
    model = make_model(tmp_path / "model")
    first = store.model_hash(model)
    fields = json.loads((model.path / "card.json").read_text(encoding="utf-8"))
    other_order = json.dumps(dict(reversed(fields.items()))).encode()
    assert store.model_hash(parse_card(other_order, "card.json")) == first
    fields["task"] = "heatmap"  # the default, written out
    assert store.model_hash(parse_card(json.dumps(fields).encode(), "card.json")) == first
    fields["files"]["weights.safetensors"] = "0" * 64
    assert store.model_hash(parse_card(json.dumps(fields).encode(), "card.json")) != first


def test_saving_gives_the_same_bytes_each_time_and_replaces_only_when_told(tmp_path: Path) -> None:
    weights = {"b": torch.ones(2, 3).T, "a": torch.zeros(4)}
    fields = tiny_blob.card_fields()
    first = save_model(tmp_path / "one", fields, weights)
    second = save_model(tmp_path / "two", first.card, dict(reversed(weights.items())))
    assert first.card == second.card
    assert read_model(tmp_path / "two").card == first.card
    assert code_of(save_model, tmp_path / "one", fields, weights) == "model-exists"
    save_model(tmp_path / "one", fields, {"a": torch.ones(1)}, overwrite=True)
    assert read_model(tmp_path / "one").card != first.card
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one", "two"]


def test_a_model_that_cannot_be_saved_leaves_nothing_behind(tmp_path: Path) -> None:
    fields = tiny_blob.card_fields()
    broken = {"a": torch.tensor([1.0, float("nan")])}
    assert code_of(save_model, tmp_path / "m", fields, broken) == "model-weights-invalid"
    wrong = {**fields, "surprise": 1}
    assert code_of(save_model, tmp_path / "m", wrong, {}) == "model-card-invalid"
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert code_of(save_model, tmp_path / "file" / "m", fields, {}) == "model-unwritable"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_text("precious", encoding="utf-8")
    assert code_of(save_model, tmp_path / "photos", fields, {}, overwrite=True) == "model-exists"
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")) == [
        "file",
        "photos",
        str(Path("photos") / "a.jpg"),
    ]


def segmenter_fields(**changes: Any) -> dict[str, Any]:
    fields = tiny_blob.card_fields() | {"files": {"weights.safetensors": "0" * 64}}
    for name in ("slices", "method", "methods"):
        del fields[name]
    fields |= {"task": "segmentation", "sliding_window": {"roi_size": [32, 32, 16]}}
    labels = [{"name": "one", "value": 4}, {"name": "two", "value": 2}]
    return fields | {"labels": labels} | changes


def window(**fields: Any) -> dict[str, Any]:
    return {"sliding_window": {"roi_size": [32, 32, 16], **fields}}


def test_a_segmenters_outputs_are_background_and_labels_unless_the_card_says_otherwise() -> None:
    def outputs(**fields: Any) -> list[int]:
        return parse_card(json.dumps(segmenter_fields(**window(**fields))).encode(), "card").outputs

    assert outputs() == [0, 4, 2]
    assert outputs(activation="sigmoid") == [4, 2]
    assert outputs(outputs=[2, 0, 4]) == [2, 0, 4]
    assert outputs(outputs=[2, 4], activation="sigmoid") == [2, 4]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sliding_window": None}, "sliding_window: missing"),
        (window(outputs=[0, 4]), "each label's value once"),
        (window(outputs=[4, 2]), "0 once"),
        (window(outputs=[0, 4, 2], activation="sigmoid"), "each label's value once"),
        (window(outputs=[0, 4, 4, 2]), "each label's value once"),
        (window(overlap=1.0), "sliding_window.overlap"),
        (window(roi_size=[32, 32]), "sliding_window.roi_size"),
        (window(roi_size=[32, 32, 4]), "sliding_window.roi_size"),
        (window(sw_batch_size=4), "sliding_window.sw_batch_size"),
        (window(threshold=0), "sliding_window.threshold"),
        ({"task": "heatmap"}, "only for the task segmentation"),
        ({"method": "cam"}, "method: only for the task heatmap"),
        ({"methods": {"tonno": {}}}, "methods: only for the task heatmap"),
        ({"slices": {"size": 64}}, "slices: only for the task heatmap"),
        ({"refinement": {}}, "refinement: only for the task heatmap"),
        (
            {"network": tiny_blob.card_fields()["network"] | {"output": 1}},
            "network: features and output",
        ),
    ],
)
def test_a_segmenters_card_that_contradicts_itself_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(TomoSegError, match="model-card-invalid") as caught:
        parse_card(json.dumps(segmenter_fields(**changes)).encode(), "card")
    assert words in caught.value.message
