// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the ranks of a case held and carried, in its record. Collective.
#pragma once

#include <cstddef>
#include <cstdint>

#include "harness/rank_part.hpp"
#include "harness/world.hpp"
#include "record/run_record.hpp"

namespace refit::harness {

/// Peak memory since the last reset, largest and sum over ranks, and the largest number of places
/// at which a receiver's weights began. `own_shared`: bytes of shared pages that this rank made and
/// others map; they count here alone.
void note_memory(World& world, std::uint64_t own_shared, std::size_t addresses,
                 record::CaseRecord& record);

/// Bytes between host and device, the largest figure of any rank.
void note_device_traffic(World& world, const RankPart::Traffic& mine, record::CaseRecord& record);

}  // namespace refit::harness
