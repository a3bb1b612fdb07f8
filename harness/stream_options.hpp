// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Which framing, wire format and way of reloading go together, and how large each side's buffer is.
#pragma once

#include <cstdint>
#include <string>

#include "harness/case_setup.hpp"
#include "harness/scenario.hpp"

namespace refit::harness {

/// Throws ScenarioError that begins with `where` for keys that contradict each other whatever the
/// model is: a framing with several senders, with an engine that does not read it or with a format
/// that it does not carry; layerwise reload of another engine or of the engine's own format; a
/// fault that has nothing to strike.
void refuse_contradictions(const Case& c, const std::string& where);

/// The same where scheme and recipe decide: kernel format of an engine whose parameters change
/// after loading, scales in a type that a framing never sends, scalars of a scheme without any.
void refuse_unfit_payload(const Case& c, const CaseSetup& setup);

/// Bytes that the sender's framing compares with: transport.bucket_bytes, and for nemo-packed,
/// where that is not given, what follows from the trainer's device memory.
[[nodiscard]] std::uint64_t sender_buffer_bytes(const Case& c);
/// What the receiver with this index computes boundaries with: the same bucket_bytes, half of it
/// where the fault bucket_bytes_disagree strikes it, and for nemo-packed what follows from the
/// receiver's device memory, for there the sender's override does not reach it.
[[nodiscard]] std::uint64_t receiver_buffer_bytes(const Case& c, int receiver);

}  // namespace refit::harness
