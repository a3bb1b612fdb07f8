// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The audit: what was loaded against the source, outside the wall.
//
// Rank-local and pure: each receiver audits the part it holds; the sums and findings are merged
// over ranks afterwards.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/finding.hpp"
#include "model/tensor_spec.hpp"
#include "receiver/weight_loader.hpp"
#include "weights/weight_source.hpp"
#include "wire/checksum.hpp"

namespace refit::checks {

/// What the checks need to know of the arithmetic, stated apart from the recipe's code.
struct SchemeFacts {
    std::int64_t tile_rows = 0;  ///< 128 block, 1 channel, 0 = whole tensor
    std::int64_t tile_cols = 0;  ///< 128 block, 0 = whole row / tensor
    bool power_of_two_scales = false;
    bool pad_last_element = false;  ///< ragged tiles also count W[rows-1, cols-1] into their amax
    double scale_floor = 0.0;  ///< smallest scale the recipe gives to a tile that is not all zero
    /// The recipe divides by s rounded to BF16 and stores s; only with round_quotient_to_bf16.
    bool divide_by_bf16_scale = false;
    /// The recipe rounds x / s to BF16 before the cast: a second rounding, which the expected error
    /// has too.
    bool round_quotient_to_bf16 = false;
    /// The bound of a legal element: |d - x| <= max(|x| / 17, s / 1024) * (1 + slack), s from the
    /// source's own amax.
    double slack = 1.0 / 65536.0;
    std::uint64_t activation_seed = 0;  ///< of the activations that layer_output multiplies with
};

/// Sums over the outputs y = x * W^T that layer_output computed; additive over disjoint parts.
struct OutputSums {
    std::int64_t outputs = 0;      ///< elements of y: rows times tokens
    double y2 = 0.0;               ///< of the source's weights and plain activations
    double error2 = 0.0;           ///< of the loaded weights and quantized activations
    double expected_error2 = 0.0;  ///< of an independent quantization and the same activations
};

/// Counters and sums of one tensor's part on one rank; additive over disjoint parts.
struct TensorAudit {
    std::string tensor;  ///< Hugging Face name of the weight
    bool quantized = false;
    std::int64_t elements = 0;
    double sum_x2 = 0.0;      ///< of quantized tensors; raw ones leave it at 0
    double sum_error2 = 0.0;  ///< (x - d)^2 of what was loaded
    double sum_expected_error2 =
        0.0;  ///< the same for an independent double-precision quantization of the same data
    double max_error_over_bound = 0.0;  ///< +inf where what was loaded is NaN
    std::int64_t saturated =
        0;  ///< codes +-448 where |x| / s > 448 by more than rounding, s as loaded
    std::int64_t flushed = 0;  ///< code 0 where x is not 0
    std::int64_t exact = 0;
    std::int64_t mismatched =
        0;  ///< raw tensors: elements whose bits differ; codes: elements beyond the bound
    double sum_x_error = 0.0;  ///< x * (d - x), of quantized tensors
    /// [256] how often each code was loaded, whatever the source holds; empty for raw tensors.
    std::vector<std::int64_t> codes;
    std::string scale;  ///< wire name of the scale; empty for raw tensors
    /// Loaded scales by floor(kScaleBinsPerOctave * log2(scale)); those that are not finite and
    /// positive are not in it.
    std::map<int, std::int64_t> scales;
    OutputSums output;  ///< of the check layer_output
};

/// Bins of the histogram of scales from one power of two to the next.
inline constexpr int kScaleBinsPerOctave = 8;

/// Digest of one loaded part, for byte identity: equal keys on different ranks must have equal
/// digests.
struct PartDigest {
    std::string
        key;  ///< "<wire name>|<row>,<col>,<rows>,<cols>": global region of the wanted parameter
    wire::Digest digest;
};

struct AuditResult {
    std::vector<TensorAudit> tensors;  ///< in model order, those this rank holds a part of
    std::vector<PartDigest> digests;
    core::Findings findings;  ///< round_trip, completeness (poison left), nonfinite
};

/// Where scales of the KV cache come from.
struct CacheTruth {
    const std::vector<model::TensorSpec>& calibrations;
    const weights::WeightSource& source;
};

/// Walks every span of the loader's visible copy.
///   completeness : no poison left (0xFF bytes of codes and BF16 where the source is not that NaN
///   itself, -FLT_MAX scales) nonfinite    : NaN or Inf in source, scale or code; scale <= 0
///   round_trip   : every raw element bit-equal to the source; every quantized one within the legal
///   error; NaN-safe
///   layer_output : gives no finding here; its sums are compared when they are merged
/// Only the checks named in `enabled` give findings: one a tensor and cause, the first index and
/// the count stand in the message. An element with several faults counts for the first enabled
/// check in the order above, and an element whose scale is reported is not reported again. Elements
/// are decoded as the engine's kernel would (fused geometry). Elements whose source is not finite
/// enter neither sums nor counters. `on_progress` is called at least once per few MiB. Throws
/// ShapeError where the instance contradicts itself or names a tensor that is not in `tensors`;
/// passes on what the source throws.
[[nodiscard]] AuditResult audit_loaded(const receiver::WeightLoader& loader,
                                       const std::vector<model::TensorSpec>& tensors,
                                       const weights::WeightSource& source,
                                       const SchemeFacts& facts,
                                       const std::set<std::string>& enabled, int rank,
                                       const std::function<void()>& on_progress);

/// The same for a copy that no loader holds. `cache`: null only for an instance that wants no
/// scales of the KV cache (cache_scale_audit.hpp).
[[nodiscard]] AuditResult audit_parameters(const receiver::ContractInstance& instance, int tp_rank,
                                           const receiver::LoadedParameters& loaded,
                                           const std::vector<model::TensorSpec>& tensors,
                                           const weights::WeightSource& source,
                                           const SchemeFacts& facts,
                                           const std::set<std::string>& enabled, int rank,
                                           const std::function<void()>& on_progress,
                                           const CacheTruth* cache = nullptr);

/// What one rank of an engine found.
struct RankAudit {
    int rank = 0;
    AuditResult result;
};
/// What ranks found, each cause once: ranks that hold parts or copies of a tensor find the same,
/// and the lowest of them speaks. A cause is check, tensor and remedy; a rank that finds one twice
/// says it twice.
[[nodiscard]] core::Findings first_of_each_cause(const std::vector<RankAudit>& ranks);

/// Merges over the ranks of one engine. A rank whose parts of a tensor (keys of its digests) are
/// all held by lower ranks adds nothing to that tensor's sums. `findings` are those of the ranks,
/// the first of each cause, then those of sqnr: |measured - expected| > 0.05 dB per tensor, too
/// good fails too; tensors whose expected error is zero must have none. Then those of
/// layer_output, which compares in the same way (layer_output.hpp).
struct MergedAudit {
    std::vector<TensorAudit> tensors;
    core::Findings findings;
    double pooled_sqnr_db = 0.0;  ///< over all quantized elements; NaN when there are none
    double max_error_over_bound = 0.0;
    std::int64_t saturated = 0;
    std::int64_t flushed = 0;
    std::int64_t exact = 0;              ///< of quantized elements
    std::int64_t subnormal = 0;          ///< codes
    std::vector<std::int64_t> codes;     ///< [256] of all quantized tensors; empty without any
    std::map<int, std::int64_t> scales;  ///< as in TensorAudit
    /// Of layer_output, every tensor weighing alike: -10 log10 of the mean over tensors of
    /// error2 / y2; NaN where nothing was computed.
    double output_snr_db = 0.0;
    double expected_output_snr_db = 0.0;
};
[[nodiscard]] MergedAudit merge_audits(const std::vector<RankAudit>& ranks,
                                       const std::set<std::string>& enabled);

/// 10 * log10(sum_x2 / sum_error2); +inf for no error.
[[nodiscard]] double sqnr_db(double sum_x2, double sum_error2);
/// ||d - x|| / ||x||, Frobenius; NaN where the source is zero.
[[nodiscard]] double relative_error(const TensorAudit& tensor);
/// Cosine of the angle between source and loaded values, <x, d> / (||x|| ||d||); NaN where one of
/// them is zero. From the sums: <x, d> = S + X and ||d||^2 = S + 2 X + E, with S = sum_x2,
/// X = sum_x_error, E = sum_error2.
[[nodiscard]] double cosine(const TensorAudit& tensor);
/// Codes that are subnormal numbers of E4M3: magnitude codes 1 to 7.
[[nodiscard]] std::int64_t subnormal_codes(const TensorAudit& tensor);

/// byte_identity: equal keys, equal digests, over all ranks of all engines. One finding a key;
/// names both ranks.
[[nodiscard]] core::Findings check_byte_identity(const std::vector<RankAudit>& ranks);

/// version: every receiver shows `expected`, none torn. ranks, versions and torn in step.
[[nodiscard]] core::Findings check_versions(std::uint64_t expected, const std::vector<int>& ranks,
                                            const std::vector<std::uint64_t>& versions,
                                            const std::vector<bool>& torn);

/// source_unchanged: digests of each trainer's resident shards before and after; one finding a
/// tensor.
struct SourceDigest {
    std::string tensor;
    int rank = 0;
    wire::Digest before;
    wire::Digest after;
};
[[nodiscard]] core::Findings check_source_unchanged(const std::vector<SourceDigest>& digests);

/// For sending results between ranks; doubles survive exactly, NaN and infinities included.
[[nodiscard]] std::string to_json(const AuditResult& result);
/// Throws Error when the text is not what to_json writes.
[[nodiscard]] AuditResult audit_from_json(const std::string& text);

}  // namespace refit::checks
