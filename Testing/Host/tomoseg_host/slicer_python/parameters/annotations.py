"""What can stand in ``Annotated[...]``: validators, defaults, and hints for widgets."""

import typing
from collections.abc import Iterable


class Validator:
    """Checks a value before it is written; raises ValueError."""

    def validate(self, value):
        """Raise where the value does not fit."""
        raise NotImplementedError


class NotNone(Validator):
    """Anything but None."""

    def validate(self, value):
        """Raise for None."""
        if value is None:
            raise ValueError("Value must not be None")


class IsInstance(Validator):
    """None, or an instance of a type."""

    def __init__(self, classtype):
        self.classtype = classtype

    def validate(self, value):
        """Raise TypeError for another type."""
        if value is not None and not isinstance(value, self.classtype):
            raise TypeError(f"Value must be of type {self.classtype}, is {type(value)}")


class WithinRange(Validator):
    """Between two ends, which belong to it."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        """Raise outside."""
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"Value {value} must be within {self.minimum} and {self.maximum}")


class Minimum(Validator):
    """Not less than."""

    def __init__(self, minimum):
        self.minimum = minimum

    def validate(self, value):
        """Raise below."""
        if value < self.minimum:
            raise ValueError(f"Value {value} must be at least {self.minimum}")


class Maximum(Validator):
    """Not more than."""

    def __init__(self, maximum):
        self.maximum = maximum

    def validate(self, value):
        """Raise above."""
        if value > self.maximum:
            raise ValueError(f"Value {value} must be at most {self.maximum}")


class Choice(Validator):
    """One of some values."""

    def __init__(self, choices: Iterable):
        self.choices = list(choices)

    def validate(self, value):
        """Raise for another."""
        if value not in self.choices:
            raise ValueError(f"Value {value!r} must be one of {self.choices}")


class Exclude(Validator):
    """None of some values."""

    def __init__(self, excludedValues: Iterable):  # noqa: N803
        self.excludedValues = list(excludedValues)

    def validate(self, value):
        """Raise for one of them."""
        if value in self.excludedValues:
            raise ValueError(f"Value {value!r} must not be one of {self.excludedValues}")


class RangeBounds(Validator):
    """The ends that a range may have."""

    def __init__(self, minimum, maximum):
        self.minimum, self.maximum = minimum, maximum

    def validate(self, value):
        """Raise for a range that reaches further."""
        if value.minimum < self.minimum or value.maximum > self.maximum:
            raise ValueError(f"Range must be within {self.minimum} and {self.maximum}")


class FloatRange:
    """Two floats in order."""

    def __init__(self, minimum=0, maximum=0):
        self.setRange(minimum, maximum)

    def setRange(self, minimum, maximum):  # noqa: N802
        """Set both."""
        if minimum > maximum:
            raise ValueError(f"Minimum {minimum} is greater than maximum {maximum}")
        self.minimum, self.maximum = float(minimum), float(maximum)

    def __eq__(self, other):
        return isinstance(other, FloatRange) and (self.minimum, self.maximum) == (
            other.minimum,
            other.maximum,
        )

    def __hash__(self):
        return hash((self.minimum, self.maximum))


class Default:
    """A default value, or a function that makes one."""

    def __init__(self, value=None, *, generator=None):
        self._value, self._generator = value, generator

    @property
    def value(self):
        """The value."""
        return self._generator() if self._generator else self._value


class Decimals:
    """How many decimals a widget shows."""

    def __init__(self, value: int):
        self.value = value


class SingleStep:
    """The step of a widget."""

    def __init__(self, value: float):
        self.value = value


def split(type_) -> tuple[type, list]:
    """The bare type, and what was annotated."""
    if typing.get_origin(type_) is typing.Annotated:
        bare, *annotations = typing.get_args(type_)
        return bare, annotations
    return type_, []


def first(annotations: list, kind: type):
    """The first annotation of a kind, or None."""
    return next((each for each in annotations if isinstance(each, kind)), None)
