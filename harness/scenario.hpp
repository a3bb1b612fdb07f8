// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A scenario: the question asked, as one YAML file, expanded into cases.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "weights/synthetic_weights.hpp"

namespace refit::harness {

enum class Resident { automatic, yes, no };

/// One planted fault; which fields matter depends on the name (see fault_catalog).
struct FaultSpec {
    std::string name;
    std::string tensor;  ///< glob
    int rank = -1;       ///< world rank
    int receiver = 0;    ///< index among the receivers
    std::string stage;   ///< of kill and stop: gather ... commit
    std::int64_t bucket = 0;
    std::int64_t iteration = 0;
    std::string value;  ///< of cache_scale_value: zero | negative | nan | inf
};

struct Expectation {
    std::string outcome = "pass";  ///< pass | finding | error
    std::string check;             ///< of a finding; "" = any
    std::string tensor;            ///< glob; "" = any
};

/// All keys of one case with their defaults resolved.
struct Case {
    std::string scenario;  ///< file stem
    std::string purpose;
    std::string
        name;  ///< "payload.recipe=prime-rl-blockwise, transport.name=mpi"; "" for the only case
    std::filesystem::path file;

    // model
    std::string model_name;  ///< catalogue name, or "" with model_config
    std::optional<std::filesystem::path> model_config;
    std::optional<std::int64_t> layers;

    // weights
    std::string weights_source = "synthetic";  ///< synthetic | safetensors
    std::filesystem::path weights_path;
    std::uint64_t seed = 0;
    std::int64_t step = 0;
    Resident resident = Resident::automatic;
    weights::Outliers outliers;
    std::vector<weights::Plant> plants;

    // trainer
    int trainer_ranks = 1;
    std::string layout = "fsdp";
    std::int64_t shard_multiple =
        128;                     ///< trainer.shard_multiple: 1 lets shard boundaries cut tiles
    std::vector<double> shares;  ///< trainer.shares: uneven shards

    // receiver
    std::string engine;
    int engines = 1;
    int tp = 1;
    int ep = 1;
    std::string commit = "staged";
    std::optional<std::string> quantization_config;  ///< JSON text
    std::string algo;
    std::string reload = "none";           ///< none | layerwise | layerwise_per_bucket
    std::string block_kernel = "cutlass";  ///< cutlass | deepgemm: who multiplies block FP8

    // payload
    std::string scheme = "auto";
    std::string recipe;                       ///< "" = the scheme's default
    std::string scale_shape = "contract";     ///< contract | 0d | 1d | 2d
    std::string kv_cache_scales = "none";     ///< none | kv | qkv
    std::string kv_scale_names = "contract";  ///< contract | layer | projection | parameter

    // transport
    std::string transport = "mpi";
    bool transport_given = false;  ///< false: `loopback` for one process
    std::uint64_t bucket_bytes = std::uint64_t{64} << 20;
    bool bucket_bytes_given = false;
    int depth = 2;
    std::string framing = "native";
    /// Device memory of each side, from which the framing nemo-packed takes its buffer sizes.
    std::uint64_t trainer_memory_bytes = std::uint64_t{80} << 30;
    std::uint64_t receiver_memory_bytes = std::uint64_t{80} << 30;
    std::uint64_t link_bytes_per_s = 0;  ///< 0 = none

    std::string backend = "auto";
    std::string wire = "checkpoint";  ///< checkpoint | kernel
    std::string nonfinite = "reject";
    std::vector<std::string> checks;
    int refits = 1;
    int iterations = 5;
    int warmup = 1;
    double timeout_s = 60.0;
    bool pipeline = true;
    std::vector<FaultSpec> faults;
    Expectation expect;
    std::string remark;  ///< printed in the report: "the weights were once 4-bit"

    [[nodiscard]] int world_size() const { return trainer_ranks + engines * tp; }
};

struct Scenario {
    std::filesystem::path file;
    std::string stem;
    std::string text;  ///< verbatim
    std::string purpose;
    std::vector<Case> cases;
};

/// "dotted.key=value" pairs of --set, in order.
using Overrides = std::vector<std::pair<std::string, std::string>>;

struct CaseFilter {
    std::vector<std::string> globs;   ///< --filter: match "stem/case"
    std::optional<int> iterations;    ///< -n
    std::optional<int> warmup;        ///< -w
    std::optional<double> timeout_s;  ///< --timeout
};

/// Parses `text` (the file's content) into cases: unknown and repeated keys, wrong types, unknown
/// names and contradictions are ScenarioErrors that say file, line (from 1), key, what was found
/// and what is allowed (nearest names). --set wins over sweep and cases. Relative paths of the file
/// are relative to it; those of --set to the working directory.
[[nodiscard]] Scenario parse_scenario(const std::filesystem::path& file, const std::string& text,
                                      const Overrides& overrides, const CaseFilter& filter);

/// The scenario files behind FILE arguments: a folder stands for its *.yaml files, recursively,
/// sorted. Throws FileError for a path that does not exist, naming the nearest scenario under
/// scenarios/ where there is one.
[[nodiscard]] std::vector<std::filesystem::path> scenario_files(
    const std::vector<std::filesystem::path>& arguments);

struct FaultRow {
    std::string name;
    std::string what;
    std::string caught_by;            ///< the check that must catch it
    std::vector<std::string> fields;  ///< fields it takes
};
[[nodiscard]] const std::vector<FaultRow>& fault_catalog();

}  // namespace refit::harness
