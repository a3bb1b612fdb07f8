// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/kernel_plan.hpp"

#include <map>
#include <utility>

#include "core/error.hpp"
#include "weights/synthetic_weights.hpp"
#include "wire/packing.hpp"

namespace refit::trainer {
namespace {

bool matches(const std::string& glob, const std::string& name) {
    return !glob.empty() && weights::glob_match(glob, name);
}

/// Whether an element is copied or widened exactly.
bool can_take(core::DType made, core::DType held) {
    return made == held || (made == core::DType::bf16 && held == core::DType::f32);
}

wire::PlannedParameter planned(const wire::KernelParameter& parameter, int tp,
                               const Payload& payload) {
    wire::PlannedParameter result;
    wire::ParameterMeta& meta = result.meta;
    meta.name = wire::kernel_wire_name(parameter.name, parameter.tp_rank, tp);
    meta.dtype = parameter.dtype;
    meta.shape = parameter.shape;
    const bool codes = parameter.dtype == core::DType::f8_e4m3;
    meta.kind = parameter.is_scale ? wire::ParameterKind::scale
                : codes            ? wire::ParameterKind::codes
                                   : wire::ParameterKind::raw;
    if (meta.kind != wire::ParameterKind::raw && payload.recipe != nullptr)
        meta.recipe = payload.recipe->name;
    if (!parameter.scale_of.empty())
        meta.scale_of = wire::kernel_wire_name(parameter.scale_of, parameter.tp_rank, tp);
    wire::KernelCuts cuts = wire::kernel_cuts(parameter);
    meta.row_cuts = std::move(cuts.rows);
    meta.col_cuts = std::move(cuts.cols);
    result.regions_of_trainer = {{0, 0, meta.rows(), meta.cols()}};
    result.unit = meta.name;
    return result;
}

}  // namespace

KernelPlan make_kernel_plan(const std::vector<model::TensorSpec>& tensors,
                            const wire::WantedList& wanted, const wire::KernelLayout& layout,
                            const Payload& payload, const parallel::Sharding& sharding,
                            const TrainerFaults& faults, const KernelFaults& kernel_faults) {
    KernelPlan plan;
    Payload alone = payload;
    alone.framing = wire::Framing::sglang_bucket;
    alone.bucket_bytes = 1;
    plan.checkpoint = make_plan(tensors, wanted, alone, sharding, faults);
    std::map<std::string, std::size_t> made;
    for (std::size_t i = 0; i < plan.checkpoint.manifest.parameters.size(); ++i)
        made.emplace(plan.checkpoint.manifest.parameters[i].name, i);
    plan.uses.assign(plan.checkpoint.manifest.parameters.size(), 0);

    std::vector<wire::PlannedParameter> parameters;
    const auto tp = static_cast<std::size_t>(layout.tp);
    for (std::size_t i = 0; i < layout.parameters.size(); ++i) {
        const wire::KernelParameter& parameter = layout.parameters[i];
        if (matches(kernel_faults.drop_parameter, parameter.name)) continue;
        const std::size_t first = i - i % tp;
        const bool shifted = matches(kernel_faults.wrong_shard, parameter.name);
        const wire::KernelParameter& from =
            shifted ? layout.parameters[first + (i - first + 1) % tp] : parameter;
        std::vector<KernelSource>& sources = plan.sources.emplace_back();
        for (const wire::KernelPart& part : from.parts) {
            const auto found = made.find(part.source);
            if (found == made.end()) {
                throw core::ScenarioError("wire: kernel: " + parameter.name + " needs " +
                                          part.source +
                                          ", which the trainer does not send; use a model and an "
                                          "engine that agree about their tensors");
            }
            const core::DType dtype = plan.checkpoint.manifest.parameters[found->second].dtype;
            if (!can_take(dtype, parameter.dtype)) {
                throw core::ScenarioError("wire: kernel: " + part.source + " is made as " +
                                          std::string(core::safetensors_name(dtype)) + ", and " +
                                          parameter.name + " is " +
                                          std::string(core::safetensors_name(parameter.dtype)) +
                                          "; use a recipe that makes that type");
            }
            plan.uses[found->second] += 1;
            sources.push_back({found->second, part});
        }
        plan.cols.push_back(parameter.cols);
        parameters.push_back(planned(parameter, layout.tp, payload));
    }
    plan.manifest = payload.framing == wire::Framing::native
                        ? wire::pack(parameters, payload.bucket_bytes, 1)
                        : wire::pack_framed(parameters, payload.framing, payload.bucket_bytes);
    return plan;
}

}  // namespace refit::trainer
