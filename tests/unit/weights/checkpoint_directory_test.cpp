// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "core/error.hpp"
#include "unit/weights/checkpoint_bytes.hpp"
#include "weights/checkpoint_directory.hpp"

namespace refit::weights {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

class CheckpointDirectoryTest : public ScratchFolder {
 protected:
    /// A shard whose tensors are of one byte each.
    void write_shard(const std::string& file, const std::vector<std::string>& tensors) {
        std::string header = "{";
        for (std::size_t i = 0; i < tensors.size(); ++i) {
            header += (i == 0 ? "\"" : ",\"") + tensors[i] +
                      R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(i) + "," +
                      std::to_string(i + 1) + "]}";
        }
        write(file, safetensors_bytes(header + "}", std::string(tensors.size(), 'x')));
    }
    void write_index(const std::string& weight_map) {
        write("model.safetensors.index.json",
              R"({"metadata":{"total_size":3},"weight_map":)" + weight_map + "}");
    }
    void expect_refused(const std::string& reason, const std::string& more = "") {
        EXPECT_THAT([&] { const CheckpointDirectory checkpoint(folder_); },
                    ThrowsMessage<core::FileError>(
                        AllOf(HasSubstr(folder_.string()), HasSubstr(reason), HasSubstr(more))));
    }
};

TEST_F(CheckpointDirectoryTest, ReadsShardsByTheirIndex) {
    write_shard("model-00001-of-00002.safetensors", {"a", "b"});
    write_shard("model-00002-of-00002.safetensors", {"c"});
    write_shard("unrelated.safetensors", {"a"});
    write_index(R"({"a":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors",)"
                R"("b":"model-00001-of-00002.safetensors"})");
    const CheckpointDirectory checkpoint(folder_);
    EXPECT_EQ(checkpoint.file_count(), 2U);
    EXPECT_THAT(checkpoint.names(), ElementsAre("a", "b", "c"));
    const auto at = checkpoint.find("c");
    ASSERT_NE(at.tensor, nullptr);
    EXPECT_EQ(at.file->path().filename(), "model-00002-of-00002.safetensors");
    EXPECT_EQ(checkpoint.find("d").tensor, nullptr);
    EXPECT_EQ(checkpoint.find("d").file, nullptr);
}

TEST_F(CheckpointDirectoryTest, ReportsATensorInTwoFilesAndKeepsTheIndexedOne) {
    write_shard("model-00001-of-00002.safetensors", {"a", "b"});
    write_shard("model-00002-of-00002.safetensors", {"b", "c"});
    write_index(R"({"a":"model-00001-of-00002.safetensors","c":"model-00002-of-00002.safetensors",)"
                R"("b":"model-00002-of-00002.safetensors"})");
    const CheckpointDirectory checkpoint(folder_, IndexRule::reported);
    ASSERT_EQ(checkpoint.duplicates().size(), 1U);
    const CheckpointDirectory::Duplicate& twice = checkpoint.duplicates()[0];
    EXPECT_EQ(twice.kept.file->path().filename(), "model-00002-of-00002.safetensors");
    EXPECT_EQ(twice.other.file->path().filename(), "model-00001-of-00002.safetensors");
    EXPECT_EQ(checkpoint.find("b").file, twice.kept.file);
    EXPECT_TRUE(checkpoint.index_problems().empty());
    expect_refused("'b' is also in", "one file");
}

TEST_F(CheckpointDirectoryTest, ReadsShardsWithoutAnIndexOnlyToReportThem) {
    write_shard("model-00001-of-00002.safetensors", {"a"});
    write_shard("model-00002-of-00002.safetensors", {"b"});
    write_shard("consolidated.safetensors", {"c"});
    const CheckpointDirectory checkpoint(folder_, IndexRule::reported);
    EXPECT_TRUE(checkpoint.lacks_index());
    EXPECT_THAT(checkpoint.names(), ElementsAre("a", "b"));
    expect_refused("has 3", "index");
}

TEST_F(CheckpointDirectoryTest, CountsShardsWithoutAnIndexByTheirNames) {
    write_shard("model-00001-of-00003.safetensors", {"a"});
    write_shard("model-00003-of-00003.safetensors", {"b"});
    EXPECT_THAT([&] { const CheckpointDirectory checkpoint(folder_, IndexRule::reported); },
                ThrowsMessage<core::FileError>(
                    AllOf(HasSubstr("has 2 shards"), HasSubstr("one of 00003"))));
}

TEST_F(CheckpointDirectoryTest, ReadsOneFileOfAnyName) {
    write_shard("weights.safetensors", {"a"});
    EXPECT_THAT(CheckpointDirectory(folder_).names(), ElementsAre("a"));
    write_shard("model.safetensors", {"b"});
    EXPECT_THAT(CheckpointDirectory(folder_).names(), ElementsAre("b"));
}

TEST_F(CheckpointDirectoryTest, RefusesNoneOrSeveralFilesWithoutAnIndex) {
    expect_refused("no *.safetensors");
    write_shard("one.safetensors", {"a"});
    write_shard("two.safetensors", {"b"});
    expect_refused("2 (one.safetensors, two.safetensors)", "an index");
    EXPECT_THAT([&] { const CheckpointDirectory checkpoint(folder_ / "one.safetensors"); },
                ThrowsMessage<core::FileError>(HasSubstr("is not a directory")));
}

TEST_F(CheckpointDirectoryTest, RefusesIndexEntriesThatLeaveTheDirectory) {
    write_shard("a.safetensors", {"a"});
    for (const char* file :
         {"../a.safetensors", "sub/../../a.safetensors", "/etc/passwd", "", ".."}) {
        write_index(std::string(R"({"a":")") + file + "\"}");
        expect_refused("outside of the checkpoint's directory", "'a'");
    }
}

TEST_F(CheckpointDirectoryTest, RefusesAMissingShard) {
    write_shard("a.safetensors", {"a"});
    write_index(R"({"a":"a.safetensors","b":"b.safetensors"})");
    expect_refused("b.safetensors: is missing", "'b'");
}

TEST_F(CheckpointDirectoryTest, RefusesATensorThatIsNotInItsShard) {
    write_shard("a.safetensors", {"a"});
    write_shard("b.safetensors", {"b"});
    write_index(R"({"a":"b.safetensors","b":"a.safetensors"})");
    expect_refused("is not in it", "fetch index and shards from one revision");
}

TEST_F(CheckpointDirectoryTest, ReportsADisagreementOfTheIndexWhereItIsAskedTo) {
    write_shard("a.safetensors", {"a", "extra"});
    write_index(R"({"a":"a.safetensors","b":"a.safetensors"})");
    const CheckpointDirectory checkpoint(folder_, IndexRule::reported);
    EXPECT_THAT(checkpoint.names(), ElementsAre("a", "extra"));
    ASSERT_EQ(checkpoint.index_problems().size(), 2U);
    EXPECT_EQ(checkpoint.index_problems()[0].tensor, "b");
    EXPECT_EQ(checkpoint.index_problems()[1].tensor, "extra");
}

TEST_F(CheckpointDirectoryTest, ReadsBytesAnewThatWereReleased) {
    const std::string values(20000, 'v');
    write("model.safetensors",
          safetensors_bytes(R"({"a":{"dtype":"U8","shape":[20000],"data_offsets":[0,20000]}})",
                            values));
    const SafetensorsFile file(folder_ / "model.safetensors");
    const StoredTensor& tensor = *file.find("a");
    for (const std::size_t end : {std::size_t{0}, std::size_t{100}, tensor.bytes}) {
        file.release(tensor, 0, end);
        const auto bytes = file.bytes(tensor);
        EXPECT_EQ(std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size()), values);
    }
}

TEST_F(CheckpointDirectoryTest, RefusesATensorThatTheIndexDoesNotList) {
    write_shard("a.safetensors", {"a", "extra"});
    write_index(R"({"a":"a.safetensors"})");
    expect_refused("'extra'", "does not list it");
}

TEST_F(CheckpointDirectoryTest, RefusesANameInTwoFiles) {
    write_shard("a.safetensors", {"a", "b"});
    write_shard("b.safetensors", {"b"});
    write_index(R"({"a":"a.safetensors","b":"b.safetensors"})");
    expect_refused("'b' is also in", "one file");
}

TEST_F(CheckpointDirectoryTest, RefusesAMalformedIndex) {
    write_shard("a.safetensors", {"a"});
    const auto index = [&](const std::string& text) {
        write("model.safetensors.index.json", text);
    };
    index("{");
    expect_refused("is not JSON");
    index("[]");
    expect_refused("no weight_map object");
    index(R"({"weight_map":[]})");
    expect_refused("no weight_map object");
    index(R"({"weight_map":{}})");
    expect_refused("weight_map is empty");
    index(R"({"weight_map":{"a":1}})");
    expect_refused("expected a file name", "'a'");
    index(R"({"weight_map":{"a":"a.safetensors","a":"b.safetensors"}})");
    expect_refused("'a' twice");
}

}  // namespace
}  // namespace refit::weights
