// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/planted_faults.hpp"

#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
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

using Names = std::set<std::string>;

// The model's own tensors that `pattern` means have two that a trainer can exchange: of one shape,
// held by the same trainers in the same parts.
bool has_a_pair(const CaseSetup& setup, const std::string& pattern) {
    for (std::size_t a = 0; a < setup.tensors.size(); ++a) {
        if (!weights::glob_match(pattern, setup.tensors[a].name)) continue;
        for (std::size_t b = a + 1; b < setup.tensors.size(); ++b) {
            if (setup.tensors[a].shape == setup.tensors[b].shape &&
                setup.placements[a].held == setup.placements[b].held &&
                weights::glob_match(pattern, setup.tensors[b].name))
                return true;
        }
    }
    return false;
}

// What each fault looks at when it asks whether it strikes, named as there.
class FaultTargets {
 public:
    explicit FaultTargets(const CaseSetup& setup) {
        for (std::size_t i = 0; i < setup.tensors.size(); ++i) {
            const std::string& name = setup.tensors[i].name;
            tensors_.insert(name);
            if (!parallel::is_empty(setup.placements[i].held.front())) held_by_first_.insert(name);
        }
        for (const std::vector<receiver::LoadSpan>& spans : setup.loading().spans) {
            Names& loaded = loaded_by_rank_.emplace_back();
            for (const receiver::LoadSpan& span : spans)
                loaded.insert(setup.loading().wanted[span.wanted].name);
        }
        const std::vector<wire::KernelParameter>& parameters = setup.layout.parameters;
        for (std::size_t i = 0; i < parameters.size(); ++i) {
            published_.insert(parameters[i].name);
            const bool has_next =
                i + 1 < parameters.size() && parameters[i + 1].name == parameters[i].name;
            if (has_next && !same_parts(parameters[i], parameters[i + 1]))
                sharded_.insert(parameters[i].name);
        }
        const trainer::RefitPlan plan = trainer::make_plan(setup.tensors, setup.instance.wanted,
                                                           setup.payload, setup.sharding, {});
        for (std::size_t i = 0; i < plan.manifest.parameters.size(); ++i) {
            const wire::ParameterMeta& meta = plan.manifest.parameters[i];
            if (meta.kind != wire::ParameterKind::scale) continue;
            if (plan.productions[i].calibration >= 0) {
                cache_scales_.insert(meta.name);
            } else {
                scales_.insert(meta.name);
                scaled_.insert(meta.scale_of);
            }
        }
        quantizes_ = setup.payload.recipe != nullptr;
    }

    // Empty where the fault has no targets in this case.
    [[nodiscard]] Names of(const FaultSpec& spec) const {
        const std::string& fault = spec.name;
        if (fault == "skip_load" || fault == "replica_flip")
            return loaded_by_rank_[static_cast<std::size_t>(spec.receiver) %
                                   loaded_by_rank_.size()];
        if (fault == "drop_parameter") return published_;
        if (fault == "wrong_shard") return sharded_;
        if (fault == "source_write") return held_by_first_;
        if (fault == "cache_scale_value" || fault == "stale_cache_scale") return cache_scales_;
        if (fault == "rename_scale" || fault == "scale_dtype" || fault == "scale_doubled")
            return joined(joined(scales_, scaled_), cache_scales_);
        if (fault == "wrong_eligibility") return quantizes_ ? tensors_ : Names();
        if (fault == "drop_tensor") return joined(joined(tensors_, scales_), cache_scales_);
        return tensors_;
    }

 private:
    Names tensors_;                      ///< of the model
    Names held_by_first_;                ///< those that the first trainer holds parts of
    std::vector<Names> loaded_by_rank_;  ///< parameters that a loader of this TP rank copies
    Names published_;                    ///< the engine's own, with wire: kernel
    Names sharded_;                      ///< those of which ranks hold different parts
    Names scales_;                       ///< of weights
    Names scaled_;                       ///< weights with a scale
    Names cache_scales_;                 ///< of the KV cache
    bool quantizes_ = false;

    static bool same_parts(const wire::KernelParameter& a, const wire::KernelParameter& b) {
        return std::equal(a.parts.begin(), a.parts.end(), b.parts.begin(), b.parts.end(),
                          [](const wire::KernelPart& x, const wire::KernelPart& y) {
                              return x.source == y.source && x.region == y.region;
                          });
    }
    static Names joined(Names all, const Names& more) {
        all.insert(more.begin(), more.end());
        return all;
    }
};

[[noreturn]] void refuse_fault(const FaultSpec& fault, const Names& targets) {
    if (targets.empty()) {
        throw core::ScenarioError("the fault " + fault.name +
                                  " has nothing to strike in this case; 'refitbench list faults' "
                                  "says what it needs");
    }
    const std::vector<std::string> names(targets.begin(), targets.end());
    std::string nearest;
    for (const std::string& name : core::nearest_names(fault.tensor, names))
        nearest += (nearest.empty() ? "; nearest: " : ", ") + name;
    throw core::ScenarioError("the fault " + fault.name + " strikes '" + fault.tensor +
                              "', and nothing that it could strike has such a name" + nearest);
}

}  // namespace

void aim_tensor_faults(const Case& c, CaseSetup& setup) {
    std::optional<FaultTargets> all_targets;
    for (const FaultSpec& fault : c.faults) {
        // The catalogue makes `tensor` a must for the faults that know it.
        if (fault.tensor.empty()) continue;
        if (!all_targets) all_targets.emplace(setup);
        const Names targets = all_targets->of(fault);
        Names struck;
        for (const std::string& name : targets) {
            if (weights::glob_match(fault.tensor, name)) struck.insert(name);
        }
        if (struck.empty()) refuse_fault(fault, targets);
        if (fault.name == "swap_tensors" && !has_a_pair(setup, fault.tensor)) {
            throw core::ScenarioError("the fault swap_tensors strikes '" + fault.tensor +
                                      "', which names no two tensors of equal shape");
        }
        if (fault.name == "skip_load") setup.load_faults.skip_tensors.merge(struck);
        if (fault.name == "replica_flip") setup.load_faults.flip_tensors.merge(struck);
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
        if (!aimed && fault.kind != transport::TransportFault::Kind::reorder) {
            throw core::ScenarioError(
                "the fault of bucket " + std::to_string(fault.bucket) + " strikes receiver " +
                std::to_string(fault.receiver) +
                ", which keeps nothing of that bucket; choose another bucket or receiver");
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
