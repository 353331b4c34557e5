"""``@parameterNodeWrapper``: a class of annotated members around a parameter node."""

import logging
import typing

import qt
import slicer
import slicer.util
import vtk

from .annotations import Default, first, split
from .connectors import GuiConnector, createGuiConnector
from .serializers import check, createSerializer

SlicerParameterNamePropertyName = "SlicerParameterName"

_RESERVED = (
    "allParameters",
    "default",
    "dataType",
    "getValue",
    "setValue",
    "connectGui",
    "connectParametersToGui",
    "disconnectGui",
    "StartModify",
    "EndModify",
    "AddObserver",
    "RemoveObserver",
    "Modified",
    "isCached",
)


class _Parameter:
    """One member: its type, how it is stored, its default."""

    def __init__(self, name: str, type_: object, owner: type):
        bare, annotations = split(type_)
        self.name, self.type = name, type_
        self.serializer, left = createSerializer(bare, annotations)
        if name in vars(owner):
            self.default = Default(vars(owner)[name])
        else:
            self.default = first(annotations, Default) or Default(generator=self.serializer.default)
        hints = [each for each in left if not hasattr(each, "value")]
        if hints:
            logging.warning("Unused annotations: %s", hints)

    def write(self, node, prefix, value):
        """Check and write."""
        check(self.serializer, value)
        self.serializer.write(node, prefix + self.name, value)

    def read(self, node, prefix):
        """Read; what is missing is written with its default first."""
        if not self.serializer.isIn(node, prefix + self.name):
            self.serializer.write(node, prefix + self.name, self.default.value)
        return self.serializer.read(node, prefix + self.name)


class _Wrapper:
    """What every wrapped class can do."""

    allParameters: dict[str, _Parameter] = {}

    def __init__(self, parameterNode, prefix=None):  # noqa: N803
        self.parameterNode = parameterNode
        self._prefix = prefix or ""
        self._guis: dict[int, tuple[dict[str, GuiConnector], int]] = {}
        self._next_tag = 0
        self._updating = False
        for parameter in self.allParameters.values():
            if not parameter.serializer.isIn(parameterNode, self._prefix + parameter.name):
                parameter.write(parameterNode, self._prefix, parameter.default.value)

    @classmethod
    def _find(cls, name: str) -> tuple[_Parameter, str]:
        """The parameter of a name, and the member of a pack after the dot."""
        top, _, sub = name.partition(".")
        if top not in cls.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {top}")
        return cls.allParameters[top], sub

    def getValue(self, name):  # noqa: N802
        """The value of a parameter."""
        parameter, sub = self._find(name)
        value = parameter.read(self.parameterNode, self._prefix)
        return getattr(value, sub) if sub else value

    def setValue(self, name, value):  # noqa: N802
        """Set a parameter."""
        parameter, sub = self._find(name)
        if sub:
            setattr(self.getValue(parameter.name), sub, value)
        else:
            parameter.write(self.parameterNode, self._prefix, value)

    def default(self, name):
        """The default of a parameter (its ``value``)."""
        return self._find(name)[0].default

    @classmethod
    def dataType(cls, name):  # noqa: N802
        """The type of a parameter, with annotations."""
        parameter, sub = cls._find(name)
        if not sub:
            return parameter.type
        return typing.get_type_hints(split(parameter.type)[0], include_extras=True)[sub]

    def isCached(self, name):  # noqa: N802
        """Whether a read value is kept (the host reads the node each time)."""
        return self._find(name)[0].serializer.supportsCaching()

    def connectGui(self, gui):  # noqa: N802
        """Connect all widgets that name a parameter; returns a tag for `disconnectGui`."""
        if getattr(gui, "isWidgetType", lambda: False)():
            widgets = gui.findChildren(qt.QWidget)
        else:
            widgets = vars(gui).values()
        named = {each.property(SlicerParameterNamePropertyName): each for each in widgets}
        return self.connectParametersToGui({name: each for name, each in named.items() if name})

    def connectParametersToGui(self, mapping):  # noqa: N802
        """Connect parameters with given widgets (or connectors)."""
        connectors = {}
        for name, widget in mapping.items():
            self._find(name)
            made = isinstance(widget, GuiConnector)
            connectors[name] = widget if made else createGuiConnector(widget, self.dataType(name))
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(self._from_gui(name, connector))
        tag, self._next_tag = self._next_tag, self._next_tag + 1
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, self._to_gui)
        self._guis[tag] = (connectors, observer)
        return tag

    def _from_gui(self, name, connector):
        def changed():
            if not self._updating:
                with slicer.util.NodeModify(self):
                    self.setValue(name, connector.read())

        return changed

    def _to_gui(self, *_):
        if self._updating:
            return
        self._updating = True
        try:
            with slicer.util.NodeModify(self):
                for connectors, _observer in list(self._guis.values()):
                    for name, connector in connectors.items():
                        connector.write(self.getValue(name))
        finally:
            self._updating = False

    def disconnectGui(self, tag):  # noqa: N802
        """Undo a connection."""
        if tag in self._guis:
            connectors, observer = self._guis.pop(tag)
            for connector in connectors.values():
                connector.onChanged(None)
            self.RemoveObserver(observer)

    def StartModify(self):  # noqa: N802
        """Of the node."""
        return self.parameterNode.StartModify()

    def EndModify(self, was):  # noqa: N802
        """Of the node."""
        return self.parameterNode.EndModify(was)

    def AddObserver(self, event, callback, priority=0.0):  # noqa: N802
        """Of the node."""
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag):  # noqa: N802
        """Of the node."""
        self.parameterNode.RemoveObserver(tag)

    def Modified(self):  # noqa: N802
        """Of the node."""
        self.parameterNode.Modified()


def _property(name: str) -> property:
    return property(lambda self: self.getValue(name), lambda self, v: self.setValue(name, v))


def parameterNodeWrapper(classtype=None):  # noqa: N802
    """Class decorator: annotated members become parameters of a node."""

    def wrap(cls):
        hints = typing.get_type_hints(cls, include_extras=True)
        for name in _RESERVED:
            if name in vars(cls) or name in hints:
                raise ValueError(f"Cannot use reserved name '{name}' in a parameterNodeWrapper")
        parameters = {name: _Parameter(name, type_, cls) for name, type_ in hints.items()}
        for name, member in vars(_Wrapper).items():
            if name not in ("__dict__", "__weakref__", "__doc__", "__module__", "allParameters"):
                setattr(cls, name, member)
        cls.allParameters = parameters
        cls._is_parameter_node_wrapper = True
        for name in parameters:
            setattr(cls, name, _property(name))
        return cls

    return wrap if classtype is None else wrap(classtype)


def isParameterNodeWrapper(item) -> bool:  # noqa: N802
    """Whether it is a wrapper, or a class of wrappers."""
    return bool(getattr(item, "_is_parameter_node_wrapper", False))


def findChildWidgetForParameter(widget, parameter):  # noqa: N802
    """The descendant that names a parameter, or None."""
    for each in widget.findChildren(qt.QWidget):
        if each.property(SlicerParameterNamePropertyName) == parameter:
            return each
    return None
