// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/preflight.hpp"

#include <sys/statvfs.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <limits>
#include <sstream>

#include "core/error.hpp"
#include "trainer/bucket_source.hpp"

namespace refit::harness {
namespace {

std::uint64_t read_number(const std::string& path, std::uint64_t otherwise) {
    std::ifstream file(path);
    std::uint64_t value = 0;
    return file >> value ? value : otherwise;
}

/// The control group this process is in, version 2; "" where there is none.
std::string control_group() {
    std::ifstream file("/proc/self/cgroup");
    std::string line;
    while (std::getline(file, line)) {
        if (line.starts_with("0::")) return "/sys/fs/cgroup" + line.substr(3);
    }
    return {};
}

}  // namespace

CaseNeeds needs_of(const Case& c, const CaseSetup& setup, const trainer::RefitPlan& plan,
                   const std::string& transport, bool resident) {
    CaseNeeds needs;
    if (resident) {
        needs.trainer_shards = resident_bytes(setup);
    } else {
        for (std::size_t t = 0; t < static_cast<std::size_t>(c.trainer_ranks); ++t)
            needs.trainer_shards += trainer::BucketSource::largest_bucket(plan.manifest, t);
    }
    std::uint64_t one_copy = 0;
    for (const receiver::DestinationParameter& destination : setup.instance.destinations) {
        one_copy += static_cast<std::uint64_t>(core::element_count(destination.shape) *
                                               core::size_bytes(destination.dtype));
    }
    std::uint64_t derived = 0;  // in BF16, beside the copies
    for (const receiver::LatentProjection& latent : setup.instance.latent) {
        derived += 2 * static_cast<std::uint64_t>(latent.heads * (latent.nope_dim + latent.v_dim) *
                                                  latent.kv_lora_rank);
    }
    const auto receivers = static_cast<std::uint64_t>(c.engines) * static_cast<std::uint64_t>(c.tp);
    needs.receiver_copies = (one_copy * (c.commit == "staged" ? 2 : 1) + derived) * receivers;

    const transport::StreamPlan stream = stream_plan(c, plan.manifest);
    std::uint64_t slots = 0;
    for (std::size_t t = 0; t < static_cast<std::size_t>(c.trainer_ranks); ++t) {
        std::uint64_t largest = 0;
        for (const auto& pieces : stream.pieces) largest = std::max(largest, pieces[t]);
        slots += largest * static_cast<std::uint64_t>(c.depth);
    }
    // Over MPI every receiver has slots of its own; shared memory and loopback need the trainers'
    // alone.
    needs.transport_buffers = transport == "mpi" ? slots * (1 + receivers) : slots;
    needs.shared_memory = transport::shared_memory_bytes(transport, stream, c.trainer_ranks);
    std::uint64_t largest_tensor = 0;
    for (const model::TensorSpec& tensor : setup.tensors) {
        largest_tensor =
            std::max(largest_tensor, static_cast<std::uint64_t>(core::element_count(tensor.shape)));
    }
    // The audit holds stripes of one tensor a rank, in BF16 and decoded.
    needs.audit = std::min<std::uint64_t>(largest_tensor * 4, std::uint64_t{256} << 20) *
                  static_cast<std::uint64_t>(c.world_size());
    return needs;
}

std::uint64_t resident_bytes(const CaseSetup& setup) {
    std::uint64_t bytes = 0;
    for (const parallel::Placement& placement : setup.placements) {
        for (const core::Region& held : placement.held) {
            if (!parallel::is_empty(held))
                bytes += 2 * static_cast<std::uint64_t>(held.rows * held.cols);
        }
    }
    return bytes;
}

bool resident_fits(const CaseSetup& setup, double share) {
    return static_cast<double>(resident_bytes(setup)) * share <=
           kResidentShare * static_cast<double>(available_memory_bytes());
}

std::uint64_t available_memory_bytes() {
    std::uint64_t available = std::numeric_limits<std::uint64_t>::max();
    std::ifstream file("/proc/meminfo");
    std::string line;
    while (std::getline(file, line)) {
        if (!line.starts_with("MemAvailable:")) continue;
        std::istringstream fields(line.substr(13));
        std::uint64_t kib = 0;
        if (fields >> kib) available = kib * 1024;
    }
    const std::string group = control_group();
    if (!group.empty()) {
        const std::uint64_t limit =
            read_number(group + "/memory.max", std::numeric_limits<std::uint64_t>::max());
        if (limit != std::numeric_limits<std::uint64_t>::max()) {
            const std::uint64_t used = read_number(group + "/memory.current", 0);
            available = std::min(available, limit > used ? limit - used : 0);
        }
    }
    return available;
}

std::uint64_t available_shared_memory_bytes() {
    struct statvfs info {};
    if (statvfs("/dev/shm", &info) != 0) return 0;
    return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

void check_needs(const CaseNeeds& needs, double share) {
    const auto need = static_cast<std::uint64_t>(static_cast<double>(needs.total()) * share);
    const std::uint64_t have = available_memory_bytes();
    if (need > have) {
        throw core::ResourceError(
            "the case needs " + bytes_text(need) + " of memory (trainers' weights " +
            bytes_text(needs.trainer_shards) + ", receivers' copies " +
            bytes_text(needs.receiver_copies) + ", buffers " + bytes_text(needs.transport_buffers) +
            ", audit " + bytes_text(needs.audit) + ") and " + bytes_text(have) +
            " are available; use fewer layers (--set model.layers=N), --set "
            "receiver.commit=in_place, --set weights.resident=false, or a larger machine");
    }
    const auto shared =
        static_cast<std::uint64_t>(static_cast<double>(needs.shared_memory) * share);
    const std::uint64_t free = available_shared_memory_bytes();
    if (shared > free) {
        throw core::ResourceError(
            "the transport needs " + bytes_text(shared) + " in /dev/shm and " + bytes_text(free) +
            " are free; give the container more (--shm-size=1g), use smaller buckets (--set "
            "transport.bucket_bytes=16MiB) or --set transport.name=mpi");
    }
}

std::string bytes_text(std::uint64_t bytes) {
    const auto value = static_cast<double>(bytes);
    char text[32];
    if (value >= 1e9) {
        std::snprintf(text, sizeof text, "%.2f GB", value / 1e9);
    } else if (value >= 1e6) {
        std::snprintf(text, sizeof text, "%.1f MB", value / 1e6);
    } else {
        std::snprintf(text, sizeof text, "%.1f kB", value / 1e3);
    }
    return text;
}

}  // namespace refit::harness
