"""VTK observers that end with the widget that has them."""

import weakref
from collections.abc import Callable

import shiboken6
import vtk
from PySide6 import QtCore


class Observers:
    """The observers of one widget.

    VTK keeps its callbacks alive; they hold the widget weakly and do nothing once it is gone.
    """

    def __init__(self, owner: QtCore.QObject):
        self._owner = weakref.ref(owner)
        self._tags: list[tuple[weakref.ref, int]] = []

    def add(self, subject: vtk.vtkObject, event: object, method: str, data: bool = False) -> None:
        """Call ``method`` of the owner at an event (with the node of the event where ``data``)."""
        owner = self._owner

        def call(caller: vtk.vtkObject, _: str, node: object = None) -> None:
            widget = owner()
            if widget is not None and shiboken6.isValid(widget):
                getattr(widget, method)(*((node,) if data else ()))

        if data:
            call.CallDataType = vtk.VTK_OBJECT
        tag = subject.AddObserver(event, call)
        self._tags.append((_weak(subject), tag))

    def clear(self) -> None:
        """Remove all."""
        for subject, tag in self._tags:
            if (alive := subject()) is not None:
                alive.RemoveObserver(tag)
        self._tags.clear()


def _weak(subject: vtk.vtkObject) -> Callable:
    """A weak reference to a VTK object (its Python object may come and go)."""
    holder = vtk.vtkWeakReference()
    holder.Set(subject)
    return holder.Get
