# Stands for the SlicerConfig.cmake of a build of Slicer, with just enough behind it to configure,
# build and install an extension that is Python only:
#
#   cmake -S . -B build -DSlicer_DIR=Testing/Host/cmake
#
# Its tests run in the stand-in application (run_host.py). It is our own: what Slicer's macros of
# these names take and refuse, written from their documentation.

set(Slicer_FOUND TRUE)
set(Slicer_VERSION 5.13)
set(Slicer_USE_FILE "${CMAKE_CURRENT_LIST_DIR}/UseSlicer.cmake")
set(Slicer_EXTENSION_GENERATE_CONFIG "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionDescription.cmake")
set(Slicer_EXTENSION_CPACK "${CMAKE_CURRENT_LIST_DIR}/SlicerExtensionPackage.cmake")

# Where scripted modules go in the build tree and in the installed tree.
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR "lib/Slicer-${Slicer_VERSION}/qt-scripted-modules")
set(Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR "${Slicer_QTSCRIPTEDMODULES_LIB_DIR}")
