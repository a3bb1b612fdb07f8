// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A record with chosen numbers: BF16 beside two FP8 cases, one of them with findings, one case
// skipped.
#pragma once

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "record/run_record.hpp"

namespace refit::test {

inline constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Ranks 0 and 1 train, 2 and 3 receive; each stage lasts `seconds` on the slower of its two ranks.
inline record::Samples stage_samples(bool trainer, double seconds, int iterations) {
    record::Samples samples;
    for (int i = 0; i < iterations; ++i) {
        const double value = seconds * (1.0 + 0.02 * i);
        samples.push_back(trainer ? std::vector<double>{0.75 * value, value, kNan, kNan}
                                  : std::vector<double>{kNan, kNan, value, 0.75 * value});
    }
    return samples;
}

inline record::CaseRecord sample_case(const std::string& scheme, const std::string& recipe,
                                      double speed) {
    constexpr int kIterations = 6;
    record::CaseRecord result;
    result.scenario = "bf16_against_fp8";
    result.purpose = "Is an FP8 refit faster than a BF16 one, & by how much, where a < b?";
    result.case_name = "scheme=" + scheme;
    result.model = "tiny-llama";
    result.scheme = scheme;
    result.recipe = recipe;
    result.engine = scheme == "bf16" ? "vllm-bf16" : "vllm-fp8";
    result.transport = "mpi";
    result.backend = "portable";
    result.tp = 2;
    result.outcome = "pass";
    result.tensors = 14;
    result.bytes_bf16 = 4'000'000;
    result.bytes_wire = scheme == "bf16" ? 4'000'000 : 2'100'000;
    result.iterations = kIterations;
    const std::vector<std::pair<const char*, double>> stages = {
        {"gather", 0.010}, {"quantize", scheme == "bf16" ? 0.0 : 0.012},
        {"pack", 0.004},   {"broadcast", 0.020},
        {"check", 0.006},  {"load", 0.016},
        {"commit", 0.002}};
    int position = 0;
    for (const auto& [name, seconds] : stages) {
        const bool trainer = position++ < 4;
        if (seconds > 0.0) {
            result.samples[name] = stage_samples(trainer, seconds * speed, kIterations);
        }
    }
    for (int i = 0; i < kIterations; ++i) {
        const double wall = 0.055 * speed * (1.0 + 0.02 * i);
        result.samples["wall"].push_back({wall, wall, 0.99 * wall, wall});
    }
    result.audit_s = 0.2;
    result.cpu_s_sum = 0.09 * speed;
    result.cores = 2;
    result.floor_wall_s = 0.03 * speed;
    result.floor_formula = "sum over stages of (bytes read + bytes written) / memory_copy";
    result.peak_rss_max_bytes = 40 << 20;
    result.peak_rss_sum_bytes = 120 << 20;

    const char* roles[] = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                           "gate_proj", "up_proj", "down_proj"};
    for (int layer = 0; layer < 2; ++layer) {
        int role_index = 0;
        for (const char* role : roles) {
            record::TensorRow row;
            const bool attention = role_index < 4;
            row.name = "model.layers." + std::to_string(layer) +
                       (attention ? ".self_attn." : ".mlp.") + role + ".weight";
            row.role = role;
            row.rows = 512;
            row.cols = 256;
            row.bytes = scheme == "bf16" ? 2 * 512 * 256 : 512 * 256 + 8 * 4;
            row.recipe = recipe;
            row.sqnr_db = recipe.empty() ? kNan : 31.5 + 0.05 * role_index + 0.02 * layer;
            row.expected_sqnr_db = recipe.empty() ? kNan : 31.5 + 0.05 * role_index;
            row.max_error_over_bound = recipe.empty() ? 0.0 : 0.98;
            row.saturated = 1;
            row.flushed = 2;
            row.exact = recipe.empty() ? 512 * 256 : 100;
            row.subnormal = recipe.empty() ? 0 : 3;
            row.relative_error = recipe.empty() ? kNan : std::pow(10.0, -row.sqnr_db / 20.0);
            row.cosine = recipe.empty() ? kNan : 0.9996;
            row.output_snr_db = recipe.empty() ? kNan : 28.5 + 0.02 * role_index;
            row.expected_output_snr_db = recipe.empty() ? kNan : 28.5;
            row.digest = "0123456789abcdef0123456789abcdef";
            result.tensor_rows.push_back(row);
            ++role_index;
        }
    }
    if (!recipe.empty()) {
        result.sqnr_db = 31.7;
        result.max_error_over_bound = 0.98;
        result.saturated = 14;
        result.flushed = 28;
        result.exact = 1400;
        result.subnormal = 42;
        for (int code = 0; code < 256; ++code) {
            const int magnitude = code % 128;
            result.code_histogram.push_back(magnitude == 127 ? 0 : 1000 - 7 * magnitude);
        }
        result.scale_histogram = {{-13.25, 20}, {-13.125, 60}, {-12.875, 4}};
        result.scale_bin_width = 0.125;
    }
    for (int bucket = 0; bucket < 4; ++bucket) {
        for (int rank = 0; rank < 4; ++rank) {
            record::BucketRow row;
            row.index = bucket;
            row.rank = rank;
            row.bytes = result.bytes_wire / 4;
            double time = 0.010 * speed * bucket;
            int stage_index = 0;
            for (const auto& [name, seconds] : stages) {
                const bool here = (stage_index++ < 4) == (rank < 2);
                const double length = seconds * speed / 4;
                if (here && length > 0.0) row.stage[name] = {time, time + length};
                time += length;
            }
            result.bucket_rows.push_back(row);
        }
    }
    result.notes["checks"] = "shape_contract, digest, nonfinite, source_unchanged";
    result.notes["checks_not_applicable"] = "source_unchanged";
    return result;
}

inline record::RunRecord sample_record() {
    record::RunRecord run;
    run.created_utc = "2026-01-02T03:04:05.678901Z";
    run.argv = {"refitbench", "run", "scenarios/bf16_against_fp8.yaml", "--set", "seed=ü"};
    run.scenario_text = "purpose: Is an FP8 refit faster?\nmodel: tiny-llama\n";
    run.exit_code = 1;
    run.trainers = 2;
    run.receivers = 2;
    for (int rank = 0; rank < 4; ++rank) {
        run.ranks.push_back({rank, "host-a",
                             rank < 2 ? "trainer " + std::to_string(rank)
                                      : "receiver 0." + std::to_string(rank - 2),
                             1000 + rank, "cpu 0-1"});
    }
    run.environment = {{"cpu", "Example CPU"}, {"mpi", "Open MPI 4.1.4"}, {"hostname", "host-a"}};
    run.ceilings = {{"memory_copy", 9.0e9, "B/s", "memcpy of 256 MiB, best of 5"},
                    {"transport", 3.0e9, "B/s", "MPI_Bcast of 64 MiB"}};
    run.cases.push_back(sample_case("bf16", "", 1.0));
    run.cases.push_back(sample_case("fp8_blockwise", "prime-rl-blockwise", 0.7));
    run.cases.back().notes["remark"] = "the weights were once 4-bit";
    run.cases.push_back(sample_case("fp8_channelwise", "prime-rl-channelwise", 0.8));
    record::CaseRecord& failed = run.cases.back();
    failed.outcome = "fail";
    core::Finding finding;
    finding.check = "nonfinite";
    finding.tensor = "model.layers.1.mlp.down_proj.weight";
    finding.index = {3, 7};
    finding.measured = "NaN";
    finding.limit = "finite";
    finding.rank = 1;
    finding.message = "an element of the source is NaN <here>";
    failed.findings.push_back(finding);
    finding.check = "sqnr";
    finding.severity = core::Severity::warning;
    finding.index = {};
    finding.measured = "31.4 dB";
    finding.limit = "31.5 dB ± 0.05 dB";
    finding.message = "the error is a little larger than the scheme's own";
    failed.findings.push_back(finding);
    record::CaseRecord skipped;
    skipped.scenario = "bf16_against_fp8";
    skipped.purpose = failed.purpose;
    skipped.case_name = "backend=cuda";
    skipped.model = "tiny-llama";
    skipped.scheme = "fp8_blockwise";
    skipped.outcome = "skipped";
    skipped.skip_reason = "no CUDA device";
    run.cases.push_back(skipped);
    run.verdict = record::verdict_of(run.cases);
    return run;
}

/// A run that lost rank 2 before anything was measured.
inline record::RunRecord sample_lost_run() {
    record::RunRecord run = sample_record();
    run.cases.resize(1);
    run.cases[0].outcome = "error";
    run.cases[0].notes["error_message"] = "rank 2 ended by signal 9";
    run.cases[0].samples.clear();
    run.cases[0].tensor_rows.clear();
    run.cases[0].bucket_rows.clear();
    run.ceilings.clear();
    run.verdict = "error";
    run.exit_code = 3;
    run.error_rank = 2;
    run.error_stage = "broadcast";
    run.error_message = "rank 2 ended by signal 9";
    return run;
}

}  // namespace refit::test
