// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/safetensors_file.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include <cstring>

#include "core/error.hpp"
#include "unit/weights/checkpoint_bytes.hpp"

namespace refit::weights {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;
using testing::ThrowsMessage;

class SafetensorsFileTest : public ScratchFolder {
 protected:
    void expect_refused_bytes(const std::string& bytes, const std::string& reason,
                              const std::string& tensor = "") {
        const auto path = write("model.safetensors", bytes);
        EXPECT_THAT([&] { const SafetensorsFile file(path); },
                    ThrowsMessage<core::FileError>(
                        AllOf(HasSubstr(path.string()), HasSubstr(reason), HasSubstr(tensor))))
            << bytes.substr(0, 200);
    }
    void expect_refused(const std::string& header, const std::string& data,
                        const std::string& reason, const std::string& tensor = "") {
        expect_refused_bytes(safetensors_bytes(header, data), reason, tensor);
    }
};

// safetensors/src/tensor.rs: sizes are counted in bits, and a tensor must be whole bytes.
TEST_F(SafetensorsFileTest, CountsTypesOfLessThanAByteInBits) {
    const SafetensorsFile file(
        write("model.safetensors",
              safetensors_bytes(R"({"a":{"dtype":"F4","shape":[2,3],"data_offsets":[0,3]},)"
                                R"("b":{"dtype":"F6_E2M3","shape":[4],"data_offsets":[3,6]},)"
                                R"("c":{"dtype":"F6_E3M2","shape":[0],"data_offsets":[6,6]}})",
                                "abcdef")));
    EXPECT_EQ(file.find("a")->bytes, 3U);
    EXPECT_EQ(file.find("b")->dtype, core::DType::f6_e2m3);
    expect_refused(R"({"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}})", "xy", "whole bytes",
                   "'a'");
    expect_refused(R"({"a":{"dtype":"F4","shape":[4],"data_offsets":[0,4]}})", "wxyz", "wants 2",
                   "'a'");
    expect_refused(R"({"a":{"dtype":"F4_E2M1","shape":[2],"data_offsets":[0,1]}})", "x",
                   "unknown dtype", "'a'");
}

TEST_F(SafetensorsFileTest, ReadsTensorsMetadataAndBytes) {
    // The header is padded with spaces, as writers do, and not in the order of the data.
    const SafetensorsFile file(
        write("model.safetensors",
              safetensors_bytes(R"({"b":{"dtype":"F32","shape":[],"data_offsets":[6,10]},)"
                                R"("__metadata__":{"format":"pt","who":"é"},)"
                                R"("a":{"dtype":"BF16","shape":[1,3],"data_offsets":[0,6]},)"
                                R"("c":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[10,12]}}   )",
                                "abcdef0123xy")));
    ASSERT_EQ(file.tensors().size(), 3U);
    const StoredTensor* a = file.find("a");
    ASSERT_NE(a, nullptr);
    EXPECT_EQ(a->dtype, core::DType::bf16);
    EXPECT_THAT(a->shape, ElementsAre(1, 3));
    const StoredTensor* b = file.find("b");
    ASSERT_NE(b, nullptr);
    EXPECT_TRUE(b->shape.empty());
    EXPECT_EQ(file.find("d"), nullptr);
    const auto text = [&](const char* name) {
        const auto bytes = file.bytes(*file.find(name));
        return std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
    };
    EXPECT_EQ(text("a"), "abcdef");
    EXPECT_EQ(text("b"), "0123");
    EXPECT_EQ(text("c"), "xy");
    EXPECT_THAT(file.metadata(), ElementsAre(Pair("format", "pt"), Pair("who", "é")));
}

TEST_F(SafetensorsFileTest, AllowsEmptyTensorsAndFilesWithoutAny) {
    const SafetensorsFile file(write(
        "model.safetensors",
        safetensors_bytes(R"({"full":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},)"
                          R"("at_end":{"dtype":"BF16","shape":[0],"data_offsets":[2,2]},)"
                          R"("at_start":{"dtype":"BF16","shape":[4,0,3],"data_offsets":[0,0]}})",
                          "xy")));
    EXPECT_EQ(file.tensors().size(), 3U);
    EXPECT_TRUE(file.bytes(*file.find("at_start")).empty());
    EXPECT_TRUE(SafetensorsFile(write("none", safetensors_bytes("{}", ""))).tensors().empty());
}

TEST_F(SafetensorsFileTest, RefusesAHeaderLengthThatLies) {
    expect_refused_bytes("", "has 0 bytes");
    expect_refused_bytes(std::string(7, '\0'), "has 7 bytes");
    expect_refused_bytes(length_bytes(3) + "{}", "beyond the end of the file");
    expect_refused_bytes(length_bytes(100'000'001) + "{}", "allows 100000000");
    expect_refused_bytes(length_bytes(~std::uint64_t{0}) + "{}", "allows 100000000");
    expect_refused_bytes(length_bytes(0), "does not start with '{'");
}

TEST_F(SafetensorsFileTest, RefusesAHeaderThatIsNoJsonObject) {
    expect_refused("[]", "", "does not start with '{'");
    expect_refused(" {}", "", "does not start with '{'");
    expect_refused("{", "", "not JSON");
    expect_refused("{}x", "", "not JSON");
    expect_refused("{\"\xFF\":1}", "", "not JSON");
    expect_refused("{\"a\":" + std::string(100'000, '['), "", "nests deeper");
    expect_refused(R"({"a":1})", "", "expected an object", "'a'");
}

TEST_F(SafetensorsFileTest, RefusesNamesThatStandTwice) {
    expect_refused(R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
                   R"("a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})",
                   "x", "twice", "'a'");
    expect_refused(R"({"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})", "x",
                   "twice", "'dtype'");
    expect_refused(R"({"__metadata__":{"k":"1","k":"2"}})", "", "twice", "'k'");
}

TEST_F(SafetensorsFileTest, RefusesMetadataOtherThanStrings) {
    expect_refused(R"({"__metadata__":[]})", "", "expected an object of strings");
    expect_refused(R"({"__metadata__":{"k":1}})", "", "expected a string", "'k'");
}

TEST_F(SafetensorsFileTest, RefusesEntriesThatLackSomething) {
    expect_refused(R"({"a":{"shape":[1],"data_offsets":[0,1]}})", "x", "has no dtype", "'a'");
    expect_refused(R"({"a":{"dtype":"U8","data_offsets":[0,1]}})", "x", "has no shape", "'a'");
    expect_refused(R"({"a":{"dtype":"U8","shape":[1]}})", "x", "has no data_offsets", "'a'");
}

TEST_F(SafetensorsFileTest, RefusesUnknownDtypesAndFalseShapes) {
    const auto with = [](const std::string& dtype, const std::string& shape) {
        return R"({"a":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":[0,1]}})";
    };
    expect_refused(with("\"F9\"", "[1]"), "x", "unknown dtype \"F9\"", "'a'");
    expect_refused(with("8", "[1]"), "x", "unknown dtype 8", "'a'");
    expect_refused(with("\"U8\"", "1"), "x", "expected a list", "'a'");
    expect_refused(with("\"U8\"", "[-1]"), "x", "dimension -1", "'a'");
    expect_refused(with("\"U8\"", "[1.0]"), "x", "dimension 1.0", "'a'");
    expect_refused(with("\"U8\"", "[\"1\"]"), "x", "dimension \"1\"", "'a'");
    expect_refused(with("\"U8\"", "[18446744073709551616]"), "x", "dimension", "'a'");
    expect_refused(with("\"U8\"", "[2]"), "x", "wants 2", "'a'");
    expect_refused(with("\"BF16\"", "[1]"), "x", "wants 2", "'a'");
    // 2^32 * 2^32 + 1 element of one byte: 64 bits alone would see 1.
    expect_refused(with("\"U8\"", "[4294967296,4294967296]"), "x", "exceeds 64 bits", "'a'");
    expect_refused(with("\"F32\"", "[4611686018427387904]"), "x", "exceeds 64 bits", "'a'");
    expect_refused(with("\"U8\"", "[4294967296,4294967296,0]"), "x", "exceeds 64 bits", "'a'");
}

TEST_F(SafetensorsFileTest, RefusesFalseOffsets) {
    const auto with = [](const std::string& offsets) {
        return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + offsets + "}}";
    };
    expect_refused(with("[0]"), "xy", "expected [begin, end]", "'a'");
    expect_refused(with("[0,2,4]"), "xy", "expected [begin, end]", "'a'");
    expect_refused(with("[-2,0]"), "xy", "expected [begin, end]", "'a'");
    expect_refused(with("[0.0,2.0]"), "xy", "expected [begin, end]", "'a'");
    expect_refused(with("[2,0]"), "xy", "reversed", "'a'");
    expect_refused(with("[0,2]"), "x", "beyond the end of the file", "'a'");
    expect_refused(with("[18446744073709551614,18446744073709551615]"), "xy", "beyond the end",
                   "'a'");
    expect_refused(with("[0,2]"), "xyz", "1 bytes follow the last tensor");
    expect_refused("{}", "x", "1 bytes follow the last tensor");
}

TEST_F(SafetensorsFileTest, RefusesRangesThatOverlapOrLeaveHoles) {
    const auto two = [](const std::string& a, const std::string& b) {
        return R"({"a":{"dtype":"U8","shape":[2],"data_offsets":)" + a +
               R"(},"b":{"dtype":"U8","shape":[2],"data_offsets":)" + b + "}}";
    };
    EXPECT_EQ(SafetensorsFile(write("clean", safetensors_bytes(two("[2,4]", "[0,2]"), "wxyz")))
                  .tensors()
                  .front()
                  .name,
              "b");
    expect_refused(two("[0,2]", "[1,3]"), "wxy", "overlap those of 'a' by 1", "'b'");
    expect_refused(two("[0,2]", "[0,2]"), "wx", "overlap", "");
    expect_refused(two("[0,2]", "[3,5]"), "vwxyz", "a hole of 1 bytes", "'b'");
    expect_refused(two("[1,3]", "[3,5]"), "vwxyz", "a hole of 1 bytes", "'a'");
}

TEST_F(SafetensorsFileTest, RefusesWhatIsNoRegularFile) {
    EXPECT_THAT([&] { const SafetensorsFile file(folder_ / "absent"); },
                ThrowsMessage<core::FileError>(HasSubstr("cannot be opened")));
    EXPECT_THAT([&] { const SafetensorsFile file(folder_); },
                ThrowsMessage<core::FileError>(HasSubstr("not a regular file")));
    const auto pipe = folder_ / "pipe";
    ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
    EXPECT_THAT([&] { const SafetensorsFile file(pipe); },
                ThrowsMessage<core::FileError>(HasSubstr("not a regular file")));
}

TEST_F(SafetensorsFileTest, RefusesEveryTruncationOfAGoodFile) {
    const std::string good =
        safetensors_bytes(R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}})", "wxyz");
    EXPECT_NO_THROW(const SafetensorsFile file(write("good", good)));
    for (std::size_t bytes = 0; bytes < good.size(); ++bytes) {
        const auto path = write("cut", good.substr(0, bytes));
        EXPECT_THROW(const SafetensorsFile file(path), core::FileError) << bytes;
    }
}

}  // namespace
}  // namespace refit::weights
