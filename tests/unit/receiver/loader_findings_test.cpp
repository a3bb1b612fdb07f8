// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The sentences of the loaders, which people read and scripts compare, in full.
#include "receiver/loader_findings.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace refit::receiver_test {
namespace {

using receiver::BadScales;
using receiver::IncomingCell;
using receiver::LoaderFindings;

class LoaderFinding : public ::testing::Test {
 protected:
    LoaderFinding() {
        meta_.name = "experts.w";
        meta_.shape = {8, 3, 4};
        cell_.meta = &meta_;
        cell_.index = 5;
        cell_.region = {2, 6, 3, 5};
        cell_.record.digest = {0x10, 0x2};
    }

    LoaderFindings report(bool own_format = false) {
        return {findings_, reported_, failed_, own_format};
    }

    void expect_one(const std::string& check, const std::string& measured, const std::string& limit,
                    const std::string& remedy, const std::string& message) {
        ASSERT_EQ(findings_.size(), 1U);
        const core::Finding& one = findings_[0];
        EXPECT_EQ(one.check, check);
        EXPECT_EQ(one.severity, core::Severity::error);
        EXPECT_EQ(one.measured, measured);
        EXPECT_EQ(one.limit, limit);
        EXPECT_EQ(one.remedy, remedy);
        EXPECT_EQ(one.message, message);
        EXPECT_TRUE(failed_);
    }

    const std::string piece_ = receiver::piece_name(3, 1);
    wire::ParameterMeta meta_;
    IncomingCell cell_;
    core::Findings findings_;
    receiver::Reported reported_;
    bool failed_ = false;
};

TEST_F(LoaderFinding, TellOfRowsThatCameTwice) {
    report().rows_came_twice(cell_, piece_);
    expect_one("completeness", "rows [2, 5) twice", "each row once",
               "send each row of a tensor once a refit",
               "experts.w: rows [2, 5) came again in bucket 3 of trainer 1; send each row of a "
               "tensor once a refit");
    // Column 6 of a row of 3 x 4 elements is element [1, 2] of it.
    EXPECT_EQ(findings_[0].index, (std::vector<std::int64_t>{2, 1, 2}));
}

TEST_F(LoaderFinding, TellOfAnotherDigest) {
    report().other_digest(cell_, {0xab, 0x1}, piece_);
    const std::string found = "000000000000000100000000000000ab";
    const std::string sent = "00000000000000020000000000000010";
    expect_one("digest", found, sent, "check the transport and the sender's buffers",
               "experts.w: the bytes of rows [2, 5), columns [6, 11) that came in bucket 3 of "
               "trainer 1 have digest " +
                   found + ", the trainer sent " + sent +
                   "; check the transport and the sender's buffers");
}

TEST_F(LoaderFinding, TellOfUnusableScales) {
    BadScales bad;
    bad.count = 7;
    bad.row = 4;
    bad.col = 11;
    bad.value = -0.5F;
    report().unusable_scales(cell_, bad, piece_);
    expect_one("nonfinite", "-0.500000", "finite and above 0", "repair the quantizer or its input",
               "experts.w: 7 of the scales in bucket 3 of trainer 1 are not usable, the first is "
               "-0.500000; repair the quantizer or its input");
    EXPECT_EQ(findings_[0].index, (std::vector<std::int64_t>{4, 2, 3}));
}

TEST_F(LoaderFinding, TellOfPiecesThatCannotBeLoaded) {
    report().other_refit("a", piece_, 9, 4);
    expect_one(
        "version", "9", "4", "send every bucket again for each refit",
        "a: bucket 3 of trainer 1 belongs to another refit; send every bucket again for each "
        "refit");
    findings_.clear();
    report().damaged_header("a", "what the view said");
    expect_one("digest", "a damaged piece header", "the header of the manifest",
               "check the transport", "a: what the view said; check the transport");
    findings_.clear();
    report().aborted(piece_);
    expect_one("completeness", "aborted", "complete",
               "see the trainer's own finding; nothing of this refit is used",
               "bucket 3 of trainer 1 was aborted by its trainer; see the trainer's own finding; "
               "nothing of this refit is used");
}

TEST_F(LoaderFinding, TellOfRowsThatNeverCame) {
    wire::WantedParameter wanted;
    wanted.name = "q.weight";
    wanted.shape = {16, 4};
    receiver::LoadSpan span;
    span.source = {8, 0, 4, 4};
    report().missing(wanted, span, 1, 9, 2);
    expect_one("completeness", "row 9 never came", "rows [8, 12)",
               "send every row of every tensor in each refit",
               "q.weight: TP rank 1 wants rows [8, 12), and row 9 is the first that never came; "
               "send every row of every tensor in each refit");
    EXPECT_EQ(findings_[0].index, (std::vector<std::int64_t>{9, 2}));
}

TEST_F(LoaderFinding, SayThatRowsAreOfTheParameterWhereItIsTheEnginesOwn) {
    wire::WantedParameter wanted;
    wanted.name = "qkv.weight";
    wanted.shape = {16, 4};
    receiver::LoadSpan span;
    span.source = {0, 0, 16, 4};
    report(true).missing(wanted, span, 0, 3, 0);
    expect_one("completeness", "row 3 of the parameter never came", "rows [0, 16) of the parameter",
               "send every row of every tensor in each refit",
               "qkv.weight: TP rank 0 wants rows [0, 16), and row 3 is the first that never came; "
               "send every row of every tensor in each refit");
}

TEST_F(LoaderFinding, AreOneACheckAndTensorAndOneACellOfAnEnginesOwnParameter) {
    for (const bool own_format : {false, true}) {
        findings_.clear();
        reported_.clear();
        for (const std::uint32_t index : {5U, 6U, 5U}) {
            cell_.index = index;
            report(own_format).other_digest(cell_, {1, 1}, piece_);
            report(own_format).rows_came_twice(cell_, piece_);
        }
        EXPECT_EQ(findings_.size(), own_format ? 4U : 2U);
    }
}

}  // namespace
}  // namespace refit::receiver_test
