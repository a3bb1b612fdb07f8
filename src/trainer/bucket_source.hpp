// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one trainer sends in one bucket, read from the source when it is wanted: models larger than
// memory.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "trainer/refit_plan.hpp"
#include "trainer/weight_rows.hpp"
#include "weights/weight_source.hpp"

namespace refit::trainer {

class BucketSource final : public WeightRows {
 public:
    /// Allocates memory for the largest bucket; reads nothing yet. All references must outlive it.
    /// Throws ResourceError when there is no memory.
    BucketSource(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan, int trainer,
                 const weights::WeightSource& source);

    /// Reads everything that this trainer sends in the bucket; what was read before is overwritten.
    /// Throws FileError when the source cannot be read: then nothing is at hand.
    void read(std::size_t bucket, const std::function<void()>& on_progress);

    [[nodiscard]] Values values(std::size_t tensor, const core::Region& region) const override;
    [[nodiscard]] std::uint64_t size_bytes() const { return memory_.size(); }
    /// BF16 bytes that a trainer reads for its largest bucket.
    [[nodiscard]] static std::uint64_t largest_bucket(const wire::RefitManifest& manifest,
                                                      std::size_t trainer);

 private:
    struct Part {
        std::size_t tensor = 0;
        core::Region region;
        std::size_t offset = 0;  ///< bytes
    };
    const std::vector<model::TensorSpec>& tensors_;
    const RefitPlan& plan_;
    const weights::WeightSource& source_;
    std::size_t trainer_;
    core::AlignedBuffer memory_;
    std::vector<Part> parts_;  ///< of the bucket that was read last
};

}  // namespace refit::trainer
