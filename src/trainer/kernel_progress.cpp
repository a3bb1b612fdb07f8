// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/kernel_progress.hpp"

#include <algorithm>

namespace refit::trainer {

KernelProgress::KernelProgress(const KernelPlan& plan)
    : plan_(plan), bucket_of_(plan.uses.size(), 0) {
    for (std::size_t b = 0; b < plan.checkpoint.manifest.buckets.size(); ++b) {
        for (const wire::PieceEntry& entry : piece(b).entries) bucket_of_[entry.parameter] = b;
    }
    begin();
}

void KernelProgress::begin() {
    left_ = plan_.uses;
    made_.assign(plan_.uses.size(), false);
}

std::vector<std::size_t> KernelProgress::to_make(std::size_t parameter) const {
    if (made_[parameter]) return {};
    const wire::RefitManifest& manifest = plan_.checkpoint.manifest;
    const std::string& scale_of = manifest.parameters[parameter].scale_of;
    const std::int64_t weight = scale_of.empty() ? -1 : manifest.find(scale_of);
    if (weight >= 0 && !made_[static_cast<std::size_t>(weight)])
        return {static_cast<std::size_t>(weight), parameter};
    return {parameter};
}

const wire::PiecePlan& KernelProgress::piece(std::size_t bucket) const {
    return plan_.checkpoint.manifest.buckets[bucket].pieces.front();
}

std::uint64_t KernelProgress::largest_piece() const {
    std::uint64_t largest = 0;
    for (std::size_t b = 0; b < plan_.checkpoint.manifest.buckets.size(); ++b)
        largest = std::max(largest, piece(b).bytes);
    return largest;
}

}  // namespace refit::trainer
