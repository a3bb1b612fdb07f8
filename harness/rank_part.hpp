// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What one rank brings to the refits of a case: a trainer its weights and a publisher, a receiver
// its loader; in memory of the host or of the device.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "harness/case_setup.hpp"
#include "harness/scenario.hpp"
#include "kernels/backend.hpp"
#include "kernels/cuda/device_queue.hpp"
#include "receiver/device_loader.hpp"
#include "trainer/bucket_source.hpp"
#include "trainer/held_weights.hpp"
#include "trainer/kernel_plan.hpp"
#include "trainer/publisher.hpp"
#include "trainer/refit_plan.hpp"

namespace refit::harness {

/// What was decided for a rank. References live as long as its part.
struct RankPartPlan {
    const Case& c;
    const CaseSetup& setup;
    const trainer::RefitPlan& plan;          ///< of a trainer, but for wire: kernel
    const trainer::KernelPlan& kernel_plan;  ///< of the trainer with wire: kernel
    const wire::RefitManifest& manifest;
    const kernels::Backend& backend;
    int rank = 0;                    ///< of the world
    bool weights_resident = true;    ///< a trainer holds its weights between refits
    bool on_device = false;          ///< pieces, weights and parameters are memory of the device
    std::function<void()> progress;  ///< called between steps of long work
};

class RankPart {
 public:
    /// Opens the weights and allocates. Throws FileError for weights that cannot be read.
    explicit RankPart(RankPartPlan plan);

    /// The weights, and what they are calibrated to, of refit `refit`, counted from 0.
    void next_step(int refit);

    [[nodiscard]] trainer::Publisher* publisher() const { return publisher_.get(); }
    [[nodiscard]] receiver::WeightLoader* loader() const { return loader_.get(); }
    /// Weights that a trainer holds; null where they are read bucket by bucket.
    [[nodiscard]] trainer::HeldWeights* held() const { return held_.get(); }
    /// Where a trainer reads them instead; else null.
    [[nodiscard]] trainer::BucketSource* bucket_source() const { return bucket_source_.get(); }
    [[nodiscard]] const weights::WeightSource& source() const { return *source_; }
    /// With scales of the KV cache what they are calibrated to; else null.
    [[nodiscard]] const weights::WeightSource* calibration() const { return calibration_.get(); }

    /// Bytes that refits moved between host and device on this rank.
    struct Traffic {
        std::uint64_t weights = 0;  ///< of the model; not the upload of a step
        std::uint64_t control = 0;  ///< lists, headers, verdicts
        std::uint64_t audited = 0;  ///< fetched by the audit, outside of refits
    };
    [[nodiscard]] Traffic device_traffic() const;

 private:
    RankPartPlan plan_;
    std::unique_ptr<weights::WeightSource> source_;
    std::unique_ptr<weights::WeightSource> calibration_;
    std::vector<float> cache_scales_;                       ///< of a trainer, at this step
    std::unique_ptr<kernels::cuda::DeviceQueue> queue_;     ///< of a trainer on the device
    kernels::cuda::DeviceTraffic uploaded_;                 ///< its traffic outside of refits
    std::unique_ptr<trainer::HeldWeights> held_;            ///< exactly one of these two
    std::unique_ptr<trainer::BucketSource> bucket_source_;  ///< on a trainer
    std::unique_ptr<trainer::Publisher> publisher_;
    std::unique_ptr<receiver::WeightLoader> loader_;
    const receiver::DeviceLoader* device_loader_ = nullptr;  ///< the same, on the device

    [[nodiscard]] bool is_trainer() const { return plan_.rank < plan_.c.trainer_ranks; }
    [[nodiscard]] bool kernel() const { return plan_.c.wire == "kernel"; }
    void calibrate();
    void allocate_trainer();
    void allocate_trainer_on_device();
    void allocate_receiver();
};

}  // namespace refit::harness
