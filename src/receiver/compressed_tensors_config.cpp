// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// quant_method "compressed-tensors": groups, their targets and strategies.
#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "receiver/config_reader.hpp"

namespace refit::receiver {
namespace {

// In the order of the file: engines try groups and targets in that order.
using json = nlohmann::ordered_json;
using quant::Scheme;

constexpr const char* kNoScheme =
    "NotImplementedError: No compressed-tensors compatible scheme was found.";

constexpr const char* kFourBits =
    "NotImplementedError: Activation-quantized float4 is only supported in the NVFP4 layout "
    "(tensor_group, group_size 16)";

/// Groups of attention modules set the KV cache; they say nothing about weights.
bool names_attention(const json& group) {
    const json* targets = ConfigReader::value_of(group, "targets");
    if (targets == nullptr || !targets->is_array() || targets->empty()) return false;
    return std::all_of(targets->begin(), targets->end(), [](const json& target) {
        if (!target.is_string()) return false;
        const std::string text = target.get<std::string>();
        return text.ends_with("Attention") || text.ends_with("self_attn") ||
               text.ends_with("self_attn$");
    });
}

/// One group of config_groups.
class GroupReader {
 public:
    GroupReader(ConfigReader& reader, const std::string& name, const json& group)
        : reader_(reader), where_("config_groups." + name), group_(group) {}

    /// The format of the group; its targets are added to `targets`.
    WeightFormat read(std::vector<std::string>& targets) {
        if (!group_.is_object()) {
            reader_.refuse({.key = where_,
                            .found = group_.dump(),
                            .expected = "an object",
                            .remedy = "correct the group"});
        }
        read_targets(targets);
        const json* weights = ConfigReader::value_of(group_, "weights");
        if (weights == nullptr || !weights->is_object()) {
            reader_.refuse({.key = where_ + ".weights",
                            .found = ConfigReader::shown(weights),
                            .expected = "an object",
                            .remedy = "describe the weights",
                            .engine_message = kNoScheme});
        }
        want(*weights, "type", "float", false);
        // Both have these values where they are left out.
        want(*weights, "symmetric", true, true);
        want(*weights, "dynamic", false, true);
        check_bits(*weights);
        WeightFormat format;
        read_strategy(*weights, format);
        read_inputs(format);
        return format;
    }

 private:
    void read_targets(std::vector<std::string>& targets) {
        const json* value = ConfigReader::value_of(group_, "targets");
        const bool fits =
            value != nullptr && value->is_array() && !value->empty() &&
            std::all_of(value->begin(), value->end(), [](const json& v) { return v.is_string(); });
        if (!fits) {
            reader_.refuse({.key = where_ + ".targets",
                            .found = ConfigReader::shown(value),
                            .expected = "a list such as [\"Linear\"]",
                            .remedy = "name what the group quantizes",
                            .engine_message = kNoScheme});
        }
        for (const json& target : *value) targets.push_back(target.get<std::string>());
    }

    void want(const json& object, const char* key, const json& expected, bool may_be_absent) {
        const json* value = ConfigReader::value_of(object, key);
        if (value == nullptr ? may_be_absent : *value == expected) return;
        reader_.refuse({.key = where_ + ".weights." + key,
                        .found = ConfigReader::shown(value),
                        .expected = expected.dump(),
                        .remedy = std::string("the engine says \"") + kNoScheme + "\"",
                        .engine_message = kNoScheme});
    }

    /// No engine looks at the number of bits of a floating-point group, but for one: SGLang 0.5.23
    /// takes four bits with quantized activations for NVFP4 and refuses every other strategy
    /// (layers/quantization/compressed_tensors/compressed_tensors.py).
    void check_bits(const json& weights) {
        const json* bits = ConfigReader::value_of(weights, "num_bits");
        if (bits != nullptr && *bits == json(8)) return;
        const bool activations = ConfigReader::value_of(group_, "input_activations") != nullptr;
        if (reader_.contract().unknown_names == UnknownNames::sglang && activations &&
            bits != nullptr && *bits == json(4)) {
            reader_.refuse({.key = where_ + ".weights.num_bits",
                            .found = "4",
                            .expected = "8",
                            .remedy = "write 8: SGLang 0.5.23 refuses four bits with quantized "
                                      "activations outside of NVFP4",
                            .engine_message = kFourBits});
        }
        reader_.warn({.key = where_ + ".weights.num_bits",
                      .found = ConfigReader::shown(bits),
                      .expected = "8",
                      .remedy = "write 8: the engine takes the weights for 8-bit ones anyway",
                      .behaviour = "ignored"});
    }

    void read_strategy(const json& weights, WeightFormat& format) {
        const std::string inside = where_ + ".weights";
        const std::string strategy = reader_.text_of(weights, "strategy", inside + ".",
                                                     "tensor, channel or block", kNoScheme);
        if (strategy == "tensor" || strategy == "channel") {
            format.scheme = strategy == "tensor" ? Scheme::fp8_tensorwise : Scheme::fp8_channelwise;
            return;
        }
        if (strategy != "block") {
            reader_.refuse({.key = inside + ".strategy",
                            .found = json(strategy).dump(),
                            .expected = "tensor, channel or block",
                            .remedy = std::string("the engine says \"") + kNoScheme + "\"",
                            .engine_message = kNoScheme});
        }
        const json* block = ConfigReader::value_of(weights, "block_structure");
        if (block == nullptr) {
            reader_.refuse({.key = inside + ".block_structure",
                            .found = "absent",
                            .expected = "[128, 128]",
                            .remedy = "strategy block needs it",
                            .engine_message = "AssertionError without text"});
        }
        reader_.read_block(inside + ".block_structure", as_list(*block), format);
    }

    /// Older writers put the sizes into a text: "128x128".
    static json as_list(const json& block) {
        if (!block.is_string()) return block;
        const std::string text = block.get<std::string>();
        const std::size_t x = text.find('x');
        const auto is_number = [](const std::string& part) {
            return !part.empty() && part.size() < 10 &&
                   part.find_first_not_of("0123456789") == std::string::npos;
        };
        if (x == std::string::npos || !is_number(text.substr(0, x)) ||
            !is_number(text.substr(x + 1))) {
            return block;
        }
        return json::array({std::stoll(text.substr(0, x)), std::stoll(text.substr(x + 1))});
    }

    void read_inputs(WeightFormat& format) {
        const json* inputs = ConfigReader::value_of(group_, "input_activations");
        if (inputs == nullptr) return;  // Weight-only: the same tensors.
        const std::string inside = where_ + ".input_activations";
        const json* dynamic = ConfigReader::value_of(*inputs, "dynamic");
        const json* strategy = ConfigReader::value_of(*inputs, "strategy");
        format.inputs = strategy != nullptr && strategy->is_string() ? strategy->get<std::string>()
                                                                     : std::string("tensor");
        if (dynamic != nullptr && *dynamic != json(false)) return;
        const json* symmetric = ConfigReader::value_of(*inputs, "symmetric");
        const bool whole = strategy == nullptr || *strategy == json("tensor");
        const bool fits = whole && format.scheme != Scheme::fp8_blockwise &&
                          (symmetric == nullptr || *symmetric == json(true));
        const ConfigProblem problem = {
            .key = inside + ".dynamic",
            .found = ConfigReader::shown(dynamic),
            .expected = "true",
            .remedy = fits ? "static activations need input_scale tensors, which no trainer of a "
                             "refit sends"
                           : "static activations are one symmetric scale a tensor, and none with "
                             "block scales",
            .engine_message = fits ? "" : kNoScheme};
        if (!fits) reader_.refuse(problem);
        format.static_activations = true;
        reader_.not_for_scenarios(problem);
    }

    ConfigReader& reader_;
    std::string where_;
    const json& group_;
};

/// The text of an engine that finds no place for the scales of a config without groups.
std::string no_groups_text(UnknownNames rule) {
    if (rule == UnknownNames::sglang)
        return "KeyError: 'model.layers.0.mlp.gate_up_proj.weight_scale'";
    return "ValueError: There is no module or parameter named '....weight_scale' in ...";
}

void check_format(ConfigReader& reader, const json& object, const std::string& where) {
    if (ConfigReader::value_of(object, "format") == nullptr) return;
    const std::string format = reader.text_of(object, "format", where, "a string", kNoScheme);
    for (const char* known : {"float-quantized", "naive-quantized", "int-quantized",
                              "nvfp4-pack-quantized", "mixed-precision"}) {
        if (format == known) return;
    }
    const bool refuses = reader.contract().refuses_packed_formats;
    const ConfigProblem problem = {
        .key = where + "format",
        .found = json(format).dump(),
        .expected = "float-quantized, naive-quantized or int-quantized",
        .remedy = refuses ? std::string("the engine says \"") + kNoScheme + "\""
                          : "write float-quantized: the engine takes the weights for it anyway",
        .behaviour = refuses ? "raises" : "ignored",
        .engine_message = refuses ? kNoScheme : ""};
    if (refuses) reader.refuse(problem);
    reader.warn(problem);
}

/// A target that comes again keeps its place and gets the later format, as in a Python dictionary.
void add_target(std::vector<TargetFormat>& targets, const std::string& target,
                const WeightFormat& format) {
    for (TargetFormat& known : targets) {
        if (known.target != target) continue;
        known.format = format;
        return;
    }
    targets.push_back({target, format});
}

/// One format for all, or what each target stands for.
void keep_targets(ConfigReader& reader, std::vector<TargetFormat> targets) {
    QuantizationConfig& config = reader.config();
    const auto linear =
        std::find_if(targets.begin(), targets.end(),
                     [](const TargetFormat& target) { return target.target == "Linear"; });
    const WeightFormat& main = linear == targets.end() ? targets.front().format : linear->format;
    config.set_format(main);
    const bool one = std::all_of(targets.begin(), targets.end(),
                                 [&](const TargetFormat& target) { return target.format == main; });
    if (linear == targets.end()) {
        for (const TargetFormat& target : targets) config.targets.push_back(target.target);
    }
    if (one) return;
    if (reader.contract().one_format_for_all) {
        reader.refuse({.key = "config_groups",
                       .found = "groups of several formats",
                       .expected = "one format for all groups",
                       .remedy = "how this engine tells groups apart was not read; choose vLLM or "
                                 "SGLang",
                       .behaviour = ""});
    }
    config.mixed = std::move(targets);
    // Inputs are quantized by the engine: trainers of all such groups send the same.
    const auto payload = [](WeightFormat format) {
        format.inputs.clear();
        return format;
    };
    const bool sends_one =
        std::all_of(config.mixed.begin(), config.mixed.end(), [&](const TargetFormat& target) {
            return payload(target.format) == payload(config.mixed.front().format);
        });
    if (sends_one) return;
    reader.not_for_scenarios(
        {.key = "config_groups",
         .found = "groups of several formats",
         .expected = "one format for all groups",
         .remedy = "a trainer quantizes all layers by one recipe; checkpoints of several formats "
                   "are judged by verify"});
}

/// What the weights of a group are where they are no FP8: "int weights of 4 bits". Engines load
/// such checkpoints by schemes of their own (W8A8-INT8, WNA16, NVFP4, MXFP4, MXFP8), for which the
/// catalogue has no contract. Empty for FP8, and for what no scheme is known of.
std::string foreign_weights(const json& weights) {
    const json* type = ConfigReader::value_of(weights, "type");
    const json* bits = ConfigReader::value_of(weights, "num_bits");
    const json* strategy = ConfigReader::value_of(weights, "strategy");
    const json* size = ConfigReader::value_of(weights, "group_size");
    const std::string width = bits == nullptr ? "" : " of " + bits->dump() + " bits";
    if (type != nullptr && *type == json("int")) return "int weights" + width;
    const bool groups = strategy != nullptr && *strategy == json("group");
    const bool of_tensor = strategy != nullptr && *strategy == json("tensor_group");
    const bool four = bits != nullptr && *bits == json(4);
    if (of_tensor || (groups && four)) return "float weights" + width + " in groups";
    const bool mx = groups && size != nullptr && *size == json(32);
    return mx ? "float weights" + width + " in groups of 32 (MXFP8)" : std::string();
}

void refuse_foreign_weights(ConfigReader& reader, const json& root) {
    const json* groups = ConfigReader::value_of(root, "config_groups");
    if (groups == nullptr || !groups->is_object()) return;
    for (const auto& [name, group] : groups->items()) {
        const json* weights = ConfigReader::value_of(group, "weights");
        if (weights == nullptr || !weights->is_object()) continue;
        const std::string found = foreign_weights(*weights);
        if (found.empty()) continue;
        reader.refuse({.key = "config_groups." + name + ".weights",
                       .found = found,
                       .expected = "FP8 weights by tensor, channel or block",
                       .remedy = "refitbench has no contract for them and judges FP8 only",
                       .behaviour = ""});
    }
}

/// CompressedTensorsKVCacheMethod.validate_kv_cache_scheme of vLLM 017e9f4448b7.
void check_cache_scheme(ConfigReader& reader, const json& root) {
    const json* scheme = ConfigReader::value_of(root, "kv_cache_scheme");
    if (scheme == nullptr || !reader.contract().checks_cache_scheme) return;
    const json* strategy = ConfigReader::value_of(*scheme, "strategy");
    reader.config().cache_scales_by_head = strategy != nullptr && *strategy == "attn_head";
    const auto want = [&](const char* key, const std::vector<json>& known,
                          const std::string& expected, const std::string& text) {
        const json* value = ConfigReader::value_of(*scheme, key);
        const bool fits =
            value != nullptr && std::find(known.begin(), known.end(), *value) != known.end();
        if (fits) return;
        reader.refuse({.key = std::string("kv_cache_scheme.") + key,
                       .found = ConfigReader::shown(value),
                       .expected = expected,
                       .remedy = "correct it, or leave kv_cache_scheme out",
                       .engine_message = "NotImplementedError: " + text});
    };
    const std::string kind = "Currently supported kv cache quantization is num_bits=8, type=float";
    want("type", {"float"}, "\"float\"", kind);
    want("num_bits", {8}, "8", kind);
    want("strategy", {"tensor", "attn_head"}, "\"tensor\" or \"attn_head\"",
         "Invalid strategy for compressed-tensors KV cache.");
    want("symmetric", {true}, "true",
         "Only support symmetric scaling factor for compressed-tensors KV cache.");
}

/// Rotations of weights and activations, which vLLM applies and SGLang does not read.
void refuse_transforms(ConfigReader& reader, const json& root) {
    const json* transforms = ConfigReader::value_of(root, "transform_config");
    if (transforms == nullptr || !transforms->is_object()) return;
    const json* groups = ConfigReader::value_of(*transforms, "config_groups");
    if (groups == nullptr || groups->empty()) return;
    reader.refuse({.key = "transform_config",
                   .found = std::to_string(groups->size()) + " groups of transforms",
                   .expected = "none",
                   .remedy = "refitbench knows no transforms of weights and activations, so that "
                             "it cannot judge this checkpoint",
                   .behaviour = ""});
}

}  // namespace

void read_compressed_tensors(ConfigReader& reader, const json& root) {
    refuse_foreign_weights(reader, root);
    check_format(reader, root, "");
    refuse_transforms(reader, root);
    check_cache_scheme(reader, root);
    const json* sparsity = ConfigReader::value_of(root, "sparsity_config");
    if (sparsity != nullptr && !sparsity->empty()) {
        const json* format = ConfigReader::value_of(*sparsity, "format");
        if (format == nullptr || *format != json("dense")) {
            reader.refuse({.key = "sparsity_config",
                           .found = sparsity->dump(),
                           .expected = "none",
                           .remedy = "refitbench reads no sparse weights",
                           .behaviour = ""});
        }
    }
    const json* groups = ConfigReader::value_of(root, "config_groups");
    std::vector<TargetFormat> targets;
    if (groups != nullptr && groups->is_object()) {
        for (const auto& [name, group] : groups->items()) {
            if (group.is_object() && names_attention(group)) continue;
            if (group.is_object()) check_format(reader, group, "config_groups." + name + ".");
            std::vector<std::string> names;
            const WeightFormat format = GroupReader(reader, name, group).read(names);
            for (const std::string& target : names) add_target(targets, target, format);
        }
    }
    if (targets.empty()) {
        reader.refuse({.key = "config_groups",
                       .found = ConfigReader::shown(groups),
                       .expected = "at least one group of Linear modules",
                       .remedy = "without one the engine quantizes no layer and has no place for a "
                                 "weight_scale",
                       .engine_message = no_groups_text(reader.contract().unknown_names)});
    }
    QuantizationConfig& config = reader.config();
    keep_targets(reader, std::move(targets));
    config.skip_list = reader.names_of(root, "ignore");
}

}  // namespace refit::receiver
