# Stands for the file that `include(${Slicer_EXTENSION_GENERATE_CONFIG})` names: it asks for what
# every extension has to say of itself, and writes it down.

foreach(_name IN ITEMS HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  if("${EXTENSION_${_name}}" STREQUAL "")
    message(FATAL_ERROR "EXTENSION_${_name} is not set")
  endif()
endforeach()

set(_description "${CMAKE_BINARY_DIR}/${PROJECT_NAME}-description.txt")
file(WRITE "${_description}" "")
foreach(_name IN ITEMS HOMEPAGE CATEGORY CONTRIBUTORS DESCRIPTION ICONURL SCREENSHOTURLS DEPENDS)
  file(APPEND "${_description}" "${_name} ${EXTENSION_${_name}}\n")
endforeach()
