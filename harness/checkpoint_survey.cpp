// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/checkpoint_survey.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <span>
#include <utility>

#include "checks/scale_layout.hpp"
#include "core/error.hpp"
#include "harness/declared_blocks.hpp"
#include "harness/other_files.hpp"
#include "harness/value_finding.hpp"
#include "model/config_text.hpp"
#include "model/hf_config.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::harness {
namespace {

using core::DType;
using core::Finding;
using core::Severity;
using nlohmann::json;

constexpr const char* kHead = "lm_head.weight";
constexpr const char* kEmbedding = "model.embed_tokens.weight";

std::string text_of_file(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    if (!in) throw core::FileError(path.string() + ": cannot be read; check its permissions");
    return text;
}

std::optional<std::string> quantization_config_of(const std::filesystem::path& directory,
                                                  const model::ModelConfig& model) {
    if (model.quantization_config) return model.quantization_config;
    // Older llm-compressor wrote the same object under this key, and the engines still read it.
    // Engines try the groups of a config in the order of the file.
    using OrderedJson = nlohmann::ordered_json;
    const std::filesystem::path config = directory / "config.json";
    const std::string standard = model::standard_json(config.string(), text_of_file(config));
    const auto root = OrderedJson::parse(standard, nullptr, false);
    if (root.is_object() && root.contains("compression_config") &&
        root["compression_config"].is_object()) {
        return root["compression_config"].dump(-1, ' ', false,
                                               OrderedJson::error_handler_t::replace);
    }
    const std::filesystem::path beside = directory / "hf_quant_config.json";
    std::error_code error;
    if (!std::filesystem::exists(beside, error)) return std::nullopt;
    const std::string text = text_of_file(beside);
    if (!json::parse(text, nullptr, false).is_object()) {
        throw core::FileError(beside.string() + ": is not a JSON object; write or fetch it anew");
    }
    return text;
}

using Location = weights::CheckpointDirectory::Location;

bool is_alike(const Location& a, const Location& b) {
    return a.tensor->dtype == b.tensor->dtype && a.tensor->shape == b.tensor->shape;
}

model::ModelConfig config_in(const std::filesystem::path& directory) {
    const std::filesystem::path path = directory / "config.json";
    std::error_code error;
    if (!std::filesystem::exists(path, error)) {
        throw core::FileError(path.string() +
                              ": is missing; it says which tensors the model has and how they "
                              "are quantized: fetch it");
    }
    return model::read_hf_config(path);
}

}  // namespace

CheckpointSurvey::CheckpointSurvey(const std::filesystem::path& directory)
    : files_(directory, weights::IndexRule::reported),
      model_(weights::config_of_checkpoint(config_in(directory), files_)),
      config_(quantization_config_of(directory, model_)),
      blocks_(config_ ? declared_blocks(*config_) : std::vector<checks::BlockSize>()),
      names_(files_.names()) {
    for (const std::string& name : names_) {
        bytes_ += files_.find(name).tensor->bytes;
        tensors_ += checks::is_scale_name(name) ? 0 : 1;
    }
}

wire::RefitManifest CheckpointSurvey::manifest() const {
    wire::RefitManifest manifest;
    for (const std::string& name : names_) {
        const weights::StoredTensor& stored = *files_.find(name).tensor;
        wire::ParameterMeta meta;
        meta.name = name;
        meta.dtype = stored.dtype;
        meta.shape = stored.shape;
        meta.scale_of = checks::weight_of_scale(name);
        if (!meta.scale_of.empty()) {
            meta.kind = wire::ParameterKind::scale;
        } else if (stored.dtype == DType::f8_e4m3) {
            meta.kind = wire::ParameterKind::codes;
        }
        manifest.parameters.push_back(std::move(meta));
    }
    return manifest;
}

core::Findings CheckpointSurvey::judge_values(const Progress& progress) const {
    core::Findings findings;
    for (const auto& problem : files_.index_problems()) {
        Finding finding;
        finding.check = "names";
        finding.tensor = problem.tensor;
        // Engines read the files, not the index: what is missing in a file is missing, what the
        // index does not list is loaded all the same.
        finding.severity =
            files_.find(problem.tensor).tensor == nullptr ? Severity::error : Severity::warning;
        finding.measured = problem.found;
        finding.limit = problem.expected;
        finding.remedy = "fetch index and shards from one revision";
        finding.message = problem.tensor + ": is " + problem.found + "; " + finding.remedy;
        findings.push_back(std::move(finding));
    }
    judge_files(findings);
    core::Findings others = judge_other_files(files_);
    std::move(others.begin(), others.end(), std::back_inserter(findings));
    for (const std::string& name : names_) judge_one(name, progress, findings);
    judge_tied_head(findings);
    return findings;
}

/// What holds of files, not of values: no index, and tensors that are stored twice.
void CheckpointSurvey::judge_files(core::Findings& findings) const {
    if (files_.lacks_index()) {
        Finding finding;
        finding.check = "names";
        finding.severity = Severity::warning;
        finding.tensor = kIndex;
        finding.measured = "absent";
        finding.limit = "an index of the " + std::to_string(files_.file_count()) + " shards";
        finding.engine_behaviour = "ignored";
        finding.remedy = "fetch it, or write the checkpoint anew";
        finding.message = std::string(kIndex) +
                          ": is missing; vLLM and SGLang read every shard in the directory, "
                          "transformers finds none; " +
                          finding.remedy;
        findings.push_back(std::move(finding));
    }
    for (const auto& [kept, other] : files_.duplicates()) {
        const bool equal = weights::same_bytes(kept, other);
        Finding finding;
        finding.check = "names";
        finding.severity = equal ? Severity::warning : Severity::error;
        finding.tensor = kept.tensor->name;
        finding.measured = "in " + kept.file->path().filename().string() + " and in " +
                           other.file->path().filename().string();
        finding.limit = "in one file";
        finding.engine_behaviour = equal ? "ignored" : "silently_wrong";
        finding.remedy = "leave out one of the two";
        finding.message = finding.tensor + ": is " + finding.measured + ", " +
                          (equal ? "with the same bytes"
                                 : "and they differ: engines load both, and the one that happens "
                                   "to come last stays") +
                          "; " + finding.remedy;
        findings.push_back(std::move(finding));
    }
}

void CheckpointSurvey::judge_one(const std::string& name, const Progress& progress,
                                 core::Findings& findings) const {
    const auto at = files_.find(name);
    const weights::StoredTensor& stored = *at.tensor;
    const bool is_scale = checks::is_scale_name(name);
    const auto kind = is_scale ? checks::ValueKind::scale : checks::ValueKind::plain;
    const std::span<const std::byte> bytes = at.file->bytes(stored);
    const auto width = static_cast<std::size_t>(core::size_bytes(stored.dtype));
    checks::ValueCounts counts;
    for (std::size_t begin = 0; begin < bytes.size(); begin += kScanBytes) {
        const std::size_t size = std::min(kScanBytes, bytes.size() - begin);
        // Types of less than a byte have no values to look for, and no width.
        checks::scan_values(stored.dtype, kind, bytes.subspan(begin, size),
                            static_cast<std::int64_t>(begin / std::max<std::size_t>(width, 1)),
                            counts);
        at.file->release(stored, begin, begin + size);
        progress(size);
    }
    if (counts.nonfinite() > 0) {
        const bool code = stored.dtype == DType::f8_e4m3;
        const std::string value = shown(counts.first_nonfinite_value);
        const std::vector<std::int64_t> index = index_in(stored.shape, counts.first_nonfinite);
        std::string what = std::to_string(counts.nonfinite()) + " of " +
                           std::to_string(core::element_count(stored.shape)) +
                           (code ? " codes are NaN (0x7F or 0xFF)" : " values are NaN or Inf") +
                           ", the first at " + core::to_string(index);
        findings.push_back(
            value_finding(name, index, value, "finite", what,
                          code ? "clamp to +-448 before the cast, and look for NaN in the source"
                               : "quantize or save it anew from finite weights"));
    }
    if (is_scale && counts.nonpositive() > 0) judge_scale(name, counts, findings);
    if (is_scale && counts.extreme > 0) judge_range(name, counts, findings);
}

/// Which of the two an engine uses is its own rule; see receiver/tied_head.hpp.
void CheckpointSurvey::judge_tied_head(core::Findings& findings) const {
    const auto head = files_.find(kHead);
    const auto embedding = files_.find(kEmbedding);
    if (!model_.tied_embeddings || head.tensor == nullptr || embedding.tensor == nullptr) return;
    if (weights::same_bytes(head, embedding)) return;
    const bool alike = is_alike(head, embedding);
    Finding finding;
    finding.check = kTiedPair;
    finding.severity = Severity::warning;
    finding.tensor = kHead;
    finding.measured = alike ? "other bytes" : "another dtype or shape";
    finding.limit = std::string("the bytes of ") + kEmbedding;
    finding.remedy = "leave it out, or set tie_word_embeddings to false if it is meant";
    finding.message = std::string(kHead) +
                      ": differs from the embedding that config.json ties it to, and some engines "
                      "use the stored head, others the embedding; " +
                      finding.remedy;
    findings.push_back(std::move(finding));
}

}  // namespace refit::harness
