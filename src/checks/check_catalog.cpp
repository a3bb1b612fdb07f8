// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/check_catalog.hpp"

namespace refit::checks {

const std::vector<CheckRow>& check_catalog() {
    static const std::vector<CheckRow> kRows = {
        {"shape_contract",
         "is every tensor of the rank, shape and TP cut that the engine's contract wants, fused "
         "pieces included",
         "the contract, with the model's config", true, true},
        {"names", "is no tensor missing, unknown or sent twice",
         "the contract, with the model's config", true, true},
        {"dtype", "has every tensor a dtype that the engine loads correctly",
         "the contract, with the model's config", true, true},
        {"completeness", "was every element of every destination written in this refit",
         "poison before, none after", true, true},
        {"nonfinite", "is there any NaN or Inf in source, scale or code, or any scale <= 0",
         "the values", true, true},
        {"digest", "did the bytes arrive that were sent",
         "digest made by the sender after quantizing", true, true},
        {"round_trip", "is every loaded element within the legal error of the source",
         "the weight source, read by a decoder of the check's own", true, true},
        {"sqnr", "is the error what the scheme gives on this data, within 0.05 dB",
         "an independent double-precision quantization of the same data", true, true},
        {"byte_identity", "do all replicas, and the same shard on all of them, hold the same bytes",
         "each other", true, true},
        {"source_unchanged", "did the trainer's resident weights stay as they were",
         "digest before and after", true, true},
        {"version", "do all ranks of all engines show the same, new version, none of them torn",
         "the commit", true, true},
        {"layer_output", "is y = x * W^T under dynamic activation quantization near the F32 one",
         "the product of the source in double precision, and an independent quantization", false,
         true},
    };
    return kRows;
}

std::vector<std::string> check_names() {
    std::vector<std::string> names;
    for (const CheckRow& row : check_catalog()) names.push_back(row.name);
    return names;
}

}  // namespace refit::checks
