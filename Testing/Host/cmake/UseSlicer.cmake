# What `include(${Slicer_USE_FILE})` brings to an extension.

include(CTest)

if(NOT Slicer_PYTHON_EXECUTABLE)
  find_program(Slicer_PYTHON_EXECUTABLE NAMES python3 python REQUIRED)
endif()
# The launcher with which tests are registered: here the stand-in, which takes Slicer's options.
set(Slicer_LAUNCHER_EXECUTABLE
  "${Slicer_PYTHON_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/../run_host.py" --offscreen
  )

# Fails for what Slicer's macros would not know either.
function(_slicer_check_arguments macro unparsed)
  if(unparsed)
    message(FATAL_ERROR "Unknown keywords given to ${macro}(): \"${unparsed}\"")
  endif()
  foreach(name IN LISTS ARGN)
    if(NOT DEFINED MY_${name} OR MY_${name} STREQUAL "")
      message(FATAL_ERROR "${macro}(): ${name} is mandatory")
    endif()
  endforeach()
endfunction()

# Copies scripts and resources into the build tree, at the same places relative to DESTINATION_DIR,
# and installs what is there then.
macro(ctkMacroCompilePythonScript)
  cmake_parse_arguments(MY
    "NO_INSTALL_SUBDIR;GLOBAL_TARGET"
    "TARGET_NAME;SOURCE_DIR;DESTINATION_DIR;INSTALL_DIR"
    "SCRIPTS;RESOURCES"
    ${ARGN}
    )
  _slicer_check_arguments(ctkMacroCompilePythonScript
    "${MY_UNPARSED_ARGUMENTS}" TARGET_NAME SCRIPTS DESTINATION_DIR INSTALL_DIR
    )
  _slicer_copy_python_files(
    "${MY_TARGET_NAME}" "${MY_DESTINATION_DIR}" "${MY_SCRIPTS}" "${MY_RESOURCES}"
    )
  set(_from "${MY_DESTINATION_DIR}")
  if(MY_NO_INSTALL_SUBDIR)
    string(APPEND _from "/")
  endif()
  install(
    DIRECTORY "${_from}"
    DESTINATION "${MY_INSTALL_DIR}"
    COMPONENT RuntimeLibraries
    USE_SOURCE_PERMISSIONS
    )
endmacro()

function(_slicer_copy_python_files target destination scripts resources)
  set(copies)
  foreach(file IN LISTS scripts resources)
    get_filename_component(extension "${file}" LAST_EXT)
    if(file IN_LIST scripts AND NOT extension STREQUAL ".py")
      set(file "${file}.py")
    endif()
    set(source "${CMAKE_CURRENT_SOURCE_DIR}/${file}")
    if(NOT EXISTS "${source}" OR IS_DIRECTORY "${source}")
      message(FATAL_ERROR "${target}: there is no file '${file}'")
    endif()
    add_custom_command(
      OUTPUT "${destination}/${file}"
      COMMAND "${CMAKE_COMMAND}" -E copy "${source}" "${destination}/${file}"
      DEPENDS "${source}"
      )
    list(APPEND copies "${destination}/${file}")
  endforeach()
  add_custom_target("Copy${target}PythonFiles" ALL DEPENDS ${copies})
endfunction()

macro(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS;WITH_SUBDIR;VERBOSE" "NAME" "SCRIPTS;RESOURCES"
    ${ARGN})
  _slicer_check_arguments(slicerMacroBuildScriptedModule
    "${MY_UNPARSED_ARGUMENTS}" NAME SCRIPTS
    )
  set(_generic_tests ${MY_WITH_GENERIC_TESTS})
  set(_module_name ${MY_NAME})
  set(_subdir "")
  set(_no_subdir NO_INSTALL_SUBDIR)
  if(MY_WITH_SUBDIR)
    get_filename_component(_subdir "${CMAKE_CURRENT_SOURCE_DIR}" NAME)
    set(_subdir "/${_subdir}")
    set(_no_subdir "")
  endif()
  ctkMacroCompilePythonScript(
    TARGET_NAME ${MY_NAME}
    SCRIPTS "${MY_SCRIPTS}"
    RESOURCES "${MY_RESOURCES}"
    DESTINATION_DIR "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}${_subdir}"
    INSTALL_DIR "${Slicer_INSTALL_QTSCRIPTEDMODULES_LIB_DIR}"
    ${_no_subdir}
    )
  if(BUILD_TESTING AND _generic_tests)
    # One of the tests that Slicer makes for every module: that its panel can be made.
    set(_test "qSlicer${_module_name}ModuleGenericTest")
    file(WRITE "${CMAKE_CURRENT_BINARY_DIR}/${_test}.py"
      "import unittest\n"
      "import slicer\n\n\n"
      "class ${_test}(unittest.TestCase):\n"
      "    def test_widget_representation(self):\n"
      "        module = slicer.app.moduleManager().module('${_module_name}')\n"
      "        self.assertIsNotNone(module)\n"
      "        self.assertIsNotNone(module.widgetRepresentation())\n"
      )
    slicer_add_python_unittest(
      SCRIPT ${_test}.py
      TESTNAME_PREFIX nomainwindow_
      SLICER_ARGS --no-main-window --disable-cli-modules
        --additional-module-path "${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR}"
      )
  endif()
endmacro()

# Registers the unit tests of a Python file, run inside the application.
macro(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  _slicer_check_arguments(slicer_add_python_unittest "${MY_UNPARSED_ARGUMENTS}" SCRIPT)
  get_filename_component(_name "${MY_SCRIPT}" NAME_WE)
  set(_folders "['${CMAKE_CURRENT_BINARY_DIR}', '${CMAKE_CURRENT_SOURCE_DIR}']")
  add_test(
    NAME "py_${MY_TESTNAME_PREFIX}${_name}"
    COMMAND ${Slicer_LAUNCHER_EXECUTABLE} --no-splash --ignore-slicerrc ${MY_SLICER_ARGS}
      --python-code "import slicer.testing; slicer.testing.runUnitTest(${_folders}, '${_name}')"
    )
endmacro()
