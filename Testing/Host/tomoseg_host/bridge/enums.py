"""Enums and flags: subclasses of ``int`` that print as numbers, one type for each C++ type.

Numbers of Qt's enums come from PySide6; those of ctk and qMRML classes from the table
``data/enums.json`` (facts of their headers).  Values that Qt 5 and Qt 6 number differently are
given as Qt 5 has them and translated on the way to PySide6.
"""

import enum as python_enum
import json
from functools import cache

from . import api, pyside

_TABLE = api.DATA.with_name("enums.json")

#: Flags type -> the PySide6 enum that it combines, where taking off the plural "s" is not enough.
_PLURALS = {
    "Qt.Alignment": "AlignmentFlag",
    "Qt.WindowFlags": "WindowType",
    "Qt.TextInteractionFlags": "TextInteractionFlag",
    "QIODevice.OpenMode": "OpenModeFlag",
    "QFile.OpenMode": "OpenModeFlag",
    "QStyle.State": "StateFlag",
    "QAbstractItemView.EditTriggers": "EditTrigger",
    "QSizePolicy.ControlTypes": "ControlType",
    "QDir.SortFlags": "SortFlag",
    "QItemSelectionModel.SelectionFlags": "SelectionFlag",
    "QDockWidget.DockWidgetFeatures": "DockWidgetFeature",
    "QFileDialog.Options": "Option",
    "QFile.Permissions": "Permission",
    "QFileDevice.Permissions": "Permission",
    "QFileDevice.FileHandleFlags": "FileHandleFlag",
    "QLocale.NumberOptions": "NumberOption",
    "QImage.InvertMode": "InvertMode",
    "QTextDocument.FindFlags": "FindFlag",
    "QAbstractSpinBox.StepEnabled": "StepEnabledFlag",
    "Qt.ImageConversionFlags": "ImageConversionFlag",
    "QPainter.RenderHints": "RenderHint",
    "QUrl.FormattingOptions": "UrlFormattingOption",
}

#: Values whose numbers changed from Qt 5 to Qt 6: {(class, enum): {name: Qt 5 number}}.
_QT5_NUMBERS = {
    ("QFont", "Weight"): {
        "Thin": 0,
        "ExtraLight": 12,
        "Light": 25,
        "Normal": 50,
        "Medium": 57,
        "DemiBold": 63,
        "Bold": 75,
        "ExtraBold": 81,
        "Black": 87,
    },
}

#: Values that Qt 6 dropped, with the numbers that Qt 5 gave them.
_QT5_ONLY = {
    ("Qt", "MouseButton"): {"MidButton": 4},
    ("Qt", "ItemDataRole"): {"TextColorRole": 9, "BackgroundColorRole": 8},
    ("Qt", "ItemFlag"): {"ItemIsTristate": 64},
    ("Qt", "MatchFlag"): {"MatchRegExp": 3},
    ("Qt", "TextFlag"): {"TextBypassShaping": 0x100000},
    ("Qt", "InputMethodQuery"): {"ImMicroFocus": 2},
    ("Qt", "WidgetAttribute"): {
        "WA_ContentsPropagated": 3,
        "WA_NoBackground": 4,
        "WA_MacNoClickThrough": 12,
        "WA_MacBrushedMetal": 46,
        "WA_MacMetalStyle": 46,
        "WA_GroupLeader": 72,
        "WA_WState_DND": 74,
        "WA_ForceAcceptDrops": 77,
        "WA_MacVariableSize": 89,
        "WA_MSWindowsUseDirect3D": 94,
        "WA_MacFrameworkScaled": 117,
        "WA_MacNoShadow": 127,
    },
    ("Qt", "ApplicationAttribute"): {
        "AA_ImmediateWidgetCreation": 0,
        "AA_MSWindowsUseDirect3DByDefault": 1,
        "AA_MacPluginApplication": 5,
        "AA_X11InitThreads": 10,
        "AA_UseHighDpiPixmaps": 13,
        "AA_EnableHighDpiScaling": 20,
        "AA_DisableHighDpiScaling": 21,
        "AA_DisableWindowContextHelpButton": 30,
    },
    ("Qt", "DateFormat"): {
        "SystemLocaleDate": 2,
        "LocalDate": 2,
        "LocaleDate": 3,
        "SystemLocaleShortDate": 4,
        "SystemLocaleLongDate": 5,
        "DefaultLocaleShortDate": 6,
        "DefaultLocaleLongDate": 7,
    },
    ("QPalette", "ColorRole"): {"Foreground": 0, "Background": 10},
    ("QStandardPaths", "StandardLocation"): {"DataLocation": 9},
    ("QComboBox", "SizeAdjustPolicy"): {"AdjustToMinimumContentsLength": 2},
    ("QDockWidget", "DockWidgetFeature"): {"AllDockWidgetFeatures": 7},
    ("QFileDialog", "FileMode"): {"DirectoryOnly": 4},
    ("QFileDialog", "Option"): {"DontUseSheet": 8},
    ("QFont", "StyleStrategy"): {"OpenGLCompatible": 0x200, "ForceIntegerMetrics": 0x400},
    ("QPainter", "RenderHint"): {
        "HighQualityAntialiasing": 8,
        "NonCosmeticDefaultPen": 16,
        "Qt4CompatiblePainting": 32,
    },
    ("QStyle", "PixelMetric"): {
        "PM_DefaultTopLevelMargin": 57,
        "PM_DefaultChildMargin": 58,
        "PM_DefaultLayoutSpacing": 59,
        "PM_MDIFrameWidth": 46,
        "PM_MDIMinimizedWidth": 47,
    },
    ("QStyle", "PrimitiveElement"): {"PE_FrameStatusBar": 7, "PE_IndicatorViewItemCheck": 25},
    ("QStyle", "SubElement"): {"SE_ViewItemCheckIndicator": 20},
    ("QGraphicsItem", "GraphicsItemChange"): {"ItemMatrixChange": 1},
    ("QGraphicsView", "OptimizationFlag"): {"DontClipPainter": 1},
    ("QTextFormat", "FormatType"): {"TableFormat": 4},
    ("QNetworkRequest", "Attribute"): {"FollowRedirectsAttribute": 21},
    ("QRegularExpression", "PatternOption"): {
        "OptimizeOnFirstUsageOption": 0x80,
        "DontAutomaticallyOptimizeOption": 0x100,
    },
    ("QSsl", "SslProtocol"): {"SslV3": 0, "SslV2": 1, "TlsV1SslV3": 6},
    ("qSlicerCoreApplication", "ReturnCode"): {"ExitSuccess": 0, "ExitFailure": 1},
}


@cache
def enum_type(owner: str, name: str) -> type:
    """The Python type of the enum or flags ``name`` of the class ``owner``."""
    module = "qt" if owner.startswith("Q") else "ctk" if owner.startswith("ctk") else "slicer"
    made = type(name, (int,), {"__module__": module, "_enum_": (owner, name), "__slots__": ()})
    # Scoped names exist as well (Qt.AlignmentFlag.AlignLeft), on flags types too.
    for key, number in _numbers(owner, _singular(owner, name)).items():
        setattr(made, key, made(_signed(number)))
    return made


def make(owner: str, name: str, number: int) -> int:
    """A value of the enum; numbers are signed 32 bits, as PythonQt returns them."""
    return enum_type(owner, name)(_signed(number))


def _signed(number: int) -> int:
    number &= 0xFFFFFFFF
    return number - 0x100000000 if number >= 0x80000000 else number


@cache
def _numbers(owner: str, name: str) -> dict[str, int]:
    """The numbers of all values of an enum, by the names that Python has."""
    table = json.loads(_TABLE.read_text(encoding="utf-8")) if _TABLE.exists() else {}
    wanted = api.info(owner).enums().get(name, [])
    source = pyside_enum(owner, name)
    found: dict[str, int] = {}
    for key in wanted:
        if source is not None and key in source.__members__:
            found[key] = int(source.__members__[key].value)
        elif source is not None and key.rstrip("_") in source.__members__:
            found[key] = int(source.__members__[key.rstrip("_")].value)
    found.update(table.get(owner, {}).get(name, {}))
    found.update(_QT5_ONLY.get((owner, name), {}))
    found.update(_QT5_NUMBERS.get((owner, name), {}))
    if not found and source is None:
        # Nothing is known of the numbers: C++ counts from zero unless a header says otherwise.
        found = {key: number for number, key in enumerate(wanted)}
    return found


def value(owner: str, name: str, key: str) -> int | None:
    """The value called ``key``, or None where neither PySide6 nor the tables know its number."""
    number = _numbers(owner, name).get(key)
    return None if number is None else make(owner, name, number)


def keys_to_number(owner: str, name: str, text: str) -> int | None:
    """The number of ``"AlignLeft"`` or ``"AlignLeft|AlignTop"``, as writing a property accepts."""
    total = 0
    singular = _singular(owner, name)
    for part in text.split("|"):
        key = part.strip().rpartition("::")[2]
        number = _numbers(owner, singular).get(key)
        if number is None:
            return None
        total |= number
    return total


@cache
def _singular(owner: str, name: str) -> str:
    """The enum whose values a flags type combines (itself for a plain enum)."""
    enums = api.info(owner).enums()
    if enums.get(name):
        return name
    for candidate in (_PLURALS.get(f"{owner}.{name}"), name.removesuffix("s"), name + "Flag"):
        if candidate and enums.get(candidate):
            return candidate
    return name


@cache
def pyside_enum(owner: str, name: str) -> type[python_enum.Enum] | None:
    """The PySide6 enum that stands for this one, or None (enums of ctk and qMRML classes)."""
    cls = pyside.find(owner)
    if cls is None:
        return None
    for candidate in (
        name,
        _PLURALS.get(f"{owner}.{name}"),
        name.removesuffix("s"),
        name + "Flag",
        _singular(owner, name),
    ):
        found = getattr(cls, candidate, None) if candidate else None
        if isinstance(found, type) and issubclass(found, python_enum.Enum):
            return found
    return None


def to_pyside(owner: str, name: str, number: int) -> object:
    """The PySide6 value for a number of this enum (the number itself where PySide6 has none)."""
    renumbered = _QT5_NUMBERS.get((owner, name))
    source = pyside_enum(owner, name)
    if source is None:
        return int(number)
    if renumbered:
        key = min(renumbered, key=lambda k: abs(renumbered[k] - number))
        return source.__members__[key]
    # C++ takes any number for an enum; Python's refuses unknown ones.
    for candidate in (int(number), int(number) & 0xFFFFFFFF):
        try:
            return source(candidate)
        except ValueError:
            continue
    return int(number)


def from_pyside(item: python_enum.Enum, declared: tuple[str, str] | None = None) -> int:
    """The facade's value for a PySide6 enum or flag; ``declared`` is the type the API names."""
    if declared is None:
        scope, _, name = type(item).__qualname__.rpartition(".")
        declared = api.find_enum(scope, name) if scope in api.classes() else None
    if declared is None:
        return int(item.value)
    renumbered = _QT5_NUMBERS.get(declared)
    if renumbered and item.name in renumbered:
        return make(*declared, renumbered[item.name])
    return make(*declared, int(item.value))
