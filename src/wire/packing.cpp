// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/packing.hpp"

#include <algorithm>

#include "core/error.hpp"
#include "wire/piece.hpp"

namespace refit::wire {
namespace {

std::uint64_t align_up(std::uint64_t value) {
    return (value + kParameterAlignment - 1) / kParameterAlignment * kParameterAlignment;
}

/// Parameters that travel together: [first, last).
struct Unit {
    std::size_t first = 0;
    std::size_t last = 0;
    std::uint64_t bytes = 0;
    bool splittable = false;
};

std::uint64_t payload_of(const PlannedParameter& parameter) {
    std::int64_t elements = 0;
    for (const core::Region& region : parameter.regions_of_trainer) {
        elements += std::max<std::int64_t>(region.rows, 0) * std::max<std::int64_t>(region.cols, 0);
    }
    return static_cast<std::uint64_t>(elements * core::size_bytes(parameter.meta.dtype));
}

std::vector<Unit> units_of(const std::vector<PlannedParameter>& parameters) {
    std::vector<Unit> units;
    for (std::size_t i = 0; i < parameters.size(); ++i) {
        const bool joins =
            i > 0 && !parameters[i].unit.empty() && parameters[i].unit == parameters[i - 1].unit;
        if (!joins) units.push_back({i, i, 0, parameters[i].unit.empty()});
        units.back().last = i + 1;
        units.back().bytes += payload_of(parameters[i]);
    }
    return units;
}

/// The rows of part `index` of `count` equal parts of a rectangle.
core::RowRange part_of(const core::Region& region, std::int64_t index, std::int64_t count) {
    const std::int64_t total = std::max<std::int64_t>(region.rows, 0);
    return {region.row + total * index / count, region.row + total * (index + 1) / count};
}

class Packer {
 public:
    Packer(const std::vector<PlannedParameter>& parameters, std::uint64_t bucket_bytes,
           int trainers)
        : parameters_(parameters),
          bucket_bytes_(bucket_bytes),
          trainers_(static_cast<std::size_t>(trainers)) {
        for (const PlannedParameter& p : parameters) manifest_.parameters.push_back(p.meta);
    }

    RefitManifest run() {
        for (const Unit& unit : units_of(parameters_)) {
            if (unit.splittable && unit.bytes > bucket_bytes_) {
                split(unit);
            } else {
                if (filled_ > 0 && filled_ + unit.bytes > bucket_bytes_) open_ = false;
                for (std::size_t i = unit.first; i < unit.last; ++i) add(i, 0, 1);
                filled_ += unit.bytes;
            }
        }
        for (BucketPlan& bucket : manifest_.buckets) {
            for (PiecePlan& piece : bucket.pieces) lay_out(piece);
        }
        return std::move(manifest_);
    }

 private:
    void split(const Unit& unit) {
        // A row is the least that can travel: more parts than rows would leave empty buckets.
        std::int64_t most_rows = 1;
        for (const core::Region& region : parameters_[unit.first].regions_of_trainer) {
            most_rows = std::max(most_rows, region.rows);
        }
        const auto wanted =
            static_cast<std::int64_t>((unit.bytes + bucket_bytes_ - 1) / bucket_bytes_);
        const std::int64_t parts = std::min(wanted, most_rows);
        for (std::int64_t part = 0; part < parts; ++part) {
            open_ = false;
            add(unit.first, part, parts);
        }
        // The last part fills its bucket nearly; what follows opens the next one.
        filled_ = bucket_bytes_;
    }

    void add(std::size_t index, std::int64_t part, std::int64_t parts) {
        if (!open_) {
            manifest_.buckets.emplace_back().pieces.resize(trainers_);
            open_ = true;
            filled_ = 0;
        }
        const PlannedParameter& parameter = parameters_[index];
        for (std::size_t t = 0; t < trainers_; ++t) {
            const core::Region& region = parameter.regions_of_trainer[t];
            const core::RowRange rows = part_of(region, part, parts);
            if (rows.empty() || region.cols <= 0) continue;
            PieceEntry entry;
            entry.parameter = static_cast<std::uint32_t>(index);
            entry.rows = rows;
            entry.cols = {region.col, region.col + region.cols};
            entry.bytes = static_cast<std::uint64_t>(rows.count() * region.cols *
                                                     core::size_bytes(parameter.meta.dtype));
            manifest_.buckets.back().pieces[t].entries.push_back(entry);
        }
    }

    void lay_out(PiecePlan& piece) const {
        if (piece.entries.empty()) return;
        std::uint64_t offset = entries_offset(digest_count(manifest_, piece.entries));
        for (PieceEntry& entry : piece.entries) {
            entry.offset = align_up(offset);
            offset = entry.offset + entry.bytes;
            piece.payload_bytes += entry.bytes;
        }
        piece.bytes = align_up(offset);
    }

    const std::vector<PlannedParameter>& parameters_;
    std::uint64_t bucket_bytes_;
    std::size_t trainers_;
    RefitManifest manifest_;
    bool open_ = false;
    std::uint64_t filled_ = 0;
};

}  // namespace

RefitManifest pack(const std::vector<PlannedParameter>& parameters, std::uint64_t bucket_bytes,
                   int trainers) {
    return Packer(parameters, std::max<std::uint64_t>(bucket_bytes, 1), trainers).run();
}

std::vector<FramedTensor> framed_tensors(const std::vector<ParameterMeta>& parameters) {
    std::vector<FramedTensor> tensors;
    for (const ParameterMeta& meta : parameters)
        tensors.push_back({meta.name, meta.dtype, meta.shape, layer_in_name(meta.name)});
    return tensors;
}

RefitManifest pack_framed(const std::vector<PlannedParameter>& parameters, Framing framing,
                          std::uint64_t buffer_bytes) {
    RefitManifest manifest;
    for (const PlannedParameter& parameter : parameters) {
        if (parameter.regions_of_trainer.size() != 1) {
            throw core::ScenarioError(
                "transport.framing " + framing_row(framing).name + ": " + parameter.meta.name +
                " is held by " + std::to_string(parameter.regions_of_trainer.size()) +
                " trainers; this framing has one sender of whole tensors: set trainer.ranks to 1");
        }
        manifest.parameters.push_back(parameter.meta);
    }
    for (const FramedBucket& framed :
         frame(framing, framed_tensors(manifest.parameters), buffer_bytes)) {
        PiecePlan piece;
        for (const FramedRange& range : framed.ranges) {
            const ParameterMeta& meta = manifest.parameters[range.tensor];
            PieceEntry entry;
            entry.parameter = static_cast<std::uint32_t>(range.tensor);
            entry.rows = {0, meta.rows()};
            entry.cols = {0, meta.cols()};
            entry.offset = range.offset;
            entry.bytes = range.bytes;
            piece.entries.push_back(entry);
        }
        const std::uint64_t base = entries_offset(digest_count(manifest, piece.entries));
        for (PieceEntry& entry : piece.entries) entry.offset += base;
        piece.payload_bytes = framed.bytes;
        piece.bytes = align_up(base + framed.bytes);
        manifest.buckets.push_back({{std::move(piece)}});
    }
    return manifest;
}

}  // namespace refit::wire
