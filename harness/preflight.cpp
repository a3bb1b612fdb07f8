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
#include "harness/device_residency.hpp"
#include "kernels/cuda/staging_plan.hpp"
#include "trainer/bucket_source.hpp"
#include "trainer/device_shard.hpp"

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

/// The slots of one trainer with backend cuda: any trainer may get the largest parameter.
kernels::cuda::StagingMemory staging_of(const CaseSetup& setup,
                                        const wire::RefitManifest& manifest) {
    kernels::cuda::StagingMemory memory;
    for (const wire::ParameterMeta& parameter : manifest.parameters) {
        if (parameter.kind == wire::ParameterKind::codes && setup.payload.recipe != nullptr) {
            memory.add_quantized(setup.payload.recipe->scaling, parameter.rows(), parameter.cols());
        }
        if (parameter.kind != wire::ParameterKind::scale &&
            setup.payload.nonfinite != trainer::Nonfinite::recipe) {
            memory.add_scan(parameter.rows() * parameter.cols());
        }
    }
    return memory;
}

/// What a refit that stays on the device needs instead: nothing is staged, and the audit reads one
/// copy of every receiver's parameters (`one_copy` bytes) on the host.
void move_to_device(const Case& c, const CaseSetup& setup, const wire::RefitManifest& manifest,
                    const std::string& transport, std::uint64_t audited, CaseNeeds& needs) {
    const auto receivers = static_cast<std::uint64_t>(c.engines) * static_cast<std::uint64_t>(c.tp);
    const auto trainers = static_cast<std::uint64_t>(c.trainer_ranks);
    needs.trainer_shards = std::min(resident_bytes(setup),
                                    trainers * static_cast<std::uint64_t>(trainer::kUploadBytes));
    needs.receiver_copies = 0;
    needs.transport_buffers = 0;
    needs.staging = 0;
    needs.audit += receivers * audited;
    const std::uint64_t receiver = resident_device_bytes(c, setup, manifest, transport, -1);
    needs.device_memory = receivers * receiver;
    needs.device_memory_of_rank = receiver;
    for (int t = 0; t < c.trainer_ranks; ++t) {
        const std::uint64_t own = resident_device_bytes(c, setup, manifest, transport, t);
        needs.device_memory += own;
        needs.device_memory_of_rank = std::max(needs.device_memory_of_rank, own);
    }
}

}  // namespace

CaseNeeds needs_of(const Case& c, const CaseSetup& setup, const trainer::RefitPlan& plan,
                   const std::string& transport, bool resident, bool on_device) {
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
    std::uint64_t slots = 0;       // of all trainers
    std::uint64_t most_slots = 0;  // of one
    for (std::size_t t = 0; t < static_cast<std::size_t>(c.trainer_ranks); ++t) {
        std::uint64_t largest = 0;
        for (const auto& pieces : stream.pieces) largest = std::max(largest, pieces[t]);
        slots += largest * static_cast<std::uint64_t>(c.depth);
        most_slots = std::max(most_slots, largest * static_cast<std::uint64_t>(c.depth));
    }
    // Over MPI, NCCL and CUDA IPC every receiver has slots of its own; shared memory and loopback
    // need the trainers' alone. The slots of NCCL exist on the device too, those of CUDA IPC only
    // on the trainers' side.
    const bool own_slots = transport == "mpi" || transport == "nccl" || transport == "cuda_ipc";
    needs.transport_buffers = own_slots ? slots * (1 + receivers) : slots;
    std::uint64_t trainer_device = 0;  // of the trainer that needs most
    std::uint64_t receiver_device = 0;
    if (transport == "nccl") {
        needs.device_memory += slots * (1 + receivers);
        receiver_device = slots;
    }
    if (transport == "cuda_ipc") needs.device_memory += slots;
    if (transport == "nccl" || transport == "cuda_ipc") trainer_device = most_slots;
    if (c.backend == "cuda") {
        const kernels::cuda::StagingMemory staging = staging_of(setup, plan.manifest);
        // Trainers played by threads of one process share its slots.
        const auto processes =
            transport == "loopback" ? 1 : static_cast<std::uint64_t>(c.trainer_ranks);
        needs.staging = static_cast<std::uint64_t>(staging.host_bytes()) * processes;
        needs.device_memory += static_cast<std::uint64_t>(staging.device_bytes()) * processes;
        trainer_device += static_cast<std::uint64_t>(staging.device_bytes());
    }
    needs.device_memory_of_rank = std::max(trainer_device, receiver_device);
    needs.shared_memory = transport::shared_memory_bytes(transport, stream, c.trainer_ranks);
    std::uint64_t largest_tensor = 0;
    for (const model::TensorSpec& tensor : setup.tensors) {
        largest_tensor =
            std::max(largest_tensor, static_cast<std::uint64_t>(core::element_count(tensor.shape)));
    }
    // The audit holds stripes of one tensor a rank, in BF16 and decoded.
    needs.audit = std::min<std::uint64_t>(largest_tensor * 4, std::uint64_t{256} << 20) *
                  static_cast<std::uint64_t>(c.world_size());
    if (on_device) move_to_device(c, setup, plan.manifest, transport, one_copy + derived, needs);
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
            ", audit " + bytes_text(needs.audit) +
            (needs.staging > 0 ? ", staging to the device " + bytes_text(needs.staging) : "") +
            ") and " + bytes_text(have) +
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

void check_device_needs(const CaseNeeds& needs, double share,
                        const kernels::cuda::DeviceMemory& memory) {
    const double each = static_cast<double>(needs.device_memory) * share / memory.devices;
    const std::uint64_t need =
        std::max(static_cast<std::uint64_t>(each), needs.device_memory_of_rank);
    const std::uint64_t have = memory.free_bytes + memory.held_bytes;
    if (need <= have) return;
    throw core::ResourceError(
        "the case needs " + bytes_text(need) +
        " of memory on each CUDA device of this "
        "node (it has " +
        std::to_string(memory.devices) + ") and " + bytes_text(have) + " of " +
        bytes_text(memory.total_bytes) +
        " are free; use smaller buckets (--set transport.bucket_bytes=16MiB), --set "
        "backend=auto, --set transport.name=mpi, or end other programs that use the device");
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
