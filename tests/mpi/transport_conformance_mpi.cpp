// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <mpi.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "conformance/transport_conformance.hpp"
#include "core/error.hpp"

namespace refit::testing {
namespace {

using transport::Endpoint;
using transport::TransportOptions;

struct Setting {
    TransportCase test;
    std::string transport;
    int trainers = 1;  ///< 0: all ranks but one
};

/// REFIT_CONFORMANCE_TRANSPORTS ("nccl,cuda_ipc"), else those that need no device.
std::vector<std::string> transports_under_test() {
    const char* chosen = std::getenv("REFIT_CONFORMANCE_TRANSPORTS");
    std::istringstream list(chosen != nullptr ? chosen : "mpi,mpi_window");
    std::vector<std::string> names;
    for (std::string name; std::getline(list, name, ',');) names.push_back(name);
    return names;
}

std::vector<Setting> settings() {
    std::vector<Setting> all;
    // Cases that leave unanswered requests behind come last.
    for (const bool last : {false, true}) {
        for (const std::string& name : transports_under_test()) {
            for (const TransportCase& test : transport_cases()) {
                if (test.last != last) continue;
                for (const int trainers : {1, 2, 0}) all.push_back({test, name, trainers});
            }
        }
    }
    return all;
}

std::ostream& operator<<(std::ostream& out, const Setting& setting) {
    return out << setting.test << " on " << setting.transport;
}

class TransportConformance : public ::testing::TestWithParam<Setting> {
 protected:
    static void SetUpTestSuite() {
        MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
        MPI_Comm_size(MPI_COMM_WORLD, &ranks_);
        MPI_Comm_dup(MPI_COMM_WORLD, &comm_);
        char path[256] = {};
        if (rank_ == 0) {
            std::snprintf(path, sizeof path, "%s/refit_conformance_XXXXXX",
                          std::filesystem::temp_directory_path().c_str());
            if (mkdtemp(path) == nullptr) path[0] = 0;
        }
        MPI_Bcast(path, sizeof path, MPI_CHAR, 0, comm_);
        folder_ = path;
        // The clock of a paced link lies in memory that all ranks see.
        MPI_Comm node = MPI_COMM_NULL;
        MPI_Comm_split_type(comm_, MPI_COMM_TYPE_SHARED, rank_, MPI_INFO_NULL, &node);
        void* base = nullptr;
        MPI_Win_allocate_shared(rank_ == 0 ? 64 : 0, 1, MPI_INFO_NULL, node, &base, &window_);
        MPI_Aint size = 0;
        int unit = 0;
        MPI_Win_shared_query(window_, 0, &size, &unit, &base);
        link_ = static_cast<std::atomic<std::int64_t>*>(base);
        if (rank_ == 0) new (link_) std::atomic<std::int64_t>(0);
        MPI_Comm_free(&node);
        MPI_Barrier(comm_);
    }
    static void TearDownTestSuite() {
        MPI_Barrier(comm_);
        MPI_Win_free(&window_);
        std::error_code ignored;
        if (rank_ == 0) std::filesystem::remove_all(folder_, ignored);
        MPI_Comm_free(&comm_);
    }

    static inline int rank_ = 0;
    static inline int ranks_ = 1;
    static inline int played_ = 0;
    static inline MPI_Comm comm_ = MPI_COMM_NULL;
    static inline MPI_Win window_ = MPI_WIN_NULL;
    static inline std::atomic<std::int64_t>* link_ = nullptr;
    static inline std::filesystem::path folder_;
};

TEST_P(TransportConformance, Holds) {
    const Setting& setting = GetParam();
    if (ranks_ < 2) GTEST_SKIP() << "a trainer and a receiver need 2 ranks, found " << ranks_;
    const int trainers = setting.trainers == 0 ? ranks_ - 1 : setting.trainers;
    if (trainers > ranks_ - 1 || (setting.trainers == 0 && trainers <= 2)) {
        GTEST_SKIP() << "the split is impossible with " << ranks_
                     << " ranks or is played under another name";
    }
    if (setting.transport == "nccl" && setting.test.name == "AnExceptionOfOnWaitEndsAnAcquire" &&
        std::getenv("REFIT_CUDA_LIBRARY") == nullptr) {
        GTEST_SKIP() << "NCCL takes pieces into buffers of its own before a receiver asks for "
                        "them, so the trainer does not have to wait";
    }
    const std::string prefix = std::to_string(++played_) + ".";
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    RankContext context;
    context.endpoint = Endpoint{rank_, trainers, ranks_ - trainers, [deadline] {
                                    if (std::chrono::steady_clock::now() > deadline) {
                                        throw std::runtime_error("no end after a minute");
                                    }
                                }};
    context.options.name = setting.transport;
    context.options.run_id = "conformance";
    context.options.link_free_at_ns = link_;
    context.make = [](const TransportOptions& options, const Endpoint& endpoint) {
        return transport::make_transport(options, endpoint);
    };
    context.barrier = [] { MPI_Barrier(comm_); };
    // Files: looking at one makes no progress in MPI.
    context.signal = [&](const std::string& event) {
        std::ofstream(folder_ / (prefix + event)) << '1';
    };
    context.signalled = [&](const std::string& event) {
        return std::filesystem::exists(folder_ / (prefix + event));
    };
    std::string not_viable;
    try {
        setting.test.run(context);
    } catch (const core::NotViable& e) {
        not_viable = e.what();
    } catch (const std::exception& e) {
        context.failures.push_back(e.what());
    }
    for (const std::string& failure : context.failures) ADD_FAILURE() << failure;
    // Nothing of ours may stay in /dev/shm, not even after an exception.
    MPI_Barrier(comm_);
    if (rank_ == 0) {
        for (const auto& entry : std::filesystem::directory_iterator("/dev/shm")) {
            EXPECT_FALSE(entry.path().filename().string().starts_with("refitbench.conformance."))
                << entry.path() << " is left behind";
        }
    }
    // Every rank hears of it alike, so all of them skip.
    if (!not_viable.empty()) GTEST_SKIP() << not_viable;
}

std::string setting_name(const ::testing::TestParamInfo<Setting>& parameter) {
    const Setting& setting = parameter.param;
    const std::string split =
        setting.trainers == 0 ? "all_but_one" : std::to_string(setting.trainers);
    return setting.test.name + "_" + setting.transport + "_trainers_" + split;
}

INSTANTIATE_TEST_SUITE_P(Mpi, TransportConformance, ::testing::ValuesIn(settings()), setting_name);

TEST(MpiTransports, RefuseAWorldOfAnotherSize) {
    int rank = 0;
    int ranks = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (const char* name : {"mpi", "mpi_window"}) {
        TransportOptions options;
        options.name = name;
        EXPECT_THROW((void)transport::make_transport(options, Endpoint{rank, ranks, 1, {}}),
                     core::UsageError)
            << name;
    }
}

TEST(MpiTransports, RefuseAChunkThatNoIntCanCount) {
    int rank = 0;
    int ranks = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    for (const std::uint64_t chunk : {std::uint64_t{0}, std::uint64_t{1} << 31}) {
        TransportOptions options;
        options.name = "mpi";
        options.chunk_bytes = chunk;
        EXPECT_THROW((void)transport::make_transport(options, Endpoint{rank, 1, ranks - 1, {}}),
                     core::UsageError)
            << chunk;
    }
}

TEST(MpiTransports, SayWhatIsMissingWhenSharedMemoryIsTooSmall) {
    int rank = 0;
    int ranks = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    if (ranks < 2) GTEST_SKIP() << "a trainer and a receiver need 2 ranks, found " << ranks;
    TransportOptions options;
    options.name = "mpi_window";
    options.run_id = "conformance";
    const auto link = transport::make_transport(options, Endpoint{rank, 1, ranks - 1, {}});
    transport::StreamPlan plan;
    plan.depth = 2;
    plan.pieces = {{std::uint64_t{1} << 50}, {1}};
    std::string message;
    try {
        link->open(plan);
    } catch (const core::ResourceError& e) {
        message = e.what();
    }
    EXPECT_NE(message.find("--shm-size"), std::string::npos) << message;
    EXPECT_NE(message.find(std::to_string(transport::shared_memory_bytes("mpi_window", plan, 1))),
              std::string::npos)
        << message;
    // The transport is still good for a plan that fits.
    plan.pieces = {{10}};
    EXPECT_NO_THROW(link->open(plan));
    link->close();
}

}  // namespace
}  // namespace refit::testing
