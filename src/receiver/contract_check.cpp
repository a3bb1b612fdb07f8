// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/contract_check.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/nearest_name.hpp"
#include "receiver/cache_scales.hpp"
#include "receiver/load_outcome.hpp"
#include "receiver/unknown_names.hpp"

namespace refit::receiver {
namespace {

using core::Finding;
using core::Severity;
using core::Shape;
using core::to_string;

std::string dtype_text(core::DType dtype) {
    return std::string(core::safetensors_name(dtype));
}

std::string dtypes_text(const std::vector<core::DType>& dtypes) {
    std::string text;
    for (const core::DType dtype : dtypes) text += (text.empty() ? "" : " or ") + dtype_text(dtype);
    return text;
}

std::string with_rank(const Shape& shape) {
    return to_string(shape) + " (" + std::to_string(shape.size()) + "-D)";
}

std::string leaf_of(const std::string& name) {
    return name.substr(name.rfind('.') + 1);
}
std::string stem_of(const std::string& name) {
    const std::size_t dot = name.rfind('.');
    return dot == std::string::npos ? std::string() : name.substr(0, dot);
}

bool is_scale_leaf(const std::string& leaf) {
    return leaf == "weight_scale" || leaf == "weight_scale_inv";
}

/// The other name that a scale goes by; empty for everything else.
std::string other_scale_name(const std::string& name) {
    const std::string leaf = leaf_of(name);
    if (leaf == "weight_scale") return stem_of(name) + ".weight_scale_inv";
    if (leaf == "weight_scale_inv") return stem_of(name) + ".weight_scale";
    if (leaf.ends_with("_scale_inv")) return name.substr(0, name.size() - 4);
    // DeepSeek's own inference code converts checkpoints to this one.
    if (leaf == "scale") return stem_of(name) + ".weight_scale_inv";
    return {};
}

/// Types of quantized weights that no contract wants.
bool is_quantizers_other(core::DType dtype) {
    return core::size_bytes(dtype) == 0 || dtype == core::DType::f8_e5m2 ||
           dtype == core::DType::f8_e4m3fnuz || dtype == core::DType::f8_e5m2fnuz;
}

/// What a behaviour means for who reads the finding.
std::string consequence(const std::string& behaviour, const std::string& engine) {
    if (behaviour == "raises") return engine + " refuses it";
    if (behaviour == "silently_wrong") return engine + " says nothing and ends with wrong values";
    if (behaviour == "warns") return engine + " mentions it in its log only";
    if (behaviour == "ignored") return engine + " says nothing";
    return engine + " keeps what was in memory and raises nothing";
}

class Checker {
 public:
    /// `cells`: the manifest was cut by this very instance, so that its cells must be the same.
    Checker(const wire::RefitManifest& manifest, const ContractInstance& instance, bool cells)
        : manifest_(manifest),
          instance_(instance),
          contract_(find_engine(instance.engine)),
          cells_(cells),
          who_(contract_.intersection ? "at least one engine" : instance.engine) {
        for (std::size_t i = 0; i < instance.wanted.size(); ++i)
            wanted_[instance.wanted[i].name] = i;
        for (const auto& parameter : manifest.parameters)
            came_[instance.canonical(parameter.name)] += 1;
    }

    core::Findings run() {
        findings_ = instance_.refusals;
        std::set<std::string> seen;
        for (const auto& parameter : manifest_.parameters) {
            const std::string& name = instance_.canonical(parameter.name);
            if (!seen.insert(name).second) continue;
            const auto it = wanted_.find(name);
            if (it == wanted_.end()) {
                unknown(parameter);
                continue;
            }
            if (came_[name] > 1) twice(name, came_[name]);
            compare_shape(parameter, it->second);
            compare_dtype(parameter, it->second);
        }
        report_missing();
        return std::move(findings_);
    }

 private:
    /// What a finding says besides its tensor.
    struct Report {
        std::string check = {};
        Severity severity = Severity::error;
        std::string measured = {};
        std::string limit = {};
        std::string behaviour = {};
        std::string engine_message = {};
        std::string remedy = {};
        std::string message = {};
    };

    void add(const std::string& tensor, Report report) {
        Finding finding;
        finding.check = std::move(report.check);
        finding.severity = report.severity;
        finding.tensor = tensor;
        finding.measured = std::move(report.measured);
        finding.limit = std::move(report.limit);
        finding.engine_behaviour = std::move(report.behaviour);
        finding.engine_message = std::move(report.engine_message);
        finding.message = tensor + ": " + report.message + "; " + report.remedy + " (contract of " +
                          contract_.name + ": " + contract_.snapshot + ")";
        finding.remedy = std::move(report.remedy);
        findings_.push_back(std::move(finding));
    }

    [[nodiscard]] const ContractRow& row_of(std::size_t wanted) const {
        return contract_.rows.at(instance_.rows.at(wanted));
    }

    void twice(const std::string& name, int count) {
        add(name, {.check = "names",
                   .measured = std::to_string(count) + " times",
                   .limit = "once",
                   .behaviour = "silently_wrong",
                   .remedy = "send each tensor once a refit",
                   .message = "is listed " + std::to_string(count) +
                              " times; the later one overwrites the earlier one"});
    }

    // Names
    // ---------------------------------------------------------------------------------------------

    /// Whether anything came of a layer for multi-token prediction.
    [[nodiscard]] bool came_of_layer(std::int64_t layer) const {
        const std::string prefix = "model.layers." + std::to_string(layer) + ".";
        const auto it = came_.lower_bound(prefix);
        return it != came_.end() && it->first.starts_with(prefix);
    }

    void report_missing() {
        std::set<std::int64_t> absent_layers;
        for (std::size_t i = 0; i < instance_.wanted.size(); ++i) {
            const wire::WantedParameter& wanted = instance_.wanted[i];
            if (came_.count(wanted.name) != 0 || renamed_.count(wanted.name) != 0) continue;
            const std::int64_t layer = layer_of_name(wanted.name);
            const bool draft = layer >= instance_.layers && layer >= 0;
            if (draft && !came_of_layer(layer)) {
                if (absent_layers.insert(layer).second) missing_draft_layer(wanted.name, layer);
                continue;
            }
            if (!wanted.calibration.empty()) {
                missing_scale_of_cache(wanted);
                continue;
            }
            missing(wanted, row_of(i));
        }
    }

    void missing_scale_of_cache(const wire::WantedParameter& wanted) {
        const std::string partner = partner_of_cache_scale(instance_, wanted);
        const MissingCacheScale outcome =
            missing_cache_scale(contract_, wanted, came_.count(partner) != 0);
        add(wanted.name,
            {.check = "names",
             .measured = "absent",
             .limit = dtype_text(wanted.dtypes.front()) + " " + to_string(wanted.shape),
             .behaviour = outcome.behaviour,
             .engine_message = outcome.engine_message,
             .remedy = "send the scales of the KV cache with every refit, under names "
                       "that the engine maps",
             .message = "is missing; " + outcome.consequence + " (" +
                        consequence(outcome.behaviour, instance_.engine) + ")"});
    }

    /// The main model loads without the layers that only a draft model uses.
    void missing_draft_layer(const std::string& first, std::int64_t layer) {
        add(first, {.check = "names",
                    .severity = Severity::warning,
                    .measured = "absent",
                    .limit = "the layer for multi-token prediction",
                    .behaviour = "ignored",
                    .remedy = "send the layer, or set num_nextn_predict_layers to 0",
                    .message = "and all of layer " + std::to_string(layer) +
                               " is missing; the main model of " + instance_.engine +
                               " loads without it, a draft model for multi-token prediction does "
                               "not"});
    }

    void missing(const wire::WantedParameter& wanted, const ContractRow& row) {
        add(wanted.name,
            {.check = "names",
             .measured = "absent",
             .limit = dtype_text(wanted.dtypes.front()) + " " + to_string(wanted.shape),
             .behaviour = row.on_missing,
             .engine_message = row.on_missing == "raises" ? row.engine_message : "",
             .remedy = "send it with every refit",
             .message = "is missing; " + consequence(row.on_missing, who_)});
    }

    void unknown(const wire::ParameterMeta& parameter) {
        const std::string& name = parameter.name;
        if (is_cache_scale(name) && cache_scale(parameter)) return;
        if (stem_of(name) == "lm_head" && wanted_.count("lm_head.weight") == 0) {
            surplus(name, {"ignored", ""},
                    "the head is tied to the embedding and is skipped by " + instance_.engine);
            return;
        }
        const UnknownNameOutcome outcome =
            unknown_name_outcome(instance_, contract_.unknown_names, name);
        if (!outcome.note.empty()) {
            add(name, {.check = "names",
                       .measured = "present",
                       .limit = "projections one by one",
                       .behaviour = outcome.behaviour,
                       .remedy = "store the projections one by one",
                       .message = outcome.note});
            return;
        }
        if (other_name(parameter, outcome) || scale_of_raw_weight(name, outcome)) return;
        const bool fits_engine = outcome.behaviour != "raises";
        if (fits_engine) {
            surplus(name, outcome,
                    "is not a tensor of this model; " + consequence(outcome.behaviour, who_) +
                        " and drops it");
            return;
        }
        // Comparing every unknown name with every wanted one would take minutes where a large
        // checkpoint has the names of another model.
        constexpr int kMostSearches = 16;
        std::vector<std::string> nearest;
        if (searches_++ < kMostSearches) {
            std::vector<std::string> known;
            known.reserve(wanted_.size());
            for (const auto& [wanted, index] : wanted_) known.push_back(wanted);
            nearest = core::nearest_names(name, known);
        }
        add(name,
            {.check = "names",
             .measured = "present",
             .limit = "absent",
             .behaviour = outcome.behaviour,
             .engine_message = outcome.engine_message,
             .remedy = nearest.empty()
                           ? "leave it out"
                           : "leave it out, or rename it: the nearest wanted name is " + nearest[0],
             .message = "is not a tensor that " + instance_.engine + " knows for this model"});
    }

    void surplus(const std::string& name, const UnknownNameOutcome& outcome,
                 const std::string& message) {
        add(name, {.check = "names",
                   .severity = Severity::warning,
                   .measured = "present",
                   .limit = "absent",
                   .behaviour = outcome.behaviour,
                   .engine_message = outcome.engine_message,
                   .remedy = "leave it out",
                   .message = message});
    }

    /// A scale of the KV cache loads into the attention layer of an engine that has a place for it;
    /// false where the engine has none.
    bool cache_scale(const wire::ParameterMeta& parameter) {
        const auto row =
            std::find_if(contract_.rows.begin(), contract_.rows.end(),
                         [](const ContractRow& r) { return r.suffix == "cache_scale"; });
        if (row == contract_.rows.end() || instance_.config.scheme == quant::Scheme::bf16) {
            return false;
        }
        // Attention layers without a place for it, and names that the loader maps to none, drop it
        // or raise. The engines of a profile are asked in turn.
        const bool mapped = contract_.cache_scales.loader == CacheScaleLoader::sglang ||
                            contract_.cache_scales.loader == CacheScaleLoader::vllm;
        const bool latent_sglang = contract_.cache_scales.loader == CacheScaleLoader::sglang &&
                                   instance_.architecture == model::Architecture::deepseek_v3;
        if (mapped && !latent_sglang &&
            cache_scale_target(contract_, instance_.config, instance_.architecture, parameter.name)
                .empty()) {
            return false;
        }
        if (is_one_a_head(parameter)) return true;
        wire::WantedParameter wanted;
        wanted.name = parameter.name;
        wanted.shape = {1};
        const LoadOutcome outcome = shape_outcome(*row, parameter.shape, wanted, {});
        if (!outcome.behaviour.empty()) report_shape(parameter, wanted, outcome);
        return true;
    }

    /// vLLM flattens the scales of strategy attn_head, which llm-compressor stores as [heads, 1,
    /// 1], and cuts them over the ranks (CompressedTensorsKVCacheMethod, 017e9f4448b7).
    bool is_one_a_head(const wire::ParameterMeta& parameter) {
        const std::int64_t count = core::element_count(parameter.shape);
        const bool flat = std::all_of(parameter.shape.begin() + (parameter.shape.empty() ? 0 : 1),
                                      parameter.shape.end(), [](std::int64_t d) { return d == 1; });
        if (!contract_.checks_cache_scheme || !instance_.config.cache_scales_by_head || count < 2 ||
            !flat) {
            return false;
        }
        if (parameter.name.ends_with("q_scale")) {
            add(parameter.name, {.check = "shape_contract",
                                 .severity = Severity::warning,
                                 .measured = to_string(parameter.shape),
                                 .limit = "one value a head",
                                 .behaviour = "",
                                 .remedy = "load it in the engine to be sure",
                                 .message = "is one scale a head, which " + instance_.engine +
                                            " loads by its heads; their number was not compared"});
        } else if (count != instance_.kv_heads) {
            const std::string heads = std::to_string(instance_.kv_heads);
            add(parameter.name,
                {.check = "shape_contract",
                 .measured = to_string(parameter.shape),
                 .limit = "[" + heads + "]",
                 .behaviour = "raises",
                 .remedy = "store one value a head of the keys, as config.json "
                           "counts them in num_key_value_heads",
                 .message = "has " + std::to_string(count) + " values, and " + instance_.engine +
                            " has a place for those of " + heads + " heads"});
        }
        return true;
    }

    /// A scale under the name that another format gives it, or as the source of the format writes
    /// it.
    bool other_name(const wire::ParameterMeta& parameter, const UnknownNameOutcome& outcome) {
        const std::string& name = parameter.name;
        const std::string other = other_scale_name(name);
        const auto partner = wanted_.find(other);
        if (other.empty() || partner == wanted_.end() || came_.count(other) != 0) return false;
        renamed_.insert(other);
        const bool both = latent_partner(name).empty() || came_.count(latent_partner(name)) != 0 ||
                          wanted_.count(latent_partner(other)) == 0;
        if (both && is_read_as_inverse(instance_, contract_.unknown_names, name)) {
            read_under_other_name(parameter, partner->second);
            return true;
        }
        const std::string behaviour =
            outcome.behaviour == "raises" ? "raises" : row_of(partner->second).on_missing;
        add(name, {.check = "names",
                   .measured = leaf_of(name),
                   .limit = leaf_of(other),
                   .behaviour = behaviour,
                   .engine_message = outcome.engine_message,
                   .remedy = "write the scale as " + other,
                   .message = "the contract of " + instance_.engine + " names this scale " + other +
                              "; " + consequence(behaviour, who_)});
        return true;
    }

    /// Some loaders know a scale under two names; see is_read_as_inverse().
    void read_under_other_name(const wire::ParameterMeta& parameter, std::size_t index) {
        const bool sglang = contract_.unknown_names == UnknownNames::sglang;
        const std::string reader = sglang ? "SGLang 0.5.23" : instance_.engine;
        add(parameter.name, {.check = "names",
                             .severity = Severity::warning,
                             .measured = leaf_of(parameter.name),
                             .limit = leaf_of(instance_.wanted[index].name),
                             .behaviour = "ignored",
                             .remedy = "write the scale as " + instance_.wanted[index].name,
                             .message = "is read by " + reader + " as " +
                                        instance_.wanted[index].name + ", by others not"});
        // Cells belong to the wanted name.
        if (parameter.shape != instance_.wanted[index].shape) compare_shape(parameter, index);
        compare_dtype(parameter, index);
    }

    bool scale_of_raw_weight(const std::string& name, const UnknownNameOutcome& outcome) {
        if (!is_scale_leaf(leaf_of(name))) return false;
        const auto weight = wanted_.find(stem_of(name) + ".weight");
        if (weight == wanted_.end() || !instance_.wanted[weight->second].scale.empty()) {
            return false;
        }
        const std::string behaviour = outcome.behaviour == "raises" ? "raises" : "silently_wrong";
        add(name,
            {.check = "names",
             .measured = "present",
             .limit = "absent",
             .behaviour = behaviour,
             .engine_message = outcome.engine_message,
             .remedy = "quantize the layer in the quantization_config too, or send it in BF16",
             .message = "is a scale of " + weight->first +
                        ", which the quantization_config leaves in BF16"});
        return true;
    }

    // Dtypes and shapes
    // ---------------------------------------------------------------------------------------------

    void compare_dtype(const wire::ParameterMeta& came, std::size_t index) {
        const wire::WantedParameter& wanted = instance_.wanted[index];
        const bool fits = std::find(wanted.dtypes.begin(), wanted.dtypes.end(), came.dtype) !=
                          wanted.dtypes.end();
        if (fits) {
            if (came.dtype == core::DType::u8 && !instance_.config.e8m0_scales)
                codes_of_scales(came);
            return;
        }
        const bool half = came.dtype == core::DType::bf16 || came.dtype == core::DType::f16;
        if (contract_.intersection && half && wanted.dtypes.front() == core::DType::f32) {
            narrow_scale(came);
            return;
        }
        const LoadOutcome outcome = dtype_outcome(row_of(index), came.dtype);
        std::string remedy = "send it as " + dtype_text(wanted.dtypes.front());
        if (!wanted.scale.empty() && is_quantizers_other(came.dtype)) {
            remedy = "quantize the original weights anew, to F8_E4M3";
        } else if (!wanted.scale.empty()) {
            remedy = "quantize it, or leave its module out in the quantization_config";
        } else if (came.dtype == core::DType::f8_e4m3) {
            remedy = "send it in " + dtype_text(wanted.dtypes.front()) +
                     ", or take its module off the skip list of the quantization_config";
        }
        add(came.name, {.check = "dtype",
                        .measured = dtype_text(came.dtype),
                        .limit = dtypes_text(wanted.dtypes),
                        .behaviour = outcome.behaviour,
                        .engine_message = outcome.engine_message,
                        .remedy = remedy,
                        .message = "came as " + dtype_text(came.dtype) + ", the contract wants " +
                                   dtypes_text(wanted.dtypes) + "; " +
                                   what_happens_to(came.dtype, wanted, outcome)});
    }

    /// What becomes of a dtype that the contract does not want.
    [[nodiscard]] std::string what_happens_to(core::DType came, const wire::WantedParameter& wanted,
                                              const LoadOutcome& outcome) const {
        if (core::size_bytes(came) == 0) {
            return "PyTorch has no conversion from this type, so that " + who_ +
                   " refuses it or cannot read it";
        }
        if (outcome.behaviour == "raises") return who_ + " refuses it";
        if (came == core::DType::f8_e4m3fnuz || came == core::DType::f8_e5m2fnuz) {
            return who_ +
                   " converts value by value, which rounds what the other type lacks, and makes "
                   "this type itself out of F8_E4M3 on the devices that need it (AMD's MI300)";
        }
        if (came == core::DType::c64) return who_ + " drops the imaginary parts";
        if (came == core::DType::f64) return who_ + " rounds it";
        if (wanted.scale.empty() && came != core::DType::f8_e4m3 && came != core::DType::f8_e5m2) {
            return who_ + " converts the numbers, whatever they stand for";
        }
        return who_ + " casts it without a scale";
    }

    /// Scales that every engine widens exactly, but not every loader.
    void narrow_scale(const wire::ParameterMeta& came) {
        add(came.name,
            {.check = "dtype",
             .measured = dtype_text(came.dtype),
             .limit = "F32",
             .behaviour = "raises",
             .remedy = "send it as F32, the values stay the same",
             .message = "came as " + dtype_text(came.dtype) +
                        ", the profile wants scales in F32; the engines of this catalogue widen "
                        "it without loss, but there are loaders that take F32 for granted"});
    }

    void codes_of_scales(const wire::ParameterMeta& came) {
        add(came.name, {.check = "dtype",
                        .severity = Severity::warning,
                        .measured = dtype_text(came.dtype),
                        .limit = "F32, or scale_fmt \"ue8m0\"",
                        .behaviour = "ignored",
                        .remedy = "write scale_fmt into the quantization_config, or send F32",
                        .message = "came as U8, which " + instance_.engine +
                                   " reads as E8M0 exponents although the quantization_config "
                                   "does not say so"});
    }

    void compare_shape(const wire::ParameterMeta& came, std::size_t index) {
        const wire::WantedParameter& wanted = instance_.wanted[index];
        if (came.shape == wanted.shape) {
            compare_cuts(came, wanted);
            return;
        }
        const auto weight = wanted_.find(wanted.scale_of);
        const LoadOutcome outcome = shape_outcome(
            row_of(index), came.shape, wanted,
            weight == wanted_.end() ? Shape{} : instance_.wanted[weight->second].shape);
        if (!outcome.behaviour.empty()) report_shape(came, wanted, outcome);
    }

    void report_shape(const wire::ParameterMeta& came, const wire::WantedParameter& wanted,
                      const LoadOutcome& outcome) {
        const bool other_rank = came.shape.size() != wanted.shape.size();
        const bool same_elements =
            other_rank && core::element_count(came.shape) == core::element_count(wanted.shape);
        const std::string found = other_rank ? with_rank(came.shape) : to_string(came.shape);
        const std::string limit = other_rank ? with_rank(wanted.shape) : to_string(wanted.shape);
        add(came.name,
            {.check = "shape_contract",
             .severity = outcome.is_error ? Severity::error : Severity::warning,
             .measured = to_string(came.shape),
             .limit = to_string(wanted.shape),
             .behaviour = outcome.behaviour,
             .engine_message = outcome.engine_message,
             .remedy = same_elements ? "reshape it to " + to_string(wanted.shape) +
                                           ", the values stay the same"
                                     : std::string("send it with the shape of the contract"),
             .message = "came " + found + ", the contract wants " + limit + "; " +
                        consequence(outcome.behaviour, who_)});
    }

    void compare_cuts(const wire::ParameterMeta& came, const wire::WantedParameter& wanted) {
        if (!cells_) return;
        if (came.row_cuts == wanted.row_cuts && came.col_cuts == wanted.col_cuts) return;
        add(came.name, {.check = "shape_contract",
                        .measured = "other cells",
                        .limit = "the cells of the wanted list",
                        .remedy = "give the trainers the wanted list of these receivers",
                        .message = "the manifest cuts it into other cells than the receivers asked "
                                   "for"});
    }

    const wire::RefitManifest& manifest_;
    const ContractInstance& instance_;
    const EngineContract& contract_;
    bool cells_;
    std::string who_;  ///< the subject of sentences about behaviour
    std::map<std::string, std::size_t> wanted_;
    std::map<std::string, int> came_;
    int searches_ = 0;               ///< for nearest names
    std::set<std::string> renamed_;  ///< wanted names that came under another one
    core::Findings findings_;
};

}  // namespace

core::Findings check_manifest(const wire::RefitManifest& manifest,
                              const ContractInstance& instance) {
    core::Findings findings = Checker(manifest, instance, true).run();
    if (instance.members.empty()) return findings;
    // One tensor, one cause: the first engine that has it is named.
    std::map<std::pair<std::string, std::string>, Finding> errors;
    std::vector<std::pair<std::string, std::string>> order;
    for (const ContractInstance& member : instance.members) {
        for (Finding& finding : Checker(manifest, member, false).run()) {
            if (finding.severity != Severity::error) continue;
            std::pair key(finding.tensor, finding.check);
            if (errors.emplace(key, std::move(finding)).second) order.push_back(std::move(key));
        }
    }
    std::set<std::string> wrong;
    for (Finding& finding : findings) {
        if (finding.severity != Severity::error) continue;
        wrong.insert(finding.tensor);
        // What an engine does says more than what the profile wants.
        const auto same = errors.find({finding.tensor, finding.check});
        if (same != errors.end()) finding = same->second;
    }
    for (const auto& key : order) {
        if (wrong.insert(key.first).second) findings.push_back(errors.at(key));
    }
    return findings;
}

}  // namespace refit::receiver
