"""Classes and functions that only Qt 5 has and that modules still use, made of what Qt 6 has."""

from PySide6 import QtCore, QtGui, QtWidgets

from .emulation import stand_in
from .pyside import implements

_FIXED, _WILDCARDS = 2, (1, 4)


@implements("QRegExp")
class RegExp(QtCore.QRegularExpression):
    """A regular expression that remembers its last match."""

    def __init__(self, pattern: object = "", case: object = None, syntax: object = 0):
        super().__init__()
        if isinstance(pattern, RegExp):
            case, syntax = pattern._case, pattern._syntax
            pattern = pattern._pattern
        self._case = QtCore.Qt.CaseSensitivity.CaseSensitive if case is None else case
        self._pattern, self._syntax, self._minimal = pattern, int(syntax), False
        self._match: QtCore.QRegularExpressionMatch | None = None
        self._compile()

    def _compile(self) -> None:
        text = self._pattern
        if self._syntax == _FIXED:
            text = QtCore.QRegularExpression.escape(text)
        elif self._syntax in _WILDCARDS:
            text = QtCore.QRegularExpression.wildcardToRegularExpression(text)
        options = QtCore.QRegularExpression.PatternOption
        chosen = options.NoPatternOption
        if self._case == QtCore.Qt.CaseSensitivity.CaseInsensitive:
            chosen |= options.CaseInsensitiveOption
        if self._minimal:
            chosen |= options.InvertedGreedinessOption
        super().setPattern(text)
        super().setPatternOptions(chosen)

    def pattern(self) -> str:
        """The pattern as it was given."""
        return self._pattern

    def setPattern(self, pattern: str) -> None:  # noqa: N802
        """Set the pattern."""
        self._pattern = pattern
        self._compile()

    def patternSyntax(self) -> int:  # noqa: N802
        """How the pattern is read."""
        return self._syntax

    def setPatternSyntax(self, syntax: object) -> None:  # noqa: N802
        """Set how the pattern is read."""
        self._syntax = int(syntax)
        self._compile()

    def caseSensitivity(self) -> QtCore.Qt.CaseSensitivity:  # noqa: N802
        """Whether capitals count."""
        return self._case

    def setCaseSensitivity(self, case: QtCore.Qt.CaseSensitivity) -> None:  # noqa: N802
        """Set whether capitals count."""
        self._case = case
        self._compile()

    def isMinimal(self) -> bool:  # noqa: N802
        """Whether it matches as little as it can."""
        return self._minimal

    def setMinimal(self, minimal: bool) -> None:  # noqa: N802
        """Set whether it matches as little as it can."""
        self._minimal = minimal
        self._compile()

    def isEmpty(self) -> bool:  # noqa: N802
        """Whether there is no pattern."""
        return not self._pattern

    def exactMatch(self, text: str) -> bool:  # noqa: N802
        """Whether all of the text matches."""
        whole = QtCore.QRegularExpression.anchoredPattern(super().pattern())
        self._match = QtCore.QRegularExpression(whole, self.patternOptions()).match(text)
        return self._match.hasMatch()

    def indexIn(self, text: str, offset: int = 0, _: object = None) -> int:  # noqa: N802
        """Where the first match begins, -1 without one."""
        start = max(0, len(text) + offset) if offset < 0 else offset
        self._match = self.match(text, start)
        return self._match.capturedStart(0)

    def lastIndexIn(self, text: str, offset: int = -1, _: object = None) -> int:  # noqa: N802
        """Where the last match begins, -1 without one."""
        last = len(text) + offset + 1 if offset < 0 else offset
        for start in range(last, -1, -1):
            if self.indexIn(text, start) == start:
                return start
        return -1

    def matchedLength(self) -> int:  # noqa: N802
        """The length of the last match, -1 without one."""
        found = self._match is not None and self._match.hasMatch()
        return self._match.capturedLength(0) if found else -1

    def cap(self, number: int = 0) -> str:
        """What a group of the last match has captured."""
        return self._match.captured(number) if self._match is not None else ""

    def capturedTexts(self) -> list[str]:  # noqa: N802
        """What all groups have captured."""
        return [self.cap(number) for number in range(self.captureCount() + 1)]

    def pos(self, number: int = 0) -> int:
        """Where a group begins, -1 without one."""
        return self._match.capturedStart(number) if self._match is not None else -1


@implements("QRegExpValidator")
class RegExpValidator(QtGui.QRegularExpressionValidator):
    """Lets in what matches."""

    regExpChanged = QtCore.Signal(object)

    def __init__(self, *arguments: object):
        expression = next((each for each in arguments if isinstance(each, RegExp)), RegExp())
        super().__init__(next((each for each in arguments if each is not expression), None))
        self._expression = expression
        self.setRegularExpression(expression)

    def setRegExp(self, expression: RegExp) -> None:  # noqa: N802
        """Set the expression."""
        self._expression = expression
        self.setRegularExpression(expression)
        self.regExpChanged.emit(expression)

    regExp = QtCore.Property(object, lambda self: self._expression, setRegExp)


@implements("QDesktopWidget")
class DesktopWidget(QtWidgets.QWidget):
    """The screens."""

    def _screen(self, which: object = -1) -> QtGui.QScreen:
        screens = QtGui.QGuiApplication.screens()
        if isinstance(which, QtCore.QPoint):
            return QtGui.QGuiApplication.screenAt(which) or screens[0]
        if isinstance(which, QtWidgets.QWidget):
            return which.screen()
        return screens[which] if 0 <= which < len(screens) else screens[0]

    def availableGeometry(self, which: object = -1) -> QtCore.QRect:  # noqa: N802
        """A screen without the desktop's bars."""
        return self._screen(which).availableGeometry()

    def screenGeometry(self, which: object = -1) -> QtCore.QRect:  # noqa: N802
        """A screen."""
        return self._screen(which).geometry()

    def screenNumber(self, which: object = None) -> int:  # noqa: N802
        """Which screen a point or a widget is on."""
        screen = self._screen(-1 if which is None else which)
        return QtGui.QGuiApplication.screens().index(screen)

    def numScreens(self) -> int:  # noqa: N802
        """How many screens there are."""
        return len(QtGui.QGuiApplication.screens())

    def isVirtualDesktop(self) -> bool:  # noqa: N802
        """Whether the screens are one desktop."""
        return True

    def screen(self, _: int = -1) -> QtWidgets.QWidget:
        """The widget of a screen."""
        return self

    primaryScreen = QtCore.Property(int, lambda self: 0)
    screenCount = QtCore.Property(int, numScreens)
    virtualDesktop = QtCore.Property(bool, isVirtualDesktop)


_desktop: list[DesktopWidget] = []


@stand_in("QApplication", "desktop")
def desktop(_: object) -> DesktopWidget:
    """The one desktop."""
    if not _desktop:
        _desktop.append(DesktopWidget())
    return _desktop[0]


@stand_in("QTime", "elapsed")
def elapsed(time: QtCore.QTime) -> int:
    """Milliseconds since `start`, over midnight too."""
    passed = time.msecsTo(QtCore.QTime.currentTime())
    return passed if passed >= 0 else passed + 86_400_000


@stand_in("QTime", "start")
def start(time: QtCore.QTime) -> None:
    """Begin to measure."""
    now = QtCore.QTime.currentTime()
    time.setHMS(now.hour(), now.minute(), now.second(), now.msec())


@stand_in("QTime", "restart")
def restart(time: QtCore.QTime) -> int:
    """What has passed, and begin anew."""
    passed = elapsed(time)
    start(time)
    return passed


@stand_in("QDateTime", "toTime_t")
def to_time_t(moment: QtCore.QDateTime) -> int:
    """Seconds since 1970."""
    return moment.toSecsSinceEpoch() & 0xFFFFFFFF


@stand_in("QDateTime", "setTime_t")
def set_time_t(moment: QtCore.QDateTime, seconds: int) -> None:
    """Set seconds since 1970."""
    moment.setSecsSinceEpoch(seconds)
