"""The qMRML widgets that a panel meets, on PySide6 widgets and real MRML nodes."""

from . import (  # noqa: F401 - importing registers them
    node_combo_box,
    numbers,
    scene_widget,
    segments,
    subject_hierarchy,
    tables,
    transforms,
    volumes,
)
