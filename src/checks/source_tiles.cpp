// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/source_tiles.hpp"

#include <algorithm>
#include <cmath>

#include "checks/decode.hpp"
#include "checks/element_walk.hpp"

namespace refit::checks {

namespace {

/// Elements of a stripe where the tiles leave the choice: 2 MiB of BF16.
constexpr std::int64_t kStripeElements = std::int64_t{1} << 20;

std::int64_t align_down(std::int64_t value, std::int64_t step) {
    return value / step * step;
}

std::int64_t rows_that_fit(std::int64_t cols) {
    return std::max<std::int64_t>(1, kStripeElements / std::max<std::int64_t>(1, cols));
}

/// value rounded up to a power of two; value > 0.
double next_power_of_two(double value) {
    int exponent = 0;
    // value = fraction * 2^exponent with fraction in [0.5, 1): exact, where log2 would round.
    const double fraction = std::frexp(value, &exponent);
    return std::ldexp(1.0, fraction == 0.5 ? exponent - 1 : exponent);
}

}  // namespace

void TileMaximum::add(const std::uint16_t* values, std::int64_t count) {
    const std::uint16_t largest = largest_magnitude(values, count);
    if (largest < 0x7f80U) {
        bits = std::max(bits, largest);
        return;
    }
    finite = false;
    for (std::int64_t i = 0; i < count; ++i) {
        const auto magnitude = static_cast<std::uint16_t>(values[i] & 0x7fffU);
        if (magnitude < 0x7f80U) bits = std::max(bits, magnitude);
    }
}

double own_scale(double amax, const SchemeFacts& facts) {
    if (amax == 0.0) return 0.0;
    const double scale = std::max(amax / kE4m3Max, facts.scale_floor);
    return facts.power_of_two_scales ? next_power_of_two(scale) : scale;
}

TileMaximum tensor_maximum(const model::TensorSpec& tensor, const weights::WeightSource& source,
                           const std::function<void()>& on_progress) {
    const std::int64_t rows = core::matrix_rows(tensor.shape);
    const std::int64_t cols = core::matrix_cols(tensor.shape);
    const std::int64_t step = rows_that_fit(cols);
    std::vector<std::uint16_t> values(static_cast<std::size_t>(std::min(step, rows) * cols));
    TileMaximum maximum;
    for (std::int64_t row = 0; row < rows; row += step) {
        const std::int64_t count = std::min(step, rows - row);
        source.read(tensor, {row, 0, count, cols}, values.data(), cols);
        maximum.add(values.data(), count * cols);
        on_progress();
    }
    return maximum;
}

SourceTiles::SourceTiles(const model::TensorSpec& tensor, const weights::WeightSource& source,
                         const SchemeFacts& facts, const core::Region& part,
                         const TileMaximum& whole)
    : tensor_(tensor),
      source_(source),
      facts_(facts),
      part_(part),
      rows_(core::matrix_rows(tensor.shape)),
      cols_(core::matrix_cols(tensor.shape)),
      whole_tensor_(facts.tile_rows == 0) {
    if (whole_tensor_) {
        tile_rows_ = rows_;
        tile_cols_ = cols_;
        stripe_.col = part_.col;
        stripe_.cols = part_.cols;
        stripe_rows_ = rows_that_fit(part_.cols);
        tiles_ = {finished(whole, false)};
    } else {
        tile_rows_ = facts.tile_rows;
        tile_cols_ = facts.tile_cols == 0 ? cols_ : facts.tile_cols;
        stripe_.col = align_down(part_.col, tile_cols_);
        const std::int64_t end = core::ceil_div(part_.col + part_.cols, tile_cols_) * tile_cols_;
        stripe_.cols = std::min(end, cols_) - stripe_.col;
        stripe_rows_ = std::max(tile_rows_, align_down(rows_that_fit(stripe_.cols), tile_rows_));
    }
    tiles_across_ = core::ceil_div(std::max<std::int64_t>(1, stripe_.cols), tile_cols_);
    if (facts.pad_last_element && rows_ * cols_ > 0) {
        source_.read(tensor_, {rows_ - 1, cols_ - 1, 1, 1}, &last_element_, 1);
        last_element_ = static_cast<std::uint16_t>(last_element_ & 0x7fffU);
        if (nonfinite_bf16(last_element_)) last_element_ = 0;
    }
}

std::int64_t SourceTiles::first_row() const {
    return whole_tensor_ ? part_.row : align_down(part_.row, tile_rows_);
}

void SourceTiles::read(std::int64_t row) {
    stripe_.row = row;
    // Rows below the part are wanted only as far as its last tile reaches.
    const std::int64_t part_end = part_.row + part_.rows;
    const std::int64_t wanted_end =
        whole_tensor_ ? part_end
                      : std::min(core::ceil_div(part_end, tile_rows_) * tile_rows_, rows_);
    stripe_.rows = std::min(stripe_rows_, wanted_end - row);
    values_.resize(static_cast<std::size_t>(stripe_.rows * stripe_.cols));
    source_.read(tensor_, stripe_, values_.data(), stripe_.cols);
    if (!whole_tensor_) take_maxima();
}

void SourceTiles::take_maxima() {
    const std::int64_t tiles_down = core::ceil_div(stripe_.rows, tile_rows_);
    std::vector<TileMaximum> maxima(static_cast<std::size_t>(tiles_down * tiles_across_));
    for (std::int64_t r = 0; r < stripe_.rows; ++r) {
        for (std::int64_t t = 0; t < tiles_across_; ++t) {
            const std::int64_t begin = t * tile_cols_;
            const std::int64_t count = std::min(tile_cols_, stripe_.cols - begin);
            maxima[static_cast<std::size_t>(r / tile_rows_ * tiles_across_ + t)].add(
                values_.data() + r * stripe_.cols + begin, count);
        }
    }
    tiles_.resize(maxima.size());
    for (std::int64_t d = 0; d < tiles_down; ++d) {
        for (std::int64_t t = 0; t < tiles_across_; ++t) {
            const bool ragged = stripe_.row + (d + 1) * tile_rows_ > rows_ ||
                                stripe_.col + (t + 1) * tile_cols_ > cols_;
            const auto index = static_cast<std::size_t>(d * tiles_across_ + t);
            tiles_[index] = finished(maxima[index], ragged);
        }
    }
}

SourceTiles::Tile SourceTiles::finished(const TileMaximum& maximum, bool ragged) const {
    const std::uint16_t bits = ragged ? std::max(maximum.bits, last_element_) : maximum.bits;
    return {own_scale(decode_bf16(bits), facts_), maximum.finite};
}

const std::uint16_t* SourceTiles::at(std::int64_t row, std::int64_t col) const {
    return values_.data() + (row - stripe_.row) * stripe_.cols + (col - stripe_.col);
}

std::size_t SourceTiles::tile_index(std::int64_t row, std::int64_t col) const {
    if (whole_tensor_) return 0;
    const std::int64_t down = (row - stripe_.row) / tile_rows_;
    const std::int64_t across = (col - stripe_.col) / tile_cols_;
    return static_cast<std::size_t>(down * tiles_across_ + across);
}

const SourceTiles::Tile& SourceTiles::tile(std::int64_t row, std::int64_t col) const {
    return tiles_[tile_index(row, col)];
}

const NearestCodes* SourceTiles::nearest(std::int64_t row, std::int64_t col, double loaded_scale) {
    if (tile_rows_ * tile_cols_ < kNearestCodesElements) return nullptr;
    const std::size_t index = tile_index(row, col);
    nearest_.resize(tiles_.size());
    NearestCodes& codes = nearest_[index];
    const double own = tiles_[index].scale;
    // Different rows of a tile can be loaded with different scales.
    if (codes.own_scale != own || codes.loaded_scale != loaded_scale) {
        codes = known_.of(own, loaded_scale);
    }
    return &codes;
}

double SourceTiles::scale(std::int64_t row, std::int64_t col) const {
    return tile(row, col).scale;
}

bool SourceTiles::finite(std::int64_t row, std::int64_t col) const {
    return tile(row, col).finite;
}

std::int64_t SourceTiles::tile_end(std::int64_t col) const {
    return (col / tile_cols_ + 1) * tile_cols_;
}

}  // namespace refit::checks
