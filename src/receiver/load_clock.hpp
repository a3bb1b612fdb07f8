// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which seconds of a piece went into loading and which into checking. Private to src/receiver.
#pragma once

#include <chrono>

#include "receiver/weight_loader.hpp"

namespace refit::receiver {

/// Every call gives the time since the one before it to one purpose, or to none.
class LoadClock {
 public:
    explicit LoadClock(LoadTimes& times) : times_(times) {}

    void loaded() { times_.load_s += since_mark_s(); }
    void checked() { times_.check_s += since_mark_s(); }
    /// Of what is not this loader's own work, such as a callback.
    void leave_out() { mark_ = Clock::now(); }

 private:
    using Clock = std::chrono::steady_clock;

    double since_mark_s() {
        const Clock::time_point before = mark_;
        mark_ = Clock::now();
        return std::chrono::duration<double>(mark_ - before).count();
    }

    LoadTimes& times_;
    Clock::time_point mark_ = Clock::now();
};

}  // namespace refit::receiver
