// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/kernel_format.hpp"

#include <map>
#include <set>
#include <string>
#include <utility>

#include "core/nearest_name.hpp"
#include "receiver/engine_finding.hpp"

namespace refit::receiver {
namespace {

/// Names of the weights by the index of their scale's destination.
std::map<std::int64_t, std::string> weights_by_scale(const ContractInstance& instance) {
    std::map<std::int64_t, std::string> weights;
    for (const DestinationParameter& destination : instance.destinations) {
        if (destination.scale >= 0) weights[destination.scale] = destination.name;
    }
    return weights;
}

/// Every cell of a parameter to where it lies in the destination, which is the parameter itself.
void add_cells(const wire::WantedParameter& wanted, std::size_t index, std::size_t destination,
               std::vector<LoadSpan>& spans) {
    wire::ParameterMeta meta;
    meta.shape = wanted.shape;
    meta.row_cuts = wanted.row_cuts;
    meta.col_cuts = wanted.col_cuts;
    for (const wire::Cell& cell : wire::cells_within(meta, {0, meta.rows()})) {
        LoadSpan span;
        span.wanted = index;
        span.cell = cell.index;
        span.source = cell.region;
        span.destination = destination;
        span.dest_row = cell.region.row;
        span.dest_col = cell.region.col;
        spans.push_back(span);
    }
}

std::string dtype_text(core::DType dtype) {
    return std::string(core::safetensors_name(dtype));
}

class KernelChecker {
 public:
    KernelChecker(const wire::RefitManifest& manifest, const ContractInstance& instance)
        : manifest_(manifest), instance_(instance) {
        for (const DestinationParameter& d : instance.destinations) destinations_[d.name] = &d;
    }

    core::Findings run() {
        findings_ = instance_.refusals;
        std::set<std::pair<std::string, int>> came;
        for (const wire::ParameterMeta& meta : manifest_.parameters) {
            const wire::KernelName parsed = wire::parse_kernel_wire_name(meta.name);
            const auto found = destinations_.find(parsed.name);
            if (found == destinations_.end() || parsed.tp_rank >= instance_.tp) {
                unknown(meta, parsed);
                continue;
            }
            const int first = parsed.tp_rank < 0 ? 0 : parsed.tp_rank;
            const int last = parsed.tp_rank < 0 ? instance_.tp - 1 : parsed.tp_rank;
            bool again = false;
            for (int rank = first; rank <= last; ++rank)
                again = !came.emplace(parsed.name, rank).second || again;
            if (again) {
                add("names", meta.name, "more than once", "once", "silently_wrong", "",
                    "is sent more than once; the later copy overwrites the earlier one",
                    "send each parameter once a refit");
            }
            compare(meta, *found->second);
        }
        find_missing(came);
        return std::move(findings_);
    }

 private:
    void add(const std::string& check, const std::string& tensor, const std::string& measured,
             const std::string& limit, const std::string& behaviour,
             const std::string& engine_message, const std::string& message,
             const std::string& remedy) {
        findings_.push_back(engine_finding(check, tensor, measured, limit, behaviour,
                                           engine_message, message, remedy));
    }

    void unknown(const wire::ParameterMeta& meta, const wire::KernelName& parsed) {
        std::vector<std::string> known;
        for (const auto& [name, destination] : destinations_) known.push_back(name);
        const std::vector<std::string> nearest = core::nearest_names(parsed.name, known);
        const bool no_rank = destinations_.contains(parsed.name);
        add("names", meta.name, "present", "absent", "raises", "",
            no_rank ? "is meant for rank " + std::to_string(parsed.tp_rank) + ", the engine has " +
                          std::to_string(instance_.tp)
                    : "is not a parameter that " + instance_.engine +
                          " holds; the original raises after the good ones are copied",
            no_rank ? "cut the shards for receiver.tp"
            : nearest.empty()
                ? "leave it out"
                : "leave it out, or rename it: the nearest parameter is " + nearest.front());
    }

    void compare(const wire::ParameterMeta& meta, const DestinationParameter& destination) {
        if (meta.shape != destination.shape) {
            const std::string came = core::to_string(meta.shape);
            const std::string held = core::to_string(destination.shape);
            add("shape_contract", meta.name, came, held, "raises",
                instance_.engine.starts_with("sglang")
                    ? "AssertionError: Attempted to load weight (torch.Size(" + came +
                          ")) into parameter (torch.Size(" + held + "))"
                    : destination.name + ": param=" + held + " != received=" + came,
                "came " + core::to_string(meta.shape) + ", a rank at TP " +
                    std::to_string(instance_.tp) + " holds " + core::to_string(destination.shape) +
                    "; what came before it is copied when the original raises, so that the model "
                    "is half new",
                "send the shard of each rank");
        }
        if (meta.dtype != destination.dtype) {
            add("dtype", meta.name, dtype_text(meta.dtype), dtype_text(destination.dtype),
                "silently_wrong", "",
                "came as " + dtype_text(meta.dtype) + ", the parameter is " +
                    dtype_text(destination.dtype) + "; copy_ casts without a scale",
                "send the type that the engine holds");
        }
    }

    void find_missing(const std::set<std::pair<std::string, int>>& came) {
        for (const DestinationParameter& destination : instance_.destinations) {
            for (int rank = 0; rank < instance_.tp; ++rank) {
                if (came.contains({destination.name, rank})) continue;
                add("names", wire::kernel_wire_name(destination.name, rank, instance_.tp), "absent",
                    dtype_text(destination.dtype) + " " + core::to_string(destination.shape),
                    "silently_wrong", "",
                    "is missing; what is not sent keeps its old value, and the original does not "
                    "compare what came with what it holds",
                    "send every parameter with every refit");
            }
        }
    }

    const wire::RefitManifest& manifest_;
    const ContractInstance& instance_;
    std::map<std::string, const DestinationParameter*> destinations_;
    core::Findings findings_;
};

}  // namespace

wire::KernelLayout kernel_layout(const ContractInstance& instance) {
    const std::map<std::int64_t, std::string> weights = weights_by_scale(instance);
    wire::KernelLayout layout;
    layout.tp = instance.tp;
    const auto ranks = static_cast<std::size_t>(instance.tp);
    for (std::size_t d = 0; d < instance.destinations.size(); ++d) {
        const DestinationParameter& destination = instance.destinations[d];
        for (std::size_t rank = 0; rank < ranks; ++rank) {
            wire::KernelParameter parameter;
            parameter.name = destination.name;
            parameter.tp_rank = static_cast<int>(rank);
            parameter.dtype = destination.dtype;
            parameter.shape = destination.shape;
            parameter.cols = destination.cols();
            parameter.is_scale = destination.is_scale;
            const auto weight = weights.find(static_cast<std::int64_t>(d));
            if (weight != weights.end()) parameter.scale_of = weight->second;
            layout.parameters.push_back(std::move(parameter));
        }
    }
    for (std::size_t rank = 0; rank < ranks; ++rank) {
        for (const LoadSpan& span : instance.spans.at(rank)) {
            layout.parameters[span.destination * ranks + rank].parts.push_back(
                {instance.wanted[span.wanted].name, span.source, span.dest_row, span.dest_col});
        }
    }
    return layout;
}

ContractInstance kernel_instance(const ContractInstance& instance) {
    const std::map<std::int64_t, std::string> weights = weights_by_scale(instance);
    const wire::KernelLayout layout = kernel_layout(instance);
    ContractInstance kernel = instance;
    kernel.own_format = true;
    kernel.wanted.clear();
    for (auto& spans : kernel.spans) spans.clear();
    for (std::size_t d = 0; d < instance.destinations.size(); ++d) {
        const DestinationParameter& own = instance.destinations[d];
        const std::int64_t rows = core::matrix_rows(own.shape);
        const std::int64_t cols = core::matrix_cols(own.shape);
        DestinationParameter& destination = kernel.destinations[d];
        if (own.shape.size() > 2) destination.shape = {rows, cols};
        // Padding travels with the parameter.
        destination.padding_rows = 0;
        for (int rank = 0; rank < instance.tp; ++rank) {
            wire::WantedParameter wanted;
            wanted.name = wire::kernel_wire_name(own.name, rank, instance.tp);
            wanted.dtypes = {own.dtype};
            wanted.shape = own.shape;
            const wire::KernelCuts cuts =
                wire::kernel_cuts(layout.parameters[d * static_cast<std::size_t>(instance.tp) +
                                                    static_cast<std::size_t>(rank)]);
            wanted.row_cuts = cuts.rows;
            wanted.col_cuts = cuts.cols;
            const auto weight = weights.find(static_cast<std::int64_t>(d));
            if (weight != weights.end())
                wanted.scale_of = wire::kernel_wire_name(weight->second, rank, instance.tp);
            add_cells(wanted, kernel.wanted.size(), d,
                      kernel.spans[static_cast<std::size_t>(rank)]);
            kernel.wanted.push_back(std::move(wanted));
        }
    }
    return kernel;
}

core::Findings check_kernel_manifest(const wire::RefitManifest& manifest,
                                     const ContractInstance& instance) {
    return KernelChecker(manifest, instance).run();
}

}  // namespace refit::receiver
