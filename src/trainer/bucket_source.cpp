// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "trainer/bucket_source.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "trainer/source_read.hpp"

namespace refit::trainer {

std::uint64_t BucketSource::largest_bucket(const wire::RefitManifest& manifest,
                                           std::size_t trainer) {
    std::uint64_t largest = 0;
    for (const wire::BucketPlan& bucket : manifest.buckets) {
        std::uint64_t bytes = 0;
        for (const wire::PieceEntry& entry : bucket.pieces[trainer].entries) {
            const wire::ParameterMeta& meta = manifest.parameters[entry.parameter];
            // Scales are made from their weight's values.
            if (meta.kind != wire::ParameterKind::scale) bytes += source_bytes(entry.region(meta));
        }
        largest = std::max(largest, bytes);
    }
    return largest;
}

BucketSource::BucketSource(const std::vector<model::TensorSpec>& tensors, const RefitPlan& plan,
                           int trainer, const weights::WeightSource& source)
    : tensors_(tensors),
      plan_(plan),
      source_(source),
      trainer_(static_cast<std::size_t>(trainer)),
      memory_(largest_bucket(plan.manifest, trainer_)) {}

void BucketSource::read(std::size_t bucket, const std::function<void()>& on_progress) {
    parts_.clear();
    std::vector<Part> parts;
    std::size_t offset = 0;
    for (const wire::PieceEntry& entry : plan_.manifest.buckets[bucket].pieces[trainer_].entries) {
        const wire::ParameterMeta& meta = plan_.manifest.parameters[entry.parameter];
        if (meta.kind == wire::ParameterKind::scale) continue;
        const Part part{plan_.productions[entry.parameter].tensor, entry.region(meta), offset};
        read_region(source_, tensors_[part.tensor], part.region,
                    reinterpret_cast<std::uint16_t*>(memory_.data() + offset), on_progress);
        offset += source_bytes(part.region);
        parts.push_back(part);
    }
    parts_ = std::move(parts);
}

Values BucketSource::values(std::size_t tensor, const core::Region& region) const {
    for (const Part& part : parts_) {
        if (part.tensor != tensor) continue;
        const core::Region& own = part.region;
        require_within(region, own, tensor);
        const std::int64_t first = (region.row - own.row) * own.cols + region.col - own.col;
        return {reinterpret_cast<const std::uint16_t*>(memory_.data() + part.offset) + first,
                own.cols};
    }
    throw core::ShapeError("the trainer was asked for values of tensor number " +
                           std::to_string(tensor) +
                           ", which are not in the bucket that was read last; read the bucket "
                           "before it is gathered and filled");
}

}  // namespace refit::trainer
