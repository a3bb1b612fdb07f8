// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/mpi/mpi_transport.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/error.hpp"
#include "transport/mpi/mpi_support.hpp"
#include "transport/piece_book.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

/// Why a broadcast and not a send to each receiver: on one node both are equally fast up to 3
/// receivers (64 MiB pieces, 2 trainers and 2 receivers on 2 cores: 4.7 and 4.5 GB/s a receiver;
/// without single copy 1.8 and 1.8), but between nodes a chain of receivers sends each byte over
/// the trainer's link once instead of once a receiver.
class MpiTransport final : public Transport {
 public:
    MpiTransport(const Endpoint& endpoint, std::uint64_t chunk_bytes)
        : endpoint_(endpoint),
          chunk_bytes_(chunk_bytes),
          world_(endpoint),
          comms_(static_cast<std::size_t>(endpoint.trainers), MPI_COMM_NULL) {
        MPI_Group everyone = MPI_GROUP_NULL;
        check_mpi(MPI_Comm_group(world_.get(), &everyone), "MPI_Comm_group");
        for (int t = 0; t < endpoint_.trainers; ++t) {
            if (endpoint_.is_trainer() && endpoint_.rank != t) continue;
            std::vector<int> members{t};
            for (int r = 0; r < endpoint_.receivers; ++r) members.push_back(endpoint_.trainers + r);
            MPI_Group group = MPI_GROUP_NULL;
            check_mpi(
                MPI_Group_incl(everyone, static_cast<int>(members.size()), members.data(), &group),
                "MPI_Group_incl");
            MPI_Comm& comm = comms_[static_cast<std::size_t>(t)];
            check_mpi(MPI_Comm_create_group(world_.get(), group, t, &comm),
                      "MPI_Comm_create_group");
            check_mpi(MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
            (void)MPI_Group_free(&group);
        }
        (void)MPI_Group_free(&everyone);
    }

    ~MpiTransport() override {
        // A collective can neither be cancelled nor freed while it is under way. Its buffers and
        // communicators are left to MPI: a late fragment then lands in memory that nobody else
        // owns.
        if (!requests_.empty()) {
            world_.abandon();
            for (auto& slots : slots_) leave_to_mpi(std::move(slots));
        }
        int finalized = 0;
        (void)MPI_Finalized(&finalized);
        if (world_.abandoned() || finalized != 0) return;
        for (MPI_Comm& comm : comms_) {
            if (comm != MPI_COMM_NULL) (void)MPI_Comm_free(&comm);
        }
    }

    [[nodiscard]] std::string_view name() const override { return "mpi"; }

    void open(const StreamPlan& plan) override {
        book_.open(plan, endpoint_);
        std::string error;
        try {
            allocate(plan);
        } catch (const core::Error& e) {
            error = e.what();
        }
        try {
            world_.require_same_plan(plan, endpoint_);
            world_.agree(error, endpoint_);
        } catch (...) {
            close();
            throw;
        }
    }

    void begin_refit() override {
        book_.begin_refit();
        std::fill(posted_.begin(), posted_.end(), 0u);
        if (!endpoint_.is_trainer()) {
            for (int t = 0; t < endpoint_.trainers; ++t) post_free_slots(t);
        }
    }

    std::span<std::byte> acquire(std::size_t bucket) override {
        Backoff backoff;
        while (!can_acquire(bucket)) {
            on_wait(endpoint_);
            backoff.pause();
        }
        const std::uint32_t n = book_.acquire(bucket);
        return {slot(endpoint_.rank, n), book_.bytes(bucket, endpoint_.rank)};
    }

    bool can_acquire(std::size_t bucket) override {
        const std::uint32_t n = book_.peek_acquire(bucket);
        const auto depth = static_cast<std::uint32_t>(book_.plan().depth);
        if (n < depth) return true;
        const auto left = [&] {
            return book_.published() + depth > n && pending(endpoint_.rank, n) == 0;
        };
        if (!left()) test();
        return left();
    }

    void publish(std::size_t bucket) override {
        const std::uint32_t n = book_.publish(bucket);
        post(endpoint_.rank, n);
    }

    bool arrived(std::size_t bucket, int trainer) override {
        const std::uint32_t n = book_.number(bucket, trainer);
        if (!here(trainer, n)) test();
        return here(trainer, n);
    }

    std::span<const std::byte> receive(std::size_t bucket, int trainer) override {
        const std::uint32_t n = book_.peek_receive(bucket, trainer);
        Backoff backoff;
        for (;;) {
            if (here(trainer, n)) break;
            test();
            if (here(trainer, n)) break;
            on_wait(endpoint_);
            backoff.pause();
        }
        (void)book_.receive(bucket, trainer);
        return {slot(trainer, n), book_.bytes(bucket, trainer)};
    }

    void release(std::size_t bucket, int trainer) override {
        (void)book_.release(bucket, trainer);
        post_free_slots(trainer);
    }

    void progress() override {
        // One call moves few fragments where MPI copies through its own segment (no single copy);
        // one stripe of the quantize loop produces more than that.
        constexpr int kTurns = 16;
        for (int i = 0; i < kTurns && !requests_.empty(); ++i) test();
    }

    void finish() override {
        book_.check_finished();
        Backoff backoff;
        for (;;) {
            test();
            if (requests_.empty()) return;
            on_wait(endpoint_);
            backoff.pause();
        }
    }

    void close() override {
        if (!requests_.empty())
            throw core::ShapeError("close() while pieces are under way; call finish() first");
        slots_.clear();
        slot_bytes_.clear();
        pending_.clear();
        posted_.clear();
        buffer_bytes_ = 0;
        book_.close();
    }

    [[nodiscard]] std::uint64_t buffer_bytes() const override { return buffer_bytes_; }

 private:
    void allocate(const StreamPlan& plan) {
        const auto trainers = static_cast<std::size_t>(endpoint_.trainers);
        slots_.assign(trainers, nullptr);
        slot_bytes_.assign(trainers, 0);
        posted_.assign(trainers, 0);
        pending_.assign(trainers * static_cast<std::size_t>(plan.depth), 0);
        buffer_bytes_ = 0;
        for (int t = 0; t < endpoint_.trainers; ++t) {
            if (endpoint_.is_trainer() && endpoint_.rank != t) continue;
            const auto i = static_cast<std::size_t>(t);
            slot_bytes_[i] = (largest_piece(plan, t) + 63) / 64 * 64;
            const std::uint64_t bytes = slot_bytes_[i] * slot_count(plan, t);
            if (bytes == 0) continue;
            slots_[i] = std::make_shared<core::AlignedBuffer>(bytes);
            std::memset(slots_[i]->data(), 0,
                        bytes);  // touched here, so that no timed refit pays for page faults
            buffer_bytes_ += bytes;
        }
    }

    [[nodiscard]] std::byte* slot(int trainer, std::uint32_t number) {
        const auto i = static_cast<std::size_t>(trainer);
        return slots_[i]->data() +
               number % static_cast<std::uint32_t>(book_.plan().depth) * slot_bytes_[i];
    }
    [[nodiscard]] std::size_t slot_index(int trainer, std::uint32_t number) const {
        const auto depth = static_cast<std::size_t>(book_.plan().depth);
        return static_cast<std::size_t>(trainer) * depth + number % depth;
    }
    /// Chunks of the slot that are under way.
    [[nodiscard]] std::uint32_t& pending(int trainer, std::uint32_t number) {
        return pending_[slot_index(trainer, number)];
    }
    [[nodiscard]] bool here(int trainer, std::uint32_t number) {
        return number < posted_[static_cast<std::size_t>(trainer)] && pending(trainer, number) == 0;
    }

    /// Receiver: posts the next pieces of a trainer as far as slots are free. Always in order
    /// within a trainer, whatever the order of releases: MPI matches collectives by their order on
    /// the communicator.
    void post_free_slots(int trainer) {
        std::uint32_t& posted = posted_[static_cast<std::size_t>(trainer)];
        const auto depth = static_cast<std::uint32_t>(book_.plan().depth);
        while (posted < book_.count(trainer) && posted < book_.released(trainer) + depth) {
            const std::uint32_t n = posted++;
            post(trainer, n);
        }
    }

    void post(int trainer, std::uint32_t number) {
        std::byte* memory = slot(trainer, number);
        std::uint64_t left = book_.bytes(book_.bucket(trainer, number), trainer);
        while (left > 0) {
            const std::uint64_t bytes = std::min(left, chunk_bytes_);
            MPI_Request request = MPI_REQUEST_NULL;
            check_mpi(MPI_Ibcast(memory, static_cast<int>(bytes), MPI_BYTE, 0,
                                 comms_[static_cast<std::size_t>(trainer)], &request),
                      "MPI_Ibcast");
            requests_.push_back(request);
            slots_of_requests_.push_back(slot_index(trainer, number));
            ++pending(trainer, number);
            memory += bytes;
            left -= bytes;
        }
    }

    /// One round of progress; books what has completed.
    void test() {
        if (requests_.empty()) return;
        int done = 0;
        completed_.resize(requests_.size());
        check_mpi(MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &done,
                               completed_.data(), MPI_STATUSES_IGNORE),
                  "MPI_Testsome");
        if (done == MPI_UNDEFINED || done == 0) return;
        for (int i = 0; i < done; ++i)
            --pending_[slots_of_requests_[static_cast<std::size_t>(
                completed_[static_cast<std::size_t>(i)])]];
        std::size_t kept = 0;
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            if (requests_[i] == MPI_REQUEST_NULL) continue;
            requests_[kept] = requests_[i];
            slots_of_requests_[kept] = slots_of_requests_[i];
            ++kept;
        }
        requests_.resize(kept);
        slots_of_requests_.resize(kept);
    }

    Endpoint endpoint_;
    std::uint64_t chunk_bytes_;
    WorldComm world_;
    std::vector<MPI_Comm>
        comms_;  ///< {trainer t, all receivers}; null where this rank is not a member
    PieceBook book_;
    std::vector<std::shared_ptr<core::AlignedBuffer>>
        slots_;  ///< by trainer: the slots side by side
    std::vector<std::uint64_t> slot_bytes_;
    std::vector<std::uint32_t> pending_;
    std::vector<std::uint32_t> posted_;  ///< receiver: pieces posted, by trainer
    std::vector<MPI_Request> requests_;
    std::vector<std::size_t> slots_of_requests_;
    std::vector<int> completed_;
    std::uint64_t buffer_bytes_ = 0;
};

}  // namespace

std::unique_ptr<Transport> make_mpi_transport(const Endpoint& endpoint, std::uint64_t chunk_bytes) {
    if (chunk_bytes < 1 ||
        chunk_bytes > static_cast<std::uint64_t>(std::numeric_limits<int>::max())) {
        throw core::UsageError(fmt::format("chunk_bytes {} is not in 1 .. {}", chunk_bytes,
                                           std::numeric_limits<int>::max()));
    }
    return std::make_unique<MpiTransport>(endpoint, chunk_bytes);
}

}  // namespace refit::transport
