// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A transport for the tests of decorators: keeps the calls, gives and takes plain memory.
#pragma once

#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace refit::transport {

class FakeTransport final : public Transport {
 public:
    explicit FakeTransport(std::vector<std::string>* calls) : calls_(calls) {}
    [[nodiscard]] std::string_view name() const override { return "fake"; }
    void open(const StreamPlan& plan) override { plan_ = plan; }
    void begin_refit() override { calls_->push_back("begin"); }
    std::span<std::byte> acquire(std::size_t b) override {
        calls_->push_back("acquire " + std::to_string(b));
        memory_.assign(plan_.pieces[b][0], std::byte{0});
        return memory_;
    }
    bool can_acquire(std::size_t b) override {
        return b < published_ + static_cast<std::size_t>(plan_.depth);
    }
    void publish(std::size_t b) override {
        calls_->push_back("publish " + std::to_string(b));
        ++published_;
    }
    bool arrived(std::size_t, int) override { return true; }
    std::span<const std::byte> receive(std::size_t b, int t) override {
        memory_.resize(plan_.pieces[b][static_cast<std::size_t>(t)]);
        for (std::size_t i = 0; i < memory_.size(); ++i)
            memory_[i] = static_cast<std::byte>(16 * b + i);
        return memory_;
    }
    void release(std::size_t, int) override {}
    void progress() override {}
    void finish() override { calls_->push_back("finish"); }
    void close() override {}
    [[nodiscard]] std::uint64_t buffer_bytes() const override { return memory_.size(); }

 private:
    std::vector<std::string>* calls_;
    StreamPlan plan_;
    std::size_t published_ = 0;
    std::vector<std::byte> memory_;
};

}  // namespace refit::transport
