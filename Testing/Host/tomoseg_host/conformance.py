"""Run cases that were measured in Slicer's own Python, and say where the host differs.

A file is a list of groups ``{"setup": code, "cases": [...]}``.  For each case the setup is executed
afresh, then ``do`` (statements), then ``get`` (an expression), and the outcome is compared with
what Slicer gave: ``raises``, ``value`` with its ``type``, ``type`` alone, ``callable`` or ``ok``.

A refusal of a silent conversion (`SilentConversion`) counts as passing where Slicer accepted;
accepting what Slicer refused never does.
"""

import gc
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from .bridge import stdout, strictness


@dataclass(frozen=True)
class Result:
    """The outcome of one case; ``problem`` is empty where the host gave what Slicer gave."""

    case: dict
    problem: str
    refused: bool = False

    @property
    def passed(self) -> bool:
        """Whether host and Slicer agree (or the host refused a silent conversion)."""
        return not self.problem

    def line(self) -> str:
        """One line for a person."""
        code = "; ".join(str(self.case[key]) for key in ("do", "get") if key in self.case)
        return f"FAILED {code!r}: {self.problem}"


def plain(value: object) -> object:
    """A value as JSON would hold it: tuples are lists, enums numbers."""
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    return repr(value)


def type_fits(value: object, name: str) -> bool:
    """Whether the value's type has that name (enums are listed as the ``int`` they derive from)."""
    if type(value).__name__ == name:
        return True
    return name == "int" and isinstance(value, int) and not isinstance(value, bool)


def run_case(setup: str, case: dict) -> Result:
    """Run one case in a fresh namespace."""
    namespace: dict = {"__name__": "__conformance__"}
    try:
        exec(compile(setup, "<setup>", "exec"), namespace)
    except Exception as error:
        return Result(case, f"the setup raised {type(error).__name__}: {error}")
    value = None
    try:
        with stdout.redirected():
            exec(compile(case.get("do", ""), "<do>", "exec"), namespace)
            if "get" in case:
                value = eval(compile(case["get"], "<get>", "eval"), namespace)
    except Exception as error:
        return _raised(case, error)
    return Result(case, _difference(case, value))


def _raised(case: dict, error: Exception) -> Result:
    """The outcome of a case whose code raised."""
    if "raises" in case:
        if type(error).__name__ == case["raises"]:
            return Result(case, "")
        return Result(case, f"raised {type(error).__name__} ({error}), not {case['raises']}")
    if isinstance(error, strictness.SilentConversion):
        return Result(case, "", refused=True)
    return Result(case, f"raised {type(error).__name__}: {error}")


def _difference(case: dict, value: object) -> str:
    """How a value differs from what Slicer gave; "" where it does not."""
    if "raises" in case:
        return f"gave {value!r}, Slicer raises {case['raises']}"
    if "callable" in case:
        return "" if callable(value) == case["callable"] else f"callable is {callable(value)}"
    if "type" in case and not type_fits(value, case["type"]):
        return f"is of type {type(value).__name__}, not {case['type']}"
    if "value" in case:
        found, wanted = plain(value), case["value"]
        if found != wanted or isinstance(found, bool) != isinstance(wanted, bool):
            return f"is {value!r}, not {wanted!r}"
    return ""


def run_groups(groups: list[dict]) -> list[Result]:
    """Run all cases of a file."""
    results = []
    for group in groups:
        for case in group["cases"]:
            results.append(run_case(group["setup"], case))
            gc.collect(0)
    return results


def main(argv: list[str]) -> int:
    """``[--faithful] FILE...``: run the files and print what differs; the exit status is 1 then."""
    faithful = "--faithful" in argv
    files = [each for each in argv[1:] if not each.startswith("--")]
    if not files:
        print("usage: conformance.py [--faithful] CASES.json...")
        return 2
    results: list[Result] = []
    with strictness.faithful(faithful):
        for name in files:
            results += run_groups(json.loads(Path(name).read_text(encoding="utf-8")))
    for result in results:
        if not result.passed:
            print(result.line())
    failed = sum(not result.passed for result in results)
    print(f"{len(results) - failed} passed, {failed} failed")
    sys.stdout.flush()
    return 1 if failed else 0
