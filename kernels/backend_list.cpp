// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/backend.hpp"
#include "kernels/cpu/tile_walk.hpp"
#include "kernels/cuda/cuda_backend.hpp"

namespace refit::kernels {
namespace {

bool cpu_has_avx2() {
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_cpu_supports("avx2") != 0;
#else
    return false;
#endif
}

}  // namespace

std::vector<std::string> backend_names() {
    return {"portable", "avx2", "avx512", "cuda"};
}

std::vector<BackendRow> backend_rows() {
    std::vector<BackendRow> rows;
    rows.push_back({"portable", true, true, ""});
    const bool avx2_built = cpu::avx2_backend() != nullptr;
    if (!avx2_built) {
        rows.push_back({"avx2", false, false, "not built: this is not an x86-64 build"});
    } else if (!cpu_has_avx2()) {
        rows.push_back({"avx2", true, false, "this processor has no AVX2"});
    } else {
        rows.push_back({"avx2", true, true, ""});
    }
    rows.push_back(
        {"avx512", false, false, "not built: there is no AVX-512 backend yet; use avx2"});
    rows.push_back(cuda::cuda_row());
    return rows;
}

const Backend* find_backend(std::string_view name) {
    const bool avx2_viable = cpu::avx2_backend() != nullptr && cpu_has_avx2();
    if (name == "auto") {
        return avx2_viable ? cpu::avx2_backend() : cpu::portable_backend();
    }
    if (name == "portable") {
        return cpu::portable_backend();
    }
    if (name == "avx2" && avx2_viable) {
        return cpu::avx2_backend();
    }
    if (name == "cuda") {
        return cuda::cuda_backend();
    }
    return nullptr;
}

}  // namespace refit::kernels
