// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A device to refit on, and findings that must be those of the host.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "core/finding.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/device_queue.hpp"
#include "receiver/weight_loader.hpp"

namespace refit::resident_test {

using kernels::cuda::DeviceQueue;

class ResidentRefit : public ::testing::Test {
 protected:
    void SetUp() override {
        if (!kernels::cuda::cuda_row().viable) GTEST_SKIP() << kernels::cuda::cuda_row().reason;
        queue_ = kernels::cuda::make_device_queue();
    }

    /// Loads a piece from memory of the device, which is overwritten as soon as the loader is done.
    void load(receiver::WeightLoader& loader, std::uint32_t bucket, std::uint32_t trainer,
              const std::vector<std::byte>& piece) {
        const auto memory = queue_->allocate(piece.size() + 64);
        queue_->upload(memory->data(), piece.data(), piece.size(), DeviceQueue::Purpose::weights);
        receiver::LoadTimes times;
        loader.load_piece(
            bucket, trainer, {memory->data(), piece.size()}, [] {}, times);
        queue_->set_bytes(memory->data(), 0xEE, piece.size());
        queue_->wait();
    }

    std::unique_ptr<DeviceQueue> queue_;
};

inline void expect_same_findings(const core::Findings& host, const core::Findings& device) {
    ASSERT_EQ(host.size(), device.size());
    for (std::size_t i = 0; i < host.size(); ++i) {
        EXPECT_EQ(host[i].check, device[i].check);
        EXPECT_EQ(host[i].tensor, device[i].tensor);
        EXPECT_EQ(host[i].index, device[i].index);
        EXPECT_EQ(host[i].message, device[i].message);
    }
}

}  // namespace refit::resident_test
