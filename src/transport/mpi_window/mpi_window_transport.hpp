// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Ranks of one node: the trainer's slots are shared memory, every receiver reads them in place.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace refit::transport {

/// Collective over MPI_COMM_WORLD. Throws NotViable when the ranks are on several nodes.
[[nodiscard]] std::unique_ptr<Transport> make_mpi_window_transport(const Endpoint& endpoint,
                                                                   const std::string& run_id);

/// Says why `need` bytes of shared memory cannot be had with `have` free, and what to do; empty
/// when they can.
[[nodiscard]] std::string shared_memory_shortage(std::uint64_t need, std::uint64_t have);

}  // namespace refit::transport
