// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <random>

#include "core/error.hpp"
#include "model/hf_config.hpp"
#include "model/model_config.hpp"
#include "unit/weights/checkpoint_bytes.hpp"
#include "weights/checkpoint_directory.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::weights {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::ThrowsMessage;

/// The value of a finite BF16 pattern; for the pattern of Inf what the next exponent would give, so
/// that overflow rounds as IEEE 754 says.
double value_of_bf16(std::uint16_t bits) {
    const int exponent = (bits >> 7) & 0xFF;
    const double mantissa = bits & 0x7F;
    const double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -133) : std::ldexp(128.0 + mantissa, exponent - 134);
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

/// The nearest BF16 by exact comparison of distances, ties to the even pattern. A double holds
/// every F32 and BF16.
std::uint16_t nearest_bf16(double value) {
    if (std::isnan(value)) return 0x7FC0;
    const int sign = std::signbit(value) ? 0x8000 : 0;
    const double magnitude = std::fabs(value);
    if (std::isinf(magnitude)) return static_cast<std::uint16_t>(sign | 0x7F80);
    int low = 0;
    int high = 0x7F80;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        (value_of_bf16(static_cast<std::uint16_t>(middle)) <= magnitude ? low : high) = middle;
    }
    const double below = magnitude - value_of_bf16(static_cast<std::uint16_t>(low));
    const double above = value_of_bf16(static_cast<std::uint16_t>(high)) - magnitude;
    const bool up = above < below || (above == below && low % 2 != 0);
    return static_cast<std::uint16_t>(sign | (up ? high : low));
}

double value_of_f16(std::uint16_t bits) {
    const int exponent = (bits >> 10) & 0x1F;
    const double mantissa = bits & 0x3FF;
    double magnitude =
        exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(1024.0 + mantissa, exponent - 25);
    if (exponent == 0x1F) {
        magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                                  : std::numeric_limits<double>::quiet_NaN();
    }
    return (bits & 0x8000) != 0 ? -magnitude : magnitude;
}

template <typename Word>
std::string little_endian(const std::vector<Word>& words) {
    std::string bytes;
    for (const Word word : words) {
        for (std::size_t i = 0; i < sizeof word; ++i) {
            bytes += static_cast<char>((word >> (8 * i)) & 0xFF);
        }
    }
    return bytes;
}

class SafetensorsWeightsTest : public ScratchFolder {
 protected:
    /// Reads `bytes` as a [rows, cols] tensor "t" of `dtype`, from an address that is not aligned.
    std::vector<std::uint16_t> read_as(const std::string& dtype, std::int64_t rows,
                                       std::int64_t cols, const std::string& bytes) {
        std::string header = R"({"t":{"dtype":")" + dtype + R"(","shape":[)" +
                             std::to_string(rows) + "," + std::to_string(cols) +
                             R"(],"data_offsets":[0,)" + std::to_string(bytes.size()) + "]}}";
        if (header.size() % 2 == 0) header += " ";
        write("model.safetensors", safetensors_bytes(header, bytes));
        const model::TensorSpec tensor{"t", {rows, cols}};
        const auto weights = make_safetensors_weights(folder_, {tensor});
        std::vector<std::uint16_t> out(static_cast<std::size_t>(rows * cols));
        weights->read(tensor, {0, 0, rows, cols}, out.data(), cols);
        return out;
    }
};

TEST_F(SafetensorsWeightsTest, KeepsEveryBf16Pattern) {
    std::vector<std::uint16_t> words(65536);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
    EXPECT_EQ(read_as("BF16", 256, 256, little_endian(words)), words);
}

TEST_F(SafetensorsWeightsTest, RoundsEveryF16PatternToNearestEven) {
    std::vector<std::uint16_t> words(65536);
    for (std::size_t i = 0; i < words.size(); ++i) words[i] = static_cast<std::uint16_t>(i);
    const std::vector<std::uint16_t> out = read_as("F16", 256, 256, little_endian(words));
    for (std::size_t i = 0; i < words.size(); ++i) {
        ASSERT_EQ(out[i], nearest_bf16(value_of_f16(words[i]))) << i;
    }
}

TEST_F(SafetensorsWeightsTest, RoundsF32ToNearestEven) {
    // Ties both ways, their neighbours, the edge to Inf, subnormals, NaNs whose upper half looks
    // like Inf.
    std::vector<std::uint32_t> words = {0x00000000, 0x80000000, 0x3F808000, 0x3F818000, 0x3F807FFF,
                                        0x3F808001, 0x7F7F7FFF, 0x7F7F8000, 0xFF7F8000, 0x7F7FFFFF,
                                        0x7F800000, 0xFF800000, 0x00000001, 0x00008000, 0x00018000,
                                        0x007FFFFF, 0x7F800001, 0xFFFFFFFF, 0x7FC00000, 0x3F800000};
    std::mt19937 random(1);
    while (words.size() < 100'000) words.push_back(static_cast<std::uint32_t>(random()));
    const std::vector<std::uint16_t> out = read_as("F32", 100, 1000, little_endian(words));
    for (std::size_t i = 0; i < words.size(); ++i) {
        ASSERT_EQ(out[i], nearest_bf16(static_cast<double>(std::bit_cast<float>(words[i]))))
            << std::hex << words[i];
    }
    EXPECT_EQ(out[7], 0x7F80) << "the tie above the largest BF16 rounds to Inf";
}

TEST_F(SafetensorsWeightsTest, ReadsRegionsAndRanksOtherThanTwo) {
    write("model.safetensors",
          safetensors_bytes(R"({"m":{"dtype":"BF16","shape":[2,3],"data_offsets":[0,12]},)"
                            R"("s":{"dtype":"BF16","shape":[],"data_offsets":[12,14]},)"
                            R"("v":{"dtype":"F32","shape":[2],"data_offsets":[14,22]}})",
                            little_endian<std::uint16_t>({10, 11, 12, 20, 21, 22, 7}) +
                                little_endian<std::uint32_t>({0x3F800000, 0x40000000})));
    const model::TensorSpec m{"m", {2, 3}};
    const model::TensorSpec s{"s", {}};
    const model::TensorSpec v{"v", {2}};
    const auto weights = make_safetensors_weights(folder_, {m, s, v});
    std::vector<std::uint16_t> out(6, 99);
    weights->read(m, {0, 1, 2, 2}, out.data(), 3);
    EXPECT_THAT(out, ElementsAre(11, 12, 99, 21, 22, 99));
    weights->read(s, {0, 0, 1, 1}, out.data(), 1);
    EXPECT_EQ(out[0], 7);
    weights->read(v, {1, 0, 1, 1}, out.data(), 1);
    EXPECT_EQ(out[0], 0x4000);
    EXPECT_EQ(weights->description(), "safetensors " + folder_.string() + " (1 file)");
    EXPECT_THROW(weights->read(m, {0, 2, 2, 2}, out.data(), 3), core::ShapeError);
    EXPECT_THROW(weights->read(m, {2, 0, 1, 3}, out.data(), 3), core::ShapeError);
    EXPECT_THROW(weights->read(m, {0, 0, 2, 3}, out.data(), 2), core::ShapeError);
}

TEST_F(SafetensorsWeightsTest, RefusesTensorsThatTheModelDoesNotHaveSo) {
    write(
        "model.safetensors",
        safetensors_bytes(R"({"a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},)"
                          R"("q":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[4,6]},)"
                          R"("lm_head.weight":{"dtype":"BF16","shape":[1],"data_offsets":[6,8]}})",
                          "12345678"));
    const auto make = [&](const model::TensorSpec& tensor) {
        return [this, tensor] { (void)make_safetensors_weights(folder_, {tensor}); };
    };
    EXPECT_NO_THROW(make({"a", {2, 1}})()) << "a head that is stored but tied is left alone";
    EXPECT_THAT(make({"b", {2, 1}}), ThrowsMessage<core::FileError>(AllOf(
                                         HasSubstr(folder_.string()), HasSubstr("'b' is missing"),
                                         HasSubstr("[2, 1]"), HasSubstr("nearest: a"))));
    EXPECT_THAT(make({"a", {1, 2}}),
                ThrowsMessage<core::FileError>(
                    AllOf(HasSubstr("'a' is [2, 1]"), HasSubstr("config wants [1, 2]"))));
    EXPECT_THAT(make({"q", {2}}), ThrowsMessage<core::FileError>(AllOf(
                                      HasSubstr("'q' is F8_E4M3"), HasSubstr("BF16, F16 or F32"))));
}

TEST(RealModel, HasTheTensorsOfItsConfig) {
    const char* directory = std::getenv("REFIT_REAL_MODEL");
    if (directory == nullptr) {
        GTEST_SKIP() << "REFIT_REAL_MODEL does not name a folder that ci/real-model.sh wrote";
    }
    const std::filesystem::path path(directory);
    const auto tensors = model::tensors_of(model::read_hf_config(path / "config.json"));
    EXPECT_EQ(CheckpointDirectory(path).names().size(), tensors.size());
    const auto weights = make_safetensors_weights(path, tensors);
    for (const model::TensorSpec& tensor : tensors) {
        const std::int64_t rows = core::matrix_rows(tensor.shape);
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        std::vector<std::uint16_t> values(static_cast<std::size_t>(rows * cols));
        weights->read(tensor, {0, 0, rows, cols}, values.data(), cols);
        std::size_t not_finite = 0;
        for (const std::uint16_t bits : values) not_finite += (bits & 0x7F80) == 0x7F80 ? 1 : 0;
        EXPECT_EQ(not_finite, 0U) << tensor.name;
    }
}

}  // namespace
}  // namespace refit::weights
