// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/nonfinite_finding.hpp"

#include <string>

namespace refit::trainer {
namespace {

std::string value_name(std::uint16_t bits) {
    if ((bits & 0x7f) != 0) return "NaN";
    return (bits & 0x8000) != 0 ? "-Inf" : "Inf";
}

}  // namespace

core::Finding nonfinite_finding(const wire::ParameterMeta& meta, const NonfiniteValues& values,
                                const kernels::TileGrid* grid) {
    core::Finding finding;
    finding.check = "nonfinite";
    finding.tensor = meta.name;
    finding.index = meta.shape.size() > 1 ? std::vector<std::int64_t>{values.row, values.col}
                                          : std::vector<std::int64_t>{values.row};
    finding.measured = value_name(values.first);
    finding.limit = "finite";
    std::string tile;
    if (grid != nullptr) {
        tile = ", tile [" + std::to_string(values.row / grid->tile_rows) + ", " +
               std::to_string(values.col / grid->tile_cols) + "]";
    }
    finding.message = meta.name + " holds " + std::to_string(values.nan_count) + " NaN and " +
                      std::to_string(values.inf_count) +
                      " Inf in the trainer's weights; the first is " + finding.measured + " at " +
                      core::to_string(finding.index) + tile + "; the refit is rejected";
    finding.remedy =
        "mend the training weights, or choose a policy with nonfinite: recipe | propagate | "
        "sanitize";
    return finding;
}

}  // namespace refit::trainer
