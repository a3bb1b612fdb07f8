// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A case made concrete: model, contract, payload, plan. Deterministic, so that every rank and a dry
// run agree.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "checks/audit.hpp"
#include "harness/scenario.hpp"
#include "model/model_config.hpp"
#include "parallel/placement.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/kernel_format.hpp"
#include "receiver/weight_loader.hpp"
#include "trainer/kernel_plan.hpp"
#include "trainer/refit_plan.hpp"
#include "transport/faulty_transport.hpp"
#include "transport/transport_catalog.hpp"
#include "weights/weight_source.hpp"

namespace refit::harness {

struct CaseSetup {
    model::ModelConfig config;
    std::vector<model::TensorSpec> tensors;
    receiver::QuantizationConfig quantization;
    receiver::ContractInstance instance;
    /// With wire: kernel the engine asking for its own parameters, and what it publishes of them;
    /// else empty.
    receiver::ContractInstance kernel;
    wire::KernelLayout layout;
    trainer::KernelFaults kernel_faults;
    trainer::Payload payload;
    /// Scales of the KV cache as rows of the record: their names on the wire.
    std::vector<model::TensorSpec> cache_scales;
    parallel::Sharding sharding;
    std::vector<parallel::Placement> placements;  ///< of the tensors, by model tensor
    trainer::TrainerFaults trainer_faults;
    receiver::LoadFaults load_faults;
    std::vector<transport::TransportFault> transport_faults;
    checks::SchemeFacts facts;

    /// What the loaders copy by: checkpoint tensors, or the engine's own parameters.
    [[nodiscard]] const receiver::ContractInstance& loading() const {
        return kernel.engine.empty() ? instance : kernel;
    }
};

/// Throws ScenarioError/UsageError for what cannot be meant and FileError for what cannot be read.
[[nodiscard]] CaseSetup set_up_case(const Case& c);

/// What the trainers of a case send, as the receivers see it.
[[nodiscard]] wire::RefitManifest planned_manifest(const CaseSetup& setup);

/// The weights of a case, with its plants. Opens a checkpoint where the case names one.
[[nodiscard]] std::unique_ptr<weights::WeightSource> open_weights(
    const Case& c, const std::vector<model::TensorSpec>& tensors);

[[nodiscard]] transport::StreamPlan stream_plan(const Case& c, const wire::RefitManifest& manifest,
                                                bool on_device = false);

/// Transport of a case in a world: the given one, or `loopback` where one process plays all ranks.
[[nodiscard]] std::string transport_of(const Case& c, bool is_mpi);

}  // namespace refit::harness
