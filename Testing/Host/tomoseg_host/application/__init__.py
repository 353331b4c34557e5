"""The stand-in application: scene and logics, views, files, modules, main window.

`host.start` brings it up; after that ``slicer.app``, ``slicer.mrmlScene``, ``slicer.modules`` and
``slicer.util`` work as in Slicer.
"""
