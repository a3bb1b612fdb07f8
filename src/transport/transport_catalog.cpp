// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/transport_catalog.hpp"

#include <unistd.h>

#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "transport/link_pacer.hpp"
#include "transport/loopback/loopback_transport.hpp"
#include "transport/mpi/mpi_transport.hpp"
#include "transport/mpi_window/mpi_window_transport.hpp"
#include "transport/paced_transport.hpp"
#include "transport/ring_transport.hpp"

namespace refit::transport {
namespace {

using Make = std::unique_ptr<Transport> (*)(const TransportOptions&, const Endpoint&);

struct Entry {
    const char* name;
    const char* summary;
    Make make;  ///< null: not compiled
};

constexpr const char* kNotBuilt = "not built in this version";

constexpr Entry kEntries[] = {
    {"mpi", "MPI_Ibcast of each piece, one communicator a trainer; one node or several",
     [](const TransportOptions& o, const Endpoint& e) {
         return make_mpi_transport(e, o.chunk_bytes);
     }},
    {"mpi_window", "POSIX shared memory of one node, read in place by every receiver",
     [](const TransportOptions& o, const Endpoint& e) {
         return make_mpi_window_transport(e, o.run_id);
     }},
    {"nccl", "ncclBroadcast from device to device", nullptr},
    {"cuda_ipc", "device memory of one node, opened by every receiver", nullptr},
    {"loopback", "ranks are threads of one process",
     [](const TransportOptions& o, const Endpoint& e) {
         return make_loopback_transport(o.hub, e);
     }},
};

core::Viability viability_of(const Entry& entry) {
    if (entry.make == nullptr) return {false, false, kNotBuilt};
    if (std::string_view(entry.name) == "mpi_window" && access("/dev/shm", W_OK | X_OK) != 0) {
        return {true, false, "/dev/shm is not writable"};
    }
    return {true, true, ""};
}

}  // namespace

std::vector<TransportRow> transport_rows() {
    std::vector<TransportRow> rows;
    for (const Entry& entry : kEntries)
        rows.push_back({entry.name, viability_of(entry), entry.summary});
    return rows;
}

std::unique_ptr<Transport> make_transport(const TransportOptions& options,
                                          const Endpoint& endpoint) {
    std::vector<std::string> names;
    for (const Entry& entry : kEntries) {
        names.emplace_back(entry.name);
        if (options.name != entry.name) continue;
        const core::Viability viability = viability_of(entry);
        if (!viability.viable) {
            throw core::NotViable("transport " + options.name + ": " + viability.reason +
                                  "; use transport mpi or loopback");
        }
        if (options.link_bytes_per_s == 0) return entry.make(options, endpoint);
        const LinkPacer pacer(options.link_bytes_per_s, options.link_free_at_ns);
        return make_paced_transport(entry.make(options, endpoint), endpoint, pacer);
    }
    throw core::UsageError(core::unknown_name_message("transport", options.name, names));
}

std::uint64_t shared_memory_bytes(const std::string& name, const StreamPlan& plan, int trainers) {
    if (name != "mpi_window") return 0;
    std::uint64_t bytes = 0;
    for (int t = 0; t < trainers; ++t) bytes += ring_bytes(plan, t);
    return bytes;
}

}  // namespace refit::transport
