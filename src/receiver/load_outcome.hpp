// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What an engine's loader does with a tensor whose shape or dtype is not the one it wants.
#pragma once

#include <string>

#include "receiver/engine_contract.hpp"
#include "wire/manifest.hpp"

namespace refit::receiver {

/// Behaviour as in ContractRow, with the engine's text where it raises. An empty behaviour means
/// that the tensor loads as it should.
struct LoadOutcome {
    std::string behaviour;
    std::string engine_message;
    bool is_error = true;  ///< false: it loads as it should, but is not what the contract says
};

/// Follows the row's loader rule over all ranks: which share each of them cuts, what it compares,
/// what it fills or cuts off. `weight` is the shape of the weight that a scale belongs to, else
/// empty.
[[nodiscard]] LoadOutcome shape_outcome(const ContractRow& row, const core::Shape& came,
                                        const wire::WantedParameter& wanted,
                                        const core::Shape& weight);

/// For a dtype that is not among the wanted ones.
[[nodiscard]] LoadOutcome dtype_outcome(const ContractRow& row, core::DType came);

}  // namespace refit::receiver
