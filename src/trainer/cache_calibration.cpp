// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/cache_calibration.hpp"

#include <algorithm>
#include <bit>
#include <cstdint>

#include "kernels/numerics/scale.hpp"

namespace refit::trainer {

std::vector<float> calibrate_cache_scales(const std::vector<model::TensorSpec>& calibrations,
                                          const weights::WeightSource& source,
                                          const std::function<void()>& on_progress) {
    constexpr float kLargestCode = 448.0F;
    std::vector<float> scales;
    std::vector<std::uint16_t> values;
    for (const model::TensorSpec& calibration : calibrations) {
        const std::int64_t rows = core::matrix_rows(calibration.shape);
        const std::int64_t cols = core::matrix_cols(calibration.shape);
        values.resize(static_cast<std::size_t>(rows * cols));
        source.read(calibration, {0, 0, rows, cols}, values.data(), cols);
        std::uint32_t amax = 0;
        for (const std::uint16_t value : values) amax = std::max(amax, numerics::abs_bits(value));
        scales.push_back(amax == 0 ? 1.0F : std::bit_cast<float>(amax) / kLargestCode);
        on_progress();
    }
    return scales;
}

}  // namespace refit::trainer
