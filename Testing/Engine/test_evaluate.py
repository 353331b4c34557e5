"""An evaluation from manifest to figure: complete, resumable, and honest about what it used."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from TomoSegLib.datasets.manifest import Case, Split, write_manifest
from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.evaluate import METHODS, Evaluation, evaluate
from TomoSegLib.evaluation.figures import method_name
from TomoSegLib.evaluation.methods import IntensityMethod
from TomoSegLib.imaging.io import write_volume
from TomoSegLib.imaging.volume import Geometry, Volume
from TomoSegLib.models import tiny_blob
from TomoSegLib.models.folder import save_model

GRID = Geometry.from_parts((30, 32, 34), (2.0, 2.0, 2.0), np.diag([-1, 1, 1]), (20, -30, 5))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_blob.build(tmp_path_factory.mktemp("model") / "tiny-blob").path)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four balls of noise with a bright blob in them, and two without; two for validation."""
    folder = tmp_path_factory.mktemp("dätä set")
    k, j, i = np.meshgrid(*(np.arange(n) for n in GRID.shape), indexing="ij")
    inside = (k - 15) ** 2 + (j - 16) ** 2 + (i - 17) ** 2 < 13**2
    cases = []
    for n in range(8):
        generator = np.random.default_rng(n)
        label = 0 if n in (3, 4) else 1
        split: Split = "val" if n >= 6 else "test"
        a, b, c = generator.integers(11, 20, 3)
        lesion = (k - a) ** 2 + (j - b) ** 2 + (i - c) ** 2 < 4**2
        image = generator.normal(100, 10, GRID.shape) + 80 * lesion * label
        image[~inside] = 0
        write_volume(Volume(image.astype(np.float32), GRID), folder / f"v{n}.nrrd")
        mask = folder / f"m{n}.nrrd" if label else None
        if mask:
            write_volume(Volume(lesion.astype(np.uint8) * 3, GRID), mask)
        cases.append(Case(f"case {n}", {"image": folder / f"v{n}.nrrd"}, label, split, mask))
    write_manifest(folder / "manifest.csv", cases)
    return folder


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_every_method_on_every_case_with_intervals_and_a_figure(
    data: Path, model: str, tmp_path: Path
) -> None:
    output = tmp_path / "évaluation 1"
    steps: list[tuple[float, int]] = []
    summary = evaluate(
        Evaluation(data / "manifest.csv", model, output, directions="fibonacci:24", device="cpu"),
        on_progress=lambda done, total, text: steps.append((done, total)),
    )
    assert json.loads((output / "summary.json").read_text(encoding="utf-8")) == summary
    assert list(summary["methods"]) == list(METHODS)
    assert (summary["cases"], summary["positives"]) == (6, 4)
    rows = table(output)
    assert len(rows) == 6 * len(METHODS)
    assert {row["dice"] == "" for row in rows if row["label"] == "0"} == {True}
    for method in METHODS:
        figures = summary["methods"][method]
        assert figures["dice"]["cases"] == 4
        assert figures["dice"]["lower"] <= figures["dice"]["value"] <= figures["dice"]["upper"]
        assert figures["dice"]["value"] <= figures["oracle_dice"]["value"] + 1e-6
    for method in ("intensity", "tonno", "tomographic-cam"):
        assert summary["methods"][method]["dice"]["value"] > 0.6
        assert summary["methods"][method]["pointing_game"]["value"] == 1
    assert summary["methods"]["tonno"]["volume_auc"]["value"] == 1
    assert summary["settings"]["intensity"]["validation_cases"] == 2
    assert summary["settings"]["cam"]["settings"]["directions"] == "axial"
    assert summary["settings"]["tonno"]["settings"]["directions"] == "fibonacci:24"
    assert summary["difference_to_cam"]["tonno"]["dice"]["cases"] == 4
    assert (output / "evaluation.png").read_bytes()[:4] == b"\x89PNG"
    assert (output / "evaluation.png").stat().st_size > 50_000
    done = [step for step, _ in steps]
    assert done == sorted(done) and steps[-1] == (steps[0][1], steps[0][1])
    assert not list(output.glob(".*"))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A segmenter that says lesion where the normalised intensity is above 2.5."""
    network = {
        "target": "torch.nn.Conv3d",
        "arguments": {"in_channels": 1, "out_channels": 2, "kernel_size": 1},
    }
    weights = {
        "weight": torch.tensor([0.0, 4.0]).reshape(2, 1, 1, 1, 1),
        "bias": torch.tensor([0.0, -10.0]),
    }
    fields = tiny_blob.card_fields() | {
        "name": "bright-voxels",
        "task": "segmentation",
        "network": network,
        "sliding_window": {"roi_size": [32, 32, 32]},
    }
    for heatmaps_only in ("slices", "method", "methods"):
        fields.pop(heatmaps_only, None)
    folder = tmp_path_factory.mktemp("model") / "bright-voxels"
    return str(save_model(folder, fields, weights).path)


def test_refined_masks_and_segmenters_stand_beside_the_heatmaps(
    data: Path, model: str, segmenter: str, tmp_path: Path
) -> None:
    asked = Evaluation(
        data / "manifest.csv",
        model,
        tmp_path,
        methods=("tonno",),
        refine=True,
        segmenters=[segmenter],
        directions="fibonacci:12",
        device="cpu",
    )
    steps: list[tuple[float, int]] = []
    summary = evaluate(asked, on_progress=lambda done, total, _: steps.append((done, total)))
    assert list(summary["methods"]) == ["tonno", "tonno+refined", "bright-voxels"]
    assert steps[-1] == (18, 18)
    plain, refined, direct = (summary["methods"][m] for m in summary["methods"])
    assert refined["average_precision"]["value"] == plain["average_precision"]["value"]
    assert refined["dice"]["value"] > plain["dice"]["value"]
    assert direct["dice"]["value"] > 0.8
    assert summary["settings"]["tonno+refined"]["refinement"]["method"]
    assert method_name("tonno+refined") == "ToNNO, refined"


def test_a_model_of_the_wrong_task_is_no_segmenter_to_compare_with(
    data: Path, model: str, segmenter: str, tmp_path: Path
) -> None:
    asked = Evaluation(data / "manifest.csv", model, tmp_path / "out", segmenters=[model])
    with pytest.raises(TomoSegError) as refused:
        evaluate(asked)
    assert refused.value.code == "model-task"
    with pytest.raises(TomoSegError) as refused:
        evaluate(replace(asked, segmenters=[segmenter, segmenter]))
    assert refused.value.code == "usage"
    assert not (tmp_path / "out").exists()


def run_counter(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the cases on which the baseline is really run."""
    names: list[str] = []
    original = IntensityMethod.run

    def run(self: IntensityMethod, prepared: Any, on_progress: Any) -> Any:
        names.append(prepared.case.id)
        return original(self, prepared, on_progress)

    monkeypatch.setattr(IntensityMethod, "run", run)
    return names


def test_a_stopped_evaluation_goes_on_where_it_was(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run_counter(monkeypatch)
    what = Evaluation(data / "manifest.csv", model, tmp_path / "out", ("intensity",), device="cpu")

    def stop(done: float, total: int, text: str) -> None:
        if "case 2: reading" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(what, on_progress=stop)
    assert not (tmp_path / "out" / "cases.csv").exists()
    evaluate(what)
    assert ran == [f"case {n}" for n in range(6)], "no case was run twice"
    resumed = (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8")
    evaluate(what)
    assert len(ran) == 6
    assert (tmp_path / "out" / "cases.csv").read_text(encoding="utf-8") == resumed


def test_a_damaged_record_is_computed_again(
    data: Path, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    what = Evaluation(data / "manifest.csv", model, tmp_path, ("intensity",), device="cpu")
    evaluate(what)
    first = table(tmp_path)
    ran = run_counter(monkeypatch)
    for number, path in enumerate(sorted((tmp_path / "cases").glob("*.json"))[:3]):
        path.write_text(["", "[]", path.read_text(encoding="utf-8")[:200]][number])
    evaluate(what)
    assert len(ran) == 3
    for one, other in zip(first, table(tmp_path), strict=True):
        assert {**one, "seconds": ""} == {**other, "seconds": ""}


def test_another_evaluation_is_not_overwritten_unless_asked(
    data: Path, model: str, tmp_path: Path
) -> None:
    what = Evaluation(data / "manifest.csv", model, tmp_path, ("intensity",), device="cpu")
    evaluate(what)
    other = replace(what, split="val")
    with pytest.raises(TomoSegError) as caught:
        evaluate(other)
    assert caught.value.code == "output-exists"
    assert evaluate(replace(other, overwrite=True))["cases"] == 2


def test_a_folder_with_other_files_is_left_alone(data: Path, model: str, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(TomoSegError) as caught:
        evaluate(Evaluation(data / "manifest.csv", model, tmp_path, device="cpu"))
    assert caught.value.code == "output-exists"
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


def test_without_validation_masks_a_warning_says_that_otsu_decides(
    data: Path, model: str, tmp_path: Path
) -> None:
    lines = (data / "manifest.csv").read_text(encoding="utf-8").splitlines()
    alone = data / "test only.csv"
    alone.write_text("\n".join(line for line in lines if ",val," not in line), encoding="utf-8")
    warnings: list[str] = []
    what = Evaluation(alone, model, tmp_path / "a", ("intensity",), device="cpu")
    summary = evaluate(what, on_warning=lambda code, message: warnings.append(code))
    assert warnings == ["baseline-not-calibrated"]
    assert summary["settings"]["intensity"]["threshold"] is None
    elsewhere = replace(what, validation=data / "manifest.csv", output=tmp_path / "b")
    assert evaluate(elsewhere)["settings"]["intensity"]["validation_cases"] == 2


def test_wrong_requests_are_refused_before_anything_is_written(
    data: Path, model: str, tmp_path: Path
) -> None:
    good = Evaluation(data / "manifest.csv", model, tmp_path / "out", ("intensity",), device="cpu")
    for what, code in (
        (replace(good, methods=("magic",)), "method-unknown"),
        (replace(good, split="train"), "manifest-split-empty"),
        (replace(good, model="no-such-model"), "model-unknown"),
        (replace(good, manifest=data / "none.csv"), "manifest-not-found"),
    ):
        with pytest.raises(TomoSegError) as caught:
            evaluate(what)
        assert caught.value.code == code
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("label", "mask"), [("0", "m0.nrrd"), ("1", "m0.nrrd")])
def test_mask_and_label_must_agree(
    data: Path, model: str, tmp_path: Path, label: str, mask: str
) -> None:
    elsewhere = Geometry.from_parts(GRID.shape, GRID.spacing, GRID.direction, (900, 900, 900))
    far = Volume(np.eye(32, 34)[None].repeat(30, 0).astype(np.uint8), elsewhere)
    write_volume(far, data / "far.nrrd")
    text = f"path,label,split,mask\nv0.nrrd,{label},test,{mask if label == '0' else 'far.nrrd'}\n"
    (data / "wrong.csv").write_text(text, encoding="utf-8")
    with pytest.raises(TomoSegError) as caught:
        evaluate(Evaluation(data / "wrong.csv", model, tmp_path, ("intensity",), device="cpu"))
    assert caught.value.code == "manifest-mask"


def test_command_line_prints_a_table_and_where_the_figure_is(
    data: Path, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from TomoSegLib.cli.evaluate import evaluate as command

    status = command(
        data / "manifest.csv", tmp_path / "out", model=model, methods="intensity", device="cpu"
    )
    shown = capsys.readouterr()
    assert status == 0
    assert "Intensity threshold" in shown.out and "trained on simulated data" in shown.out
    assert str(tmp_path / "out" / "evaluation.png") in shown.out.splitlines()
    assert "6/8 case 3" in shown.err, "steps are told where there is no terminal"
    with pytest.raises(TomoSegError) as caught:
        command(data / "manifest.csv", tmp_path / "x", model=model, methods="intensity,magic")
    assert caught.value.code == "usage" and "magic" in caught.value.message
