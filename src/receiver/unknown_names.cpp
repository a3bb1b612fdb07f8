// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/unknown_names.hpp"

#include <algorithm>
#include <string_view>
#include <vector>

namespace refit::receiver {
namespace {

using model::Architecture;

bool ends_with_any(const std::string& text, const std::vector<std::string_view>& tails) {
    return std::any_of(tails.begin(), tails.end(),
                       [&](std::string_view tail) { return text.ends_with(tail); });
}

std::string leaf_of(const std::string& name) {
    return name.substr(name.rfind('.') + 1);
}

std::string stem_of(const std::string& name) {
    const std::size_t dot = name.rfind('.');
    return dot == std::string::npos ? std::string() : name.substr(0, dot);
}

/// The name with the fused layer in place of its part; empty for a module that is not fused.
std::string stacked_name(const std::string& name) {
    const std::string module = stem_of(name);
    const std::string parent = stem_of(module);
    const std::string part = leaf_of(module);
    if (part == "q_proj" || part == "k_proj" || part == "v_proj") {
        return parent + ".qkv_proj." + leaf_of(name);
    }
    if (part == "gate_proj" || part == "up_proj") return parent + ".gate_up_proj." + leaf_of(name);
    return {};
}

/// Names that every loader skips.
bool is_skipped_everywhere(const std::string& name) {
    return leaf_of(name) == "bias" ||
           ends_with_any(name,
                         {"rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"});
}

/// A parameter of the engine itself, with the projections of a layer joined as in its memory. The
/// loaders of the model classes that fuse have a way for it (weight_loader without a shard, in
/// layers/linear.py of both engines), which was read and not run.
bool is_fused_on_disk(const ContractInstance& instance, const std::string& name) {
    const std::string leaf = leaf_of(name);
    return instance.architecture != Architecture::deepseek_v3 &&
           (leaf.starts_with("weight") || leaf == "input_scale") &&
           ends_with_any(stem_of(name), {".self_attn.qkv_proj", ".mlp.gate_up_proj"});
}

UnknownNameOutcome of_vllm(const ContractInstance& instance, const std::string& name) {
    const std::string inner = name.starts_with("model.") ? name.substr(6) : name;
    const std::string leaf = leaf_of(name);
    // The list of suffixes to ignore is that of the quantization config; the deprecated ".kv_scale"
    // has become ".k_scale" by then. A zero point of weights is not on it.
    if (!instance.config.quant_method.empty() &&
        ends_with_any(name, {".q_scale", ".k_scale", ".v_scale", ".kv_scale", ".q_zero_point",
                             ".k_zero_point", ".v_zero_point"})) {
        return {"ignored", ""};
    }
    if (instance.architecture == Architecture::deepseek_v3) {
        return {"raises", "KeyError: '" + inner + "'"};
    }
    const bool scale = leaf.ends_with("_scale") || leaf.ends_with("_scale_inv");
    if (scale && name.find(".mlp.experts.") != std::string::npos) {
        const bool down = stem_of(name).ends_with(".down_proj");
        return {"raises", std::string("AttributeError: Layer ... has no parameter '") +
                              (down ? "w2_" : "w13_") + leaf + "'"};
    }
    if (scale && ends_with_any(stem_of(name), {".q_proj", ".k_proj", ".v_proj"})) {
        return {"raises", "AttributeError: 'QKVParallelLinear' object has no attribute 'data'"};
    }
    return {"raises", "ValueError: There is no module or parameter named '" + inner + "' in ..."};
}

/// A projection of an expert by its number: "....mlp.experts.3.down_proj".
bool is_one_expert(const std::string& module) {
    const std::string expert = stem_of(module);
    const std::string number = leaf_of(expert);
    return stem_of(expert).ends_with(".mlp.experts") &&
           std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// DeepSeek's loader stacks gate and up only, and looks for scales under both of their names.
UnknownNameOutcome of_sglang_deepseek(const std::string& name) {
    const std::string module = stem_of(name);
    const std::string part = leaf_of(module);
    if (is_one_expert(module)) {
        if (leaf_of(name) != "weight_scale") return {"warns", name + " not found in params_dict."};
        return {"raises",
                "TypeError: FusedMoE.weight_loader() missing 3 required positional arguments: "
                "'weight_name', 'shard_id', and 'expert_id'"};
    }
    if (part == "gate_proj" || part == "up_proj") {
        return {"raises", "KeyError: '" + stacked_name(name) + "'"};
    }
    return {"warns", name + " not found in params_dict."};
}

UnknownNameOutcome of_sglang(const ContractInstance& instance, const std::string& name) {
    if (layer_of_name(name) >= instance.layers) return {"ignored", ""};
    const bool remaps = instance.architecture == Architecture::llama ||
                        instance.architecture == Architecture::qwen3;
    if (remaps &&
        ends_with_any(name, {".k_scale", ".v_scale", ".kv_scale", "_proj.output_scale"})) {
        return {"warns", "Found " + name.substr(name.rfind('.')) + " in the checkpoint (e.g. " +
                             name + "), but not found the expected name in the model"};
    }
    const std::string stacked = stacked_name(name);
    switch (instance.architecture) {
        case Architecture::qwen3_moe:
            return {"ignored", ""};
        case Architecture::deepseek_v3:
            return of_sglang_deepseek(name);
        case Architecture::qwen3:
            if (!stacked.empty()) return {"raises", "KeyError: '" + stacked + "'"};
            break;
        default:
            break;
    }
    return {"warns",
            "Parameter " + (stacked.empty() ? name : stacked) + " not found in params_dict"};
}

}  // namespace

bool is_read_as_inverse(const ContractInstance& instance, UnknownNames rule,
                        const std::string& name) {
    if (rule == UnknownNames::transformers) return leaf_of(name) == "scale";
    if (rule != UnknownNames::sglang || instance.architecture != Architecture::deepseek_v3) {
        return false;
    }
    const std::string module = stem_of(name);
    const std::string part = leaf_of(module);
    return leaf_of(name) == "weight_scale" && part != "gate_proj" && part != "up_proj" &&
           !is_one_expert(module);
}

std::string latent_partner(const std::string& name) {
    const std::string module = stem_of(name);
    const std::string parent = stem_of(module) + ".";
    const std::string leaf = "." + leaf_of(name);
    if (leaf_of(module) == "q_a_proj") return parent + "kv_a_proj_with_mqa" + leaf;
    if (leaf_of(module) == "kv_a_proj_with_mqa") return parent + "q_a_proj" + leaf;
    return {};
}

bool is_cache_scale(const std::string& name) {
    if (name.find(".self_attn.") == std::string::npos) return false;
    if (ends_with_any(
            name, {".self_attn.k_scale", ".self_attn.v_scale", ".self_attn.kv_scale",
                   ".self_attn.q_scale", ".self_attn.prob_scale", ".k_proj.output_scale",
                   ".v_proj.output_scale", ".q_proj.output_scale", ".self_attn.prob_output_scale",
                   ".self_attn.k_cache.scale", ".self_attn.v_cache.scale", ".self_attn.q.scale"})) {
        return true;
    }
    for (const char* module : {".k_proj", ".v_proj", ".qkv_proj", ".qkqkv_proj", ".attn"}) {
        for (const char* leaf : {".k_scale", ".v_scale", ".kv_scale", ".q_scale", ".prob_scale"}) {
            if (name.ends_with(std::string(".self_attn") + module + leaf)) return true;
        }
    }
    return false;
}

std::int64_t layer_of_name(const std::string& name) {
    const std::string start = "model.layers.";
    if (!name.starts_with(start)) return -1;
    std::int64_t layer = 0;
    std::size_t at = start.size();
    for (; at < name.size() && name[at] >= '0' && name[at] <= '9' && at < start.size() + 9; ++at) {
        layer = layer * 10 + (name[at] - '0');
    }
    return at == start.size() ? -1 : layer;
}

UnknownNameOutcome unknown_name_outcome(const ContractInstance& instance, UnknownNames rule,
                                        const std::string& name) {
    if (is_skipped_everywhere(name)) return {"ignored", ""};
    const bool fuses = rule == UnknownNames::vllm || rule == UnknownNames::sglang;
    if (fuses && is_fused_on_disk(instance, name)) {
        return {"", "",
                "is a fused tensor, which " + instance.engine +
                    " may load as it is; whether it does was not run, and only projections one "
                    "by one were judged"};
    }
    switch (rule) {
        case UnknownNames::vllm:
            return of_vllm(instance, name);
        case UnknownNames::sglang:
            return of_sglang(instance, name);
        case UnknownNames::transformers:
            return {"warns", name + " | UNEXPECTED"};
        case UnknownNames::raises:
            return {"raises", ""};
    }
    return {"raises", ""};
}

}  // namespace refit::receiver
