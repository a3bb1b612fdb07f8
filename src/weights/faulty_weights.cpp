// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "weights/hash.hpp"
#include "weights/region_check.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::weights {
namespace {

std::uint16_t bits_of(PlantKind kind) {
    switch (kind) {
        case PlantKind::nan:
            return 0x7FC0;
        case PlantKind::inf:
            return 0x7F80;
        case PlantKind::zero:
            return 0x0000;
        case PlantKind::subnormal:
            return 0x0040;  // 2^-127
        case PlantKind::huge:
            return 0x7F7F;  // (2 - 2^-7) * 2^127, the largest finite BF16
    }
    return 0x7FC0;
}

/// floor(a * b / c) without overflow.
std::int64_t mul_div(std::int64_t a, std::int64_t b, std::int64_t c) {
    __extension__ using Wide = __int128;
    return static_cast<std::int64_t>(static_cast<Wide>(a) * b / c);
}

/// Position number `index` of `count` in a tensor of `elements`: one in each of `count` equal
/// strata, so that they are distinct, spread, and found without listing the others.
std::int64_t spread_position(std::uint64_t stream, std::int64_t index, std::int64_t count,
                             std::int64_t elements) {
    const std::int64_t begin = mul_div(index, elements, count);
    const std::int64_t end = mul_div(index + 1, elements, count);
    const std::uint64_t hash = mix(stream, static_cast<std::uint64_t>(index));
    return begin + static_cast<std::int64_t>(hash % static_cast<std::uint64_t>(end - begin));
}

class FaultyWeights final : public WeightSource {
 public:
    FaultyWeights(std::unique_ptr<WeightSource> source, std::vector<Plant> plants,
                  std::uint64_t seed)
        : source_(std::move(source)), plants_(std::move(plants)), seed_(seed) {}

    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        check_region(tensor, region, out_stride);
        source_->read(tensor, region, out, out_stride);
        for (std::size_t i = 0; i < plants_.size(); ++i) {
            if (!glob_match(plants_[i].tensor, tensor.name)) continue;
            plant(plants_[i], mix(hash_name(seed_, tensor.name), i), tensor, region, out,
                  out_stride);
        }
    }

    void set_step(std::int64_t step) override { source_->set_step(step); }

    [[nodiscard]] std::string description() const override {
        return source_->description() + ", " + std::to_string(plants_.size()) +
               (plants_.size() == 1 ? " plant" : " plants");
    }

 private:
    static void plant(const Plant& plant, std::uint64_t stream, const model::TensorSpec& tensor,
                      const core::Region& region, std::uint16_t* out, std::int64_t out_stride) {
        const std::uint16_t bits = bits_of(plant.kind);
        const auto put = [&](std::int64_t row, std::int64_t col) {
            const std::int64_t r = row - region.row;
            const std::int64_t c = col - region.col;
            if (r >= 0 && r < region.rows && c >= 0 && c < region.cols) {
                out[r * out_stride + c] = bits;
            }
        };
        if (plant.row >= 0 && plant.col >= 0) {
            put(plant.row, plant.col);
        } else if (plant.row >= 0) {
            for (std::int64_t c = 0; c < region.cols; ++c) put(plant.row, region.col + c);
        } else if (region.rows > 0 && region.cols > 0) {
            const std::int64_t cols = core::matrix_cols(tensor.shape);
            const std::int64_t elements = core::element_count(tensor.shape);
            const std::int64_t count = std::min(plant.count, elements);
            // Only the strata that reach the region's rows; one more on each side costs nothing.
            const std::int64_t first = mul_div(region.row * cols, count, elements) - 1;
            const std::int64_t last =
                mul_div((region.row + region.rows) * cols, count, elements) + 1;
            for (std::int64_t i = std::max<std::int64_t>(first, 0); i < std::min(last, count);
                 ++i) {
                const std::int64_t position = spread_position(stream, i, count, elements);
                put(position / cols, position % cols);
            }
        }
    }

    std::unique_ptr<WeightSource> source_;
    std::vector<Plant> plants_;
    std::uint64_t seed_;
};

void check_plant(const Plant& plant, const model::TensorSpec& tensor) {
    const std::int64_t rows = core::matrix_rows(tensor.shape);
    const std::int64_t cols = core::matrix_cols(tensor.shape);
    const auto outside = [&](const char* what, std::int64_t value, std::int64_t limit) {
        throw core::ScenarioError("plant in '" + plant.tensor + "': " + what + " " +
                                  std::to_string(value) + " lies outside of tensor '" +
                                  tensor.name + "' of shape " + core::to_string(tensor.shape) +
                                  "; it must be below " + std::to_string(limit));
    };
    if (plant.row >= rows) outside("row", plant.row, rows);
    if (plant.col >= cols) outside("column", plant.col, cols);
    const std::int64_t elements = core::element_count(tensor.shape);
    if (plant.count > elements) outside("count", plant.count, elements + 1);
}

}  // namespace

std::unique_ptr<WeightSource> make_faulty_weights(std::unique_ptr<WeightSource> source,
                                                  std::vector<Plant> plants, std::uint64_t seed) {
    return std::make_unique<FaultyWeights>(std::move(source), std::move(plants), seed);
}

void check_plants(const std::vector<Plant>& plants, const std::vector<model::TensorSpec>& tensors) {
    for (const Plant& plant : plants) {
        const std::string subject = "plant in '" + plant.tensor + "': ";
        if (plant.row < -1 || plant.col < -1 || plant.count < 0) {
            throw core::ScenarioError(subject +
                                      "row, column or count is negative; leave out what is "
                                      "not meant");
        }
        if ((plant.row >= 0) == (plant.count > 0)) {
            throw core::ScenarioError(subject +
                                      "wants either a row (with or without a column) or a "
                                      "count above 0");
        }
        if (plant.col >= 0 && plant.row < 0) {
            throw core::ScenarioError(subject + "column " + std::to_string(plant.col) +
                                      " needs a row");
        }
        bool matched = false;
        for (const model::TensorSpec& tensor : tensors) {
            if (!glob_match(plant.tensor, tensor.name)) continue;
            matched = true;
            check_plant(plant, tensor);
        }
        if (matched) continue;
        std::vector<std::string> names;
        names.reserve(tensors.size());
        for (const model::TensorSpec& tensor : tensors) names.push_back(tensor.name);
        std::string nearest;
        for (const std::string& name : core::nearest_names(plant.tensor, names)) {
            nearest += (nearest.empty() ? "" : ", ") + name;
        }
        throw core::ScenarioError(subject + "matches no tensor of the model; nearest: " + nearest);
    }
}

bool glob_match(const std::string& pattern, const std::string& text) {
    std::size_t p = 0;
    std::size_t t = 0;
    // Where to go on when the text after the last star does not fit: one character further.
    std::size_t star = std::string::npos;
    std::size_t retry = 0;
    while (t < text.size()) {
        if (p < pattern.size() && pattern[p] == '*') {
            star = p++;
            retry = t;
        } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
            ++p;
            ++t;
        } else if (star != std::string::npos) {
            p = star + 1;
            t = ++retry;
        } else {
            return false;
        }
    }
    while (p < pattern.size() && pattern[p] == '*') ++p;
    return p == pattern.size();
}

}  // namespace refit::weights
