// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// vLLM without quantization.
#include "receiver/engines/engines.hpp"

namespace refit::receiver {

EngineContract vllm_bf16_contract() {
    EngineContract contract = vllm_contract("vllm-bf16", false, "");
    contract.schemes = {quant::Scheme::bf16};
    return contract;
}

}  // namespace refit::receiver
