// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/engine_verdict.hpp"

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <tuple>
#include <unordered_map>

#include "core/error.hpp"
#include "harness/expert_inputs.hpp"
#include "harness/other_files.hpp"
#include "receiver/cache_scales.hpp"
#include "receiver/contract_check.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/quantization_config.hpp"
#include "receiver/router_check.hpp"
#include "receiver/tied_head.hpp"
#include "receiver/unknown_names.hpp"

namespace refit::harness {
namespace {

using core::Finding;
using core::Severity;
using nlohmann::json;

constexpr const char* kConfig = "quantization_config";
constexpr const char* kHead = "lm_head.weight";

/// The method by which an engine is chosen; "" for no configuration, "?" for one without a method.
std::string method_of(const CheckpointSurvey& survey) {
    if (!survey.quantization_config()) return "";
    const json root = json::parse(*survey.quantization_config(), nullptr, false);
    if (!root.is_object()) return "?";
    const auto method = root.find("quant_method");
    if (method != root.end() && method->is_string()) return method->get<std::string>();
    // ModelOpt's own file names no method.
    if (root.contains("quantization") || root.contains("quant_algo")) return "modelopt";
    return "?";
}

Finding config_finding(const std::string& message) {
    Finding finding;
    finding.check = "shape_contract";
    finding.severity = Severity::error;
    finding.tensor = kConfig;
    finding.measured = "refused";
    finding.limit = "a configuration that the engine reads";
    finding.engine_behaviour = "raises";
    finding.remedy = "correct the quantization_config";
    finding.message = message;
    return finding;
}

/// Of a method without a contract. Engines may well read it: nothing is said of them.
Finding unread_method(const std::string& method) {
    const bool absent = method == "?";
    Finding finding = config_finding("");
    finding.measured = absent ? "no quant_method" : "quant_method " + json(method).dump();
    finding.limit = "quant_method fp8, compressed-tensors or modelopt";
    finding.engine_behaviour.clear();
    finding.remedy = absent ? "write the quant_method"
                            : "refitbench has no contract for this method, so that it judges "
                              "nothing of this checkpoint but its values";
    finding.message = "quantization_config: has " + finding.measured + ", expected " +
                      finding.limit + "; " + finding.remedy;
    return finding;
}

void errors_first(core::Findings& findings) {
    std::stable_sort(findings.begin(), findings.end(), [](const Finding& a, const Finding& b) {
        return a.severity == Severity::error && b.severity != Severity::error;
    });
}

/// The checkpoint's list with the cells of the wanted one, which a file does not have.
wire::RefitManifest manifest_for(const CheckpointSurvey& survey,
                                 const receiver::ContractInstance& instance) {
    wire::RefitManifest manifest = survey.manifest();
    std::unordered_map<std::string, std::size_t> wanted;
    for (std::size_t i = 0; i < instance.wanted.size(); ++i) {
        wanted.emplace(instance.wanted[i].name, i);
    }
    for (wire::ParameterMeta& meta : manifest.parameters) {
        const auto it = wanted.find(meta.name);
        if (it == wanted.end()) continue;
        meta.row_cuts = instance.wanted[it->second].row_cuts;
        meta.col_cuts = instance.wanted[it->second].col_cuts;
    }
    return manifest;
}

/// A stack of experts, or its scale, in a layer whose experts are loaded, under whatever names.
bool stands_for_experts(const std::string& name, const std::set<std::string>& loaded) {
    const std::string experts = ".experts.";
    const std::size_t at = name.rfind(experts);
    if (at == std::string::npos) return false;
    const std::string stem = name.substr(0, at + experts.size());
    const auto next = loaded.lower_bound(stem);
    return next != loaded.end() && next->starts_with(stem) &&
           name.find('.', stem.size()) == std::string::npos;
}

/// Errors in layers for multi-token prediction become warnings: the main model skips their names,
/// and only a draft model, which is loaded apart, goes wrong.
void spare_draft_layers(const CheckpointSurvey& survey, const std::string& engine,
                        Finding& finding) {
    const model::ModelConfig& model = survey.model();
    const std::int64_t layer = receiver::layer_of_name(finding.tensor);
    if (finding.severity != Severity::error || layer < model.layers ||
        layer >= model.layers + model.mtp_layers) {
        return;
    }
    finding.severity = Severity::warning;
    finding.engine_behaviour = "ignored";
    finding.engine_message.clear();
    finding.message += "; the main model of " + engine +
                       " skips this layer, which only a draft model for multi-token prediction "
                       "loads";
}

/// transformers looks for one file or an index, the others for every file; a profile of all of them
/// wants what the most demanding one does.
bool needs_index(const receiver::EngineContract& contract) {
    return contract.intersection || contract.unknown_names == receiver::UnknownNames::transformers;
}

/// The scale of a layer that stays in BF16 is not loaded, and that of a weight which has one is.
std::set<std::string> loaded_names(const receiver::ContractInstance& instance) {
    std::set<std::string> names;
    for (const auto& wanted : instance.wanted) names.insert(wanted.name);
    return names;
}

/// A head in E4M3 that the engine holds in E4M3, with scales that no contract here describes.
Finding quantized_head(const receiver::EngineContract& contract, Finding finding) {
    finding.severity = Severity::warning;
    finding.engine_behaviour.clear();
    finding.measured = "a head in E4M3";
    finding.remedy = "load it in the engine to be sure";
    finding.message = finding.tensor +
                      ": is in E4M3, and the skip list does not name the head, so "
                      "that " +
                      contract.name + " holds it in E4M3, too; its scales were not judged; " +
                      finding.remedy;
    return finding;
}

/// What is judged of checkpoints only: the config of a refit is the receiver's own.
void add_checkpoint_findings(const receiver::EngineContract& contract,
                             const CheckpointSurvey& survey,
                             const receiver::ContractInstance& instance, core::Findings& findings) {
    // The engines of a profile often find the same.
    const auto add = [&](core::Findings found) {
        for (Finding& one : found) {
            const bool known =
                std::any_of(findings.begin(), findings.end(),
                            [&](const Finding& old) { return old.message == one.message; });
            if (!known) findings.push_back(std::move(one));
        }
    };
    add(receiver::left_out_keys(contract, survey.model()));
    add(receiver::unlisted_routers(contract, survey.model(), instance.config));
    add(receiver::unpaired_cache_scales(contract, instance.config, survey.model().architecture,
                                        survey.names()));
    add(differing_expert_inputs(contract, instance.config, survey));
    const weights::StoredTensor* head = survey.files().find(kHead).tensor;
    core::Findings heads = receiver::unlisted_head(contract, instance.config, head != nullptr);
    if (head != nullptr && head->dtype == core::DType::f8_e4m3) {
        for (Finding& one : heads) one = quantized_head(contract, std::move(one));
    }
    add(std::move(heads));
}

/// Whether the engine holds a head in E4M3 that is stored so: then what the contract says of a BF16
/// head does not apply.
bool holds_quantized_head(const receiver::EngineContract& contract, const CheckpointSurvey& survey,
                          const receiver::ContractInstance& instance) {
    const weights::StoredTensor* head = survey.files().find(kHead).tensor;
    return head != nullptr && head->dtype == core::DType::f8_e4m3 &&
           !receiver::unlisted_head(contract, instance.config, true).empty();
}

}  // namespace

std::vector<std::string> engines_for(const CheckpointSurvey& survey) {
    const std::string method = method_of(survey);
    std::vector<std::string> engines;
    for (const receiver::EngineContract& contract : receiver::engine_catalog()) {
        // The strict profile is what all engines share, not an engine that could load anything.
        if (contract.name == "strict") continue;
        const bool reads =
            method.empty() ? contract.formats.empty() : receiver::reads_method(contract, method);
        if (reads) engines.push_back(contract.name);
    }
    return engines;
}

EngineVerdict judge_for_engine(const CheckpointSurvey& survey, const std::string& engine, int tp,
                               const core::Findings& values) {
    const receiver::EngineContract& contract = receiver::find_engine(engine);
    EngineVerdict verdict;
    verdict.engine = contract.name;
    verdict.engine_version = contract.version;
    const bool head_stored = survey.files().find(kHead).tensor != nullptr;
    std::optional<receiver::ContractInstance> instance;
    const receiver::ConfigReading reading =
        receiver::read_quantization_config(engine, survey.quantization_config());
    verdict.findings = reading.findings;
    try {
        if (reading.usable) {
            verdict.scheme = reading.config.scheme_text();
            instance = receiver::apply_contract(
                contract,
                receiver::with_built_routers(
                    contract, receiver::model_as_built(contract, survey.model(), head_stored)),
                reading.config, tp);
        }
    } catch (const core::ScenarioError& refusal) {
        verdict.findings.push_back(config_finding(refusal.what()));
    }
    std::set<std::string> loaded;
    verdict.judged = instance.has_value();
    if (instance) {
        loaded = loaded_names(*instance);
        add_checkpoint_findings(contract, survey, *instance, verdict.findings);
        for (const receiver::ContractInstance& member : instance->members) {
            add_checkpoint_findings(receiver::find_engine(member.engine), survey, member,
                                    verdict.findings);
        }
        for (Finding& finding :
             receiver::check_manifest(manifest_for(survey, *instance), *instance)) {
            // Whether the stored head is a true alias is known from its bytes, not its name.
            const bool alias = finding.tensor == kHead && survey.model().tied_embeddings &&
                               finding.severity == Severity::warning;
            const bool of_head = finding.tensor.starts_with("lm_head.");
            if (alias || (of_head && holds_quantized_head(contract, survey, *instance))) continue;
            verdict.findings.push_back(receiver::missing_of_tied_pair(
                contract, survey.model(), head_stored, std::move(finding)));
        }
    }
    for (Finding finding : values) {
        const bool is_loaded = !instance || loaded.count(finding.tensor) != 0 ||
                               stands_for_experts(finding.tensor, loaded) ||
                               receiver::is_cache_scale(finding.tensor);
        if (!is_loaded) finding.severity = Severity::warning;
        judge_for(contract, finding);
        if (finding.tensor == kHead && finding.check == CheckpointSurvey::kTiedPair) {
            finding =
                receiver::differing_head(contract, survey.model().architecture, std::move(finding));
        }
        if (finding.tensor == CheckpointSurvey::kIndex && needs_index(contract)) {
            finding.severity = Severity::error;
            finding.engine_behaviour = "raises";
        }
        verdict.findings.push_back(std::move(finding));
    }
    for (Finding& finding : verdict.findings) spare_draft_layers(survey, contract.name, finding);
    errors_first(verdict.findings);
    return verdict;
}

EngineVerdict judge_without_engine(const CheckpointSurvey& survey, const core::Findings& values) {
    EngineVerdict verdict;
    verdict.engine = "none";
    verdict.findings.push_back(unread_method(method_of(survey)));
    verdict.findings.insert(verdict.findings.end(), values.begin(), values.end());
    errors_first(verdict.findings);
    return verdict;
}

const EngineVerdict& best_of(const std::vector<EngineVerdict>& verdicts) {
    const auto order = [](const EngineVerdict& verdict) {
        const auto errors = std::count_if(
            verdict.findings.begin(), verdict.findings.end(),
            [](const Finding& finding) { return finding.severity == Severity::error; });
        return std::make_tuple(errors != 0, !verdict.judged, errors);
    };
    return *std::min_element(
        verdicts.begin(), verdicts.end(),
        [&](const EngineVerdict& a, const EngineVerdict& b) { return order(a) < order(b); });
}

}  // namespace refit::harness
