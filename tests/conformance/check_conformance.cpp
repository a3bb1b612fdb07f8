// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Every check of src/checks against planted faults that it must catch, and clean cases that it must
// pass. The loaded bytes are made here, by a quantizer in double precision that searches all codes.
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
namespace {

using core::DType;
using receiver::Granularity;

const std::set<std::string> kAll = {"completeness", "nonfinite", "round_trip", "sqnr"};

double bf16_value(std::uint16_t bits) {
    const std::uint32_t wide = static_cast<std::uint32_t>(bits) << 16;
    float value = 0.0F;
    std::memcpy(&value, &wide, sizeof(value));
    return static_cast<double>(value);
}

/// The upper half of a float: rounding does not matter where only "some BF16" is wanted.
std::uint16_t bf16_bits(double value) {
    const auto narrow = static_cast<float>(value);
    std::uint32_t wide = 0;
    std::memcpy(&wide, &narrow, sizeof(wide));
    return static_cast<std::uint16_t>(wide >> 16);
}

/// E4M3FN by its definition: (8 + m) * 2^(e - 10), subnormals m * 2^-9.
double code_value(unsigned code) {
    const unsigned e = (code >> 3) & 15U;
    const unsigned m = code & 7U;
    const double magnitude =
        e == 0 ? std::ldexp(m, -9) : std::ldexp(8 + m, static_cast<int>(e) - 10);
    return (code & 0x80U) != 0 ? -magnitude : magnitude;
}

/// Nearest code by bisection over the 127 magnitudes; a tie goes to the even code.
std::uint8_t nearest_code(double value) {
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

std::string listed(const core::Findings& findings) {
    std::string text;
    for (const core::Finding& finding : findings)
        text += finding.check + " " + finding.message + "\n";
    return text;
}

/// (check, tensor) of every finding.
std::set<std::pair<std::string, std::string>> causes(const core::Findings& findings) {
    std::set<std::pair<std::string, std::string>> set;
    for (const core::Finding& finding : findings) set.emplace(finding.check, finding.tensor);
    return set;
}

using Causes = std::set<std::pair<std::string, std::string>>;

const TensorAudit& tensor_of(const MergedAudit& merged, const std::string& name) {
    const auto found = std::find_if(merged.tensors.begin(), merged.tensors.end(),
                                    [&](const TensorAudit& t) { return t.tensor == name; });
    EXPECT_NE(found, merged.tensors.end());
    return *found;
}

class EveryGranularity : public testing::TestWithParam<Granularity> {};

INSTANTIATE_TEST_SUITE_P(Schemes, EveryGranularity,
                         testing::Values(Granularity::block, Granularity::channel,
                                         Granularity::tensor),
                         [](const auto& row) {
                             return row.param == Granularity::block     ? "Block"
                                    : row.param == Granularity::channel ? "Channel"
                                                                        : "Tensor";
                         });

TEST_P(EveryGranularity, PassesACleanRefit) {
    const Refit refit(GetParam());
    const MergedAudit merged = refit.merged();
    EXPECT_TRUE(merged.findings.empty()) << listed(merged.findings);
    EXPECT_LE(merged.max_error_over_bound, 1.0 + refit.facts_.slack);
    EXPECT_GT(merged.max_error_over_bound, 0.99);
    EXPECT_NEAR(merged.pooled_sqnr_db, 31.5, 0.6);
    EXPECT_EQ(merged.saturated, 0);
    ASSERT_EQ(merged.tensors.size(), 6U);
    // Both ranks hold all of it, but it counts once.
    EXPECT_EQ(tensor_of(merged, "ragged.weight").elements, 130 * 200);
    EXPECT_EQ(tensor_of(merged, "gate.weight").elements, 256 * 384);
    EXPECT_EQ(tensor_of(merged, "down.weight").elements, 256 * 512);
    EXPECT_EQ(tensor_of(merged, "norm.weight").elements, 384);
    EXPECT_EQ(tensor_of(merged, "norm.weight").exact, 384);
    EXPECT_TRUE(check_byte_identity(refit.audits()).empty());
}

TEST_P(EveryGranularity, ExpectsTheErrorThatTheTestsOwnQuantizerMade) {
    const Refit refit(GetParam());
    for (const TensorAudit& tensor : refit.merged().tensors) {
        if (!tensor.quantized) continue;
        EXPECT_NEAR(tensor.sum_error2 / tensor.sum_expected_error2, 1.0, 1e-4) << tensor.tensor;
    }
}

TEST_P(EveryGranularity, RoundTripCatchesADoubledScale) {
    Refit refit(GetParam());
    refit.scale(0, refit.gate_up_, 0) *= 2.0F;
    const MergedAudit merged = refit.merged();
    EXPECT_EQ(causes(merged.findings).count({"round_trip", "gate.weight"}), 1U)
        << listed(merged.findings);
    EXPECT_EQ(causes(merged.findings).count({"round_trip", "up.weight"}), 0U);
    // x * 2 - x over |x| / 17 is 17; with the rounding of the code up to 19.
    EXPECT_GT(merged.max_error_over_bound, 17.0);
    EXPECT_LE(merged.max_error_over_bound, 19.0 * 1.0001);
    EXPECT_TRUE(core::has_error(merged.findings));
}

TEST_P(EveryGranularity, CompletenessCatchesAScaleLeftPoisoned) {
    Refit refit(GetParam());
    refit.scale(1, refit.ragged_, 0) = -FLT_MAX;
    const AuditResult result = refit.audit(1);
    EXPECT_EQ(causes(result.findings), (Causes{{"completeness", "ragged.weight_scale_inv"}}))
        << listed(result.findings);
    EXPECT_EQ(result.findings[0].rank, 11);
    EXPECT_EQ(causes(refit.audit(1, {"round_trip"}).findings),
              (Causes{{"round_trip", "ragged.weight"}}));
    EXPECT_EQ(causes(refit.audit(1, {"nonfinite"}).findings),
              (Causes{{"nonfinite", "ragged.weight_scale_inv"}}));
}

TEST_P(EveryGranularity, NonfiniteCatchesScalesThatAreNotPositive) {
    for (const float value : {-1e-4F, 0.0F, -0.0F, std::nanf(""), HUGE_VALF}) {
        Refit refit(GetParam());
        refit.scale(0, refit.ragged_, 0) = value;
        EXPECT_EQ(causes(refit.audit(0).findings),
                  (Causes{{"nonfinite", "ragged.weight_scale_inv"}}))
            << value;
        EXPECT_EQ(causes(refit.audit(0, {"round_trip"}).findings),
                  (Causes{{"round_trip", "ragged.weight"}}))
            << value;
        EXPECT_EQ(causes(refit.merged({"sqnr"}).findings).count({"sqnr", "ragged.weight"}), 1U)
            << value;
    }
}

TEST_P(EveryGranularity, RoundTripCatchesHalvesOfEqualShapeThatWereSwapped) {
    Refit refit(GetParam());
    for (int rank = 0; rank < 2; ++rank) {
        for (std::int64_t row = 0; row < 128; ++row) {
            for (std::int64_t col = 0; col < 384; ++col) {
                std::swap(refit.code(rank, refit.gate_up_, row, col),
                          refit.code(rank, refit.gate_up_, row + 128, col));
            }
        }
    }
    const Causes found = causes(refit.merged().findings);
    for (const std::string tensor : {"gate.weight", "up.weight"}) {
        EXPECT_EQ(found.count({"round_trip", tensor}), 1U);
        EXPECT_EQ(found.count({"sqnr", tensor}), 1U);
    }
    EXPECT_EQ(found.count({"round_trip", "down.weight"}), 0U);
}

TEST(BlockScheme, PassesPowerOfTwoScalesAndOnlyAsSuch) {
    Refit refit(Granularity::block, true);
    const MergedAudit clean = refit.merged();
    EXPECT_TRUE(clean.findings.empty()) << listed(clean.findings);
    EXPECT_LE(clean.max_error_over_bound, 1.0 + refit.facts_.slack);
}

TEST(BlockScheme, RoundTripCatchesAZeroedRowOfOneTile) {
    Refit refit(Granularity::block);
    // Row 5 of rank 1's down projection is global row 5, columns 256 to 383.
    for (std::int64_t col = 0; col < 128; ++col) refit.code(1, refit.down_, 5, col) = 0;
    const AuditResult result = refit.audit(1);
    ASSERT_EQ(causes(result.findings), (Causes{{"round_trip", "down.weight"}}));
    ASSERT_EQ(result.findings[0].index.size(), 2U);
    EXPECT_EQ(result.findings[0].index[0], 5);
    EXPECT_GE(result.findings[0].index[1], 256);
    const MergedAudit merged = refit.merged();
    EXPECT_NEAR(merged.max_error_over_bound, 17.0, 1e-9);
    const TensorAudit& down = tensor_of(merged, "down.weight");
    EXPECT_GT(down.mismatched, 100);
    EXPECT_GT(down.flushed, 100);
}

TEST(BlockScheme, RoundTripCatchesScalesRoundedToBf16WhereSqnrDoesNot) {
    Refit refit(Granularity::block);
    for (int rank = 0; rank < 2; ++rank) {
        for (std::int64_t i = 0; i < 6; ++i) {
            float& scale = refit.scale(rank, refit.gate_up_, i);
            std::uint32_t bits = 0;
            std::memcpy(&bits, &scale, sizeof(bits));
            bits = (bits + 0x8000U) & 0xffff0000U;
            std::memcpy(&scale, &bits, sizeof(bits));
        }
    }
    const MergedAudit merged = refit.merged();
    for (const core::Finding& finding : merged.findings) EXPECT_EQ(finding.check, "round_trip");
    EXPECT_FALSE(merged.findings.empty());
    EXPECT_GT(merged.max_error_over_bound, 1.005);
    EXPECT_LT(merged.max_error_over_bound, 1.07);
}

TEST(BlockScheme, RoundTripCatchesOneCodeBeyondTheBound) {
    Refit refit(Granularity::block);
    // A code that is one too large is wrong wherever the right one was not nearly a tie.
    const double scale = static_cast<double>(refit.scale(0, refit.ragged_, 0));
    const double x = bf16_value(refit.source("ragged.weight", 17, 23));
    std::uint8_t& code = refit.code(0, refit.ragged_, 17, 23);
    const std::uint8_t right = code;
    code = static_cast<std::uint8_t>(right + 1);
    const double bound = std::max(std::abs(x) / 17.0, scale / 1024.0);
    ASSERT_GT(std::abs(code_value(code) * scale - x), 1.001 * bound);
    const AuditResult result = refit.audit(0);
    ASSERT_EQ(result.findings.size(), 1U) << listed(result.findings);
    EXPECT_EQ(result.findings[0].check, "round_trip");
    EXPECT_EQ(result.findings[0].tensor, "ragged.weight");
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{17, 23}));
    EXPECT_NE(result.findings[0].message.find("1 of its elements"), std::string::npos);
    EXPECT_TRUE(refit.audit(0, {"completeness", "nonfinite"}).findings.empty());
}

TEST(BlockScheme, CompletenessCatchesATileLeftPoisoned) {
    Refit refit(Granularity::block);
    for (std::int64_t row = 128; row < 256; ++row) {
        for (std::int64_t col = 256; col < 384; ++col)
            refit.code(1, refit.gate_up_, row, col) = 0xff;
    }
    const AuditResult result = refit.audit(1);
    ASSERT_EQ(causes(result.findings), (Causes{{"completeness", "up.weight"}}))
        << listed(result.findings);
    // Row 128 of the fused matrix is row 128 of up on rank 1.
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{128, 256}));
    EXPECT_NE(result.findings[0].message.find("16384 of its elements"), std::string::npos);
    EXPECT_EQ(causes(refit.audit(1, {"round_trip"}).findings),
              (Causes{{"round_trip", "up.weight"}}));
    EXPECT_EQ(causes(refit.merged({"sqnr"}).findings), (Causes{{"sqnr", "up.weight"}}));
}

TEST(BlockScheme, CompletenessCatchesRawRowsAndPaddingLeftPoisoned) {
    Refit refit(Granularity::block);
    for (std::int64_t i = 0; i < 64; ++i) refit.raw(0, refit.embedding_, 7 * 64 + i) = 0xffff;
    AuditResult result = refit.audit(0);
    ASSERT_EQ(causes(result.findings), (Causes{{"completeness", "embed.weight"}}));
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{7, 0}));
    refit.load(0);
    refit.raw(0, refit.embedding_, 35 * 64) = 0xffff;
    result = refit.audit(0);
    ASSERT_EQ(causes(result.findings), (Causes{{"completeness", "embed.weight"}}));
    EXPECT_TRUE(refit.audit(0, {"round_trip", "nonfinite"}).findings.empty());
}

TEST(BlockScheme, CompletenessAcceptsASourceNanThatLooksLikePoison) {
    Refit refit(Granularity::block);
    refit.source("norm.weight", 4, 0) = 0xffff;
    refit.reload();
    EXPECT_TRUE(refit.audit(0, {"completeness", "round_trip"}).findings.empty());
    EXPECT_EQ(causes(refit.audit(0).findings), (Causes{{"nonfinite", "norm.weight"}}));
}

TEST(BlockScheme, RoundTripCatchesOneBitOfARawTensor) {
    Refit refit(Granularity::block);
    refit.raw(1, refit.norm_, 200) ^= 1U;
    const AuditResult result = refit.audit(1);
    ASSERT_EQ(result.findings.size(), 1U);
    EXPECT_EQ(result.findings[0].check, "round_trip");
    EXPECT_EQ(result.findings[0].tensor, "norm.weight");
    EXPECT_EQ(result.findings[0].index, std::vector<std::int64_t>{200});
}

TEST(BlockScheme, NonfiniteCatchesNanCodes) {
    Refit refit(Granularity::block);
    refit.code(0, refit.down_, 3, 7) = 0x7f;
    const AuditResult result = refit.audit(0);
    ASSERT_EQ(causes(result.findings), (Causes{{"nonfinite", "down.weight"}}));
    EXPECT_EQ(result.findings[0].index, (std::vector<std::int64_t>{3, 7}));
    EXPECT_EQ(causes(refit.audit(0, {"round_trip"}).findings),
              (Causes{{"round_trip", "down.weight"}}));
}

TEST(BlockScheme, NonfiniteCatchesTheSourceAndNamesThePlace) {
    for (const unsigned bits : {0x7fc0U, 0x7f80U, 0xff80U}) {
        Refit refit(Granularity::block);
        refit.source("down.weight", 200, 300) = static_cast<std::uint16_t>(bits);
        refit.reload();
        // The tile's other elements are legal, and the sums leave the element out.
        const MergedAudit merged = refit.merged();
        ASSERT_EQ(causes(merged.findings), (Causes{{"nonfinite", "down.weight"}}))
            << listed(merged.findings);
        EXPECT_EQ(merged.findings[0].index, (std::vector<std::int64_t>{200, 300}));
        EXPECT_EQ(merged.findings[0].measured,
                  bits == 0x7fc0 ? "NaN" : (bits == 0x7f80 ? "Inf" : "-Inf"));
        EXPECT_EQ(tensor_of(merged, "down.weight").elements, 256 * 512 - 1);
        EXPECT_TRUE(std::isfinite(merged.pooled_sqnr_db));
    }
}

TEST(BlockScheme, AllowsAnyScaleForATileOfZeros) {
    Refit refit(Granularity::block);
    for (std::int64_t row = 0; row < 128; ++row) {
        for (std::int64_t col = 0; col < 128; ++col) refit.source("ragged.weight", row, col) = 0;
    }
    refit.reload();
    for (const float scale : {1e-12F, 2.23e-13F, 1.0F, 1e-4F}) {
        refit.scale(0, refit.ragged_, 0) = scale;
        EXPECT_TRUE(refit.audit(0).findings.empty()) << scale;
    }
    refit.code(0, refit.ragged_, 1, 1) = 1;
    EXPECT_EQ(causes(refit.audit(0).findings), (Causes{{"round_trip", "ragged.weight"}}));
}

TEST(Sqnr, CatchesAnErrorThatIsTooGood) {
    const Refit refit(Granularity::block);
    std::vector<RankAudit> ranks = refit.audits();
    for (RankAudit& rank : ranks) {
        for (TensorAudit& tensor : rank.result.tensors) {
            // One dB less error than rounding to E4M3 makes.
            if (tensor.tensor == "down.weight") tensor.sum_error2 *= std::pow(10.0, -0.1);
        }
    }
    const MergedAudit merged = merge_audits(ranks, kAll);
    EXPECT_EQ(causes(merged.findings), (Causes{{"sqnr", "down.weight"}}));
    EXPECT_TRUE(merge_audits(ranks, {"round_trip"}).findings.empty());
}

TEST(Sqnr, CatchesErrorsThatAreLegalOneByOneButTooLargeTogether) {
    // Rounding towards zero instead of to nearest, kept within each element's bound.
    Refit refit(Granularity::block);
    for (std::int64_t row = 0; row < 130; ++row) {
        for (std::int64_t col = 0; col < 200; ++col) {
            const double scale =
                static_cast<double>(refit.scale(0, refit.ragged_, row / 128 * 2 + col / 128));
            const double x = bf16_value(refit.source("ragged.weight", row, col));
            std::uint8_t& code = refit.code(0, refit.ragged_, row, col);
            const auto lower = static_cast<std::uint8_t>(code - 1);
            const double bound = std::max(std::abs(x) / 17.0, scale / 1024.0);
            if ((code & 0x7fU) != 0 && std::abs(code_value(lower) * scale - x) <= bound)
                code = lower;
        }
    }
    const MergedAudit merged = merge_audits({{10, refit.audit(0)}}, kAll);
    EXPECT_EQ(causes(merged.findings).count({"round_trip", "ragged.weight"}), 0U);
    EXPECT_EQ(causes(merged.findings).count({"sqnr", "ragged.weight"}), 1U);
}

/// Names of the tensors that layer_output reports.
std::set<std::string> outputs_found(const Refit& refit) {
    std::set<std::string> tensors;
    for (const auto& [check, tensor] : causes(refit.merged({"layer_output"}).findings)) {
        EXPECT_EQ(check, "layer_output");
        tensors.insert(tensor);
    }
    return tensors;
}

TEST_P(EveryGranularity, LayerOutputPassesGaussianAndOutlierWeights) {
    Refit refit(GetParam());
    const std::set<std::string> enabled = {"layer_output"};
    const MergedAudit clean = refit.merged(enabled);
    EXPECT_TRUE(clean.findings.empty()) << listed(clean.findings);
    // Errors of weights and activations, about 31.5 dB each, add up to 28.5 dB; a few loud channels
    // move that, but never beyond the two alone or twice as much.
    EXPECT_GT(clean.output_snr_db, 25.5);
    EXPECT_LT(clean.output_snr_db, 31.5);
    EXPECT_NEAR(clean.output_snr_db, clean.expected_output_snr_db, 0.05);
    // All rows of parts, each once, whatever the rank: 16 tokens.
    EXPECT_EQ(tensor_of(clean, "gate.weight").output.outputs, 256 * 16);
    EXPECT_EQ(tensor_of(clean, "ragged.weight").output.outputs, 130 * 16);
    // Cut by columns: each rank has a partial product of every row.
    EXPECT_EQ(tensor_of(clean, "down.weight").output.outputs, 2 * 256 * 16);
    EXPECT_EQ(tensor_of(clean, "norm.weight").output.outputs, 0);
    for (const char* name : {"gate.weight", "down.weight", "ragged.weight"}) {
        for (std::int64_t i = 0; i < 130; ++i) {
            refit.source(name, i, (37 * i) % 200) = bf16_bits(i % 2 == 0 ? 2.0 : -0.4);
        }
    }
    refit.reload();
    const MergedAudit outliers = refit.merged(enabled);
    EXPECT_TRUE(outliers.findings.empty()) << listed(outliers.findings);
}

TEST_P(EveryGranularity, LayerOutputCatchesADoubledScale) {
    Refit refit(GetParam());
    refit.scale(0, refit.gate_up_, 0) *= 2.0F;
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"gate.weight"});
}

TEST_P(EveryGranularity, LayerOutputCatchesSwappedTensors) {
    // What gate_up holds is right for the two the other way round.
    Refit refit(GetParam());
    for (std::int64_t row = 0; row < 256; ++row) {
        for (std::int64_t col = 0; col < 384; ++col) {
            std::swap(refit.source("gate.weight", row, col), refit.source("up.weight", row, col));
        }
    }
    EXPECT_EQ(outputs_found(refit), (std::set<std::string>{"gate.weight", "up.weight"}));
}

TEST_P(EveryGranularity, LayerOutputCatchesNanCodesAndIsSilentUnasked) {
    Refit refit(GetParam());
    refit.code(0, refit.down_, 3, 7) = 0x7f;
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"down.weight"});
    const MergedAudit unasked = refit.merged({"sqnr"});
    EXPECT_EQ(tensor_of(unasked, "down.weight").output.outputs, 0);
    EXPECT_TRUE(std::isnan(unasked.output_snr_db));
    EXPECT_EQ(causes(unasked.findings), (Causes{{"sqnr", "down.weight"}}));
}

TEST(BlockScheme, LayerOutputCatchesATransposedScaleGrid) {
    Refit refit(Granularity::block);
    std::swap(refit.scale(1, refit.down_, 1), refit.scale(1, refit.down_, 2));
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"down.weight"});
}

TEST(BlockScheme, LayerOutputPassesPowerOfTwoScalesAndCatchesOneThatIsHalf) {
    Refit refit(Granularity::block, true);
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{});
    refit.scale(0, refit.ragged_, 3) *= 0.5F;
    refit.scale(1, refit.ragged_, 3) *= 0.5F;
    EXPECT_EQ(outputs_found(refit), std::set<std::string>{"ragged.weight"});
}

TEST(LayerOutputCheck, CatchesAnErrorThatIsTooGood) {
    const Refit refit(Granularity::channel);
    std::vector<RankAudit> ranks = refit.audits({"layer_output"});
    for (RankAudit& rank : ranks) {
        for (TensorAudit& tensor : rank.result.tensors) {
            if (tensor.tensor == "down.weight") tensor.output.error2 *= 0.9;
        }
    }
    EXPECT_EQ(causes(merge_audits(ranks, {"layer_output"}).findings),
              (Causes{{"layer_output", "down.weight"}}));
    EXPECT_TRUE(merge_audits(ranks, {"sqnr"}).findings.empty());
}

TEST_P(EveryGranularity, HistogramsCountEveryLoadedCodeAndScaleOnce) {
    Refit refit(GetParam());
    refit.scale(0, refit.ragged_, 0) = refit.scale(1, refit.ragged_, 0) = std::nanf("");
    const MergedAudit merged = refit.merged();
    std::int64_t codes = 0;
    for (const std::int64_t count : merged.codes) codes += count;
    EXPECT_EQ(merged.codes.size(), 256U);
    EXPECT_EQ(codes, 2 * 256 * 384 + 256 * 512 + 130 * 200);
    std::int64_t scales = 0;
    for (const auto& [bin, count] : merged.scales) {
        scales += count;
        // amax of some hundred or some ten thousand numbers of deviation 0.02, by 448: 2^-13 or so.
        EXPECT_GE(bin, -8 * 14) << bin;
        EXPECT_LE(bin, -8 * 12) << bin;
    }
    const std::int64_t block = 2 * 2 * 3 + 2 * 4 + 2 * 2;
    const std::int64_t channel = 256 + 256 + 256 + 130;
    const std::int64_t all = GetParam() == Granularity::block     ? block
                             : GetParam() == Granularity::channel ? channel
                                                                  : 4;
    EXPECT_EQ(scales, all - 1) << "the NaN has no bin";
}

TEST_P(EveryGranularity, RelativeErrorCosineAndSubnormalCodesAreThoseOfTheValues) {
    const Refit refit(GetParam());
    const MergedAudit merged = refit.merged();
    const TensorAudit& down = tensor_of(merged, "down.weight");
    // By definition from the sums that the walk does not form: ||d||^2 and <x, d> need the values.
    EXPECT_NEAR(relative_error(down), std::pow(10.0, -sqnr_db(down.sum_x2, down.sum_error2) / 20),
                1e-12);
    EXPECT_GT(cosine(down), 1.0 - 1e-3);
    EXPECT_LT(cosine(down), 1.0);
    std::int64_t subnormal = 0;
    for (std::size_t code = 0; code < 256; ++code) {
        const double magnitude = std::abs(code_value(static_cast<unsigned>(code)));
        if (magnitude > 0.0 && magnitude < 0x1p-6) subnormal += down.codes[code];
    }
    EXPECT_EQ(subnormal_codes(down), subnormal);
    EXPECT_GT(subnormal, 0);
}

TEST(ByteIdentity, CatchesOneByteOfAReplicaAndNamesBothRanks) {
    Refit refit(Granularity::block);
    refit.code(1, refit.ragged_, 129, 199) ^= 0x80U;
    const core::Findings findings = check_byte_identity(refit.audits());
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "byte_identity");
    EXPECT_EQ(findings[0].tensor, "ragged.weight");
    EXPECT_NE(findings[0].message.find("ranks 10 and 11"), std::string::npos);
    EXPECT_NE(findings[0].message.find("0,0,130,200"), std::string::npos);
}

TEST(ByteIdentity, CatchesRawTensorsAndScalesToo) {
    Refit refit(Granularity::channel);
    refit.raw(0, refit.norm_, 1) ^= 1U;
    refit.scale(1, refit.ragged_, 7) *= 2.0F;
    EXPECT_EQ(
        causes(check_byte_identity(refit.audits())),
        (Causes{{"byte_identity", "norm.weight"}, {"byte_identity", "ragged.weight_scale_inv"}}));
}

TEST(ByteIdentity, ComparesTheSameRankOfTwoEngines) {
    Refit first(Granularity::block);
    Refit second(Granularity::block);
    second.code(1, second.down_, 0, 0) ^= 1U;
    std::vector<RankAudit> ranks = first.audits();
    ranks.push_back({12, second.audit(0)});
    EXPECT_TRUE(check_byte_identity(ranks).empty());
    ranks.push_back({13, second.audit(1)});
    ASSERT_EQ(check_byte_identity(ranks).size(), 1U);
    EXPECT_EQ(check_byte_identity(ranks)[0].rank, 13);
}

TEST(Version, CatchesAStaleAndATornReceiver) {
    EXPECT_TRUE(check_versions(7, {2, 3}, {7, 7}, {false, false}).empty());
    core::Findings findings = check_versions(7, {2, 3}, {7, 6}, {false, false});
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "version");
    EXPECT_EQ(findings[0].rank, 3);
    findings = check_versions(7, {2, 3}, {7, 7}, {true, false});
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].rank, 2);
    EXPECT_NE(findings[0].measured.find("torn"), std::string::npos);
}

TEST(SourceUnchanged, CatchesATensorThatWasWritten) {
    const wire::Digest one = {1, 2};
    const wire::Digest other = {1, 3};
    EXPECT_TRUE(check_source_unchanged({{"a", 0, one, one}, {"b", 1, other, other}}).empty());
    const core::Findings findings =
        check_source_unchanged({{"a", 0, one, one}, {"b", 0, one, other}, {"b", 1, other, one}});
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "source_unchanged");
    EXPECT_EQ(findings[0].tensor, "b");
    EXPECT_NE(findings[0].message.find("rank 0, 1"), std::string::npos);
}

TEST(Audit, GivesNoFindingForAQuestionNobodyAskedFor) {
    Refit refit(Granularity::block);
    refit.scale(0, refit.gate_up_, 0) = std::nanf("");
    refit.code(0, refit.down_, 0, 0) = 0xff;
    refit.raw(0, refit.norm_, 0) ^= 1U;
    EXPECT_TRUE(refit.audit(0, {}).findings.empty());
    EXPECT_TRUE(refit.merged({}).findings.empty());
}

TEST(Audit, RefusesAContractThatContradictsItself) {
    Refit unknown(Granularity::block);
    unknown.tensors_.pop_back();
    EXPECT_THROW((void)unknown.audit(0), core::ShapeError);
    Refit outside(Granularity::block);
    outside.instance_.spans[0][0].dest_row = 200;
    EXPECT_THROW((void)outside.audit(0), core::ShapeError);
    Refit without_scale(Granularity::block);
    without_scale.instance_.destinations[without_scale.down_].scale = -1;
    EXPECT_THROW((void)without_scale.audit(0), core::ShapeError);
}

TEST(Audit, SeesAWeightWhoseScaleLiesOutsideTheScaleTensor) {
    // Three grid rows are used, but the engine holds two: its kernel would read beyond the end.
    Refit refit(Granularity::block);
    auto& destination = refit.instance_.destinations[static_cast<std::size_t>(
        refit.instance_.destinations[refit.down_].scale)];
    destination.shape = {1, 2};
    for (receiver::LoadSpan& span : refit.instance_.spans[0]) {
        if (refit.instance_.wanted[span.wanted].name == "down.weight_scale_inv")
            span.source.rows = 1;
    }
    EXPECT_EQ(causes(refit.audit(0).findings), (Causes{{"round_trip", "down.weight"}}));
}

TEST(Catalogue, HasEveryCheckThatLivesHere) {
    const std::vector<std::string> names = check_names();
    for (const char* name : {"completeness", "nonfinite", "round_trip", "sqnr", "byte_identity",
                             "source_unchanged", "version", "layer_output"}) {
        EXPECT_EQ(std::count(names.begin(), names.end(), name), 1) << name;
    }
}

}  // namespace
}  // namespace refit::checks
