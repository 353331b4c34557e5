"""The parts of TomoSeg's panel: they know Slicer and Qt, and compute nothing themselves."""
