// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Decorator that damages what crosses, for the fault scenarios and the conformance suite.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "transport/transport.hpp"

namespace refit::transport {

struct TransportFault {
    enum class Kind {
        flip_byte,  ///< one bit of one payload byte
        truncate,   ///< the second half of the piece arrives as zeros
        reorder,    ///< bucket b arrives with the bytes of bucket b - 1 (where both have the same
                    ///< size) or rotated by one
    };
    Kind kind = Kind::flip_byte;
    std::size_t bucket = 0;
    std::uint64_t byte =
        0;  ///< offset in the piece, counted from its end when negative fits better; clamped
    int receiver = 0;  ///< which receiver sees the damage
    int trainer = -1;  ///< whose piece; -1: of the first trainer that sends in that bucket
};

/// Damages what `receive` returns on the receiver concerned; needs a private copy of that piece.
[[nodiscard]] std::unique_ptr<Transport> make_faulty_transport(std::unique_ptr<Transport> inner,
                                                               const Endpoint& endpoint,
                                                               std::vector<TransportFault> faults);

}  // namespace refit::transport
