// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The few MPI calls that the transports need, with errors as exceptions and waits that never block
// in MPI. Private to src/transport.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/viability.hpp"
#include "transport/transport.hpp"

namespace refit::transport {

/// Throws MpiError with the call and MPI's own text unless `rc` is MPI_SUCCESS.
void check_mpi(int rc, const char* call);

/// Keeps memory alive to the end of the process. After an exception out of on_wait, MPI may still
/// write into the buffers of requests that cannot be cancelled (collectives) or whose peer is gone:
/// giving that memory back would corrupt whoever gets it next.
void leave_to_mpi(std::shared_ptr<void> memory);

/// Collective over MPI_COMM_WORLD: throws NotViable on every rank, with the reason of the lowest
/// rank that has one. A rank that decided alone would leave the others waiting in the next
/// collective call. Without MPI the own reason decides.
void require_viable_everywhere(const char* transport, const core::Viability& mine,
                               const Endpoint& endpoint);

/// A duplicate of MPI_COMM_WORLD whose errors come back as codes.
class WorldComm {
 public:
    /// Collective. Throws MpiError without MPI, UsageError when the world is not trainers +
    /// receivers ranks.
    explicit WorldComm(const Endpoint& endpoint);
    ~WorldComm();
    WorldComm(const WorldComm&) = delete;
    WorldComm& operator=(const WorldComm&) = delete;
    [[nodiscard]] MPI_Comm get() const { return comm_; }
    /// A wait ended in an exception: nothing of this communicator may be freed any more.
    void abandon() { abandoned_ = true; }
    [[nodiscard]] bool abandoned() const { return abandoned_; }

    /// `mine` of every rank, by rank. Collective; calls on_wait while it waits. Counts are equal on
    /// all ranks.
    [[nodiscard]] std::vector<std::int64_t> all_gather(std::int64_t mine, const Endpoint& endpoint);
    [[nodiscard]] std::vector<std::string> all_gather(const std::string& mine,
                                                      const Endpoint& endpoint);
    /// Collective. Throws ResourceError with the message of the lowest rank that has one, on every
    /// rank.
    void agree(const std::string& error, const Endpoint& endpoint);
    /// Collective. Throws ShapeError on every rank when the plans differ.
    void require_same_plan(const StreamPlan& plan, const Endpoint& endpoint);

 private:
    void wait(MPI_Request& request, const Endpoint& endpoint, const std::shared_ptr<void>& buffers);

    MPI_Comm comm_ = MPI_COMM_NULL;
    bool abandoned_ = false;
};

}  // namespace refit::transport
