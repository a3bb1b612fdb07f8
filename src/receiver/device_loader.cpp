// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/device_loader.hpp"

#include <algorithm>
#include <bit>
#include <chrono>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "receiver/loader_state.hpp"

namespace refit::receiver {
namespace {

using Clock = std::chrono::steady_clock;
using core::DType;
using kernels::cuda::DeviceQueue;
using kernels::cuda::ValueType;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

std::optional<ValueType> value_type(DType dtype) {
    switch (dtype) {
        case DType::f32:
            return ValueType::f32;
        case DType::bf16:
            return ValueType::bf16;
        case DType::f16:
            return ValueType::f16;
        case DType::f8_e8m0:
        case DType::u8:
            return ValueType::e8m0;
        default:
            return std::nullopt;
    }
}

const std::uint8_t* as_bytes(const std::byte* pointer) {
    return reinterpret_cast<const std::uint8_t*>(pointer);
}

}  // namespace

std::string why_not_on_device(const ContractInstance& instance) {
    if (!instance.latent.empty())
        return "the engine derives matrices from kv_b_proj after each load, on the host";
    const bool cache_scales =
        std::any_of(instance.destinations.begin(), instance.destinations.end(),
                    [](const DestinationParameter& one) { return one.is_cache_scale; });
    if (cache_scales) return "the engine keeps host copies of the scales of its KV cache";
    return {};
}

struct DeviceLoader::Device {
    std::unique_ptr<DeviceQueue> queue;
    DestinationPlaces places;
    std::vector<std::unique_ptr<kernels::cuda::DeviceBlock>> copies;
    std::optional<LoadedParameters> mirror;
    bool mirrored = false;  ///< the mirror holds copy `mirrored_visible` of `mirrored_version`
    std::size_t mirrored_visible = 0;
    std::uint64_t mirrored_version = 0;
    std::uint64_t audited = 0;
    kernels::cuda::DeviceTraffic before_refits;  ///< of the queue, when the loader took it

    Device(const ContractInstance& instance, CommitMode mode, std::unique_ptr<DeviceQueue> own)
        : queue(std::move(own)), places(instance) {
        const int count = mode == CommitMode::staged ? 2 : 1;
        for (int i = 0; i < count; ++i) copies.push_back(queue->allocate(places.total_bytes()));
        before_refits = queue->traffic();
    }
    [[nodiscard]] std::uint8_t* bytes(std::size_t copy, std::size_t destination) const {
        return reinterpret_cast<std::uint8_t*>(copies[copy]->data()) +
               places.range(destination).offset;
    }
};

/// What is to be done with one piece: every cell that this rank keeps, looked at and then written.
struct DeviceLoader::Work {
    struct OneCell {
        const wire::ParameterMeta* meta = nullptr;
        std::uint32_t parameter = 0;
        wire::Cell cell;
        wire::DigestRecord record;
        std::size_t span = 0;
        bool skip = false;
        bool flip = false;
        std::int64_t scales = -1;  ///< index into `scales`, or -1
        std::uint8_t* to = nullptr;
        std::int64_t to_stride = 0;
        std::int64_t element = 0;  ///< bytes of the destination's
        std::optional<kernels::cuda::ValueRectangle> converted;
    };
    std::vector<OneCell> cells;
    std::map<std::size_t, std::vector<core::Region>> coming;  ///< by span
    std::vector<kernels::cuda::DigestJob> jobs;               ///< by cell
    std::vector<numerics::Xxh128> digests;
    std::vector<kernels::cuda::ValueRectangle> scales;
    std::vector<kernels::cuda::UnusableScales> unusable;

    /// `job` are the bytes of the cell, `base` is where its destination begins.
    void add(const kernels::cuda::DigestJob& job, OneCell one, bool is_scale,
             const DestinationParameter& target, std::uint8_t* base, const LoadSpan& span) {
        const core::Region& region = one.cell.region;
        one.element = core::size_bytes(target.dtype);
        one.to_stride = target.cols() * one.element;
        one.to = base + (span.dest_row + region.row - span.source.row) * one.to_stride +
                 (span.dest_col + region.col - span.source.col) * one.element;
        const bool converts = one.meta->dtype != target.dtype;
        const auto from_type = value_type(one.meta->dtype);
        if (from_type && (is_scale || converts)) {
            kernels::cuda::ValueRectangle values;
            values.from = job.data;
            values.from_stride = job.stride;
            values.from_type = *from_type;
            values.rows = region.rows;
            values.cols = region.cols;
            if (is_scale) {
                one.scales = static_cast<std::int64_t>(scales.size());
                scales.push_back(values);
            }
            values.to = one.to;
            values.to_stride = one.to_stride;
            values.to_type = target.dtype == DType::f32 ? ValueType::f32 : ValueType::bf16;
            if (converts) one.converted = values;
        }
        jobs.push_back(job);
        cells.push_back(std::move(one));
    }
};

DeviceLoader::DeviceLoader(const ContractInstance& instance, const wire::RefitManifest& manifest,
                           int tp_rank, CommitMode mode, LoadFaults faults,
                           std::unique_ptr<DeviceQueue> queue,
                           const std::function<void()>& on_progress)
    : WeightLoader(instance, manifest, tp_rank, mode, std::move(faults), std::size_t{0},
                   on_progress) {
    const std::string why_not = why_not_on_device(instance);
    if (queue == nullptr || !why_not.empty()) {
        throw core::ShapeError("device loader of " + instance.engine + ": " +
                               (queue == nullptr ? "there is no CUDA device" : why_not) +
                               "; use WeightLoader");
    }
    device_ = std::make_unique<Device>(instance, mode, std::move(queue));
    // Both copies are poisoned from the start, as those of host memory are.
    for (std::size_t i = 0; i < device_->copies.size(); ++i) {
        state_->visible = i;
        poison(on_progress);
    }
    state_->visible = 0;
}

DeviceLoader::~DeviceLoader() = default;

void DeviceLoader::poison(const std::function<void()>& on_progress) {
    const std::size_t copy = state_->target_index(device_->copies.size());
    DeviceQueue& queue = *device_->queue;
    queue.set_bytes(device_->copies[copy]->data(), 0xFF, device_->places.total_bytes());
    for (std::size_t i = 0; i < instance_.destinations.size(); ++i) {
        if (!instance_.destinations[i].is_scale) continue;
        queue.set_words(device_->bytes(copy, i),
                        std::bit_cast<std::uint32_t>(std::numeric_limits<float>::lowest()),
                        static_cast<std::int64_t>(device_->places.range(i).bytes / sizeof(float)));
    }
    queue.wait();
    if (copy == state_->visible) device_->mirrored = false;
    if (on_progress) on_progress();
}

void DeviceLoader::zero_padding(std::size_t destination, std::size_t from) {
    const std::size_t copy = state_->target_index(device_->copies.size());
    const std::size_t bytes = device_->places.range(destination).bytes;
    if (from >= bytes) return;
    device_->queue->set_bytes(device_->bytes(copy, destination) + from, 0, bytes - from);
    device_->queue->wait();
}

void DeviceLoader::collect(const wire::PieceView& view, const wire::PiecePlan& plan,
                           std::span<const std::byte> piece, const std::string& place, Work& work) {
    State& state = *state_;
    Reporter report{findings_, state.reported, state.failed, instance_.own_format};
    const std::size_t copy = state.target_index(device_->copies.size());
    std::size_t next_digest = 0;
    for (const wire::PieceEntry& entry : plan.entries) {
        const wire::ParameterMeta& meta = manifest_.parameters[entry.parameter];
        const State::Plan& own = state.plans[entry.parameter];
        const core::Region sent = entry.region(meta);
        const std::vector<wire::Cell> cells = wire::cells_in_region(meta, sent);
        const std::size_t first_digest = std::exchange(next_digest, next_digest + cells.size());
        const std::int64_t size = core::size_bytes(meta.dtype);
        const std::uint8_t* bytes = as_bytes(piece.data()) + entry.offset;
        for (std::size_t k = 0; k < cells.size(); ++k) {
            const core::Region& region = cells[k].region;
            report.cell = cells[k].index;
            for (const std::size_t index : own.spans) {
                const LoadSpan& span = state.spans[index];
                if (span.cell != cells[k].index) continue;
                // Also against what this piece itself brings, of which nothing is written yet.
                const auto hits = [&](const core::Region& other) { return overlap(region, other); };
                const std::vector<core::Region>& written = state.written[index];
                std::vector<core::Region>& coming = work.coming[index];
                const bool twice = std::any_of(written.begin(), written.end(), hits) ||
                                   std::any_of(coming.begin(), coming.end(), hits);
                if (twice) {
                    const std::string rows = range_text(region.row, region.row + region.rows);
                    report.error("completeness", meta.name,
                                 index_of(meta.shape, region.row, region.col),
                                 "rows " + rows + " twice", "each row once",
                                 "rows " + rows + " came again in " + place,
                                 "send each row of a tensor once a refit");
                    continue;
                }
                if (!own.skip) coming.push_back(region);
                Work::OneCell one;
                one.meta = &meta;
                one.parameter = entry.parameter;
                one.cell = cells[k];
                one.record = view.digests()[first_digest + k];
                one.span = index;
                one.skip = own.skip;
                one.flip = own.flip;
                kernels::cuda::DigestJob job;
                job.stride = sent.cols * size;
                job.data =
                    bytes + (region.row - sent.row) * job.stride + (region.col - sent.col) * size;
                job.rows = region.rows;
                job.row_bytes = region.cols * size;
                work.add(job, one, own.is_scale, instance_.destinations[span.destination],
                         device_->bytes(copy, span.destination), span);
            }
        }
    }
}

void DeviceLoader::judge(Work& work, const std::string& place) {
    State& state = *state_;
    Reporter report{findings_, state.reported, state.failed, instance_.own_format};
    DeviceQueue& queue = *device_->queue;
    work.digests.resize(work.jobs.size());
    work.unusable.resize(work.scales.size());
    queue.digest(work.jobs, work.digests.data());
    queue.look_at_scales(work.scales, work.unusable.data());
    queue.wait();
    for (std::size_t i = 0; i < work.cells.size(); ++i) {
        const Work::OneCell& one = work.cells[i];
        const wire::ParameterMeta& meta = *one.meta;
        const core::Region& region = one.cell.region;
        report.cell = one.cell.index;
        const wire::Digest found{work.digests[i].low, work.digests[i].high};
        if (one.record.parameter != one.parameter || one.record.cell != one.cell.index ||
            !(one.record.digest == found)) {
            report.error("digest", meta.name, index_of(meta.shape, region.row, region.col),
                         wire::to_string(found), wire::to_string(one.record.digest),
                         "the bytes of rows " + range_text(region.row, region.row + region.rows) +
                             ", columns " + range_text(region.col, region.col + region.cols) +
                             " that came in " + place + " have digest " + wire::to_string(found) +
                             ", the trainer sent " + wire::to_string(one.record.digest),
                         "check the transport and the sender's buffers");
            continue;
        }
        if (one.scales < 0) continue;
        const auto index = static_cast<std::size_t>(one.scales);
        const kernels::cuda::UnusableScales& bad = work.unusable[index];
        if (bad.count == 0) continue;
        const kernels::cuda::ValueRectangle& values = work.scales[index];
        const auto first = static_cast<std::int64_t>(bad.first);
        const std::int64_t row = first / values.cols;
        const std::int64_t col = first % values.cols;
        std::uint8_t bytes[4] = {};
        const std::int64_t size = size_of(values.from_type);
        queue.download(bytes, values.from + row * values.from_stride + col * size,
                       static_cast<std::size_t>(size), DeviceQueue::Purpose::control);
        const float value = kernels::cuda::load_value(bytes, values.from_type);
        report.error("nonfinite", meta.name,
                     index_of(meta.shape, region.row + row, region.col + col),
                     std::to_string(value), "finite and above 0",
                     std::to_string(bad.count) + " of the scales in " + place +
                         " are not usable, the first is " + std::to_string(value),
                     "repair the quantizer or its input");
    }
}

void DeviceLoader::write(const Work& work) {
    State& state = *state_;
    DeviceQueue& queue = *device_->queue;
    std::vector<kernels::cuda::PlacedRectangle> placed;
    std::vector<kernels::cuda::ValueRectangle> converted;
    for (std::size_t i = 0; i < work.cells.size(); ++i) {
        const Work::OneCell& one = work.cells[i];
        if (one.skip) continue;
        const kernels::cuda::DigestJob& job = work.jobs[i];
        state.written[one.span].push_back(one.cell.region);
        const std::int64_t elements = one.cell.region.rows * one.cell.region.cols;
        state.loaded_bytes += static_cast<std::uint64_t>(
            elements * (core::size_bytes(one.meta->dtype) + one.element));
        if (one.converted) {
            converted.push_back(*one.converted);
        } else {
            placed.push_back(
                {job.data, job.stride, one.to, one.to_stride, job.rows, job.row_bytes, 0});
        }
    }
    queue.place(placed);
    queue.convert(converted);
    queue.wait();
    for (const Work::OneCell& one : work.cells) {
        if (!one.flip || one.skip || state.flipped) continue;
        // A planted bit, as WeightLoader plants it.
        state.flipped = true;
        std::uint8_t byte = 0;
        queue.download(&byte, one.to + one.element - 1, 1, DeviceQueue::Purpose::control);
        byte ^= 0x10;
        queue.upload(one.to + one.element - 1, &byte, 1, DeviceQueue::Purpose::control);
    }
}

void DeviceLoader::load_piece(std::uint32_t bucket, std::uint32_t trainer,
                              std::span<const std::byte> piece,
                              const std::function<void()>& on_progress, LoadTimes& times) {
    const wire::PiecePlan& plan = plan_of(bucket, trainer);
    if (plan.entries.empty() && piece.empty()) return;
    const auto start = Clock::now();
    const std::string place =
        "bucket " + std::to_string(bucket) + " of trainer " + std::to_string(trainer);
    const std::uint64_t head_bytes =
        wire::entries_offset(wire::digest_count(manifest_, plan.entries));
    std::vector<std::byte> head(std::min<std::uint64_t>(head_bytes, piece.size()));
    device_->queue->download(head.data(), piece.data(), head.size(), DeviceQueue::Purpose::control);
    const std::optional<wire::PieceView> view = opened(bucket, trainer, head, piece.size());
    if (!view) {
        times.check_s += seconds_since(start);
        return;
    }
    Work work;
    collect(*view, plan, piece, place, work);
    try {
        judge(work, place);
        times.check_s += seconds_since(start);
        if (on_progress) on_progress();
        if (state_->failed) return;
        const auto checked = Clock::now();
        write(work);
        times.load_s += seconds_since(checked);
    } catch (...) {
        // What was asked for would be written into `work`.
        device_->queue->abandon();
        throw;
    }
    if (on_progress) on_progress();
}

const LoadedParameters& DeviceLoader::loaded() const {
    Device& device = *device_;
    if (!device.mirror) device.mirror.emplace(instance_);
    if (device.mirrored && device.mirrored_visible == state_->visible &&
        device.mirrored_version == version_)
        return *device.mirror;
    for (std::size_t i = 0; i < instance_.destinations.size(); ++i) {
        const std::span<std::byte> to = device.mirror->bytes(i);
        device.queue->download(to.data(), device.bytes(state_->visible, i), to.size(),
                               DeviceQueue::Purpose::weights);
        device.audited += to.size();
    }
    device.mirrored = true;
    device.mirrored_visible = state_->visible;
    device.mirrored_version = version_;
    return *device.mirror;
}

const void* DeviceLoader::address() const {
    return device_->copies[state_->visible]->data();
}

kernels::cuda::DeviceTraffic DeviceLoader::refit_traffic() const {
    kernels::cuda::DeviceTraffic traffic = device_->queue->traffic();
    traffic.weights -= device_->audited + device_->before_refits.weights;
    traffic.control -= device_->before_refits.control;
    return traffic;
}

std::uint64_t DeviceLoader::audited_bytes() const {
    return device_->audited;
}

}  // namespace refit::receiver
