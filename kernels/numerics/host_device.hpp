// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Marks functions that a host compiler and a CUDA compiler build from the same source.
#pragma once

#if defined(__CUDACC__)
#define REFIT_HD __host__ __device__
#else
#define REFIT_HD
#endif

// An array that a loop indexes stays in registers only where the loop is unrolled; what is rare is
// not, so that it does not fill the instruction cache.
#if defined(__CUDA_ARCH__)
#define REFIT_UNROLL _Pragma("unroll")
#define REFIT_NO_UNROLL _Pragma("unroll 1")
#else
#define REFIT_UNROLL
#define REFIT_NO_UNROLL
#endif
