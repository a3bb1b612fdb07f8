// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/paced_transport.hpp"

#include <algorithm>
#include <chrono>
#include <deque>
#include <thread>
#include <utility>

#include "core/error.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

class PacedTransport final : public Transport {
 public:
    PacedTransport(std::unique_ptr<Transport> inner, Endpoint endpoint, const LinkPacer& pacer)
        : inner_(std::move(inner)), endpoint_(std::move(endpoint)), pacer_(pacer) {}

    [[nodiscard]] std::string_view name() const override { return inner_->name(); }
    [[nodiscard]] int piece_device() const override { return inner_->piece_device(); }

    void open(const StreamPlan& plan) override {
        inner_->open(plan);
        plan_ = plan;
        queue_.clear();
    }

    void begin_refit() override {
        if (!queue_.empty())
            throw core::ShapeError(
                "begin_refit() while pieces wait for the link; call finish() first");
        inner_->begin_refit();
    }

    std::span<std::byte> acquire(std::size_t bucket) override {
        // The wait is here and not in the inner transport: the slot may belong to a piece that
        // still waits for the link.
        while (!can_acquire(bucket)) nap();
        return inner_->acquire(bucket);
    }

    bool can_acquire(std::size_t bucket) override {
        release_due();
        return inner_->can_acquire(bucket);
    }

    void publish(std::size_t bucket) override {
        const std::uint64_t bytes =
            plan_.pieces.at(bucket).at(static_cast<std::size_t>(endpoint_.rank));
        const std::int64_t now = LinkPacer::now_ns();
        queue_.push_back({bucket, pacer_.reserve(bytes, now)});
        release_due();
    }

    bool arrived(std::size_t bucket, int trainer) override {
        return inner_->arrived(bucket, trainer);
    }
    std::span<const std::byte> receive(std::size_t bucket, int trainer) override {
        return inner_->receive(bucket, trainer);
    }
    void release(std::size_t bucket, int trainer) override { inner_->release(bucket, trainer); }

    void progress() override {
        release_due();
        inner_->progress();
    }

    void finish() override {
        for (;;) {
            release_due();
            if (queue_.empty()) break;
            nap();
        }
        inner_->finish();
    }

    void close() override {
        if (!queue_.empty())
            throw core::ShapeError("close() while pieces wait for the link; call finish() first");
        inner_->close();
    }

    [[nodiscard]] std::uint64_t buffer_bytes() const override { return inner_->buffer_bytes(); }

 private:
    struct Waiting {
        std::size_t bucket;
        std::int64_t due_ns;
    };

    /// Hands over, in order, what the link has carried.
    void release_due() {
        while (!queue_.empty() && queue_.front().due_ns <= LinkPacer::now_ns()) {
            const std::size_t bucket = queue_.front().bucket;
            queue_.pop_front();
            inner_->publish(bucket);
        }
    }

    void nap() {
        // Short, because the inner transport may have pieces under way that only move while it is
        // called.
        constexpr std::int64_t kLongestNapNs = 100'000;
        on_wait(endpoint_);
        inner_->progress();
        std::int64_t ns = kLongestNapNs;
        if (!queue_.empty()) ns = std::min(ns, queue_.front().due_ns - LinkPacer::now_ns());
        if (ns > 0) std::this_thread::sleep_for(std::chrono::nanoseconds(ns));
    }

    std::unique_ptr<Transport> inner_;
    Endpoint endpoint_;
    LinkPacer pacer_;
    StreamPlan plan_;
    std::deque<Waiting> queue_;
};

}  // namespace

std::unique_ptr<Transport> make_paced_transport(std::unique_ptr<Transport> inner,
                                                const Endpoint& endpoint, const LinkPacer& pacer) {
    return std::make_unique<PacedTransport>(std::move(inner), endpoint, pacer);
}

}  // namespace refit::transport
