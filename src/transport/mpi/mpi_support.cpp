// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/mpi/mpi_support.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "core/error.hpp"
#include "transport/piece_book.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

constexpr std::size_t kTextBytes = 512;

bool mpi_usable() {
    int initialized = 0;
    int finalized = 0;
    (void)MPI_Initialized(&initialized);
    (void)MPI_Finalized(&finalized);
    return initialized != 0 && finalized == 0;
}

}  // namespace

void check_mpi(int rc, const char* call) {
    if (rc == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    (void)MPI_Error_string(rc, text, &length);
    throw core::MpiError(fmt::format("{} failed: {}", call,
                                     std::string_view(text, static_cast<std::size_t>(length))));
}

void leave_to_mpi(std::shared_ptr<void> memory) {
    // Never destroyed, but reachable: leak checkers see an owner.
    static auto* const left = new std::vector<std::shared_ptr<void>>;
    if (memory) left->push_back(std::move(memory));
}

void require_viable_everywhere(const char* transport, const core::Viability& mine,
                               const Endpoint& endpoint) {
    if (!mpi_usable() && !mine.viable) {
        throw core::NotViable(
            fmt::format("transport {}: {}; use transport mpi or loopback", transport, mine.reason));
    }
    WorldComm world(endpoint);
    const std::vector<std::string> reasons = world.all_gather(mine.reason, endpoint);
    for (std::size_t r = 0; r < reasons.size(); ++r) {
        if (reasons[r].empty()) continue;
        throw core::NotViable(fmt::format(
            "transport {}: rank {}: {}; use transport mpi or loopback", transport, r, reasons[r]));
    }
}

WorldComm::WorldComm(const Endpoint& endpoint) {
    if (!mpi_usable()) {
        throw core::MpiError(
            "this transport needs an MPI that is initialized; start under mpirun, or use transport "
            "loopback");
    }
    int size = 0;
    check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    if (size != endpoint.trainers + endpoint.receivers) {
        throw core::UsageError(fmt::format("{} trainers and {} receivers need {} ranks, found {}",
                                           endpoint.trainers, endpoint.receivers,
                                           endpoint.trainers + endpoint.receivers, size));
    }
    // MPI writes the handle when the duplicate is ready, so the handle lives as long as the
    // request.
    auto handle = std::make_shared<MPI_Comm>(MPI_COMM_NULL);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Comm_idup(MPI_COMM_WORLD, handle.get(), &request), "MPI_Comm_idup");
    wait(request, endpoint, handle);
    comm_ = *handle;
    check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

WorldComm::~WorldComm() {
    if (comm_ != MPI_COMM_NULL && !abandoned_ && mpi_usable()) (void)MPI_Comm_free(&comm_);
}

void WorldComm::wait(MPI_Request& request, const Endpoint& endpoint,
                     const std::shared_ptr<void>& buffers) {
    Backoff backoff;
    try {
        for (;;) {
            int done = 0;
            check_mpi(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
            if (done != 0) return;
            on_wait(endpoint);
            backoff.pause();
        }
    } catch (...) {
        leave_to_mpi(buffers);
        abandoned_ = true;
        throw;
    }
}

std::vector<std::int64_t> WorldComm::all_gather(std::int64_t mine, const Endpoint& endpoint) {
    struct Buffers {
        std::int64_t mine = 0;
        std::vector<std::int64_t> all;
    };
    auto buffers = std::make_shared<Buffers>();
    buffers->mine = mine;
    buffers->all.resize(static_cast<std::size_t>(endpoint.trainers + endpoint.receivers));
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(MPI_Iallgather(&buffers->mine, 1, MPI_INT64_T, buffers->all.data(), 1, MPI_INT64_T,
                             comm_, &request),
              "MPI_Iallgather");
    wait(request, endpoint, buffers);
    return buffers->all;
}

std::vector<std::string> WorldComm::all_gather(const std::string& mine, const Endpoint& endpoint) {
    struct Buffers {
        char mine[kTextBytes] = {};
        std::vector<char> all;
    };
    const auto ranks = static_cast<std::size_t>(endpoint.trainers + endpoint.receivers);
    auto buffers = std::make_shared<Buffers>();
    std::memcpy(buffers->mine, mine.data(), std::min(mine.size(), kTextBytes - 1));
    buffers->all.resize(ranks * kTextBytes);
    MPI_Request request = MPI_REQUEST_NULL;
    check_mpi(
        MPI_Iallgather(buffers->mine, static_cast<int>(kTextBytes), MPI_CHAR, buffers->all.data(),
                       static_cast<int>(kTextBytes), MPI_CHAR, comm_, &request),
        "MPI_Iallgather");
    wait(request, endpoint, buffers);
    std::vector<std::string> texts;
    for (std::size_t r = 0; r < ranks; ++r)
        texts.emplace_back(buffers->all.data() + r * kTextBytes);
    return texts;
}

void WorldComm::agree(const std::string& error, const Endpoint& endpoint) {
    const std::vector<std::string> errors = all_gather(error, endpoint);
    for (std::size_t r = 0; r < errors.size(); ++r) {
        if (!errors[r].empty()) throw core::ResourceError(fmt::format("rank {}: {}", r, errors[r]));
    }
}

void WorldComm::require_same_plan(const StreamPlan& plan, const Endpoint& endpoint) {
    const auto prints = all_gather(static_cast<std::int64_t>(plan_fingerprint(plan)), endpoint);
    for (std::size_t r = 1; r < prints.size(); ++r) {
        if (prints[r] != prints[0]) {
            throw core::ShapeError(
                fmt::format("the stream plan of rank {} differs from that of rank 0", r));
        }
    }
}

}  // namespace refit::transport
