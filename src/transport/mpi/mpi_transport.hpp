// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Pieces cross by MPI_Ibcast, one communicator a trainer. Works on one node and between nodes.
#pragma once

#include <cstdint>
#include <memory>

#include "transport/transport.hpp"

namespace refit::transport {

/// Collective over MPI_COMM_WORLD. A piece is sent in chunks of at most `chunk_bytes` (1 .. 2^31 -
/// 1: counts of MPI-3 are int). Throws UsageError for a chunk size out of range or a world of
/// another size.
[[nodiscard]] std::unique_ptr<Transport> make_mpi_transport(const Endpoint& endpoint,
                                                            std::uint64_t chunk_bytes);

}  // namespace refit::transport
