"""Where a heatmap comes from: written on its node, so that it is saved with the scene.

A heatmap's node has the attribute ``TomoSeg.Record``, the run's ``result.json`` without the list of
directions (their name says them all), and a node reference to each input volume. That is all that
it takes to run again exactly, after the scene is reopened too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

RECORD = "TomoSeg.Record"
PARTIAL = "TomoSeg.PartialDirections"
AGREEMENT_ROLE = "TomoSeg.Agreement"
_INPUT_ROLE = "TomoSeg.Input."


def writeRecord(node: Any, record: Mapping[str, Any], inputs: Mapping[str, Any]) -> None:
    """Write the record of a run on its heatmap.

    Args:
        node: The heatmap.
        record: The content of ``result.json``.
        inputs: The nodes of the channels, by channel.
    """
    kept = {key: value for key, value in record.items() if key != "directions"}
    node.SetAttribute(RECORD, json.dumps(kept, separators=(",", ":")))
    node.SetAttribute(PARTIAL, None)
    for channel, volume in inputs.items():
        node.SetNodeReferenceID(_INPUT_ROLE + channel, volume.GetID())


def readRecord(node: Any) -> dict[str, Any] | None:
    """The record on a heatmap, or None where there is none (that can be read)."""
    text = node.GetAttribute(RECORD) if node is not None else None
    if not text:
        return None
    try:
        record = json.loads(text)
    except ValueError:
        return None
    return record if isinstance(record, dict) and "job" in record else None


def recordedInputs(node: Any) -> dict[str, Any]:
    """The volumes that a heatmap was made from, by channel; None for one that is gone."""
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
