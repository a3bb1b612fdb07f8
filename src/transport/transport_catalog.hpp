// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// THE list of transports.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/viability.hpp"
#include "transport/transport.hpp"

namespace refit::transport {

/// What the ranks of one process share when they are threads (the loopback world).
class LoopbackHub;
[[nodiscard]] std::shared_ptr<LoopbackHub> make_loopback_hub(int trainers, int receivers);

struct TransportOptions {
    std::string name;                  ///< mpi | mpi_window | nccl | cuda_ipc | loopback
    std::shared_ptr<LoopbackHub> hub;  ///< loopback only
    /// Largest count of one MPI call; a piece is sent in chunks of at most this.
    std::uint64_t chunk_bytes = std::uint64_t{1} << 30;
    /// 0 = no pacing. Else the rate of one link that all trainers share and each byte crosses once.
    std::uint64_t link_bytes_per_s = 0;
    /// Steady-clock nanoseconds at which the shared link is free again; in memory that all trainers
    /// of the node share. Required with pacing.
    std::atomic<std::int64_t>* link_free_at_ns = nullptr;
    /// Unique among runs on this machine; begins the names of shared segments.
    std::string run_id;
};

/// "2.28.9 (libnccl.so.2)"; empty where there is none.
[[nodiscard]] std::string nccl_description();

struct TransportRow {
    std::string name;
    core::Viability viability;  ///< on this machine, before a world is known
    std::string summary;
};
[[nodiscard]] std::vector<TransportRow> transport_rows();

/// Collective over the world where the transport needs one (mpi_window finds out whether all ranks
/// share a node). Throws UsageError for an unknown name, NotViable with the reason and the remedy.
[[nodiscard]] std::unique_ptr<Transport> make_transport(const TransportOptions& options,
                                                        const Endpoint& endpoint);

/// Bytes of /dev/shm that `name` will need for a plan: slots of all trainers of this node, or the
/// counters of cuda_ipc (0 for the others).
[[nodiscard]] std::uint64_t shared_memory_bytes(const std::string& name, const StreamPlan& plan,
                                                int trainers);

/// Removes shared segments of refitbench whose creating process is gone. Returns their names.
std::vector<std::string> remove_stale_segments();

}  // namespace refit::transport
