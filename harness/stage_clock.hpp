// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Times of one rank in one refit, by stage.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "harness/rank_status.hpp"

namespace refit::harness {

/// Start and end of the stages of one bucket on this rank, seconds since the refit's start.
struct BucketTimes {
    std::int64_t index = 0;
    std::int64_t bytes = 0;
    std::map<std::string, std::pair<double, double>> stage;
};

/// What one rank measured in one refit. A stage in which a rank has no part is absent.
struct RefitTimes {
    std::map<std::string, double> stage_s;
    double wall_s = 0.0;
    double cpu_s = 0.0;  ///< of the rank's main thread, waits excluded
    std::vector<BucketTimes> buckets;
};

/// CPU seconds of the calling thread.
[[nodiscard]] double thread_cpu_s();

/// Collects a rank's times. Stages may interleave; the sum counts.
class StageClock {
 public:
    void start();
    [[nodiscard]] double now_s() const;
    void add(Stage stage, double seconds) { times_.stage_s[stage_name(stage)] += seconds; }
    void begin_bucket(std::int64_t index, std::int64_t bytes);
    /// Start and end of a stage of the bucket at hand; a second span of the same stage widens the
    /// first.
    void bucket_span(Stage stage, double begin_s, double end_s);
    /// The thread waits: its CPU time does not count until resume().
    void pause();
    void resume();
    /// The refit stands still: neither wall nor CPU time counts until restart(), which returns the
    /// seconds between the two.
    void halt();
    double restart();
    [[nodiscard]] RefitTimes finish();

 private:
    std::int64_t start_ns_ = 0;
    std::int64_t halt_ns_ = 0;
    std::int64_t halted_ns_ = 0;  ///< sum over all halts
    double halt_cpu_s_ = 0.0;
    double cpu_start_s_ = 0.0;
    double cpu_waiting_s_ = 0.0;
    double pause_cpu_s_ = 0.0;
    RefitTimes times_;
};

}  // namespace refit::harness
