// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario_case.hpp"

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "checks/check_catalog.hpp"
#include "core/error.hpp"
#include "harness/scenario_format.hpp"
#include "harness/stream_options.hpp"
#include "kernels/backend.hpp"
#include "model/hf_config.hpp"
#include "model/model_catalog.hpp"
#include "quant/recipe.hpp"
#include "receiver/engine_contract.hpp"
#include "wire/framing.hpp"

namespace refit::harness {
namespace {

using Names = std::vector<std::string>;
constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();

// Names of the interface that a catalogue may not have yet: they are refused with another text than
// a slip of the pen.
const Names kPlannedEngines = {"vllm-fp8",         "vllm-compressed-tensors",
                               "vllm-modelopt",    "sglang-fp8",
                               "trtllm-fp8",       "sglang-compressed-tensors",
                               "transformers-fp8", "vllm-bf16",
                               "sglang-bf16",      "strict"};
const Names kPlannedRecipes = {"prime-rl-blockwise",
                               "prime-rl-blockwise-cpu",
                               "prime-rl-channelwise",
                               "prime-rl-channelwise-cpu",
                               "nemo-rl-linear",
                               "nemo-rl-pow2",
                               "nemo-rl-2037-linear",
                               "nemo-rl-2037-pow2",
                               "areal-torch",
                               "verl-torch",
                               "areal-triton",
                               "slime-online",
                               "verl-triton",
                               "areal-megatron",
                               "slime-offline",
                               "slime-offline-cpu",
                               "slime-offline-channel",
                               "slime-offline-channel-cpu",
                               "modelopt-pb-w8a8",
                               "modelopt-pb-w8a8-cpu",
                               "modelopt-pb-wo",
                               "modelopt-pb-wo-cpu",
                               "modelopt-pc-pt",
                               "modelopt-pc-pt-cpu",
                               "deepgemm",
                               "deepgemm-cpu",
                               "deepgemm-ue8m0",
                               "compressed-tensors-channel",
                               "compressed-tensors-channel-cpu",
                               "tensorwise",
                               "tensorwise-cpu",
                               "slime-tensorwise",
                               "slime-tensorwise-cpu",
                               "modelopt-fp8",
                               "modelopt-fp8-cpu",
                               "llm-compressor-channel",
                               "llm-compressor-block",
                               "llm-compressor-tensor",
                               "llm-compressor-mxfp8",
                               "transformers-blockwise",
                               "mxfp8",
                               "mxfp8-ceil"};
const Names kBadValues = {"zero", "negative", "nan", "inf"};
const Names kStages = {"gather", "quantize", "pack", "broadcast", "check", "load", "commit"};

[[noreturn]] void missing(const Case& result, const std::string& key, const std::string& example) {
    throw core::ScenarioError(result.file.string() + ": the required key '" + key +
                              "' is missing; add " + example);
}

constexpr const char* kConfigOfWeights = "weights";

void read_model(const Node* node, Case& result) {
    if (node == nullptr || node->is_none()) missing(result, "model", "'model: qwen3-0.6b'");
    if (node->kind == Node::Kind::scalar) {
        require_name(*node, "model", "model", node->text, model::model_names(), {});
        result.model_name = node->text;
        return;
    }
    const MapReader reader(node, "model", {"name", "config", "layers"});
    result.model_name = reader.name("name", "", "model", model::model_names(), {});
    const std::filesystem::path config = reader.file_path("config", result.file.parent_path());
    if (!config.empty()) result.model_config = config;
    if (result.model_name.empty() == config.empty()) {
        refuse_at(node->where, std::string("model: found ") +
                                   (config.empty() ? "neither" : "both") +
                                   " name and config; expected one of them");
    }
    const Node* layers = reader.get("layers");
    if (layers != nullptr && !layers->is_none())
        result.layers = reader.integer("layers", 1, 1, kMost);
}

/// `config: weights` is the config.json beside the checkpoint, so that one path names both.
void follow_weights(const Node* model_node, Case& result) {
    if (model_node->kind == Node::Kind::scalar) return;
    const MapReader reader(model_node, "model", {"name", "config", "layers"});
    const Node* config = reader.get("config");
    if (config == nullptr || config->text != kConfigOfWeights) return;
    if (result.weights_source != "safetensors") {
        refuse_at(config->where,
                  "model.config: weights means the config.json of a checkpoint, but "
                  "weights.source is synthetic; name a config.json or a model");
    }
    result.model_config = result.weights_path / "config.json";
}

/// The model's figures. An architecture that no row of the catalogue has is "not available yet",
/// not a broken file.
model::ModelConfig load_model(const Node& node, const Case& result) {
    model::ModelConfig config;
    if (!result.model_config) {
        config = model::find_model(result.model_name).config;
    } else {
        try {
            config = model::read_hf_config(*result.model_config);
        } catch (const core::FileError&) {
            std::ifstream in(*result.model_config, std::ios::binary);
            const auto json = nlohmann::json::parse(in, nullptr, false);
            const auto rows =
                json.is_object() ? json.value("architectures", nlohmann::json()) : nlohmann::json();
            if (!rows.is_array() || rows.empty() || !rows[0].is_string()) throw;
            Names known;
            for (const model::CatalogRow& row : model::model_catalog()) {
                const std::string name = model::architecture_name(row.config.architecture);
                if (std::find(known.begin(), known.end(), name) == known.end())
                    known.push_back(name);
            }
            const std::string found = rows[0].get<std::string>();
            if (std::find(known.begin(), known.end(), found) != known.end()) throw;
            refuse_at(node.where, "model.config: the architecture '" + found + "' of " +
                                      result.model_config->string() +
                                      " is not available yet; available: " + joined_names(known));
        }
    }
    if (!result.layers) return config;
    try {
        return model::slice_layers(std::move(config), *result.layers);
    } catch (const core::ScenarioError& error) {
        refuse_at(node.where, error.what());
    }
}

weights::Plant read_plant(const Node& node, const std::string& path) {
    const MapReader reader(&node, path, {"tensor", "kind", "where"});
    weights::Plant plant;
    plant.tensor = reader.string("tensor", "");
    if (plant.tensor.empty())
        refuse(node, path, "a map with 'tensor', a name or a glob such as '*.mlp.*'");
    const Names kinds = {"nan", "inf", "zero", "subnormal", "huge"};
    const std::string kind = reader.name("kind", "", "kind of plant", kinds);
    if (kind.empty()) refuse(node, path, "a map with 'kind', one of " + joined_names(kinds));
    plant.kind = static_cast<weights::PlantKind>(std::find(kinds.begin(), kinds.end(), kind) -
                                                 kinds.begin());
    const MapReader where(reader.get("where"), path + ".where", {"row", "col", "count"});
    plant.row = where.integer("row", -1, 0, kMost);
    plant.col = where.integer("col", -1, 0, kMost);
    plant.count = where.integer("count", 0, 1, kMost);
    if ((plant.row >= 0) == (plant.count > 0) || (plant.col >= 0 && plant.row < 0)) {
        const Node* written = reader.get("where");
        refuse(written == nullptr ? node : *written, path + ".where",
               "{row: 3, col: 7} for a cell, {row: 3} for a row, or {count: 5} for places spread "
               "over the tensor");
    }
    return plant;
}

void read_weights(const Node* node, Case& result) {
    const MapReader reader(node, "weights",
                           {"source", "seed", "step", "resident", "outliers", "plant", "path"});
    result.weights_source =
        reader.name("source", "synthetic", "weights source", {"synthetic", "safetensors"});
    result.weights_path = reader.file_path("path", result.file.parent_path());
    result.seed = reader.unsigned_integer("seed", 0);
    result.step = reader.integer("step", 0, 0, kMost);
    if (result.weights_source == "safetensors" && result.weights_path.empty()) {
        refuse_at(
            place(node, result.file),
            "weights.path is missing; weights.source is safetensors, which needs the folder of the "
            "checkpoint: --set weights.path=DIR");
    }
    const Node* resident = reader.get("resident");
    if (resident != nullptr && !resident->is_none() && flow_text(*resident) != "auto") {
        result.resident = reader.on_off("resident", true) ? Resident::yes : Resident::no;
    }
    const MapReader outliers(reader.get("outliers"), "weights.outliers", {"share", "times"});
    result.outliers.share = outliers.decimal("share", 0.0);
    result.outliers.times = outliers.decimal("times", 20.0);
    if (result.outliers.share < 0.0 || result.outliers.share > 1.0) {
        refuse(*outliers.get("share"), "weights.outliers.share", "a fraction from 0 to 1");
    }
    if (!(result.outliers.times > 0.0))
        refuse(*outliers.get("times"), "weights.outliers.times", "more than 0");
    const std::vector<Node>& plants = reader.list("plant");
    for (std::size_t i = 0; i < plants.size(); ++i) {
        result.plants.push_back(read_plant(plants[i], "weights.plant[" + std::to_string(i) + "]"));
    }
}

void read_trainer(const Node* node, Case& result) {
    const MapReader reader(node, "trainer", {"ranks", "layout", "shard_multiple", "shares"});
    result.trainer_ranks = reader.count("ranks", 1, 1);
    result.layout = reader.name("layout", "fsdp", "trainer layout", {"fsdp", "tp", "ep"});
    result.shard_multiple = reader.integer("shard_multiple", 128, 1, kMost);
    for (const Node& item : reader.list("shares")) {
        const auto share =
            item.kind == Node::Kind::scalar ? parse_decimal(item.text) : std::nullopt;
        if (!share || !(*share > 0.0))
            refuse(item, "trainer.shares", "positive numbers, one a trainer rank");
        result.shares.push_back(*share);
    }
    if (!result.shares.empty() &&
        result.shares.size() != static_cast<std::size_t>(result.trainer_ranks)) {
        refuse(*reader.get("shares"), "trainer.shares",
               std::to_string(result.trainer_ranks) + " numbers, one for each of trainer.ranks");
    }
}

/// The JSON text of a quantization_config written as a map or kept in a file.
std::string read_quantization_config(const Node& node, const MapReader& reader,
                                     const Case& result) {
    if (node.kind == Node::Kind::map) return json_text(node);
    const std::filesystem::path file =
        reader.file_path("quantization_config", result.file.parent_path());
    std::ifstream in(file, std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    const std::string attempt = node.where + ": receiver.quantization_config: " + file.string();
    if (!in || text.empty()) {
        throw core::FileError(attempt +
                              " cannot be read or is empty; expected a JSON file with the config");
    }
    const auto json = nlohmann::json::parse(text, nullptr, false);
    if (!json.is_object())
        throw core::FileError(attempt + " holds no JSON object; expected a quantization_config");
    // A whole config.json is as welcome as the object in it.
    return json.contains("quantization_config") ? json["quantization_config"].dump() : text;
}

WantedFormat read_receiver(const Node* node, Case& result) {
    const MapReader reader(node, "receiver",
                           {"engine", "engines", "tp", "ep", "commit", "quantization_config",
                            "algo", "reload", "block_kernel"});
    result.engine = reader.name("engine", "", "engine", receiver::engine_names(), kPlannedEngines);
    if (result.engine.empty()) missing(result, "receiver.engine", "'receiver: {engine: vllm-fp8}'");
    result.engines = reader.count("engines", 1, 1);
    result.tp = reader.count("tp", 1, 1);
    result.ep = reader.count("ep", 1, 1);
    if (result.ep != 1 && result.ep != result.tp) {
        refuse_at(reader.get("ep")->where,
                  "receiver.ep is " + std::to_string(result.ep) + " at receiver.tp " +
                      std::to_string(result.tp) +
                      "; an engine spreads its experts over all of its ranks or over none: use 1 "
                      "or the TP size");
    }
    result.commit = reader.name("commit", "staged", "way to commit", {"staged", "in_place"});
    result.algo = reader.string("algo", "");
    result.reload = reader.name("reload", "none", "way to reload",
                                {"none", "layerwise", "layerwise_per_bucket"});
    result.block_kernel =
        reader.name("block_kernel", "cutlass", "block kernel", {"cutlass", "deepgemm"});
    WantedFormat wanted;
    wanted.receiver = node;
    wanted.algo = reader.get("algo");
    if (const Node* config = reader.get("quantization_config")) {
        wanted.config_where = config->where;
        if (config->is_none()) {
            wanted.without_config = !config->from_set || config->kind != Node::Kind::map;
        } else if (config->kind == Node::Kind::list) {
            refuse(*config, "receiver.quantization_config", "a map or the path of a JSON file");
        } else {
            wanted.config = read_quantization_config(*config, reader, result);
        }
    }
    return wanted;
}

void read_transport(const Node* node, Case& result) {
    const MapReader reader(node, "transport",
                           {"name", "bucket_bytes", "depth", "framing", "link_bytes_per_s",
                            "trainer_memory_bytes", "receiver_memory_bytes"});
    const std::string name =
        reader.name("name", "", "transport", {"mpi", "mpi_window", "loopback", "nccl", "cuda_ipc"});
    result.transport_given = !name.empty();
    if (result.transport_given) result.transport = name;
    result.bucket_bytes = reader.size_bytes("bucket_bytes", std::uint64_t{64} << 20);
    const Node* bucket_bytes = reader.get("bucket_bytes");
    result.bucket_bytes_given = bucket_bytes != nullptr && !bucket_bytes->is_none();
    result.depth = reader.count("depth", 2, 1, 1024);
    result.framing = reader.name("framing", "native", "framing", wire::framing_names());
    result.trainer_memory_bytes =
        reader.size_bytes("trainer_memory_bytes", result.trainer_memory_bytes);
    result.receiver_memory_bytes =
        reader.size_bytes("receiver_memory_bytes", result.receiver_memory_bytes);
    result.link_bytes_per_s = reader.size_bytes("link_bytes_per_s", 0);
}

void read_checks(const MapReader& reader, Case& result) {
    const Node* node = reader.get("checks");
    if (node == nullptr) {
        for (const checks::CheckRow& row : checks::check_catalog()) {
            if (row.by_default && row.available) result.checks.push_back(row.name);
        }
        return;
    }
    const Names known = checks::check_names();
    if (node->is_empty()) {
        refuse_at(node->where,
                  "checks: the list is empty; a run that checks nothing proves nothing. Leave the "
                  "key out for all checks, or name some of " +
                      joined_names(known));
    }
    std::set<std::string> seen;
    for (const Node& item : reader.list("checks")) {
        if (item.kind != Node::Kind::scalar)
            refuse(item, "checks", "names out of " + joined_names(known));
        require_name(item, "checks", "check", item.text, known, {});
        for (const checks::CheckRow& row : checks::check_catalog()) {
            if (row.name == item.text && !row.available) {
                refuse_at(item.where,
                          "checks: check '" + row.name + "' is not available yet; leave it out");
            }
        }
        if (!seen.insert(item.text).second) refuse(item, "checks", "each check once");
        result.checks.push_back(item.text);
    }
}

void read_fault(const Node& node, const std::string& path, Case& result) {
    Names names;
    for (const FaultRow& row : fault_catalog()) names.push_back(row.name);
    const Node* name = node.find("name");
    if (name == nullptr || name->kind != Node::Kind::scalar) {
        refuse(node, path, "a map with the key 'name'; 'refitbench list faults' prints the names");
    }
    require_name(*name, path + ".name", "fault", name->text, names, {});
    const auto row =
        std::find_if(fault_catalog().begin(), fault_catalog().end(),
                     [&](const FaultRow& candidate) { return candidate.name == name->text; });
    Names keys = row->fields;
    keys.insert(keys.begin(), "name");
    const MapReader reader(&node, path, keys);
    FaultSpec fault;
    fault.name = row->name;
    const bool takes_stage = std::find(keys.begin(), keys.end(), "stage") != keys.end();
    const bool takes_tensor = std::find(keys.begin(), keys.end(), "tensor") != keys.end();
    fault.tensor = reader.string("tensor", "");
    if (takes_tensor && fault.tensor.empty()) {
        refuse(node, path, "the key 'tensor', a name or a glob such as '*.mlp.up_proj.*'");
    }
    fault.rank = reader.count("rank", -1, 0, result.world_size() - 1);
    fault.receiver = reader.count("receiver", 0, 0, result.engines * result.tp - 1);
    fault.stage = reader.name("stage", "", "stage", kStages);
    if (takes_stage && (fault.rank < 0 || fault.stage.empty())) {
        refuse(node, path, "the keys 'rank' and 'stage', one of " + joined_names(kStages));
    }
    const bool takes_value = std::find(keys.begin(), keys.end(), "value") != keys.end();
    fault.value = reader.name("value", "", "value", kBadValues);
    if (takes_value && fault.value.empty())
        refuse(node, path, "the key 'value', one of " + joined_names(kBadValues));
    fault.bucket = reader.integer("bucket", 0, 0, kMost);
    fault.iteration = reader.integer("iteration", 0, 0, kMost);
    if (fault.iteration >= result.iterations) {
        const Node* at = reader.get("iteration");
        refuse_at(place(at == nullptr ? &node : at, result.file),
                  path + ".iteration: " + std::to_string(fault.iteration) +
                      " never comes; the case has " + std::to_string(result.iterations) +
                      " measured iterations, counted from 0");
    }
    result.faults.push_back(std::move(fault));
}

void read_expectation(const Node* node, Case& result) {
    const MapReader reader(node, "expect", {"outcome", "check", "tensor"});
    result.expect.outcome = reader.name("outcome", "pass", "outcome", {"pass", "finding", "error"});
    const Node* check = reader.get("check");
    result.expect.check = reader.name("check", "", "check", checks::check_names());
    result.expect.tensor = reader.string("tensor", "");
    if (result.expect.outcome != "finding" &&
        !(result.expect.check.empty() && result.expect.tensor.empty())) {
        refuse_at(node->where, "expect: check and tensor describe a finding, the outcome is '" +
                                   result.expect.outcome +
                                   "'; write outcome: finding or leave them out");
    }
    if (!result.expect.check.empty() && std::find(result.checks.begin(), result.checks.end(),
                                                  result.expect.check) == result.checks.end()) {
        refuse(*check, "expect.check",
               "one of the checks that this case runs: " + joined_names(result.checks));
    }
}

Names backend_names() {
    Names names = {"auto"};
    for (const std::string& name : kernels::backend_names()) names.push_back(name);
    return names;
}

}  // namespace

Case read_case(const Node& root, const std::filesystem::path& file) {
    const MapReader reader(
        &root, "",
        {"purpose",   "model",    "weights",   "trainer", "receiver", "payload",    "transport",
         "backend",   "wire",     "nonfinite", "checks",  "refits",   "iterations", "warmup",
         "timeout_s", "pipeline", "faults",    "sweep",   "cases",    "expect",     "remark"});
    Case result;
    result.file = file;
    result.scenario = file.stem().string();
    result.purpose = reader.string("purpose", "");
    if (result.purpose.empty()) missing(result, "purpose", "'purpose: one sentence, a question'");
    read_model(reader.get("model"), result);
    read_weights(reader.get("weights"), result);
    follow_weights(reader.get("model"), result);
    read_trainer(reader.get("trainer"), result);
    WantedFormat wanted = read_receiver(reader.get("receiver"), result);
    wanted.payload = reader.get("payload");
    const MapReader payload(
        wanted.payload, "payload",
        {"scheme", "recipe", "scale_shape", "kv_cache_scales", "kv_scale_names"});
    result.recipe = payload.name("recipe", "", "recipe", quant::recipe_names(), kPlannedRecipes);
    result.scale_shape =
        payload.name("scale_shape", "contract", "scale shape", {"contract", "0d", "1d", "2d"});
    result.kv_cache_scales =
        payload.name("kv_cache_scales", "none", "KV-cache scales", {"none", "kv", "qkv"});
    result.kv_scale_names = payload.name("kv_scale_names", "contract", "way to name scales",
                                         {"contract", "layer", "projection", "parameter"});
    resolve_format(wanted, payload, load_model(*reader.get("model"), result), result);
    read_transport(reader.get("transport"), result);

    result.backend = reader.name("backend", "auto", "backend", backend_names());
    result.wire = reader.name("wire", "checkpoint", "wire format", {"checkpoint", "kernel"});
    result.nonfinite =
        reader.name("nonfinite", "reject", "policy", {"reject", "recipe", "propagate", "sanitize"});
    result.refits = reader.count("refits", 1, 1);
    result.iterations = reader.count("iterations", 5, 1, 1000000);
    result.warmup = reader.count("warmup", 1, 0, 1000000);
    result.timeout_s = reader.decimal("timeout_s", 60.0);
    if (!(result.timeout_s > 0.0))
        refuse(*reader.get("timeout_s"), "timeout_s", "more than 0 seconds");
    result.pipeline = reader.on_off("pipeline", true);
    result.remark = reader.string("remark", "");
    read_checks(reader, result);
    const std::vector<Node>& faults = reader.list("faults");
    for (std::size_t i = 0; i < faults.size(); ++i) {
        read_fault(faults[i], "faults[" + std::to_string(i) + "]", result);
    }
    read_expectation(reader.get("expect"), result);
    refuse_contradictions(result, file.string());
    return result;
}

}  // namespace refit::harness
