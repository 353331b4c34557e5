"""Two results side by side: a layout of our own, in which linked slice views show one scan each.

The views are of this layout alone, so whatever the user's own views show stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer

LAYOUT = 7341
"""Number of the layout; Slicer leaves those above 100 to extensions."""

VIEW_PREFIX = "TomoSegCompare"
_VIEW_GROUP = 7341  # views are linked within their group alone
_ROWS = ("A", "B")
_COLUMNS = ("Axial", "Coronal", "Sagittal")
_COLORS = {"A": "#4c8dc9", "B": "#c98f4c"}


@dataclass(frozen=True)
class Side:
    """What one row of views shows.

    Attributes:
        background: The scan, or None.
        foreground: A map, or None.
        segmentation: A segmentation that is shown in this row and not in the other, or None.
    """

    background: Any
    foreground: Any = None
    segmentation: Any = None


class Comparison:
    """Shows two results in two rows of linked views, and gives back the user's layout.

    Args:
        onEnded: Called when the user has chosen another layout by hand.

    Attributes:
        layoutBefore: The layout to go back to; kept by whoever keeps settings.
    """

    def __init__(self, onEnded: Callable[[], None]) -> None:
        self.layoutBefore = 0
        self._onEnded = onEnded
        self._shown: tuple[Any, ...] | None = None
        self._viewsBefore: dict[str, tuple[str, ...]] = {}
        manager = slicer.app.layoutManager()
        if manager is not None:  # Slicer can run without a main window
            describeLayout()
            manager.connect("layoutChanged(int)", self._onLayoutChanged)

    @property
    def isShown(self) -> bool:
        """Whether the layout is ours."""
        manager = slicer.app.layoutManager()
        return manager is not None and manager.layout == LAYOUT

    def show(self, sides: Sequence[Side], opacity: float) -> None:
        """Show two results.

        Args:
            sides: The upper row and the lower.
            opacity: Of the maps over their scans.
        """
        if slicer.app.layoutManager() is None:
            return
        wish = tuple(
            (*map(_id, (s.background, s.foreground, s.segmentation)), opacity) for s in sides
        )
        if self.isShown and wish == self._shown:
            return
        anew = not self.isShown
        if anew:
            self.layoutBefore = slicer.app.layoutManager().layout
            slicer.app.layoutManager().setLayout(LAYOUT)
        fit = (
            anew
            or self._shown is None
            or any(new[0] != old[0] for new, old in zip(wish, self._shown, strict=True))
        )
        self._shown = wish
        for row, side in zip(_ROWS, sides, strict=True):
            for logic in _logics(row):
                composite = logic.GetSliceCompositeNode()
                was = composite.StartModify()
                composite.SetBackgroundVolumeID(_id(side.background))
                composite.SetForegroundVolumeID(_id(side.foreground))
                composite.SetForegroundOpacity(opacity)
                composite.SetLabelVolumeID(None)
                composite.SetLinkedControl(True)
                composite.SetHotLinkedControl(True)
                composite.SetDoPropagateVolumeSelection(False)
                composite.EndModify(was)
                if fit:
                    logic.FitSliceToBackground()
        self._restrict(sides)

    def end(self) -> None:
        """Go back to the user's layout, unless that is shown already."""
        self._shown = None
        self._unrestrict()
        if self.isShown:
            before = self.layoutBefore
            if not before or before == LAYOUT:
                before = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
            slicer.app.layoutManager().setLayout(before)

    def cleanup(self) -> None:
        """End, and hear no more of layouts."""
        manager = slicer.app.layoutManager()
        if manager is not None:
            manager.disconnect("layoutChanged(int)", self._onLayoutChanged)
        self.end()

    def _onLayoutChanged(self, layout: int) -> None:
        if layout != LAYOUT and self._shown is not None:
            self._shown = None
            self._unrestrict()
            self._onEnded()

    def _restrict(self, sides: Sequence[Side]) -> None:
        """Let each side's own segmentation be seen everywhere but in the other's row."""
        self._unrestrict()
        for side, other in zip(sides, reversed(_ROWS), strict=True):
            if side.segmentation is None or sides[0].segmentation is sides[1].segmentation:
                continue
            display = side.segmentation.GetDisplayNode()
            if display is None:
                continue
            self._viewsBefore[display.GetID()] = tuple(display.GetViewNodeIDs() or ())
            hidden = {logic.GetSliceNode().GetID() for logic in _logics(other)}
            for node in slicer.util.getNodesByClass("vtkMRMLAbstractViewNode"):
                if node.GetID() not in hidden:
                    display.AddViewNodeID(node.GetID())

    def _unrestrict(self) -> None:
        for displayId, views in self._viewsBefore.items():
            display = slicer.mrmlScene.GetNodeByID(displayId)
            if display is not None:
                display.RemoveAllViewNodeIDs()
                for view in views:
                    display.AddViewNodeID(view)
        self._viewsBefore.clear()


def describeLayout() -> None:
    """Make the layout known, so that a scene that was saved with it can be shown."""
    manager = slicer.app.layoutManager()
    node = manager.layoutLogic().GetLayoutNode() if manager is not None else None
    if node is not None and not node.IsLayoutDescription(LAYOUT):
        node.AddLayoutDescription(LAYOUT, _description())


def isComparisonView(node: Any) -> bool:
    """Whether a slice node or a slice composite node belongs to a view of the comparison."""
    return (node.GetLayoutName() or "").startswith(VIEW_PREFIX)


def _description() -> str:
    rows = []
    for row in _ROWS:
        views = "".join(
            f'<item><view class="vtkMRMLSliceNode" singletontag="{VIEW_PREFIX}{row}{column}">'
            f'<property name="orientation" action="default">{column}</property>'
            f'<property name="viewlabel" action="default">{row}</property>'
            f'<property name="viewcolor" action="default">{_COLORS[row]}</property>'
            f'<property name="viewgroup" action="default">{_VIEW_GROUP}</property>'
            "</view></item>"
            for column in _COLUMNS
        )
        rows.append(f'<item><layout type="horizontal">{views}</layout></item>')
    return f'<layout type="vertical" split="true">{"".join(rows)}</layout>'


def _logics(row: str) -> list[Any]:
    manager = slicer.app.layoutManager()
    widgets = [manager.sliceWidget(f"{VIEW_PREFIX}{row}{column}") for column in _COLUMNS]
    return [widget.sliceLogic() for widget in widgets if widget is not None]


def _id(node: Any) -> str | None:
    return node.GetID() if node is not None else None
