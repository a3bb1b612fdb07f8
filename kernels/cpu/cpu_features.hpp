// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the processor that we run on can do.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace refit::kernels::cpu {

struct CpuFeature {
    std::string_view name;  ///< as processor manuals write it
    bool present = false;   ///< by the processor and by the operating system, which saves registers
};

/// What the backend avx2 needs: AVX2.
[[nodiscard]] std::vector<CpuFeature> avx2_features();
/// What the backend avx512 needs: F, BW, VL, DQ and VBMI.
[[nodiscard]] std::vector<CpuFeature> avx512_features();

/// "CPU lacks A and B", for those that are not present; empty when all are.
[[nodiscard]] std::string missing_features(std::span<const CpuFeature> features);

}  // namespace refit::kernels::cpu
