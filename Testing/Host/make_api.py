"""Make ``tomoseg_host/data/api.json.gz`` from the two lists of what Slicer offers to Python.

The lists (``api.json`` for ctk, qMRML and qSlicer classes, ``api_qt.json`` for Qt) hold facts read
from headers: names and signatures only.  The host needs them at run time, so they are carried in
one compact file together with where they came from.

Usage::

    python make_api.py FOLDER_WITH_API_JSON [OUTPUT]
"""

import gzip
import json
import sys
from pathlib import Path

#: What the host never looks at: C++ constructors that Python cannot reach.
DROPPED_KEYS = ("cctor",)


def compact(folder: Path) -> dict:
    """Read both lists from ``folder`` and return the merged document.

    Qt classes come first, so that a name that stands in both files keeps the description of the
    library that declares it (ctk and qMRML never redeclare a Qt class).
    """
    merged: dict = {"classes": {}}
    for name in ("api_qt.json", "api.json"):
        document = json.loads((folder / name).read_text(encoding="utf-8"))
        merged.setdefault("provenance", {})[name] = document["meta"]
        for cls, description in document["classes"].items():
            kept = {key: value for key, value in description.items() if key not in DROPPED_KEYS}
            merged["classes"].setdefault(cls, {}).update(kept)
    return merged


def main(argv: list[str]) -> int:
    """Write the data file; returns the exit status."""
    if not 2 <= len(argv) <= 3:
        print(__doc__)
        return 2
    default = Path(__file__).parent / "tomoseg_host" / "data" / "api.json.gz"
    output = Path(argv[2]) if len(argv) == 3 else default
    text = json.dumps(compact(Path(argv[1])), separators=(",", ":"), sort_keys=True)
    # mtime=0: the same input gives the same bytes, so that a rebuild shows no difference in git.
    output.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))
    print(f"{output}: {output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
