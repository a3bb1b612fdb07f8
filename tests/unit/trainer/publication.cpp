// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "publication.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <random>

#include "core/aligned_buffer.hpp"
#include "kernels/backend.hpp"
#include "trainer/bucket_source.hpp"
#include "trainer/refit_publisher.hpp"
#include "trainer/resident_shard.hpp"
#include "wire/piece.hpp"

namespace refit::trainer_test {

std::uint16_t bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return static_cast<std::uint16_t>((bits + 0x7fffU + ((bits >> 16) & 1U)) >> 16);
}

std::vector<std::uint16_t> random_values(std::int64_t count, std::uint32_t seed) {
    std::mt19937 random(seed);
    std::normal_distribution<float> normal(0.0F, 0.05F);
    std::vector<std::uint16_t> values(static_cast<std::size_t>(count));
    for (std::uint16_t& value : values) value = bf16(normal(random));
    return values;
}

void FixedWeights::read(const model::TensorSpec& tensor, const core::Region& region,
                        std::uint16_t* out, std::int64_t out_stride) const {
    const std::vector<std::uint16_t>& all = values_.at(tensor.name);
    const std::int64_t cols = core::matrix_cols(tensor.shape);
    for (std::int64_t r = 0; r < region.rows; ++r) {
        const auto first = static_cast<std::size_t>((region.row + r) * cols + region.col);
        std::copy_n(all.begin() + static_cast<std::ptrdiff_t>(first), region.cols,
                    out + r * out_stride);
    }
}

model::TensorSpec matrix(const std::string& name, std::int64_t rows, std::int64_t cols) {
    model::TensorSpec tensor;
    tensor.name = name;
    tensor.shape = {rows, cols};
    tensor.role = model::Role::up_proj;
    tensor.layer = 0;
    return tensor;
}

void want(wire::WantedList& wanted, const model::TensorSpec& tensor, const quant::Recipe* recipe) {
    const auto cut = [](std::int64_t extent, std::int64_t parts) {
        std::vector<std::int64_t> cuts = {0, extent / parts, extent};
        return cuts;
    };
    wire::WantedParameter weight;
    weight.name = tensor.name;
    weight.dtypes = {recipe != nullptr ? core::DType::f8_e4m3 : core::DType::bf16};
    weight.shape = tensor.shape;
    weight.row_cuts = cut(core::matrix_rows(tensor.shape), 2);
    weight.col_cuts = cut(core::matrix_cols(tensor.shape), 3);
    if (recipe == nullptr) {
        wanted.push_back(weight);
        return;
    }
    weight.scale = tensor.name.substr(0, tensor.name.size() - 6) + recipe->scale_suffix;
    wire::WantedParameter scale;
    scale.name = weight.scale;
    scale.dtypes = {core::DType::f32};
    scale.shape = quant::scale_shape(*recipe, tensor.shape, recipe->scale_rank);
    scale.scale_of = tensor.name;
    scale.row_cuts = cut(core::matrix_rows(scale.shape), 2);
    scale.col_cuts = cut(core::matrix_cols(scale.shape), 3);
    wanted.push_back(weight);
    wanted.push_back(scale);
}

std::vector<float> Publication::scales(const std::string& name) const {
    const std::vector<std::byte>& raw = bytes.at(name);
    std::vector<float> values(raw.size() / sizeof(float));
    if (!values.empty()) std::memcpy(values.data(), raw.data(), raw.size());
    return values;
}

bool Publication::any_aborted() const {
    for (const std::vector<bool>& bucket : aborted) {
        if (std::find(bucket.begin(), bucket.end(), true) != bucket.end()) return true;
    }
    return false;
}

namespace {

/// The bytes of one cell within an entry, gathered row by row.
std::vector<std::byte> cell_bytes(const wire::ParameterMeta& meta, const core::Region& sent,
                                  std::span<const std::byte> data, const core::Region& region) {
    const std::int64_t element = core::size_bytes(meta.dtype);
    std::vector<std::byte> bytes;
    for (std::int64_t r = region.row; r < region.row + region.rows; ++r) {
        const auto first = static_cast<std::size_t>(
            ((r - sent.row) * sent.cols + region.col - sent.col) * element);
        const auto row = data.subspan(first, static_cast<std::size_t>(region.cols * element));
        bytes.insert(bytes.end(), row.begin(), row.end());
    }
    return bytes;
}

void take(Publication& publication, const wire::PieceView& view, const wire::PiecePlan& plan) {
    std::size_t next_digest = 0;
    for (const wire::PieceEntry& entry : plan.entries) {
        const wire::ParameterMeta& meta = publication.plan.manifest.parameters[entry.parameter];
        const std::span<const std::byte> data = view.entry(entry);
        const core::Region sent = entry.region(meta);
        const std::int64_t element = core::size_bytes(meta.dtype);
        ASSERT_EQ(static_cast<std::int64_t>(data.size()), sent.rows * sent.cols * element);
        for (std::int64_t r = 0; r < sent.rows; ++r) {
            const std::int64_t at = (sent.row + r) * meta.cols() + sent.col;
            std::copy_n(data.begin() + r * sent.cols * element, sent.cols * element,
                        publication.bytes[meta.name].begin() + at * element);
            for (std::int64_t c = 0; c < sent.cols; ++c)
                ++publication.count[meta.name][static_cast<std::size_t>(at + c)];
        }
        for (const wire::Cell& cell : wire::cells_in_region(meta, sent)) {
            ASSERT_LT(next_digest, view.digests().size());
            const wire::DigestRecord& record = view.digests()[next_digest++];
            EXPECT_EQ(record.parameter, entry.parameter);
            EXPECT_EQ(record.cell, cell.index);
            EXPECT_EQ(record.digest, wire::digest_of(cell_bytes(meta, sent, data, cell.region)))
                << meta.name << " cell " << cell.index;
            ++publication.digests;
        }
    }
    EXPECT_EQ(next_digest, view.digests().size());
}

}  // namespace

Publication publish(const std::vector<model::TensorSpec>& tensors, const wire::WantedList& wanted,
                    const trainer::Payload& payload, const parallel::Sharding& sharding,
                    const trainer::TrainerFaults& faults, const weights::WeightSource& source,
                    const std::string& backend_name, bool per_bucket) {
    constexpr std::uint64_t kVersion = 3;
    Publication publication;
    publication.plan = trainer::make_plan(tensors, wanted, payload, sharding, faults);
    const trainer::RefitPlan& plan = publication.plan;
    for (const wire::ParameterMeta& meta : plan.manifest.parameters) {
        publication.bytes[meta.name].assign(
            static_cast<std::size_t>(meta.rows() * meta.row_bytes()), std::byte{0});
        publication.count[meta.name].assign(static_cast<std::size_t>(meta.rows() * meta.cols()), 0);
    }
    const kernels::Backend& backend = *kernels::find_backend(backend_name);
    std::vector<std::unique_ptr<trainer::WeightRows>> shards;
    std::vector<trainer::BucketSource*> streams;
    std::vector<std::unique_ptr<trainer::RefitPublisher>> publishers;
    for (int t = 0; t < sharding.rows.ranks; ++t) {
        if (per_bucket) {
            auto stream = std::make_unique<trainer::BucketSource>(tensors, plan, t, source);
            streams.push_back(stream.get());
            shards.push_back(std::move(stream));
        } else {
            shards.push_back(std::make_unique<trainer::ResidentShard>(tensors, plan.placements, t,
                                                                      source, [] {}));
        }
        publishers.push_back(std::make_unique<trainer::RefitPublisher>(
            tensors, plan, payload, faults, backend, *shards.back(), t));
        publishers.back()->begin(kVersion);
    }
    trainer::PublishTimes times;
    for (std::size_t b = 0; b < plan.manifest.buckets.size(); ++b) {
        for (trainer::BucketSource* stream : streams) stream->read(b, [] {});
        // In two turns, so that no threads are needed: first everybody's words, then the maximum.
        std::vector<std::uint32_t> maximum(plan.exchange_words[b], 0);
        for (auto& publisher : publishers) {
            publisher->gather(b, [&](std::span<std::uint32_t> words) {
                ASSERT_EQ(words.size(), maximum.size());
                for (std::size_t i = 0; i < words.size(); ++i) {
                    maximum[i] = std::max(maximum[i], words[i]);
                }
            });
        }
        publication.aborted.emplace_back(publishers.size(), false);
        for (std::size_t t = 0; t < publishers.size(); ++t) {
            publishers[t]->gather(b, [&](std::span<std::uint32_t> words) {
                std::copy(maximum.begin(), maximum.end(), words.begin());
            });
            const wire::PiecePlan& piece = plan.manifest.buckets[b].pieces[t];
            if (piece.bytes == 0) continue;
            core::AlignedBuffer memory(piece.bytes + 64);
            std::memset(memory.data(), 0xcd, memory.size());
            publishers[t]->fill(
                b, memory.span().first(piece.bytes), [&] { ++publication.progress_calls; }, times);
            for (std::size_t i = piece.bytes; i < memory.size(); ++i) {
                EXPECT_EQ(memory.data()[i], std::byte{0xcd}) << "written behind the piece";
            }
            const std::span<const std::byte> bytes = memory.span().first(piece.bytes);
            const wire::PieceView view(plan.manifest, static_cast<std::uint32_t>(b),
                                       static_cast<std::uint32_t>(t), kVersion, bytes);
            publication.aborted[b][t] = view.aborted();
            if (!view.aborted()) take(publication, view, piece);
        }
    }
    for (auto& publisher : publishers) publication.findings.push_back(publisher->findings());
    return publication;
}

Whole quantize_whole(const quant::Recipe& recipe, const std::vector<std::uint16_t>& values,
                     std::int64_t rows, std::int64_t cols) {
    const kernels::TileGrid grid = kernels::tile_grid(recipe.scaling, rows, cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    Whole whole;
    whole.codes.resize(values.size());
    whole.scales.resize(tiles);
    std::vector<std::uint32_t> amax(tiles, 0);
    const kernels::Band band{
        values.data(), cols, 0, rows, rows, cols, (std::uint32_t{values.back()} & 0x7fffU) << 16};
    kernels::find_backend("portable")
        ->quantize(recipe.scaling, band, amax, whole.scales,
                   reinterpret_cast<std::uint8_t*>(whole.codes.data()), cols, {});
    return whole;
}

std::vector<std::uint32_t> bits_of(const std::vector<float>& values) {
    std::vector<std::uint32_t> bits;
    for (const float value : values) bits.push_back(std::bit_cast<std::uint32_t>(value));
    return bits;
}

}  // namespace refit::trainer_test
