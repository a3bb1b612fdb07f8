// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_part.hpp"

#include <algorithm>
#include <utility>

#include "kernels/cuda/cuda_backend.hpp"
#include "trainer/cache_calibration.hpp"
#include "trainer/device_kernel_publisher.hpp"
#include "trainer/device_publisher.hpp"
#include "trainer/device_shard.hpp"
#include "trainer/kernel_publisher.hpp"
#include "trainer/refit_publisher.hpp"
#include "trainer/resident_shard.hpp"
#include "weights/calibration_source.hpp"

namespace refit::harness {

RankPart::RankPart(RankPartPlan plan) : plan_(std::move(plan)) {
    source_ = open_weights(plan_.c, plan_.setup.tensors);
    if (!plan_.setup.payload.calibrations.empty())
        calibration_ = weights::make_calibration_source(plan_.c.seed, plan_.c.step);
    if (!is_trainer()) {
        allocate_receiver();
        return;
    }
    calibrate();
    if (plan_.on_device) {
        allocate_trainer_on_device();
    } else {
        allocate_trainer();
    }
}

void RankPart::next_step(int refit) {
    source_->set_step(plan_.c.step + refit);
    if (calibration_ != nullptr) calibration_->set_step(plan_.c.step + refit);
    if (is_trainer()) calibrate();
    if (held_ == nullptr) return;
    const auto before = queue_ != nullptr ? queue_->traffic() : kernels::cuda::DeviceTraffic{};
    held_->reload(plan_.setup.tensors, *source_, plan_.progress);
    if (queue_ != nullptr) uploaded_.weights += queue_->traffic().weights - before.weights;
}

RankPart::Traffic RankPart::device_traffic() const {
    if (device_loader_ != nullptr) {
        const kernels::cuda::DeviceTraffic traffic = device_loader_->refit_traffic();
        return {traffic.weights, traffic.control, device_loader_->audited_bytes()};
    }
    if (queue_ == nullptr) return {};
    const kernels::cuda::DeviceTraffic& now = queue_->traffic();
    return {now.weights - uploaded_.weights, now.control - uploaded_.control, 0};
}

/// The trainer's scales of the KV cache at this step.
void RankPart::calibrate() {
    if (calibration_ == nullptr) return;
    cache_scales_ = trainer::calibrate_cache_scales(plan_.setup.payload.calibrations, *calibration_,
                                                    plan_.progress);
}

void RankPart::allocate_trainer() {
    const CaseSetup& setup = plan_.setup;
    const trainer::WeightRows* weights = nullptr;
    if (plan_.weights_resident) {
        auto shard = std::make_unique<trainer::ResidentShard>(setup.tensors, setup.placements,
                                                              plan_.rank, *source_, plan_.progress);
        weights = shard.get();
        held_ = std::move(shard);
    } else {
        bucket_source_ = std::make_unique<trainer::BucketSource>(setup.tensors, plan_.plan,
                                                                 plan_.rank, *source_);
        weights = bucket_source_.get();
    }
    if (kernel()) {
        publisher_ = std::make_unique<trainer::KernelPublisher>(
            setup.tensors, plan_.kernel_plan, setup.payload, setup.trainer_faults, plan_.backend,
            *weights, &cache_scales_);
    } else {
        publisher_ = std::make_unique<trainer::RefitPublisher>(
            setup.tensors, plan_.plan, setup.payload, setup.trainer_faults, plan_.backend, *weights,
            plan_.rank, &cache_scales_);
    }
}

/// Weights that are uploaded once, and a publisher that leaves them where they are.
void RankPart::allocate_trainer_on_device() {
    const CaseSetup& setup = plan_.setup;
    queue_ = kernels::cuda::make_device_queue();
    auto shard = std::make_unique<trainer::DeviceShard>(setup.tensors, setup.placements, plan_.rank,
                                                        *source_, *queue_, plan_.progress);
    if (kernel()) {
        publisher_ = std::make_unique<trainer::DeviceKernelPublisher>(
            plan_.kernel_plan, setup.payload, setup.trainer_faults, *shard, *queue_,
            &cache_scales_);
    } else {
        publisher_ = std::make_unique<trainer::DevicePublisher>(
            plan_.plan, setup.payload, setup.trainer_faults, *shard, *queue_, plan_.rank,
            &cache_scales_);
    }
    held_ = std::move(shard);
    uploaded_ = queue_->traffic();
}

void RankPart::allocate_receiver() {
    const Case& c = plan_.c;
    const auto mode =
        c.commit == "staged" ? receiver::CommitMode::staged : receiver::CommitMode::in_place;
    const int receiver = plan_.rank - c.trainer_ranks;
    // A planted fault strikes one receiver, so that replicas differ.
    const bool struck = std::any_of(c.faults.begin(), c.faults.end(), [&](const FaultSpec& fault) {
        return fault.receiver == receiver;
    });
    const receiver::LoadFaults faults = struck ? plan_.setup.load_faults : receiver::LoadFaults{};
    const int tp_rank = receiver % c.tp;
    if (plan_.on_device) {
        auto loader = std::make_unique<receiver::DeviceLoader>(
            plan_.setup.loading(), plan_.manifest, tp_rank, mode, faults,
            kernels::cuda::make_device_queue(), plan_.progress);
        device_loader_ = loader.get();
        loader_ = std::move(loader);
    } else {
        loader_ = std::make_unique<receiver::WeightLoader>(plan_.setup.loading(), plan_.manifest,
                                                           tp_rank, mode, faults, plan_.progress);
    }
}

}  // namespace refit::harness
