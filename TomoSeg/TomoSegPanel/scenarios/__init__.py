"""What the panel must do, as scenarios that run in 3D Slicer and in the stand-in application.

A scenario is a function whose name is what it shows. It gets a `bench.Bench`, clicks on the
widgets of the panel with real workers behind them, and raises where something is not as it should
be. `runScenarios` runs them in Slicer (`TomoSegTest`); pytest runs the same functions in the
stand-in.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence

import slicer

from TomoSegPanel.scenarios import (
    failures,
    geometry,
    inputs,
    interruptions,
    masks,
    models,
    runs,
    sequences,
    settings,
    studies,
)
from TomoSegPanel.scenarios.bench import Bench

Scenario = Callable[[Bench], None]

SCENARIOS: tuple[Scenario, ...] = (
    *inputs.SCENARIOS,
    *models.SCENARIOS,
    *runs.SCENARIOS,
    *sequences.SCENARIOS,
    *masks.SCENARIOS,
    *settings.SCENARIOS,
    *studies.SCENARIOS,
    *geometry.SCENARIOS,
    *interruptions.SCENARIOS,
    *failures.SCENARIOS,
)


def title(scenario: Scenario) -> str:
    """The name of a scenario as a sentence."""
    return scenario.__name__.replace("_s_", "'s ").replace("_", " ")


def runScenario(scenario: Scenario) -> None:
    """Run one on an empty scene.

    Raises:
        AssertionError: Something is not as it should be.
    """
    with Bench() as bench:
        scenario(bench)


def runScenarios(only: str = "", scenarios: Sequence[Scenario] = SCENARIOS) -> list[str]:
    """Run scenarios one after the other and print how each went.

    Args:
        only: Run those alone whose titles contain this text.
        scenarios: Which there are.

    Returns:
        The titles of those that failed; a scenario that cannot run fails. Those that are about
        views are left out where Slicer has none (``--no-main-window``), and that is printed.

    Raises:
        ValueError: There is none to run.
    """
    chosen = [scenario for scenario in scenarios if only in title(scenario)]
    if not chosen:
        raise ValueError(f"no scenario's title contains {only!r}")
    if only:
        print(f"{len(chosen)} of {len(scenarios)} scenarios, those that contain {only!r}")
    failed, leftOut = [], 0
    for scenario in chosen:
        if getattr(scenario, "needsViews", False) and slicer.app.layoutManager() is None:
            leftOut += 1
            print(f"left out, for there is no main window: {title(scenario)}")
            continue
        start = time.monotonic()
        try:
            runScenario(scenario)
        except Exception:
            failed.append(title(scenario))
            print(traceback.format_exc())
            verdict = "FAILED"
        else:
            verdict = "passed"
        print(f"{verdict}: {title(scenario)} ({time.monotonic() - start:.1f} s)", flush=True)
    passed = len(chosen) - len(failed) - leftOut
    print(f"{passed} scenarios passed, {len(failed)} failed, {leftOut} left out")
    return failed
