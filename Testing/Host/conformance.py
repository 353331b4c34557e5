"""``python conformance.py CASES.json``: compare the host with what was measured in Slicer."""

import os
import sys
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
sys.path.insert(0, str(Path(__file__).parent))

from tomoseg_host import conformance, environment

if __name__ == "__main__":
    # The name under which the cases were measured; one of them asks for it.
    environment.start("oracle")
    status = conformance.main(sys.argv)
    sys.stdout.flush()
    # Qt and VTK objects that are still about are none of the interpreter's business any more:
    # taking them down in the order of its own teardown crashes now and then.
    os._exit(status)
