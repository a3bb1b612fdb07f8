// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which item of a list of work a thread belongs to.
#pragma once

#include <cstdint>

#include "kernels/numerics/host_device.hpp"

namespace refit::kernels::cuda {

/// Index of the item that unit `unit` of all units belongs to. items : [count], each with the
/// number of units before it in the member `first`, ascending; items without units are passed over.
template <class Item>
[[nodiscard]] REFIT_HD constexpr std::int64_t item_of(const Item* items, std::int64_t count,
                                                      std::int64_t Item::*first,
                                                      std::int64_t unit) {
    std::int64_t low = 0;
    std::int64_t high = count - 1;
    while (low < high) {
        const std::int64_t middle = (low + high + 1) / 2;
        if (items[middle].*first <= unit) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

}  // namespace refit::kernels::cuda
