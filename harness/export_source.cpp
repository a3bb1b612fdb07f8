// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/export_source.hpp"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "receiver/unknown_names.hpp"

namespace refit::harness {
namespace {

using weights::CheckpointDirectory;

constexpr std::size_t kShownProblems = 10;

bool ends_with_any(std::string_view name, std::initializer_list<std::string_view> ends) {
    return std::any_of(ends.begin(), ends.end(),
                       [name](std::string_view end) { return name.ends_with(end); });
}

/// The row of the engine's contract for scales of the KV cache; nullptr where it reads none.
const receiver::ContractRow* cache_row(const receiver::EngineContract& contract) {
    const auto it = std::find_if(contract.rows.begin(), contract.rows.end(),
                                 [](const auto& row) { return row.suffix == "cache_scale"; });
    return it == contract.rows.end() ? nullptr : &*it;
}

bool is_quantizers_work(const std::string& name, core::DType dtype) {
    const bool stored_small = dtype == core::DType::f8_e4m3 || dtype == core::DType::f8_e5m2 ||
                              dtype == core::DType::f8_e8m0 || dtype == core::DType::f8_e4m3fnuz ||
                              dtype == core::DType::f8_e5m2fnuz || dtype == core::DType::f4 ||
                              dtype == core::DType::f6_e2m3 || dtype == core::DType::f6_e3m2;
    return stored_small ||
           ends_with_any(name, {".weight_scale", ".weight_scale_inv", ".weight_packed", ".qweight",
                                ".weight_shape", ".input_scale", ".activation_scale"});
}

[[noreturn]] void refuse(const CheckpointDirectory& source,
                         const std::vector<std::string>& problems) {
    std::string text = "exporting the model in " + source.path().string() + ":";
    for (std::size_t i = 0; i < problems.size() && i < kShownProblems; ++i) {
        text += "\n  " + problems[i];
    }
    if (problems.size() > kShownProblems) {
        text += "\n  and " + std::to_string(problems.size() - kShownProblems) + " more";
    }
    throw core::Error(core::ExitCode::verdict, text);
}

std::string described(const weights::StoredTensor& tensor) {
    return tensor.name + ": found " + std::string(core::safetensors_name(tensor.dtype)) + " " +
           core::to_string(tensor.shape);
}

/// Adds to `problems` what is wrong with a scale of the KV cache.
void check_cache_scale(const weights::StoredTensor& tensor,
                       const receiver::EngineContract& contract,
                       std::vector<std::string>& problems) {
    const receiver::ContractRow* row = cache_row(contract);
    if (row == nullptr) {
        problems.push_back(tensor.name + ": a scale of the KV cache, which engine " +
                           contract.name +
                           " does not read; choose an engine of vLLM or SGLang, or remove the "
                           "scales from the source");
        return;
    }
    const bool number = tensor.shape.empty() || tensor.shape == core::Shape{1};
    const auto& dtypes = row->wire_dtypes;
    if (number && std::find(dtypes.begin(), dtypes.end(), tensor.dtype) != dtypes.end()) return;
    problems.push_back(described(tensor) + "; expected one floating-point number (" +
                       row->parameter_dtype + ") for the KV cache; correct it or remove it");
}

}  // namespace

void check_source(const CheckpointDirectory& source, const weights::StoredPlaces& places,
                  const std::vector<model::TensorSpec>& tensors) {
    std::vector<std::string> problems;
    for (const std::string& name : source.names()) {
        const CheckpointDirectory::Location at = source.find(name);
        if (!is_quantizers_work(name, at.tensor->dtype)) continue;
        problems.push_back(described(*at.tensor) + " in " + at.file->path().filename().string() +
                           ", so the checkpoint is quantized already; expected training weights in "
                           "BF16");
    }
    if (!problems.empty()) refuse(source, problems);
    std::set<std::string> named;
    const auto add = [&](const weights::StoredPlaces::Problem& problem) {
        // A stack is one tensor, however many experts are looked for in it.
        if (!named.insert(problem.tensor).second) return;
        problems.push_back(problem.tensor + ": found " + problem.measured +
                           ", the model's config wants " + problem.wanted + "; " + problem.remedy);
    };
    for (const model::TensorSpec& tensor : tensors) {
        if (const auto problem = places.problem_of(tensor)) add(*problem);
    }
    for (const weights::StoredPlaces::Problem& problem : places.surplus_experts()) add(problem);
    if (!problems.empty()) refuse(source, problems);
}

SurplusTensors sort_surplus(const CheckpointDirectory& source, const weights::StoredPlaces& places,
                            const model::ModelConfig& model,
                            const std::vector<model::TensorSpec>& tensors,
                            const receiver::EngineContract& contract) {
    std::set<std::string> known;
    for (const model::TensorSpec& tensor : tensors) known.insert(places.find(tensor).tensor->name);
    SurplusTensors surplus;
    std::vector<std::string> problems;
    for (const std::string& name : source.names()) {
        if (known.contains(name)) continue;
        const CheckpointDirectory::Location at = source.find(name);
        if (name == "lm_head.weight" && model.tied_embeddings) {
            if (weights::same_bytes(at, source.find("model.embed_tokens.weight"))) {
                surplus.left_out.push_back(name);
                continue;
            }
            problems.push_back(
                name +
                ": differs from model.embed_tokens.weight, though the config ties the two; "
                "set tie_word_embeddings to false, or remove the head");
        } else if (receiver::is_cache_scale(name)) {
            check_cache_scale(*at.tensor, contract, problems);
            surplus.cache_scales.push_back(at);
        } else if (ends_with_any(name, {".rotary_emb.inv_freq", ".rotary_emb.cos_cached",
                                        ".rotary_emb.sin_cached"})) {
            surplus.left_out.push_back(name);
        } else {
            problems.push_back(described(*at.tensor) +
                               ", which no tensor of the model's config is; check that config and "
                               "weights belong together");
        }
    }
    if (!problems.empty()) refuse(source, problems);
    return surplus;
}

}  // namespace refit::harness
