// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/other_files.hpp"

#include <algorithm>
#include <optional>
#include <string>

#include "core/error.hpp"

namespace refit::harness {
namespace {

using core::Finding;
using receiver::UnknownNames;

/// Limits of the findings, by which judge_for() knows them.
constexpr const char* kInstead = "an index that names it, or no such file";
constexpr const char* kBeside = "no file but those of the checkpoint";
constexpr const char* kDiffers = "other values of tensors of the checkpoint";
constexpr const char* kMore = "tensors that the checkpoint does not have";
constexpr const char* kUnreadable = "not a safetensors file";

using Location = weights::CheckpointDirectory::Location;

/// What stands in the way of taking `path` for a copy of the checkpoint or, where not `whole`, of
/// a part of it; nullopt for a copy.
std::optional<std::string> difference(const weights::CheckpointDirectory& files,
                                      const std::filesystem::path& path, bool whole) {
    try {
        const weights::SafetensorsFile other(path);
        bool more = false;
        for (const weights::StoredTensor& tensor : other.tensors()) {
            const Location here = files.find(tensor.name);
            if (here.tensor == nullptr) {
                more = true;
            } else if (!weights::same_bytes(here, {&other, &tensor})) {
                return kDiffers;
            }
        }
        if (more) return kMore;
        const std::size_t count = files.names().size();
        if (!whole || other.tensors().size() == count) return std::nullopt;
        return std::to_string(other.tensors().size()) + " of the " + std::to_string(count) +
               " tensors of the checkpoint";
    } catch (const core::FileError&) {
        return kUnreadable;
    }
}

Finding finding_of(const std::filesystem::path& path, const std::string& measured,
                   const char* limit, const std::string& what) {
    Finding finding;
    finding.check = "names";
    finding.severity = core::Severity::warning;
    finding.tensor = path.filename().string();
    finding.measured = measured;
    finding.limit = limit;
    finding.engine_behaviour = "ignored";
    finding.remedy = "move it out of the directory";
    finding.message = finding.tensor + ": holds " + measured + "; " + what + "; " + finding.remedy;
    return finding;
}

bool is_consolidated(const std::filesystem::path& path) {
    return path.filename().string().starts_with("consolidated");
}

}  // namespace

core::Findings judge_other_files(const weights::CheckpointDirectory& files) {
    core::Findings findings;
    for (const std::filesystem::path& path : files.other_files()) {
        if (is_consolidated(path)) {
            findings.push_back(finding_of(
                path, "weights under names of their own", kBeside,
                "vLLM takes a directory with such a file for Mistral's own format and loads it "
                "instead of the files that were judged, SGLang and transformers do so on request"));
            continue;
        }
        const bool instead = files.has_index() && path.filename() == "model.safetensors";
        if (files.has_index() && !instead) continue;  // Nobody reads it.
        const std::optional<std::string> measured = difference(files, path, instead);
        if (!measured) continue;
        findings.push_back(finding_of(
            path, *measured, instead ? kInstead : kBeside,
            instead ? "transformers loads it instead of the shards of the index, vLLM and SGLang "
                      "load the shards"
                    : "without an index vLLM and SGLang load every *.safetensors of the "
                      "directory, transformers loads the checkpoint alone"));
    }
    return findings;
}

void judge_for(const receiver::EngineContract& contract, core::Finding& finding) {
    const bool transformers =
        contract.intersection || contract.unknown_names == UnknownNames::transformers;
    const bool vllm = contract.intersection || contract.unknown_names == UnknownNames::vllm;
    const bool sglang = contract.unknown_names == UnknownNames::sglang;
    const std::string& measured = finding.measured;
    if (finding.limit == kInstead && transformers) {
        finding.severity = core::Severity::error;
        finding.engine_behaviour = measured == kUnreadable ? "raises" : "silently_wrong";
        return;
    }
    if (finding.limit != kBeside) return;
    if (measured == kDiffers && (vllm || sglang)) {
        finding.severity = core::Severity::error;
        finding.engine_behaviour = "silently_wrong";
    } else if ((measured == kMore && vllm) || (measured == kUnreadable && (vllm || sglang))) {
        finding.severity = core::Severity::error;
        finding.engine_behaviour = "raises";
    }
}

}  // namespace refit::harness
