// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The reference: plain loops around kernels/numerics. Every other backend equals it bit for bit.
#include <algorithm>

#include "kernels/cpu/tile_walk.hpp"
#include "kernels/numerics/scale.hpp"

namespace refit::kernels::cpu {
namespace {

class Portable final : public TileWalk {
 public:
    [[nodiscard]] std::string_view name() const override { return "portable"; }

    [[nodiscard]] std::uint32_t max_abs_bits(const std::uint16_t* values,
                                             std::int64_t count) const override {
        std::uint32_t result = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            result = std::max(result, numerics::abs_bits(values[i]));
        }
        return result;
    }

    [[nodiscard]] std::int64_t count_nan_codes(const std::uint8_t* codes,
                                               std::int64_t count) const override {
        std::int64_t result = 0;
        for (std::int64_t i = 0; i < count; ++i) {
            result += numerics::e4m3_is_nan(codes[i]) ? 1 : 0;
        }
        return result;
    }

 protected:
    void patch_amax(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                    const Patch& patch, std::uint32_t* amax_row) const override {
        for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
            const std::uint16_t* source = band.data + (row - band.row_begin) * band.row_stride;
            for (std::int64_t t = patch.tile_begin; t < patch.tile_end; ++t) {
                const std::int64_t begin = t * grid.tile_cols;
                const std::int64_t count = std::min(grid.tile_cols, band.cols - begin);
                amax_row[t] = std::max(amax_row[t], max_amax_part(scaling, source + begin, count));
            }
        }
    }

    void patch_encode(const numerics::TileScaling& scaling, const TileGrid& grid, const Band& band,
                      const Patch& patch, const std::uint32_t* amax_row, std::uint8_t* codes,
                      std::int64_t code_stride, bool /*streaming*/) const override {
        for (std::int64_t t = patch.tile_begin; t < patch.tile_end; ++t) {
            const float operand = numerics::tile_factor(scaling, amax_row[t]).operand;
            const std::int64_t begin = t * grid.tile_cols;
            const std::int64_t end = std::min(begin + grid.tile_cols, band.cols);
            for (std::int64_t row = patch.row_begin; row < patch.row_end; ++row) {
                const std::int64_t local = row - band.row_begin;
                const std::uint16_t* source = band.data + local * band.row_stride;
                std::uint8_t* target = codes + local * code_stride;
                encode_elements(scaling, operand, source + begin, end - begin, target + begin);
            }
        }
    }
};

}  // namespace

numerics::TileFactor tile_factor_of(const numerics::TileScaling& scaling, std::uint32_t amax_bits) {
    return numerics::tile_factor(scaling, amax_bits);
}

void encode_elements(const numerics::TileScaling& scaling, float operand,
                     const std::uint16_t* source, std::int64_t count, std::uint8_t* codes) {
    for (std::int64_t i = 0; i < count; ++i) {
        codes[i] = numerics::encode_element(scaling, source[i], operand);
    }
}

std::uint32_t max_amax_part(const numerics::TileScaling& scaling, const std::uint16_t* source,
                            std::int64_t count) {
    std::uint32_t result = 0;
    for (std::int64_t i = 0; i < count; ++i) {
        result = std::max(result, numerics::amax_part(scaling, numerics::abs_bits(source[i])));
    }
    return result;
}

const Backend* portable_backend() {
    static const Portable backend;
    return &backend;
}

}  // namespace refit::kernels::cpu
