"""What the sections of the panel have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from TomoSegPanel.panel import Panel


class Section:
    """One section of the panel; it shows the parameter node and changes it."""

    def __init__(self, panel: Panel) -> None:
        self.panel, self.ui = panel, panel.ui

    @property
    def parameters(self) -> Any:
        """The parameter node; None while the scene is closed."""
        return self.panel.parameters

    def refresh(self) -> None:
        """Show the parameters as they are now."""

    def sceneClosed(self) -> None:
        """All nodes are gone."""

    def hidden(self) -> None:
        """The user has gone to another module."""

    def cleanup(self) -> None:
        """The panel goes away."""


@contextlib.contextmanager
def signalsBlocked(widget: Any) -> Iterator[None]:
    """Change a widget without being told of it."""
    was = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(was)


def fillCombo(combo: Any, items: Sequence[tuple[str, str]], selected: str) -> None:
    """Show texts in a combo box, and select one by its data.

    Args:
        combo: The combo box.
        items: Data and text of each item.
        selected: The data to select; the first item where there is no such.
    """
    with signalsBlocked(combo):
        combo.clear()
        for data, text in items:
            combo.addItem(text, data)
        selectData(combo, selected)


def selectData(combo: Any, data: str) -> None:
    """Select an item of a combo box by its data, without being told of it."""
    with signalsBlocked(combo):
        combo.setCurrentIndex(max(0, combo.findData(data)))
