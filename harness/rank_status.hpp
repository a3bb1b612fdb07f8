// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The status page of all ranks on a node: who is where, who still moves, and who may write the
// record.
//
// Shared memory between processes. A rank writes its own slot; the monitor threads of all ranks
// read all of them. It needs neither MPI nor a lock, so it works while a rank is dead or stopped.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "harness/world.hpp"

namespace refit::harness {

/// Where a rank is. The names of the refit's stages are those of the record.
enum class Stage : int {
    setup,
    handshake,
    source,
    gather,
    quantize,
    staging,
    pack,
    broadcast,
    check,
    load,
    commit,
    audit,
    record
};
[[nodiscard]] const char* stage_name(Stage stage);

struct RankSlot {
    std::atomic<int> rank{-1};  ///< world rank
    std::atomic<int> pid{0};
    std::atomic<std::uint64_t> start_time{0};  ///< of the process, from /proc: tells a reused pid
    std::atomic<int> stage{0};
    std::atomic<std::int64_t> bucket{-1};
    std::atomic<std::uint64_t> progress{
        0};  ///< grows with every stage, bucket and stripe: the refit moves
    std::atomic<std::int64_t> beat_ns{
        0};                       ///< last sign of life of the rank's main thread, steady clock
    std::atomic<int> exiting{0};  ///< the rank is leaving in order; its end is no loss
};

inline constexpr int kMaxLocalRanks = 256;
inline constexpr int kOrderlyClaim = 1 << 24;  ///< more than there are ranks

struct StatusPage {
    /// Who may write the record; taken once. -1 nobody; a world rank: because the run is given up;
    /// a world rank + kOrderlyClaim: because the run is over.
    std::atomic<int> claim{-1};
    std::atomic<int> record_written{0};
    std::atomic<std::int64_t> link_free_at_ns{0};  ///< clock of the emulated link
    std::atomic<int> slots_used{0};
    RankSlot slots[kMaxLocalRanks];
};

/// This rank's view of its node's page.
class RankStatus {
 public:
    /// Collective over the world (the page is mapped by every rank of the node, then its name is
    /// removed).
    explicit RankStatus(World& world);
    /// For threads of one process: all share `page`.
    RankStatus(World& world, StatusPage& page);
    ~RankStatus();
    RankStatus(const RankStatus&) = delete;
    RankStatus& operator=(const RankStatus&) = delete;

    void enter(Stage stage, std::int64_t bucket = -1);
    [[nodiscard]] Stage stage() const {
        return static_cast<Stage>(slot_->stage.load(std::memory_order_relaxed));
    }
    /// Still alive, still waiting.
    void beat();
    /// Alive and moving.
    void progressed();
    /// This rank leaves in order.
    void leave();
    /// Called at every enter(): where planted faults (kill, stop, throw) strike.
    void set_on_enter(std::function<void(Stage, std::int64_t)> on_enter) {
        on_enter_ = std::move(on_enter);
    }

    /// True when this rank may write the record of a run that is given up; false when it was
    /// claimed before.
    [[nodiscard]] bool claim_loss();
    /// True when this rank may write the record of a run that is over.
    [[nodiscard]] bool claim_end();
    /// Another rank has given the run up.
    [[nodiscard]] bool given_up_by_other() const;
    [[nodiscard]] StatusPage& page() { return *page_; }
    [[nodiscard]] int rank() const { return rank_; }

 private:
    void fill_slot(int local_rank);

    StatusPage* page_ = nullptr;
    RankSlot* slot_ = nullptr;
    bool mapped_ = false;
    int rank_ = 0;
    std::function<void(Stage, std::int64_t)> on_enter_;
};

/// Steady-clock nanoseconds; comparable between processes of one node.
[[nodiscard]] std::int64_t steady_now_ns();

/// State letter and start time of a process from /proc; state 0 when it is gone.
struct ProcessState {
    char state = 0;
    std::uint64_t start_time = 0;
};
[[nodiscard]] ProcessState process_state(int pid);

}  // namespace refit::harness
