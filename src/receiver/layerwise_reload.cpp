// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/layerwise_reload.hpp"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "receiver/cache_scales.hpp"

namespace refit::receiver {
namespace {

std::string module_of_parameter(const std::string& name) {
    const std::size_t dot = name.rfind('.');
    return dot == std::string::npos ? name : name.substr(0, dot);
}

core::Finding completeness(const std::string& tensor, const std::string& measured,
                           const std::string& limit, const std::string& behaviour,
                           const std::string& engine_message, const std::string& message) {
    core::Finding finding;
    finding.check = "completeness";
    finding.tensor = tensor;
    finding.measured = measured;
    finding.limit = limit;
    finding.engine_behaviour = behaviour;
    finding.engine_message = engine_message;
    finding.remedy = "send every tensor of the layer once, within one reload";
    finding.message = tensor + ": " + message + "; " + finding.remedy;
    return finding;
}

}  // namespace

std::string vllm_class_of(const std::string& module) {
    static const std::vector<std::pair<std::string_view, std::string_view>> kClasses = {
        {".attn", "Attention"},
        {".qkv_proj", "QKVParallelLinear"},
        {".gate_up_proj", "MergedColumnParallelLinear"},
        {".fused_qkv_a_proj", "MergedColumnParallelLinear"},
        {".o_proj", "RowParallelLinear"},
        {".down_proj", "RowParallelLinear"},
        {".experts", "RoutedExperts"},
        {".mlp.gate", "ReplicatedLinear"},
        {"embed_tokens", "VocabParallelEmbedding"},
        {"lm_head", "ParallelLMHead"},
        {"norm", "RMSNorm"},
    };
    for (const auto& [tail, name] : kClasses) {
        if (module.ends_with(tail)) return std::string(name);
    }
    return "ColumnParallelLinear";
}

LayerwiseReload::LayerwiseReload(const ContractInstance& instance, int tp_rank)
    : instance_(instance) {
    std::map<std::string, std::size_t> index;
    std::vector<std::size_t> layer_of;
    for (const DestinationParameter& destination : instance.destinations) {
        const std::string module = module_of_parameter(destination.name);
        const auto [it, added] = index.try_emplace(module, layers_.size());
        if (added) layers_.emplace_back().module = module;
        layers_[it->second].elements += core::element_count(destination.shape);
        layers_[it->second].attention = destination.is_cache_scale;
        layer_of.push_back(it->second);
    }
    for (const LoadSpan& span : instance.spans.at(static_cast<std::size_t>(tp_rank))) {
        const std::string& name = instance.wanted[span.wanted].name;
        const std::size_t layer = layer_of[span.destination];
        std::vector<Target>& targets = targets_[name];
        if (targets.empty() || targets.back().layer != layer) targets.push_back({layer, 0});
        targets.back().elements += span.source.rows * span.source.cols;
        std::vector<std::string>& wanted = layers_[layer].wanted;
        if (std::find(wanted.rbegin(), wanted.rend(), name) == wanted.rend())
            wanted.push_back(name);
    }
    initialize();
}

void LayerwiseReload::initialize() {
    for (Layer& layer : layers_) {
        layer.counted = 0;
        layer.finished = false;
        layer.calls.clear();
    }
    open_ = 0;
}

void LayerwiseReload::load(const std::string& wire_name) {
    const std::string& name = instance_.canonical(wire_name);
    const auto found = targets_.find(name);
    if (found == targets_.end()) return;
    for (const Target& target : found->second) {
        Layer& layer = layers_[target.layer];
        if (layer.finished) continue;
        if (layer.attention) {
            ++layer.calls[name];
            continue;
        }
        if (layer.counted == 0) most_open_ = std::max(most_open_, ++open_);
        layer.counted += target.elements;
        ++layer.calls[name];
        if (layer.counted >= layer.elements) {
            layer.finished = true;
            --open_;
        }
    }
}

core::Findings LayerwiseReload::of_layer(const Layer& layer, bool whole_sync) const {
    core::Findings findings;
    if (layer.wanted.empty()) return findings;
    if (layer.attention) return of_attention(layer, whole_sync);
    if (layer.calls.empty()) {
        if (!whole_sync) return findings;
        findings.push_back(completeness(
            layer.wanted.front(), "nothing of layer " + layer.module,
            std::to_string(layer.wanted.size()) + " tensors", "warns",
            vllm_class_of(layer.module) + ": Failed to load weights",
            "layer " + layer.module + " got none of its " + std::to_string(layer.wanted.size()) +
                " tensors; the layerwise reload puts its old weights back and only warns"));
        return findings;
    }
    for (const std::string& name : layer.wanted) {
        if (layer.calls.contains(name)) continue;
        const bool early = layer.finished;
        findings.push_back(completeness(
            name, early ? "dropped as excessive" : "absent from its layer's reload",
            "loaded before layer " + layer.module + " is finished", "silently_wrong", "",
            early ? "layer " + layer.module +
                        " was finished before this tensor was in it, because another was loaded "
                        "twice and elements are counted, not names; the layerwise reload leaves "
                        "its memory uninitialised"
                  : "layer " + layer.module + " got " + std::to_string(layer.counted) + " of " +
                        std::to_string(layer.elements) +
                        " elements; the layerwise reload finishes it at the end all the same, "
                        "with uninitialised memory in place of this tensor"));
    }
    return findings;
}

/// Attention layers are finished at the end whatever came: with none of their scales the old ones
/// are put back without a word, with some of them the rest is made anew as if it had never come.
core::Findings LayerwiseReload::of_attention(const Layer& layer, bool whole_sync) const {
    core::Findings findings;
    if (layer.calls.empty() && !whole_sync) return findings;
    const EngineContract& contract = find_engine(instance_.engine);
    for (const std::string& name : layer.wanted) {
        if (layer.calls.contains(name)) continue;
        const auto wanted =
            std::find_if(instance_.wanted.begin(), instance_.wanted.end(),
                         [&](const wire::WantedParameter& one) { return one.name == name; });
        const bool partner = layer.calls.contains(partner_of_cache_scale(instance_, *wanted));
        const MissingCacheScale outcome = missing_cache_scale(contract, *wanted, partner);
        findings.push_back(
            layer.calls.empty()
                ? completeness(name, "nothing of layer " + layer.module, "all of its scales",
                               "silently_wrong", "",
                               "layer " + layer.module +
                                   " got none of its scales; the layerwise reload keeps those of "
                                   "the refit before without a word")
                : completeness(name, "absent from its layer's reload",
                               "all scales of " + layer.module + " in one reload",
                               outcome.behaviour, outcome.engine_message,
                               "layer " + layer.module +
                                   " got other scales and not this one; the layerwise reload "
                                   "makes them all anew: " +
                                   outcome.consequence));
    }
    return findings;
}

core::Findings LayerwiseReload::finalize(bool whole_sync) {
    core::Findings findings;
    for (const Layer& layer : layers_) {
        for (core::Finding& finding : of_layer(layer, whole_sync))
            findings.push_back(std::move(finding));
    }
    return findings;
}

core::Findings check_layerwise_reload(const wire::RefitManifest& manifest,
                                      const ContractInstance& instance, int tp_rank,
                                      bool per_bucket, std::int64_t* most_open_layers) {
    LayerwiseReload reload(instance, tp_rank);
    core::Findings findings;
    std::set<std::uint32_t> loaded;
    std::set<std::string> reported;
    const auto end = [&](bool whole_sync) {
        for (core::Finding& finding : reload.finalize(whole_sync)) {
            if (reported.insert(finding.tensor).second) findings.push_back(std::move(finding));
        }
    };
    LayerwiseReload whole(instance, tp_rank);
    for (const wire::BucketPlan& bucket : manifest.buckets) {
        if (per_bucket) reload.initialize();
        for (const wire::PiecePlan& piece : bucket.pieces) {
            for (const wire::PieceEntry& entry : piece.entries) {
                // Shards and row parts of one tensor are joined before the loader is called.
                if (!loaded.insert(entry.parameter).second) continue;
                reload.load(manifest.parameters[entry.parameter].name);
                whole.load(manifest.parameters[entry.parameter].name);
            }
        }
        if (per_bucket) end(false);
    }
    if (per_bucket) {
        for (core::Finding& finding : whole.finalize(true)) {
            if (reported.insert(finding.tensor).second) findings.push_back(std::move(finding));
        }
    } else {
        end(true);
    }
    if (most_open_layers != nullptr) *most_open_layers = reload.most_open_layers();
    return findings;
}

}  // namespace refit::receiver
