// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <array>

#include "kernels/backend.hpp"
#include "kernels/cpu/cpu_features.hpp"
#include "kernels/cpu/tile_walk.hpp"
#include "kernels/cuda/cuda_backend.hpp"

namespace refit::kernels {
namespace {

struct CpuRow {
    const char* name;
    const Backend* backend;  ///< null where it is not built
    std::string missing;     ///< what this processor lacks; empty: nothing
};

/// Slowest first.
std::array<CpuRow, 3> cpu_rows() {
    return {{{"portable", cpu::portable_backend(), ""},
             {"avx2", cpu::avx2_backend(), cpu::missing_features(cpu::avx2_features())},
             {"avx512", cpu::avx512_backend(), cpu::missing_features(cpu::avx512_features())}}};
}

}  // namespace

std::vector<std::string> backend_names() {
    return {"portable", "avx2", "avx512", "cuda"};
}

std::vector<BackendRow> backend_rows() {
    std::vector<BackendRow> rows;
    for (const CpuRow& row : cpu_rows()) {
        if (row.backend == nullptr) {
            rows.push_back({row.name, false, false, "not built: this is not an x86-64 build"});
        } else {
            rows.push_back({row.name, true, row.missing.empty(), row.missing});
        }
    }
    rows.push_back(cuda::cuda_row());
    return rows;
}

const Backend* find_backend(std::string_view name) {
    const Backend* found = nullptr;
    for (const CpuRow& row : cpu_rows()) {
        const bool viable = row.backend != nullptr && row.missing.empty();
        if (viable && (name == "auto" || name == row.name)) {
            found = row.backend;  // for auto the last, the fastest
        }
    }
    // Never by auto: a device is chosen by name.
    return name == "cuda" ? cuda::cuda_backend() : found;
}

}  // namespace refit::kernels
