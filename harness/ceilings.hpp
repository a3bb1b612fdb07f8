// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What this machine can do at most, measured in the same run: memory copy of all ranks together,
// and the bare transport.
#pragma once

#include <cstdint>

#include "harness/rank_status.hpp"
#include "harness/world.hpp"
#include "transport/transport.hpp"

namespace refit::harness {

/// Collective. Bytes per second, read and written, when every rank of the world copies memory at
/// the same time.
[[nodiscard]] double measure_memory_copy(World& world, RankStatus& status);

/// Collective; `transport` must be closed. Payload bytes per second when the trainers publish
/// buckets of the given size without touching them and every receiver gets each into its own
/// memory.
[[nodiscard]] double measure_transport(World& world, RankStatus& status,
                                       transport::Transport& transport, int trainers,
                                       std::uint64_t bucket_bytes, int depth);

}  // namespace refit::harness
