// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// kernels/cpu/avx512_vbmi.cpp, compiled against SIMDe's names for the intrinsics.
#define SIMDE_ENABLE_NATIVE_ALIASES
#include <simde/x86/avx512.h>

// SIMDe 0.7.4 has no store past the cache of 512 bits; where the bytes go is the same.
#if !defined(_mm512_stream_si512)
#define _mm512_stream_si512(target, value) _mm512_store_si512(target, value)
#endif

#define REFIT_EMULATED_AVX512
#include "tests/unit/kernels/emulated_avx512.hpp"
//
#include "kernels/cpu/avx512_vbmi.cpp"
