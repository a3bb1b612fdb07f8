// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/cpu_features.hpp"

namespace refit::kernels::cpu {

#if defined(__x86_64__) || defined(__i386__)

std::vector<CpuFeature> avx2_features() {
    return {{"AVX2", __builtin_cpu_supports("avx2") != 0}};
}

std::vector<CpuFeature> avx512_features() {
    return {{"AVX-512F", __builtin_cpu_supports("avx512f") != 0},
            {"AVX-512BW", __builtin_cpu_supports("avx512bw") != 0},
            {"AVX-512VL", __builtin_cpu_supports("avx512vl") != 0},
            {"AVX-512DQ", __builtin_cpu_supports("avx512dq") != 0},
            {"AVX-512VBMI", __builtin_cpu_supports("avx512vbmi") != 0}};
}

#else

std::vector<CpuFeature> avx2_features() {
    return {{"AVX2", false}};
}

std::vector<CpuFeature> avx512_features() {
    return {{"AVX-512F", false},
            {"AVX-512BW", false},
            {"AVX-512VL", false},
            {"AVX-512DQ", false},
            {"AVX-512VBMI", false}};
}

#endif

std::string missing_features(std::span<const CpuFeature> features) {
    std::vector<std::string_view> missing;
    for (const CpuFeature& feature : features) {
        if (!feature.present) {
            missing.push_back(feature.name);
        }
    }
    std::string text;
    for (std::size_t i = 0; i < missing.size(); ++i) {
        text += i == 0 ? "CPU lacks " : i + 1 == missing.size() ? " and " : ", ";
        text += missing[i];
    }
    return text;
}

}  // namespace refit::kernels::cpu
