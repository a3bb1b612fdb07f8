// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// SGLang without quantization.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract sglang_bf16_contract() {
    EngineContract contract = sglang_contract("sglang-bf16", false, "");
    contract.schemes = {quant::Scheme::bf16};
    return contract;
}

}  // namespace refit::receiver
