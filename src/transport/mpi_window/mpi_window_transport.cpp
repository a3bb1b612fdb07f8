// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/mpi_window/mpi_window_transport.hpp"

#include <fmt/format.h>
#include <mpi.h>

#include <new>
#include <utility>

#include "core/error.hpp"
#include "transport/mpi/mpi_support.hpp"
#include "transport/mpi_window/shared_segment.hpp"
#include "transport/ring_transport.hpp"
#include "transport/transport_catalog.hpp"

namespace refit::transport {
namespace {

class MpiWindowTransport final : public RingTransport {
 public:
    MpiWindowTransport(const Endpoint& endpoint, std::string run_id)
        : RingTransport(endpoint), world_(endpoint), run_id_(std::move(run_id)) {
        if (endpoint.receivers > kLargestRingReceivers) {
            throw core::NotViable(fmt::format(
                "transport mpi_window takes at most {} receivers, found {}; use transport mpi",
                kLargestRingReceivers, endpoint.receivers));
        }
        // Everybody is here after the duplicate of the world, so this call does not wait long.
        MPI_Comm node = MPI_COMM_NULL;
        check_mpi(MPI_Comm_split_type(world_.get(), MPI_COMM_TYPE_SHARED, endpoint.rank,
                                      MPI_INFO_NULL, &node),
                  "MPI_Comm_split_type");
        int here = 0;
        check_mpi(MPI_Comm_size(node, &here), "MPI_Comm_size");
        (void)MPI_Comm_free(&node);
        const auto ranks = world_.all_gather(here, endpoint);
        for (std::size_t r = 0; r < ranks.size(); ++r) {
            if (ranks[r] == static_cast<std::int64_t>(ranks.size())) continue;
            throw core::NotViable(fmt::format(
                "transport mpi_window needs all {} ranks on one node, but the node of rank {} "
                "has {} of them; use transport mpi",
                ranks.size(), r, ranks[r]));
        }
    }

    [[nodiscard]] std::string_view name() const override { return "mpi_window"; }

    void open(const StreamPlan& plan) override {
        book().open(plan, endpoint());
        try {
            attach(map_rings(plan));
        } catch (...) {
            book().close();
            throw;
        }
    }

 private:
    std::vector<Ring> map_rings(const StreamPlan& plan) {
        const Endpoint& me = endpoint();
        world_.require_same_plan(plan, me);
        // All look before one of them reserves, or the later ones would count the pages of the
        // first.
        const std::uint64_t need = shared_memory_bytes("mpi_window", plan, me.trainers);
        world_.agree(shared_memory_shortage(need, shared_memory_free()), me);

        std::vector<std::shared_ptr<SharedSegment>> segments(static_cast<std::size_t>(me.trainers));
        const auto attempt = [&](auto&& step) {
            std::string error;
            try {
                step();
            } catch (const core::Error& e) {
                error = e.what();
            }
            // An exception here destroys the segments, and with them their names.
            world_.agree(error, me);
        };
        std::string own_name;
        attempt([&] {
            const std::uint64_t bytes = me.is_trainer() ? ring_bytes(plan, me.rank) : 0;
            if (bytes == 0) return;
            const std::string name = segment_name(run_id_, fmt::format("{}.{}", me.rank, opened_));
            std::shared_ptr<SharedSegment> segment = SharedSegment::create(name, bytes);
            auto* counters = reinterpret_cast<RingCounter*>(segment->data());
            for (std::size_t i = 0; i < kRingControlBytes / sizeof(RingCounter); ++i)
                new (counters + i) RingCounter;
            segments[static_cast<std::size_t>(me.rank)] = std::move(segment);
            own_name = name;
        });
        ++opened_;
        const std::vector<std::string> names = world_.all_gather(own_name, me);
        attempt([&] {
            for (int t = 0; t < me.trainers && !me.is_trainer(); ++t) {
                const auto i = static_cast<std::size_t>(t);
                if (!names[i].empty())
                    segments[i] =
                        SharedSegment::map(names[i], ring_bytes(plan, t), kRingControlBytes);
            }
        });
        std::vector<Ring> rings(segments.size());
        for (std::size_t t = 0; t < segments.size(); ++t) {
            if (!segments[t]) continue;
            // Everybody has it mapped: from here on nothing stays behind, whatever ends the
            // process.
            segments[t]->unlink();
            rings[t].counters = reinterpret_cast<RingCounter*>(segments[t]->data());
            rings[t].slots = segments[t]->data() + kRingControlBytes;
            rings[t].slot_bytes = ring_slot_bytes(plan, static_cast<int>(t));
            rings[t].owner = segments[t];
        }
        return rings;
    }

    WorldComm world_;
    std::string run_id_;
    int opened_ = 0;
};

}  // namespace

std::string shared_memory_shortage(std::uint64_t need, std::uint64_t have) {
    if (need <= have) return {};
    return fmt::format(
        "transport mpi_window needs {} bytes of shared memory, /dev/shm has {} free; give the "
        "container "
        "--shm-size={}m, use smaller bucket_bytes or depth, or transport mpi",
        need, have, (need >> 20) + 64);
}

std::unique_ptr<Transport> make_mpi_window_transport(const Endpoint& endpoint,
                                                     const std::string& run_id) {
    return std::make_unique<MpiWindowTransport>(endpoint, run_id);
}

}  // namespace refit::transport
