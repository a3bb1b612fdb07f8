// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/transport_catalog.hpp"

#include <gtest/gtest.h>

#include "core/error.hpp"

namespace refit::transport {
namespace {

TEST(TransportCatalog, ListsWhatIsCompiledAndWhyTheRestIsNot) {
    std::vector<std::string> compiled;
    for (const TransportRow& row : transport_rows()) {
        EXPECT_FALSE(row.summary.empty()) << row.name;
        EXPECT_EQ(row.viability.reason.empty(), row.viability.viable) << row.name;
        if (row.viability.compiled) compiled.push_back(row.name);
    }
    EXPECT_EQ(compiled,
              (std::vector<std::string>{"mpi", "mpi_window", "nccl", "cuda_ipc", "loopback"}));
}

TEST(TransportCatalog, NamesTheNearestForAnUnknownName) {
    TransportOptions options;
    options.name = "mpi_windows";
    try {
        (void)make_transport(options, Endpoint{});
        FAIL() << "made a transport of an unknown name";
    } catch (const core::UsageError& e) {
        EXPECT_NE(std::string(e.what()).find("mpi_window"), std::string::npos) << e.what();
    }
}

TEST(TransportCatalog, SaysWhyATransportWithoutADeviceCannotRun) {
    for (const TransportRow& row : transport_rows()) {
        if (row.viability.viable) continue;
        TransportOptions options;
        options.name = row.name;
        try {
            (void)make_transport(options, Endpoint{});
            FAIL() << "made transport " << row.name << ", which is not viable";
        } catch (const core::NotViable& e) {
            EXPECT_NE(std::string(e.what()).find(row.viability.reason), std::string::npos)
                << e.what();
        }
    }
}

TEST(TransportCatalog, NeedsAHubOfTheSameWorldForLoopbackAndMpiForMpi) {
    TransportOptions options;
    options.name = "loopback";
    EXPECT_THROW((void)make_transport(options, Endpoint{0, 1, 1, {}}), core::UsageError);
    options.hub = make_loopback_hub(1, 2);
    EXPECT_THROW((void)make_transport(options, Endpoint{0, 1, 1, {}}), core::UsageError);
    EXPECT_NO_THROW((void)make_transport(options, Endpoint{0, 1, 2, {}}));
    EXPECT_THROW((void)make_loopback_hub(0, 1), core::UsageError);
    options.name = "mpi";
    EXPECT_THROW((void)make_transport(options, Endpoint{0, 1, 1, {}}), core::MpiError)
        << "MPI is not initialized here";
}

TEST(TransportCatalog, NeedsAClockForAPacedLink) {
    TransportOptions options;
    options.name = "loopback";
    options.hub = make_loopback_hub(1, 1);
    options.link_bytes_per_s = 1000;
    EXPECT_THROW((void)make_transport(options, Endpoint{0, 1, 1, {}}), core::UsageError);
}

TEST(TransportCatalog, CountsSharedMemoryOfTheWindowOnly) {
    const StreamPlan plan{2, {{5000, 0}, {100, 0}, {100, 0}}};
    EXPECT_EQ(shared_memory_bytes("mpi_window", plan, 2), 65536u + 2 * 8192u);
    EXPECT_EQ(shared_memory_bytes("cuda_ipc", plan, 2), 2 * 65536u);  // counters
    EXPECT_EQ(shared_memory_bytes("mpi", plan, 2), 0u);
    EXPECT_EQ(shared_memory_bytes("loopback", plan, 2), 0u);
}

}  // namespace
}  // namespace refit::transport
