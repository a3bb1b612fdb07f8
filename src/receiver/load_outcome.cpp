// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/load_outcome.hpp"

#include <algorithm>
#include <utility>

namespace refit::receiver {
namespace {

using core::Shape;

std::string number(std::int64_t value) {
    return std::to_string(value);
}

void replace(std::string& text, const std::string& key, const std::string& value) {
    const std::size_t at = text.find(key);
    if (at != std::string::npos) text.replace(at, key.size(), value);
}

std::string narrow_text(std::int64_t start, std::int64_t length, std::int64_t size) {
    return "RuntimeError: start (" + number(start) + ") + length (" + number(length) +
           ") exceeds dimension size (" + number(size) + ").";
}

std::string index_text(std::size_t dimensions, std::size_t wanted) {
    const auto range = static_cast<std::int64_t>(std::max<std::size_t>(dimensions, 1));
    return "IndexError: Dimension out of range (expected to be in range of [-" + number(range) +
           ", " + number(range - 1) + "], but got " + number(static_cast<std::int64_t>(wanted)) +
           ")";
}

/// One tensor against one row.
class Follower {
 public:
    Follower(const ContractRow& row, const Shape& came, const wire::WantedParameter& wanted,
             const Shape& weight)
        : row_(row), came_(came), wanted_(wanted), weight_(weight) {}

    [[nodiscard]] LoadOutcome run() const {
        if (came_ == wanted_.shape) return {};
        switch (row_.loader) {
            case LoaderRule::narrow:
            case LoaderRule::narrow_or_pad:
            case LoaderRule::checked_narrow:
                return narrowed();
            case LoaderRule::concatenated:
            case LoaderRule::same_shape:
            case LoaderRule::same_size:
            case LoaderRule::whole_rows:
                return compared();
            case LoaderRule::one_value:
                if (came_.empty() || (came_.size() == 1 && came_[0] == 1)) return {};
                return compared();
            case LoaderRule::one_element:
                if (core::element_count(came_) == 1) return {};
                return compared();
            case LoaderRule::flattened:
                if (!came_.empty() && came_[0] == wanted_.shape[0] &&
                    core::element_count(came_) == core::element_count(wanted_.shape)) {
                    return {};
                }
                return compared();
            case LoaderRule::expert_corner:
                return in_a_corner();
            case LoaderRule::expert_narrow:
                return narrowed_and_broadcast();
            case LoaderRule::grid_of_the_scale:
                return regridded();
        }
        return compared();
    }

 private:
    [[nodiscard]] LoadOutcome outcome(const std::string& behaviour,
                                      const std::string& message) const {
        return {behaviour, behaviour == "raises" ? message : std::string(), true};
    }

    /// The row's own text.
    [[nodiscard]] std::string unequal_text() const {
        std::string text = row_.engine_message;
        replace(text, "{came}", core::to_string(came_));
        replace(text, "{wanted}", core::to_string(wanted_.shape));
        replace(text, "{rows_wanted}", number(core::matrix_rows(wanted_.shape)));
        replace(text, "{rows}", number(core::matrix_rows(came_)));
        return text;
    }

    /// The dimension that the ranks cut: the columns of a row-parallel layer, else the rows.
    [[nodiscard]] std::size_t sliced() const {
        if (row_.tp_rule != "row") return 0;
        return wanted_.shape.size() == 4 ? 2 : 1;
    }

    /// Tensors that are compared before they are copied, and not cut.
    [[nodiscard]] LoadOutcome compared() const {
        bool longer = came_.size() == wanted_.shape.size();
        bool shorter = longer;
        for (std::size_t i = 0; i < came_.size() && i < wanted_.shape.size(); ++i) {
            longer = longer && came_[i] >= wanted_.shape[i];
            shorter = shorter && came_[i] <= wanted_.shape[i];
        }
        const std::string& behaviour = longer    ? row_.on_too_long
                                       : shorter ? row_.on_too_short
                                                 : row_.on_wrong_rank;
        return outcome(behaviour, unequal_text());
    }

    [[nodiscard]] LoadOutcome narrowed() const {
        const std::size_t at = sliced();
        if (at >= came_.size()) return outcome("raises", index_text(came_.size(), at));
        // A 4-D block scale is addressed by its third dimension in every kind of layer.
        if (wanted_.shape.size() == 4 && came_.size() < 3) {
            return outcome("raises", index_text(came_.size(), 2));
        }
        const auto& cuts = at == 0 ? wanted_.row_cuts : wanted_.col_cuts;
        const bool pads = row_.loader == LoaderRule::narrow_or_pad;
        std::string too_short;
        for (std::size_t i = 0; i + 1 < cuts.size() && too_short.empty(); ++i) {
            if (cuts[i + 1] <= came_[at]) continue;
            too_short = narrow_text(cuts[i], cuts[i + 1] - cuts[i], came_[at]);
        }
        if (!too_short.empty() && !pads) return outcome(row_.on_too_short, too_short);
        bool equal = came_.size() == wanted_.shape.size();
        for (std::size_t i = 0; equal && i < came_.size(); ++i) {
            equal = i == at || came_[i] == wanted_.shape[i];
        }
        if (!equal) return outcome(row_.on_wrong_rank, unequal_text());
        return outcome(too_short.empty() ? row_.on_too_long : row_.on_too_short, too_short);
    }

    /// The dimension over which the ranks cut an expert: columns of down, rows of gate and up.
    [[nodiscard]] std::size_t expert_dimension() const {
        return wanted_.name.find(".down_proj.") != std::string::npos ? 1 : 0;
    }

    /// The loader takes its share of the sliced dimension of what came, whatever that is, and
    /// writes it into a corner of the parameter; only a share that is larger raises.
    [[nodiscard]] LoadOutcome in_a_corner() const {
        // A scale of one value is reshaped to a scalar.
        if (wanted_.shape == Shape{1}) {
            if (core::element_count(came_) == 1) return {};
            return outcome("raises", row_.engine_message);
        }
        if (came_.size() != wanted_.shape.size()) {
            return outcome(row_.on_wrong_rank, row_.engine_message);
        }
        for (std::size_t i = 0; i < came_.size(); ++i) {
            const auto& cuts = i == 0 ? wanted_.row_cuts : wanted_.col_cuts;
            const auto ranks = static_cast<std::int64_t>(cuts.size()) - 1;
            const bool cut = i == expert_dimension();
            const std::int64_t share = cut ? came_[i] / ranks : came_[i];
            const std::int64_t space = cut ? wanted_.shape[i] / ranks : wanted_.shape[i];
            if (share <= space) continue;
            return outcome(row_.on_too_long, "RuntimeError: The size of tensor a (" +
                                                 number(space) +
                                                 ") must match the size of tensor b (" +
                                                 number(share) + ") at non-singleton dimension " +
                                                 number(static_cast<std::int64_t>(i)));
        }
        return outcome(row_.on_too_short, "");
    }

    [[nodiscard]] LoadOutcome narrowed_and_broadcast() const {
        if (wanted_.shape == Shape{1}) {
            if (core::element_count(came_) == 1) return {};
            return outcome("raises", row_.engine_message);
        }
        const std::size_t at = expert_dimension();
        const auto& cuts = at == 0 ? wanted_.row_cuts : wanted_.col_cuts;
        if (at < came_.size()) {
            for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
                if (cuts[i + 1] <= came_[at]) continue;
                return outcome(row_.on_too_short,
                               narrow_text(cuts[i], cuts[i + 1] - cuts[i], came_[at]));
            }
        }
        if (came_.size() != wanted_.shape.size()) {
            return outcome(row_.on_wrong_rank, row_.engine_message);
        }
        for (std::size_t i = 0; i < came_.size(); ++i) {
            if (i == at || came_[i] == wanted_.shape[i] || came_[i] == 1) continue;
            return outcome("raises", "RuntimeError: The size of tensor a (" +
                                         number(wanted_.shape[i]) +
                                         ") must match the size of tensor b (" + number(came_[i]) +
                                         ") at non-singleton dimension " +
                                         number(static_cast<std::int64_t>(i)));
        }
        // A surplus is cut off; a dimension of 1 is spread over the expert.
        return outcome(row_.on_too_long, "");
    }

    /// Blocks are the weight's shape over the scale's shape, whatever the config says.
    [[nodiscard]] LoadOutcome regridded() const {
        Shape grid = came_;
        while (grid.size() > 2 && grid[0] == 1) grid.erase(grid.begin());
        if (grid == wanted_.shape) return {"ignored", "", false};
        if (grid.size() != 2 || grid[0] < 1 || grid[1] < 1 || weight_.size() != 2) {
            return outcome(row_.on_wrong_rank, row_.engine_message);
        }
        if (weight_[0] % grid[0] != 0 || weight_[1] % grid[1] != 0) {
            return outcome("raises", "RuntimeError: Weight shape (" + number(weight_[0]) + ", " +
                                         number(weight_[1]) + ") not divisible by scale grid (" +
                                         number(grid[0]) + ", " + number(grid[1]) + ")");
        }
        return outcome("silently_wrong", "");
    }

    const ContractRow& row_;
    const Shape& came_;
    const wire::WantedParameter& wanted_;
    const Shape& weight_;
};

bool is_float(core::DType dtype) {
    switch (dtype) {
        case core::DType::bf16:
        case core::DType::f16:
        case core::DType::f32:
        case core::DType::f64:
        case core::DType::f8_e4m3:
        case core::DType::f8_e5m2:
        case core::DType::f8_e4m3fnuz:
        case core::DType::f8_e5m2fnuz:
            return true;
        default:
            return false;
    }
}

}  // namespace

LoadOutcome shape_outcome(const ContractRow& row, const core::Shape& came,
                          const wire::WantedParameter& wanted, const core::Shape& weight) {
    return Follower(row, came, wanted, weight).run();
}

LoadOutcome dtype_outcome(const ContractRow& row, core::DType came) {
    LoadOutcome outcome;
    outcome.behaviour = row.on_wrong_dtype;
    if (core::size_bytes(came) == 0) {
        // PyTorch holds such a type as opaque bytes or not at all, and copies it into no other.
        outcome.behaviour = "raises";
        return outcome;
    }
    if (row.on_wrong_dtype != "raises") return outcome;
    // The comparison knows an order of floating-point types: one of more bits is not loaded into
    // one of fewer, and integers are not loaded at all. Less bits are widened, which keeps the
    // values but not the meaning of the codes.
    const std::int64_t parameter = row.parameter_dtype == "float8_e4m3fn" ? 1
                                   : row.parameter_dtype == "float32"     ? 4
                                                                          : 2;
    if (!is_float(came)) {
        outcome.engine_message = "ValueError: Unsupported copy between dtypes: ...";
    } else if (core::size_bytes(came) > parameter) {
        outcome.engine_message = "ValueError: Downcasting not allowed: ...";
    } else {
        outcome.behaviour = "silently_wrong";
    }
    return outcome;
}

}  // namespace refit::receiver
