// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/planted_faults.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "weights/synthetic_weights.hpp"

namespace refit::harness {
namespace {

// False when the receiver keeps nothing of the entry.
bool aim(transport::TransportFault& fault, const wire::PieceEntry& entry,
         const wire::RefitManifest& manifest, const receiver::ContractInstance& loading,
         std::size_t tp_rank) {
    const wire::ParameterMeta& meta = manifest.parameters[entry.parameter];
    for (const receiver::LoadSpan& span : loading.spans[tp_rank]) {
        if (loading.wanted[span.wanted].name != meta.name) continue;
        const core::Region sent = entry.region(meta);
        const std::int64_t row = std::max(sent.row, span.source.row);
        const std::int64_t col = std::max(sent.col, span.source.col);
        if (row >= std::min(sent.row + sent.rows, span.source.row + span.source.rows) ||
            col >= std::min(sent.col + sent.cols, span.source.col + span.source.cols))
            continue;
        const std::int64_t element = (row - sent.row) * sent.cols + col - sent.col;
        fault.byte =
            entry.offset + static_cast<std::uint64_t>(element * core::size_bytes(meta.dtype));
        return true;
    }
    return false;
}

// Names of everything that a fault of this case can mean.
std::vector<std::string> names_of(const CaseSetup& setup) {
    std::set<std::string> names;
    for (const model::TensorSpec& tensor : setup.tensors) names.insert(tensor.name);
    for (const model::TensorSpec& scale : setup.cache_scales) names.insert(scale.name);
    for (const wire::WantedParameter& wanted : setup.loading().wanted) names.insert(wanted.name);
    for (const wire::KernelParameter& parameter : setup.layout.parameters)
        names.insert(parameter.name);
    return {names.begin(), names.end()};
}

// The model's own tensors that `pattern` means have two of one shape.
bool has_a_pair(const CaseSetup& setup, const std::string& pattern) {
    std::set<core::Shape> shapes;
    for (const model::TensorSpec& tensor : setup.tensors) {
        if (weights::glob_match(pattern, tensor.name) && !shapes.insert(tensor.shape).second)
            return true;
    }
    return false;
}

}  // namespace

void aim_tensor_faults(const Case& c, CaseSetup& setup) {
    const std::vector<std::string> names = names_of(setup);
    for (const FaultSpec& fault : c.faults) {
        const std::string pattern = fault.tensor.empty() ? "*" : fault.tensor;
        const bool loads = fault.name == "skip_load" || fault.name == "replica_flip";
        bool matched = false;
        for (const std::string& name : names)
            matched = matched || weights::glob_match(pattern, name);
        if (loads) {
            auto& struck = fault.name == "skip_load" ? setup.load_faults.skip_tensors
                                                     : setup.load_faults.flip_tensors;
            matched = false;
            for (const wire::WantedParameter& wanted : setup.loading().wanted) {
                if (!weights::glob_match(pattern, wanted.name)) continue;
                struck.insert(wanted.name);
                matched = true;
            }
        }
        if (!matched) {
            std::string nearest;
            for (const std::string& name : core::nearest_names(pattern, names))
                nearest += (nearest.empty() ? "; nearest: " : ", ") + name;
            throw core::ScenarioError("the fault " + fault.name + " strikes '" + pattern +
                                      "', and no tensor of the model has such a name" + nearest);
        }
        if (fault.name == "swap_tensors" && !has_a_pair(setup, pattern)) {
            throw core::ScenarioError("the fault swap_tensors strikes '" + pattern +
                                      "', which names no two tensors of equal shape");
        }
    }
}

void aim_transport_faults(CaseSetup& setup, const wire::RefitManifest& manifest, int tp) {
    for (transport::TransportFault& fault : setup.transport_faults) {
        if (fault.bucket >= manifest.buckets.size()) continue;
        const auto tp_rank = static_cast<std::size_t>(fault.receiver % tp);
        const std::vector<wire::PiecePlan>& pieces = manifest.buckets[fault.bucket].pieces;
        bool aimed = false;
        for (std::size_t t = 0; t < pieces.size() && !aimed; ++t) {
            for (const wire::PieceEntry& entry : pieces[t].entries) {
                if (!aim(fault, entry, manifest, setup.loading(), tp_rank)) continue;
                fault.trainer = static_cast<int>(t);
                aimed = true;
                break;
            }
        }
    }
}

void strike(const Case& c, int rank, std::int64_t iteration, Stage stage, std::int64_t bucket) {
    for (const FaultSpec& fault : c.faults) {
        if (fault.rank != rank || fault.stage != stage_name(stage) || fault.iteration != iteration)
            continue;
        if (bucket >= 0 && fault.bucket != bucket) continue;
        if (fault.name == "kill") kill(getpid(), SIGKILL);
        if (fault.name == "stop") kill(getpid(), SIGSTOP);
        if (fault.name == "throw") {
            throw core::Error(core::ExitCode::environment, "planted fault: rank " +
                                                               std::to_string(fault.rank) +
                                                               " throws in stage " + fault.stage);
        }
    }
}

}  // namespace refit::harness
