// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Files are read back by hand from the format's rules, and by SafetensorsFile.
#include "weights/safetensors_writer.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <stdexcept>

#include "core/error.hpp"
#include "weights/safetensors_file.hpp"

namespace refit::weights {
namespace {

class SafetensorsWriter : public ::testing::Test {
 protected:
    void SetUp() override {
        folder_ = std::filesystem::temp_directory_path() /
                  ("refit_writer_" + std::to_string(getpid()) + "_" +
                   ::testing::UnitTest::GetInstance()->current_test_info()->name());
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    TensorToWrite tensor(const std::string& name, core::DType dtype, core::Shape shape,
                         unsigned seed) {
        auto bytes = std::make_shared<std::vector<std::byte>>(
            static_cast<std::size_t>(core::element_count(shape) * core::size_bytes(dtype)));
        for (std::size_t i = 0; i < bytes->size(); ++i) {
            (*bytes)[i] = static_cast<std::byte>(i * 31 + seed);
        }
        contents_[name] = bytes;
        return {name, dtype, std::move(shape),
                [bytes] { return std::span<const std::byte>(*bytes); }};
    }
    std::vector<TensorToWrite> sample() {
        return {tensor("b.weight", core::DType::f8_e4m3, {3, 5}, 1),
                tensor("a.weight", core::DType::f8_e4m3, {7}, 2),
                tensor("norm.weight", core::DType::bf16, {4}, 3),
                tensor("scalar", core::DType::f32, {}, 4),
                tensor("empty", core::DType::bf16, {0, 9}, 5),
                tensor("b.weight_scale_inv", core::DType::f32, {2, 1}, 6)};
    }
    [[nodiscard]] std::string text_of(const std::filesystem::path& path) const {
        std::ifstream file(path, std::ios::binary);
        std::ostringstream text;
        text << file.rdbuf();
        return text.str();
    }
    [[nodiscard]] std::vector<std::string> names_in_folder() const {
        std::vector<std::string> names;
        for (const auto& entry : std::filesystem::directory_iterator(folder_)) {
            names.push_back(entry.path().filename());
        }
        return names;
    }

    std::filesystem::path folder_;
    std::map<std::string, std::shared_ptr<std::vector<std::byte>>> contents_;
};

TEST_F(SafetensorsWriter, WritesAFileThatFollowsTheFormat) {
    const std::filesystem::path path = folder_ / "model.safetensors";
    write_safetensors(path, sample(), {{"format", "pt"}});
    const std::string text = text_of(path);
    ASSERT_GE(text.size(), 8U);
    std::uint64_t length = 0;
    for (int i = 7; i >= 0; --i) {
        length = length << 8 | static_cast<unsigned char>(text[static_cast<std::size_t>(i)]);
    }
    EXPECT_EQ(length % 8, 0U);
    ASSERT_LE(8 + length, text.size());
    const std::string header_text = text.substr(8, length);
    EXPECT_EQ(header_text.front(), '{');
    EXPECT_EQ(header_text.find_last_not_of(' '), header_text.rfind('}'));
    const auto header = nlohmann::ordered_json::parse(header_text);
    EXPECT_EQ(header.at("__metadata__").at("format"), "pt");

    // Falling alignment, then name; no gaps; up to the end of the file.
    std::vector<std::string> order;
    std::uint64_t next = 0;
    for (const auto& [name, row] : header.items()) {
        if (name == "__metadata__") continue;
        order.push_back(name);
        EXPECT_EQ(row.at("data_offsets").at(0), next);
        next = row.at("data_offsets").at(1);
        const std::vector<std::byte>& bytes = *contents_.at(name);
        const std::uint64_t begin = row.at("data_offsets").at(0);
        ASSERT_EQ(next - begin, bytes.size()) << name;
        if (bytes.empty()) continue;
        EXPECT_EQ(std::memcmp(text.data() + 8 + length + begin, bytes.data(), bytes.size()), 0)
            << name;
    }
    EXPECT_EQ(8 + length + next, text.size());
    EXPECT_EQ(order, (std::vector<std::string>{"b.weight_scale_inv", "scalar", "empty",
                                               "norm.weight", "a.weight", "b.weight"}));
    EXPECT_EQ(header.at("scalar").at("shape"), nlohmann::json::array());
    EXPECT_EQ(header.at("b.weight").at("dtype"), "F8_E4M3");
    EXPECT_EQ(names_in_folder(), (std::vector<std::string>{"model.safetensors"}));
}

TEST_F(SafetensorsWriter, IsReadBackByTheReader) {
    const std::filesystem::path path = folder_ / "model.safetensors";
    write_safetensors(path, sample(), {{"recipe", "prime-rl-blockwise"}});
    const SafetensorsFile file(path);
    EXPECT_EQ(file.tensors().size(), contents_.size());
    EXPECT_EQ(file.metadata().at("recipe"), "prime-rl-blockwise");
    for (const auto& [name, bytes] : contents_) {
        const StoredTensor* stored = file.find(name);
        ASSERT_NE(stored, nullptr) << name;
        const auto read = file.bytes(*stored);
        EXPECT_TRUE(std::equal(read.begin(), read.end(), bytes->begin(), bytes->end())) << name;
    }
}

TEST_F(SafetensorsWriter, WritesNoMetadataWhereThereIsNone) {
    const std::filesystem::path path = folder_ / "model.safetensors";
    write_safetensors(path, {}, {});
    EXPECT_EQ(text_of(path), std::string("\x08\0\0\0\0\0\0\0{}      ", 16));
}

TEST_F(SafetensorsWriter, AFileInPartsHasTheBytesOfAFileAtOnce) {
    const std::vector<TensorToWrite> tensors = sample();
    write_safetensors(folder_ / "once.safetensors", tensors, {{"format", "pt"}});
    std::vector<TensorLayout> layout;
    for (const TensorToWrite& tensor : tensors) {
        layout.push_back({tensor.name, tensor.dtype, tensor.shape});
    }
    SafetensorsStream file(folder_ / "parts.safetensors", layout, {{"format", "pt"}});
    // Backwards, and each tensor from its last part to its first.
    for (auto tensor = tensors.rbegin(); tensor != tensors.rend(); ++tensor) {
        const std::span<const std::byte> bytes = tensor->bytes();
        const std::size_t half = bytes.size() / 2;
        file.write(tensor->name, half, bytes.subspan(half));
        file.write(tensor->name, 0, bytes.first(half));
    }
    EXPECT_FALSE(std::filesystem::exists(folder_ / "parts.safetensors"));
    file.keep();
    EXPECT_EQ(text_of(folder_ / "parts.safetensors"), text_of(folder_ / "once.safetensors"));
    EXPECT_EQ(names_in_folder().size(), 2U);
}

TEST_F(SafetensorsWriter, AFileInPartsRefusesWhatItsHeaderDoesNotHave) {
    const std::vector<std::byte> bytes(16);
    {
        SafetensorsStream file(folder_ / "parts.safetensors",
                               {{"a", core::DType::f32, {3}}, {"b", core::DType::u8, {2}}}, {});
        EXPECT_THROW(file.write("c", 0, bytes), core::FileError);
        EXPECT_THROW(file.write("a", 0, bytes), core::FileError);
        EXPECT_THROW(file.write("a", 13, std::span(bytes).first(0)), core::FileError);
        file.write("a", 4, std::span(bytes).first(8));
        file.write("b", 0, std::span(bytes).first(2));
        try {
            file.keep();
            FAIL();
        } catch (const core::FileError& error) {
            const std::string text = error.what();
            EXPECT_NE(text.find("tensor a has 12 bytes, 8 were written"), std::string::npos)
                << text;
        }
    }
    EXPECT_TRUE(names_in_folder().empty());
}

TEST_F(SafetensorsWriter, ReplacesAnOlderFile) {
    const std::filesystem::path path = folder_ / "model.safetensors";
    std::ofstream(path) << "old";
    write_safetensors(path, sample(), {});
    EXPECT_EQ(SafetensorsFile(path).tensors().size(), 6U);
}

TEST_F(SafetensorsWriter, NamesAFolderThatIsMissing) {
    const std::filesystem::path path = folder_ / "none" / "model.safetensors";
    try {
        write_safetensors(path, sample(), {});
        FAIL();
    } catch (const core::FileError& error) {
        EXPECT_NE(std::string(error.what()).find(path.string()), std::string::npos);
        EXPECT_NE(std::string(error.what()).find("No such file"), std::string::npos);
    }
}

TEST_F(SafetensorsWriter, LeavesNothingBehindAndKeepsTheOldFileWhenTheDiskIsFull) {
    // A limit on the size of files stands for a full disk: the write fails in the middle.
    const std::filesystem::path path = folder_ / "model.safetensors";
    std::ofstream(path) << "old";
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
    const auto handler = signal(SIGXFSZ, SIG_IGN);
    rlimit small = before;
    small.rlim_cur = 4096;
    ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
    std::string words;
    try {
        write_safetensors(path, {tensor("large", core::DType::f32, {64, 64}, 1)}, {});
    } catch (const core::FileError& error) {
        words = error.what();
    }
    setrlimit(RLIMIT_FSIZE, &before);
    signal(SIGXFSZ, handler);
    EXPECT_NE(words.find("cannot write " + path.string()), std::string::npos) << words;
    EXPECT_EQ(text_of(path), "old");
    EXPECT_EQ(names_in_folder(), (std::vector<std::string>{"model.safetensors"}));
}

TEST_F(SafetensorsWriter, RefusesBytesThatDoNotFitTheShapeAndLeavesNothingBehind) {
    std::vector<TensorToWrite> tensors = sample();
    tensors[2].shape = {5};
    try {
        write_safetensors(folder_ / "model.safetensors", tensors, {});
        FAIL();
    } catch (const core::FileError& error) {
        const std::string text = error.what();
        for (const char* words : {"norm.weight", "8 bytes", "[5]", "10"}) {
            EXPECT_NE(text.find(words), std::string::npos) << text;
        }
    }
    EXPECT_TRUE(names_in_folder().empty());
}

TEST_F(SafetensorsWriter, LeavesNothingBehindWhenATensorCannotBeMade) {
    std::vector<TensorToWrite> tensors = sample();
    tensors[0].bytes = []() -> std::span<const std::byte> { throw std::runtime_error("no"); };
    EXPECT_THROW(write_safetensors(folder_ / "model.safetensors", tensors, {}), std::runtime_error);
    EXPECT_TRUE(names_in_folder().empty());
}

TEST_F(SafetensorsWriter, RefusesATargetThatIsNoFile) {
    // Renaming over a device or a folder would take its place.
    std::filesystem::create_directories(folder_ / "model.safetensors");
    EXPECT_THROW(write_safetensors(folder_ / "model.safetensors", sample(), {}), core::FileError);
    EXPECT_EQ(names_in_folder(), (std::vector<std::string>{"model.safetensors"}));
    const std::filesystem::path pipe = folder_ / "pipe";
    ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
    EXPECT_THROW(write_safetensors(pipe, sample(), {}), core::FileError);
    EXPECT_TRUE(std::filesystem::is_fifo(pipe));
}

}  // namespace
}  // namespace refit::weights
