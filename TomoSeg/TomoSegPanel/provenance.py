"""Where results come from: written on their nodes, so that it is saved with the scene.

A result's node (a heatmap, or the segmentation of a segmenter) has the attribute
``TomoSeg.Record``, the run's ``result.json`` without the list of directions (their name says them
all), and a node reference to each input volume. That is all that it takes to run again exactly,
after the scene is reopened too. The heatmap of a run that was cancelled has ``TomoSeg.Job`` alone:
what it was to be.

A segment that was made of a heatmap has its settings and figures in the attribute
``TomoSeg.Segment.<segment ID>`` of its segmentation, together with the heatmap's record, and the
settings in the tag ``TomoSeg.Mask`` of its own, which goes with it into files and other
segmentations.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

RECORD = "TomoSeg.Record"
PARTIAL = "TomoSeg.PartialDirections"
JOB = "TomoSeg.Job"
AGREEMENT_ROLE = "TomoSeg.Agreement"
HEATMAP_ROLE = "TomoSeg.Heatmap"
MASK_TAG = "TomoSeg.Mask"
_SEGMENT = "TomoSeg.Segment."
_INPUT_ROLE = "TomoSeg.Input."


def writeRecord(node: Any, record: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write the record of a run on its result.

    Args:
        node: The result.
        record: The content of ``result.json``.
        inputs: The nodes of the channels, by channel.
    """
    kept = {key: value for key, value in record.items() if key != "directions"}
    node.SetAttribute(RECORD, _compact(kept))
    node.RemoveAttribute(PARTIAL)
    node.RemoveAttribute(JOB)
    writeInputs(node, inputs)


def writeInputs(node: Any, inputs: Mapping[str, Any]) -> None:
    """Write on a result which volumes it was made of, by channel."""
    for channel, volume in inputs.items():
        node.SetNodeReferenceID(_INPUT_ROLE + channel, volume.GetID())


def readSequenceRecord(sequence: Any) -> dict[str, Any] | None:
    """The record of a run on a sequence, or None where there is none that can be used."""
    record = readRecord(sequence)
    if record is None or not isinstance(record.get("frames"), list):
        return None
    shape = {"number": int, "value": str}
    good = bool(record["frames"]) and all(_hasShape(frame, shape) for frame in record["frames"])
    return record if good and isinstance(record.get("task"), str) else None


def writePartial(node: Any, directions: int, job: Mapping[str, Any]) -> None:
    """Write on a heatmap that it is one of so many directions, of a job that goes on."""
    node.SetAttribute(PARTIAL, str(directions))
    node.SetAttribute(JOB, _compact(job))


def readRecord(node: Any) -> dict[str, Any] | None:
    """The record on a result, or None where there is none, or none as the engine writes them."""
    record = _read(node, RECORD)
    return record if record is not None and _isRecord(record) else None


def readJob(node: Any) -> dict[str, Any] | None:
    """The job of an unfinished heatmap, or None."""
    return _read(node, JOB)


def writeSegmentRecord(segmentation: Any, segmentId: str, record: Mapping[str, Any] | None) -> None:
    """Write where a segment comes from.

    Args:
        segmentation: The segmentation node.
        segmentId: The segment, which is there unless the record is taken away.
        record: ``figures``, the record of the run as ``run`` and, where it was made of a heatmap,
            ``mask`` (the settings) and ``heatmap_name``; None: take it away.
    """
    if record is None:
        segmentation.RemoveAttribute(_SEGMENT + segmentId)
        return
    run = record.get("run") or {}
    kept = {**record, "run": {key: value for key, value in run.items() if key != "directions"}}
    segmentation.SetAttribute(_SEGMENT + segmentId, _compact(kept))
    model = run.get("model", {})
    short = {
        **record.get("mask", {}),
        "model": model.get("name"),
        "model_version": model.get("version"),
    }
    # The file format separates tags by bars.
    text = _compact(short).replace("|", "/")
    segmentation.GetSegmentation().GetSegment(segmentId).SetTag(MASK_TAG, text)


def readSegmentRecord(segmentation: Any, segmentId: str) -> dict[str, Any] | None:
    """Where a segment comes from, or None where it was not made here."""
    record = _read(segmentation, _SEGMENT + segmentId)
    if record is None or not _hasShape(record.get("figures"), {}):
        return None
    figures = {key: value for key, value in record["figures"].items() if _isNumber(value)}
    return {**record, "figures": figures, "heatmap_name": str(record.get("heatmap_name") or "")}


def recordedInputs(node: Any) -> dict[str, Any]:
    """The volumes that a result was made from, by channel; None for one that is gone."""
    record = readRecord(node)
    if record is None:
        return {}
    return {
        channel: node.GetNodeReference(_INPUT_ROLE + channel)
        for channel in record.get("inputs", {})
    }


def repetition(record: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a job that does exactly the same again, and refuses if anything changed.

    Returns:
        Fields of the job document, all but the volumes' files and the folders.
    """
    job = {key: value for key, value in record["job"].items() if value is not None}
    for name in ("input", "channels", "foreground", "output", "previews", "expected"):
        job.pop(name, None)
    environment = record["environment"]
    return {
        **job,
        "device": environment["device"],
        "threads": environment["threads"],
        "expected": {
            "inputs": {name: item["hash"] for name, item in record["inputs"].items()},
            "model": record["model"]["hash"],
        },
    }


def _compact(content: Mapping[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"))


def _read(node: Any, attribute: str) -> dict[str, Any] | None:
    text = node.GetAttribute(attribute) if node is not None else None
    if not text:
        return None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


# What is read of a record; a scene can come from anywhere, and from other versions.
_TEXT = (str, type(None))
_SHAPE: dict[str, Any] = {
    "created_at": str,
    "job": {"method": _TEXT, "directions": _TEXT},
    "inputs": {},
    "model": {"name": str, "version": str, "hash": str, "simulated": bool, "labels": list},
    "environment": {"device": str, "device_name": _TEXT, "threads": int},
}


def _isRecord(record: Mapping[str, Any]) -> bool:
    labels = record.get("model", {}).get("labels") if _hasShape(record, _SHAPE) else None
    peaks = record.get("heatmap", {"peaks": []})
    mask = record.get("mask", {"threshold": 0})
    return (
        bool(labels)
        and all(_hasShape(label, {"name": str}) for label in labels)
        and all(_hasShape(item, {"hash": str}) for item in record["inputs"].values())
        and _hasShape(peaks, {"peaks": list})
        and all(_isPeak(peak) for peak in peaks["peaks"])
        and isinstance(mask, dict)
        and _isNumber(mask.get("threshold", 0))
    )


def _hasShape(value: Any, shape: Any) -> bool:
    """Whether a value has a type, or the members of a mapping theirs."""
    if not isinstance(shape, dict):
        return isinstance(value, shape)
    return isinstance(value, dict) and all(
        _hasShape(value.get(name), each) for name, each in shape.items()
    )


def _isPeak(peak: Any) -> bool:
    if not _hasShape(peak, {"lps_mm": list}):
        return False
    place = peak["lps_mm"]
    return len(place) == 3 and all(map(_isNumber, [*place, peak.get("value")]))


def _isNumber(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
