// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// main() of GoogleTest programs that run under mpirun. Rank 0 prints; other ranks print only
// failures, prefixed with their rank. After each test a failure on any rank becomes one on all, so
// that all ranks go through the same tests and end with the same exit code. 77 when every test was
// skipped.
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdlib>
#include <iostream>
#include <sstream>
#include <string>

namespace {

class SilentExceptFailures final : public ::testing::EmptyTestEventListener {
 public:
    explicit SilentExceptFailures(int rank) : rank_(rank) {}

    void OnTestStart(const ::testing::TestInfo& test) override {
        test_ = std::string(test.test_suite_name()) + "." + test.name();
    }

    // GoogleTest holds its lock here; asking it for the current test would wait for ever.
    void OnTestPartResult(const ::testing::TestPartResult& result) override {
        if (!result.failed()) return;
        std::istringstream lines(result.message());
        std::ostringstream text;
        text << "[rank " << rank_ << "] ";
        text << test_ << " ";
        text << (result.file_name() != nullptr ? result.file_name() : "") << ":"
             << result.line_number() << "\n";
        for (std::string line; std::getline(lines, line);)
            text << "[rank " << rank_ << "] " << line << "\n";
        // One write, so that lines of several ranks do not mix.
        std::cerr << text.str() << std::flush;
    }

 private:
    int rank_;
    std::string test_;
};

class Agreement final : public ::testing::EmptyTestEventListener {
 public:
    explicit Agreement(int rank) : rank_(rank) {}

    void OnTestEnd(const ::testing::TestInfo& test) override {
        struct {
            int failed;
            int rank;
        } mine{test.result()->Failed() ? 1 : 0, rank_}, worst{0, 0};
        MPI_Allreduce(&mine, &worst, 1, MPI_2INT, MPI_MAXLOC, MPI_COMM_WORLD);
        if (worst.failed != 0 && mine.failed == 0 && rank_ == 0) {
            ADD_FAILURE() << "failed on rank " << worst.rank << "; its output begins with [rank "
                          << worst.rank << "]";
        }
    }

 private:
    int rank_;
};

}  // namespace

int main(int argc, char** argv) {
    // More ranks than cores is the rule here; a rank that waits without yielding takes the core of
    // the one it waits for.
    setenv("OMPI_MCA_mpi_yield_when_idle", "1", 0);
    MPI_Init(&argc, &argv);
    int rank = 0;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    ::testing::InitGoogleTest(&argc, argv);
    ::testing::TestEventListeners& listeners = ::testing::UnitTest::GetInstance()->listeners();
    if (rank != 0) {
        delete listeners.Release(listeners.default_result_printer());
        delete listeners.Release(listeners.default_xml_generator());
        listeners.Append(new SilentExceptFailures(rank));
    }
    // Last, because ends are reported in reverse order: the verdict is the world's before it is
    // printed.
    listeners.Append(new Agreement(rank));
    int code = RUN_ALL_TESTS();
    const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
    if (code == 0 && all.test_to_run_count() > 0 &&
        all.skipped_test_count() == all.test_to_run_count())
        code = 77;
    int worst = 0;
    const int failed = code != 0 && code != 77 ? 1 : 0;
    MPI_Allreduce(&failed, &worst, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    MPI_Finalize();
    return worst != 0 ? 1 : code;
}
