// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What every transport must do, written once over the interface. A world is threads (loopback) or
// MPI ranks.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "transport/transport.hpp"
#include "transport/transport_catalog.hpp"

namespace refit::testing {

/// What a case may use on one rank. Failures are collected, not asserted: an assertion between two
/// collective calls would leave one rank behind.
struct RankContext {
    transport::Endpoint endpoint;  ///< on_wait throws when a case takes longer than a minute
    transport::TransportOptions
        options;  ///< name, hub and run_id are set; a case may change the rest
    /// Collective; makes the transport under test.
    std::function<std::unique_ptr<transport::Transport>(const transport::TransportOptions&,
                                                        const transport::Endpoint&)>
        make;
    std::function<void()> barrier;
    /// Events between ranks that do not go through the transport and make no progress in its
    /// library.
    std::function<void(const std::string&)> signal;
    std::function<bool(const std::string&)> signalled;
    std::vector<std::string> failures;

    void expect(bool ok, const std::string& what) {
        if (!ok && failures.size() < 8) failures.push_back(what);
    }
};

struct TransportCase {
    std::string name;
    void (*run)(RankContext&);
    /// The case leaves requests behind that nobody answers, so a world runs it last.
    bool last = false;
};
inline std::ostream& operator<<(std::ostream& out, const TransportCase& test) {
    return out << test.name;
}
[[nodiscard]] const std::vector<TransportCase>& transport_cases();

/// Byte i of what trainer t sends in a bucket: every byte value, float NaNs, no period that a chunk
/// or page has.
[[nodiscard]] std::byte payload_byte(int refit, std::size_t bucket, int trainer, std::uint64_t i);

}  // namespace refit::testing
