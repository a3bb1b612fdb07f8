// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// All trainers of a small refit played one after the other, and what they sent put together again.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "model/tensor_spec.hpp"
#include "parallel/placement.hpp"
#include "trainer/refit_plan.hpp"
#include "weights/weight_source.hpp"
#include "wire/wanted_list.hpp"

namespace refit::trainer_test {

/// BF16 bits of a number, rounded to nearest even.
[[nodiscard]] std::uint16_t bf16(float value);
/// Gaussian values, the same for the same seed.
[[nodiscard]] std::vector<std::uint16_t> random_values(std::int64_t count, std::uint32_t seed);

/// Tensors with values set by the test.
class FixedWeights final : public weights::WeightSource {
 public:
    void set(const std::string& name, std::vector<std::uint16_t> values) {
        values_[name] = std::move(values);
    }
    [[nodiscard]] const std::vector<std::uint16_t>& values(const std::string& name) const {
        return values_.at(name);
    }
    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override;
    void set_step(std::int64_t) override {}
    [[nodiscard]] std::string description() const override { return "fixed"; }

 private:
    std::map<std::string, std::vector<std::uint16_t>> values_;
};

/// An up_proj weight; quantized where a recipe is set.
[[nodiscard]] model::TensorSpec matrix(const std::string& name, std::int64_t rows,
                                       std::int64_t cols);
/// What receivers would ask for: the tensor as codes with a scale of `recipe`'s own name and rank,
/// or as it is without a recipe. Cut into halves by rows and a third by columns.
void want(wire::WantedList& wanted, const model::TensorSpec& tensor, const quant::Recipe* recipe);

struct Publication {
    trainer::RefitPlan plan;
    /// Bytes of each parameter, row-major, and how often each of its elements was sent.
    std::map<std::string, std::vector<std::byte>> bytes;
    std::map<std::string, std::vector<int>> count;
    std::vector<core::Findings> findings;    ///< by trainer
    std::vector<std::vector<bool>> aborted;  ///< by bucket, by trainer
    std::size_t digests = 0;                 ///< compared with the digest of the cell's bytes
    std::size_t progress_calls = 0;

    [[nodiscard]] std::vector<float> scales(const std::string& name) const;
    [[nodiscard]] bool any_aborted() const;
};

/// One refit. Every header, size and digest is compared with what the plan and the entries' bytes
/// say; failures are reported to GoogleTest. Bytes of aborted pieces are not taken. `per_bucket`:
/// the trainers read each bucket from the source when it is wanted and hold nothing else.
[[nodiscard]] Publication publish(const std::vector<model::TensorSpec>& tensors,
                                  const wire::WantedList& wanted, const trainer::Payload& payload,
                                  const parallel::Sharding& sharding,
                                  const trainer::TrainerFaults& faults,
                                  const weights::WeightSource& source,
                                  const std::string& backend = "portable", bool per_bucket = false);

/// Codes and scales of a whole matrix by the portable backend, in one call.
struct Whole {
    std::vector<std::byte> codes;
    std::vector<float> scales;
};
[[nodiscard]] Whole quantize_whole(const quant::Recipe& recipe,
                                   const std::vector<std::uint16_t>& values, std::int64_t rows,
                                   std::int64_t cols);

/// Bits, so that NaN equals itself.
[[nodiscard]] std::vector<std::uint32_t> bits_of(const std::vector<float>& values);

}  // namespace refit::trainer_test
