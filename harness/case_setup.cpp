// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/case_setup.hpp"

#include <limits>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "harness/planted_faults.hpp"
#include "harness/stream_options.hpp"
#include "model/cache_calibration.hpp"
#include "model/hf_config.hpp"
#include "model/model_catalog.hpp"
#include "quant/recipe.hpp"
#include "trainer/tensor_places.hpp"
#include "weights/safetensors_weights.hpp"

namespace refit::harness {
namespace {

model::ModelConfig model_of(const Case& c) {
    model::ModelConfig config = c.model_config ? model::read_hf_config(*c.model_config)
                                               : model::find_model(c.model_name).config;
    if (c.model_config && c.weights_source == "safetensors")
        config = weights::config_of_checkpoint(std::move(config), c.weights_path);
    if (c.layers) config = model::slice_layers(std::move(config), *c.layers);
    return config;
}

receiver::QuantizationConfig quantization_of(const Case& c, const model::ModelConfig& config,
                                             const receiver::EngineContract& contract) {
    if (c.quantization_config)
        return receiver::parse_quantization_config(c.engine, c.quantization_config);
    if (c.scheme == "auto") {
        if (config.quantization_config)
            return receiver::parse_quantization_config(c.engine, config.quantization_config);
        const std::string text = receiver::default_quantization_config(
            c.engine, contract.schemes.front(), c.algo, config);
        return receiver::parse_quantization_config(
            c.engine, text.empty() ? std::nullopt : std::optional(text));
    }
    const auto scheme = quant::scheme_from_name(c.scheme);
    if (!scheme)
        throw core::ScenarioError(
            core::unknown_name_message("scheme", c.scheme, quant::scheme_names()));
    const std::string text =
        receiver::default_quantization_config(c.engine, *scheme, c.algo, config);
    return receiver::parse_quantization_config(c.engine,
                                               text.empty() ? std::nullopt : std::optional(text));
}

/// The recipe of a scheme where the scenario names none.
std::string default_recipe(quant::Scheme scheme, int channel_scale_rank) {
    switch (scheme) {
        case quant::Scheme::fp8_blockwise:
            return "prime-rl-blockwise";
        case quant::Scheme::fp8_channelwise:
            return channel_scale_rank == 1 ? "modelopt-pc-pt" : "prime-rl-channelwise";
        case quant::Scheme::fp8_tensorwise:
            return "tensorwise";
        case quant::Scheme::mxfp8:
            return "mxfp8";
        case quant::Scheme::bf16:
            break;
    }
    return {};
}

checks::SchemeFacts facts_of(const quant::Recipe* recipe) {
    checks::SchemeFacts facts;
    if (recipe == nullptr) return facts;
    const numerics::TileScaling& scaling = recipe->scaling;
    facts.tile_rows = scaling.tile_rows;
    facts.tile_cols = scaling.tile_cols;
    facts.power_of_two_scales = scaling.power_of_two != numerics::PowerOfTwo::none;
    facts.pad_last_element = scaling.edge == numerics::Edge::pad_last_element;
    if (scaling.round_quotient_to_bf16) {
        facts.round_quotient_to_bf16 = true;
        // BF16 keeps 8 bits: half an ulp is at most 2^-8 of the value, 17 / 256 of the bound
        // |x| / 17, before the cast rounds again.
        facts.slack = 17.0 / 256.0;
    }
    if (scaling.round_scale_to_bf16 && scaling.scale_storage == numerics::ScaleStorage::f32) {
        facts.divide_by_bf16_scale = true;
        // The scale moved between the codes and the engine's product, as below, and both add up.
        facts.slack += 18.0 / 256.0;
    }
    if (scaling.scale_storage == numerics::ScaleStorage::bf16) {
        // BF16 keeps 8 bits: the engine multiplies with a scale that moved by up to 2^-8 of itself,
        // in most recipes after the codes were chosen. A decoded value is at most (1 + 1/17) |x|,
        // so that is 18 / 256 of the bound |x| / 17.
        facts.slack = 18.0 / 256.0;
    }
    if (scaling.floor_on == numerics::FloorOn::scale)
        facts.scale_floor = static_cast<double>(scaling.floor_value);
    if (scaling.floor_on == numerics::FloorOn::amax)
        facts.scale_floor = static_cast<double>(scaling.floor_value) / 448.0;
    return facts;
}

float replacement_of(const std::string& value) {
    if (value == "nan") return std::numeric_limits<float>::quiet_NaN();
    if (value == "inf") return std::numeric_limits<float>::infinity();
    return value == "negative" ? -1.0F : 0.0F;
}

receiver::CacheScales cache_scales_of(const Case& c) {
    if (c.kv_cache_scales == "kv") return receiver::CacheScales::kv;
    return c.kv_cache_scales == "qkv" ? receiver::CacheScales::qkv : receiver::CacheScales::none;
}

/// What the trainer calibrates, how it names the scales, and the rows that the record has of them.
void set_up_cache_scales(const Case& c, CaseSetup& setup) {
    const receiver::CacheScales which = cache_scales_of(c);
    if (which == receiver::CacheScales::none) return;
    using trainer::CacheScaleNames;
    setup.payload.calibrations =
        model::cache_calibrations(setup.config, which == receiver::CacheScales::qkv);
    if (c.kv_scale_names == "layer") setup.payload.cache_scale_names = CacheScaleNames::layer;
    if (c.kv_scale_names == "projection")
        setup.payload.cache_scale_names = CacheScaleNames::projection;
    if (c.kv_scale_names == "parameter")
        setup.payload.cache_scale_names = CacheScaleNames::parameter;
    for (const wire::WantedParameter& wanted : setup.instance.wanted) {
        if (wanted.calibration.empty()) continue;
        model::TensorSpec row;
        row.name = wanted.name;
        row.shape = wanted.shape;
        row.dtype = core::DType::f32;
        setup.cache_scales.push_back(std::move(row));
    }
}

void add_fault(const FaultSpec& fault, CaseSetup& setup) {
    const std::string glob = fault.tensor.empty() ? "*" : fault.tensor;
    auto transport_fault = [&](transport::TransportFault::Kind kind) {
        transport::TransportFault planted;
        planted.kind = kind;
        planted.bucket = static_cast<std::size_t>(fault.bucket);
        // Counted so that it lands in the payload, behind header and digests.
        planted.byte = ~std::uint64_t{0};
        planted.receiver = fault.receiver;
        setup.transport_faults.push_back(planted);
    };
    if (fault.name == "flip_byte") transport_fault(transport::TransportFault::Kind::flip_byte);
    if (fault.name == "truncate") transport_fault(transport::TransportFault::Kind::truncate);
    if (fault.name == "reorder") transport_fault(transport::TransportFault::Kind::reorder);
    if (fault.name == "drop_tensor") setup.trainer_faults.drop_tensor = glob;
    if (fault.name == "rename_scale") setup.trainer_faults.rename_scale = glob;
    if (fault.name == "scale_dtype") setup.trainer_faults.scale_dtype = glob;
    if (fault.name == "scale_doubled") setup.trainer_faults.scale_doubled = glob;
    if (fault.name == "swap_tensors") setup.trainer_faults.swap_tensors = glob;
    if (fault.name == "wrong_eligibility") setup.trainer_faults.wrong_eligibility = glob;
    if (fault.name == "stale_cache_scale") setup.trainer_faults.stale_cache_scale = glob;
    if (fault.name == "cache_scale_value") {
        setup.trainer_faults.cache_scale_value = glob;
        setup.trainer_faults.cache_scale_replacement = replacement_of(fault.value);
    }
    if (fault.name == "source_write") setup.trainer_faults.source_write = glob;
    if (fault.name == "drop_parameter") setup.kernel_faults.drop_parameter = glob;
    if (fault.name == "wrong_shard") setup.kernel_faults.wrong_shard = glob;
    if (fault.name == "forget_commit") setup.load_faults.forget_commit = true;
    if (fault.name == "stale_derived") setup.load_faults.stale_derived = true;
}

/// The engine's own parameters. Whoever broadcasts one list to all ranks, as prime-rl does, joins
/// whole tensors and cuts none.
void set_up_kernel_format(const Case& c, const receiver::EngineContract& contract,
                          CaseSetup& setup) {
    setup.kernel = receiver::kernel_instance(setup.instance);
    bool whole = setup.payload.framing == wire::Framing::prime_rl;
    for (const FaultSpec& fault : c.faults) whole = whole || fault.name == "whole_for_shard";
    setup.layout = receiver::kernel_layout(
        whole && c.tp > 1 ? receiver::apply_contract(contract, setup.config, setup.quantization, 1,
                                                     1, cache_scales_of(c))
                          : setup.instance);
}

}  // namespace

CaseSetup set_up_case(const Case& c) {
    CaseSetup setup;
    setup.config = model_of(c);
    setup.tensors = model::tensors_of(setup.config);
    const receiver::EngineContract& contract = receiver::find_engine(c.engine);
    setup.quantization = quantization_of(c, setup.config, contract);
    setup.instance = receiver::apply_contract(contract, setup.config, setup.quantization, c.tp,
                                              c.ep, cache_scales_of(c));
    if (!setup.instance.not_for_scenarios.empty()) {
        throw core::ScenarioError(setup.instance.not_for_scenarios);
    }
    set_up_cache_scales(c, setup);

    setup.payload.scheme = setup.quantization.scheme;
    if (setup.payload.scheme != quant::Scheme::bf16) {
        const std::string name =
            c.recipe.empty()
                ? default_recipe(setup.payload.scheme,
                                 setup.quantization.algo.empty() ? contract.channel_scale_rank : 1)
                : c.recipe;
        setup.payload.recipe = &quant::find_recipe(name);
        if (setup.payload.recipe->scheme != setup.payload.scheme) {
            throw core::ScenarioError(
                "payload.recipe " + name + " makes " +
                std::string(quant::scheme_name(setup.payload.recipe->scheme)) +
                ", but the receiver wants " +
                std::string(quant::scheme_name(setup.payload.scheme)) +
                "; 'refitbench list recipes' prints each recipe's scheme");
        }
    }
    if (c.scale_shape == "0d") setup.payload.scale_shape = trainer::ScaleShape::zero_d;
    if (c.scale_shape == "1d") setup.payload.scale_shape = trainer::ScaleShape::one_d;
    if (c.scale_shape == "2d") setup.payload.scale_shape = trainer::ScaleShape::two_d;
    if (c.nonfinite == "recipe") setup.payload.nonfinite = trainer::Nonfinite::recipe;
    if (c.nonfinite == "propagate") setup.payload.nonfinite = trainer::Nonfinite::propagate;
    if (c.nonfinite == "sanitize") setup.payload.nonfinite = trainer::Nonfinite::sanitize;
    setup.payload.framing = wire::find_framing(c.framing).framing;
    setup.payload.bucket_bytes = sender_buffer_bytes(c);
    refuse_unfit_payload(c, setup);
    setup.sharding = parallel::RowSharding{c.trainer_ranks, c.shard_multiple, c.shares};
    setup.sharding.layout = parallel::layout_from_name(c.layout).value_or(parallel::Layout::fsdp);
    setup.sharding.heads = setup.config.heads;
    setup.sharding.kv_heads = setup.config.kv_heads;
    setup.sharding.experts = setup.config.experts;
    setup.placements = trainer::place_tensors(setup.tensors, setup.sharding);
    for (const FaultSpec& fault : c.faults) {
        add_fault(fault, setup);
        if (fault.name == "source_write" && c.resident == Resident::no) {
            throw core::ScenarioError(
                "the fault source_write changes weights in memory, and weights.resident is false; "
                "set weights.resident to true, or take the fault out");
        }
    }
    if (c.wire == "kernel") set_up_kernel_format(c, contract, setup);
    aim_tensor_faults(c, setup);
    setup.facts = facts_of(setup.payload.recipe);
    setup.facts.activation_seed = c.seed;
    if (c.weights_source == "synthetic") weights::check_plants(c.plants, setup.tensors);
    return setup;
}

wire::RefitManifest planned_manifest(const CaseSetup& setup) {
    if (!setup.kernel.engine.empty()) {
        return trainer::make_kernel_plan(setup.tensors, setup.instance.wanted, setup.layout,
                                         setup.payload, setup.sharding, setup.trainer_faults,
                                         setup.kernel_faults)
            .manifest;
    }
    return trainer::make_plan(setup.tensors, setup.instance.wanted, setup.payload, setup.sharding,
                              setup.trainer_faults)
        .manifest;
}

std::unique_ptr<weights::WeightSource> open_weights(const Case& c,
                                                    const std::vector<model::TensorSpec>& tensors) {
    auto source = c.weights_source == "safetensors"
                      ? weights::make_safetensors_weights(c.weights_path, tensors)
                      : weights::make_synthetic_weights(c.seed, c.step, c.outliers);
    if (!c.plants.empty()) {
        weights::check_plants(c.plants, tensors);
        source = weights::make_faulty_weights(std::move(source), c.plants, c.seed);
    }
    return source;
}

transport::StreamPlan stream_plan(const Case& c, const wire::RefitManifest& manifest,
                                  bool on_device) {
    transport::StreamPlan plan;
    plan.depth = c.depth;
    plan.on_device = on_device;
    for (const wire::BucketPlan& bucket : manifest.buckets) {
        std::vector<std::uint64_t> pieces;
        for (const wire::PiecePlan& piece : bucket.pieces) pieces.push_back(piece.bytes);
        plan.pieces.push_back(std::move(pieces));
    }
    return plan;
}

std::string transport_of(const Case& c, bool is_mpi) {
    // One process plays all ranks over loopback, whatever MPI transport the scenario prefers; a
    // transport that needs a GPU stays what it is, so that its own viability speaks.
    const bool host_transport =
        c.transport == "mpi" || c.transport == "mpi_window" || c.transport == "loopback";
    return !is_mpi && host_transport ? "loopback" : c.transport;
}

}  // namespace refit::harness
