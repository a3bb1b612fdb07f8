// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "unit/receiver/refit_fixture.hpp"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace refit::receiver_test {

using core::DType;

model::ModelConfig dense(std::int64_t hidden, std::int64_t intermediate, std::int64_t layers,
                         std::int64_t heads, std::int64_t kv_heads, std::int64_t head_dim,
                         std::int64_t vocabulary, bool tied) {
    model::ModelConfig config;
    config.name = "test";
    config.hidden = hidden;
    config.intermediate = intermediate;
    config.layers = layers;
    config.heads = heads;
    config.kv_heads = kv_heads;
    config.head_dim = head_dim;
    config.vocabulary = vocabulary;
    config.tied_embeddings = tied;
    return config;
}

model::ModelConfig named_model(const std::string& name) {
    if (name == "tiny-llama") return dense(512, 1024, 2, 8, 8, 64, 1024, false);
    if (name == "padded-llama") return dense(256, 512, 1, 4, 2, 64, 1000, false);
    if (name == "qwen3-0.6b") {
        model::ModelConfig config = dense(1024, 3072, 2, 16, 8, 128, 151936, true);
        config.architecture = model::Architecture::qwen3;
        config.qk_norm = true;
        return config;
    }
    if (name == "qwen2.5-0.5b") {
        model::ModelConfig config = dense(896, 4864, 1, 14, 2, 64, 151936, true);
        config.architecture = model::Architecture::qwen2;
        config.qkv_bias = true;
        return config;
    }
    if (name == "tiny-moe") {
        model::ModelConfig config = dense(256, 0, 2, 8, 4, 128, 512, false);
        config.architecture = model::Architecture::qwen3_moe;
        config.qk_norm = true;
        config.experts = 8;
        config.moe_intermediate = 512;
        return config;
    }
    if (name == "tiny-mla") {
        model::ModelConfig config = dense(256, 512, 2, 8, 8, 192, 512, false);
        config.architecture = model::Architecture::deepseek_v3;
        config.experts = 8;
        config.moe_intermediate = 512;
        config.shared_experts = 1;
        config.first_dense_layers = 1;
        config.router_bias = true;
        config.q_lora_rank = 256;
        config.kv_lora_rank = 128;
        config.nope_head_dim = 128;
        config.rope_head_dim = 64;
        config.v_head_dim = 128;
        config.mtp_layers = 1;
        return config;
    }
    throw std::invalid_argument("no test model " + name);
}

receiver::ContractInstance instance_of(const std::string& engine, quant::Scheme scheme,
                                       const model::ModelConfig& model, int tp, int ep) {
    const std::string json = receiver::default_quantization_config(engine, scheme, "");
    const receiver::QuantizationConfig config = receiver::parse_quantization_config(engine, json);
    return receiver::apply_contract(receiver::find_engine(engine), model, config, tp, ep);
}

receiver::ContractInstance instance_with(const std::string& engine, const std::string& json,
                                         const model::ModelConfig& model, int tp) {
    const receiver::QuantizationConfig config =
        json.empty() ? receiver::parse_quantization_config(engine, std::nullopt)
                     : receiver::parse_quantization_config(engine, json);
    return receiver::apply_contract(receiver::find_engine(engine), model, config, tp);
}

wire::RefitManifest list_of(const receiver::ContractInstance& instance) {
    wire::RefitManifest manifest;
    for (const wire::WantedParameter& wanted : instance.wanted) {
        wire::ParameterMeta meta;
        meta.name = wanted.name;
        meta.kind = !wanted.scale_of.empty() ? wire::ParameterKind::scale
                    : !wanted.scale.empty()  ? wire::ParameterKind::codes
                                             : wire::ParameterKind::raw;
        meta.dtype = wanted.dtypes.front();
        meta.shape = wanted.shape;
        meta.scale_of = wanted.scale_of;
        meta.row_cuts = wanted.row_cuts;
        meta.col_cuts = wanted.col_cuts;
        manifest.parameters.push_back(std::move(meta));
    }
    return manifest;
}

std::vector<core::Finding> findings_of(const core::Findings& findings, const std::string& check,
                                       const std::string& tensor) {
    std::vector<core::Finding> result;
    std::copy_if(findings.begin(), findings.end(), std::back_inserter(result),
                 [&](const core::Finding& finding) {
                     return finding.check == check && finding.tensor == tensor;
                 });
    return result;
}

Refit::Refit(const receiver::ContractInstance& instance, std::uint32_t trainers,
             std::size_t per_bucket, DType scale_dtype, bool by_columns)
    : manifest_(list_of(instance)) {
    std::uint32_t noise = 12345;
    for (wire::ParameterMeta& meta : manifest_.parameters) {
        const bool is_scale = meta.kind == wire::ParameterKind::scale;
        if (is_scale) meta.dtype = scale_dtype;
        std::vector<std::byte> bytes(static_cast<std::size_t>(meta.rows() * meta.row_bytes()));
        for (std::size_t i = 0; i < bytes.size(); ++i) {
            noise = noise * 1664525U + 1013904223U;
            bytes[i] = static_cast<std::byte>(noise >> 24);
        }
        if (is_scale) {
            // Powers of two times 1.5 are exact in every scale type.
            const std::size_t size = scale_dtype == DType::f32 ? 4 : 2;
            for (std::size_t i = 0; i * size < bytes.size(); ++i) {
                const std::uint32_t exponent = 120 + static_cast<std::uint32_t>(i % 9);
                const std::uint32_t f32 = (exponent << 23) | 0x400000U;
                if (scale_dtype == DType::f16) {
                    const auto f16 = static_cast<std::uint16_t>(((exponent - 112) << 10) | 0x200U);
                    std::memcpy(&bytes[i * 2], &f16, 2);
                } else if (scale_dtype == DType::bf16) {
                    const auto bf16 = static_cast<std::uint16_t>(f32 >> 16);
                    std::memcpy(&bytes[i * 2], &bf16, 2);
                } else {
                    std::memcpy(&bytes[i * 4], &f32, 4);
                }
            }
        }
        tensors_[meta.name] = std::move(bytes);
    }
    for (std::size_t first = 0; first < manifest_.parameters.size(); first += per_bucket) {
        const std::size_t last = std::min(first + per_bucket, manifest_.parameters.size());
        wire::BucketPlan bucket;
        for (std::uint32_t trainer = 0; trainer < trainers; ++trainer) {
            wire::PiecePlan piece;
            for (std::size_t i = first; i < last; ++i) {
                const wire::ParameterMeta& meta = manifest_.parameters[i];
                const bool columns = by_columns && meta.cols() >= 3;
                const std::int64_t whole = columns ? meta.cols() : meta.rows();
                const std::int64_t third = whole / 3;
                const std::int64_t begin = third * trainer;
                const std::int64_t end = trainer + 1 == trainers ? whole : begin + third;
                if (end <= begin) continue;
                wire::PieceEntry entry{static_cast<std::uint32_t>(i), {begin, end}, 0, 0};
                if (columns) {
                    entry.rows = {0, meta.rows()};
                    entry.cols = {begin, end};
                }
                piece.entries.push_back(entry);
            }
            std::uint64_t offset =
                wire::entries_offset(wire::digest_count(manifest_, piece.entries));
            for (wire::PieceEntry& entry : piece.entries) {
                entry.offset = offset;
                const wire::ParameterMeta& meta = manifest_.parameters[entry.parameter];
                const core::Region region = entry.region(meta);
                entry.bytes = static_cast<std::uint64_t>(region.rows * region.cols *
                                                         core::size_bytes(meta.dtype));
                offset = (offset + entry.bytes + 63) / 64 * 64;
            }
            piece.bytes = piece.entries.empty() ? 0 : offset;
            bucket.pieces.push_back(std::move(piece));
        }
        manifest_.buckets.push_back(std::move(bucket));
    }
}

std::vector<std::byte> Refit::piece(std::uint32_t bucket, std::uint32_t trainer,
                                    std::uint64_t version, wire::PieceState state) const {
    const wire::PiecePlan& plan = manifest_.buckets.at(bucket).pieces.at(trainer);
    std::vector<std::byte> bytes(plan.bytes);
    if (bytes.empty()) return bytes;
    std::vector<wire::DigestRecord> digests;
    for (const wire::PieceEntry& entry : plan.entries) {
        const wire::ParameterMeta& meta = manifest_.parameters[entry.parameter];
        const std::vector<std::byte>& tensor = tensors_.at(meta.name);
        const std::int64_t element = core::size_bytes(meta.dtype);
        const core::Region sent = entry.region(meta);
        for (std::int64_t row = 0; row < sent.rows; ++row) {
            std::memcpy(bytes.data() + entry.offset + row * sent.cols * element,
                        tensor.data() + (sent.row + row) * meta.row_bytes() + sent.col * element,
                        static_cast<std::size_t>(sent.cols * element));
        }
        for (const wire::Cell& cell : wire::cells_in_region(meta, sent)) {
            std::vector<std::byte> gathered;
            for (std::int64_t row = cell.region.row; row < cell.region.row + cell.region.rows;
                 ++row) {
                const std::byte* at =
                    tensor.data() + row * meta.row_bytes() + cell.region.col * element;
                gathered.insert(gathered.end(), at, at + cell.region.cols * element);
            }
            const XXH128_hash_t hash = XXH3_128bits(gathered.data(), gathered.size());
            digests.push_back({entry.parameter, cell.index, {hash.low64, hash.high64}});
        }
    }
    wire::PieceHeader header;
    header.version = version;
    header.bucket = bucket;
    header.trainer = trainer;
    header.digest_count = static_cast<std::uint32_t>(digests.size());
    header.state = state;
    header.piece_bytes = plan.bytes;
    header.last_bucket = bucket + 1 == manifest_.buckets.size() ? 1 : 0;
    wire::write_piece_header(bytes, header, digests);
    return bytes;
}

void Refit::stream(receiver::WeightLoader& loader, std::uint64_t version) const {
    receiver::LoadTimes times;
    for (std::uint32_t bucket = 0; bucket < manifest_.buckets.size(); ++bucket) {
        for (std::uint32_t trainer = 0; trainer < manifest_.buckets[bucket].pieces.size();
             ++trainer) {
            loader.load_piece(
                bucket, trainer, piece(bucket, trainer, version), [] {}, times);
        }
    }
    loader.finish_stream();
}

}  // namespace refit::receiver_test
