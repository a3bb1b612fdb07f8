// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/transport_catalog.hpp"

#include <unistd.h>

#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "transport/cuda_ipc/cuda_driver.hpp"
#include "transport/cuda_ipc/cuda_ipc_transport.hpp"
#include "transport/link_pacer.hpp"
#include "transport/loopback/loopback_transport.hpp"
#include "transport/mpi/mpi_transport.hpp"
#include "transport/mpi_window/mpi_window_transport.hpp"
#include "transport/nccl/nccl_transport.hpp"
#include "transport/paced_transport.hpp"
#include "transport/ring_transport.hpp"

namespace refit::transport {
namespace {

using Make = std::unique_ptr<Transport> (*)(const TransportOptions&, const Endpoint&);

struct Entry {
    const char* name;
    const char* summary;
    core::Viability (*viability)();  ///< on this machine, before a world is known
    bool asks_all_ranks;             ///< `make` agrees on the viability with the other ranks
    Make make;
};

core::Viability always() {
    return {true, true, ""};
}

core::Viability with_shared_memory() {
    if (access("/dev/shm", W_OK | X_OK) != 0) return {true, false, "/dev/shm is not writable"};
    return always();
}

core::Viability with_device_and_shared_memory() {
    const core::Viability device = CudaDriver::viability();
    return device.viable ? with_shared_memory() : device;
}

constexpr Entry kEntries[] = {
    {"mpi", "MPI_Ibcast of each piece, one communicator a trainer; one node or several", always,
     false,
     [](const TransportOptions& o, const Endpoint& e) {
         return make_mpi_transport(e, o.chunk_bytes);
     }},
    {"mpi_window", "POSIX shared memory of one node, read in place by every receiver",
     with_shared_memory, false,
     [](const TransportOptions& o, const Endpoint& e) {
         return make_mpi_window_transport(e, o.run_id);
     }},
    {"nccl",
     "ncclBroadcast from device to device; staged from and to host memory unless pieces stay there",
     nccl_viability, true,
     [](const TransportOptions&, const Endpoint& e) { return make_nccl_transport(e); }},
    {"cuda_ipc", "device memory of one node, mapped once by every receiver; staged likewise",
     with_device_and_shared_memory, true,
     [](const TransportOptions& o, const Endpoint& e) {
         return make_cuda_ipc_transport(e, o.run_id);
     }},
    {"loopback", "ranks are threads of one process", always, false,
     [](const TransportOptions& o, const Endpoint& e) {
         return make_loopback_transport(o.hub, e);
     }},
};

}  // namespace

std::vector<TransportRow> transport_rows() {
    std::vector<TransportRow> rows;
    for (const Entry& entry : kEntries)
        rows.push_back({entry.name, entry.viability(), entry.summary});
    return rows;
}

std::unique_ptr<Transport> make_transport(const TransportOptions& options,
                                          const Endpoint& endpoint) {
    std::vector<std::string> names;
    for (const Entry& entry : kEntries) {
        names.emplace_back(entry.name);
        if (options.name != entry.name) continue;
        if (!entry.asks_all_ranks) {
            const core::Viability viability = entry.viability();
            if (!viability.viable) {
                throw core::NotViable("transport " + options.name + ": " + viability.reason +
                                      "; use transport mpi or loopback");
            }
        }
        if (options.link_bytes_per_s == 0) return entry.make(options, endpoint);
        const LinkPacer pacer(options.link_bytes_per_s, options.link_free_at_ns);
        return make_paced_transport(entry.make(options, endpoint), endpoint, pacer);
    }
    throw core::UsageError(core::unknown_name_message("transport", options.name, names));
}

std::uint64_t shared_memory_bytes(const std::string& name, const StreamPlan& plan, int trainers) {
    if (name == "cuda_ipc") return static_cast<std::uint64_t>(trainers) * kRingControlBytes;
    if (name != "mpi_window") return 0;
    std::uint64_t bytes = 0;
    for (int t = 0; t < trainers; ++t) bytes += ring_bytes(plan, t);
    return bytes;
}

}  // namespace refit::transport
