// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM's layerwise reload as a state machine: what becomes of each layer under a stream of tensors.
//
// Each layer's parameters are made anew without memory, load calls are kept with their arguments,
// and a layer is finished once the elements copied into it reach its size: elements are counted,
// not names. At the end a layer with some of its tensors is finished too, with uninitialised memory
// for the rest, and one with none gets its old weights back under a warning.
// Source: vLLM 017e9f4, vllm/model_executor/model_loader/reload/layerwise.py.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/manifest.hpp"

namespace refit::receiver {

class LayerwiseReload {
 public:
    /// Layers of one rank, from the modules of its destinations. `instance` must outlive it.
    LayerwiseReload(const ContractInstance& instance, int tp_rank);

    /// Every layer begins without memory.
    void initialize();
    /// One load call with a whole tensor, under its checkpoint name. Unknown names are left to the
    /// check of names; a call for a finished layer is dropped.
    void load(const std::string& wire_name);
    /// The end: findings of the check completeness, one a tensor that a layer with others misses,
    /// or one a layer that got nothing; with `whole_sync` false, where more calls of the same refit
    /// follow, none for layers that got nothing.
    [[nodiscard]] core::Findings finalize(bool whole_sync);

    /// Most layers that were begun and not finished at one time: their tensors are all kept.
    [[nodiscard]] std::int64_t most_open_layers() const { return most_open_; }

 private:
    struct Layer {
        std::string module;
        std::int64_t elements = 0;  ///< of all its parameters, padding too
        std::int64_t counted = 0;
        bool finished = false;
        bool attention = false;            ///< of scales of the KV cache, which are done at the end
        std::map<std::string, int> calls;  ///< by wanted name: calls that were kept
        std::vector<std::string> wanted;   ///< what it needs
    };
    [[nodiscard]] core::Findings of_layer(const Layer& layer, bool whole_sync) const;
    [[nodiscard]] core::Findings of_attention(const Layer& layer, bool whole_sync) const;

    const ContractInstance& instance_;
    std::vector<Layer> layers_;
    struct Target {
        std::size_t layer = 0;
        std::int64_t elements = 0;
    };
    std::map<std::string, std::vector<Target>> targets_;  ///< by wanted name
    std::int64_t open_ = 0;
    std::int64_t most_open_ = 0;
};

/// What the engine class of a module is called in vLLM's warning.
[[nodiscard]] std::string vllm_class_of(const std::string& module);

/// The manifest's stream, tensor by tensor in the order of its messages, through the reload of one
/// rank. `per_bucket` begins and ends the reload with every message, as senders did that call it
/// once a chunk (SkyRL#1737, verl#7136). `most_open_layers` may be null.
[[nodiscard]] core::Findings check_layerwise_reload(const wire::RefitManifest& manifest,
                                                    const ContractInstance& instance, int tp_rank,
                                                    bool per_bucket,
                                                    std::int64_t* most_open_layers);

}  // namespace refit::receiver
