// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/world.hpp"

#include <mpi.h>
#include <sched.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <limits>
#include <map>
#include <thread>

#include "core/error.hpp"

namespace refit::harness {
namespace {

void check(int code, const char* what) {
    if (code == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(code, text, &length);
    throw core::MpiError(std::string(what) +
                         " failed: " + std::string(text, static_cast<std::size_t>(length)));
}

class MpiWorld final : public World {
 public:
    MpiWorld() {
        check(MPI_Comm_dup(MPI_COMM_WORLD, &comm_), "MPI_Comm_dup");
        MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
        MPI_Comm_rank(comm_, &rank_);
        MPI_Comm_size(comm_, &size_);
        check(MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node_),
              "MPI_Comm_split_type");
        MPI_Comm_rank(node_, &local_rank_);
        MPI_Comm_size(node_, &local_size_);
        local_ranks_.resize(static_cast<std::size_t>(local_size_));
        check(MPI_Allgather(&rank_, 1, MPI_INT, local_ranks_.data(), 1, MPI_INT, node_),
              "MPI_Allgather");
    }

    ~MpiWorld() override {
        // After an error the peers may be gone; MPI frees what is left at its own end.
        for (auto& [count, comm] : trainer_comms_) {
            if (comm != MPI_COMM_NULL) MPI_Comm_free(&comm);
        }
        MPI_Comm_free(&node_);
        MPI_Comm_free(&comm_);
    }

    [[nodiscard]] int rank() const override { return rank_; }
    [[nodiscard]] int size() const override { return size_; }
    [[nodiscard]] bool is_mpi() const override { return true; }
    [[nodiscard]] int local_rank() const override { return local_rank_; }
    [[nodiscard]] int local_size() const override { return local_size_; }
    [[nodiscard]] const std::vector<int>& local_ranks() const override { return local_ranks_; }

    void barrier() override {
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Ibarrier(comm_, &request), "MPI_Ibarrier");
        wait(request);
    }

    [[nodiscard]] std::vector<std::string> allgather(const std::string& mine) override {
        const auto count = static_cast<std::size_t>(size_);
        check_size(mine);
        int bytes = static_cast<int>(mine.size());
        std::vector<int> counts(count);
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Iallgather(&bytes, 1, MPI_INT, counts.data(), 1, MPI_INT, comm_, &request),
              "MPI_Iallgather");
        wait(request);
        Parts parts(counts);
        check(MPI_Iallgatherv(mine.data(), bytes, MPI_BYTE, parts.all.data(), counts.data(),
                              parts.offsets.data(), MPI_BYTE, comm_, &request),
              "MPI_Iallgatherv");
        wait(request);
        return parts.split();
    }

    [[nodiscard]] std::vector<std::string> gather(int root, const std::string& mine) override {
        const auto count = static_cast<std::size_t>(size_);
        check_size(mine);
        int bytes = static_cast<int>(mine.size());
        std::vector<int> counts(count);
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Igather(&bytes, 1, MPI_INT, counts.data(), 1, MPI_INT, root, comm_, &request),
              "MPI_Igather");
        wait(request);
        Parts parts(rank_ == root ? counts : std::vector<int>());
        check(MPI_Igatherv(mine.data(), bytes, MPI_BYTE, parts.all.data(), counts.data(),
                           parts.offsets.data(), MPI_BYTE, root, comm_, &request),
              "MPI_Igatherv");
        wait(request);
        return parts.split();
    }

    [[nodiscard]] bool all_true(bool mine) override {
        int in = mine ? 1 : 0;
        int out = 0;
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Iallreduce(&in, &out, 1, MPI_INT, MPI_MIN, comm_, &request), "MPI_Iallreduce");
        wait(request);
        return out != 0;
    }

    void max_over_trainers(int trainers, std::span<std::uint32_t> values) override {
        if (trainers <= 1) return;
        MPI_Comm comm = trainer_comm(trainers);
        MPI_Request request = MPI_REQUEST_NULL;
        check(MPI_Iallreduce(MPI_IN_PLACE, values.data(), static_cast<int>(values.size()),
                             MPI_UINT32_T, MPI_MAX, comm, &request),
              "MPI_Iallreduce over the trainers");
        wait(request);
    }

 private:
    /// Where the messages of all ranks lie one behind the other.
    struct Parts {
        explicit Parts(const std::vector<int>& sizes) : counts(sizes), offsets(sizes.size()) {
            int total = 0;
            for (std::size_t r = 0; r < counts.size(); ++r) {
                offsets[r] = total;
                total += counts[r];
            }
            all.resize(static_cast<std::size_t>(total));
        }
        [[nodiscard]] std::vector<std::string> split() const {
            std::vector<std::string> parts;
            for (std::size_t r = 0; r < counts.size(); ++r) {
                parts.push_back(all.substr(static_cast<std::size_t>(offsets[r]),
                                           static_cast<std::size_t>(counts[r])));
            }
            return parts;
        }
        std::vector<int> counts;
        std::vector<int> offsets;
        std::string all;
    };

    void check_size(const std::string& mine) const {
        if (mine.size() > static_cast<std::size_t>(std::numeric_limits<int>::max() / size_)) {
            throw core::MpiError("a message of " + std::to_string(mine.size()) +
                                 " bytes is too large to gather");
        }
    }

    MPI_Comm trainer_comm(int trainers) {
        const auto found = trainer_comms_.find(trainers);
        if (found != trainer_comms_.end()) return found->second;
        // Collective over the trainers alone.
        MPI_Group world_group = MPI_GROUP_NULL;
        MPI_Group group = MPI_GROUP_NULL;
        int range[1][3] = {{0, trainers - 1, 1}};
        check(MPI_Comm_group(comm_, &world_group), "MPI_Comm_group");
        check(MPI_Group_range_incl(world_group, 1, range, &group), "MPI_Group_range_incl");
        MPI_Comm comm = MPI_COMM_NULL;
        check(MPI_Comm_create_group(comm_, group, trainers, &comm), "MPI_Comm_create_group");
        MPI_Group_free(&group);
        MPI_Group_free(&world_group);
        MPI_Comm_set_errhandler(comm, MPI_ERRORS_RETURN);
        trainer_comms_.emplace(trainers, comm);
        return comm;
    }

    void wait(MPI_Request& request) {
        // Short waits spin; longer ones sleep, so that a waiting rank does not take a core from a
        // working one.
        for (int turn = 0;; ++turn) {
            int done = 0;
            check(MPI_Test(&request, &done, MPI_STATUS_IGNORE), "MPI_Test");
            if (done != 0) return;
            waited();
            if (turn < 200) {
                sched_yield();
            } else {
                usleep(turn < 2000 ? 50 : 500);
            }
        }
    }

    MPI_Comm comm_ = MPI_COMM_NULL;
    MPI_Comm node_ = MPI_COMM_NULL;
    std::map<int, MPI_Comm> trainer_comms_;
    int rank_ = 0;
    int size_ = 1;
    int local_rank_ = 0;
    int local_size_ = 1;
    std::vector<int> local_ranks_;
};

int environment_int(const char* name, int otherwise) {
    const char* text = std::getenv(name);
    return text != nullptr && *text != '\0' ? std::atoi(text) : otherwise;
}

}  // namespace

bool launched_by_mpi() {
    for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"}) {
        if (std::getenv(name) != nullptr) return true;
    }
    return false;
}

std::unique_ptr<World> make_mpi_world() {
    const int local = environment_int("OMPI_COMM_WORLD_LOCAL_SIZE", 1);
    const auto cores = static_cast<int>(std::thread::hardware_concurrency());
    if (local > cores) setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    int provided = 0;
    int initialized = 0;
    MPI_Initialized(&initialized);
    // The main thread alone calls MPI; the monitor thread never does.
    if (initialized == 0) {
        check(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
    }
    return std::make_unique<MpiWorld>();
}

void finalize_mpi() {
    MPI_Finalize();
}

std::string mpi_version() {
    char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length = 0;
    MPI_Get_library_version(text, &length);
    const std::string whole(text, static_cast<std::size_t>(length));
    return whole.substr(0, whole.find(','));
}

}  // namespace refit::harness
