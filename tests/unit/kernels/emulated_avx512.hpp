// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The AVX-512 backend on processors without AVX-512: the same source over SIMDe, which computes
// each instruction in portable C++.
#pragma once

#include <vector>

#include "kernels/backend.hpp"

namespace refit::kernels {

#if defined(REFIT_HAS_EMULATED_AVX512)
namespace cpu {
[[nodiscard]] const Backend* emulated_avx512_backend();
}  // namespace cpu
#endif

/// Null where SIMDe is not built in: libsimde-dev is missing, or this is a sanitizer build.
[[nodiscard]] inline const Backend* emulated_avx512() {
#if defined(REFIT_HAS_EMULATED_AVX512)
    return cpu::emulated_avx512_backend();
#else
    return nullptr;
#endif
}

/// A backend under test: one that is viable here, or the emulated one, named avx512_emulated.
struct NamedBackend {
    const char* name;
    const Backend* backend;  ///< null: not viable here
};

/// All that can be tested anywhere; those that cannot run here have a null backend.
[[nodiscard]] inline std::vector<NamedBackend> backends_under_test() {
    return {{"portable", find_backend("portable")},
            {"avx2", find_backend("avx2")},
            {"avx512", find_backend("avx512")},
            {"avx512_emulated", emulated_avx512()},
            {"cuda", find_backend("cuda")}};
}

}  // namespace refit::kernels
