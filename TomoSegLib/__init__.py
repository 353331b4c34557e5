"""TomoSegLib: the engine of TomoSeg, which knows neither Slicer nor Qt.

Coordinates: every position and direction in this package is in **LPS millimetres** (x to the
patient's left, y to posterior, z to superior), as in DICOM and ITK. Arrays are indexed
``[k, j, i]`` (slice, row, column), as SimpleITK and Slicer hand them to Python. Both conventions
are defined once, in `TomoSegLib.imaging.volume`, and converted only where files are read or
written.
"""

__version__ = "0.1.0"
