// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/stale_segments.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "core/error.hpp"
#include "transport/mpi_window/mpi_window_transport.hpp"
#include "transport/mpi_window/shared_segment.hpp"

namespace refit::transport {
namespace {

namespace fs = std::filesystem;

class StaleSegments : public ::testing::Test {
 protected:
    void SetUp() override {
        std::string path = (fs::temp_directory_path() / "refit_stale_XXXXXX").string();
        ASSERT_NE(mkdtemp(path.data()), nullptr);
        folder_ = path;
    }
    void TearDown() override { fs::remove_all(folder_); }
    void put(const std::string& name, int age_s = 0) {
        std::ofstream(folder_ / name) << "0123456789";
        fs::last_write_time(folder_ / name,
                            fs::file_time_type::clock::now() - std::chrono::seconds(age_s));
    }
    [[nodiscard]] bool exists(const std::string& name) const { return fs::exists(folder_ / name); }
    fs::path folder_;
};

/// A pid that was a process a moment ago and is none now.
long dead_pid() {
    const pid_t child = fork();
    if (child == 0) _exit(0);
    (void)waitpid(child, nullptr, 0);
    return child;
}

TEST_F(StaleSegments, RemovesWhatADeadProcessLeft) {
    const std::string name = "refitbench.run.7.0." + std::to_string(dead_pid()) + ".12345";
    put(name);
    EXPECT_EQ(remove_stale_segments_in(folder_), std::vector<std::string>{name});
    EXPECT_FALSE(exists(name));
}

TEST_F(StaleSegments, RemovesWhatAnEarlierProcessWithTheSamePidLeft) {
    const long pid = getpid();
    const std::string mine = segment_name("run", "0.0");
    const std::string earlier = "refitbench.run.0.0." + std::to_string(pid) + "." +
                                std::to_string(process_start_time(pid) - 1);
    put(mine);
    put(earlier);
    EXPECT_EQ(remove_stale_segments_in(folder_), std::vector<std::string>{earlier});
    EXPECT_TRUE(exists(mine));
}

TEST_F(StaleSegments, LeavesNamesAloneThatAreNotOurs) {
    const std::string dead = std::to_string(dead_pid());
    for (const std::string& name :
         {"other.run." + dead + ".5", "refitbench.run." + dead + ".x", std::string("refitbench."),
          std::string("refitbench"), "refitbench.run.-" + dead + ".5"}) {
        put(name, 100);
    }
    EXPECT_TRUE(remove_stale_segments_in(folder_).empty());
}

TEST_F(StaleSegments, RemovesOldMpiSegmentsThatNobodyMaps) {
    put("vader_segment.host.1.0", 100);
    put("vader_segment.host.1.1", 0);
    put("vader_segment.host.1.2", 100);
    std::FILE* file = std::fopen((folder_ / "vader_segment.host.1.2").c_str(), "r");
    ASSERT_NE(file, nullptr);
    void* mapped = mmap(nullptr, 10, PROT_READ, MAP_SHARED, fileno(file), 0);
    std::fclose(file);
    ASSERT_NE(mapped, MAP_FAILED);
    EXPECT_EQ(remove_stale_segments_in(folder_),
              std::vector<std::string>{"vader_segment.host.1.0"});
    EXPECT_TRUE(exists("vader_segment.host.1.1"))
        << "too young: its creator may be about to map it";
    EXPECT_TRUE(exists("vader_segment.host.1.2")) << "mapped";
    (void)munmap(mapped, 10);
    EXPECT_EQ(remove_stale_segments_in(folder_),
              std::vector<std::string>{"vader_segment.host.1.2"});
}

TEST(SegmentName, TellsRunAndCreator) {
    const std::string name = segment_name("a/b c.1", "3.0");
    EXPECT_TRUE(name.starts_with("refitbench.a_b_c.1.3.0.")) << name;
    const auto creator = segment_creator(name);
    ASSERT_TRUE(creator.has_value());
    EXPECT_EQ(creator->pid, getpid());
    EXPECT_EQ(creator->start_time, process_start_time(getpid()));
    EXPECT_GT(creator->start_time, 0u);
}

TEST(SharedSegment, IsSeenByBothAndItsNameGoesAway) {
    const std::string name = segment_name("unit", "0");
    auto created = SharedSegment::create(name, 3 * 4096);
    const auto mapped = SharedSegment::map(name, 3 * 4096, 4096);
    created->data()[3 * 4096 - 1] = std::byte{42};
    EXPECT_EQ(mapped->data()[3 * 4096 - 1], std::byte{42});
    mapped->data()[0] = std::byte{7};
    EXPECT_EQ(created->data()[0], std::byte{7});
    EXPECT_THROW((void)SharedSegment::create(name, 4096), core::ResourceError)
        << "the name is taken";
    EXPECT_THROW((void)SharedSegment::map(name, 4096, 4096), core::ResourceError) << "another size";
    EXPECT_TRUE(fs::exists("/dev/shm/" + name));
    created.reset();
    EXPECT_FALSE(fs::exists("/dev/shm/" + name));
    EXPECT_EQ(mapped->data()[3 * 4096 - 1], std::byte{42})
        << "the memory lives on until it is unmapped";
}

TEST(SharedSegment, RefusesMoreThanThereIsAndLeavesNoName) {
    const std::string name = segment_name("unit", "huge");
    EXPECT_THROW((void)SharedSegment::create(name, std::uint64_t{1} << 50), core::ResourceError);
    EXPECT_FALSE(fs::exists("/dev/shm/" + name));
}

TEST(SharedMemoryShortage, SaysNeedHaveAndRemedy) {
    EXPECT_EQ(shared_memory_shortage(100, 100), "");
    const std::string message = shared_memory_shortage((std::uint64_t{1} << 30) + 1, 67108864);
    for (const char* part :
         {"1073741825", "67108864", "--shm-size=1088m", "bucket_bytes", "depth", "transport mpi"}) {
        EXPECT_NE(message.find(part), std::string::npos) << part << " missing in: " << message;
    }
}

}  // namespace
}  // namespace refit::transport
