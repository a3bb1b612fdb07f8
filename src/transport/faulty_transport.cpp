// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/faulty_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "transport/cuda_ipc/cuda_driver.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

class FaultyTransport final : public Transport {
 public:
    FaultyTransport(std::unique_ptr<Transport> inner, Endpoint endpoint,
                    std::vector<TransportFault> faults)
        : inner_(std::move(inner)), endpoint_(std::move(endpoint)), faults_(std::move(faults)) {
        for (const TransportFault& fault : faults_) {
            if (fault.receiver < 0 || fault.receiver >= endpoint_.receivers) {
                throw core::UsageError(
                    fmt::format("a transport fault names receiver {}; there are receivers 0 .. {}",
                                fault.receiver, endpoint_.receivers - 1));
            }
            if (fault.trainer < -1 || fault.trainer >= endpoint_.trainers) {
                throw core::UsageError(
                    fmt::format("a transport fault names trainer {}; there are trainers 0 .. {}",
                                fault.trainer, endpoint_.trainers - 1));
            }
        }
    }

    ~FaultyTransport() override { free_device_copies(); }

    [[nodiscard]] std::string_view name() const override { return inner_->name(); }
    [[nodiscard]] int piece_device() const override { return inner_->piece_device(); }

    void open(const StreamPlan& plan) override {
        std::vector<TransportFault> aimed = faults_;
        for (TransportFault& fault : aimed) fault.trainer = find_trainer(fault, plan);
        inner_->open(plan);
        plan_ = plan;
        aimed_ = std::move(aimed);
        if (plan.on_device) device_ = std::make_unique<CudaDevice>(inner_->piece_device());
    }

    void begin_refit() override {
        before_.clear();
        inner_->begin_refit();
    }
    std::span<std::byte> acquire(std::size_t bucket) override { return inner_->acquire(bucket); }
    bool can_acquire(std::size_t bucket) override { return inner_->can_acquire(bucket); }
    void publish(std::size_t bucket) override { inner_->publish(bucket); }
    bool arrived(std::size_t bucket, int trainer) override {
        return inner_->arrived(bucket, trainer);
    }

    std::span<const std::byte> receive(std::size_t bucket, int trainer) override {
        const std::span<const std::byte> piece = inner_->receive(bucket, trainer);
        bool wanted_later = false;
        std::vector<TransportFault> now;
        for (const TransportFault& fault : aimed_) {
            if (fault.receiver != endpoint_.receiver() || fault.trainer != trainer) continue;
            if (fault.bucket == bucket) now.push_back(fault);
            if (fault.kind == TransportFault::Kind::reorder && fault.bucket == bucket + 1)
                wanted_later = true;
        }
        if (wanted_later) {
            before_[trainer].resize(piece.size());
            fetch(before_[trainer], piece);
        }
        if (now.empty()) return piece;
        // The slot may be the trainer's own memory, which other receivers see too.
        core::AlignedBuffer& copy = copies_[{bucket, trainer}] = core::AlignedBuffer(piece.size());
        fetch(copy.span(), piece);
        for (const TransportFault& fault : now) damage(fault, copy.span());
        return device_ != nullptr ? on_device(bucket, trainer, copy.span()) : copy.span();
    }

    void release(std::size_t bucket, int trainer) override {
        inner_->release(bucket, trainer);
        copies_.erase({bucket, trainer});
        const auto found = device_copies_.find({bucket, trainer});
        if (found == device_copies_.end()) return;
        device_->free(found->second);
        device_copies_.erase(found);
    }

    void progress() override { inner_->progress(); }
    void finish() override { inner_->finish(); }
    void close() override {
        inner_->close();
        copies_.clear();
        before_.clear();
        free_device_copies();
    }
    [[nodiscard]] std::uint64_t buffer_bytes() const override { return inner_->buffer_bytes(); }

 private:
    void free_device_copies() {
        for (const auto& [piece, memory] : device_copies_) device_->free(memory);
        device_copies_.clear();
    }
    /// The bytes of a piece, wherever they lie. Only pieces with a fault take this way.
    void fetch(std::span<std::byte> to, std::span<const std::byte> piece) {
        if (device_ == nullptr) {
            std::memcpy(to.data(), piece.data(), piece.size());
            return;
        }
        device_->download(to.data(), reinterpret_cast<CudaPointer>(piece.data()), piece.size());
        wait_for_device();
    }
    std::span<const std::byte> on_device(std::size_t bucket, int trainer,
                                         std::span<const std::byte> damaged) {
        const CudaPointer memory = device_->allocate(damaged.size());
        device_copies_[{bucket, trainer}] = memory;
        device_->upload(memory, damaged.data(), damaged.size());
        wait_for_device();
        return {reinterpret_cast<const std::byte*>(memory), damaged.size()};
    }
    void wait_for_device() {
        CudaMark mark(*device_);
        mark.record();
        Backoff backoff;
        while (!mark.reached()) {
            on_wait(endpoint_);
            backoff.pause();
        }
    }

    /// Trainer whose piece is damaged. A fault that can never fire would make a scenario pass for
    /// the wrong reason.
    static int find_trainer(const TransportFault& fault, const StreamPlan& plan) {
        if (fault.bucket >= plan.pieces.size()) {
            throw core::UsageError(fmt::format(
                "a transport fault names bucket {}; this refit has buckets 0 .. {}; use a smaller "
                "bucket_bytes or another bucket",
                fault.bucket, static_cast<std::int64_t>(plan.pieces.size()) - 1));
        }
        const auto& pieces = plan.pieces[fault.bucket];
        for (std::size_t t = 0; t < pieces.size(); ++t) {
            if (pieces[t] > 0 && (fault.trainer < 0 || fault.trainer == static_cast<int>(t)))
                return static_cast<int>(t);
        }
        throw core::UsageError(fmt::format(
            "a transport fault names bucket {}, in which trainer {} sends nothing", fault.bucket,
            fault.trainer < 0 ? std::string("(any)") : std::to_string(fault.trainer)));
    }

    void damage(const TransportFault& fault, std::span<std::byte> piece) const {
        switch (fault.kind) {
            case TransportFault::Kind::flip_byte: {
                const auto size = static_cast<std::int64_t>(piece.size());
                auto at = static_cast<std::int64_t>(fault.byte);
                if (at < 0) at += size;
                at = std::clamp<std::int64_t>(at, 0, size - 1);
                piece[static_cast<std::size_t>(at)] ^= std::byte{0x10};
                return;
            }
            case TransportFault::Kind::truncate:
                std::fill(piece.begin() + static_cast<std::ptrdiff_t>(piece.size() / 2),
                          piece.end(), std::byte{0});
                return;
            case TransportFault::Kind::reorder: {
                const auto before = before_.find(fault.trainer);
                if (fault.bucket > 0 && before != before_.end() &&
                    before->second.size() == piece.size()) {
                    std::copy(before->second.begin(), before->second.end(), piece.begin());
                } else {
                    std::rotate(piece.begin(), piece.begin() + 1, piece.end());
                }
                return;
            }
        }
    }

    std::unique_ptr<Transport> inner_;
    Endpoint endpoint_;
    std::vector<TransportFault> faults_;
    std::vector<TransportFault> aimed_;  ///< with the trainer filled in
    StreamPlan plan_;
    std::map<int, std::vector<std::byte>>
        before_;  ///< by trainer: the piece of the bucket before a reorder fault
    std::map<std::pair<std::size_t, int>, core::AlignedBuffer> copies_;
    std::unique_ptr<CudaDevice> device_;  ///< where pieces are memory of the device
    std::map<std::pair<std::size_t, int>, CudaPointer> device_copies_;
};

}  // namespace

std::unique_ptr<Transport> make_faulty_transport(std::unique_ptr<Transport> inner,
                                                 const Endpoint& endpoint,
                                                 std::vector<TransportFault> faults) {
    return std::make_unique<FaultyTransport>(std::move(inner), endpoint, std::move(faults));
}

}  // namespace refit::transport
