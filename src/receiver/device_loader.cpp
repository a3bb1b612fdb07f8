// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/device_loader.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <map>
#include <optional>
#include <utility>
#include <vector>

#include "core/error.hpp"
#include "receiver/load_clock.hpp"
#include "receiver/loader_findings.hpp"
#include "receiver/loader_state.hpp"

namespace refit::receiver {
namespace {

using core::DType;
using kernels::cuda::DeviceQueue;
using kernels::cuda::ValueType;

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

/// The first of the scales of `values` that cannot be used, brought to the host: `unusable` says
/// where it lies. The rectangle is that of `cell`.
BadScales fetch_bad_scales(DeviceQueue& queue, const IncomingCell& cell,
                           const kernels::cuda::ValueRectangle& values,
                           const kernels::cuda::UnusableScales& unusable) {
    const auto first = static_cast<std::int64_t>(unusable.first);
    const std::int64_t row = first / values.cols;
    const std::int64_t col = first % values.cols;
    const std::int64_t size = size_of(values.from_type);
    std::uint8_t bytes[4] = {};
    queue.download(bytes, values.from + row * values.from_stride + col * size,
                   static_cast<std::size_t>(size), DeviceQueue::Purpose::control);
    BadScales bad;
    bad.count = static_cast<std::int64_t>(unusable.count);
    bad.row = cell.region.row + row;
    bad.col = cell.region.col + col;
    bad.value = kernels::cuda::load_value(bytes, values.from_type);
    return bad;
}

}  // namespace

std::string why_not_on_device(const ContractInstance& instance) {
    for (const LatentProjection& latent : instance.latent) {
        const DestinationParameter& weight = instance.destinations.at(latent.destination);
        if (weight.granularity == Granularity::none) continue;
        const DestinationParameter& scale =
            instance.destinations.at(static_cast<std::size_t>(weight.scale));
        if (weight.dtype == DType::f8_e4m3 && scale.dtype == DType::f32) continue;
        return "the engine derives matrices from " + weight.name + ", " +
               std::string(core::safetensors_name(weight.dtype)) + " with scales of " +
               std::string(core::safetensors_name(scale.dtype)) +
               ", on the host; E4M3 with F32 scales and BF16 are derived on the device";
    }
    return {};
}

struct DeviceLoader::Device {
    std::unique_ptr<DeviceQueue> queue;
    DestinationPlaces places;
    std::vector<std::unique_ptr<kernels::cuda::DeviceBlock>> copies;
    std::unique_ptr<kernels::cuda::DeviceBlock> derived;      ///< as DerivedWeights::memory()
    std::unique_ptr<kernels::cuda::DeviceBlock> host_scales;  ///< F32, by copy of HostScales
    bool derived_mirrored = true;  ///< before anything is derived both are poison
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
        derived = queue->allocate(DerivedWeights::bytes_of(instance));
        queue->set_bytes(derived->data(), 0xFF, derived->size());
        host_scales = queue->allocate(instance.destinations.size() * sizeof(float));
        before_refits = queue->traffic();
    }
    [[nodiscard]] std::uint8_t* bytes(std::size_t copy, std::size_t destination) const {
        return reinterpret_cast<std::uint8_t*>(copies[copy]->data()) +
               places.range(destination).offset;
    }
    /// How a derived matrix stack is made from the visible copy.
    [[nodiscard]] kernels::cuda::DeriveJob derive_job(const ContractInstance& instance,
                                                      const State& state,
                                                      std::size_t parameter) const {
        const DerivedParameter& derived_one = state.derived.parameters()[parameter];
        const LatentProjection& latent = derived_one.source;
        const DestinationParameter& weight = instance.destinations.at(latent.destination);
        const bool is_uv = derived_one.kind == DerivedKind::w_uv;
        kernels::cuda::DeriveJob job;
        job.weight = bytes(state.visible, latent.destination);
        job.cols = weight.cols();
        job.heads = latent.heads;
        job.head_rows = latent.nope_dim + latent.v_dim;
        job.first = is_uv ? latent.nope_dim : 0;
        job.count = is_uv ? latent.v_dim : latent.nope_dim;
        job.transposed = is_uv;
        job.out =
            reinterpret_cast<std::uint16_t*>(derived->data() + state.derived.offset(parameter));
        if (weight.granularity == Granularity::none) return job;
        const auto scale = static_cast<std::size_t>(weight.scale);
        const bool blocks = weight.granularity == Granularity::block;
        const bool rows = weight.granularity == Granularity::channel;
        job.scale_inv = reinterpret_cast<const float*>(bytes(state.visible, scale));
        job.block_rows = blocks ? weight.block_rows : (rows ? 1 : weight.rows());
        job.block_cols = blocks ? weight.block_cols : weight.cols();
        job.scale_cols = blocks ? instance.destinations[scale].cols() : 1;
        return job;
    }
};

/// What is to be done with one piece: every cell that this rank keeps, looked at and then written.
struct DeviceLoader::Work {
    struct OneCell {
        IncomingCell in;
        std::uint8_t* to = nullptr;
        std::int64_t scales = -1;  ///< index into `scales`, or -1
        std::optional<kernels::cuda::ValueRectangle> converted;
    };
    std::vector<OneCell> cells;
    std::map<std::size_t, std::vector<core::Region>> coming;  ///< by span
    std::vector<kernels::cuda::DigestJob> jobs;               ///< by cell
    std::vector<numerics::Xxh128> digests;
    std::vector<kernels::cuda::ValueRectangle> scales;
    std::vector<kernels::cuda::UnusableScales> unusable;

    /// `piece` and `destination` are where those begin.
    void add(const IncomingCell& in, const std::byte* piece, std::uint8_t* destination) {
        OneCell one;
        one.in = in;
        one.to = destination + in.to_offset;
        kernels::cuda::DigestJob job;
        job.data = reinterpret_cast<const std::uint8_t*>(piece) + in.from_offset;
        job.stride = in.from_stride;
        job.rows = in.region.rows;
        job.row_bytes = in.row_bytes();
        const auto from_type = value_type(in.meta->dtype);
        if (from_type && (in.is_scale || in.converts())) {
            kernels::cuda::ValueRectangle values;
            values.from = job.data;
            values.from_stride = job.stride;
            values.from_type = *from_type;
            values.rows = in.region.rows;
            values.cols = in.region.cols;
            if (in.is_scale) {
                one.scales = static_cast<std::int64_t>(scales.size());
                scales.push_back(values);
            }
            values.to = one.to;
            values.to_stride = in.to_stride;
            values.to_type = in.to == DType::f32 ? ValueType::f32 : ValueType::bf16;
            if (in.converts()) one.converted = values;
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

void DeviceLoader::collect(const std::vector<IncomingCell>& cells, std::span<const std::byte> piece,
                           const std::string& place, Work& work) {
    const std::size_t copy = state_->target_index(device_->copies.size());
    for (const IncomingCell& cell : cells) {
        // Also against what this piece itself brings, of which nothing is written yet.
        std::vector<core::Region>& coming = work.coming[cell.span];
        if (overlaps_any(cell.region, state_->written[cell.span]) ||
            overlaps_any(cell.region, coming)) {
            reported_findings().rows_came_twice(cell, place);
            continue;
        }
        if (!cell.skip) coming.push_back(cell.region);
        work.add(cell, piece.data(), device_->bytes(copy, cell.destination));
    }
}

void DeviceLoader::judge(Work& work, const std::string& place) {
    LoaderFindings report = reported_findings();
    DeviceQueue& queue = *device_->queue;
    work.digests.resize(work.jobs.size());
    work.unusable.resize(work.scales.size());
    queue.digest(work.jobs, work.digests.data());
    queue.look_at_scales(work.scales, work.unusable.data());
    queue.wait();
    for (std::size_t i = 0; i < work.cells.size(); ++i) {
        const Work::OneCell& one = work.cells[i];
        const wire::Digest found{work.digests[i].low, work.digests[i].high};
        if (!one.in.is_recorded_as(found)) {
            report.other_digest(one.in, found, place);
            continue;
        }
        if (one.scales < 0) continue;
        const auto index = static_cast<std::size_t>(one.scales);
        const kernels::cuda::UnusableScales& unusable = work.unusable[index];
        if (unusable.count == 0) continue;
        report.unusable_scales(
            one.in, fetch_bad_scales(queue, one.in, work.scales[index], unusable), place);
    }
}

void DeviceLoader::write(const Work& work) {
    State& state = *state_;
    DeviceQueue& queue = *device_->queue;
    std::vector<kernels::cuda::PlacedRectangle> placed;
    std::vector<kernels::cuda::ValueRectangle> converted;
    for (std::size_t i = 0; i < work.cells.size(); ++i) {
        const Work::OneCell& one = work.cells[i];
        if (one.in.skip) continue;
        const kernels::cuda::DigestJob& job = work.jobs[i];
        state.written[one.in.span].push_back(one.in.region);
        state.loaded_bytes += one.in.traffic_bytes();
        if (one.converted) {
            converted.push_back(*one.converted);
        } else {
            placed.push_back(
                {job.data, job.stride, one.to, one.in.to_stride, job.rows, job.row_bytes, 0});
        }
    }
    queue.place(placed);
    queue.convert(converted);
    queue.wait();
    for (const Work::OneCell& one : work.cells) {
        if (!one.in.flip || one.in.skip || state.flipped) continue;
        // A planted bit, as WeightLoader plants it.
        state.flipped = true;
        std::uint8_t* const at = one.to + one.in.to_element() - 1;
        std::uint8_t byte = 0;
        queue.download(&byte, at, 1, DeviceQueue::Purpose::control);
        byte ^= 0x10;
        queue.upload(at, &byte, 1, DeviceQueue::Purpose::control);
    }
}

void DeviceLoader::load_piece(std::uint32_t bucket, std::uint32_t trainer,
                              std::span<const std::byte> piece,
                              const std::function<void()>& on_progress, LoadTimes& times) {
    const wire::PiecePlan& plan = plan_of(bucket, trainer);
    if (plan.entries.empty() && piece.empty()) return;
    LoadClock clock(times);
    const std::uint64_t head_bytes =
        wire::entries_offset(wire::digest_count(manifest_, plan.entries));
    std::vector<std::byte> head(std::min<std::uint64_t>(head_bytes, piece.size()));
    device_->queue->download(head.data(), piece.data(), head.size(), DeviceQueue::Purpose::control);
    const std::optional<wire::PieceView> view = opened(bucket, trainer, head, piece.size());
    if (!view) {
        clock.checked();
        return;
    }
    const std::string place = piece_name(bucket, trainer);
    Work work;
    collect(state_->cells_of(plan, view->digests()), piece, place, work);
    try {
        judge(work, place);
        clock.checked();
        if (on_progress) on_progress();
        if (state_->failed) return;
        clock.leave_out();
        write(work);
        clock.loaded();
    } catch (...) {
        // What was asked for would be written into `work`.
        device_->queue->abandon();
        throw;
    }
    if (on_progress) on_progress();
}

void DeviceLoader::derive() {
    State& state = *state_;
    Device& device = *device_;
    DeviceQueue& queue = *device.queue;
    for (std::size_t i = 0; i < state.derived.parameters().size(); ++i)
        queue.derive(device.derive_job(instance_, state, i));
    std::vector<kernels::cuda::PlacedRectangle> scales;
    constexpr std::int64_t kScale = sizeof(float);
    std::vector<float> values(state.host.copies().size());
    for (std::size_t i = 0; i < values.size(); ++i) {
        const std::size_t destination = state.host.copies()[i].destination;
        scales.push_back({device.bytes(state.visible, destination), kScale,
                          reinterpret_cast<std::uint8_t*>(device.host_scales->data()) + i * kScale,
                          kScale, 1, kScale, 0});
    }
    queue.place(scales);
    queue.wait();
    queue.download(values.data(), device.host_scales->data(), values.size() * sizeof(float),
                   DeviceQueue::Purpose::control);
    state.host.update(values);
    device.derived_mirrored = false;
}

const DerivedWeights& DeviceLoader::derived() const {
    Device& device = *device_;
    const std::span<std::byte> to = state_->derived.memory();
    if (!device.derived_mirrored) {
        device.queue->download(to.data(), device.derived->data(), to.size(),
                               DeviceQueue::Purpose::weights);
        device.audited += to.size();
        device.derived_mirrored = true;
    }
    return state_->derived;
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
