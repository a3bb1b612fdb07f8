// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/calibration_source.hpp"

#include <bit>
#include <string>

#include "weights/hash.hpp"
#include "weights/region_check.hpp"

namespace refit::weights {
namespace {

/// Round to nearest even; finite input.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

/// The sum of four uniform numbers of 16 bits around 0, from one hash: a bell with tails at 2^17.
/// Integers, so that every machine draws the same.
std::int32_t bell(std::uint64_t bits) {
    std::int32_t sum = 0;
    for (int part = 0; part < 4; ++part)
        sum += static_cast<std::int32_t>(bits >> (16 * part) & 0xFFFFU);
    return sum - 2 * 0xFFFF;
}

class CalibrationSource final : public WeightSource {
 public:
    CalibrationSource(std::uint64_t seed, std::int64_t step) : seed_(seed), step_(step) {}

    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        check_region(tensor, region, out_stride);
        const std::uint64_t stream =
            mix(hash_name(mix(seed_, kLabel), tensor.name), static_cast<std::uint64_t>(step_));
        // A spread of its own, 2^-14 to 2^-10 of the sum: layers differ by much, and so do steps.
        const float unit = static_cast<float>(1 + stream % 1024) / 1048576.0F + 0x1p-14F;
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        for (std::int64_t r = 0; r < region.rows; ++r) {
            for (std::int64_t c = 0; c < region.cols; ++c) {
                const auto position =
                    static_cast<std::uint64_t>((region.row + r) * cols + region.col + c);
                const auto sum = static_cast<float>(bell(mix(stream, position)));
                out[r * out_stride + c] = to_bf16(sum * unit);
            }
        }
    }
    void set_step(std::int64_t step) override { step_ = step; }
    [[nodiscard]] std::string description() const override {
        return "calibration seed " + std::to_string(seed_) + " step " + std::to_string(step_);
    }

 private:
    static constexpr std::uint64_t kLabel = 0x6b76;  ///< keeps the draws apart from the weights'
    std::uint64_t seed_;
    std::int64_t step_;
};

}  // namespace

std::unique_ptr<WeightSource> make_calibration_source(std::uint64_t seed, std::int64_t step) {
    return std::make_unique<CalibrationSource>(seed, step);
}

}  // namespace refit::weights
