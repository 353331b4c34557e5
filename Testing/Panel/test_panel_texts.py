"""What the panel says can be translated, is not cut off when it gets longer, and can be read."""

import ast
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest

HOST = Path(__file__).resolve().parents[1] / "Host"
ROOT = HOST.parents[1]
sys.path.insert(0, str(HOST))
if sys.platform == "linux" and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from tomoseg_host.application import host as application  # noqa: E402

host = application.start()

import slicer  # noqa: E402
from PySide6 import QtCore, QtGui, QtWidgets  # noqa: E402

if "TomoSeg" not in slicer.app.moduleManager().modulesNames():
    host.load_module(ROOT / "TomoSeg" / "TomoSeg.py")

from TomoSegPanel import scenarios  # noqa: E402
from TomoSegPanel.scenarios.bench import Bench  # noqa: E402
from TomoSegPanel.scenarios.objects import addBlobVolume  # noqa: E402

PANEL_WIDTH = 560
"""Pixels: no wider need the module panel be, in a language of longer words either."""

# What shows texts of the scene, of cards or of the machine, and file names: not to be translated.
DATA = {
    "cardBrowser",
    "modelListWidget",
    "modalityFilter",
    "inputSelector",
    "regionSelector",
    "compareSelector",
    "heatmapSelector",
    "segmentationSelector",
    "batchSizeCombo",
    "deviceCombo",
    "studySliceCombo",
}
CTK_SAYS = {"Open a dialog"}  # CTK's own words, which Slicer translates
PROPER = {"ToNNO", "CAM", "GradCAM", "GradCAM++", "LayerCAM", "CAM kind", "DICOM"}
WORD = re.compile(r"[A-Za-z]{2,}")


class LongTranslator(QtCore.QTranslator):
    """Translates into a language like German: the same, marked, and two fifths longer."""

    def translate(self, context, text, comment=None, number=-1):
        if not context.startswith("TomoSeg"):
            return None
        filler = "öüäöüäß " * (1 + len(text))
        return f"«{text} {filler[: max(3, 2 * len(text) // 5)].rstrip()}»"

    def isEmpty(self):  # noqa: N802
        return False


@pytest.fixture(scope="module")
def translated():
    """The panel in the longer language, with every section open, a scan and a model chosen."""
    translator = LongTranslator()
    host.application.installTranslator(translator)
    with Bench() as bench:
        slicer.util.reloadScriptedModule("TomoSeg")
        bench.until(lambda: bench.widget.panel.computing.answer is not None, "probed", 120)
        bench.openPanel()
        show(bench)
        yield bench
        host.application.removeTranslator(translator)
        slicer.util.reloadScriptedModule("TomoSeg")
        bench.until(lambda: bench.widget.panel.computing.answer is not None, "probed", 120)


def show(bench):
    """Choose a scan and a model, and open all sections."""
    bench.chooseVolume(addBlobVolume())
    bench.chooseModel()
    for section in peers(bench, QtWidgets.QWidget):
        if section.metaObject().className().startswith("ctkCollapsible") or hasattr(
            section, "collapsed"
        ):
            section.setProperty("collapsed", False)
    bench.processEvents(0.2)


def peers(bench, kind):
    """PySide6's widgets of the panel (those of before a reload stay in Slicer's, hidden)."""
    return bench.ui.volumeSection._peer_.parentWidget().findChildren(kind)


def test_every_text_of_the_panel_is_translated(translated):
    untranslated, count = [], 0
    for widget in peers(translated, QtWidgets.QWidget):
        name = owner(widget)
        for what, text in texts(widget):
            count += "«" in text
            if WORD.search(plain(text)) and "«" not in text and text not in PROPER | CTK_SAYS:
                if what != "toolTip" and name in DATA:
                    continue
                untranslated.append(f"{name}.{what}: {text}")
    assert not untranslated, "\n".join(untranslated)
    assert count > 100, f"only {count} texts were translated: is this the longer language?"


def test_no_text_of_the_panel_is_cut_off_in_a_language_of_longer_words(translated):
    assert cutOff(translated) == []


def owner(widget):
    """The name of a widget, or of the one that it is a part of."""
    while widget is not None and (not widget.objectName() or widget.objectName().startswith("qt_")):
        widget = widget.parentWidget()
    return widget.objectName() if widget is not None else ""


def texts(widget):
    """All texts that a widget shows."""
    yield "toolTip", widget.toolTip()
    for what in ("text", "title", "placeholderText", "format", "prefix", "suffix"):
        value = widget.property(what)
        editable = isinstance(widget, QtWidgets.QLineEdit | QtWidgets.QAbstractSpinBox)
        if isinstance(value, str) and not (what == "text" and editable):
            yield what, value
    if isinstance(widget, QtWidgets.QComboBox):
        for index in range(widget.count()):
            yield f"item {index}", widget.itemText(index)
    if isinstance(widget, QtWidgets.QTreeWidget):
        header = widget.headerItem()
        for column in range(widget.columnCount()):
            yield f"column {column}", header.text(column)


def plain(text):
    """A text without tags."""
    return re.sub(r"<[^>]*>", " ", text)


def cutOff(bench):
    """Labels and buttons that have less room than they need, at the panel's greatest width."""
    panel = bench.widget.parent._peer_
    needed = panel.minimumSizeHint().width()
    found = [f"the panel needs {needed} pixels"] if needed > PANEL_WIDTH else []
    panel.setFixedWidth(PANEL_WIDTH)
    try:
        bench.processEvents(0.1)
        for widget in peers(bench, QtWidgets.QWidget):
            if not widget.isVisibleTo(panel):
                continue
            if isinstance(widget, QtWidgets.QLabel) and widget.wordWrap():
                need, has = widget.heightForWidth(widget.width()), widget.height()
            elif isinstance(widget, QtWidgets.QLabel | QtWidgets.QPushButton | QtWidgets.QCheckBox):
                need, has = widget.minimumSizeHint().width(), widget.width()
            else:
                continue
            if has < need:
                found.append(f"{owner(widget)} has {has} of {need} pixels: {widget.text()}")
    finally:
        panel.setMinimumWidth(0)
        panel.setMaximumWidth(16777215)
    return found


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_what_the_panel_says_can_be_read_in_light_and_dark_colours(dark):
    host.use_style(dark)
    try:
        with Bench() as bench:
            show(bench)
            bench.ui.messageNote.setText("<b>✖ An error</b><br>⚠ A warning")
            bench.ui.messageNote.setVisible(True)
            bench.processEvents(0.1)
            faint = []
            panel = bench.widget.parent._peer_
            for widget in peers(bench, QtWidgets.QWidget):
                kinds = QtWidgets.QLabel | QtWidgets.QAbstractButton | QtWidgets.QTextBrowser
                if not isinstance(widget, kinds) or not widget.isVisibleTo(panel):
                    continue
                text = widget.property("text") or widget.property("plainText")
                if not widget.isEnabled() or not WORD.search(plain(text or "")):
                    continue
                contrast = contrastOf(widget)
                if contrast < 4.5:  # WCAG 2.1, AA
                    faint.append(f"{owner(widget)}: {contrast:.1f}")
            assert not faint, faint
    finally:
        host.use_style(False)


def contrastOf(widget):
    """The contrast of what a widget shows with its most common colour (WCAG)."""
    image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    pixels = rows[:, : 3 * image.width()].reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    linear = colours / 255.0
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    background = luminance[np.argmax(counts)]
    high, low = np.maximum(luminance, background), np.minimum(luminance, background)
    return float(((high + 0.05) / (low + 0.05)).max())


# -- the sources -----------------------------------------------------------------------------------

SHOWN = {
    "setText": None,
    "setToolTip": None,
    "setHtml": None,
    "setWindowTitle": None,
    "setTitle": None,
    "setTitleText": None,
    "setPlaceholderText": None,
    "addItem": None,
    "addRow": None,
    "errorDisplay": None,
    "warningDisplay": None,
    "infoDisplay": None,
    "confirmOkCancelDisplay": None,
    "confirmYesNoDisplay": None,
    "QLabel": None,
    "QPushButton": None,
    "QToolButton": None,
    "QCheckBox": None,
    "QAction": None,
    "QTreeWidgetItem": None,
    "QListWidgetItem": None,
    "ErrorEvent": slice(1, 3),
    "WarningEvent": slice(1, 3),
}
"""Calls whose arguments (all, or those of a slice) people see."""

SOURCES = [
    path
    for path in sorted((ROOT / "TomoSeg").rglob("*.py"))
    if "scenarios" not in path.parts and "__pycache__" not in path.parts
]


def called(node):
    """The name of what a call calls."""
    function = node.func
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def bareWords(node):
    """The words of a source's expression that are not given to ``_``."""
    if isinstance(node, ast.Call) and called(node) in ("_", "translate"):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        if WORD.search(re.sub(r"&\w+;|\*\.\w+|\w+\.\w+", " ", plain(node.value))):
            yield node.value
        return
    if isinstance(node, ast.Call):
        # "{}".format(_("...")), escape(_("...")): what is called matters, and what it is given.
        yield from bareWords(node.func)
    if isinstance(node, ast.Subscript | ast.Compare | ast.Lambda | ast.FormattedValue):
        return  # a key, a format: not shown
    for child in ast.iter_child_nodes(node):
        if child is not getattr(node, "func", None):
            yield from bareWords(child)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_people_see_is_given_to_the_translation(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call) or called(node) not in SHOWN:
            continue
        part = SHOWN[called(node)]
        arguments = node.args[part] if part else node.args
        arguments += [
            k.value for k in node.keywords if k.arg in ("message", "hint", "detailedText")
        ]
        for argument in arguments:
            found += [f"{path.name}:{node.lineno}: {text}" for text in bareWords(argument)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_what_is_translated_is_a_plain_text_that_tools_can_collect(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and called(node) == "_":
            (argument,) = node.args
            assert isinstance(argument, ast.Constant), f"{path.name}:{node.lineno}"


def test_the_longer_language_would_show_a_text_that_is_not_translated():
    label = QtWidgets.QLabel("plain words")
    assert [text for _what, text in texts(label) if WORD.search(text)] == ["plain words"]
    assert list(bareWords(ast.parse('f("a {}".format(_("b")), "two words")').body[0].value)) == [
        "two words"
    ]
    assert scenarios.SCENARIOS
