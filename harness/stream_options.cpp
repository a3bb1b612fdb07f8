// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/stream_options.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/error.hpp"
#include "quant/recipe.hpp"
#include "wire/framing.hpp"

namespace refit::harness {
namespace {

constexpr const char* kDisagree = "bucket_bytes_disagree";

bool is_vllm(const Case& c) {
    return c.engine.starts_with("vllm-");
}

bool is_sglang(const Case& c) {
    return c.engine.starts_with("sglang-");
}

const FaultSpec* find_fault(const Case& c, std::string_view name) {
    const auto found = std::find_if(c.faults.begin(), c.faults.end(),
                                    [&](const FaultSpec& fault) { return fault.name == name; });
    return found == c.faults.end() ? nullptr : &*found;
}

void refuse_framing(const Case& c, const std::string& where) {
    const wire::FramingRow& row = wire::find_framing(c.framing);
    const std::string key = where + ": transport.framing " + row.name;
    const FaultSpec* disagree = find_fault(c, kDisagree);
    if (disagree != nullptr && (!row.recomputed || row.framing == wire::Framing::nemo_packed)) {
        throw core::ScenarioError(
            key + ": the fault " + kDisagree +
            (row.recomputed ? " changes bucket_bytes, and here receivers follow "
                              "transport.receiver_memory_bytes; set that instead"
                            : " strikes receivers that compute boundaries again, and those of this "
                              "framing are told them; use vllm-packed"));
    }
    if (row.framing == wire::Framing::native) return;
    if (c.trainer_ranks != 1) {
        throw core::ScenarioError(key + " has one sender of whole tensors, and trainer.ranks is " +
                                  std::to_string(c.trainer_ranks) +
                                  "; set trainer.ranks to 1 or use the framing native");
    }
    const bool reads =
        row.engines.empty() ? is_vllm(c) || is_sglang(c) : c.engine.starts_with(row.engines);
    if (!reads && c.engine != "strict") {
        throw core::ScenarioError(key + " is not read by receiver.engine " + c.engine +
                                  "; expected an engine that begins with " +
                                  (row.engines.empty() ? "vllm- or sglang-" : row.engines) +
                                  ", or the framing native");
    }
    if (c.wire == "kernel" && !row.kernel_format) {
        throw core::ScenarioError(key +
                                  " hands checkpoint names to the engine's loader, and wire is "
                                  "kernel; use wire: checkpoint, or the framing native or "
                                  "prime-rl");
    }
}

void refuse_kernel(const Case& c, const std::string& where) {
    if (c.wire != "kernel") return;
    const std::string key = where + ": wire: kernel";
    if (!is_vllm(c) && !is_sglang(c)) {
        throw core::ScenarioError(key + ": receiver.engine " + c.engine +
                                  " takes no parameters in its own format; use wire: checkpoint, "
                                  "or an engine that begins with vllm- or sglang-");
    }
    if (c.trainer_ranks != 1) {
        throw core::ScenarioError(key +
                                  " is made by one trainer, which holds every tensor whole, and "
                                  "trainer.ranks is " +
                                  std::to_string(c.trainer_ranks) + "; set trainer.ranks to 1");
    }
    for (const char* name : {"rename_scale", "scale_dtype", "wrong_eligibility", "drop_tensor"}) {
        if (find_fault(c, name) == nullptr) continue;
        throw core::ScenarioError(key + ": the fault " + name +
                                  " changes what travels under checkpoint names, which this "
                                  "format does not have; use drop_parameter, wrong_shard or "
                                  "whole_for_shard");
    }
}

void refuse_reload(const Case& c, const std::string& where) {
    if (c.reload == "none") return;
    const std::string key = where + ": receiver.reload: " + c.reload;
    if (!is_vllm(c)) {
        throw core::ScenarioError(key + " is vLLM's, and receiver.engine is " + c.engine +
                                  "; use an engine that begins with vllm-, or reload: none");
    }
    if (c.wire == "kernel") {
        throw core::ScenarioError(key +
                                  " goes through the engine's loaders, which wire: kernel goes "
                                  "past; use wire: checkpoint, or reload: none");
    }
}

/// Scales of the KV cache: who cannot take them this way, and what makes no sense without them.
void refuse_cache_scales(const Case& c, const std::string& where) {
    if (c.kv_cache_scales == "none") {
        for (const char* name : {"cache_scale_value", "stale_cache_scale"}) {
            if (find_fault(c, name) == nullptr) continue;
            throw core::ScenarioError(where + ": the fault " + name +
                                      " strikes scales of the KV cache, and "
                                      "payload.kv_cache_scales is none; set it to kv");
        }
        if (c.kv_scale_names != "contract") {
            throw core::ScenarioError(where + ": payload.kv_scale_names is " + c.kv_scale_names +
                                      ", and payload.kv_cache_scales is none; set it to kv");
        }
        return;
    }
    if (find_fault(c, "stale_cache_scale") != nullptr && c.refits < 2) {
        throw core::ScenarioError(where +
                                  ": the fault stale_cache_scale shows in the second "
                                  "refit, and refits is 1; set refits to 2");
    }
    if (c.wire != "kernel") return;
    const std::string key = where + ": wire: kernel with payload.kv_cache_scales: ";
    if (is_vllm(c)) {
        throw core::ScenarioError(
            key +
            "vLLM removes k_scale and v_scale after its first load and keeps buffers, which no "
            "loader of parameters finds (\"Kernel weight transfer skipped ... weights not found in "
            "model\"); use wire: checkpoint with receiver.reload: layerwise");
    }
    if (c.kv_scale_names != "contract") {
        throw core::ScenarioError(key +
                                  "parameters travel under the engine's own names, and "
                                  "payload.kv_scale_names is " +
                                  c.kv_scale_names + "; leave it out");
    }
}

}  // namespace

void refuse_contradictions(const Case& c, const std::string& where) {
    refuse_cache_scales(c, where);
    refuse_framing(c, where);
    refuse_kernel(c, where);
    refuse_reload(c, where);
    constexpr std::array<const char*, 3> kKernelFaults = {"drop_parameter", "wrong_shard",
                                                          "whole_for_shard"};
    for (const char* name : kKernelFaults) {
        if (find_fault(c, name) == nullptr || c.wire == "kernel") continue;
        throw core::ScenarioError(where + ": the fault " + name +
                                  " strikes parameters in the engine's own format, and wire is " +
                                  c.wire + "; set wire: kernel");
    }
    for (const char* name : {"wrong_shard", "whole_for_shard"}) {
        if (find_fault(c, name) == nullptr || c.tp > 1) continue;
        throw core::ScenarioError(where + ": the fault " + name +
                                  " needs shards that differ, and receiver.tp is 1; set it to 2");
    }
}

void refuse_unfit_payload(const Case& c, const CaseSetup& setup) {
    if (c.wire == "kernel" && c.resident == Resident::no) {
        throw core::ScenarioError(
            "wire: kernel joins parts of several tensors, and weights.resident is false, which "
            "holds one bucket's at a time; set weights.resident to true or auto");
    }
    const quant::Scheme scheme = setup.payload.scheme;
    const std::string name(quant::scheme_name(scheme));
    if (c.scale_shape == "0d" && scheme != quant::Scheme::fp8_tensorwise) {
        throw core::ScenarioError("payload.scale_shape 0d is a scale of one value, and scheme " +
                                  name + " has more; use the scheme fp8_tensorwise");
    }
    const quant::Recipe* recipe = setup.payload.recipe;
    if (recipe != nullptr && (c.scale_shape == "1d" || c.scale_shape == "2d")) {
        try {
            (void)quant::scale_shape(*recipe, {128, 128}, c.scale_shape == "1d" ? 1 : 2);
        } catch (const core::ShapeError& error) {
            throw core::ScenarioError("payload.scale_shape " + c.scale_shape + ": " + error.what());
        }
    }
    if (setup.payload.framing == wire::Framing::prime_rl && recipe != nullptr &&
        recipe->scaling.scale_storage != numerics::ScaleStorage::f32) {
        throw core::ScenarioError(
            "transport.framing prime-rl sends every scale as F32, and payload.recipe " +
            recipe->name + " stores its scales in another type; use a recipe with F32 scales");
    }
    if (c.wire != "kernel" || scheme == quant::Scheme::bf16) return;
    const std::string key = "wire: kernel: " + c.engine + " with scheme " + name + ": ";
    if (scheme == quant::Scheme::fp8_tensorwise || scheme == quant::Scheme::fp8_channelwise) {
        throw core::ScenarioError(
            key +
            (is_sglang(c)
                 ? "SGLang replaces the weight by a transposed parameter without a loader, so that "
                   "it cannot be updated while it serves"
                 : "vLLM transposes the weight after loading, and requantizes fused shards of a "
                   "per-tensor scheme to one scale") +
            "; use wire: checkpoint, or the scheme fp8_blockwise");
    }
    if (scheme == quant::Scheme::mxfp8 || !setup.quantization.algo.empty()) {
        throw core::ScenarioError(
            key + "the engine rearranges these scales after loading; use wire: checkpoint");
    }
    if (c.block_kernel == "deepgemm") {
        throw core::ScenarioError(
            key +
            (is_sglang(c)
                 ? "with DeepGEMM on Blackwell SGLang requantizes block weights after loading and "
                   "packs four scales into an int32, so that plain shards do not fit; on Hopper "
                   "the scales stay as they are"
                 : "with DeepGEMM vLLM requantizes block weights to power-of-two scales after "
                   "loading and lays the scales out anew (VLLM_USE_DEEP_GEMM_E8M0 is 1 by "
                   "default), so that plain shards do not fit") +
            ". Use wire: checkpoint, or receiver.block_kernel: cutlass");
    }
}

std::uint64_t sender_buffer_bytes(const Case& c) {
    if (c.framing == "nemo-packed" && !c.bucket_bytes_given)
        return wire::nemo_buffer_bytes(c.trainer_memory_bytes);
    return c.bucket_bytes;
}

std::uint64_t receiver_buffer_bytes(const Case& c, int receiver) {
    if (c.framing == "nemo-packed") return wire::nemo_buffer_bytes(c.receiver_memory_bytes);
    const FaultSpec* disagree = find_fault(c, kDisagree);
    const bool struck = disagree != nullptr && disagree->receiver == receiver;
    return struck ? c.bucket_bytes / 2 : c.bucket_bytes;
}

}  // namespace refit::harness
