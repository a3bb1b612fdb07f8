// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/calibration_source.hpp"

#include <string>
#include <utility>

#include "weights/synthetic_weights.hpp"

namespace refit::weights {
namespace {

class CalibrationSource final : public WeightSource {
 public:
    CalibrationSource(std::uint64_t seed, std::int64_t step)
        : values_(make_synthetic_weights(seed, 0, Outliers())), step_(step) {}

    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        // The name decides which values are drawn: a step is another name.
        model::TensorSpec drawn = tensor;
        drawn.name += " of step " + std::to_string(step_);
        values_->read(drawn, region, out, out_stride);
    }
    void set_step(std::int64_t step) override { step_ = step; }
    [[nodiscard]] std::string description() const override {
        return "calibration, " + values_->description() + ", prompts of step " +
               std::to_string(step_);
    }

 private:
    std::unique_ptr<WeightSource> values_;
    std::int64_t step_;
};

}  // namespace

std::unique_ptr<WeightSource> make_calibration_source(std::uint64_t seed, std::int64_t step) {
    return std::make_unique<CalibrationSource>(seed, step);
}

}  // namespace refit::weights
