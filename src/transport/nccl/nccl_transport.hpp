// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Pieces cross by ncclBroadcast from device memory to device memory, one communicator a trainer.
// With StreamPlan::on_device trainer and receiver see that memory itself; else they see host
// memory, and a piece is staged on both sides.
#pragma once

#include <memory>

#include "core/viability.hpp"
#include "transport/transport.hpp"

namespace refit::transport {

/// Needs a CUDA driver with a device and an NCCL library; does not look for either at build time.
[[nodiscard]] core::Viability nccl_viability();

/// Collective over MPI_COMM_WORLD, which carries the communicators' ids. Throws NotViable without a
/// device or NCCL on every rank, and where NCCL refuses ranks that share a device.
[[nodiscard]] std::unique_ptr<Transport> make_nccl_transport(const Endpoint& endpoint);

}  // namespace refit::transport
