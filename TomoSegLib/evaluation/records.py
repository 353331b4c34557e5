"""The folder of an evaluation: what is kept of each case, and when it is still valid."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from TomoSegLib.errors import TomoSegError
from TomoSegLib.evaluation.baseline import IntensityBaseline
from TomoSegLib.evaluation.figures import Thumbnail
from TomoSegLib.evaluation.summary import CaseResult
from TomoSegLib.files import atomic_path

_IDENTITY = "evaluation.json"
_CASES = "cases"
_BASELINE = "baseline.json"


class CaseRecord:
    """What is known of one case: a result for each method, under the key of what it depends on.

    Args:
        case: Name of the case.
        path: The JSON file; thumbnails lie beside it.
    """

    def __init__(self, case: str, path: Path) -> None:
        self.case = case
        self.results: dict[str, CaseResult] = {}
        self._keys: dict[str, str] = {}
        self._path = path
        self._thumbnail: Thumbnail | None = None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            for method, entry in content["methods"].items():
                self.results[method] = CaseResult.from_dict(entry["result"])
                self._keys[method] = entry["key"]

    def has(self, method: str, key: str) -> bool:
        """Whether there is a result that was computed from the same."""
        return self._keys.get(method) == key

    def add(self, method: str, key: str, result: CaseResult) -> None:
        """Take up a result."""
        self.results[method] = result
        self._keys[method] = key

    def show(self, new: Thumbnail | None) -> None:
        """Take up a thumbnail; methods that it lacks are kept from the last one."""
        if new is None:
            return
        old = self.thumbnail()
        if old is not None and old.image.shape == new.image.shape:
            new = Thumbnail(
                new.case,
                new.image,
                new.reference,
                {**old.heatmaps, **new.heatmaps},
                {**old.masks, **new.masks},
            )
        self._thumbnail = new

    def thumbnail(self) -> Thumbnail | None:
        """The case's thumbnail, if it has one."""
        if self._thumbnail is None:
            with contextlib.suppress(OSError, ValueError, KeyError, zipfile.BadZipFile):
                with np.load(self._path.with_suffix(".npz"), allow_pickle=False) as stored:
                    parts = {name: stored[name].astype(np.float32) for name in stored.files}
                self._thumbnail = Thumbnail(
                    self.case,
                    parts["image"],
                    parts["reference"],
                    _with_prefix(parts, "heatmap "),
                    _with_prefix(parts, "mask "),
                )
        return self._thumbnail

    def save(self) -> None:
        """Write the record, atomically; the results last, as they say that all is there."""
        if self._thumbnail is not None:
            small = self._thumbnail
            parts = {"image": small.image, "reference": small.reference}
            parts |= {f"heatmap {name}": array for name, array in small.heatmaps.items()}
            parts |= {f"mask {name}": array for name, array in small.masks.items()}
            with atomic_path(self._path.with_suffix(".npz")) as path:
                np.savez_compressed(path, **parts)  # type: ignore[arg-type]
        content = {
            "case": self.case,
            "methods": {
                method: {"key": self._keys[method], "result": result.as_dict()}
                for method, result in self.results.items()
            },
        }
        _write_json(self._path, content)


class EvaluationFolder:
    """The folder of an evaluation.

    Args:
        path: The folder; made if it does not exist.
        identity: What makes it this evaluation and no other, for JSON.
        overwrite: Whether another evaluation in it is replaced.

    Raises:
        TomoSegError: ``output-exists`` if another evaluation or anything else is in it;
            ``output-unwritable``.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], *, overwrite: bool = False) -> None:
        self.path = path
        marker = path / _IDENTITY
        try:
            if path.exists() and any(path.iterdir()) and not overwrite:
                _refuse_others(path, marker, identity)
            (path / _CASES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TomoSegError(
                "output-unwritable",
                f"The output folder {path} cannot be used: {error.strerror or error}.",
                "Choose a folder in which you may write.",
            ) from error
        _write_json(marker, dict(identity))

    def record(self, case: str) -> CaseRecord:
        """What is kept of a case."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", case)[-60:].strip("._")
        digest = hashlib.sha256(case.encode("utf-8")).hexdigest()[:8]
        return CaseRecord(case, self.path / _CASES / f"{readable}-{digest}.json")

    def baseline(self, key: str, choose: Callable[[], IntensityBaseline]) -> IntensityBaseline:
        """The baseline that was chosen from the same, or the one that is chosen now."""
        path = self.path / _BASELINE
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            content = json.loads(path.read_text(encoding="utf-8"))
            if content["key"] == key:
                return IntensityBaseline(**content["baseline"])
        chosen = choose()
        _write_json(path, {"key": key, "baseline": asdict(chosen)})
        return chosen

    def thumbnails(self, cases: Sequence[str], most: int) -> list[Thumbnail]:
        """Thumbnails for the gallery, evenly spread over the cases that have one."""
        having = [t for case in cases if (t := self.record(case).thumbnail()) is not None]
        if len(having) > most:
            chosen = np.linspace(0, len(having) - 1, most).round().astype(int)
            having = [having[index] for index in chosen]
        return having

    def write_table(self, results: Sequence[CaseResult]) -> None:
        """Write ``cases.csv``."""
        with (
            self.writing("cases.csv") as path,
            path.open("w", encoding="utf-8", newline="") as stream,
        ):
            columns = [field.name for field in fields(CaseResult)]
            writer = csv.DictWriter(stream, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(result.as_dict() for result in results)

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON document."""
        _write_json(self.path / name, content)

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """A path for a file that appears whole or not at all."""
        with atomic_path(self.path / name) as path:
            yield path


def _refuse_others(path: Path, marker: Path, identity: Mapping[str, Any]) -> None:
    found: Any = None
    with contextlib.suppress(FileNotFoundError, ValueError):
        found = json.loads(marker.read_text(encoding="utf-8"))
    if found != identity:
        what = "other files" if found is None else "another evaluation"
        raise TomoSegError(
            "output-exists",
            f"The output folder {path} already has {what} in it.",
            "Choose another folder, or allow results to be replaced with --overwrite.",
        )


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(
            json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
            encoding="utf-8",
        )


def _with_prefix(parts: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: array for name, array in parts.items() if name.startswith(prefix)}
