// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/rank_status.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

#include "core/error.hpp"

namespace refit::harness {

const char* stage_name(Stage stage) {
    switch (stage) {
        case Stage::setup:
            return "setup";
        case Stage::handshake:
            return "handshake";
        case Stage::source:
            return "source";
        case Stage::gather:
            return "gather";
        case Stage::quantize:
            return "quantize";
        case Stage::staging:
            return "staging";
        case Stage::pack:
            return "pack";
        case Stage::broadcast:
            return "broadcast";
        case Stage::check:
            return "check";
        case Stage::load:
            return "load";
        case Stage::commit:
            return "commit";
        case Stage::audit:
            return "audit";
        case Stage::record:
            return "record";
    }
    return "setup";
}

std::int64_t steady_now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<std::int64_t>(now.tv_sec) * 1'000'000'000 + now.tv_nsec;
}

ProcessState process_state(int pid) {
    char path[64];
    std::snprintf(path, sizeof path, "/proc/%d/stat", pid);
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return {};
    char text[1024];
    const ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0) return {};
    text[got] = '\0';
    // The command name stands in parentheses and may itself hold some: the last one ends it.
    const char* after = std::strrchr(text, ')');
    if (after == nullptr || after[1] == '\0') return {};
    ProcessState state;
    state.state = after[2];
    const char* cursor = after + 2;
    // Field 3 is the state; field 22 is the start time.
    for (int field = 3; field < 22 && cursor != nullptr; ++field) {
        cursor = std::strchr(cursor, ' ');
        if (cursor != nullptr) ++cursor;
    }
    if (cursor != nullptr) state.start_time = std::strtoull(cursor, nullptr, 10);
    return state;
}

RankStatus::RankStatus(World& world) : rank_(world.rank()) {
    if (world.local_size() > kMaxLocalRanks) {
        throw core::ResourceError("a node may hold at most " + std::to_string(kMaxLocalRanks) +
                                  " ranks; this one has " + std::to_string(world.local_size()) +
                                  ": use more nodes");
    }
    // The lowest rank of each node makes the page and publishes its name; all map it, then the name
    // goes.
    std::string name;
    std::string problem;
    if (world.local_rank() == 0) {
        name = "/refitbench.status." + std::to_string(getpid()) + "." +
               std::to_string(process_state(getpid()).start_time);
        const int fd = shm_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600);
        // Reserved rather than only sized: a page that does not fit would otherwise end the run
        // with SIGBUS at its first use.
        const int code = fd < 0 ? errno : posix_fallocate(fd, 0, sizeof(StatusPage));
        if (code != 0) {
            if (fd >= 0) shm_unlink(name.c_str());
            problem =
                "cannot make the status page in /dev/shm: " + std::string(std::strerror(code)) +
                "; give the container more shared memory (--shm-size=1g)";
        }
        if (fd >= 0) close(fd);
    }
    const std::vector<std::string> names = world.allgather(problem.empty() ? name : "!" + problem);
    const std::string& own = names[static_cast<std::size_t>(world.local_ranks().front())];
    void* memory = MAP_FAILED;
    if (!own.starts_with('!')) {
        const int fd = shm_open(own.c_str(), O_RDWR, 0600);
        if (fd >= 0) {
            memory = mmap(nullptr, sizeof(StatusPage), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            close(fd);
        }
    }
    const bool all_mapped = world.all_true(memory != MAP_FAILED);
    if (world.local_rank() == 0 && problem.empty()) shm_unlink(name.c_str());
    if (!all_mapped) {
        if (memory != MAP_FAILED) munmap(memory, sizeof(StatusPage));
        throw core::ResourceError(own.starts_with('!') ? own.substr(1)
                                                       : "cannot map the status page in /dev/shm");
    }
    mapped_ = true;
    // A fresh shared segment is all zeros; only the claim starts at another value.
    page_ = static_cast<StatusPage*>(memory);
    if (world.local_rank() == 0) {
        page_->claim.store(-1);
        page_->slots_used.store(world.local_size());
    }
    fill_slot(world.local_rank());
    world.barrier();
}

RankStatus::RankStatus(World& world, StatusPage& page) : page_(&page), rank_(world.rank()) {
    if (world.size() > kMaxLocalRanks) {
        throw core::ResourceError("one process plays at most " + std::to_string(kMaxLocalRanks) +
                                  " ranks");
    }
    page_->slots_used.store(world.size());
    fill_slot(world.rank());
}

RankStatus::~RankStatus() {
    if (mapped_) munmap(page_, sizeof(StatusPage));
}

void RankStatus::fill_slot(int local_rank) {
    slot_ = &page_->slots[local_rank];
    slot_->pid.store(getpid());
    slot_->start_time.store(process_state(getpid()).start_time);
    slot_->beat_ns.store(steady_now_ns());
    slot_->rank.store(rank_);
}

void RankStatus::enter(Stage stage, std::int64_t bucket) {
    slot_->stage.store(static_cast<int>(stage), std::memory_order_relaxed);
    slot_->bucket.store(bucket, std::memory_order_relaxed);
    progressed();
    if (on_enter_) on_enter_(stage, bucket);
}

void RankStatus::beat() {
    slot_->beat_ns.store(steady_now_ns(), std::memory_order_relaxed);
}

void RankStatus::progressed() {
    slot_->progress.fetch_add(1, std::memory_order_relaxed);
    beat();
}

void RankStatus::leave() {
    slot_->exiting.store(1);
}

bool RankStatus::claim_loss() {
    int nobody = -1;
    return page_->claim.compare_exchange_strong(nobody, rank_);
}

bool RankStatus::claim_end() {
    int nobody = -1;
    return page_->claim.compare_exchange_strong(nobody, rank_ + kOrderlyClaim);
}

bool RankStatus::given_up_by_other() const {
    const int owner = page_->claim.load(std::memory_order_relaxed);
    return owner != -1 && owner < kOrderlyClaim && owner != rank_;
}

}  // namespace refit::harness
