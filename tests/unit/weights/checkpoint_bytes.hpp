// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Checkpoints made byte by byte after the text of the safetensors format, without our reader or any
// writer.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>

namespace refit::weights {

/// The 8 bytes of the header length, little-endian.
inline std::string length_bytes(std::uint64_t length) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) bytes += static_cast<char>((length >> (8 * i)) & 0xFF);
    return bytes;
}

/// A whole file: length, header, data.
inline std::string safetensors_bytes(const std::string& header, const std::string& data) {
    return length_bytes(header.size()) + header + data;
}

/// A folder of its own for each test, removed behind it.
class ScratchFolder : public testing::Test {
 protected:
    void SetUp() override {
        const auto* info = testing::UnitTest::GetInstance()->current_test_info();
        folder_ = std::filesystem::path(testing::TempDir()) /
                  (std::string("refit_") + info->test_suite_name() + "_" + info->name());
        std::filesystem::remove_all(folder_);
        std::filesystem::create_directories(folder_);
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    std::filesystem::path write(const std::string& name, const std::string& bytes) const {
        std::ofstream out(folder_ / name, std::ios::binary);
        out << bytes;
        out.close();
        EXPECT_TRUE(out) << name;
        return folder_ / name;
    }

    std::filesystem::path folder_;
};

}  // namespace refit::weights
