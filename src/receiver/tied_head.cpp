// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/tied_head.hpp"

#include <algorithm>
#include <string>

namespace refit::receiver {
namespace {

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

bool has_own_head(const EngineContract& contract, model::Architecture architecture) {
    const auto& families = contract.own_heads;
    return std::find(families.begin(), families.end(), architecture) != families.end();
}

}  // namespace

model::ModelConfig model_as_built(const EngineContract& contract, model::ModelConfig model,
                                  bool head_stored) {
    const bool loads_stored =
        contract.tied_head == TiedHead::stored || contract.tied_head == TiedHead::either;
    if (has_own_head(contract, model.architecture) || (loads_stored && head_stored)) {
        model.tied_embeddings = false;
    }
    return model;
}

core::Finding differing_head(const EngineContract& contract, model::Architecture architecture,
                             core::Finding finding) {
    std::string used = "some engines use the stored head and others the embedding";
    if (contract.intersection) finding.severity = core::Severity::error;
    if (contract.tied_head == TiedHead::embedding && !has_own_head(contract, architecture)) {
        used = contract.tied_head_source + " drops the stored head and uses the embedding";
        finding.engine_behaviour = "ignored";
    } else if (contract.tied_head != TiedHead::unknown) {
        used = contract.tied_head_source + " does not tie them and uses the stored head";
        finding.engine_behaviour = contract.tied_head == TiedHead::embedding ? "" : "warns";
    }
    finding.message = finding.tensor +
                      ": differs from the embedding that config.json ties it to, " + "and " + used +
                      "; " + finding.remedy;
    return finding;
}

core::Finding missing_of_tied_pair(const EngineContract& contract, const model::ModelConfig& model,
                                   bool head_stored, core::Finding finding) {
    if (!model.tied_embeddings || finding.measured != "absent") return finding;
    if (finding.tensor == kHead && has_own_head(contract, model.architecture)) {
        finding.remedy = "store a copy of the embedding as lm_head.weight";
        finding.message = finding.tensor + ": is not stored because config.json ties it to the " +
                          "embedding, but " + contract.tied_head_source + " builds models of " +
                          model::architecture_name(model.architecture) +
                          " with a head of their own, which nothing fills; " + finding.remedy;
    } else if (finding.tensor == kEmbedding && head_stored &&
               contract.tied_head == TiedHead::either) {
        finding.severity = core::Severity::warning;
        finding.engine_behaviour = "ignored";
        finding.remedy = "store it as model.embed_tokens.weight, as other engines want it";
        finding.message = finding.tensor + ": is not stored, and " + contract.tied_head_source +
                          " takes the head that config.json ties to it; " + finding.remedy;
    }
    return finding;
}

}  // namespace refit::receiver
