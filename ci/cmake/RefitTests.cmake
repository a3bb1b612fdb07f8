# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
include(GoogleTest)

# Test code itself is hardly worth optimizing: half of a release build's time would go there. What it
# tests keeps the optimization of the build.
set(REFIT_TEST_COMPILE_OPTIONS $<$<CONFIG:Release>:-O1>)
if(REFIT_SANITIZE)
  set(REFIT_TEST_COMPILE_OPTIONS -O0)
endif()

# What nearly every test includes is compiled once. Only tests have it: in a library it would hide a
# missing include. ccache keeps what was compiled with it only when told how (RefitOptions.cmake).
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # GCC 12 reports copies within libstdc++'s string functions (its bug 105651) and forgets that precompiled
  # headers are system headers.
  list(APPEND REFIT_TEST_COMPILE_OPTIONS -fpch-preprocess -Wno-array-bounds -Wno-restrict
    -Wno-stringop-overflow)
endif()
file(WRITE ${PROJECT_BINARY_DIR}/generated/test_headers.cpp "// Carries the headers that tests share.\n")
add_library(refit_test_headers STATIC ${PROJECT_BINARY_DIR}/generated/test_headers.cpp)
target_link_libraries(refit_test_headers PRIVATE GTest::gtest GTest::gmock refit_warnings refit_numeric_flags)
target_compile_options(refit_test_headers PRIVATE ${REFIT_TEST_COMPILE_OPTIONS})
target_precompile_headers(refit_test_headers PRIVATE <gmock/gmock.h> <gtest/gtest.h> <algorithm> <cmath>
  <filesystem> <fstream> <functional> <map> <set> <sstream> <string> <vector>)

# refit_add_test(name SOURCES ... DEPENDS ... [LABELS ...] [TIMEOUT s])
# One GoogleTest binary a folder, one CTest entry a test case, label "unit" unless said.
function(refit_add_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "SOURCES;DEPENDS;LABELS")
  if(NOT arg_LABELS)
    set(arg_LABELS unit)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE ${arg_DEPENDS} GTest::gtest GTest::gmock GTest::gtest_main refit_warnings refit_numeric_flags)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE REFIT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${REFIT_TEST_COMPILE_OPTIONS})
  target_precompile_headers(${name} REUSE_FROM refit_test_headers)
  gtest_discover_tests(${name} TEST_PREFIX "${arg_LABELS}." DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS "${arg_LABELS}" TIMEOUT ${arg_TIMEOUT} SKIP_REGULAR_EXPRESSION "\\[  SKIPPED \\]")
endfunction()

# refit_add_mpi_test(name RANKS 2 4 SOURCES ... DEPENDS ... [TIMEOUT s])
# One CTest entry a rank count, named mpi.<name>.np<N>; exit code 77 shows as Skipped. Uses tests/support/mpi_main.cpp.
function(refit_add_mpi_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "TIMEOUT" "RANKS;SOURCES;DEPENDS;ARGS")
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/support/mpi_main.cpp)
  target_link_libraries(${name} PRIVATE ${arg_DEPENDS} MPI::MPI_C GTest::gtest GTest::gmock refit_warnings refit_numeric_flags)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_compile_definitions(${name} PRIVATE REFIT_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  target_compile_options(${name} PRIVATE ${REFIT_TEST_COMPILE_OPTIONS})
  target_precompile_headers(${name} REUSE_FROM refit_test_headers)
  foreach(ranks IN LISTS arg_RANKS)
    add_test(NAME mpi.${name}.np${ranks}
      COMMAND ${MPIEXEC_EXECUTABLE} --oversubscribe -np ${ranks} $<TARGET_FILE:${name}> ${arg_ARGS})
    set_tests_properties(mpi.${name}.np${ranks} PROPERTIES
      LABELS mpi PROCESSORS ${ranks} TIMEOUT ${arg_TIMEOUT} SKIP_RETURN_CODE 77
      ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMPI_MCA_mpi_yield_when_idle=1")
  endforeach()
endfunction()
