// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Does the machine have what a case needs? Asked before anything starts.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/case_setup.hpp"
#include "harness/scenario.hpp"
#include "kernels/cuda/cuda_backend.hpp"

namespace refit::harness {

/// What a case needs, in bytes, by rank and in all.
struct CaseNeeds {
    std::uint64_t trainer_shards = 0;  ///< BF16 weights that all trainers hold: their parts of the
                                       ///< model, or of the largest bucket where not resident
    std::uint64_t transport_buffers = 0;  ///< of all ranks, shared memory included
    std::uint64_t receiver_copies = 0;  ///< destinations of all receivers, both copies when staged
    std::uint64_t audit = 0;            ///< work space
    std::uint64_t shared_memory = 0;    ///< of transport_buffers, what must fit into /dev/shm
    std::uint64_t staging = 0;          ///< locked host memory of backend cuda, of all trainers
    /// Device memory of all ranks: slots of backend cuda and of the device transports. What the
    /// driver takes for itself (some hundred MB a process) comes on top.
    std::uint64_t device_memory = 0;
    std::uint64_t device_memory_of_rank = 0;  ///< of the rank that needs most
    [[nodiscard]] std::uint64_t total() const {
        return trainer_shards + transport_buffers + receiver_copies + audit + staging;
    }
};

/// on_device : weights, pieces and parameters are memory of the device (device_residency.hpp), and
/// the host has only what is uploaded at a time and the copies that the audit reads.
[[nodiscard]] CaseNeeds needs_of(const Case& c, const CaseSetup& setup,
                                 const trainer::RefitPlan& plan, const std::string& transport,
                                 bool resident = true, bool on_device = false);

/// BF16 bytes that all trainers hold together when their weights are resident; what several hold
/// counts as often.
[[nodiscard]] std::uint64_t resident_bytes(const CaseSetup& setup);
/// `weights.resident: auto`: true when the trainers' parts on this node take at most kResidentShare
/// of the memory that is available. `share` as in check_needs.
inline constexpr double kResidentShare = 0.5;
[[nodiscard]] bool resident_fits(const CaseSetup& setup, double share);

/// Memory that processes may still use: MemAvailable, or less where a control group limits it.
[[nodiscard]] std::uint64_t available_memory_bytes();
[[nodiscard]] std::uint64_t available_shared_memory_bytes();

/// Throws ResourceError with need, have and remedy. `share` is the part of the needs that falls on
/// this node (1 = all).
void check_needs(const CaseNeeds& needs, double share);

/// Throws ResourceError where this rank's device has less than the needs that fall on it: `share`
/// of them is this node's and spread over its devices, but one rank's are never divided. What this
/// process holds already counts as free.
void check_device_needs(const CaseNeeds& needs, double share,
                        const kernels::cuda::DeviceMemory& memory);

/// "9.1 GB" (decimal).
[[nodiscard]] std::string bytes_text(std::uint64_t bytes);

}  // namespace refit::harness
