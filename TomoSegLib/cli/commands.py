"""What ``tomoseg run``, ``rerun`` and ``doctor`` do."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from TomoSegLib.cli.console import JobFailed, follow_job
from TomoSegLib.errors import TomoSegError

if TYPE_CHECKING:
    from TomoSegLib.jobs.result import Mask, Segment, SequenceRecord

EXIT_DIFFERENT = 3
EXIT_CASES_FAILED = 4


def run(document: dict[str, Any]) -> int:
    """Run a job and say in short what came out."""
    from TomoSegLib.jobs.document import parse_job

    parse_job(document)  # refuse at once what no worker is needed for
    try:
        outcome = follow_job(document)
    except JobFailed as failure:
        return failure.status
    assert outcome.path is not None
    _print_summary(Path(outcome.path))
    return 0


def run_batch(document: dict[str, Any], cases: list[dict[str, Any]]) -> int:
    """Run a batch with the settings of a run's document, and say how many cases went well."""
    from TomoSegLib.jobs.batch_report import PAGE_NAME
    from TomoSegLib.jobs.document import parse_job

    for name in ("foreground", "previews"):
        if document.get(name) is not None:
            raise TomoSegError(
                "usage",
                f"--{name} is for one volume, and the input is a batch of {len(cases)}.",
                "In a table, a column 'foreground' has the mask of each case.",
            )
    settings = {
        name: value
        for name, value in document.items()
        if name not in ("input", "channels", "foreground", "previews")
    }
    batch = {**settings, "kind": "batch", "cases": cases}
    parse_job(batch)
    print(f"batch       {len(cases)} cases: {', '.join(_some(cases))}", file=sys.stderr)
    try:
        outcome = follow_job(batch)
    except JobFailed as failure:
        return failure.status
    assert outcome.path is not None
    counts = outcome.data
    print(f"cases       {counts['done']} done, {counts['skipped']} as before, ", end="")
    print(f"{counts['failed']} failed")
    print(f"page        {Path(outcome.path) / PAGE_NAME}")
    print(f"results in  {outcome.path}")
    return EXIT_CASES_FAILED if counts["failed"] else 0


def _some(cases: list[dict[str, Any]]) -> list[str]:
    names = [str(case["id"]) for case in cases[:3]]
    return names if len(cases) == len(names) else [*names, "..."]


def rerun(path: Path, output: Path, device: str | None, overwrite: bool) -> int:
    """Run the job of a ``result.json`` again and compare the files."""
    from TomoSegLib.jobs.result import read_result, repeated

    before = read_result(path)
    job = repeated(before, output, device=device, overwrite=overwrite)
    status = run(job.model_dump(mode="json"))
    if status:
        return status
    after = read_result(output)
    different = sorted(name for name in before.files if after.files.get(name) != before.files[name])
    if different:
        print(f"DIFFERENT from {path}: {', '.join(different)}")
        for what in ("platform", "python", "packages", "device_name", "threads"):
            old, new = getattr(before.environment, what), getattr(after.environment, what)
            if old != new:
                print(f"  {what}: then {old}, now {new}")
        return EXIT_DIFFERENT
    print(f"identical: all {len(before.files)} files are the same as those of {path}")
    return 0


def doctor(as_json: bool) -> int:
    """Probe this machine through the worker, as the panel does."""
    try:
        found = follow_job({"kind": "probe"}).data
    except JobFailed as failure:
        return failure.status
    if as_json:
        print(json.dumps(found, indent=2))
        return 0
    print(f"Python      {found['python']['version']}  {found['python']['executable']}")
    print(f"platform    {found['platform']}")
    torch = found["torch"]
    if "error" in torch:
        print(f"torch       CANNOT BE USED: {torch['error']}")
    else:
        print(f"torch       {torch['version']}, CUDA {torch['cuda'] or 'not built in'}")
    cpu = found["cpu"]
    print(
        f"CPU         {cpu['cores']} cores, {cpu['memory_mb'] / 1024:.1f} GiB memory, "
        f"{cpu['available_mb'] / 1024:.1f} GiB free"
    )
    for device in found["devices"]:
        memory = (
            f", {device['available_mb'] / 1024:.1f} of {device['memory_mb'] / 1024:.1f} GiB free"
            if "memory_mb" in device
            else ""
        )
        state = "works" if device.get("works") else f"DOES NOT WORK: {device.get('error')}"
        print(f"device      {device['name']}  {device.get('title', '')}{memory}  {state}")
    missing = [name for name, version in found["packages"].items() if version is None]
    if missing:
        print(f"missing     {', '.join(missing)}")
    models = found["models"]
    if "error" in models:
        print(f"models      {models['error']}")
    else:
        print(f"models      {', '.join(models['names']) or 'none'}")
        for folder in models["folders"]:
            print(f"            in {folder}")
    return 0


def _print_summary(folder: Path) -> None:
    from TomoSegLib.jobs.result import RunResult, SequenceRecord, read_result

    result = read_result(folder)
    if isinstance(result, SequenceRecord):
        _print_frames(result)
    elif isinstance(result, RunResult):
        mask = result.mask
        print(f"mask        {_amount(mask)}, heatmap above {mask.threshold:.4g}")
        for peak in result.heatmap.peaks[:3]:
            print(f"peak        {peak.value:.4g} at {_place(peak.lps_mm)}")
    else:
        for segment in result.segments:
            where = f", the largest at {_place(segment.parts[0].lps_mm)}" if segment.parts else ""
            print(f"segment     {segment.name}: {_amount(segment)}{where}")
    if result.model.simulated:
        print(f"note        the model {result.model.name} was trained on simulated data")
    print(f"results in  {folder}")


def _print_frames(result: SequenceRecord) -> None:
    from TomoSegLib.jobs.result import Segment, parts_of

    unit = f" {result.index_unit}" if result.index_unit else ""
    for frame in result.frames:
        which = "" if result.index_name == "frame" else f", {result.index_name} {frame.value}{unit}"
        amounts = [
            f"{part.name} {_amount(part)}" if isinstance(part, Segment) else _amount(part)
            for part in parts_of(frame)
        ]
        print(f"frame {frame.number:<5} {'; '.join(amounts)}{which}")


def _amount(of: Mask | Segment) -> str:
    return f"{of.volume_ml:.2f} mL in {of.components} part{'' if of.components == 1 else 's'}"


def _place(lps_mm: tuple[float, float, float]) -> str:
    return "L {:.1f}, P {:.1f}, S {:.1f} mm".format(*lps_mm)
