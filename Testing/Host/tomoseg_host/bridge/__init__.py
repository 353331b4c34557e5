"""How C++ classes look from Python inside Slicer: the rules of PythonQt, on PySide6 objects.

``api`` knows what each class offers, ``instance`` and ``slots`` are what Python holds, ``toqt`` and
``topython`` convert values, ``signals`` connects, ``lifetime`` decides who owns what.
"""
