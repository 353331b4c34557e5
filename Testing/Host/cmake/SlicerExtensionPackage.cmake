# Stands for the file that `include(${Slicer_EXTENSION_CPACK})` names: the target `package` makes an
# archive of what is installed.

set(CPACK_GENERATOR "TGZ")
set(CPACK_PACKAGE_NAME "${PROJECT_NAME}")
set(CPACK_INSTALL_CMAKE_PROJECTS
  "${CMAKE_BINARY_DIR};${PROJECT_NAME};RuntimeLibraries;/"
  )
include(CPack)
