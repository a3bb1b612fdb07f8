// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// RunRecord: everything needed to trust or repeat the answer.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/finding.hpp"

namespace refit::record {

/// Stage names in the order of the refit. `source` is outside the wall. `staging`, of trainers
/// whose backend has memory of its own, is inside and taken out of gather, quantize and pack.
inline constexpr const char* kStages[] = {"gather", "quantize", "pack",  "broadcast",
                                          "check",  "load",     "commit"};

struct RankRow {
    int rank = 0;
    std::string host;
    std::string role;  ///< "trainer 0", "receiver 0.1" (engine.tp rank)
    std::int64_t pid = 0;
    std::string device;  ///< cpu list or gpu
};

/// [iteration][rank] seconds; NaN where a rank has no part.
using Samples = std::vector<std::vector<double>>;

struct TensorRow {
    std::string name;
    std::string role;
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t bytes = 0;  ///< on the wire, scale included
    std::string recipe;      ///< "" for raw tensors
    double sqnr_db = 0.0;    ///< NaN for raw tensors
    double expected_sqnr_db =
        0.0;  ///< of an independent double-precision quantization; NaN for raw tensors
    double max_error_over_bound = 0.0;
    std::int64_t saturated = 0;
    std::int64_t flushed = 0;
    std::int64_t exact = 0;       ///< elements that came back as they were
    std::int64_t subnormal = 0;   ///< codes; 0 for raw tensors
    double relative_error = 0.0;  ///< ||d - x|| / ||x||, NaN for raw tensors
    double cosine = 0.0;          ///< <x, d> / (||x|| ||d||), NaN for raw tensors
    double output_snr_db = 0.0;   ///< of y = x * W^T; NaN where layer_output did not compute it
    double expected_output_snr_db = 0.0;  ///< of an independent quantization
    std::string
        digest;  ///< XXH3-128 of the loaded tensor's bytes in its global row-major form, hex
};

/// One bucket of the last iteration on one rank: seconds since the start of the refit, NaN where a
/// rank has no part.
struct BucketRow {
    std::int64_t index = 0;
    int rank = 0;
    std::int64_t bytes = 0;
    std::map<std::string, std::pair<double, double>> stage;  ///< stage name -> start, end
};

struct CaseRecord {
    std::string scenario, purpose, case_name, model, scheme, recipe, engine, transport, backend;
    int tp = 1;
    int engines = 1;
    std::string outcome;  ///< pass | fail | expected_finding | expected_error | unexpected_pass |
                          ///< error | skipped
    std::string skip_reason;
    std::int64_t tensors = 0;
    std::int64_t bytes_bf16 = 0;
    std::int64_t bytes_wire = 0;
    std::int64_t iterations = 0;
    std::map<std::string, Samples>
        samples;  ///< by stage, and "wall"; also "source" and "staging" where they apply
    double audit_s = 0.0;
    double cpu_s_sum = 0.0;  ///< summed over ranks, waiting excluded, median iteration
    int cores = 0;
    std::optional<double> link_bytes_per_s;
    bool link_emulated = false;
    double floor_wall_s = 0.0;
    std::string floor_formula;
    std::int64_t peak_rss_max_bytes = 0;
    std::int64_t peak_rss_sum_bytes = 0;
    std::optional<double> sqnr_db;  ///< nullopt for bf16
    double max_error_over_bound = 0.0;
    std::int64_t saturated = 0;
    std::int64_t flushed = 0;
    std::int64_t exact = 0;               ///< of quantized elements
    std::int64_t subnormal = 0;           ///< codes
    std::optional<double> output_snr_db;  ///< nullopt where layer_output computed nothing
    std::optional<double> expected_output_snr_db;
    std::vector<std::int64_t> code_histogram;  ///< [256] loaded codes; empty where there are none
    /// Loaded scales: lower edge of the bin as log2(scale), and their number, ascending; bins that
    /// are empty are left out. `scale_bin_width` is the width of every bin in log2(scale).
    std::vector<std::pair<double, std::int64_t>> scale_histogram;
    double scale_bin_width = 0.0;
    std::vector<TensorRow> tensor_rows;
    std::vector<BucketRow> bucket_rows;
    core::Findings findings;
    /// Further attributes. Keys with a meaning to the reports: "remark" (printed beside the case),
    /// "error_message" (of a case with outcome error), "checks" and "checks_not_applicable" (names,
    /// comma-separated: which checks were asked, and which of them had nothing to look at); all
    /// others are kept as they are.
    std::map<std::string, std::string> notes;
};

struct Ceiling {
    std::string name;  ///< "memory_copy", "transport"
    double value = 0.0;
    std::string unit;  ///< "B/s"
    std::string how;
};

struct RunRecord {
    std::string created_utc;  ///< ISO 8601 with microseconds and Z
    std::vector<std::string> argv;
    std::string scenario_text;
    std::string verdict;  ///< pass | fail | error | skipped
    int exit_code = 0;
    std::optional<int> error_rank;
    std::string error_stage;
    std::string error_message;
    std::map<std::string, std::string> environment;
    std::vector<RankRow> ranks;
    int trainers = 0;
    int receivers = 0;
    std::vector<Ceiling> ceilings;
    std::vector<CaseRecord> cases;
};

// Derived metrics: each formula once, stored beside its number.

/// Seconds. NaN in all three where no iteration was measured.
struct WallSummary {
    double median = 0.0, min = 0.0, max = 0.0;
    std::vector<double> samples;  ///< by iteration, maximum over ranks
};
/// Of samples["wall"]; an iteration without any rank's number is left out.
[[nodiscard]] WallSummary wall_of(const CaseRecord& record);
struct StageSummary {
    double median_s = 0.0;  ///< over iterations, of the maximum over ranks
    int slowest_rank = -1;  ///< largest median over iterations; the lowest of equals
};
/// By stage, "source" included and "wall" not; stages in which no rank has a part are absent.
[[nodiscard]] std::map<std::string, StageSummary> stages_of(const CaseRecord& record);
/// bytes_wire / median wall; NaN where nothing was measured.
[[nodiscard]] double algbw_bytes_per_s(const CaseRecord& record);
/// bytes_wire / bytes_bf16; NaN where the latter is 0.
[[nodiscard]] double byte_ratio(const CaseRecord& record);

/// The run's verdict over its cases: "error" as soon as one is; "fail" for a case that failed or
/// passed unexpectedly; "pass" when at least one ran, as expected findings and errors pass; else
/// "skipped".
[[nodiscard]] std::string verdict_of(const std::vector<CaseRecord>& cases);

}  // namespace refit::record
