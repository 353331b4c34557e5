"""The widgets of CTK that a panel meets, on PySide6."""

from . import (  # noqa: F401 - importing registers them
    buttons,
    collapsible,
    combo_boxes,
    containers,
    path_line_edit,
    ranges,
    sliders,
    spin_box,
    texts,
    values,
)
