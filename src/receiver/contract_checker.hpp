// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One manifest against one contract, tensor by tensor. Private to src/receiver.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <set>
#include <string>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/load_outcome.hpp"
#include "receiver/unknown_names.hpp"
#include "wire/manifest.hpp"

namespace refit::receiver {

/// Finds what check_manifest() reports, for one engine.
class ContractChecker {
 public:
    /// `cells`: the manifest was cut by this very instance, so that its cells must be the same.
    /// Both references outlive this.
    ContractChecker(const wire::RefitManifest& manifest, const ContractInstance& instance,
                    bool cells);
    /// Called once.
    [[nodiscard]] core::Findings run();

 private:
    /// What a finding says besides its tensor.
    struct Report {
        std::string check = {};
        core::Severity severity = core::Severity::error;
        std::string measured = {};
        std::string limit = {};
        std::string behaviour = {};
        std::string engine_message = {};
        std::string remedy = {};
        std::string message = {};
    };

    void add(const std::string& tensor, Report report);
    [[nodiscard]] const ContractRow& row_of(std::size_t wanted) const;

    // Names
    void twice(const std::string& name, int count);
    /// Whether anything came of a layer for multi-token prediction.
    [[nodiscard]] bool came_of_layer(std::int64_t layer) const;
    void report_missing();
    /// The main model loads without the layers that only a draft model uses.
    void missing_draft_layer(const std::string& first, std::int64_t layer);
    void missing(const wire::WantedParameter& wanted, const ContractRow& row);
    void unknown(const wire::ParameterMeta& parameter);
    void surplus(const std::string& name, const UnknownNameOutcome& outcome,
                 const std::string& message);
    /// A scale under the name that another format gives it, or as the source of the format writes
    /// it.
    bool other_name(const wire::ParameterMeta& parameter, const UnknownNameOutcome& outcome);
    /// Some loaders know a scale under two names; see is_read_as_inverse().
    void read_under_other_name(const wire::ParameterMeta& parameter, std::size_t index);
    bool scale_of_raw_weight(const std::string& name, const UnknownNameOutcome& outcome);

    // Scales of the KV cache
    void missing_scale_of_cache(const wire::WantedParameter& wanted);
    /// A scale of the KV cache loads into the attention layer of an engine that has a place for it;
    /// false where the engine has none.
    bool cache_scale(const wire::ParameterMeta& parameter);
    /// vLLM flattens the scales of strategy attn_head, which llm-compressor stores as [heads, 1,
    /// 1], and cuts them over the ranks (CompressedTensorsKVCacheMethod, 017e9f4448b7).
    bool is_one_a_head(const wire::ParameterMeta& parameter);

    // Dtypes and shapes
    void compare_dtype(const wire::ParameterMeta& came, std::size_t index);
    /// What becomes of a dtype that the contract does not want.
    [[nodiscard]] std::string what_happens_to(core::DType came, const wire::WantedParameter& wanted,
                                              const LoadOutcome& outcome) const;
    /// Scales that every engine widens exactly, but not every loader.
    void narrow_scale(const wire::ParameterMeta& came);
    void codes_of_scales(const wire::ParameterMeta& came);
    void compare_shape(const wire::ParameterMeta& came, std::size_t index);
    void report_shape(const wire::ParameterMeta& came, const wire::WantedParameter& wanted,
                      const LoadOutcome& outcome);
    void compare_cuts(const wire::ParameterMeta& came, const wire::WantedParameter& wanted);

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

[[nodiscard]] std::string dtype_text(core::DType dtype);
/// What a behaviour means for who reads the finding.
[[nodiscard]] std::string consequence(const std::string& behaviour, const std::string& engine);

}  // namespace refit::receiver
