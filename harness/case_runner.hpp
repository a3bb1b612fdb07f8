// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One case from handshake to verdict. Collective: every rank runs it and ends with the same
// CaseRecord.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "harness/lost_rank_monitor.hpp"
#include "harness/rank_status.hpp"
#include "harness/scenario.hpp"
#include "harness/world.hpp"
#include "record/run_record.hpp"
#include "transport/transport_catalog.hpp"

namespace refit::harness {

/// What a rank brings to every case.
struct RunContext {
    World& world;
    RankStatus& status;
    LostRankMonitor* monitor = nullptr;           ///< null in tests
    std::shared_ptr<transport::LoopbackHub> hub;  ///< of the loopback world
    std::string run_id;
    double memory_copy_bytes_per_s = 0.0;  ///< ceiling, for the floor
    /// Called on rank 0 with a line of progress ("case 2/3: iteration 4/5"); may be empty.
    std::function<void(const std::string&)> progress;
    std::string where;  ///< "2/3"
    /// Filled with the transport's measured ceiling, once a transport name.
    std::function<void(const std::string& transport, double bytes_per_s)> transport_ceiling;
    std::function<bool(const std::string& transport)> has_transport_ceiling;
};

/// Findings of the weights are in the record; inability to look (unreadable file, no memory) is
/// thrown on every rank alike as AgreedError. A transport or backend that is not viable gives
/// outcome "skipped" with its reason.
[[nodiscard]] record::CaseRecord run_case(RunContext& context, const Case& c);

}  // namespace refit::harness
