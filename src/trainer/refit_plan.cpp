// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/refit_plan.hpp"

#include <algorithm>
#include <map>
#include <set>

#include "kernels/backend.hpp"
#include "trainer/eligibility.hpp"
#include "trainer/tensor_places.hpp"
#include "weights/synthetic_weights.hpp"
#include "wire/packing.hpp"

namespace refit::trainer {
namespace {

bool matches(const std::string& glob, const std::string& name) {
    return !glob.empty() && weights::glob_match(glob, name);
}

class Planner {
 public:
    Planner(const std::vector<model::TensorSpec>& tensors, const wire::WantedList& wanted,
            const Payload& payload, const parallel::Sharding& sharding, const TrainerFaults& faults)
        : tensors_(tensors),
          wanted_(wanted),
          payload_(payload),
          sharding_(sharding),
          faults_(faults) {
        for (std::size_t i = 0; i < wanted.size(); ++i) wanted_index_.emplace(wanted[i].name, i);
    }

    RefitPlan run() {
        plan_.placements = place_tensors(tensors_, sharding_);
        const std::vector<std::size_t> values = value_order();
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            if (!matches(faults_.drop_tensor, tensors_[i].name)) add_tensor(i, values[i]);
        }
        for (std::size_t i = 0; i < payload_.calibrations.size(); ++i) add_cache_scale(i);
        if (payload_.framing == wire::Framing::native) {
            gather_units();
            plan_.manifest = wire::pack(parameters_, payload_.bucket_bytes, sharding_.rows.ranks);
        } else {
            plan_.productions = productions_;
            plan_.manifest =
                wire::pack_framed(parameters_, payload_.framing, payload_.bucket_bytes);
        }
        find_shared_tiles();
        return std::move(plan_);
    }

 private:
    /// Whose values each tensor sends: its own, but for a planted swap.
    std::vector<std::size_t> value_order() const {
        std::vector<std::size_t> order(tensors_.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::vector<std::size_t> matching;
        for (std::size_t i = 0; i < tensors_.size(); ++i) {
            if (matches(faults_.swap_tensors, tensors_[i].name)) matching.push_back(i);
        }
        for (std::size_t a = 0; a < matching.size(); ++a) {
            for (std::size_t b = a + 1; b < matching.size(); ++b) {
                // A trainer can only send what it holds.
                if (tensors_[matching[a]].shape == tensors_[matching[b]].shape &&
                    plan_.placements[matching[a]].held == plan_.placements[matching[b]].held) {
                    std::swap(order[matching[a]], order[matching[b]]);
                    return order;
                }
            }
        }
        return order;
    }

    const wire::WantedParameter* find_wanted(const std::string& name) const {
        const auto found = wanted_index_.find(name);
        return found == wanted_index_.end() ? nullptr : &wanted_[found->second];
    }

    void add_tensor(std::size_t index, std::size_t values) {
        const model::TensorSpec& tensor = tensors_[index];
        const wire::WantedParameter* wanted = find_wanted(tensor.name);
        const bool own_rule = payload_.recipe != nullptr && is_eligible(tensor);
        bool quantized = payload_.recipe != nullptr && wanted != nullptr && !wanted->scale.empty();
        if (wanted != nullptr && own_rule != quantized) report_disagreement(tensor, own_rule);
        if (matches(faults_.wrong_eligibility, tensor.name))
            quantized = payload_.recipe != nullptr && !quantized;

        wire::PlannedParameter parameter;
        parameter.meta.name = tensor.name;
        parameter.meta.shape = tensor.shape;
        parameter.meta.dtype = quantized ? core::DType::f8_e4m3 : core::DType::bf16;
        parameter.meta.kind = quantized ? wire::ParameterKind::codes : wire::ParameterKind::raw;
        parameter.meta.recipe = quantized ? payload_.recipe->name : "";
        parameter.regions_of_trainer = plan_.placements[index].sent;
        parameter.unit = wanted != nullptr && !wanted->fuse_group.empty()
                             ? wanted->fuse_group
                             : (quantized ? tensor.name : "");
        set_cuts(parameter.meta, wanted);
        parameters_.push_back(parameter);
        productions_.push_back({values, -1, quantized});
        if (quantized) add_scale(index, values, wanted, parameter.unit);
    }

    void add_scale(std::size_t index, std::size_t values, const wire::WantedParameter* weight,
                   const std::string& unit) {
        const model::TensorSpec& tensor = tensors_[index];
        const quant::Recipe& recipe = *payload_.recipe;
        const std::string base =
            tensor.name.substr(0, tensor.name.size() - std::string("weight").size());
        std::string name = weight != nullptr && !weight->scale.empty() ? weight->scale
                                                                       : base + recipe.scale_suffix;
        if (matches(faults_.drop_tensor, name)) return;
        const wire::WantedParameter* wanted = find_wanted(name);

        int rank = wanted != nullptr ? static_cast<int>(wanted->shape.size()) : recipe.scale_rank;
        if (payload_.scale_shape == ScaleShape::one_d) rank = 1;
        if (payload_.scale_shape == ScaleShape::two_d) rank = 2;
        if (rank == 0)
            rank = 1;  // a scalar is sent as (1,): a 0-d tensor has no byte view in the field's
                       // senders

        wire::PlannedParameter scale;
        scale.meta.shape = quant::scale_shape(recipe, tensor.shape, rank);
        if (payload_.scale_shape == ScaleShape::zero_d &&
            core::element_count(scale.meta.shape) == 1)
            scale.meta.shape = {};
        scale.meta.kind = wire::ParameterKind::scale;
        scale.meta.dtype = scale_dtype(recipe.scaling, wanted);
        scale.meta.recipe = recipe.name;
        scale.meta.scale_of = tensor.name;
        scale.unit = unit;
        set_cuts(scale.meta, wanted);
        if (matches(faults_.rename_scale, name) || matches(faults_.rename_scale, tensor.name)) {
            name = name.ends_with("_inv") ? name.substr(0, name.size() - 4) : name + "_inv";
        }
        if (matches(faults_.scale_dtype, name) || matches(faults_.scale_dtype, tensor.name)) {
            scale.meta.dtype = core::DType::u8;
        }
        scale.meta.name = name;

        const kernels::TileGrid grid = kernels::tile_grid(
            recipe.scaling, core::matrix_rows(tensor.shape), core::matrix_cols(tensor.shape));
        for (const core::Region& region : plan_.placements[index].sent) {
            // The owner of a tile's first element owns its scale.
            scale.regions_of_trainer.push_back(
                parallel::is_empty(region) ? core::Region{} : tiles_begun_in(region, grid));
        }
        productions_.back().scale = static_cast<std::int64_t>(parameters_.size());
        parameters_.push_back(scale);
        productions_.push_back({values, -1, true});
    }

    /// The first trainer sends it, as the reduction over a calibration ends on one rank.
    void add_cache_scale(std::size_t index) {
        const std::string& calibration = payload_.calibrations[index].name;
        const auto found = std::find_if(
            wanted_.begin(), wanted_.end(),
            [&](const wire::WantedParameter& one) { return one.calibration == calibration; });
        const wire::WantedParameter* wanted = found == wanted_.end() ? nullptr : &*found;
        std::string name = cache_scale_name(calibration, wanted);
        if (matches(faults_.drop_tensor, name)) return;
        wire::PlannedParameter scale;
        scale.meta.kind = wire::ParameterKind::scale;
        scale.meta.dtype = wanted != nullptr ? wanted->dtypes.front() : core::DType::f32;
        scale.meta.shape = {1};
        if (payload_.scale_shape == ScaleShape::zero_d) scale.meta.shape = {};
        if (payload_.scale_shape == ScaleShape::two_d) scale.meta.shape = {1, 1};
        if (matches(faults_.scale_dtype, name)) scale.meta.dtype = core::DType::u8;
        if (matches(faults_.rename_scale, name)) name += "_inv";
        scale.meta.name = name;
        set_cuts(scale.meta, wanted);
        // Those of a layer travel together.
        scale.unit = calibration.substr(0, calibration.rfind('.'));
        scale.regions_of_trainer.assign(static_cast<std::size_t>(sharding_.rows.ranks), {});
        scale.regions_of_trainer.front() = {0, 0, 1, 1};
        parameters_.push_back(scale);
        Production production;
        production.quantized = true;
        production.calibration = static_cast<std::int64_t>(index);
        productions_.push_back(production);
    }

    [[nodiscard]] std::string cache_scale_name(const std::string& calibration,
                                               const wire::WantedParameter* wanted) const {
        const std::size_t end = calibration.rfind('.') + 1;
        const std::string layer = calibration.substr(0, end);
        const std::string part(1, calibration[end]);
        switch (payload_.cache_scale_names) {
            case CacheScaleNames::contract:
                if (wanted != nullptr) return wanted->name;
                break;
            case CacheScaleNames::projection:
                return layer + part + "_proj." + part + "_scale";
            case CacheScaleNames::parameter:
                return layer + "attn." + part + "_scale";
            case CacheScaleNames::layer:
                break;
        }
        return layer + part + "_scale";
    }

    /// A recipe that stores its scale in another type than F32 sends that type.
    static core::DType scale_dtype(const numerics::TileScaling& scaling,
                                   const wire::WantedParameter* wanted) {
        switch (scaling.scale_storage) {
            case numerics::ScaleStorage::bf16:
                return core::DType::bf16;
            case numerics::ScaleStorage::e8m0:
                return core::DType::u8;
            case numerics::ScaleStorage::f32:
                break;
        }
        return wanted != nullptr ? wanted->dtypes.front() : core::DType::f32;
    }

    /// Grid elements whose tile has its first element in `region`.
    static core::Region tiles_begun_in(const core::Region& region, const kernels::TileGrid& grid) {
        const std::int64_t row = core::ceil_div(region.row, grid.tile_rows);
        const std::int64_t col = core::ceil_div(region.col, grid.tile_cols);
        return {row, col, core::ceil_div(region.row + region.rows, grid.tile_rows) - row,
                core::ceil_div(region.col + region.cols, grid.tile_cols) - col};
    }

    static void set_cuts(wire::ParameterMeta& meta, const wire::WantedParameter* wanted) {
        const bool fits = wanted != nullptr && core::matrix_rows(wanted->shape) == meta.rows() &&
                          core::matrix_cols(wanted->shape) == meta.cols();
        if (fits) {
            meta.row_cuts = wanted->row_cuts;
            meta.col_cuts = wanted->col_cuts;
        } else {
            meta.row_cuts = {0, meta.rows()};
            meta.col_cuts = {0, meta.cols()};
        }
    }

    void report_disagreement(const model::TensorSpec& tensor, bool own_rule) {
        core::Finding finding;
        finding.check = "dtype";
        finding.severity = core::Severity::warning;
        finding.tensor = tensor.name;
        finding.measured =
            own_rule ? "the trainer's rule quantizes it" : "the trainer's rule leaves it in BF16";
        finding.limit = own_rule ? "the receiver wants BF16" : "the receiver wants FP8";
        finding.message = "trainer and receiver decide differently about " + tensor.name + ": " +
                          finding.measured + ", " + finding.limit +
                          "; the receiver's list is followed";
        finding.remedy = "make the trainer's eligibility and the engine's skip list agree";
        plan_.findings.push_back(std::move(finding));
    }

    /// Brings members of one unit together: they may stand apart in model order (biases between q,
    /// k and v).
    void gather_units() {
        std::vector<std::size_t> order;
        std::vector<bool> taken(parameters_.size(), false);
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            if (taken[i]) continue;
            for (std::size_t j = i; j < parameters_.size(); ++j) {
                const bool same = j == i || (!parameters_[i].unit.empty() &&
                                             parameters_[j].unit == parameters_[i].unit);
                if (same && !taken[j]) {
                    taken[j] = true;
                    order.push_back(j);
                }
                // Members of a unit lie within one layer; look no further than that.
                if (j > i + 64) break;
            }
        }
        std::vector<std::int64_t> new_index(order.size());
        for (std::size_t k = 0; k < order.size(); ++k)
            new_index[order[k]] = static_cast<std::int64_t>(k);
        std::vector<wire::PlannedParameter> parameters;
        for (const std::size_t k : order) {
            parameters.push_back(std::move(parameters_[k]));
            Production production = productions_[k];
            if (production.scale >= 0)
                production.scale = new_index[static_cast<std::size_t>(production.scale)];
            plan_.productions.push_back(production);
        }
        parameters_ = std::move(parameters);
    }

    void find_shared_tiles() {
        plan_.shared.resize(plan_.manifest.buckets.size());
        plan_.exchange_words.assign(plan_.manifest.buckets.size(), 0);
        if (payload_.recipe == nullptr) return;
        for (std::size_t b = 0; b < plan_.manifest.buckets.size(); ++b) {
            std::set<std::uint32_t> seen;
            for (const wire::PiecePlan& piece : plan_.manifest.buckets[b].pieces) {
                for (const wire::PieceEntry& entry : piece.entries) {
                    const wire::ParameterKind kind =
                        plan_.manifest.parameters[entry.parameter].kind;
                    if (kind == wire::ParameterKind::codes) seen.insert(entry.parameter);
                }
            }
            for (const std::uint32_t parameter : seen) add_shared(b, parameter);
        }
    }

    void add_shared(std::size_t bucket, std::uint32_t parameter) {
        const wire::ParameterMeta& meta = plan_.manifest.parameters[parameter];
        const numerics::TileScaling& scaling = payload_.recipe->scaling;
        const kernels::TileGrid grid = kernels::tile_grid(scaling, meta.rows(), meta.cols());
        SharedTiles shared;
        shared.parameter = parameter;
        std::set<std::int64_t> grid_rows;
        bool column_cut = false;
        for (const core::Region& region : parameters_[parameter].regions_of_trainer) {
            if (parallel::is_empty(region)) continue;
            if (region.row % grid.tile_rows != 0) grid_rows.insert(region.row / grid.tile_rows);
            column_cut = column_cut || region.col % grid.tile_cols != 0;
        }
        // A boundary between columns cuts tiles in every grid row.
        for (std::int64_t g = 0; column_cut && g < grid.grid_rows; ++g) grid_rows.insert(g);
        shared.grid_rows.assign(grid_rows.begin(), grid_rows.end());
        const bool ragged = meta.rows() % grid.tile_rows != 0 || meta.cols() % grid.tile_cols != 0;
        shared.last_element = scaling.edge == numerics::Edge::pad_last_element && ragged;
        if (shared.grid_rows.empty() && !shared.last_element) return;
        shared.offset = plan_.exchange_words[bucket];
        plan_.exchange_words[bucket] +=
            shared.grid_rows.size() * static_cast<std::size_t>(grid.grid_cols) +
            (shared.last_element ? 1 : 0);
        plan_.shared[bucket].push_back(std::move(shared));
    }

    const std::vector<model::TensorSpec>& tensors_;
    const wire::WantedList& wanted_;
    const Payload& payload_;
    const parallel::Sharding& sharding_;
    const TrainerFaults& faults_;
    std::map<std::string, std::size_t> wanted_index_;
    std::vector<wire::PlannedParameter> parameters_;
    std::vector<Production> productions_;
    RefitPlan plan_;
};

}  // namespace

RefitPlan make_plan(const std::vector<model::TensorSpec>& tensors, const wire::WantedList& wanted,
                    const Payload& payload, const parallel::Sharding& sharding,
                    const TrainerFaults& faults) {
    return Planner(tensors, wanted, payload, sharding, faults).run();
}

}  // namespace refit::trainer
