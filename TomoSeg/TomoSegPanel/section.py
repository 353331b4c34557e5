"""What the sections of the panel have in common."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import qt
import slicer
import vtk
from slicer.util import VTKObservationMixin

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


class NodeWatch(VTKObservationMixin):
    """Tells of changes to one node: its place, its transforms, its voxels or points.

    Args:
        onChanged: Called a moment after a change, once for many.
    """

    _DELAY_MS = 40

    def __init__(self, onChanged: Callable[[], None]) -> None:
        super().__init__()
        self._node: Any = None
        self._timer = qt.QTimer()
        self._timer.setSingleShot(True)
        self._timer.setInterval(self._DELAY_MS)
        self._timer.connect("timeout()", onChanged)

    def watch(self, node: Any) -> None:
        """Watch this node and no other, or none."""
        if node is self._node:
            return
        self.removeObservers()
        self._timer.stop()
        self._node = node
        if node is not None:
            moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            voxels = slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent
            for event in (vtk.vtkCommand.ModifiedEvent, moved, voxels):
                self.addObserver(node, event, self._onModified)

    def _onModified(self, caller: Any = None, event: Any = None) -> None:
        self._timer.start()


@contextlib.contextmanager
def signalsBlocked(widget: Any) -> Iterator[None]:
    """Change a widget without being told of it."""
    was = widget.blockSignals(True)
    try:
        yield
    finally:
        widget.blockSignals(was)


def showRow(ui: Any, name: str, visible: bool) -> None:
    """Show or hide a control, with its label where it has one."""
    getattr(ui, name).setVisible(visible)
    label = getattr(ui, f"{name}Label", None)
    if label is not None:
        label.setVisible(visible)


def fillCombo(combo: Any, items: Sequence[tuple[str, str]], selected: str) -> None:
    """Show texts in a combo box, and select one by its data.

    Args:
        combo: The combo box.
        items: Data and text of each item.
        selected: The data to select; the first item where there is no such.
    """
    shown = [(combo.itemData(i), combo.itemText(i)) for i in range(combo.count)]
    with signalsBlocked(combo):
        if shown != list(items):  # else its list stays open, if the user has opened it
            combo.clear()
            for data, text in items:
                combo.addItem(text, data)
        selectData(combo, selected)


def selectData(combo: Any, data: str) -> None:
    """Select an item of a combo box by its data, without being told of it."""
    index = max(0, combo.findData(data))
    if combo.currentIndex != index:
        with signalsBlocked(combo):
            combo.setCurrentIndex(index)
