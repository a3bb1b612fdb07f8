// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/contract_check.hpp"

#include <algorithm>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "core/nearest_name.hpp"
#include "receiver/engines/engines.hpp"

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
    return {};
}

bool ends_with_any(const std::string& text, const std::vector<std::string_view>& tails) {
    return std::any_of(tails.begin(), tails.end(),
                       [&](std::string_view tail) { return text.ends_with(tail); });
}

bool is_row_parallel(const std::string& name) {
    return ends_with_any(stem_of(name), {".o_proj", ".down_proj"});
}

/// A projection of a routed expert, or its scale.
bool is_expert(const std::string& name) {
    return name.find(".mlp.experts.") != std::string::npos;
}

/// Weights that every rank keeps whole and unquantized.
bool is_whole(const std::string& name) {
    const std::string module = stem_of(name);
    return ends_with_any(module, {"norm", ".mlp.gate", ".eh_proj"}) ||
           leaf_of(name) == "e_score_correction_bias";
}

class Checker {
 public:
    Checker(const wire::RefitManifest& manifest, const ContractInstance& instance)
        : manifest_(manifest), instance_(instance), contract_(find_engine(instance.engine)) {
        for (std::size_t i = 0; i < instance.wanted.size(); ++i)
            wanted_[instance.wanted[i].name] = i;
        for (const auto& parameter : manifest.parameters) came_[parameter.name] += 1;
    }

    core::Findings run() {
        findings_ = instance_.refusals;
        std::set<std::string> seen;
        std::set<std::string> reported;  // wanted names that an unknown name already accounts for
        for (const auto& parameter : manifest_.parameters) {
            if (!seen.insert(parameter.name).second) continue;
            const auto it = wanted_.find(parameter.name);
            if (it == wanted_.end()) {
                unknown(parameter, reported);
                continue;
            }
            if (came_[parameter.name] > 1) twice(parameter.name, came_[parameter.name]);
            compare(parameter, instance_.wanted[it->second]);
        }
        for (const auto& wanted : instance_.wanted) {
            if (came_.count(wanted.name) == 0 && reported.count(wanted.name) == 0) missing(wanted);
        }
        return std::move(findings_);
    }

 private:
    void add(const std::string& check, Severity severity, const std::string& tensor,
             const std::string& measured, const std::string& limit, const std::string& behaviour,
             const std::string& engine_message, const std::string& remedy,
             const std::string& message) {
        Finding finding;
        finding.check = check;
        finding.severity = severity;
        finding.tensor = tensor;
        finding.measured = measured;
        finding.limit = limit;
        finding.engine_behaviour = behaviour;
        finding.engine_message = engine_message;
        finding.remedy = remedy;
        finding.message = tensor + ": " + message + "; " + remedy;
        findings_.push_back(std::move(finding));
    }

    [[nodiscard]] const ContractRow& row_of(const wire::WantedParameter& wanted) const {
        const std::string leaf = leaf_of(wanted.name);
        const std::string module = stem_of(wanted.name);
        const std::string scheme(quant::scheme_name(instance_.config.scheme));
        const std::string rule = is_expert(wanted.name)         ? "experts"
                                 : is_row_parallel(wanted.name) ? "row"
                                                                : "column";
        if (!wanted.scale_of.empty()) return find_row(contract_, leaf, scheme, rule);
        if (leaf == "bias") return find_row(contract_, "bias", "any", "qkv");
        if (ends_with_any(module, {"embed_tokens", ".shared_head.head"}) || module == "lm_head") {
            return find_row(contract_, "vocabulary", "any", "column");
        }
        if (is_whole(wanted.name)) return find_row(contract_, "norm", "any", "replicated");
        return find_row(contract_, "weight", wanted.scale.empty() ? "bf16" : scheme, rule);
    }

    void twice(const std::string& name, int count) {
        add("names", Severity::error, name, std::to_string(count) + " times", "once",
            "silently_wrong", "", "send each tensor once a refit",
            "is listed " + std::to_string(count) +
                " times; the later one overwrites the earlier one");
    }

    void missing(const wire::WantedParameter& wanted) {
        const ContractRow& row = row_of(wanted);
        add("names", Severity::error, wanted.name, "absent",
            dtype_text(wanted.dtypes.front()) + " " + to_string(wanted.shape), row.on_missing, "",
            "send it with every refit",
            "is missing; " + instance_.engine + " keeps what was in memory and raises nothing");
    }

    void unknown(const wire::ParameterMeta& parameter, std::set<std::string>& reported) {
        const std::string& name = parameter.name;
        const std::string leaf = leaf_of(name);
        // The engines skip these without a word, so that they damage nothing.
        const bool tied_head =
            leaf == "weight" && stem_of(name) == "lm_head" && wanted_.count(name) == 0;
        if (tied_head || leaf == "bias" ||
            ends_with_any(
                name, {"rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached"})) {
            add("names", Severity::warning, name, "present", "absent", "ignored", "",
                "leave it out",
                tied_head
                    ? "the head is tied to the embedding and is skipped by " + instance_.engine
                    : "is not a tensor of this model and is ignored by " + instance_.engine);
            return;
        }
        const std::string message = raised_for(name);
        const std::string other = other_scale_name(name);
        const auto partner = wanted_.find(other);
        if (!other.empty() && partner != wanted_.end() && came_.count(other) == 0) {
            reported.insert(other);
            add("names", Severity::error, name, leaf, leaf_of(other), "raises", message,
                "write the scale as " + other,
                "the contract of " + instance_.engine + " names this scale " + other);
            return;
        }
        if (is_scale_leaf(leaf) && wanted_.count(stem_of(name) + ".weight") != 0 &&
            instance_.wanted[wanted_.at(stem_of(name) + ".weight")].scale.empty()) {
            add("names", Severity::error, name, "present", "absent", "raises", message,
                "quantize the layer in the quantization_config too, or send it in BF16",
                "is a scale of " + stem_of(name) +
                    ".weight, which the quantization_config leaves in BF16");
            return;
        }
        std::vector<std::string> known;
        known.reserve(wanted_.size());
        for (const auto& [wanted, index] : wanted_) known.push_back(wanted);
        const std::vector<std::string> nearest = core::nearest_names(name, known);
        add("names", Severity::error, name, "present", "absent", "raises", message,
            nearest.empty()
                ? "leave it out"
                : "leave it out, or rename it: the nearest wanted name is " + nearest[0],
            "is not a tensor that " + instance_.engine + " knows for this model");
    }

    /// What vLLM's loader of the architecture says about a name that it does not have.
    [[nodiscard]] std::string raised_for(const std::string& name) const {
        const std::string inner = name.starts_with("model.") ? name.substr(6) : name;
        if (instance_.architecture == model::Architecture::deepseek_v3) {
            return "KeyError: '" + inner + "'";
        }
        if (is_expert(name) && is_scale_leaf(leaf_of(name))) {
            const bool down = stem_of(name).ends_with(".down_proj");
            return std::string("AttributeError: Layer ... has no parameter '") +
                   (down ? "w2_" : "w13_") + leaf_of(name) + "'";
        }
        if (is_scale_leaf(leaf_of(name)) &&
            ends_with_any(stem_of(name), {".q_proj", ".k_proj", ".v_proj"})) {
            return "AttributeError: 'QKVParallelLinear' object has no attribute 'data'";
        }
        return "ValueError: There is no module or parameter named '" + inner + "' in ...";
    }

    void compare(const wire::ParameterMeta& came, const wire::WantedParameter& wanted) {
        compare_shape(came, wanted);
        if (std::find(wanted.dtypes.begin(), wanted.dtypes.end(), came.dtype) !=
            wanted.dtypes.end())
            return;
        const bool quantized = came.dtype == core::DType::f8_e4m3;
        std::string remedy = "send it as " + dtype_text(wanted.dtypes.front());
        if (!wanted.scale.empty()) {
            remedy = "quantize it, or leave its module out in the quantization_config";
        } else if (quantized) {
            remedy = "send it in " + dtype_text(wanted.dtypes.front()) +
                     ", or take its module off the skip list of the quantization_config";
        }
        add("dtype", Severity::error, came.name, dtype_text(came.dtype), dtypes_text(wanted.dtypes),
            row_of(wanted).on_wrong_dtype, "", remedy,
            "came as " + dtype_text(came.dtype) + ", the contract wants " +
                dtypes_text(wanted.dtypes) + "; " + instance_.engine + " casts it without a scale");
    }

    void compare_shape(const wire::ParameterMeta& came, const wire::WantedParameter& wanted) {
        if (came.shape == wanted.shape) {
            compare_cuts(came, wanted);
            return;
        }
        const bool one_value = !wanted.scale_of.empty() && wanted.shape == Shape{1};
        // A scale of one value may come without dimensions.
        if (one_value && came.shape.empty()) return;
        const ContractRow& row = row_of(wanted);
        if (came.shape.size() != wanted.shape.size()) {
            const bool same_elements =
                core::element_count(came.shape) == core::element_count(wanted.shape);
            // vLLM slices along its own dimensions, which a 0-d tensor or a 2-D FP8_PB_WO scale
            // does not have.
            const bool index_error =
                came.shape.empty() || came.shape.size() + 2 == wanted.shape.size();
            const bool one_dimension_off = came.shape.size() == 1 || wanted.shape.size() == 1;
            const std::string text = is_expert(wanted.name) ? "RuntimeError"
                                     : index_error          ? "IndexError: Dimension out of range"
                                     : one_dimension_off    ? "AssertionError without text"
                                                            : "RuntimeError of narrow";
            add("shape_contract", Severity::error, came.name, to_string(came.shape),
                to_string(wanted.shape), row.on_wrong_rank,
                row.on_wrong_rank == "raises" ? text : "",
                same_elements
                    ? "reshape it to " + to_string(wanted.shape) + ", the values stay the same"
                    : "send it with the shape of the contract",
                "came " + with_rank(came.shape) + ", the contract wants " +
                    with_rank(wanted.shape));
            return;
        }
        if (is_expert(wanted.name)) {
            compare_expert_shape(came, wanted, row);
            return;
        }
        bool longer = false;
        bool shorter = false;
        bool beyond_rows = false;
        for (std::size_t i = 0; i < came.shape.size(); ++i) {
            longer = longer || came.shape[i] > wanted.shape[i];
            shorter = shorter || came.shape[i] < wanted.shape[i];
            beyond_rows = beyond_rows || (i > 0 && came.shape[i] != wanted.shape[i]);
        }
        const bool row_layer = is_row_parallel(wanted.name);
        std::string behaviour = row.on_wrong_rank;
        std::string text = "RuntimeError of narrow";
        // Only the dimension that the engine slices may be too long without notice; the other one
        // is asserted.
        const bool sliced_only = row_layer ? came.shape[0] == wanted.shape[0] : !beyond_rows;
        if (longer && !shorter) {
            behaviour = sliced_only ? row.on_too_long : "raises";
            text = "AssertionError without text";
        } else if (shorter && !longer) {
            behaviour = row.on_too_short;
            text =
                sliced_only ? short_text(came, wanted, row_layer) : "AssertionError without text";
        } else if (row_layer) {
            text = "AssertionError without text";
        }
        // Tensors that are loaded whole have one text for every difference.
        const bool whole = row.engine_message.find("start (a)") == std::string::npos;
        if (whole) text = row.engine_message;
        add("shape_contract", Severity::error, came.name, to_string(came.shape),
            to_string(wanted.shape), behaviour, behaviour == "raises" ? text : "",
            "send it with the shape of the contract",
            "came " + to_string(came.shape) + ", the contract wants " + to_string(wanted.shape) +
                (behaviour == "silently_wrong"
                     ? "; " + instance_.engine + " cuts the surplus off and says nothing"
                     : ""));
    }

    /// The loader takes its share of the sliced dimension of what came, whatever that is, and
    /// writes it into a corner of the parameter; only a share that is larger raises.
    void compare_expert_shape(const wire::ParameterMeta& came, const wire::WantedParameter& wanted,
                              const ContractRow& row) {
        const bool down = stem_of(wanted.name).ends_with(".down_proj");
        std::string text;
        for (std::size_t i = 0; i < came.shape.size() && text.empty(); ++i) {
            const auto& cuts = i == 0 ? wanted.row_cuts : wanted.col_cuts;
            const auto ranks = static_cast<std::int64_t>(cuts.size()) - 1;
            const bool sliced = i == (down ? 1U : 0U);
            const std::int64_t share = sliced ? came.shape[i] / ranks : came.shape[i];
            const std::int64_t space = sliced ? wanted.shape[i] / ranks : wanted.shape[i];
            if (share <= space) continue;
            text = "RuntimeError: The size of tensor a (" + std::to_string(space) +
                   ") must match the size of tensor b (" + std::to_string(share) +
                   ") at non-singleton dimension " + std::to_string(i);
        }
        const std::string behaviour = text.empty() ? "silently_wrong" : row.on_too_long;
        add("shape_contract", Severity::error, came.name, to_string(came.shape),
            to_string(wanted.shape), behaviour, text, "send it with the shape of the contract",
            "came " + to_string(came.shape) + ", the contract wants " + to_string(wanted.shape) +
                (text.empty() ? "; " + instance_.engine +
                                    " writes it into a corner of the expert and says nothing"
                              : ""));
    }

    /// The text of the first rank whose slice leaves a tensor that is too short.
    [[nodiscard]] static std::string short_text(const wire::ParameterMeta& came,
                                                const wire::WantedParameter& wanted,
                                                bool row_layer) {
        const auto& cuts = row_layer ? wanted.col_cuts : wanted.row_cuts;
        const std::int64_t size =
            row_layer ? core::matrix_cols(came.shape) : core::matrix_rows(came.shape);
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            if (cuts[i + 1] <= size) continue;
            return "RuntimeError: start (" + std::to_string(cuts[i]) + ") + length (" +
                   std::to_string(cuts[i + 1] - cuts[i]) + ") exceeds dimension size (" +
                   std::to_string(size) + ").";
        }
        return "RuntimeError of narrow";
    }

    void compare_cuts(const wire::ParameterMeta& came, const wire::WantedParameter& wanted) {
        if (came.row_cuts == wanted.row_cuts && came.col_cuts == wanted.col_cuts) return;
        add("shape_contract", Severity::error, came.name, "other cells",
            "the cells of the wanted list", "", "",
            "give the trainers the wanted list of these receivers",
            "the manifest cuts it into other cells than the receivers asked for");
    }

    const wire::RefitManifest& manifest_;
    const ContractInstance& instance_;
    const EngineContract& contract_;
    std::map<std::string, std::size_t> wanted_;
    std::map<std::string, int> came_;
    core::Findings findings_;
};

}  // namespace

core::Findings check_manifest(const wire::RefitManifest& manifest,
                              const ContractInstance& instance) {
    return Checker(manifest, instance).run();
}

}  // namespace refit::receiver
