// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario_format.hpp"

#include <algorithm>
#include <vector>

#include "core/error.hpp"
#include "quant/recipe.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/quantization_config.hpp"

namespace refit::harness {
namespace {

using Names = std::vector<std::string>;

Names schemes_of(const receiver::EngineContract& contract) {
    Names names;
    for (const quant::Scheme scheme : contract.schemes)
        names.emplace_back(quant::scheme_name(scheme));
    return names;
}

bool has_scheme(const receiver::EngineContract& contract, quant::Scheme scheme) {
    return std::find(contract.schemes.begin(), contract.schemes.end(), scheme) !=
           contract.schemes.end();
}

[[noreturn]] void refuse_scheme(const std::string& where, const receiver::EngineContract& contract,
                                quant::Scheme scheme) {
    Names others;
    for (const receiver::EngineContract& other : receiver::engine_catalog()) {
        if (has_scheme(other, scheme)) others.push_back(other.name);
    }
    const std::string name(quant::scheme_name(scheme));
    std::string message = "engine '" + contract.name + "' has no scheme '" + name + "'; it has " +
                          joined_names(schemes_of(contract));
    message += others.empty() ? ". No engine of the catalogue has " + name + " yet"
                              : ". Engines with " + name + ": " + joined_names(others);
    refuse_at(where, message);
}

void require_recipe_of_scheme(const std::string& where, const quant::Recipe& recipe,
                              quant::Scheme scheme) {
    if (recipe.scheme == scheme) return;
    Names fitting;
    for (const quant::Recipe& row : quant::recipe_catalog()) {
        if (row.scheme == scheme) fitting.push_back(row.name);
    }
    std::string message = "payload.recipe: '" + recipe.name + "' is a recipe of " +
                          std::string(quant::scheme_name(recipe.scheme)) + ", the scheme is " +
                          std::string(quant::scheme_name(scheme)) + "; ";
    message += fitting.empty() ? "this scheme takes no recipe: leave payload.recipe out"
                               : "its recipes: " + joined_names(fitting);
    refuse_at(where, message);
}

std::string default_recipe(quant::Scheme scheme, const receiver::EngineContract& contract) {
    switch (scheme) {
        case quant::Scheme::bf16:
            return "";
        case quant::Scheme::fp8_blockwise:
            return "prime-rl-blockwise";
        case quant::Scheme::fp8_channelwise:
            return contract.channel_scale_rank == 1 ? "modelopt-pc-pt" : "prime-rl-channelwise";
        case quant::Scheme::fp8_tensorwise:
            return "tensorwise";
        case quant::Scheme::mxfp8:
            return "mxfp8";
    }
    return "";
}

/// The scheme of an engine's algorithm: the first of the engine's schemes whose default config
/// names it.
std::optional<quant::Scheme> scheme_of_algo(const receiver::EngineContract& contract,
                                            const std::string& algo) {
    for (const quant::Scheme scheme : contract.schemes) {
        try {
            const std::string json =
                receiver::default_quantization_config(contract.name, scheme, algo);
            const std::optional<std::string> text =
                json.empty() ? std::nullopt : std::optional(json);
            if (receiver::parse_quantization_config(contract.name, text).algo == algo)
                return scheme;
        } catch (const core::Error&) {
            continue;  // This scheme is not the algorithm's; the next one may be.
        }
    }
    return std::nullopt;
}

}  // namespace

void resolve_format(const WantedFormat& wanted, const MapReader& payload,
                    const model::ModelConfig& model, Case& result) {
    const receiver::EngineContract& contract = receiver::find_engine(result.engine);
    const std::string engine_where = place(wanted.receiver, result.file);
    Names allowed = quant::scheme_names();
    allowed.emplace_back("auto");
    const std::string written = payload.name("scheme", "auto", "scheme", allowed);
    std::optional<quant::Scheme> scheme = quant::scheme_from_name(written);
    const std::string recipe_where = place(payload.get("recipe"), result.file);

    if (!result.algo.empty()) {
        if (contract.algos.empty()) {
            refuse_at(wanted.algo->where, "receiver.algo: found '" + result.algo + "'; engine '" +
                                              result.engine +
                                              "' has one contract only: leave receiver.algo out");
        }
        require_name(*wanted.algo, "receiver.algo", "algo of " + result.engine, result.algo,
                     contract.algos, {});
    }
    std::optional<std::string> config = wanted.config;
    std::string config_where = wanted.config_where;
    if (!config && !wanted.without_config && model.quantization_config) {
        config = model.quantization_config;
        config_where = model.name;
    }
    std::optional<receiver::QuantizationConfig> given;
    if (config) {
        try {
            given = receiver::parse_quantization_config(result.engine, config);
        } catch (const core::ScenarioError& error) {
            refuse_at(config_where, std::string("quantization_config: ") + error.what());
        }
        if (scheme && *scheme != given->scheme) {
            refuse_at(config_where,
                      "quantization_config: engine '" + result.engine + "' reads it as " +
                          std::string(quant::scheme_name(given->scheme)) + ", payload.scheme is " +
                          written + "; leave one of the two out or make them agree");
        }
        if (!result.algo.empty() && result.algo != given->algo) {
            refuse_at(config_where, "quantization_config: its algorithm is '" + given->algo +
                                        "', receiver.algo is '" + result.algo +
                                        "'; leave one of the two out or make them agree");
        }
        scheme = given->scheme;
    }
    const quant::Recipe* recipe = nullptr;
    if (!result.recipe.empty()) recipe = &quant::find_recipe(result.recipe);
    if (!scheme && !result.algo.empty()) scheme = scheme_of_algo(contract, result.algo);
    if (!scheme && recipe != nullptr) scheme = recipe->scheme;
    if (!scheme) scheme = contract.schemes.front();
    if (recipe != nullptr) require_recipe_of_scheme(recipe_where, *recipe, *scheme);
    if (!has_scheme(contract, *scheme)) {
        refuse_scheme(place(payload.get("scheme"), result.file), contract, *scheme);
    }
    if (!given) {
        try {
            const std::string json =
                receiver::default_quantization_config(result.engine, *scheme, result.algo, model);
            if (!json.empty()) config = json;
            given = receiver::parse_quantization_config(result.engine, config);
        } catch (const core::Error& error) {
            refuse_at(engine_where, error.what());
        }
        if (given->scheme != *scheme || (!result.algo.empty() && given->algo != result.algo)) {
            refuse_at(place(wanted.algo, result.file),
                      "receiver.algo: '" + result.algo + "' of engine '" + result.engine +
                          "' is no " + std::string(quant::scheme_name(*scheme)) +
                          "; leave algo or payload.scheme out");
        }
    }
    result.scheme = std::string(quant::scheme_name(*scheme));
    result.algo = given->algo;
    result.quantization_config = config;
    if (result.recipe.empty()) {
        result.recipe = default_recipe(*scheme, contract);
        if (!result.recipe.empty()) {
            const Names names = quant::recipe_names();
            if (std::find(names.begin(), names.end(), result.recipe) == names.end()) {
                refuse_at(place(wanted.payload, result.file),
                          "the default recipe '" + result.recipe + "' of " + result.scheme +
                              " is not available yet; name another one");
            }
        }
    }
}

}  // namespace refit::harness
