// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Ranks are threads of one process; a receiver sees the trainer's slot itself.
#pragma once

#include <memory>

#include "transport/transport_catalog.hpp"

namespace refit::transport {

/// Throws UsageError without a hub, or when the hub was made for another world.
[[nodiscard]] std::unique_ptr<Transport> make_loopback_transport(std::shared_ptr<LoopbackHub> hub,
                                                                 const Endpoint& endpoint);

}  // namespace refit::transport
