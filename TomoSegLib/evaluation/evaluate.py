"""``tomoseg evaluate``: every method, and the baseline, on every case of a manifest.

Each case goes the way of a run (`read_volume`, `prepare`, `compute_heatmap`, `heatmap_to_mask`)
and is judged on its own grid. What is done is kept case by case, so that an evaluation that was
stopped goes on where it was, and one that is repeated with another method computes only that.

The folder of an evaluation:

* ``cases.csv``: one row a case and method, see `CaseResult`.
* ``summary.json``: means with confidence intervals, paired differences, and all settings.
* ``evaluation.png``: the figure.
* ``cases/``: results and thumbnail of each case.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np

from TomoSegLib import __version__
from TomoSegLib.datasets.manifest import Case, Split, read_manifest
from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.baseline import BoolArray, IntensityBaseline, choose_baseline
from TomoSegLib.evaluation.figures import draw_evaluation, method_name
from TomoSegLib.evaluation.methods import (
    EncoderOnce,
    EvaluatedMethod,
    HeatmapMethod,
    IntensityMethod,
    RefinedMethod,
    SegmenterMethod,
    unknown_method,
)
from TomoSegLib.evaluation.prepared import PreparedCase, prepare_case, thumbnail
from TomoSegLib.evaluation.records import CaseRecord, EvaluationFolder
from TomoSegLib.evaluation.summary import (
    CaseResult,
    differences,
    estimates_as_dict,
    judge,
    summarize,
)
from TomoSegLib.imaging.preprocessing import ModelInput
from TomoSegLib.models.card import CamKind, Method, RefinementSettings
from TomoSegLib.models.store import ModelFolder, find_model, model_hash
from TomoSegLib.models.tasks import wrong_task

INTENSITY = "intensity"
METHODS: tuple[str, ...] = (INTENSITY, "cam", "averaged-cam", "tomographic-cam", "tonno")
REFERENCE_METHOD = "cam"
"""What the others are compared with, pair by pair: the baseline of the field."""

_GALLERY = 4

Progress = Callable[[float, int, str], None]


@dataclass(frozen=True)
class Evaluation:
    """What is evaluated, and how.

    Attributes:
        manifest: The cases, with masks where Dice is wanted.
        model: Name of a known model, or a model's folder.
        output: Folder of the results; the same evaluation in it is resumed.
        methods: Any of `METHODS`.
        split: Which cases are evaluated.
        validation: Manifest on whose ``val`` cases the intensity baseline is chosen; by default
            the same manifest.
        validation_cases: At most so many of them, evenly spread over the manifest.
        directions: Direction set for every method but one-orientation CAM, or None for the
            card's.
        cam: Kind of class activation map.
        refine: Whether each heatmap method is evaluated with a refined mask too, with the card's
            settings or the defaults.
        segmenters: Names or folders of segmenters to compare with.
        threshold: ``card``, ``otsu``, ``percentile:Q`` or a number; ``card`` falls back to
            ``otsu``, with a warning, where the card has none.
        device: As in a job.
        batch_size: Slices per pass of the encoder, or None for the device's default.
        seed: Seed of the bootstrap.
        overwrite: Whether another evaluation in the folder may be replaced.
    """

    manifest: Path
    model: str
    output: Path
    methods: Sequence[str] = METHODS
    split: Split = "test"
    validation: Path | None = None
    validation_cases: int = 24
    directions: str | None = None
    cam: CamKind = "cam"
    refine: bool = False
    segmenters: Sequence[str] = ()
    threshold: float | str = "card"
    device: str = "auto"
    batch_size: int | None = None
    seed: int = 0
    overwrite: bool = False


def evaluate(
    what: Evaluation,
    *,
    on_progress: Progress = lambda done, total, text: None,
    on_warning: Callable[[str, str], None] = lambda code, message: None,
) -> dict[str, Any]:
    """Evaluate methods on the cases of a manifest.

    Args:
        what: What and how.
        on_progress: Called with steps done (with a fraction), steps in all, and what is done; a
            step is one method on one case.
        on_warning: Called with code and message.

    Returns:
        The content of ``summary.json``.

    Raises:
        TomoSegError: Those of `read_manifest`, `Manifest.split`, `find_model`, `prepare_case`,
            `compute_heatmap` and `heatmap_to_mask`; ``method-unknown``, ``output-exists``,
            ``output-unwritable``, ``device-unavailable``.
    """
    for name in what.methods:
        if name not in METHODS:
            raise unknown_method(name, METHODS)
    manifest = read_manifest(what.manifest)
    cases = manifest.split(what.split)
    model, segmenters = find_model(what.model), _segmenters(what.segmenters)
    validation = _validation_cases(what) if INTENSITY in what.methods else []
    folder = EvaluationFolder(
        what.output,
        {
            "cases": [case.id for case in cases],
            "split": what.split,
            "model": model_hash(model),
        },
        overwrite=what.overwrite,
    )
    heatmaps = sum(name != INTENSITY for name in what.methods)
    count = len(what.methods) + (heatmaps if what.refine else 0) + len(segmenters)
    total = len(cases) * count + len(validation)
    baseline = IntensityBaseline()
    if INTENSITY in what.methods:
        baseline = folder.baseline(
            _baseline_key(validation, model),
            lambda: choose_baseline(_validation_inputs(validation, model, total, on_progress)),
        )
        if not baseline.validation_cases:
            on_warning(
                "baseline-not-calibrated",
                "There are no validation cases with masks to choose the intensity baseline on: "
                "Otsu's threshold is used.",
            )
    methods = _methods(what, model, baseline, segmenters, on_warning)
    results: list[CaseResult] = []
    done = len(validation)
    for case in cases:
        record = _evaluate_case(case, model, methods, folder, done, total, on_progress)
        results += [record.results[method.name] for method in methods]
        done += len(methods)
    return _write(what, model, methods, results, folder)


def _methods(
    what: Evaluation,
    model: ModelFolder,
    baseline: IntensityBaseline,
    segmenters: Sequence[ModelFolder],
    on_warning: Callable[[str, str], None],
) -> list[EvaluatedMethod]:
    from TomoSegLib.jobs.devices import choose_device

    device = choose_device(what.device)
    encoder = EncoderOnce(model, device)
    methods: list[EvaluatedMethod] = []
    for name in dict.fromkeys(what.methods):
        if name == INTENSITY:
            methods.append(IntensityMethod(baseline, model))
            continue
        heatmap = HeatmapMethod(
            cast(Method, name),
            encoder,
            cam=what.cam,
            directions=what.directions,
            threshold=what.threshold,
            batch_size=what.batch_size,
            on_warning=on_warning,
        )
        methods.append(heatmap)
        if what.refine:
            settings = model.card.refinement or RefinementSettings()
            methods.append(RefinedMethod(heatmap, model.card, settings))
    methods += [SegmenterMethod(segmenter, device) for segmenter in segmenters]
    return methods


def _segmenters(names: Sequence[str]) -> list[ModelFolder]:
    models = [find_model(name) for name in names]
    for number, model in enumerate(models):
        if model.card.task != "segmentation":
            raise wrong_task(model.card, "segmentation")
        if model.name in [*METHODS, *(other.name for other in models[:number])]:
            raise TomoSegError(
                "usage",
                f"Two methods would be called {model.name} in the tables.",
                "Give each segmenter once, and other names to models that share one.",
            )
    return models


def _evaluate_case(
    case: Case,
    model: ModelFolder,
    methods: Sequence[EvaluatedMethod],
    folder: EvaluationFolder,
    done: int,
    total: int,
    on_progress: Progress,
) -> CaseRecord:
    """The record of a case, with what was missing in it."""
    on_progress(done, total, f"{case.id}: reading")
    prepared = prepare_case(case, model.card)
    record = folder.record(case.id)
    missing = []
    for method in methods:
        key = _key({"case": prepared.hashes, "label": case.label, "method": method.settings()})
        if not record.has(method.name, key):
            missing.append((method, key))
    finished = done + len(methods) - len(missing)
    heatmaps, masks = {}, {}
    for place, (method, key) in enumerate(missing):
        text = f"{case.id}: {method_name(method.name)}"

        def tell(part: int, whole: int, step: int = finished + place, text: str = text) -> None:
            on_progress(step + part / max(whole, 1), total, text)

        start = time.perf_counter()
        outcome = method.run(prepared, tell)
        seconds = time.perf_counter() - start
        result = judge(
            case=case.id,
            label=case.label,
            method=method.name,
            heatmap=outcome.heatmap,
            mask=outcome.mask,
            threshold=outcome.threshold,
            foreground=prepared.model_input.source_foreground,
            reference=prepared.reference,
            geometry=prepared.model_input.source,
            seconds=round(seconds, 3),
        )
        record.add(method.name, key, result)
        heatmaps[method.name], masks[method.name] = outcome.heatmap, outcome.mask
    if missing:
        record.show(thumbnail(prepared, heatmaps, masks))
        record.save()
    on_progress(done + len(methods), total, case.id)
    return record


def _validation_cases(what: Evaluation) -> list[Case]:
    """Positive validation cases with a mask, at most so many, evenly spread."""
    manifest = read_manifest(what.validation or what.manifest)
    cases = [c for c in manifest.cases if c.split == "val" and c.label == 1 and c.mask]
    if len(cases) > what.validation_cases:
        chosen = np.linspace(0, len(cases) - 1, what.validation_cases).round().astype(int)
        cases = [cases[index] for index in chosen]
    return cases


def _validation_inputs(
    cases: Sequence[Case], model: ModelFolder, total: int, on_progress: Progress
) -> Iterator[tuple[ModelInput, BoolArray]]:
    for number, case in enumerate(cases):
        on_progress(number, total, f"{case.id}: choosing the intensity baseline")
        prepared: PreparedCase = prepare_case(case, model.card)
        reference = prepared.reference_on_model_grid()
        if reference is not None:
            yield prepared.model_input, reference


def _baseline_key(cases: Sequence[Case], model: ModelFolder) -> str:
    """Changes when the validation files do, as far as size and time tell."""
    files = [file for case in cases for file in (*case.paths.values(), case.mask) if file]
    stats = [(file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]
    return _key(
        {
            "files": [str(file) for file in files],
            "stats": stats,
            "preprocessing": model.card.preprocessing.model_dump(mode="json"),
        }
    )


def _key(content: Any) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def _write(
    what: Evaluation,
    model: ModelFolder,
    methods: Sequence[EvaluatedMethod],
    results: Sequence[CaseResult],
    folder: EvaluationFolder,
) -> dict[str, Any]:
    """Write table, summary and figure; returns the summary."""
    estimates = summarize(results, seed=what.seed)
    names = {method.name for method in methods}
    cases = list(dict.fromkeys(result.case for result in results))
    card = model.card
    summary: dict[str, Any] = {
        "schema_version": 1,
        "tomoseg": __version__,
        "manifest": str(what.manifest),
        "split": what.split,
        "cases": len(cases),
        "positives": len({result.case for result in results if result.label}),
        "model": {
            "name": card.name,
            "version": card.version,
            "hash": model_hash(model),
            "trained_on_simulated_data": card.training_data.simulated,
        },
        "seed": what.seed,
        "confidence": 0.95,
        "notes": {
            "oracle_dice": "Dice at each case's own best threshold: nobody can choose it without "
            "the reference, so it is an upper limit and not a result.",
            "dice": "Positive cases only; an empty mask counts 0.",
            "hd95_mm": "Positive cases only; an empty mask counts the diagonal of the volume.",
            "f1_pooled": "Over the voxels of all cases, negatives included.",
            "volume_auc": "Of the heatmap's maximum within the foreground.",
        },
        "methods": estimates_as_dict(estimates),
        "settings": {method.name: method.settings() for method in methods},
    }
    if REFERENCE_METHOD in names and len(names) > 1:
        summary[f"difference_to_{REFERENCE_METHOD}"] = estimates_as_dict(
            differences(results, REFERENCE_METHOD, seed=what.seed)
        )
    folder.write_table(results)
    simulated = " Trained on simulated data." if card.training_data.simulated else ""
    with folder.writing("evaluation.png") as path:
        draw_evaluation(
            results,
            estimates,
            folder.thumbnails(cases, _GALLERY),
            path,
            title=f"{card.name} {card.version} on {what.manifest.name}, {what.split} split: "
            f"{summary['positives']} positive and {len(cases) - summary['positives']} negative "
            "cases",
            footer="One dot a case; line and bar: mean and 95 % interval (bootstrap over cases)."
            + simulated,
        )
    folder.write_json("summary.json", summary)
    return summary
