// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// EngineContract: what one version of one inference engine accepts, as data.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "model/model_config.hpp"
#include "quant/recipe.hpp"
#include "receiver/quantization_config.hpp"
#include "wire/wanted_list.hpp"

namespace refit::receiver {

/// What an engine's loader does with a tensor, in the order in which it does it. The names are
/// those of the rules in load_outcome.hpp.
enum class LoaderRule {
    narrow,            ///< cuts each rank's share out of what came, then compares the shapes
    narrow_or_pad,     ///< the same, but fills a share that ends early with zeros
    checked_narrow,    ///< the same as narrow, then compares shapes and dtypes with a text
    concatenated,      ///< joins the parts of a layer, then compares shapes with a text
    same_shape,        ///< compares the shapes of whole tensors with a bare assert
    same_size,         ///< compares the shapes of whole tensors with a text
    whole_rows,        ///< compares the rows of a vocabulary tensor with the vocabulary
    one_value,         ///< one element with one dimension or none
    one_element,       ///< one element, whatever its dimensions
    flattened,         ///< as many elements as there are, whatever their dimensions
    expert_corner,     ///< writes what came into a corner of the expert, however small it is
    expert_narrow,     ///< cuts by the expert's own size, then broadcasts
    grid_of_the_scale  ///< whole tensors; block sizes are the weight's shape over the scale's
};

/// One row: what the engine does with one kind of tensor. Sources: facts with repository and
/// commit.
struct ContractRow {
    std::string suffix;  ///< weight | weight_scale | weight_scale_inv | bias | norm ...
    std::string scheme;  ///< scheme name it belongs to, "any"
    std::string parameter_dtype;
    std::vector<core::DType> wire_dtypes;  ///< that load correctly
    std::string wire_shape;  ///< "[N, K]", "(N, 1)", "(N,)", "[cd(N,128), cd(K,128)]" for people
    std::string tp_rule;     ///< of: column | qkv | merged | latent | row | replicated | experts
    std::string
        on_wrong_rank;  ///< behaviour: raises | silently_wrong | ignored | warns | keeps_sentinel
    std::string on_too_long;
    std::string on_too_short;
    std::string on_wrong_dtype;
    std::string on_missing;
    /// The engine's text where shapes differ; {came}, {wanted} and {rows} stand for what was sent,
    /// what was wanted and the rows of the former.
    std::string engine_message;
    LoaderRule loader = LoaderRule::narrow;
    /// Of a format that exists only after loading (a kernel layout): documented, never wanted.
    bool after_load = false;
};

/// Which texts of a quantization_config an engine reads.
enum class ConfigFormat { fp8, compressed_tensors, modelopt };

/// How the entries of a skip list match modules, and what fused layers make of it. Source of each:
/// skip_rules.hpp.
enum class SkipRule {
    exact,             ///< vLLM fp8: whole module paths; parts of a fused layer must agree
    dotted,            ///< SGLang fp8: whole components of the path, anywhere in it
    prefix_or_suffix,  ///< transformers: a pattern from the start, or the end of the path
    patterns,          ///< vLLM compressed-tensors: paths and "re:"; parts must agree
    path_endings,      ///< SGLang compressed-tensors: "re:" and ends of the fused layer's own path
    wildcards,         ///< vLLM ModelOpt: paths, parts of the fused layer's path, shell patterns
};

/// Which blocks an engine cannot hold: "ragged" is a part that ends within a block.
enum class BlockRule {
    fused_at_load,  ///< fused layers are built ragged and fail, or end wrong, when they are loaded
    at_construction,  ///< every part but the last of a layer that the ranks do not share
    every_part,       ///< every part of a fused or shared layer
    exact_tiles,      ///< rows and columns of every layer
    scale_grid,       ///< sizes that the number of blocks does not divide into blocks of that size
};

/// What the loader of a model class does with a name that it does not know.
enum class UnknownNames { vllm, sglang, transformers, raises };

/// What an engine holds of the experts of a quantized model, whatever its config says of layers.
enum class ExpertFormat {
    as_config,  ///< the format of the group or config that names them
    one_value,  ///< a weight scale and a static input scale for every projection of an expert
    raw_only,   ///< refuses quantized experts; those on the skip list are loaded
};

/// How an engine holds a model.
struct EngineLayout {
    bool fuses = true;            ///< q/k/v and gate/up become one parameter
    bool tensor_parallel = true;  ///< false: TP 1 only
    /// block scales of a merged layer: rounds the whole up and then divides by the TP size, instead
    /// of the other way round
    bool ceil_then_divide = false;
    std::string latent_module = "fused_qkv_a_proj";  ///< q_a_proj and kv_a_proj_with_mqa
    /// Stacks of experts below "model.layers.N.mlp.experts."; a scale is called like its weight
    /// with the scale's own ending.
    std::string experts_gate_up = "routed_experts.w13_weight";
    std::string experts_down = "routed_experts.w2_weight";
    ExpertFormat expert_format = ExpertFormat::as_config;
    bool up_before_gate = false;  ///< order of the rows of the gate and up stack
    std::int64_t vocabulary_multiple = 64;
};

/// Which scales of an FP8 KV cache a refit sends: of keys and values, or of queries too.
enum class CacheScales { none, kv, qkv };

/// Whose names scales of the KV cache load under; see cache_scales.hpp.
enum class CacheScaleLoader {
    none,    ///< the engine's attention layers hold none
    vllm,    ///< by patterns, for every model without latent attention
    sglang,  ///< by patterns for Llama, by the parameter's own name for Qwen2
    both     ///< names that load in vLLM and in SGLang
};

/// How an engine holds the scales of an FP8 KV cache.
struct CacheScaleRule {
    CacheScaleLoader loader = CacheScaleLoader::none;
    std::string absent;              ///< without a loader: why, after the engine's name
    bool under_projections = false;  ///< to be sent as "k_proj.k_scale" instead of "k_scale"
    bool starts_at_one = false;      ///< a scale that never comes stays at 1.0 instead of -1
    core::Shape shape = {};          ///< of the engine's parameter
};

/// Which head an engine computes with where a checkpoint stores one although config.json ties it to
/// the embedding.
enum class TiedHead {
    unknown,    ///< the engine was not asked, or it is a profile of several
    embedding,  ///< the stored head is dropped
    stored,     ///< the head is built apart, loaded, and tied again only if both are equal
    either      ///< as `stored`; and a head without an embedding stands for the embedding too
};

/// A model class whose loader is at odds with a scheme.
struct LoaderDefect {
    model::Architecture architecture = model::Architecture::llama;
    quant::Scheme scheme = quant::Scheme::fp8_blockwise;
    std::string suffix;     ///< of the tensors that are lost
    std::string behaviour;  ///< as in ContractRow
    std::string cause;      ///< a sentence for people
    std::string remedy;
    bool fatal = true;  ///< false: a warning, because another engine of the profile is meant
};

/// Fused layers of which a family's model class tells its engine what the parts are called.
struct KnownParts {
    model::Architecture architecture = model::Architecture::llama;
    std::vector<std::string> layers;  ///< last components of their paths
};

/// A key that the class of a family takes from config.json, and whose absence it does not survive.
struct NeededKey {
    model::Architecture architecture = model::Architecture::llama;
    std::string key;
    std::string engine_message;
};

struct EngineContract {
    std::string name;     ///< vllm-fp8 ...
    std::string version;  ///< "vLLM 017e9f4 (2026-08-17)"
    std::vector<quant::Scheme> schemes;
    /// Schemes that need input scales, which no trainer of a refit has: of checkpoints only.
    std::vector<quant::Scheme> static_schemes;
    std::vector<std::string> algos;  ///< of vllm-modelopt
    int channel_scale_rank = 2;      ///< 1: (rows,), 2: (rows, 1)
    std::string block_scale_suffix;  ///< weight_scale_inv or weight_scale
    std::string tensor_scale_suffix = "weight_scale";
    /// That it reads; a default config is of the first that has the scheme.
    std::vector<ConfigFormat> formats;
    std::vector<std::string> default_skip_list;  ///< of a blockwise default config
    bool needs_activation_scheme = true;         ///< of quant_method fp8
    /// Of quant_method fp8 without a block size: true for blocks of 128, false for one scale a
    /// tensor. An explicit null is one scale a tensor in either case.
    bool defaults_to_blocks = false;
    bool refuses_packed_formats = true;  ///< of compressed-tensors
    /// Of compressed-tensors: refuses a kv_cache_scheme that is not symmetric FP8, one scale a
    /// layer or a head.
    bool checks_cache_scheme = false;
    /// Compares quant_method and quant_algo whatever their case.
    bool normalizes_methods = false;
    /// Of modelopt: reads one key of skipped modules, by the form of the config.
    bool one_modelopt_skip_key = false;
    /// Holds lm_head in E4M3 unless the skip list names it; see router_check.hpp.
    bool quantized_head = false;
    /// Of compressed-tensors: how groups of several formats are told apart is not known.
    bool one_format_for_all = false;
    /// Of SkipRule::path_endings: the fused layers whose parts the engine knows.
    std::vector<KnownParts> known_parts;
    /// Of compressed-tensors: loads q/k/v and gate/up in blocks of the group that targets "Linear",
    /// whichever group quantizes them.
    bool fused_blocks_of_linear = false;
    /// Of blocks that are not square: quantizes inputs in groups of the rows of a block.
    bool groups_inputs_by_rows = false;
    SkipRule skip_rule = SkipRule::exact;
    BlockRule block_rule = BlockRule::fused_at_load;
    UnknownNames unknown_names = UnknownNames::raises;
    EngineLayout layout;
    CacheScaleRule cache_scales;
    /// A profile of all other engines of the catalogue that read its config and have its scheme:
    /// what any of them refuses or gets wrong is a finding of the profile.
    bool intersection = false;
    /// A profile of several engines: what only an engine without ragged scale grids gets wrong is a
    /// warning.
    bool warns_of_ragged_grids = false;
    std::vector<LoaderDefect> defects;
    /// Families whose router is quantized with the other layers unless the skip list names it; see
    /// router_check.hpp.
    std::vector<model::Architecture> quantized_routers;
    /// Builds the routers' correction bias only where config.json names the method (topk_method).
    bool router_bias_by_method = false;
    std::vector<NeededKey> needed_keys;      ///< see router_check.hpp
    TiedHead tied_head = TiedHead::unknown;  ///< see tied_head.hpp
    /// Families whose class has a head of its own whatever tie_word_embeddings says.
    std::vector<model::Architecture> own_heads;
    std::string tied_head_source;  ///< product and version that said so: "vLLM 0.33.0"
    std::vector<ContractRow> rows;
    /// Families whose model class was not read for this contract, and so are refused.
    std::vector<model::Architecture> unread_architectures;
    std::string snapshot;  ///< repository and commit: "neuralmagic/vllm 017e9f4448b7"
    std::string source;    ///< repository, commit, files
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
    bool is_cache_scale = false;    ///< of the KV cache: a host copy is made of it
    std::int64_t padding_rows = 0;  ///< most rows of any rank that the engine itself fills with
                                    ///< zeros: the vocabulary padding of the last ranks
    /// Of a quantized weight: index of its scale destination, and how the engine's kernel applies
    /// it: element (r, c) uses block: scale[r / block_rows, c / block_cols] of the FUSED matrix;
    /// channel: scale[r]; tensor: the scale of the span it came in.
    std::int64_t scale = -1;
    Granularity granularity = Granularity::none;
    std::int64_t block_rows = 128;
    std::int64_t block_cols = 128;

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
    std::int64_t kv_heads = 0;    ///< of attention layers, over all ranks
    std::int64_t layers = 0;      ///< decoder layers
    std::int64_t mtp_layers = 0;  ///< layers for multi-token prediction behind them
    wire::WantedList wanted;
    std::vector<std::size_t> rows;  ///< by wanted parameter: its row in the engine's contract
    std::vector<DestinationParameter>
        destinations;                          ///< of every rank (shapes are equal over ranks)
    std::vector<std::vector<LoadSpan>> spans;  ///< by TP rank
    std::vector<LatentProjection> latent;      ///< in checkpoint order; empty without MLA
    /// What the engine refuses or would get silently wrong, in the order in which it would meet
    /// them: sizes, layers as they are built, then loading.
    core::Findings refusals;
    /// Why no scenario can use it although the engine does; empty where it can.
    std::string not_for_scenarios = {};
    /// Other names on the wire that load as a wanted parameter does: its name.
    std::map<std::string, std::string> aliases = {};

    /// The wanted parameter's name for one of its other names; else the name itself.
    [[nodiscard]] const std::string& canonical(const std::string& name) const {
        const auto found = aliases.find(name);
        return found == aliases.end() ? name : found->second;
    }
    /// Asks for the engine's own parameters under their names on the wire; see kernel_format.hpp.
    bool own_format = false;
    /// Of a profile: the engines that it is the intersection of, each with its own reading of the
    /// config; without those that have no such scheme, family or TP, or other names for its scales.
    std::vector<ContractInstance> members;
};

/// Applies a contract: fuses q/k/v and gate/up, cuts rows and columns, replicates KV heads when tp
/// > kv_heads, pads the vocabulary to 64 * tp, places scales by the engine's own order of divide
/// and ceil. A model that the engine cannot hold at this TP size (heads, blocks) gives `refusals`,
/// with the engine's text. Experts are stacked into w13 (gate rows, then up rows) and w2; with `ep`
/// == `tp` > 1 each rank keeps experts / ep whole ones, in order. Throws UsageError/ScenarioError
/// for an engine that has no such scheme or architecture, and for an `ep` that is neither 1 nor
/// `tp`. Scales of the KV cache are wanted of the decoder layers as `cache_scales` says, replicated
/// over the ranks; throws ScenarioError where the engine has no place for them.
[[nodiscard]] ContractInstance apply_contract(const EngineContract& contract,
                                              const model::ModelConfig& model,
                                              const QuantizationConfig& config, int tp, int ep = 1,
                                              CacheScales cache_scales = CacheScales::none);

}  // namespace refit::receiver
