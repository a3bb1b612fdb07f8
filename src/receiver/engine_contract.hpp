// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// EngineContract: what one version of one inference engine accepts, as data.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "quant/recipe.hpp"
#include "receiver/quantization_config.hpp"
#include "wire/wanted_list.hpp"

namespace refit::receiver {

/// One row: what the engine does with one kind of tensor. Sources: facts with repository and
/// commit.
struct ContractRow {
    std::string suffix;  ///< weight | weight_scale | weight_scale_inv | bias | norm ...
    std::string scheme;  ///< scheme name it belongs to, "any"
    std::string parameter_dtype;
    std::vector<core::DType> wire_dtypes;  ///< that load correctly
    std::string wire_shape;  ///< "[N, K]", "(N, 1)", "(N,)", "[cd(N,128), cd(K,128)]" for people
    std::string tp_rule;     ///< column | row | replicated | qkv | merged
    std::string
        on_wrong_rank;  ///< behaviour: raises | silently_wrong | ignored | warns | keeps_sentinel
    std::string on_too_long;
    std::string on_too_short;
    std::string on_wrong_dtype;
    std::string on_missing;
    std::string engine_message;  ///< the engine's error text where it raises
};

struct EngineContract {
    std::string name;     ///< vllm-fp8 ...
    std::string version;  ///< "vLLM 017e9f4 (2026-08-17)"
    std::vector<quant::Scheme> schemes;
    std::vector<std::string> algos;  ///< of vllm-modelopt
    int channel_scale_rank = 2;      ///< 1: (rows,), 2: (rows, 1)
    std::string block_scale_suffix;  ///< weight_scale_inv or weight_scale
    std::vector<ContractRow> rows;
    std::string source;  ///< repository, commit, files
};

[[nodiscard]] const std::vector<EngineContract>& engine_catalog();
[[nodiscard]] std::vector<std::string> engine_names();
/// Throws UsageError that lists the nearest names.
[[nodiscard]] const EngineContract& find_engine(const std::string& name);

/// How a destination's elements get their values.
enum class Granularity { none, block, channel, tensor };

/// One parameter as the engine's kernels will see it on one rank (fused, sharded).
struct DestinationParameter {
    std::string name;  ///< "model.layers.0.self_attn.qkv_proj.weight"
    core::DType dtype = core::DType::bf16;
    core::Shape shape;              ///< of this rank
    bool is_scale = false;          ///< poison -FLT_MAX instead of 0xFF bytes
    std::int64_t padding_rows = 0;  ///< most rows of any rank that the engine itself fills with
                                    ///< zeros: the vocabulary padding of the last ranks
    /// Of a quantized weight: index of its scale destination, and how the engine's kernel applies
    /// it: element (r, c) uses block: scale[r / 128, c / 128] of the FUSED matrix; channel:
    /// scale[r]; tensor: the scale of the span it came in.
    std::int64_t scale = -1;
    Granularity granularity = Granularity::none;

    /// The parameter as a matrix, which is what spans address: the matrices of a 3-D parameter
    /// (those of the experts, [experts, rows, cols]) one below the other; else first dimension by
    /// the rest.
    [[nodiscard]] std::int64_t rows() const;
    [[nodiscard]] std::int64_t cols() const;
    /// Row of the block scale that row `row` of the matrix uses: every expert's blocks begin anew.
    [[nodiscard]] std::int64_t block_row(std::int64_t row) const;
};

/// What is copied where on one rank: a cell (or the whole) of a wanted parameter into a
/// destination.
struct LoadSpan {
    std::size_t wanted = 0;       ///< index into ContractInstance::wanted
    std::uint32_t cell = 0;       ///< index of the cell (wire::cells_within numbering)
    core::Region source;          ///< global, in the wanted parameter seen as a matrix
    std::size_t destination = 0;  ///< index into ContractInstance::destinations
    std::int64_t dest_row = 0;
    std::int64_t dest_col = 0;
};

/// A kv_b_proj of multi-head latent attention, of which the engine keeps two derived matrices.
struct LatentProjection {
    std::string module;           ///< "model.layers.0.self_attn"
    std::size_t destination = 0;  ///< its weight, [heads * (nope + v), kv_lora], on one rank
    std::int64_t heads = 0;       ///< of one rank
    std::int64_t nope_dim = 0;
    std::int64_t v_dim = 0;
    std::int64_t kv_lora_rank = 0;
};

/// A contract applied to one model, one quantization_config and one TP size.
struct ContractInstance {
    std::string engine;
    std::string engine_version;
    QuantizationConfig config;
    int tp = 1;
    int ep = 1;  ///< 1: experts are cut over the TP ranks; tp: each rank keeps whole experts
    model::Architecture architecture = model::Architecture::llama;
    wire::WantedList wanted;
    std::vector<DestinationParameter>
        destinations;                          ///< of every rank (shapes are equal over ranks)
    std::vector<std::vector<LoadSpan>> spans;  ///< by TP rank
    std::vector<LatentProjection> latent;      ///< in checkpoint order; empty without MLA
    /// What the engine refuses or would get silently wrong, in the order in which it would meet
    /// them: sizes, layers as they are built, then loading.
    core::Findings refusals;
};

/// Applies a contract: fuses q/k/v and gate/up, cuts rows and columns, replicates KV heads when tp
/// > kv_heads, pads the vocabulary to 64 * tp, places scales by the engine's own order of divide
/// and ceil. A model that the engine cannot hold at this TP size (heads, blocks) gives `refusals`,
/// with the engine's text. Experts are stacked into w13 (gate rows, then up rows) and w2; with `ep`
/// == `tp` > 1 each rank keeps experts / ep whole ones, in order. Throws UsageError/ScenarioError
/// for an engine that has no such scheme or architecture, and for an `ep` that is neither 1 nor
/// `tp`.
[[nodiscard]] ContractInstance apply_contract(const EngineContract& contract,
                                              const model::ModelConfig& model,
                                              const QuantizationConfig& config, int tp, int ep = 1);

}  // namespace refit::receiver
