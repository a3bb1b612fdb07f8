// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Framings: the rules by which the field's senders cut a list of tensors into messages.
//
// `native` is our own (wire/packing.hpp). The others reproduce where an original draws its
// boundaries and at which byte of a message each tensor begins, hazards included: no padding, no
// alignment. None of them sends a digest, a version or an end marker; this program carries its own
// in front of each message, outside of the bytes that the original has.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/dtype.hpp"
#include "core/shape.hpp"

namespace refit::wire {

enum class Framing : std::uint8_t {
    native,
    vllm_packed,
    vllm_ipc,
    sglang_bucket,
    nemo_packed,
    prime_rl
};

/// One tensor of the list that a sender walks, in its order.
struct FramedTensor {
    std::string name;
    core::DType dtype = core::DType::bf16;
    core::Shape shape;
    int layer = -1;  ///< number of the decoder layer it belongs to; -1 outside of them

    [[nodiscard]] std::uint64_t bytes() const {
        return static_cast<std::uint64_t>(core::element_count(shape) * core::size_bytes(dtype));
    }
};

/// Where one tensor stands in its message.
struct FramedRange {
    std::size_t tensor = 0;    ///< index into the list
    std::uint64_t offset = 0;  ///< bytes from the start of the message
    std::uint64_t bytes = 0;
};

/// One message: tensors side by side without padding.
struct FramedBucket {
    std::vector<FramedRange> ranges;
    std::uint64_t bytes = 0;
};

/// What the catalogue says of a framing.
struct FramingRow {
    std::string name;
    Framing framing = Framing::native;
    std::string rule;    ///< where a message ends
    std::string hazard;  ///< what goes wrong with the original
    /// What the original sends beside the messages' own bytes, of which only those are played and
    /// counted.
    std::string uncounted;
    std::string source;
    std::string engines;  ///< prefix of the engines that read it; "" = every one
    /// The receiver computes the boundaries again from its own settings.
    bool recomputed = false;
    /// The receiver takes a view of another type at the byte offset, which must divide.
    bool views_bytes = false;
    /// The sender takes a byte view, which a tensor without dimensions does not have.
    bool refuses_scalars = false;
    /// Can carry the engine's own fused parameters.
    bool kernel_format = false;
};
[[nodiscard]] const std::vector<FramingRow>& framing_catalog();
[[nodiscard]] std::vector<std::string> framing_names();
/// Throws UsageError that lists the nearest names.
[[nodiscard]] const FramingRow& find_framing(const std::string& name);
[[nodiscard]] const FramingRow& framing_row(Framing framing);

/// Cuts a list into messages; pure. `buffer_bytes` is what the rule compares with and is not used
/// by prime_rl. Throws ScenarioError with the original's text where the rule refuses a tensor
/// (vllm_ipc: larger than the buffer), ShapeError for `native`, which has no such rule.
[[nodiscard]] std::vector<FramedBucket> frame(Framing framing,
                                              const std::vector<FramedTensor>& tensors,
                                              std::uint64_t buffer_bytes);

/// NeMo-RL's buffer for a device with this much memory: 2 % of it, at most 5 GiB. The part of 2 %
/// is taken in double precision and cut to an integer, as the original does.
[[nodiscard]] std::uint64_t nemo_buffer_bytes(std::uint64_t device_memory_bytes);

/// Decoder layer in a tensor's name, "model.layers.7.mlp.up_proj.weight" -> 7; -1 without one.
[[nodiscard]] int layer_in_name(std::string_view name);

/// What PyTorch calls a type in its messages: "Float", "BFloat16", "Byte", "Float8_e4m3fn".
[[nodiscard]] std::string torch_type_name(core::DType dtype);

/// PyTorch's text for a byte view at an offset that the element size does not divide; empty where
/// it divides.
[[nodiscard]] std::string misaligned_view_text(core::DType dtype, std::uint64_t offset);
/// PyTorch's text for the byte view of a tensor without dimensions; empty where that works: one
/// byte an element needs no change of size.
[[nodiscard]] std::string scalar_view_text(core::DType dtype);

}  // namespace refit::wire
