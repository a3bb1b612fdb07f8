# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
option(REFIT_BUILD_TESTS "Build the tests (GoogleTest); the quick start leaves them out to save minutes" ON)
option(REFIT_BUILD_MICROBENCH "Build refitbench-micro (Google Benchmark)" ON)
option(REFIT_WERROR "Treat warnings as errors; CI sets it" OFF)
set(REFIT_SANITIZE "" CACHE STRING "Sanitizers for every target, e.g. address,undefined")
set(REFIT_ENABLE_CUDA AUTO CACHE STRING "CUDA kernels: AUTO (where nvcc is), ON (an error where it is not), OFF")
set_property(CACHE REFIT_ENABLE_CUDA PROPERTY STRINGS AUTO ON OFF)
if(NOT REFIT_ENABLE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "REFIT_ENABLE_CUDA is '${REFIT_ENABLE_CUDA}', expected AUTO, ON or OFF")
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
# Assertions are for the debug and sanitizer builds; -O2 is what the figures are measured with.
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")

find_program(REFIT_CCACHE ccache)
if(REFIT_CCACHE)
  set(CMAKE_CXX_COMPILER_LAUNCHER
    ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${REFIT_CCACHE})
endif()
