"""Who owns what: wrappers keep what they made alive until it has a parent, and not longer.

A QObject has one wrapper while Python holds it.  A wrapper that made its object and dies while the
object has no parent takes the object with it, children and all, shown or not.  A Python subclass
of a plain Qt class whose object has a parent lives on with its attributes, because the C++ object
refers back to it; one of a ctk or qMRML class does not.
"""

import sys
import threading
import weakref

import shiboken6
from PySide6 import QtCore

from . import api, pyside

_wrappers: "weakref.WeakValueDictionary[int, object]" = weakref.WeakValueDictionary()

#: PySide6 objects that C++ owns, held so that Python-implemented ones keep their behaviour.
_held: dict[int, shiboken6.Object] = {}

#: Wrappers of Python subclasses of plain Qt classes that a C++ owner keeps alive.
_shells: dict[int, object] = {}


def _purge(table: dict) -> None:
    """Forget objects that C++ has deleted meanwhile, once the table has doubled."""
    if len(table) % 128 == 0:
        for key in [key for key, item in table.items() if not pyside.alive(item)]:
            del table[key]


def facade_name(item: shiboken6.Object) -> str:
    """The name of the facade's class for a PySide6 object."""
    for cls in type(item).__mro__:
        name = cls.__dict__.get("facade_name")
        if name:
            return name
        if cls.__module__.startswith("PySide6"):
            break
    else:
        cls = type(item)
    if isinstance(item, QtCore.QObject) and cls is type(item):
        return item.metaObject().className()
    return cls.__qualname__.replace(".", "__")


def class_of(item: shiboken6.Object) -> type:
    """The facade's class for a PySide6 object; made on the spot for Qt's private classes."""
    from .instance import facade_class, private_class

    name = facade_name(item).replace("::", "__")
    if api.known(name):
        return facade_class(name)
    for cls in type(item).__mro__:
        if api.known(cls.__name__):
            return private_class(name, cls.__name__)
    return private_class(name, "")


def wrapper_of(item: shiboken6.Object) -> object:
    """The wrapper of a PySide6 object: the living one of a QObject, else a new one."""
    if not isinstance(item, QtCore.QObject):
        return class_of(item)._around_(item)
    item = pyside.most_derived(item)
    found = _wrappers.get(pyside.address(item))
    if found is not None and pyside.alive(found._peer_):
        return found
    wrapper = class_of(item)._around_(item)
    _wrappers[pyside.address(item)] = wrapper
    return wrapper


def adopt(wrapper: object) -> None:
    """Enter a wrapper that has just made its object."""
    peer = wrapper._peer_
    if not isinstance(peer, QtCore.QObject):
        return
    _wrappers[pyside.address(peer)] = wrapper
    object.__setattr__(wrapper, "_owned_", True)
    if peer.parent() is not None:
        to_cpp(wrapper)


def to_cpp(wrapper: object) -> None:
    """Pass ownership to C++ (a parent, a layout)."""
    peer = wrapper._peer_
    object.__setattr__(wrapper, "_owned_", False)
    if not isinstance(peer, QtCore.QObject):
        return
    key = pyside.address(peer)
    _purge(_held)
    _held[key] = peer
    if wrapper._is_shell_ and key not in _shells:
        _shells[key] = wrapper
        # The wrapper goes when the C++ object does, as the shell's destructor lets it go.
        peer.destroyed.connect(lambda *_: _shells.pop(key, None))


def to_python(wrapper: object) -> None:
    """Pass ownership to Python (no parent any more, taken out of a layout)."""
    peer = wrapper._peer_
    object.__setattr__(wrapper, "_owned_", True)
    if isinstance(peer, QtCore.QObject) and pyside.alive(peer):
        key = pyside.address(peer)
        _held.pop(key, None)
        _shells.pop(key, None)


def hold(item: shiboken6.Object) -> None:
    """Keep a Python-implemented object that C++ owns (a widget made while loading a form)."""
    _purge(_held)
    _held[pyside.address(item)] = item


def release(wrapper: object) -> None:
    """A wrapper dies: delete its object where it is Python's and has no parent."""
    peer = wrapper._peer_
    if (
        sys is None
        or sys.is_finalizing()
        or not wrapper._owned_
        or not isinstance(peer, QtCore.QObject)
    ):
        return
    if not pyside.alive(peer):
        return
    if peer.parent() is not None:
        _held[pyside.address(peer)] = peer
    elif threading.current_thread() is threading.main_thread():
        delete(peer)
    else:
        peer.deleteLater()  # a widget must not be deleted from another thread


def delete(peer: shiboken6.Object) -> None:
    """Delete the C++ object now."""
    from . import signals

    if pyside.alive(peer):
        key = pyside.address(peer)
        signals.forget(key)
        _held.pop(key, None)
        shiboken6.delete(peer)
        _shells.pop(key, None)
