// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// What the engine computes from loaded weights and keeps beside them: the two halves of kv_b_proj
// of multi-head latent attention.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/aligned_buffer.hpp"
#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/loaded_parameters.hpp"

namespace refit::receiver {

enum class DerivedKind {
    w_uv,   ///< [heads, kv_lora, v]: element (h, l, v) is row h * (nope + v dim) + nope + v, column
            ///< l
    w_uk_t  ///< [heads, nope, kv_lora]: element (h, p, l) is row h * (nope + v dim) + p, column l
};

/// One derived matrix stack on one rank, in BF16.
struct DerivedParameter {
    std::string name;  ///< "model.layers.0.self_attn.W_UV"
    DerivedKind kind = DerivedKind::w_uv;
    core::Shape shape;
    LatentProjection source;
};

/// Derived weights of one rank. Engines keep their address over a refit (captured graphs hold it)
/// and compute them anew when its last tensor has come; whoever forgets that serves new weights
/// with old attention. Source: vLLM 017e9f4448b7, vllm/model_executor/layers/attention.
class DerivedWeights {
 public:
    /// Allocates everything once, with 0xFF bytes, which are NaN; nothing without MLA. `instance`
    /// must outlive the object.
    explicit DerivedWeights(const ContractInstance& instance);
    /// Computes every matrix from `loaded`: code times scale in F32, then to BF16, to nearest and
    /// ties to even. A BF16 kv_b_proj is copied.
    void update(const LoadedParameters& loaded);

    [[nodiscard]] const std::vector<DerivedParameter>& parameters() const { return parameters_; }
    /// BF16 elements in row-major order of the parameter's shape.
    [[nodiscard]] std::span<const std::uint16_t> values(std::size_t parameter) const;
    /// By name; throws ShapeError that lists the names for an unknown one.
    [[nodiscard]] std::span<const std::uint16_t> values(const std::string& name) const;
    [[nodiscard]] std::uint64_t size_bytes() const { return memory_.size(); }
    /// All matrices, those of parameter i from offset(i) on: where they are computed elsewhere,
    /// this is their copy.
    [[nodiscard]] std::span<std::byte> memory() { return memory_.span(); }
    [[nodiscard]] std::size_t offset(std::size_t parameter) const { return offsets_.at(parameter); }
    /// size_bytes() of what an instance has.
    [[nodiscard]] static std::uint64_t bytes_of(const ContractInstance& instance);

 private:
    [[nodiscard]] std::uint16_t* begin(std::size_t parameter);

    const ContractInstance& instance_;
    std::vector<DerivedParameter> parameters_;
    std::vector<std::size_t> offsets_;  ///< in bytes
    core::AlignedBuffer memory_;
};

/// Findings of the check "version", one a projection with stale matrices, at the element of the
/// projection that the first wrong one is derived from: recomputes every element of `derived` from
/// the codes and scales in `loaded`, by another arithmetic than DerivedWeights (in double), and
/// compares the bits. `version` is that of `loaded`, for the message; `tp_rank` holds it.
[[nodiscard]] core::Findings check_derived(const ContractInstance& instance,
                                           const LoadedParameters& loaded,
                                           const DerivedWeights& derived, std::uint64_t version,
                                           int tp_rank);

}  // namespace refit::receiver
