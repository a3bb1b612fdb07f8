// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/scenario.hpp"

namespace refit::harness {

const std::vector<FaultRow>& fault_catalog() {
    static const std::vector<FaultRow> kRows = {
        {"flip_byte",
         "one bit of one payload byte changes on the way to one receiver",
         "digest",
         {"receiver", "bucket"}},
        {"truncate",
         "the second half of one piece arrives as zeros at one receiver",
         "digest",
         {"receiver", "bucket"}},
        {"drop_tensor",
         "the trainers leave a tensor out of the manifest and of the buckets",
         "names",
         {"tensor"}},
        {"rename_scale",
         "a scale travels under the other name: weight_scale for weight_scale_inv and the reverse",
         "names",
         {"tensor"}},
        {"scale_dtype", "a scale travels as uint8 instead of float32", "dtype", {"tensor"}},
        {"scale_doubled",
         "a scale is doubled after quantizing and before its digest",
         "round_trip",
         {"tensor"}},
        {"swap_tensors",
         "two tensors of equal shape exchange their values; the pattern must match two",
         "round_trip",
         {"tensor"}},
        {"skip_load",
         "one receiver does not load a tensor that arrived",
         "completeness",
         {"tensor", "receiver"}},
        {"replica_flip",
         "one receiver changes a bit of a loaded weight after its digest was checked",
         "byte_identity",
         {"tensor", "receiver"}},
        {"forget_commit",
         "one receiver keeps the old version when the others commit",
         "version",
         {"receiver"}},
        {"stale_derived",
         "one receiver keeps the W_UV and W_UK_T of its first refit; needs latent attention and "
         "refits: 2",
         "version",
         {"receiver"}},
        {"source_write",
         "the first trainer writes into its own weights during the refit",
         "source_unchanged",
         {"tensor"}},
        {"wrong_eligibility",
         "the trainers quantize a tensor that the engine wants in BF16, or keep one that it wants "
         "in FP8",
         "dtype",
         {"tensor"}},
        {"kill",
         "a rank is ended by SIGKILL in a stage; the run ends with an error that names both",
         "error",
         {"rank", "stage", "bucket", "iteration"}},
        {"stop",
         "a rank is stopped by SIGSTOP in a stage; the run ends with an error that names both",
         "error",
         {"rank", "stage", "bucket", "iteration"}},
        {"throw",
         "a rank throws in a stage; all ranks leave together with its message",
         "error",
         {"rank", "stage", "bucket", "iteration"}},
    };
    return kRows;
}

}  // namespace refit::harness
