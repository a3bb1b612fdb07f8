// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/device_residency.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/shape.hpp"
#include "harness/preflight.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "receiver/device_loader.hpp"
#include "trainer/device_publisher.hpp"

namespace refit::harness {

std::uint64_t resident_device_bytes(const DevicePart& part) {
    std::uint64_t slots = 0;
    for (std::size_t t = 0; t < static_cast<std::size_t>(part.c.trainer_ranks); ++t) {
        if (part.trainer >= 0 && part.trainer != static_cast<int>(t)) continue;
        std::uint64_t largest = 0;
        for (const wire::BucketPlan& bucket : part.manifest.buckets)
            largest = std::max(largest, bucket.pieces[t].bytes);
        slots += largest * static_cast<std::uint64_t>(part.c.depth);
    }
    if (part.trainer < 0) {
        const receiver::DestinationPlaces places(part.setup.loading());
        const std::uint64_t copies = part.c.commit == "staged" ? 2 : 1;
        const bool own_slots = part.transport.name() == "nccl";
        return places.total_bytes() * copies + (own_slots ? slots : 0);
    }
    std::uint64_t weights = 0;
    for (const parallel::Placement& placement : part.setup.placements) {
        const core::Region& held = placement.held[static_cast<std::size_t>(part.trainer)];
        if (!parallel::is_empty(held))
            weights += static_cast<std::uint64_t>(held.rows * (held.cols + 7) * 2 + 256);
    }
    // What is cut and joined for the engine's own parameters is kept until its last part is taken.
    return weights + slots + (part.c.wire == "kernel" ? weights : 0);
}

std::string why_staged(const DevicePart& part) {
    const int piece_device = part.transport.piece_device();
    if (piece_device < 0) {
        return "transport " + std::string(part.transport.name()) +
               " carries host memory; cuda_ipc and nccl carry device memory";
    }
    const int own = kernels::cuda::cuda_device();
    if (piece_device != own) {
        return "a rank's pieces lie on device " + std::to_string(piece_device) +
               " and its kernels run on device " + std::to_string(own) +
               "; name one in REFIT_CUDA_DEVICE";
    }
    if (!part.weights_resident)
        return "weights.resident is false: values are read bucket by bucket";
    if (part.c.framing != "native")
        return "framing " + part.c.framing +
               " cuts messages at bytes that are laid out on the host";
    if (part.plan != nullptr) {
        std::string why = trainer::why_not_on_device(*part.plan, part.setup.payload);
        if (!why.empty()) return why;
    } else {
        std::string why = receiver::why_not_on_device(part.setup.loading());
        if (!why.empty()) return why;
    }
    const auto memory = kernels::cuda::device_memory();
    const std::uint64_t need = resident_device_bytes(part);
    // Ranks take the devices in turn, but for one that is named for all of them.
    const bool one_for_all = std::getenv("REFIT_CUDA_DEVICE") != nullptr;
    const int devices = memory && !one_for_all ? std::max(1, memory->devices) : 1;
    const auto sharing = static_cast<std::uint64_t>(core::ceil_div(part.ranks_of_node, devices));
    if (memory && need * sharing > memory->free_bytes) {
        return "what stays on the device takes " + bytes_text(need * sharing) + ", and " +
               bytes_text(memory->free_bytes) + " of it are free";
    }
    return {};
}

}  // namespace refit::harness
