"""Run the panel's scenarios in 3D Slicer, and end it with status 0 if all have passed.

    Slicer --testing --no-splash --additional-module-paths TomoSeg --python-script \
        Testing/run_in_slicer.py [WORDS]

With WORDS, only the scenarios run whose titles contain them. Without the first option message boxes
wait for somebody. An installed extension is tested by the same command without the module path. It
needs PyTorch and the other packages in Slicer (the panel's section Computing installs them):
a scenario that cannot run has failed. The scene that is open is closed.
"""

import sys
import traceback

import slicer


def main() -> int:
    """Run the module's test; the exit status."""
    try:
        slicer.selfTests["TomoSeg"](only=" ".join(sys.argv[1:]))
    except KeyError:
        print("The module TomoSeg is not loaded: give --additional-module-paths its folder.")
        return 2
    except Exception:
        traceback.print_exc()
        return 1
    return 0


slicer.util.exit(main())
