// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the file holds is judged by h5py in tests/reports; here is how it reaches the disk.
#include "record/hdf5_writer.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <iterator>

#include "core/error.hpp"
#include "unit/record/sample_record.hpp"

namespace {

namespace fs = std::filesystem;
using refit::core::RecordError;
using refit::record::write_hdf5;
using testing::HasSubstr;

class Hdf5Writer : public testing::Test {
 protected:
    void SetUp() override {
        std::string pattern = (fs::temp_directory_path() / "refit_record_XXXXXX").string();
        ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
        folder_ = pattern;
    }
    void TearDown() override {
        ::chmod(folder_.c_str(), 0700);
        fs::remove_all(folder_);
    }
    [[nodiscard]] std::size_t entries() const {
        return static_cast<std::size_t>(
            std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
    }
    static std::string message_of(const fs::path& path) {
        try {
            write_hdf5(refit::test::sample_record(), path);
        } catch (const RecordError& error) {
            EXPECT_EQ(error.code(), refit::core::ExitCode::environment);
            return error.what();
        }
        return "no error";
    }
    fs::path folder_;
};

std::string content(const fs::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

TEST_F(Hdf5Writer, LeavesOneFileWithTheSignatureOfHdf5) {
    const fs::path path = folder_ / "run.h5";
    EXPECT_EQ(write_hdf5(refit::test::sample_record(), path), path);
    EXPECT_EQ(entries(), 1U);
    // Section II.A of the HDF5 file format: the superblock starts with these eight bytes.
    EXPECT_EQ(content(path).substr(0, 8), std::string("\x89HDF\r\n\x1a\n", 8));
}

TEST_F(Hdf5Writer, NeverOverwritesAndTakesTheNextCounter) {
    const fs::path path = folder_ / "run-20260102T030405Z-1.h5";
    std::ofstream(path) << "precious";
    std::ofstream(folder_ / "run-20260102T030405Z-2.h5") << "precious too";
    EXPECT_EQ(write_hdf5(refit::test::sample_record(), path),
              folder_ / "run-20260102T030405Z-3.h5");
    EXPECT_EQ(content(path), "precious");
    EXPECT_EQ(content(folder_ / "run-20260102T030405Z-2.h5"), "precious too");
    EXPECT_EQ(entries(), 3U);
}

TEST_F(Hdf5Writer, GivesACounterToANameWithoutOne) {
    std::ofstream(folder_ / "run.h5") << "precious";
    EXPECT_EQ(write_hdf5(refit::test::sample_record(), folder_ / "run.h5"), folder_ / "run-1.h5");
}

TEST_F(Hdf5Writer, DoesNotFollowADanglingLink) {
    fs::create_symlink(folder_ / "elsewhere.h5", folder_ / "run.h5");
    EXPECT_EQ(write_hdf5(refit::test::sample_record(), folder_ / "run.h5"), folder_ / "run-1.h5");
    EXPECT_FALSE(fs::exists(folder_ / "elsewhere.h5"));
}

TEST_F(Hdf5Writer, NamesPathAndReasonWhereTheFolderIsMissing) {
    const fs::path path = folder_ / "missing" / "run.h5";
    const std::string message = message_of(path);
    EXPECT_THAT(message, HasSubstr(path.string()));
    EXPECT_THAT(message, HasSubstr("No such file or directory"));
    EXPECT_THAT(message, HasSubstr("create the folder"));
    EXPECT_EQ(entries(), 0U);
}

TEST_F(Hdf5Writer, NamesPathAndReasonWhereTheFolderIsAFile) {
    std::ofstream(folder_ / "file") << "x";
    EXPECT_THAT(message_of(folder_ / "file" / "run.h5"), HasSubstr("Not a directory"));
}

TEST_F(Hdf5Writer, NamesPathAndReasonWhereTheFolderIsReadOnly) {
    if (::geteuid() == 0) GTEST_SKIP() << "root may write into a read-only folder";
    ::chmod(folder_.c_str(), 0500);
    EXPECT_THAT(message_of(folder_ / "run.h5"), HasSubstr("Permission denied"));
}

TEST_F(Hdf5Writer, LeavesNothingBehindWhenTheDiskTakesOnlyAPart) {
    // A limit on the size of files stops write() in the middle, as a full disk does.
    struct sigaction ignore = {}, old_action = {};
    ignore.sa_handler = SIG_IGN;
    ::sigaction(SIGXFSZ, &ignore, &old_action);
    rlimit old_limit = {};
    ::getrlimit(RLIMIT_FSIZE, &old_limit);
    rlimit small = old_limit;
    small.rlim_cur = 8192;
    ::setrlimit(RLIMIT_FSIZE, &small);
    const std::string message = message_of(folder_ / "run.h5");
    ::setrlimit(RLIMIT_FSIZE, &old_limit);
    ::sigaction(SIGXFSZ, &old_action, nullptr);
    EXPECT_THAT(message, HasSubstr((folder_ / "run.h5").string()));
    EXPECT_THAT(message, HasSubstr("File too large"));
    EXPECT_EQ(entries(), 0U);
}

TEST_F(Hdf5Writer, ReportsAnErrorOfHdf5ItselfWithoutPrintingIt) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.ceilings.push_back(run.ceilings[0]);  // two datasets of one name
    testing::internal::CaptureStderr();
    std::string message;
    try {
        write_hdf5(run, folder_ / "run.h5");
    } catch (const RecordError& error) {
        message = error.what();
    }
    EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
    EXPECT_THAT(message, HasSubstr("memory_copy"));
    EXPECT_THAT(message, HasSubstr((folder_ / "run.h5").string()));
    EXPECT_EQ(entries(), 0U);
}

TEST_F(Hdf5Writer, WritesAnEmptyRunAndALostRun) {
    EXPECT_NO_THROW(write_hdf5(refit::record::RunRecord{}, folder_ / "empty.h5"));
    EXPECT_NO_THROW(write_hdf5(refit::test::sample_lost_run(), folder_ / "lost.h5"));
}

TEST_F(Hdf5Writer, TakesArgumentsAndTextsOfMoreThan64KiB) {
    refit::record::RunRecord run = refit::test::sample_record();
    run.argv.assign(10'000, "argument");
    run.scenario_text.assign(200'000, 'x');
    EXPECT_NO_THROW(write_hdf5(run, folder_ / "large.h5"));
}

TEST_F(Hdf5Writer, NamesARecordByStemTimeAndAFreeCounter) {
    const std::string utc = "2026-01-02T03:04:05.678901Z";
    const fs::path first = refit::record::new_record_path(folder_, "bf16/x", utc);
    EXPECT_EQ(first, folder_ / "bf16_x-20260102T030405Z-1.h5");
    std::ofstream{first} << "taken";
    EXPECT_EQ(refit::record::new_record_path(folder_, "bf16/x", utc),
              folder_ / "bf16_x-20260102T030405Z-2.h5");
}

TEST(Hdf5Version, IsThatOfTheLibraryOfThisDistribution) {
    EXPECT_THAT(refit::record::hdf5_version(), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

}  // namespace
