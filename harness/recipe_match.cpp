// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/recipe_match.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>

#include "core/aligned_buffer.hpp"
#include "kernels/backend.hpp"
#include "kernels/numerics/float8.hpp"

namespace refit::harness {
namespace {

/// Elements that are held and quantized at a time, but whole rows of tiles.
constexpr std::int64_t kBandElements = std::int64_t{4} << 20;
constexpr std::int64_t kBlock = 128;

const char* layout_of(quant::Scheme scheme) {
    switch (scheme) {
        case quant::Scheme::fp8_blockwise:
            return "block";
        case quant::Scheme::fp8_channelwise:
            return "row";
        case quant::Scheme::fp8_tensorwise:
            return "tensor";
        case quant::Scheme::mxfp8:
            return "mx";
        case quant::Scheme::bf16:
            break;
    }
    return "";
}

bool fits(const quant::Recipe& recipe, const CheckpointSurvey::Scales& scales,
          std::span<const double> values) {
    const core::DType dtype = scales.dtype == core::DType::f8_e8m0 ? core::DType::u8 : scales.dtype;
    // One scale for a small matrix may be that of its only block or of the whole tensor.
    const bool one = values.size() == 1 && scales.layout.name != "mx";
    return quant::scale_dtype(recipe) == dtype &&
           (layout_of(recipe.scheme) == scales.layout.name || one);
}

bool same(double found, float wanted) {
    const auto value = static_cast<double>(wanted);
    return found == value || (std::isnan(found) && std::isnan(value));
}

/// Whether all codes are alike; any two NaN codes are.
bool same_codes(const std::uint8_t* found, const std::uint8_t* wanted, std::size_t count) {
    if (std::memcmp(found, wanted, count) == 0) return true;
    for (std::size_t i = 0; i < count; ++i) {
        if (found[i] != wanted[i] &&
            !(numerics::e4m3_is_nan(found[i]) && numerics::e4m3_is_nan(wanted[i]))) {
            return false;
        }
    }
    return true;
}

/// One definition on its way through one matrix.
class Attempt {
 public:
    Attempt(const numerics::TileScaling& scaling, std::span<const double> found,
            const checks::StoredMatrix& codes, std::int64_t band_rows)
        : scaling_(scaling),
          grid_(kernels::tile_grid(scaling, codes.rows, codes.cols)),
          found_(found),
          codes_(codes),
          amax_(static_cast<std::size_t>(grid_.grid_rows * grid_.grid_cols), 0U),
          scales_(amax_.size(), 0.0F),
          exact_(amax_.size() == found.size()),
          two_passes_(grid_.tile_rows > band_rows) {}

    [[nodiscard]] bool exact() const { return exact_; }
    /// Its tiles are taller than a band, so that each band is looked at before the first is
    /// quantized.
    [[nodiscard]] bool two_passes() const { return two_passes_; }

    void look_at(const kernels::Backend& backend, const kernels::Band& band) {
        backend.tile_amax(scaling_, band, amax_);
    }

    /// The band's codes and scales by the definition, in `buffer`, against those found.
    void compare(const kernels::Backend& backend, const kernels::Band& band, std::uint8_t* buffer) {
        const auto first =
            static_cast<std::size_t>(kernels::first_grid_row(grid_, band) * grid_.grid_cols);
        const auto count =
            static_cast<std::size_t>(kernels::touched_grid_rows(grid_, band) * grid_.grid_cols);
        if (two_passes_) {
            if (band.row_begin == 0) backend.scales(scaling_, amax_, scales_);
            backend.encode(scaling_, band, amax_, buffer, codes_.cols, [](auto, auto) {});
        } else {
            backend.quantize(scaling_, band, std::span(amax_).subspan(first, count),
                             std::span(scales_).subspan(first, count), buffer, codes_.cols,
                             [](auto, auto) {});
        }
        for (std::size_t i = first; exact_ && i < first + count; ++i) {
            exact_ = same(found_[i], scales_[i]);
        }
        const auto* found = reinterpret_cast<const std::uint8_t*>(codes_.bytes.data());
        exact_ = exact_ && same_codes(found + band.row_begin * codes_.cols, buffer,
                                      static_cast<std::size_t>(band.row_count * codes_.cols));
    }

 private:
    const numerics::TileScaling& scaling_;
    kernels::TileGrid grid_;
    std::span<const double> found_;
    const checks::StoredMatrix& codes_;
    std::vector<std::uint32_t> amax_;
    std::vector<float> scales_;
    bool exact_;
    bool two_passes_;
};

/// Shows the matrix to all attempts, band by band, until none is exact any more.
void run(std::vector<Attempt>& attempts, const checks::StoredMatrix& source, std::int64_t band_rows,
         const RecipeMatch::RowsDone& done) {
    const kernels::Backend& backend = *kernels::find_backend("auto");
    const std::int64_t cols = source.cols;
    std::vector<std::uint16_t> held(static_cast<std::size_t>(band_rows * cols));
    std::uint16_t last = 0;
    std::memcpy(&last, source.bytes.data() + 2 * (source.rows * cols - 1), sizeof last);
    const std::uint32_t last_bits = (std::uint32_t{last} & 0x7fffU) << 16;
    const auto each_band = [&](const auto& wanted, const auto& work) {
        for (std::int64_t row = 0; row < source.rows; row += band_rows) {
            if (std::none_of(attempts.begin(), attempts.end(), wanted)) return;
            const std::int64_t count = std::min(band_rows, source.rows - row);
            std::memcpy(held.data(), source.bytes.data() + 2 * row * cols,
                        static_cast<std::size_t>(2 * count * cols));
            const kernels::Band band{held.data(), cols, row, count, source.rows, cols, last_bits};
            for (Attempt& attempt : attempts) {
                if (wanted(attempt)) work(attempt, band);
            }
            done(row, row + count);
        }
    };
    each_band([](const Attempt& a) { return a.exact() && a.two_passes(); },
              [&](Attempt& a, const kernels::Band& band) { a.look_at(backend, band); });
    core::AlignedBuffer buffer(held.size());
    each_band([](const Attempt& a) { return a.exact(); },
              [&](Attempt& a, const kernels::Band& band) {
                  a.compare(backend, band, reinterpret_cast<std::uint8_t*>(buffer.data()));
              });
}

}  // namespace

RecipeMatch::RecipeMatch() {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) left_.push_back(&recipe);
}

void RecipeMatch::add(const CheckpointSurvey::Scales& scales, std::span<const double> values,
                      const checks::StoredMatrix& codes, const checks::StoredMatrix& source,
                      const RowsDone& done) {
    if (source.dtype != core::DType::bf16) return;
    ++matrices_;
    std::erase_if(left_,
                  [&](const quant::Recipe* recipe) { return !fits(*recipe, scales, values); });
    if (left_.empty() || codes.rows * codes.cols == 0) return;
    const std::int64_t tiles = std::max<std::int64_t>(1, kBandElements / codes.cols / kBlock);
    const std::int64_t band_rows = std::min(codes.rows, tiles * kBlock);
    // Recipes of one definition under several names are tried once.
    std::vector<Attempt> attempts;
    std::vector<const quant::Recipe*> tried;
    std::vector<std::size_t> attempt_of;
    for (const quant::Recipe* recipe : left_) {
        const auto known = std::find_if(
            tried.begin(), tried.end(),
            [recipe](const quant::Recipe* other) { return other->scaling == recipe->scaling; });
        attempt_of.push_back(static_cast<std::size_t>(known - tried.begin()));
        if (known != tried.end()) continue;
        tried.push_back(recipe);
        attempts.emplace_back(recipe->scaling, values, codes, band_rows);
    }
    run(attempts, source, band_rows, done);
    std::vector<const quant::Recipe*> left;
    for (std::size_t i = 0; i < left_.size(); ++i) {
        if (attempts[attempt_of[i]].exact()) left.push_back(left_[i]);
    }
    left_ = std::move(left);
}

std::vector<std::string> RecipeMatch::exact() const {
    std::vector<std::string> names;
    if (matrices_ == 0) return names;
    for (const quant::Recipe* recipe : left_) names.push_back(recipe->name);
    return names;
}

}  // namespace refit::harness
