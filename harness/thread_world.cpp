// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "harness/world.hpp"

namespace refit::harness {
namespace {

/// What the threads share: one rendezvous that exchanges one message a thread.
class Rendezvous {
 public:
    /// Every one of `count` callers gives a message and gets all of them, by `place`.
    std::vector<std::string> exchange(std::size_t count, std::size_t place, const std::string& mine,
                                      const std::function<void()>& waited) {
        std::unique_lock lock(mutex_);
        // The previous exchange must have been read by all before the next one may write.
        while (leaving_ != 0) wait(lock, waited);
        messages_.resize(count);
        messages_[place] = mine;
        const std::uint64_t generation = generation_;
        if (++arrived_ == count) {
            arrived_ = 0;
            leaving_ = count;
            ++generation_;
            changed_.notify_all();
        } else {
            while (generation_ == generation) wait(lock, waited);
        }
        std::vector<std::string> result = messages_;
        if (--leaving_ == 0) changed_.notify_all();
        return result;
    }

 private:
    void wait(std::unique_lock<std::mutex>& lock, const std::function<void()>& waited) {
        changed_.wait_for(lock, std::chrono::milliseconds(20));
        lock.unlock();
        waited();
        lock.lock();
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<std::string> messages_;
    std::size_t arrived_ = 0;
    std::size_t leaving_ = 0;
    std::uint64_t generation_ = 0;
};

struct Shared {
    Rendezvous all;
    Rendezvous trainers;
    std::vector<int> ranks;
};

class ThreadWorld final : public World {
 public:
    ThreadWorld(std::shared_ptr<Shared> shared, int rank, int size)
        : shared_(std::move(shared)), rank_(rank), size_(size) {}

    [[nodiscard]] int rank() const override { return rank_; }
    [[nodiscard]] int size() const override { return size_; }
    [[nodiscard]] bool is_mpi() const override { return false; }
    [[nodiscard]] int local_rank() const override { return rank_; }
    [[nodiscard]] int local_size() const override { return size_; }
    [[nodiscard]] const std::vector<int>& local_ranks() const override { return shared_->ranks; }

    void barrier() override { (void)allgather({}); }

    [[nodiscard]] std::vector<std::string> allgather(const std::string& mine) override {
        return shared_->all.exchange(static_cast<std::size_t>(size_),
                                     static_cast<std::size_t>(rank_), mine, [this] { waited(); });
    }

    [[nodiscard]] std::vector<std::string> gather(int root, const std::string& mine) override {
        std::vector<std::string> all = allgather(mine);
        if (rank_ != root) all.clear();
        return all;
    }

    [[nodiscard]] bool all_true(bool mine) override {
        for (const std::string& one : allgather(mine ? "1" : "0")) {
            if (one != "1") return false;
        }
        return true;
    }

    void max_over_trainers(int trainers, std::span<std::uint32_t> values) override {
        if (trainers <= 1) return;
        const std::string mine(reinterpret_cast<const char*>(values.data()), values.size_bytes());
        const auto all =
            shared_->trainers.exchange(static_cast<std::size_t>(trainers),
                                       static_cast<std::size_t>(rank_), mine, [this] { waited(); });
        for (const std::string& one : all) {
            for (std::size_t i = 0; i < values.size(); ++i) {
                std::uint32_t value = 0;
                one.copy(reinterpret_cast<char*>(&value), sizeof value, i * sizeof value);
                if (value > values[i]) values[i] = value;
            }
        }
    }

 private:
    std::shared_ptr<Shared> shared_;
    int rank_;
    int size_;
};

}  // namespace

std::vector<std::unique_ptr<World>> make_thread_worlds(int size) {
    auto shared = std::make_shared<Shared>();
    for (int r = 0; r < size; ++r) shared->ranks.push_back(r);
    std::vector<std::unique_ptr<World>> worlds;
    for (int r = 0; r < size; ++r) worlds.push_back(std::make_unique<ThreadWorld>(shared, r, size));
    return worlds;
}

}  // namespace refit::harness
