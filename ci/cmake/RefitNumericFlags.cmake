# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0

# The flags are part of the numeric contract (kernels/README.md): no contraction of a*b+c, no fast math,
# for every target of ours, so that the same source gives the same bits everywhere.
add_library(refit_numeric_flags INTERFACE)
target_compile_options(refit_numeric_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-ffp-contract=off>)

foreach(flags "${CMAKE_CXX_FLAGS}" "${CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}}" "${CMAKE_CUDA_FLAGS}" "$ENV{CXXFLAGS}")
  if(flags MATCHES "fast-math|-Ofast|funsafe-math|ffinite-math|use_fast_math")
    message(FATAL_ERROR "fast-math flags change FP8 bits and NaN handling; remove them from: ${flags}")
  endif()
endforeach()
