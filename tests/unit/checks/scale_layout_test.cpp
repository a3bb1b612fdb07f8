// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/scale_layout.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace refit::checks {
namespace {

using core::DType;
using core::Shape;

std::string name_of(const Shape& weight, const Shape& scale, DType dtype = DType::f32) {
    const auto layout = scale_layout(weight, dtype, scale);
    return layout ? layout->name : "none";
}

TEST(ScaleLayout, KnowsTheShapesOfEveryScheme) {
    const Shape weight = {576, 7168};
    EXPECT_EQ(name_of(weight, {5, 56}), "block");
    EXPECT_EQ(name_of(weight, {5, 1, 56, 1}), "block");
    EXPECT_EQ(name_of(weight, {576}), "row");
    EXPECT_EQ(name_of(weight, {576, 1}), "row");
    EXPECT_EQ(name_of(weight, {}), "tensor");
    EXPECT_EQ(name_of(weight, {1}), "tensor");
    EXPECT_EQ(name_of(weight, {576, 224}, DType::u8), "mx");
    EXPECT_EQ(name_of(weight, {576, 224}, DType::f8_e8m0), "mx");
}

TEST(ScaleLayout, HasNoneForAShapeThatIsOff) {
    const Shape weight = {576, 7168};
    for (const Shape& scale : std::vector<Shape>{
             {4, 56}, {5, 57}, {56, 5}, {1, 5, 56}, {575}, {1, 576}, {2}, {576, 2}, {576, 224}}) {
        EXPECT_EQ(name_of(weight, scale), "none") << core::to_string(scale);
    }
    EXPECT_EQ(name_of({4, 576, 7168}, {5, 56}), "none") << "not a matrix";
}

TEST(ScaleLayout, FindsTheScaleOfAnElementOfARaggedMatrix) {
    const auto layout = scale_layout({130, 257}, DType::f32, {2, 3});
    ASSERT_TRUE(layout);
    EXPECT_EQ(layout->tile_rows, 128);
    EXPECT_EQ(129 / layout->tile_rows * layout->grid_cols + 256 / layout->tile_cols, 5);
}

TEST(ScaleLayout, SeesACodeThatIsNotZeroUnderAScaleOfZero) {
    // Four rows, one scale each; the second and fourth are zero.
    const auto layout = scale_layout({4, 3}, DType::f32, {4, 1});
    ASSERT_TRUE(layout);
    const std::vector<double> scales = {1.0, 0.0, 1.0, 0.0};
    std::vector<std::byte> codes(12, std::byte{0x38});
    for (const std::size_t row : {1UL, 3UL}) {
        for (std::size_t col = 0; col < 3; ++col) codes[row * 3 + col] = std::byte{0x80};
    }
    EXPECT_TRUE(zero_scales_hold_zeros(codes, {4, 3}, scales, *layout));
    codes[11] = std::byte{0x01};
    EXPECT_FALSE(zero_scales_hold_zeros(codes, {4, 3}, scales, *layout));
}

TEST(ScaleLayout, TriesTheDeclaredBlocksBeforeThoseOf128) {
    const std::vector<BlockSize> declared = {{96, 96}, {1, 32}};
    const auto of = [&](const core::Shape& weight, const core::Shape& scale,
                        const std::vector<BlockSize>& blocks) {
        const auto layout = scale_layout(weight, DType::f32, scale, blocks);
        return layout ? std::pair(layout->tile_rows, layout->tile_cols)
                      : std::pair(std::int64_t{0}, std::int64_t{0});
    };
    using Tile = std::pair<std::int64_t, std::int64_t>;
    // 190 rows are two blocks of either size, which are not the same blocks.
    EXPECT_EQ(of({190, 256}, {2, 3}, declared), (Tile{96, 96}));
    EXPECT_EQ(of({190, 190}, {2, 2}, declared), (Tile{96, 96}));
    EXPECT_EQ(of({190, 190}, {2, 2}, {}), (Tile{128, 128}));
    EXPECT_EQ(of({190, 64}, {190, 2}, declared), (Tile{1, 32}));
    EXPECT_EQ(of({256, 256}, {2, 2}, declared), (Tile{128, 128}));
    EXPECT_EQ(of({256, 256}, {4, 4}, declared), (Tile{0, 0}));
    EXPECT_EQ(of({256, 256}, {2, 2}, {{0, 64}}), (Tile{128, 128}));
}

TEST(ScaleLayout, TellsScalesByTheirNames) {
    EXPECT_EQ(weight_of_scale("a.q_proj.weight_scale"), "a.q_proj.weight");
    EXPECT_EQ(weight_of_scale("a.q_proj.weight_scale_inv"), "a.q_proj.weight");
    EXPECT_EQ(weight_of_scale("a.k_proj.k_scale"), "");
    EXPECT_EQ(weight_of_scale("a.q_proj.weight"), "");
    EXPECT_TRUE(is_scale_name("a.k_proj.k_scale"));
    EXPECT_TRUE(is_scale_name("a.q_proj.input_scale"));
    EXPECT_FALSE(is_scale_name("a.scale_proj.weight"));
}

}  // namespace
}  // namespace refit::checks
