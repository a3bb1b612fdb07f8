// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/cuda_ipc/cuda_ipc_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <new>
#include <utility>

#include "core/error.hpp"
#include "transport/cuda_ipc/cuda_driver.hpp"
#include "transport/hex.hpp"
#include "transport/mpi/mpi_support.hpp"
#include "transport/mpi_window/shared_segment.hpp"
#include "transport/ring_transport.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

/// The counters are those of a ring in shared memory: pieces announced, pieces released by each
/// receiver. The slots of a ring are here the rank's own locked host memory, and the device memory
/// of the trainer lies between the two sides. A slot is written again when every receiver has
/// released the piece in it, so a mapping never shows a half-new piece. With pieces on the device
/// the slots are that memory itself, and nothing is copied: a piece is announced when it is
/// published.
class CudaIpcTransport final : public RingTransport {
 public:
    CudaIpcTransport(const Endpoint& endpoint, std::string run_id)
        : RingTransport(endpoint), world_(endpoint), run_id_(std::move(run_id)) {
        if (endpoint.receivers > kLargestRingReceivers) {
            throw core::NotViable(
                fmt::format("transport cuda_ipc takes at most {} receivers, found {}",
                            kLargestRingReceivers, endpoint.receivers));
        }
        std::vector<std::string> hosts;
        const int number =
            choose_device(world_, endpoint, CudaDriver::instance().device_count(), hosts);
        for (std::size_t r = 1; r < hosts.size(); ++r) {
            if (hosts[r] != hosts[0]) {
                throw core::NotViable(fmt::format(
                    "transport cuda_ipc needs all ranks on one machine, but rank {} is not where "
                    "rank 0 is; use transport nccl or mpi",
                    r));
            }
        }
        // Where one rank's device does not work, the others must not wait for it later.
        attempt([&] { device_ = std::make_unique<CudaDevice>(number); });
    }

    ~CudaIpcTransport() override {
        unmap();
        // Device memory that a receiver may still have mapped is left to the end of the process.
    }

    [[nodiscard]] std::string_view name() const override { return "cuda_ipc"; }
    [[nodiscard]] int piece_device() const override { return device_->number(); }

    void open(const StreamPlan& plan) override {
        book().open(plan, endpoint());
        try {
            world_.require_same_plan(plan, endpoint());
            attach(map_rings(plan));
        } catch (...) {
            unmap();
            book().close();
            throw;
        }
        buffer_bytes_ = own_buffer_bytes(plan);
    }

    void begin_refit() override {
        RingTransport::begin_refit();
        std::fill(fetched_.begin(), fetched_.end(), 0u);
    }

    bool can_acquire(std::size_t bucket) override {
        announce_uploaded();
        return RingTransport::can_acquire(bucket);
    }

    std::span<std::byte> acquire(std::size_t bucket) override {
        wait_until([&] { return can_acquire(bucket); });
        return RingTransport::acquire(bucket);
    }

    void publish(std::size_t bucket) override {
        const int me = endpoint().rank;
        const std::uint32_t n = book().publish(bucket);
        if (book().plan().on_device) {
            announce(n);
            return;
        }
        device_->upload(device_slot(me, n), slot(me, n), book().bytes(bucket, me));
        mark(me, n).record();
        uploading_.push_back(n);
        announce_uploaded();
    }

    bool arrived(std::size_t bucket, int trainer) override {
        const std::uint32_t n = book().number(bucket, trainer);
        if (book().plan().on_device) return is_announced(trainer, n);
        fetch_announced(trainer);
        return n < fetched_[static_cast<std::size_t>(trainer)] && mark(trainer, n).reached();
    }

    std::span<const std::byte> receive(std::size_t bucket, int trainer) override {
        (void)book().peek_receive(bucket, trainer);
        wait_until([&] { return arrived(bucket, trainer); });
        return RingTransport::receive(bucket, trainer);
    }

    void progress() override {
        if (!book().is_open()) return;
        if (endpoint().is_trainer()) {
            announce_uploaded();
        } else {
            for (int t = 0; t < endpoint().trainers; ++t) fetch_announced(t);
        }
    }

    void finish() override {
        book().check_finished();
        if (endpoint().is_trainer()) {
            wait_until([&] {
                announce_uploaded();
                return uploading_.empty();
            });
        }
        RingTransport::finish();
    }

    void close() override {
        unmap();
        // A mapping of memory that its owner has freed is undefined: everybody unmaps first.
        (void)world_.all_gather(0, endpoint());
        free_own();
        marks_.clear();
        fetched_.clear();
        buffer_bytes_ = 0;
        RingTransport::close();
    }

    [[nodiscard]] std::uint64_t buffer_bytes() const override { return buffer_bytes_; }

 private:
    template <class Condition>
    void wait_until(const Condition& condition) {
        Backoff backoff;
        while (!condition()) {
            on_wait(endpoint());
            backoff.pause();
        }
    }

    [[nodiscard]] CudaMark& mark(int trainer, std::uint32_t number) {
        const auto depth = static_cast<std::size_t>(book().plan().depth);
        return *marks_[static_cast<std::size_t>(trainer) * depth + number % depth];
    }
    [[nodiscard]] CudaPointer device_slot(int trainer, std::uint32_t number) {
        const auto depth = static_cast<std::uint32_t>(book().plan().depth);
        return device_slots_[static_cast<std::size_t>(trainer)] +
               number % depth * ring_slot_bytes(book().plan(), trainer);
    }

    /// Trainer: tells the receivers of pieces whose copy to the device is done, in order.
    void announce_uploaded() {
        while (!uploading_.empty() && mark(endpoint().rank, uploading_.front()).reached()) {
            announce(uploading_.front());
            uploading_.pop_front();
        }
    }

    /// Receiver: starts the copy of every announced piece whose slot here is free, in order.
    void fetch_announced(int trainer) {
        if (book().plan().on_device) return;
        std::uint32_t& next = fetched_[static_cast<std::size_t>(trainer)];
        const auto depth = static_cast<std::uint32_t>(book().plan().depth);
        while (next < book().count(trainer) && next < book().released(trainer) + depth &&
               is_announced(trainer, next)) {
            device_->download(slot(trainer, next), device_slot(trainer, next),
                              book().bytes(book().bucket(trainer, next), trainer));
            mark(trainer, next).record();
            ++next;
        }
    }

    [[nodiscard]] std::uint64_t slots_bytes(const StreamPlan& plan, int trainer) const {
        return slot_count(plan, trainer) * ring_slot_bytes(plan, trainer);
    }
    [[nodiscard]] std::uint64_t own_buffer_bytes(const StreamPlan& plan) const {
        const Endpoint& me = endpoint();
        if (plan.on_device) return me.is_trainer() ? slots_bytes(plan, me.rank) : 0;
        if (me.is_trainer()) return 2 * slots_bytes(plan, me.rank);  // host and device
        std::uint64_t bytes = 0;
        for (int t = 0; t < me.trainers; ++t) bytes += slots_bytes(plan, t);
        return bytes;
    }

    /// Collective: what a rank cannot do, all hear of.
    template <class Step>
    void attempt(const Step& step) {
        std::string error;
        try {
            step();
        } catch (const core::Error& e) {
            error = e.what();
        }
        world_.agree(error, endpoint());
    }

    std::vector<Ring> map_rings(const StreamPlan& plan) {
        const Endpoint& me = endpoint();
        const auto trainers = static_cast<std::size_t>(me.trainers);
        std::vector<std::shared_ptr<SharedSegment>> counters(trainers);
        std::vector<Ring> rings(trainers);
        device_slots_.assign(trainers, 0);
        fetched_.assign(trainers, 0);
        uploading_.clear();
        std::string own;
        attempt([&] {
            make_marks(plan);
            for (int t = 0; t < me.trainers; ++t) {
                if (me.is_trainer() && me.rank != t) continue;
                const auto i = static_cast<std::size_t>(t);
                const std::uint64_t bytes = slots_bytes(plan, t);
                if (bytes == 0 || plan.on_device) continue;
                auto host = device_->allocate_pinned(bytes);
                rings[i].slots = host.get();
                rings[i].slot_bytes = ring_slot_bytes(plan, t);
                rings[i].owner = host;
            }
            if (me.is_trainer() && slots_bytes(plan, me.rank) > 0) own = offer(plan, counters);
        });
        const std::vector<std::string> offers = world_.all_gather(own, me);
        attempt([&] {
            for (int t = 0; t < me.trainers && !me.is_trainer(); ++t) {
                if (!offers[static_cast<std::size_t>(t)].empty())
                    take(offers[static_cast<std::size_t>(t)], t, counters);
            }
        });
        for (std::size_t t = 0; t < trainers; ++t) {
            if (!counters[t]) continue;
            counters[t]->unlink();
            if (plan.on_device) {
                rings[t].slots = reinterpret_cast<std::byte*>(device_slots_[t]);
                rings[t].slot_bytes = ring_slot_bytes(plan, static_cast<int>(t));
            }
            rings[t].counters = reinterpret_cast<RingCounter*>(counters[t]->data());
            rings[t].owner =
                std::make_shared<std::pair<std::shared_ptr<void>, std::shared_ptr<SharedSegment>>>(
                    std::move(rings[t].owner), counters[t]);
        }
        return rings;
    }

    /// Trainer: device slots and counters; what the receivers need to map both: "NAME HANDLE".
    std::string offer(const StreamPlan& plan,
                      std::vector<std::shared_ptr<SharedSegment>>& counters) {
        const auto me = static_cast<std::size_t>(endpoint().rank);
        own_memory_ = device_->allocate(slots_bytes(plan, endpoint().rank));
        device_slots_[me] = own_memory_;
        const CudaIpcHandle handle = device_->handle_of(own_memory_);
        const std::string name =
            segment_name(run_id_, fmt::format("ipc{}.{}", endpoint().rank, opened_++));
        std::shared_ptr<SharedSegment> segment = SharedSegment::create(name, kRingControlBytes);
        auto* first = reinterpret_cast<RingCounter*>(segment->data());
        for (std::size_t i = 0; i < kRingControlBytes / sizeof(RingCounter); ++i)
            new (first + i) RingCounter;
        counters[me] = std::move(segment);
        return name + " " + to_hex(&handle, sizeof handle);
    }

    /// Receiver: maps what a trainer offers, once for all refits until close().
    void take(const std::string& offered, int trainer,
              std::vector<std::shared_ptr<SharedSegment>>& counters) {
        const auto i = static_cast<std::size_t>(trainer);
        const std::size_t blank = offered.find(' ');
        CudaIpcHandle handle{};
        from_hex(offered.substr(blank + 1), &handle, sizeof handle);
        counters[i] =
            SharedSegment::map(offered.substr(0, blank), kRingControlBytes, kRingControlBytes);
        try {
            device_slots_[i] = device_->open(handle);
        } catch (const core::ResourceError& error) {
            throw core::ResourceError(fmt::format(
                "mapping the device memory of trainer {} on device {} ({}): {}; in containers both "
                "ranks need one pid and ipc namespace, and devices must reach each other "
                "(nvidia-smi topo -p2p r); else use transport nccl or mpi",
                trainer, device_->number(), device_->name(), error.what()));
        }
        mapped_.push_back(device_slots_[i]);
    }

    void make_marks(const StreamPlan& plan) {
        marks_.clear();
        const auto count =
            static_cast<std::size_t>(endpoint().trainers) * static_cast<std::size_t>(plan.depth);
        for (std::size_t i = 0; i < count; ++i)
            marks_.push_back(std::make_unique<CudaMark>(*device_));
    }

    void unmap() {
        for (const CudaPointer pointer : mapped_) device_->close(pointer);
        mapped_.clear();
    }
    void free_own() {
        if (own_memory_ != 0) device_->free(own_memory_);
        own_memory_ = 0;
    }

    WorldComm world_;
    std::string run_id_;
    std::unique_ptr<CudaDevice> device_;
    std::vector<std::unique_ptr<CudaMark>> marks_;  ///< by trainer and slot
    std::vector<CudaPointer> device_slots_;         ///< by trainer: own or mapped
    std::vector<CudaPointer> mapped_;
    CudaPointer own_memory_ = 0;
    std::deque<std::uint32_t> uploading_;
    std::vector<std::uint32_t> fetched_;  ///< receiver: pieces whose copy has begun, by trainer
    std::uint64_t buffer_bytes_ = 0;
    int opened_ = 0;
};

}  // namespace

std::unique_ptr<Transport> make_cuda_ipc_transport(const Endpoint& endpoint,
                                                   const std::string& run_id) {
    require_viable_everywhere("cuda_ipc", CudaDriver::viability(), endpoint);
    return std::make_unique<CudaIpcTransport>(endpoint, run_id);
}

}  // namespace refit::transport
