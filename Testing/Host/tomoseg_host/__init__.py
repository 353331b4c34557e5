"""The host: a stand-in for 3D Slicer, strict enough to test a module in.

Real MRML, logics and displayable managers come from ``slicer-core``, real widgets from PySide6.
The facade modules ``qt``, ``ctk`` and ``slicer`` behave towards Python as PythonQt, CTK and
qMRMLWidgets do.  The host is part of the tests and never ships inside the extension.
"""
