// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/lost_rank_monitor.hpp"

#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>

namespace refit::harness {
namespace {

constexpr std::int64_t kTurn_ns = 30'000'000;
// A rank beats for a moment after its last step forward; the verdict on its silence comes first.
constexpr std::int64_t kBlameMargin_ns = 500'000'000;
constexpr int kEnvironmentFailed = 3;

sigset_t watched_signals() {
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGCONT);
    // Under nohup it is ignored, and would still be delivered if it were blocked.
    struct sigaction hangup {};
    if (sigaction(SIGHUP, nullptr, &hangup) == 0 && hangup.sa_handler != SIG_IGN) {
        sigaddset(&set, SIGHUP);
    }
    return set;
}

std::string seconds_text(std::int64_t ns) {
    const std::int64_t tenths = ns / 100'000'000;
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " s";
}

}  // namespace

void block_signals() {
    const sigset_t set = watched_signals();
    pthread_sigmask(SIG_BLOCK, &set, nullptr);
}

LostRankMonitor::LostRankMonitor(RankStatus& status, std::function<void(const Loss&)> write_record)
    : status_(status), write_record_(std::move(write_record)) {
    last_turn_ns_ = progress_ns_ = steady_now_ns();
    thread_ = std::thread([this] { watch(); });
}

LostRankMonitor::~LostRankMonitor() {
    stop_.store(true);
    thread_.join();
}

void LostRankMonitor::watch() {
    const sigset_t set = watched_signals();
    const timespec turn{0, kTurn_ns};
    while (!stop_.load()) {
        const int signal = sigtimedwait(&set, nullptr, &turn);
        if (stop_.load()) return;
        if (signal == SIGINT || signal == SIGTERM || signal == SIGHUP) {
            // mpirun sends SIGTERM after a rank was lost, and when it is itself interrupted: look
            // which it was.
            Loss loss;
            for (int look = 0; look < 5; ++look) {
                if (lost_local_rank(loss)) end(loss);
                usleep(20'000);
            }
            loss = {-1, stage_name(status_.stage()), "interrupted"};
            end(loss);
        }
        judge();
    }
}

bool LostRankMonitor::lost_local_rank(Loss& loss) const {
    StatusPage& page = status_.page();
    const int used = page.slots_used.load();
    for (int i = 0; i < used; ++i) {
        const RankSlot& slot = page.slots[i];
        const int pid = slot.pid.load();
        if (pid == 0 || pid == getpid() || slot.exiting.load() != 0) continue;
        const ProcessState state = process_state(pid);
        const bool gone = state.state == 0 || state.state == 'Z' || state.state == 'X' ||
                          state.start_time != slot.start_time.load();
        // The flag is set before a process leaves in order, so it is read again after the process
        // was seen gone.
        if (!gone || slot.exiting.load() != 0) continue;
        const auto stage = static_cast<Stage>(slot.stage.load());
        loss.rank = slot.rank.load();
        loss.stage = stage_name(stage);
        loss.message = "rank " + std::to_string(loss.rank) + " (process " + std::to_string(pid) +
                       ") ended in stage " + loss.stage;
        if (slot.bucket.load() >= 0)
            loss.message += ", bucket " + std::to_string(slot.bucket.load());
        loss.message +=
            "; it was killed or crashed: look for an out-of-memory kill in the system log";
        return true;
    }
    return false;
}

void LostRankMonitor::judge() {
    StatusPage& page = status_.page();
    const std::int64_t now = steady_now_ns();
    const std::int64_t timeout = timeout_ns_.load();
    // A monitor that did not run for a while was itself stopped; what it sees now is old and proves
    // nothing.
    if (now - last_turn_ns_ > 1'000'000'000) grace_until_ns_ = now + timeout;
    last_turn_ns_ = now;

    if (status_.given_up_by_other()) {
        Loss none;
        end(none);
    }
    Loss loss;
    if (lost_local_rank(loss)) end(loss);
    // No slots: between the cases of a process that plays all ranks.
    if (now < grace_until_ns_ || page.slots_used.load() == 0) {
        progress_ns_ = now;
        return;
    }

    std::uint64_t progress = 0;
    std::int64_t oldest = now;
    const RankSlot* blamed = nullptr;
    bool blamed_stopped = false;
    const int used = page.slots_used.load();
    for (int i = 0; i < used; ++i) {
        const RankSlot& slot = page.slots[i];
        if (slot.pid.load() == 0 || slot.exiting.load() != 0) continue;
        progress += slot.progress.load();
        const std::int64_t beat = slot.beat_ns.load();
        if (now - beat <= timeout) continue;
        // Of several silent ranks a stopped one is the cause; else the one that fell silent first.
        const bool stopped = process_state(slot.pid.load()).state == 'T';
        if (blamed == nullptr || (stopped && !blamed_stopped) ||
            (stopped == blamed_stopped && beat < oldest)) {
            blamed = &slot;
            blamed_stopped = stopped;
            oldest = beat;
        }
    }
    if (blamed != nullptr) {
        loss.rank = blamed->rank.load();
        loss.stage = stage_name(static_cast<Stage>(blamed->stage.load()));
        loss.message = "rank " + std::to_string(loss.rank) + " gave no sign of life for " +
                       seconds_text(now - oldest) + " in stage " + loss.stage;
        if (blamed->bucket.load() >= 0)
            loss.message += ", bucket " + std::to_string(blamed->bucket.load());
        loss.message += blamed_stopped
                            ? "; its process is stopped (SIGSTOP): continue it or run again"
                            : "; it may be stuck: raise timeout_s if the machine is only slow";
        end(loss);
    }
    if (progress != last_progress_) {
        last_progress_ = progress;
        progress_ns_ = now;
    } else if (now - progress_ns_ > timeout + kBlameMargin_ns) {
        loss = {-1, stage_name(status_.stage()),
                "no rank made progress for " + seconds_text(now - progress_ns_) +
                    " although all are alive; raise timeout_s if the link is that slow"};
        end(loss);
    }
}

void LostRankMonitor::end(const Loss& loss) {
    StatusPage& page = status_.page();
    if (status_.claim_loss()) {
        write_record_(loss);
        page.record_written.store(1);
    } else {
        // Another process writes; leaving before it is done would make mpirun kill it.
        for (int turn = 0; turn < 300 && page.record_written.load() == 0; ++turn) usleep(10'000);
        // The writer leaves first, so that the launcher's own message follows its words.
        usleep(50'000);
    }
    _exit(kEnvironmentFailed);
}

void LostRankMonitor::give_up(const Loss& loss) {
    end(loss);
}

void LostRankMonitor::wait_for_end() {
    for (;;) pause();
}

}  // namespace refit::harness
