// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/wait.hpp"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

namespace refit::transport {

static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

void Backoff::pause() {
    constexpr unsigned kTurnsPerSleep = 128;
    constexpr useconds_t kSleepMicroseconds = 50;
    if (++turns_ % kTurnsPerSleep == 0) {
        (void)usleep(kSleepMicroseconds);
    } else {
        (void)sched_yield();
    }
}

// No FUTEX_PRIVATE_FLAG: the words of mpi_window lie in memory of several processes.
void futex_wait(std::atomic<std::uint32_t>& word, std::uint32_t seen,
                std::chrono::milliseconds longest) {
    timespec time{};
    time.tv_sec = static_cast<time_t>(longest.count() / 1000);
    time.tv_nsec = static_cast<long>(longest.count() % 1000) * 1000000L;
    // Every result means "look again": woken, changed before we slept, a signal, or the time is
    // over.
    (void)syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAIT, seen, &time,
                  nullptr, 0);
}

void futex_wake(std::atomic<std::uint32_t>& word) {
    (void)syscall(SYS_futex, reinterpret_cast<std::uint32_t*>(&word), FUTEX_WAKE, INT_MAX, nullptr,
                  nullptr, 0);
}

}  // namespace refit::transport
