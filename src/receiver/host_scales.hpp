// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The host's copies of KV-cache scales (k_scale_float and v_scale_float), which attention backends
// pass to their kernels as numbers instead of reading the parameter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/loaded_parameters.hpp"

namespace refit::receiver {

class HostScales {
 public:
    struct Copy {
        std::size_t destination = 0;
        float value = 0.0F;
    };

    /// One copy for each scale of the KV cache, NaN until the first update.
    explicit HostScales(const ContractInstance& instance);
    /// Takes every value from the loaded parameters, as engines do when they process weights after
    /// loading. Source: vLLM 017e9f4448b7 and SGLang 8905cbd42f4a, layers/quantization/kv_cache.py.
    void update(const LoadedParameters& loaded);
    /// The same with the values themselves, in the order of copies().
    void update(std::span<const float> values);
    [[nodiscard]] const std::vector<Copy>& copies() const { return copies_; }

 private:
    std::vector<Copy> copies_;
};

/// Findings of the check version, one a copy that is not the loaded parameter's value. `version` is
/// that of `loaded`, for the message.
[[nodiscard]] core::Findings check_host_scales(const ContractInstance& instance,
                                               const LoadedParameters& loaded,
                                               const HostScales& host, std::uint64_t version);

}  // namespace refit::receiver
