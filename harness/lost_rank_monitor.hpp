// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The thread that notices a killed, stopped or stuck rank, and a Ctrl-C, and sees to it that a
// record is written.
//
// Open MPI 4.1 has no fault tolerance: after a SIGKILL mpirun tells the survivors with SIGTERM one
// second later and kills them after another; after a SIGSTOP nobody is told anything. So every
// process watches its node's status page.
#pragma once

#include <atomic>
#include <functional>
#include <string>
#include <thread>

#include "harness/rank_status.hpp"

namespace refit::harness {

struct Loss {
    int rank = -1;      ///< -1 where no rank is at fault
    std::string stage;  ///< where that rank was
    std::string message;
};

/// Thrown out of a wait when another rank has claimed the record: this rank's run is over.
struct RunGivenUp {};

/// Blocks SIGINT, SIGTERM, SIGCONT and, unless the caller ignores it, SIGHUP in this thread and all
/// that it starts. Call before MPI_Init and any thread.
void block_signals();

class LostRankMonitor {
 public:
    /// `write_record` runs in the monitor's thread, at most once over all processes of the node,
    /// and must not throw.
    LostRankMonitor(RankStatus& status, std::function<void(const Loss&)> write_record);
    ~LostRankMonitor();
    LostRankMonitor(const LostRankMonitor&) = delete;
    LostRankMonitor& operator=(const LostRankMonitor&) = delete;

    /// Longest time without a beat of a rank, or without progress of all.
    void set_timeout(double seconds) {
        timeout_ns_.store(static_cast<std::int64_t>(seconds * 1e9));
    }
    /// This process cannot go on: writes the record (unless another has) and ends the process with
    /// exit code 3.
    [[noreturn]] void give_up(const Loss& loss);
    /// Waits for the process's end after RunGivenUp.
    [[noreturn]] static void wait_for_end();

 private:
    void watch();
    void judge();
    [[nodiscard]] bool lost_local_rank(Loss& loss) const;
    [[noreturn]] void end(const Loss& loss);

    RankStatus& status_;
    std::function<void(const Loss&)> write_record_;
    std::atomic<std::int64_t> timeout_ns_{60'000'000'000};
    std::atomic<bool> stop_{false};
    std::int64_t last_turn_ns_ = 0;
    std::int64_t grace_until_ns_ = 0;
    std::uint64_t last_progress_ = 0;
    std::int64_t progress_ns_ = 0;
    std::thread thread_;
};

}  // namespace refit::harness
