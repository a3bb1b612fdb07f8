// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The loader whose parameters, and whose pieces, lie in memory of the device: digests and scales
// are looked at there, and rectangles are cut and fused there. Only verdicts come back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/cuda/device_queue.hpp"
#include "receiver/weight_loader.hpp"

namespace refit::receiver {

/// Why the parameters of this instance cannot be loaded on the device alone; empty where they can.
[[nodiscard]] std::string why_not_on_device(const ContractInstance& instance);

class DeviceLoader final : public WeightLoader {
 public:
    /// As WeightLoader, with the copies of the destinations on the device of `queue`. Throws
    /// ShapeError for an instance that why_not_on_device() refuses.
    DeviceLoader(const ContractInstance& instance, const wire::RefitManifest& manifest, int tp_rank,
                 CommitMode mode, LoadFaults faults,
                 std::unique_ptr<kernels::cuda::DeviceQueue> queue,
                 const std::function<void()>& on_progress = {});
    ~DeviceLoader() override;

    /// The same findings as WeightLoader's, but nothing of a piece is written before all of it was
    /// looked at. `piece` names memory of the device, which this call has done with when it
    /// returns. `on_progress` is called between its steps.
    void load_piece(std::uint32_t bucket, std::uint32_t trainer, std::span<const std::byte> piece,
                    const std::function<void()>& on_progress, LoadTimes& times) override;

    /// A copy of the visible parameters in host memory, brought there when it is first asked for
    /// after a commit: for an audit, outside of any refit.
    [[nodiscard]] const LoadedParameters& loaded() const override;
    [[nodiscard]] const void* address() const override;
    /// A copy in host memory of what the latest commit computed on the device, as loaded() is.
    [[nodiscard]] const DerivedWeights& derived() const override;

    /// Bytes between host and device so far, without those of loaded() and derived().
    [[nodiscard]] kernels::cuda::DeviceTraffic refit_traffic() const;
    /// Bytes that loaded() and derived() brought to the host.
    [[nodiscard]] std::uint64_t audited_bytes() const;

 protected:
    void poison(const std::function<void()>& on_progress) override;
    void zero_padding(std::size_t destination, std::size_t from) override;
    /// Matrices are computed where they stay; the values that the host keeps come here.
    void derive() override;

 private:
    struct Device;
    struct Work;
    /// Takes the cells of a piece into `work`, but those that came before; `place` names the piece.
    void collect(const std::vector<IncomingCell>& cells, std::span<const std::byte> piece,
                 const std::string& place, Work& work);
    /// Has the device look at all of it, and reports what is wrong.
    void judge(Work& work, const std::string& place);
    /// Has the device write all of it.
    void write(const Work& work);

    std::unique_ptr<Device> device_;
};

}  // namespace refit::receiver
