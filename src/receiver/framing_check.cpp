// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/framing_check.hpp"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "receiver/engine_finding.hpp"
#include "wire/packing.hpp"
#include "wire/piece.hpp"

namespace refit::receiver {
namespace {

/// One tensor of a message as the sender laid it out.
struct SentRange {
    std::size_t parameter = 0;
    std::uint64_t offset = 0;  ///< from the first byte of the message of the original
};
using SentBucket = std::vector<SentRange>;

class FramingChecker {
 public:
    FramingChecker(const wire::RefitManifest& manifest, const ContractInstance& instance,
                   wire::Framing framing, std::uint64_t own_buffer_bytes)
        : manifest_(manifest),
          instance_(instance),
          row_(wire::framing_row(framing)),
          own_buffer_bytes_(own_buffer_bytes) {
        for (const wire::BucketPlan& bucket : manifest.buckets) {
            SentBucket& sent = sent_.emplace_back();
            const wire::PiecePlan& piece = bucket.pieces.front();
            const std::uint64_t base =
                wire::entries_offset(wire::digest_count(manifest, piece.entries));
            for (const wire::PieceEntry& entry : piece.entries)
                sent.push_back({entry.parameter, entry.offset - base});
        }
    }

    core::Findings run() {
        if (row_.refuses_scalars) find_scalars();
        if (row_.views_bytes) find_misaligned();
        if (row_.recomputed) compare_boundaries();
        if (instance_.engine.starts_with("sglang")) find_split_pairs();
        return std::move(findings_);
    }

 private:
    void add(const std::string& check, const std::string& tensor, const std::string& measured,
             const std::string& limit, const std::string& behaviour,
             const std::string& engine_message, const std::string& message,
             const std::string& remedy) {
        findings_.push_back(engine_finding(check, tensor, measured, limit, behaviour,
                                           engine_message, message, remedy));
    }

    void find_scalars() {
        for (const wire::ParameterMeta& meta : manifest_.parameters) {
            if (!meta.shape.empty()) continue;
            const std::string text = wire::scalar_view_text(meta.dtype);
            if (text.empty()) continue;
            add("shape_contract", meta.name, "[] (0-D)", "[1] (1-D)", "raises", text,
                "has no dimension, and the sender of framing " + row_.name +
                    " views every tensor as bytes",
                "send it as a tensor of one element, (1,)");
        }
    }

    void find_misaligned() {
        for (std::size_t b = 0; b < sent_.size(); ++b) {
            for (const SentRange& range : sent_[b]) {
                const wire::ParameterMeta& meta = manifest_.parameters[range.parameter];
                const std::string text = wire::misaligned_view_text(meta.dtype, range.offset);
                if (text.empty()) continue;
                const std::string size = std::to_string(core::size_bytes(meta.dtype));
                add("shape_contract", meta.name,
                    "byte " + std::to_string(range.offset) + " of message " + std::to_string(b),
                    "a multiple of " + size, "raises", text,
                    "begins at byte " + std::to_string(range.offset) + " of message " +
                        std::to_string(b) + ", which its element size of " + size +
                        " bytes does not divide; framing " + row_.name + " neither pads nor aligns",
                    "order the tensors by element size, largest first, or keep every byte count "
                    "divisible by 4");
            }
        }
    }

    [[nodiscard]] static std::uint64_t bytes_of(const wire::RefitManifest& manifest,
                                                const SentBucket& bucket) {
        std::uint64_t bytes = 0;
        for (const SentRange& range : bucket) {
            const wire::ParameterMeta& meta = manifest.parameters[range.parameter];
            bytes += static_cast<std::uint64_t>(meta.rows() * meta.row_bytes());
        }
        return bytes;
    }

    void compare_boundaries() {
        const std::vector<wire::FramedBucket> own = wire::frame(
            row_.framing, wire::framed_tensors(manifest_.parameters), own_buffer_bytes_);
        const std::size_t most = std::max(own.size(), sent_.size());
        for (std::size_t b = 0; b < most; ++b) {
            const std::uint64_t sent = b < sent_.size() ? bytes_of(manifest_, sent_[b]) : 0;
            const std::uint64_t expected = b < own.size() ? own[b].bytes : 0;
            const bool same =
                b < own.size() && b < sent_.size() &&
                std::equal(own[b].ranges.begin(), own[b].ranges.end(), sent_[b].begin(),
                           sent_[b].end(), [](const wire::FramedRange& a, const SentRange& c) {
                               return a.tensor == c.parameter && a.offset == c.offset;
                           });
            if (same) continue;
            // Both lists are the same tensors in the same order: the shorter message ends first.
            const std::size_t ends = std::min(b < sent_.size() ? sent_[b].size() : 0,
                                              b < own.size() ? own[b].ranges.size() : 0);
            const std::size_t first = b >= sent_.size()        ? own[b].ranges.front().tensor
                                      : ends < sent_[b].size() ? sent_[b][ends].parameter
                                                               : own[b].ranges[ends].tensor;
            add("shape_contract", manifest_.parameters[first].name,
                "message " + std::to_string(b) + " of " + std::to_string(sent) + " bytes",
                std::to_string(expected) + " bytes", "", "",
                "message " + std::to_string(b) + " has " + std::to_string(sent) +
                    " bytes, this receiver computes " + std::to_string(expected) +
                    " with a buffer of " + std::to_string(own_buffer_bytes_) +
                    "; this tensor is the first on the other side of the boundary. A broadcast of "
                    "unequal sizes hangs or mixes tensors, and nothing reports it",
                row_.framing == wire::Framing::nemo_packed
                    ? "use devices of one memory size on both sides and leave the sender's buffer "
                      "size alone"
                    : "configure the same packed_buffer_size_bytes on both sides");
            return;
        }
    }

    /// SGLang concatenates the two projections through a cache that lives for one load_weights
    /// call; a call that has one of them loads neither.
    void find_split_pairs() {
        std::map<std::string, std::size_t> message_of;
        for (std::size_t b = 0; b < sent_.size(); ++b) {
            for (const SentRange& range : sent_[b])
                message_of[manifest_.parameters[range.parameter].name] = b;
        }
        constexpr std::string_view kFirst = ".q_a_proj.";
        for (const auto& [name, message] : message_of) {
            const std::size_t at = name.find(kFirst);
            if (at == std::string::npos) continue;
            const std::string partner =
                name.substr(0, at) + ".kv_a_proj_with_mqa." + name.substr(at + kFirst.size());
            const auto found = message_of.find(partner);
            if (found == message_of.end() || found->second == message) continue;
            const std::string other = "request " + std::to_string(found->second);
            add("completeness", name, "request " + std::to_string(message),
                "the request of " + partner, "silently_wrong", "",
                "travels in request " + std::to_string(message) + " and its partner " + partner +
                    " in " + other + "; " + instance_.engine +
                    " joins the two within one load_weights call and loads neither otherwise, "
                    "without a word",
                "keep both in one request: raise transport.bucket_bytes, or have the sender hold "
                "the pair together");
        }
    }

    const wire::RefitManifest& manifest_;
    const ContractInstance& instance_;
    const wire::FramingRow& row_;
    std::uint64_t own_buffer_bytes_;
    std::vector<SentBucket> sent_;
    core::Findings findings_;
};

}  // namespace

core::Findings check_framing(const wire::RefitManifest& manifest, const ContractInstance& instance,
                             wire::Framing framing, std::uint64_t own_buffer_bytes) {
    if (framing == wire::Framing::native) return {};
    return FramingChecker(manifest, instance, framing, own_buffer_bytes).run();
}

void add_unnoticed_by_engine(core::Findings& findings, wire::Framing framing) {
    if (framing == wire::Framing::native) return;
    for (core::Finding& finding : findings) {
        if (finding.check != "digest" && finding.check != "version") continue;
        finding.engine_behaviour = "silently_wrong";
        finding.message += "; framing " + wire::framing_row(framing).name +
                           " carries no digest, version or end marker, so the engine would not "
                           "notice";
    }
}

std::int64_t count_prequantized_marks(const wire::RefitManifest& manifest) {
    return std::count_if(
        manifest.parameters.begin(), manifest.parameters.end(),
        [](const wire::ParameterMeta& meta) { return meta.name.ends_with("_scale_inv"); });
}

}  // namespace refit::receiver
