// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/device_residency.hpp"

#include <algorithm>
#include <cstdlib>

#include "core/shape.hpp"
#include "harness/preflight.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/staging_plan.hpp"
#include "receiver/derived_weights.hpp"
#include "receiver/device_loader.hpp"
#include "trainer/device_publisher.hpp"

namespace refit::harness {

namespace {

/// Scratch memory of a queue beside what it is given: sums of 64 bytes for each 1,024 that are
/// digested in one launch, and of a trainer three words for each tile of a piece.
std::uint64_t scratch_bytes(const CaseSetup& setup, const wire::RefitManifest& manifest,
                            const wire::PiecePlan& piece, bool quantizes) {
    std::uint64_t bytes = std::min<std::uint64_t>(piece.bytes / 16, kernels::cuda::kDigestScratch);
    std::int64_t words = 0;
    for (const wire::PieceEntry& entry : piece.entries) {
        const wire::ParameterMeta& meta = manifest.parameters[entry.parameter];
        bytes = std::max<std::uint64_t>(bytes, entry.bytes / 16);
        if (!quantizes || meta.kind != wire::ParameterKind::codes) continue;
        if (setup.payload.recipe == nullptr) continue;
        const kernels::TileGrid grid =
            kernels::tile_grid(setup.payload.recipe->scaling, meta.rows(), meta.cols());
        const core::Region region = entry.region(meta);
        words += (region.rows / grid.tile_rows + 2) * (region.cols / grid.tile_cols + 2);
    }
    return bytes + 3 * sizeof(std::uint32_t) * static_cast<std::uint64_t>(words);
}

}  // namespace

std::uint64_t resident_device_bytes(const Case& c, const CaseSetup& setup,
                                    const wire::RefitManifest& manifest,
                                    const std::string& transport, int trainer) {
    std::uint64_t slots = 0;
    std::uint64_t largest_of_all = 0;
    std::uint64_t scratch = 0;
    for (std::size_t t = 0; t < static_cast<std::size_t>(c.trainer_ranks); ++t) {
        if (trainer >= 0 && trainer != static_cast<int>(t)) continue;
        std::uint64_t largest = 0;
        for (const wire::BucketPlan& bucket : manifest.buckets) {
            largest = std::max(largest, bucket.pieces[t].bytes);
            scratch =
                std::max(scratch, scratch_bytes(setup, manifest, bucket.pieces[t], trainer >= 0));
        }
        slots += largest * static_cast<std::uint64_t>(c.depth);
        largest_of_all = std::max(largest_of_all, largest);
    }
    if (trainer < 0) {
        const receiver::DestinationPlaces places(setup.loading());
        const std::uint64_t copies = c.commit == "staged" ? 2 : 1;
        const bool own_slots = transport == "nccl";
        return places.total_bytes() * copies + receiver::DerivedWeights::bytes_of(setup.loading()) +
               (own_slots ? slots : 0) + scratch;
    }
    std::uint64_t weights = 0;
    for (const parallel::Placement& placement : setup.placements) {
        const core::Region& held = placement.held[static_cast<std::size_t>(trainer)];
        if (!parallel::is_empty(held))
            weights += static_cast<std::uint64_t>(held.rows * (held.cols + 7) * 2 + 256);
    }
    // What is cut and joined for the engine's own parameters is kept until its last part is taken,
    // and made in a piece of its own.
    const std::uint64_t joined = c.wire == "kernel" ? weights + largest_of_all : 0;
    // Scales that one trainer sends in another bucket than their weights.
    std::uint64_t kept = 0;
    for (const wire::ParameterMeta& meta : manifest.parameters) {
        if (c.trainer_ranks > 1) break;
        if (meta.kind == wire::ParameterKind::scale)
            kept += static_cast<std::uint64_t>(meta.rows() * meta.row_bytes());
    }
    return weights + slots + joined + kept + scratch;
}

std::string why_staged_by_plan(const DevicePart& part) {
    if (part.transport != "cuda_ipc" && part.transport != "nccl") {
        return "transport " + part.transport +
               " carries host memory; cuda_ipc and nccl carry device memory";
    }
    if (!part.weights_resident)
        return "weights.resident is false: values are read bucket by bucket";
    return part.trainer >= 0 ? trainer::why_not_on_device(part.setup.payload)
                             : receiver::why_not_on_device(part.setup.loading());
}

std::string why_staged(const DevicePart& part, int piece_device) {
    std::string why = why_staged_by_plan(part);
    if (!why.empty()) return why;
    if (piece_device < 0) return "transport " + part.transport + " carries host memory here";
    const int own = kernels::cuda::cuda_device();
    if (piece_device != own) {
        return "a rank's pieces lie on device " + std::to_string(piece_device) +
               " and its kernels run on device " + std::to_string(own) +
               "; name one in REFIT_CUDA_DEVICE";
    }
    const auto memory = kernels::cuda::device_memory();
    const std::uint64_t need =
        resident_device_bytes(part.c, part.setup, part.manifest, part.transport, part.trainer);
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
