"""The parts of Slicer's own Python that the wheel of slicer-core leaves out, written anew.

``install`` puts them where a module imports them from: ``slicer.ScriptedLoadableModule``,
``slicer.parameterNodeWrapper``, ``slicer.i18n``, ``slicer.packaging``, ``slicer.testing``.
"""

import importlib
import sys
import types

_PARTS = {
    "ScriptedLoadableModule": ("scripted_module",),
    "parameterNodeWrapper": ("parameters",),
    "i18n": ("i18n",),
    "packaging": ("packaging",),
    "testing": ("testing",),
}


def install(slicer: types.ModuleType) -> None:
    """Make the parts importable as submodules of ``slicer``."""
    for name, (part,) in _PARTS.items():
        module = importlib.import_module(f"{__name__}.{part}")
        sys.modules[f"slicer.{name}"] = module
        setattr(slicer, name, module)
