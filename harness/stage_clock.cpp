// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/stage_clock.hpp"

#include <time.h>

#include <algorithm>

namespace refit::harness {

double thread_cpu_s() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void StageClock::start() {
    times_ = {};
    cpu_waiting_s_ = 0.0;
    halted_ns_ = 0;
    cpu_start_s_ = thread_cpu_s();
    start_ns_ = steady_now_ns();
}

double StageClock::now_s() const {
    return 1e-9 * static_cast<double>(steady_now_ns() - start_ns_ - halted_ns_);
}

void StageClock::begin_bucket(std::int64_t index, std::int64_t bytes) {
    times_.buckets.push_back({index, bytes, {}});
}

void StageClock::bucket_span(Stage stage, double begin_s, double end_s) {
    auto [found, fresh] =
        times_.buckets.back().stage.try_emplace(stage_name(stage), begin_s, end_s);
    if (!fresh) {
        found->second.first = std::min(found->second.first, begin_s);
        found->second.second = std::max(found->second.second, end_s);
    }
}

void StageClock::pause() {
    pause_cpu_s_ = thread_cpu_s();
}
void StageClock::resume() {
    cpu_waiting_s_ += thread_cpu_s() - pause_cpu_s_;
}

void StageClock::halt() {
    halt_cpu_s_ = thread_cpu_s();
    halt_ns_ = steady_now_ns();
}

double StageClock::restart() {
    const std::int64_t halted = steady_now_ns() - halt_ns_;
    halted_ns_ += halted;
    cpu_waiting_s_ += thread_cpu_s() - halt_cpu_s_;
    return 1e-9 * static_cast<double>(halted);
}

RefitTimes StageClock::finish() {
    times_.wall_s = now_s();
    times_.cpu_s = thread_cpu_s() - cpu_start_s_ - cpu_waiting_s_;
    return std::move(times_);
}

}  // namespace refit::harness
