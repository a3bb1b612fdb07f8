// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A refit that was never sent: what two ranks would hold, for the checks to judge. The loaded bytes
// are made here, by a quantizer in double precision that searches all codes.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "checks/audit.hpp"
#include "checks/check_catalog.hpp"
#include "core/error.hpp"

namespace refit::checks {

using core::DType;
using receiver::Granularity;

inline const std::set<std::string> kAll = {"completeness", "nonfinite", "round_trip", "sqnr"};

inline double bf16_value(std::uint16_t bits) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value = 0.0F;
    std::memcpy(&value, &wide, sizeof(value));
    return static_cast<double>(value);
}

/// The upper half of a float: rounding does not matter where only "some BF16" is wanted.
inline std::uint16_t bf16_bits(double value) {
    const auto narrow = static_cast<float>(value);
    std::uint32_t wide = 0;
    std::memcpy(&wide, &narrow, sizeof(wide));
    return static_cast<std::uint16_t>(wide >> 16);
}

/// E4M3FN by its definition: (8 + m) * 2^(e - 10), subnormals m * 2^-9.
inline double code_value(unsigned code) {
    const unsigned e = (code >> 3) & 15U;
    const unsigned m = code & 7U;
    const double magnitude =
        e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, static_cast<int>(e) - 10);
    return (code & 0x80U) != 0 ? -magnitude : magnitude;
}

/// Nearest code by bisection over the 127 magnitudes; a tie goes to the even code.
inline std::uint8_t nearest_code(double value) {
    static const std::vector<double> kMagnitudes = [] {
        std::vector<double> magnitudes;
        for (unsigned code = 0; code < 127; ++code) magnitudes.push_back(code_value(code));
        return magnitudes;
    }();
    const double magnitude = std::min(std::abs(value), 448.0);
    const auto above = std::upper_bound(kMagnitudes.begin() + 1, kMagnitudes.end() - 1, magnitude);
    const auto high = static_cast<unsigned>(above - kMagnitudes.begin());
    const double down = magnitude - kMagnitudes[high - 1];
    const double up = kMagnitudes[high] - magnitude;
    const bool take_high = up < down || (up == down && high % 2 == 0);
    const unsigned code = take_high ? high : high - 1;
    return static_cast<std::uint8_t>(code | (std::signbit(value) ? 0x80U : 0U));
}

class TensorsInMemory : public weights::WeightSource {
 public:
    std::vector<std::uint16_t>& add(const model::TensorSpec& spec, unsigned seed) {
        std::mt19937 random(seed);
        std::normal_distribution<double> normal(0.0, 0.02);
        std::vector<std::uint16_t>& values = values_[spec.name];
        values.resize(static_cast<std::size_t>(core::element_count(spec.shape)));
        for (std::uint16_t& value : values) value = bf16_bits(normal(random));
        return values;
    }
    std::vector<std::uint16_t>& of(const std::string& name) { return values_.at(name); }
    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        if (region.row + region.rows > core::matrix_rows(tensor.shape) ||
            region.col + region.cols > cols) {
            throw core::ShapeError("region outside the tensor");
        }
        for (std::int64_t r = 0; r < region.rows; ++r) {
            const std::uint16_t* row =
                values_.at(tensor.name).data() + (region.row + r) * cols + region.col;
            std::copy(row, row + region.cols, out + r * out_stride);
        }
    }
    void set_step(std::int64_t) override {}
    std::string description() const override { return "tensors in memory"; }

 private:
    std::map<std::string, std::vector<std::uint16_t>> values_;
};

/// A weight or vector of the model under test, and how an engine with two TP ranks holds it.
struct Part {
    std::string name;
    std::int64_t rows;
    std::int64_t cols;
    bool quantized;
};

/// One engine, one scheme, TP 2: a fused gate_up (two parts of equal shape, rows cut), a down
/// projection (columns cut), a ragged weight that both ranks hold whole, and a norm.
class Refit {
 public:
    explicit Refit(Granularity granularity, bool power_of_two = false) : granularity_(granularity) {
        facts_.power_of_two_scales = power_of_two;
        if (granularity == Granularity::block) facts_.tile_rows = facts_.tile_cols = 128;
        if (granularity == Granularity::channel) facts_.tile_rows = 1;
        instance_.engine = "hand-made";
        instance_.tp = 2;
        instance_.spans.resize(2);
        add_tensors();
        gate_up_ = add_weight_destination("gate_up.weight", 256, 384, 2);
        down_ = add_weight_destination("down.weight", 256, 256, 1);
        ragged_ = add_weight_destination("ragged.weight", 130, 200, 1);
        norm_ = add_destination("norm.weight", DType::bf16, {384}, false);
        embedding_ = add_destination("embed.weight", DType::bf16, {40, 64}, false);
        instance_.destinations[embedding_].padding_rows = 10;
        for (int rank = 0; rank < 2; ++rank) place(rank);
        for (int rank = 0; rank < 2; ++rank) {
            loaded_.push_back(std::make_unique<receiver::LoadedParameters>(instance_));
            load(rank);
        }
    }

    /// Quantizes and loads the source as it is now.
    void load(int rank) {
        receiver::LoadedParameters& loaded = *loaded_[static_cast<std::size_t>(rank)];
        loaded.poison(instance_);
        auto embedding = loaded.bytes(embedding_);
        std::fill(embedding.begin(), embedding.end(), std::byte{0});
        for (const receiver::LoadSpan& span : instance_.spans[static_cast<std::size_t>(rank)]) {
            load_span(loaded, span);
        }
    }
    void reload() {
        for (int rank = 0; rank < 2; ++rank) load(rank);
    }

    [[nodiscard]] AuditResult audit(int rank, const std::set<std::string>& enabled = kAll) const {
        int calls = 0;
        AuditResult result =
            audit_parameters(instance_, rank, *loaded_[static_cast<std::size_t>(rank)], tensors_,
                             source_, facts_, enabled, rank + 10, [&calls] { ++calls; });
        EXPECT_GT(calls, 0);
        return result;
    }
    [[nodiscard]] std::vector<RankAudit> audits(const std::set<std::string>& enabled = kAll) const {
        return {{10, audit(0, enabled)}, {11, audit(1, enabled)}};
    }
    [[nodiscard]] MergedAudit merged(const std::set<std::string>& enabled = kAll) const {
        return merge_audits(audits(enabled), enabled);
    }

    std::uint8_t& code(int rank, std::size_t destination, std::int64_t row, std::int64_t col) {
        const auto bytes = loaded_[static_cast<std::size_t>(rank)]->bytes(destination);
        const std::int64_t cols = core::matrix_cols(instance_.destinations[destination].shape);
        return reinterpret_cast<std::uint8_t&>(bytes[static_cast<std::size_t>(row * cols + col)]);
    }
    float& scale(int rank, std::size_t destination, std::int64_t index) {
        const auto scales = static_cast<std::size_t>(instance_.destinations[destination].scale);
        const auto bytes = loaded_[static_cast<std::size_t>(rank)]->bytes(scales);
        return reinterpret_cast<float*>(bytes.data())[index];
    }
    std::uint16_t& raw(int rank, std::size_t destination, std::int64_t index) {
        const auto bytes = loaded_[static_cast<std::size_t>(rank)]->bytes(destination);
        return reinterpret_cast<std::uint16_t*>(bytes.data())[index];
    }
    std::uint16_t& source(const std::string& name, std::int64_t row, std::int64_t col) {
        const model::TensorSpec& tensor = find_tensor(name);
        return source_.of(
            name)[static_cast<std::size_t>(row * core::matrix_cols(tensor.shape) + col)];
    }

    std::size_t gate_up_ = 0;
    std::size_t down_ = 0;
    std::size_t ragged_ = 0;
    std::size_t norm_ = 0;
    std::size_t embedding_ = 0;
    receiver::ContractInstance instance_;
    SchemeFacts facts_;
    std::vector<model::TensorSpec> tensors_;

 private:
    static constexpr const char* kScaleEnd = "_scale_inv";

    void add_tensors() {
        const std::vector<Part> parts = {
            {"gate.weight", 256, 384, true}, {"up.weight", 256, 384, true},
            {"down.weight", 256, 512, true}, {"ragged.weight", 130, 200, true},
            {"norm.weight", 384, 0, false},  {"embed.weight", 60, 64, false}};
        unsigned seed = 1;
        for (const Part& part : parts) {
            model::TensorSpec tensor;
            tensor.name = part.name;
            tensor.shape =
                part.cols == 0 ? core::Shape{part.rows} : core::Shape{part.rows, part.cols};
            tensors_.push_back(tensor);
            source_.add(tensor, seed++);
            add_wanted(tensor, part.quantized);
        }
    }

    void add_wanted(const model::TensorSpec& tensor, bool quantized) {
        wire::WantedParameter wanted;
        wanted.name = tensor.name;
        wanted.shape = tensor.shape;
        if (!quantized) {
            instance_.wanted.push_back(wanted);
            return;
        }
        wanted.scale = tensor.name + kScaleEnd;
        instance_.wanted.push_back(wanted);
        wire::WantedParameter scale;
        scale.name = wanted.scale;
        scale.scale_of = tensor.name;
        scale.shape = scale_shape(tensor.shape[0], tensor.shape[1], 1);
        instance_.wanted.push_back(scale);
    }

    [[nodiscard]] core::Shape scale_shape(std::int64_t rows, std::int64_t cols,
                                          std::int64_t parts) const {
        if (granularity_ == Granularity::block) {
            return {core::ceil_div(rows, 128), core::ceil_div(cols, 128)};
        }
        if (granularity_ == Granularity::channel) return {rows, 1};
        return {parts};
    }

    std::size_t add_destination(const std::string& name, DType dtype, core::Shape shape,
                                bool is_scale) {
        receiver::DestinationParameter destination;
        destination.name = name;
        destination.dtype = dtype;
        destination.shape = std::move(shape);
        destination.is_scale = is_scale;
        instance_.destinations.push_back(destination);
        return instance_.destinations.size() - 1;
    }

    std::size_t add_weight_destination(const std::string& name, std::int64_t rows,
                                       std::int64_t cols, std::int64_t parts) {
        const std::size_t weight = add_destination(name, DType::f8_e4m3, {rows, cols}, false);
        const std::size_t scale =
            add_destination(name + kScaleEnd, DType::f32, scale_shape(rows, cols, parts), true);
        instance_.destinations[weight].scale = static_cast<std::int64_t>(scale);
        instance_.destinations[weight].granularity = granularity_;
        return weight;
    }

    void place(int rank) {
        place_weight(rank, "gate.weight", {rank * 128, 0, 128, 384}, gate_up_, 0, 0);
        place_weight(rank, "up.weight", {rank * 128, 0, 128, 384}, gate_up_, 128, 1);
        place_weight(rank, "down.weight", {0, rank * 256, 256, 256}, down_, 0, 0);
        place_weight(rank, "ragged.weight", {0, 0, 130, 200}, ragged_, 0, 0);
        add_span(rank, "norm.weight", {0, 0, 384, 1}, norm_, 0);
        add_span(rank, "embed.weight", {rank * 30, 0, 30, 64}, embedding_, 0);
    }

    void place_weight(int rank, const std::string& name, core::Region part, std::size_t destination,
                      std::int64_t dest_row, std::int64_t slot) {
        add_span(rank, name, part, destination, dest_row);
        const auto scales = static_cast<std::size_t>(instance_.destinations[destination].scale);
        const std::string scale = name + kScaleEnd;
        if (granularity_ == Granularity::block) {
            const core::Region grid = {part.row / 128, part.col / 128,
                                       core::ceil_div(part.rows, 128),
                                       core::ceil_div(part.cols, 128)};
            add_span(rank, scale, grid, scales, dest_row / 128);
        } else if (granularity_ == Granularity::channel) {
            add_span(rank, scale, {part.row, 0, part.rows, 1}, scales, dest_row);
        } else {
            add_span(rank, scale, {0, 0, 1, 1}, scales, slot);
        }
    }

    void add_span(int rank, const std::string& name, core::Region part, std::size_t destination,
                  std::int64_t dest_row) {
        receiver::LoadSpan span;
        while (instance_.wanted[span.wanted].name != name) ++span.wanted;
        span.source = part;
        span.destination = destination;
        span.dest_row = dest_row;
        instance_.spans[static_cast<std::size_t>(rank)].push_back(span);
    }

    [[nodiscard]] const model::TensorSpec& find_tensor(const std::string& name) const {
        return *std::find_if(tensors_.begin(), tensors_.end(),
                             [&](const model::TensorSpec& tensor) { return tensor.name == name; });
    }

    /// F32 scale of the tile that holds (row, col), from the whole tensor.
    float tile_scale(const model::TensorSpec& tensor, std::int64_t row, std::int64_t col) {
        const std::int64_t rows = tensor.shape[0];
        const std::int64_t cols = tensor.shape[1];
        core::Region tile = {0, 0, rows, cols};
        if (granularity_ == Granularity::block) {
            tile.row = row / 128 * 128;
            tile.col = col / 128 * 128;
            tile.rows = std::min<std::int64_t>(128, rows - tile.row);
            tile.cols = std::min<std::int64_t>(128, cols - tile.col);
        } else if (granularity_ == Granularity::channel) {
            tile = {row, 0, 1, cols};
        }
        double amax = 0.0;
        for (std::int64_t r = tile.row; r < tile.row + tile.rows; ++r) {
            for (std::int64_t c = tile.col; c < tile.col + tile.cols; ++c) {
                const double value = bf16_value(source(tensor.name, r, c));
                if (std::isfinite(value)) amax = std::max(amax, std::abs(value));
            }
        }
        if (amax == 0.0) return 1e-12F;
        double scale = amax / 448.0;
        if (facts_.power_of_two_scales) {
            double power = 0x1p-100;
            while (power < scale) power *= 2.0;
            scale = power;
        }
        return static_cast<float>(scale);
    }

    void load_span(receiver::LoadedParameters& loaded, const receiver::LoadSpan& span) {
        const wire::WantedParameter& wanted = instance_.wanted[span.wanted];
        const receiver::DestinationParameter& destination =
            instance_.destinations[span.destination];
        const std::int64_t dest_cols = core::matrix_cols(destination.shape);
        std::byte* bytes = loaded.bytes(span.destination).data();
        const core::Region& part = span.source;
        std::map<std::pair<std::int64_t, std::int64_t>, float> scales;
        for (std::int64_t r = part.row; r < part.row + part.rows; ++r) {
            for (std::int64_t c = part.col; c < part.col + part.cols; ++c) {
                const std::int64_t at =
                    (span.dest_row + r - part.row) * dest_cols + span.dest_col + c - part.col;
                if (!wanted.scale_of.empty()) {
                    const bool block = granularity_ == Granularity::block;
                    const float value = tile_scale(find_tensor(wanted.scale_of),
                                                   block ? r * 128 : r, block ? c * 128 : 0);
                    std::memcpy(bytes + 4 * at, &value, 4);
                } else if (wanted.scale.empty()) {
                    std::memcpy(bytes + 2 * at, &source(wanted.name, r, c), 2);
                } else {
                    const model::TensorSpec& tensor = find_tensor(wanted.name);
                    const bool block = granularity_ == Granularity::block;
                    const bool channel = granularity_ == Granularity::channel;
                    const auto key = std::make_pair(block ? r / 128 : (channel ? r : 0),
                                                    block ? c / 128 : std::int64_t{0});
                    if (scales.count(key) == 0) scales[key] = tile_scale(tensor, r, c);
                    const double x = bf16_value(source(wanted.name, r, c));
                    const std::uint8_t quantized =
                        std::isfinite(x) ? nearest_code(x / static_cast<double>(scales[key]))
                                         : 0x7f;
                    std::memcpy(bytes + at, &quantized, 1);
                }
            }
        }
    }

    Granularity granularity_;
    TensorsInMemory source_;
    std::vector<std::unique_ptr<receiver::LoadedParameters>> loaded_;
};

inline std::string listed(const core::Findings& findings) {
    std::string text;
    for (const core::Finding& finding : findings)
        text += finding.check + " " + finding.message + "\n";
    return text;
}

/// (check, tensor) of every finding.
inline std::set<std::pair<std::string, std::string>> causes(const core::Findings& findings) {
    std::set<std::pair<std::string, std::string>> set;
    for (const core::Finding& finding : findings) set.emplace(finding.check, finding.tensor);
    return set;
}

using Causes = std::set<std::pair<std::string, std::string>>;

inline const TensorAudit& tensor_of(const MergedAudit& merged, const std::string& name) {
    const auto found = std::find_if(merged.tensors.begin(), merged.tensors.end(),
                                    [&](const TensorAudit& t) { return t.tensor == name; });
    EXPECT_NE(found, merged.tensors.end());
    return *found;
}

class EveryGranularity : public testing::TestWithParam<Granularity> {};

}  // namespace refit::checks
