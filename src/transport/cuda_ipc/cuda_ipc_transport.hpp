// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Ranks of one node with devices: the trainer's slots are device memory, which every receiver maps
// once and copies from. With StreamPlan::on_device trainer and receiver see that memory itself;
// else they see host memory, and a piece is staged on both sides.
#pragma once

#include <memory>
#include <string>

#include "transport/transport.hpp"

namespace refit::transport {

/// Collective over MPI_COMM_WORLD. Throws NotViable without a CUDA device on every rank, or when
/// the ranks are on several machines.
[[nodiscard]] std::unique_ptr<Transport> make_cuda_ipc_transport(const Endpoint& endpoint,
                                                                 const std::string& run_id);

}  // namespace refit::transport
