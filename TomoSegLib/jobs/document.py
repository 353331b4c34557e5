"""The job document: what is to be done, complete and validated before anything starts.

A document is a JSON object; its ``kind`` says which class describes it. Everything that can be said
wrongly is refused here, unknown fields above all: a misspelt setting that is silently ignored would
change a result. Settings that are left out (None) are taken from the model's card; ``result.json``
records the document with every setting filled in.

A new kind of job is a class with its own literal ``kind`` that joins the union `Job`, and a
function in `TomoSegLib.jobs.task` that carries it out.
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Annotated, Any, Union

from pydantic import Field, TypeAdapter, ValidationError

from TomoSegLib.errors import TomoSegError
from TomoSegLib.jobs.document_base import JobModel, Region
from TomoSegLib.jobs.document_runs import (
    HEATMAP_ONLY,
    BatchCase,
    BatchJob,
    ClassifyJob,
    Expected,
    RunJob,
    RunSettings,
)
from TomoSegLib.jobs.document_tasks import (
    EstimateJob,
    ImportModelJob,
    InspectStudyJob,
    ProbeJob,
    RefineMaskJob,
    VerifyModelJob,
)

__all__ = [
    "HEATMAP_ONLY",
    "AnyJob",
    "BatchCase",
    "BatchJob",
    "ClassifyJob",
    "EstimateJob",
    "Expected",
    "ImportModelJob",
    "InspectStudyJob",
    "Job",
    "JobModel",
    "ProbeJob",
    "RefineMaskJob",
    "Region",
    "RunJob",
    "RunSettings",
    "VerifyModelJob",
    "parse_job",
    "parse_job_text",
    "read_job",
]

SCHEMA_VERSION = 1

AnyJob = Union[
    RunJob,
    BatchJob,
    ClassifyJob,
    ProbeJob,
    ImportModelJob,
    VerifyModelJob,
    EstimateJob,
    RefineMaskJob,
    InspectStudyJob,
]
Job = Annotated[AnyJob, Field(discriminator="kind")]

_ADAPTER: TypeAdapter[AnyJob] = TypeAdapter(Job)
_KINDS = (
    "run",
    "batch",
    "classify",
    "probe",
    "import-model",
    "verify-model",
    "estimate",
    "refine-mask",
    "inspect-study",
)

# Room for the largest batch; more is a mistake.
_MAX_BYTES = 64 << 20

_PATH_FIELDS = (
    "input",
    "foreground",
    "output",
    "previews",
    "source",
    "image",
    "heatmap",
    "agreement",
    "inside",
    "outside",
    "study",
    "views",
)


def parse_job(document: Any, folder: Path | None = None) -> AnyJob:
    """Validate a document.

    Args:
        document: The JSON object.
        folder: Relative paths are relative to this folder; by default to the current one.

    Raises:
        TomoSegError: ``job-invalid``, ``job-kind`` or ``job-version``.
    """
    if isinstance(document, dict):
        version = document.get("schema_version", SCHEMA_VERSION)
        if version != SCHEMA_VERSION:
            raise TomoSegError(
                "job-version",
                f"The job document has schema version {version!r}; "
                f"this program reads version {SCHEMA_VERSION}.",
                "Use the versions of the panel and the engine that belong together.",
            )
    try:
        job = _ADAPTER.validate_json(json.dumps(document))
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"].startswith("union_tag"):
            raise TomoSegError(
                "job-kind",
                "The job document's 'kind' is missing or unknown.",
                f"Known kinds are: {', '.join(_KINDS)}.",
            ) from None
        raise TomoSegError("job-invalid", _describe(error), _HINT) from None
    return _with_absolute_paths(job, Path.cwd() if folder is None else folder)


def read_job(path: Path) -> AnyJob:
    """Read and validate a job document; relative paths in it are relative to its folder.

    Raises:
        TomoSegError: ``job-unreadable``, or as `parse_job`.
    """
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise OSError(errno.EINVAL, "it is a pipe or a device; '-' reads from stdin")
        if path.is_file() and path.stat().st_size > _MAX_BYTES:
            raise OSError(errno.EFBIG, f"it has more than {_MAX_BYTES} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise TomoSegError(
            "job-unreadable",
            f"The job document {path} cannot be read: {reason}.",
            "Give the path of a JSON file that describes a job.",
        ) from None
    return parse_job_text(text, path.absolute().parent)


def parse_job_text(text: str, folder: Path | None = None) -> AnyJob:
    """Validate a document given as JSON text; see `parse_job`."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise TomoSegError(
            "job-unreadable",
            "The job document is not JSON.",
            "Give the path of a JSON file that describes a job.",
        ) from None
    return parse_job(document, folder)


_HINT = "Correct this setting; 'tomoseg run --help' and TomoSegLib/jobs/document.py describe it."


def _describe(error: ValidationError) -> str:
    """The first thing that is wrong, in one line."""
    errors = error.errors(include_url=False, include_context=False)
    # A union reports once for each member; the last says it best ("... or a number").
    where = [str(part) for part in errors[0]["loc"] if part not in _KINDS]
    if errors[0]["type"] == "extra_forbidden":
        return f"The job document has an unknown field '{'.'.join(where)}'."
    same = [e for e in errors if where and where[0] in e["loc"]] or errors
    message = same[-1]["msg"].removeprefix("Value error, ").rstrip(".")
    subject = f"The job's '{where[0]}'" if where else "The job document"
    return f"{subject} is not valid: {message[:1].lower()}{message[1:]}."


def _with_absolute_paths(job: AnyJob, folder: Path) -> AnyJob:
    def absolute(path: str) -> str:
        return os.path.normpath(folder / Path(path).expanduser())

    changes: dict[str, Any] = {
        name: absolute(value)
        for name in _PATH_FIELDS
        if (value := getattr(job, name, None)) is not None
    }
    model = getattr(job, "model", None)
    if model is not None and _looks_like_path(model):
        changes["model"] = absolute(model)  # otherwise the name of a known model
    if (
        isinstance(job, RunSettings)
        and job.directions is not None
        and (_looks_like_path(job.directions) or (folder / job.directions).is_file())
    ):
        changes["directions"] = absolute(job.directions)
    if isinstance(job, RunJob):
        changes["channels"] = {name: absolute(path) for name, path in job.channels.items()}
    if isinstance(job, (BatchJob, ClassifyJob)):
        changes["cases"] = tuple(
            case.model_copy(
                update={
                    "input": None if case.input is None else absolute(case.input),
                    "foreground": None if case.foreground is None else absolute(case.foreground),
                    "channels": {name: absolute(path) for name, path in case.channels.items()},
                }
            )
            for case in job.cases
        )
    return job.model_copy(update=changes)


def _looks_like_path(text: str) -> bool:
    return any(separator in text for separator in ("/", "\\")) or text.startswith((".", "~"))
