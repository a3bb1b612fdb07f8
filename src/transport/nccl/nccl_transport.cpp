// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/nccl/nccl_transport.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "transport/cuda_ipc/cuda_driver.hpp"
#include "transport/hex.hpp"
#include "transport/mpi/mpi_support.hpp"
#include "transport/nccl/nccl_group.hpp"
#include "transport/piece_book.hpp"
#include "transport/transport_catalog.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

/// Bytes of the broadcast in open() that makes NCCL connect its channels, which it otherwise does
/// in the first timed refit.
constexpr std::uint64_t kWarmUpBytes = std::uint64_t{1} << 20;

void* as_memory(CudaPointer pointer) {
    return reinterpret_cast<void*>(static_cast<std::uintptr_t>(pointer));
}

/// Receivers enqueue all pieces in one order, bucket by bucket and trainer by trainer within it, on
/// one stream. Two communicators on one device whose kernels are launched in different orders on
/// different ranks can wait for each other for ever; launch order across communicators is the
/// user's duty.
class NcclTransport final : public Transport {
 public:
    explicit NcclTransport(const Endpoint& endpoint)
        : endpoint_(endpoint),
          world_(endpoint),
          groups_(static_cast<std::size_t>(endpoint.trainers)) {
        std::vector<std::string> hosts;
        const int number =
            choose_device(world_, endpoint, CudaDriver::instance().device_count(), hosts);
        // Where one rank's device does not work, the others must not wait for it later.
        attempt([&] { device_ = std::make_unique<CudaDevice>(number); });
        require_same_version();
        join();
    }

    ~NcclTransport() override {
        // Buffers outlive what NCCL may still do with them: the groups end first.
        if (!pending_.empty()) give_up();
        deregister();
        for (auto& one : groups_) {
            // A peer that did not end here has left; the other groups need not wait for it too.
            if (one && !one->end()) give_up();
        }
        free_memory();
    }

    [[nodiscard]] std::string_view name() const override { return "nccl"; }
    [[nodiscard]] int piece_device() const override { return device_->number(); }

    void open(const StreamPlan& plan) override {
        book_.open(plan, endpoint_);
        try {
            world_.require_same_plan(plan, endpoint_);
            attempt([&] { allocate(plan); });
            register_memory();
            attempt([&] { warm_up(); });
        } catch (...) {
            deregister();
            free_memory();
            book_.close();
            throw;
        }
    }

    void begin_refit() override {
        book_.begin_refit();
        next_ = 0;
        std::fill(posted_.begin(), posted_.end(), 0u);
        if (!endpoint_.is_trainer()) post_free_slots();
    }

    bool can_acquire(std::size_t bucket) override {
        const std::uint32_t n = book_.peek_acquire(bucket);
        const auto depth = static_cast<std::uint32_t>(book_.plan().depth);
        if (n < depth) return true;
        // A piece whose broadcast NCCL has not taken yet has no mark that could be asked.
        if (publishing_ || book_.published() + depth <= n) return false;
        look();
        return lane(endpoint_.rank).done[n % depth]->reached();
    }

    std::span<std::byte> acquire(std::size_t bucket) override {
        wait_until([&] { return can_acquire(bucket); });
        const std::uint32_t n = book_.acquire(bucket);
        return {lane(endpoint_.rank).slot(n), book_.bytes(bucket, endpoint_.rank)};
    }

    void publish(std::size_t bucket) override {
        unsent_.push_back(book_.publish(bucket));
        // on_wait may publish the next piece while NCCL still takes this one.
        if (publishing_) return;
        publishing_ = true;
        while (!unsent_.empty()) {
            send(unsent_.front());
            unsent_.pop_front();
        }
        publishing_ = false;
    }

    bool arrived(std::size_t bucket, int trainer) override {
        const std::uint32_t n = book_.number(bucket, trainer);
        if (!here(trainer, n)) look();
        return here(trainer, n);
    }

    std::span<const std::byte> receive(std::size_t bucket, int trainer) override {
        const std::uint32_t n = book_.peek_receive(bucket, trainer);
        wait_until([&] { return arrived(bucket, trainer); });
        (void)book_.receive(bucket, trainer);
        return {lane(trainer).slot(n), book_.bytes(bucket, trainer)};
    }

    void release(std::size_t bucket, int trainer) override {
        (void)book_.release(bucket, trainer);
        post_free_slots();
    }

    void progress() override { look(); }

    void finish() override {
        book_.check_finished();
        wait_until([&] {
            look();
            return pending_.empty();
        });
    }

    void close() override {
        if (!pending_.empty())
            throw core::ShapeError("close() while pieces are under way; call finish() first");
        deregister();
        free_memory();
        order_.clear();
        book_.close();
    }

    [[nodiscard]] std::uint64_t buffer_bytes() const override { return buffer_bytes_; }

 private:
    /// A trainer's slots as this rank has them, in host and in device memory.
    struct Lane {
        std::shared_ptr<std::byte> host;
        CudaPointer device = 0;
        std::uint64_t slot_bytes = 0;
        std::uint64_t bytes = 0;
        void* registration = nullptr;
        std::vector<std::unique_ptr<CudaMark>> done;  ///< by slot

        [[nodiscard]] std::byte* host_slot(std::uint32_t n) const {
            return host.get() + n % done.size() * slot_bytes;
        }
        [[nodiscard]] CudaPointer device_slot(std::uint32_t n) const {
            return device + n % done.size() * slot_bytes;
        }
        /// What the callers see: host memory where there is any, else that of the device.
        [[nodiscard]] std::byte* slot(std::uint32_t n) const {
            return host != nullptr ? host_slot(n)
                                   : static_cast<std::byte*>(as_memory(device_slot(n)));
        }
        [[nodiscard]] CudaMark& mark(std::uint32_t n) const { return *done[n % done.size()]; }
    };
    struct Piece {
        int trainer;
        std::uint32_t number;
    };

    [[nodiscard]] Lane& lane(int trainer) { return lanes_[static_cast<std::size_t>(trainer)]; }
    [[nodiscard]] NcclGroup& group(int trainer) {
        return *groups_[static_cast<std::size_t>(trainer)];
    }
    [[nodiscard]] bool is_member(int trainer) const {
        return !endpoint_.is_trainer() || endpoint_.rank == trainer;
    }
    [[nodiscard]] bool here(int trainer, std::uint32_t n) {
        return n < posted_[static_cast<std::size_t>(trainer)] && lane(trainer).mark(n).reached();
    }

    template <class Condition>
    void wait_until(const Condition& condition) {
        Backoff backoff;
        try {
            while (!condition()) {
                on_wait(endpoint_);
                backoff.pause();
            }
        } catch (...) {
            give_up();
            throw;
        }
    }

    /// Communicators end by an abort from here on: an orderly end would wait for lost peers.
    void give_up() {
        for (auto& one : groups_) {
            if (one) one->give_up();
        }
    }

    /// Trainer: to the device and from there to everybody.
    void send(std::uint32_t n) {
        const int me = endpoint_.rank;
        const std::uint64_t bytes = book_.bytes(book_.bucket(me, n), me);
        const Lane& own = lane(me);
        device_->make_current();
        if (own.host != nullptr) device_->upload(own.device_slot(n), own.host_slot(n), bytes);
        group(me).broadcast(as_memory(own.device_slot(n)), bytes, device_->stream(), endpoint_);
        own.mark(n).record();
        pending_.push_back({me, n});
    }

    /// Collective: what a rank cannot do, all hear of; ranks on one device make it NotViable.
    template <class Step>
    void attempt(const Step& step) {
        std::string error;
        try {
            step();
        } catch (const core::Error& e) {
            error = e.what();
        }
        const std::vector<std::string> errors = world_.all_gather(error, endpoint_);
        for (std::size_t r = 0; r < errors.size(); ++r) {
            if (errors[r].empty()) continue;
            give_up();
            if (says_duplicate_gpu(errors[r])) {
                throw core::NotViable(
                    fmt::format("transport nccl: rank {}: {}: {}", r, errors[r],
                                duplicate_gpu_remedy(NcclLibrary::instance().version())));
            }
            throw core::ResourceError(fmt::format("rank {}: {}", r, errors[r]));
        }
    }

    void require_same_version() {
        const auto versions = world_.all_gather(
            static_cast<std::int64_t>(NcclLibrary::instance().version()), endpoint_);
        for (std::size_t r = 1; r < versions.size(); ++r) {
            if (versions[r] == versions[0]) continue;
            throw core::NotViable(fmt::format(
                "transport nccl: rank 0 has NCCL {}, rank {} has {}; name the same library in "
                "REFIT_NCCL_LIBRARY everywhere",
                nccl_version_text(static_cast<int>(versions[0])), r,
                nccl_version_text(static_cast<int>(versions[r]))));
        }
    }

    /// Collective: one communicator a trainer, joined in the order of trainers by everybody.
    void join() {
        device_->make_current();
        std::string own;
        attempt([&] {
            if (!endpoint_.is_trainer()) return;
            NcclUniqueId id{};
            const int code = NcclLibrary::instance().calls().get_unique_id(&id);
            if (code != kNcclSuccess) {
                throw core::ResourceError(
                    fmt::format("ncclGetUniqueId failed: {}",
                                NcclLibrary::instance().calls().error_string(code)));
            }
            own = to_hex(&id, sizeof id);
        });
        const std::vector<std::string> ids = world_.all_gather(own, endpoint_);
        for (int t = 0; t < endpoint_.trainers; ++t) {
            attempt([&] {
                if (!is_member(t)) return;
                NcclUniqueId id{};
                from_hex(ids[static_cast<std::size_t>(t)], &id, sizeof id);
                const int member = endpoint_.is_trainer() ? 0 : 1 + endpoint_.receiver();
                groups_[static_cast<std::size_t>(t)] =
                    std::make_unique<NcclGroup>(member, 1 + endpoint_.receivers, id);
                group(t).finish_init(endpoint_);
            });
        }
    }

    void allocate(const StreamPlan& plan) {
        lanes_.clear();
        lanes_.resize(static_cast<std::size_t>(endpoint_.trainers));
        posted_.assign(static_cast<std::size_t>(endpoint_.trainers), 0);
        order_.clear();
        for (std::size_t b = 0; b < plan.pieces.size(); ++b) {
            for (int t = 0; t < endpoint_.trainers; ++t) {
                if (plan.pieces[b][static_cast<std::size_t>(t)] > 0)
                    order_.push_back({t, book_.number(b, t)});
            }
        }
        for (int t = 0; t < endpoint_.trainers; ++t) {
            if (!is_member(t)) continue;
            Lane& own = lane(t);
            for (int i = 0; i < plan.depth; ++i)
                own.done.push_back(std::make_unique<CudaMark>(*device_));
            own.slot_bytes = (largest_piece(plan, t) + 4095) / 4096 * 4096;
            own.bytes = own.slot_bytes * slot_count(plan, t);
            if (own.bytes == 0) continue;
            if (!plan.on_device) own.host = device_->allocate_pinned(own.bytes);
            own.device = device_->allocate(own.bytes);
            buffer_bytes_ += (plan.on_device ? 1 : 2) * own.bytes;
        }
    }

    /// Collective: registered by all members of a trainer's group, or by none.
    void register_memory() {
        for (int t = 0; t < endpoint_.trainers; ++t) {
            void* handle = nullptr;
            const bool wanted = is_member(t) && lane(t).bytes > 0;
            if (wanted) {
                device_->make_current();
                handle = group(t).register_memory(as_memory(lane(t).device), lane(t).bytes);
            }
            const auto have =
                world_.all_gather(std::int64_t{!wanted || handle != nullptr ? 1 : 0}, endpoint_);
            const bool all = std::find(have.begin(), have.end(), 0) == have.end();
            if (handle != nullptr && !all) {
                group(t).deregister(handle);
                handle = nullptr;
            }
            if (wanted) lane(t).registration = handle;
        }
    }

    void warm_up() {
        for (int t = 0; t < endpoint_.trainers; ++t) {
            if (!is_member(t) || lane(t).bytes == 0) continue;
            device_->make_current();
            group(t).broadcast(as_memory(lane(t).device),
                               std::min(kWarmUpBytes, lane(t).slot_bytes), device_->stream(),
                               endpoint_);
            lane(t).mark(0).record();
            pending_.push_back({t, 0});
        }
        wait_until([&] {
            look();
            return pending_.empty();
        });
    }

    /// Receiver: enqueues the next pieces of the common order as far as slots are free.
    void post_free_slots() {
        const auto depth = static_cast<std::uint32_t>(book_.plan().depth);
        while (next_ < order_.size()) {
            const Piece piece = order_[next_];
            if (piece.number >= book_.released(piece.trainer) + depth) return;
            ++next_;
            Lane& from = lane(piece.trainer);
            const std::uint64_t bytes =
                book_.bytes(book_.bucket(piece.trainer, piece.number), piece.trainer);
            device_->make_current();
            group(piece.trainer)
                .broadcast(as_memory(from.device_slot(piece.number)), bytes, device_->stream(),
                           endpoint_);
            if (from.host != nullptr) {
                device_->download(from.host_slot(piece.number), from.device_slot(piece.number),
                                  bytes);
            }
            from.mark(piece.number).record();
            pending_.push_back(piece);
            posted_[static_cast<std::size_t>(piece.trainer)] = piece.number + 1;
        }
    }

    /// One look at NCCL and at what is under way.
    void look() {
        for (auto& one : groups_) {
            if (one) one->poll();
        }
        while (!pending_.empty() &&
               lane(pending_.front().trainer).mark(pending_.front().number).reached()) {
            pending_.pop_front();
        }
    }

    void deregister() noexcept {
        for (std::size_t t = 0; t < lanes_.size(); ++t) {
            if (groups_.size() > t && groups_[t]) groups_[t]->deregister(lanes_[t].registration);
            lanes_[t].registration = nullptr;
        }
    }

    void free_memory() noexcept {
        for (Lane& own : lanes_) {
            if (own.device != 0) device_->free(own.device);
        }
        lanes_.clear();
        posted_.clear();
        buffer_bytes_ = 0;
    }

    Endpoint endpoint_;
    WorldComm world_;
    std::unique_ptr<CudaDevice> device_;
    std::vector<std::unique_ptr<NcclGroup>> groups_;  ///< by trainer; null where not a member
    PieceBook book_;
    std::vector<Lane> lanes_;           ///< by trainer
    std::vector<Piece> order_;          ///< all pieces of a refit in the common order
    std::size_t next_ = 0;              ///< receiver: first of order_ that is not enqueued
    std::deque<Piece> pending_;         ///< enqueued and not known to be done, in stream order
    std::deque<std::uint32_t> unsent_;  ///< trainer: published, not enqueued yet
    bool publishing_ = false;
    std::vector<std::uint32_t> posted_;  ///< receiver: pieces enqueued, by trainer
    std::uint64_t buffer_bytes_ = 0;
};

}  // namespace

core::Viability nccl_viability() {
    const core::Viability driver = CudaDriver::viability();
    if (!driver.viable) return driver;
    try {
        (void)NcclLibrary::instance();
        return {true, true, ""};
    } catch (const core::NotViable& error) {
        return {true, false, error.what()};
    }
}

std::string nccl_description() {
    if (!nccl_viability().viable) return {};
    const NcclLibrary& library = NcclLibrary::instance();
    return fmt::format("{} ({})", nccl_version_text(library.version()), library.path());
}

std::unique_ptr<Transport> make_nccl_transport(const Endpoint& endpoint) {
    require_viable_everywhere("nccl", nccl_viability(), endpoint);
    return std::make_unique<NcclTransport>(endpoint);
}

}  // namespace refit::transport
