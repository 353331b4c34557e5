"""``slicer.i18n``: translation of a module's texts."""

import inspect
import logging
import re
from functools import cache
from pathlib import Path

from PySide6 import QtCore

_PLACEHOLDER = re.compile(r"(?<!\{)\{([^{}]+)\}(?!\})")


def translate(context: str, text: str) -> str:
    """Translate in a context."""
    return QtCore.QCoreApplication.translate(context, text)


@cache
def getContext(sourceFile: str) -> str:  # noqa: N802, N803 - Slicer's names
    """The context of a source file: its name, with the package's where there is one."""
    path = Path(sourceFile)
    name = path.name.removesuffix(".py")
    if path.is_file() and (path.parent / "__init__.py").is_file():
        return f"{path.parent.name}.{name}"
    return name


def tr(text: str) -> str:
    """Translate in the context of the calling file; a translation that loses a placeholder of the
    text is not used."""
    frame = inspect.currentframe().f_back
    context = getContext(inspect.getsourcefile(frame) or inspect.getfile(frame))
    translated = translate(context, text)
    if set(_PLACEHOLDER.findall(text)) != set(_PLACEHOLDER.findall(translated)):
        logging.warning("In context %r, the translation of %r loses placeholders", context, text)
        return text
    return translated
