// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The checker itself, and names.
#include "receiver/contract_checker.hpp"

#include <utility>
#include <vector>

#include "core/nearest_name.hpp"
#include "receiver/cache_scales.hpp"

namespace refit::receiver {
namespace {

using core::Finding;
using core::Severity;
using core::to_string;

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

}  // namespace

std::string dtype_text(core::DType dtype) {
    return std::string(core::safetensors_name(dtype));
}

std::string consequence(const std::string& behaviour, const std::string& engine) {
    if (behaviour == "raises") return engine + " refuses it";
    if (behaviour == "silently_wrong") return engine + " says nothing and ends with wrong values";
    if (behaviour == "warns") return engine + " mentions it in its log only";
    if (behaviour == "ignored") return engine + " says nothing";
    return engine + " keeps what was in memory and raises nothing";
}

ContractChecker::ContractChecker(const wire::RefitManifest& manifest,
                                 const ContractInstance& instance, bool cells)
    : manifest_(manifest),
      instance_(instance),
      contract_(find_engine(instance.engine)),
      cells_(cells),
      who_(contract_.intersection ? "at least one engine" : instance.engine) {
    for (std::size_t i = 0; i < instance.wanted.size(); ++i) wanted_[instance.wanted[i].name] = i;
    for (const auto& parameter : manifest.parameters)
        came_[instance.canonical(parameter.name)] += 1;
}

core::Findings ContractChecker::run() {
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

void ContractChecker::add(const std::string& tensor, Report report) {
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

const ContractRow& ContractChecker::row_of(std::size_t wanted) const {
    return contract_.rows.at(instance_.rows.at(wanted));
}

void ContractChecker::twice(const std::string& name, int count) {
    add(name, {.check = "names",
               .measured = std::to_string(count) + " times",
               .limit = "once",
               .behaviour = "silently_wrong",
               .remedy = "send each tensor once a refit",
               .message = "is listed " + std::to_string(count) +
                          " times; the later one overwrites the earlier one"});
}

bool ContractChecker::came_of_layer(std::int64_t layer) const {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    const auto it = came_.lower_bound(prefix);
    return it != came_.end() && it->first.starts_with(prefix);
}

void ContractChecker::report_missing() {
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

void ContractChecker::missing_draft_layer(const std::string& first, std::int64_t layer) {
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

void ContractChecker::missing(const wire::WantedParameter& wanted, const ContractRow& row) {
    add(wanted.name, {.check = "names",
                      .measured = "absent",
                      .limit = dtype_text(wanted.dtypes.front()) + " " + to_string(wanted.shape),
                      .behaviour = row.on_missing,
                      .engine_message = row.on_missing == "raises" ? row.engine_message : "",
                      .remedy = "send it with every refit",
                      .message = "is missing; " + consequence(row.on_missing, who_)});
}

void ContractChecker::unknown(const wire::ParameterMeta& parameter) {
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

void ContractChecker::surplus(const std::string& name, const UnknownNameOutcome& outcome,
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

bool ContractChecker::other_name(const wire::ParameterMeta& parameter,
                                 const UnknownNameOutcome& outcome) {
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

void ContractChecker::read_under_other_name(const wire::ParameterMeta& parameter,
                                            std::size_t index) {
    const bool sglang = contract_.unknown_names == UnknownNames::sglang;
    const std::string reader = sglang ? "SGLang 0.5.23" : instance_.engine;
    add(parameter.name, {.check = "names",
                         .severity = Severity::warning,
                         .measured = leaf_of(parameter.name),
                         .limit = leaf_of(instance_.wanted[index].name),
                         .behaviour = "ignored",
                         .remedy = "write the scale as " + instance_.wanted[index].name,
                         .message = "is read by " + reader + " as " + instance_.wanted[index].name +
                                    ", by others not"});
    // Cells belong to the wanted name.
    if (parameter.shape != instance_.wanted[index].shape) compare_shape(parameter, index);
    compare_dtype(parameter, index);
}

bool ContractChecker::scale_of_raw_weight(const std::string& name,
                                          const UnknownNameOutcome& outcome) {
    if (!is_scale_leaf(leaf_of(name))) return false;
    const auto weight = wanted_.find(stem_of(name) + ".weight");
    if (weight == wanted_.end() || !instance_.wanted[weight->second].scale.empty()) {
        return false;
    }
    const std::string behaviour = outcome.behaviour == "raises" ? "raises" : "silently_wrong";
    add(name, {.check = "names",
               .measured = "present",
               .limit = "absent",
               .behaviour = behaviour,
               .engine_message = outcome.engine_message,
               .remedy = "quantize the layer in the quantization_config too, or send it in BF16",
               .message = "is a scale of " + weight->first +
                          ", which the quantization_config leaves in BF16"});
    return true;
}

}  // namespace refit::receiver
