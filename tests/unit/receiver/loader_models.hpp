// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The small models that the engines' own loaders were run with, and what the contract says of them.
#pragma once

#include "receiver/contract_check.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {

using model::Architecture;

/// Two layers, hidden size 256, intermediate 512, 8 and 4 heads of 64, vocabulary 512.
inline model::ModelConfig small(Architecture architecture) {
    model::ModelConfig config = dense(256, 512, 2, 8, 4, 64, 512, false);
    config.architecture = architecture;
    config.qk_norm = architecture == Architecture::qwen3;
    if (architecture == Architecture::qwen3_moe) {
        config.qk_norm = true;
        config.intermediate = 0;
        config.experts = 4;
        config.moe_intermediate = 256;
    }
    return config;
}

/// Latent attention: q_lora 128, kv_lora 128, rope 64.
inline model::ModelConfig latent() {
    model::ModelConfig config = named_model("tiny-mla");
    config.q_lora_rank = 128;
    config.experts = 4;
    config.moe_intermediate = 256;
    config.mtp_layers = 0;
    return config;
}

/// Without the refusals that stand first: those of the model.
inline core::Findings findings_after(const receiver::ContractInstance& instance,
                                     const wire::RefitManifest& manifest) {
    core::Findings findings = receiver::check_manifest(manifest, instance);
    findings.erase(findings.begin(),
                   findings.begin() + static_cast<std::ptrdiff_t>(instance.refusals.size()));
    return findings;
}

}  // namespace refit::receiver_test
