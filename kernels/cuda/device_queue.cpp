// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device_queue.hpp"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/job_setup.hpp"
#include "kernels/cuda/staging_plan.hpp"

namespace refit::kernels::cuda {
namespace {

constexpr std::size_t kDrawerBytes = std::size_t{256} << 10;
constexpr std::size_t kDrawerAlignment = 64;
constexpr std::int64_t kPlacedRowBytes = 4096;
constexpr std::int64_t kDigestGroupBlocks = kDigestScratch / (8 * numerics::kXxh3Lanes);

class Block final : public DeviceBlock {
 public:
    explicit Block(std::size_t bytes) : size_(bytes) {
        use_device();
        memory_.reserve(std::max<std::size_t>(bytes, 1));
    }
    [[nodiscard]] std::byte* data() const override { return memory_.as<std::byte>(); }
    [[nodiscard]] std::size_t size() const override { return size_; }

 private:
    DeviceBuffer memory_;
    std::size_t size_;
};

/// Small memory on both sides for lists of work and for results. A part is handed out once between
/// two waits, so that nothing is written again while a copy of it is under way.
class Drawers {
 public:
    struct Part {
        std::byte* host = nullptr;
        std::byte* device = nullptr;
    };
    Part take(std::size_t bytes) {
        bytes = (bytes + kDrawerAlignment - 1) / kDrawerAlignment * kDrawerAlignment;
        auto found = std::find_if(all_.begin(), all_.end(), [&](const auto& drawer) {
            return drawer->host.size() - drawer->used >= bytes;
        });
        if (found == all_.end()) {
            all_.push_back(std::make_unique<Drawer>(std::max(bytes, kDrawerBytes)));
            found = std::prev(all_.end());
        }
        Drawer& drawer = **found;
        const std::size_t at = std::exchange(drawer.used, drawer.used + bytes);
        return {drawer.host.as<std::byte>() + at, drawer.device.as<std::byte>() + at};
    }
    /// After a wait: everything may be handed out again.
    void clear() {
        for (const auto& drawer : all_) drawer->used = 0;
    }

 private:
    struct Drawer {
        explicit Drawer(std::size_t bytes) {
            host.reserve(bytes);
            device.reserve(bytes);
        }
        PinnedBuffer host;
        DeviceBuffer device;
        std::size_t used = 0;
    };
    std::vector<std::unique_ptr<Drawer>> all_;
};

class Queue final : public DeviceQueue {
 public:
    Queue() {
        secret_.reserve(sizeof numerics::kXxh3Secret);
        upload(secret_.as<void>(), numerics::kXxh3Secret, sizeof numerics::kXxh3Secret,
               Purpose::control);
    }
    ~Queue() override { (void)cudaStreamSynchronize(stream_.get()); }

    [[nodiscard]] std::unique_ptr<DeviceBlock> allocate(std::size_t bytes) override {
        return std::make_unique<Block>(bytes);
    }

    void upload(void* to, const void* from, std::size_t bytes, Purpose purpose) override {
        copy(to, from, bytes, cudaMemcpyHostToDevice, purpose);
    }
    void download(void* to, const void* from, std::size_t bytes, Purpose purpose) override {
        copy(to, from, bytes, cudaMemcpyDeviceToHost, purpose);
    }

    void set_bytes(void* to, std::uint8_t value, std::size_t bytes) override {
        if (bytes == 0) return;
        use_device();
        check_cuda(cudaMemsetAsync(to, value, bytes, stream_.get()), "cudaMemsetAsync");
    }
    void set_words(void* to, std::uint32_t value, std::int64_t count) override {
        use_device();
        launch_set_words(static_cast<std::uint32_t*>(to), value, count, stream_.get());
    }

    void quantize(const DeviceBand& one) override {
        if (one.band.row_count <= 0 || one.band.cols <= 0) return;
        use_device();
        const Job job = job_of(one);
        if (program_of(job) != Program::any) {
            launch_quantize(job, stream_.get());
            return;
        }
        tile_amax(one);
        encode(one);
    }
    void tile_amax(const DeviceBand& one) override {
        if (one.band.row_count <= 0 || one.band.cols <= 0) return;
        use_device();
        clear_amax(one);
        launch_tile_amax(job_of(one), tiles_of(one), stream_.get());
    }
    void encode(const DeviceBand& one) override {
        if (one.band.row_count <= 0 || one.band.cols <= 0) return;
        use_device();
        Job job = job_of(one);
        job.operands =
            static_cast<float*>(grown(operands_, static_cast<std::size_t>(tiles_of(one)) * 4));
        launch_factors(job, tiles_of(one), stream_.get());
        launch_encode(job, stream_.get());
    }

    void place(std::span<const PlacedRectangle> rectangles) override {
        std::vector<PlacedRectangle> list;
        for (const PlacedRectangle& one : rectangles) add_in_short_rows(one, list);
        std::int64_t rows = 0;
        for (PlacedRectangle& one : list) one.first_row = std::exchange(rows, rows + one.rows);
        if (rows == 0) return;
        launch_place(sent(list), static_cast<std::int64_t>(list.size()), rows, stream_.get());
    }

    void convert(std::span<const ValueRectangle> rectangles) override {
        std::int64_t values = 0;
        const std::vector<ValueRectangle> list = numbered(rectangles, values);
        if (values == 0) return;
        launch_convert(sent(list), static_cast<std::int64_t>(list.size()), values, stream_.get());
    }

    void mark_nonfinite(const std::uint32_t* amax_bits, float* scale_inv,
                        std::int64_t count) override {
        use_device();
        launch_mark_nonfinite(amax_bits, scale_inv, count, stream_.get());
    }
    void replace_nonfinite(std::uint8_t* values, std::int64_t count) override {
        use_device();
        launch_replace_nonfinite(values, count, stream_.get());
    }
    void derive(const DeriveJob& job) override {
        use_device();
        launch_derive(job, stream_.get());
    }

    void digest(std::span<const DigestJob> jobs, numerics::Xxh128* results) override {
        if (jobs.empty()) return;
        std::vector<DigestJob> list(jobs.begin(), jobs.end());
        // Groups that follow each other in the stream share the scratch memory for partial sums.
        struct Group {
            std::size_t first = 0;
            std::size_t count = 0;
            std::int64_t blocks = 0;
        };
        std::vector<Group> groups;
        std::int64_t most = 1;
        for (std::size_t i = 0; i < list.size(); ++i) {
            const std::int64_t own = numerics::xxh3_blocks(list[i].length());
            if (groups.empty() || groups.back().blocks + own > kDigestGroupBlocks)
                groups.push_back({i, 0, 0});
            Group& group = groups.back();
            list[i].first_block = std::exchange(group.blocks, group.blocks + own);
            ++group.count;
            most = std::max(most, group.blocks);
        }
        const DigestJob* sent_list = sent(list);
        const std::size_t scratch = static_cast<std::size_t>(most * numerics::kXxh3Lanes) * 8;
        auto* sums = static_cast<std::uint64_t*>(grown(sums_, scratch));
        auto* found = results_of<numerics::Xxh128>(results, jobs.size());
        for (const Group& group : groups) {
            launch_digests(sent_list + group.first, static_cast<std::int64_t>(group.count),
                           group.blocks, secret_.as<std::uint64_t>(), sums, found + group.first,
                           stream_.get());
        }
        fetch(found, jobs.size());
    }

    void look_at_scales(std::span<const ValueRectangle> rectangles,
                        UnusableScales* results) override {
        if (rectangles.empty()) return;
        std::int64_t values = 0;
        const std::vector<ValueRectangle> list = numbered(rectangles, values);
        const ValueRectangle* sent_list = sent(list);
        auto* found = begun(results, list.size());
        launch_look_at_scales(sent_list, static_cast<std::int64_t>(list.size()), values, found,
                              stream_.get());
        fetch(found, list.size());
    }

    void max_bits(const std::uint32_t* bits, std::int64_t count, std::uint32_t* result) override {
        auto* found = begun(result, 1);
        launch_max_bits(bits, count, found, stream_.get());
        fetch(found, 1);
    }
    void max_abs_bits(const std::uint16_t* values, std::int64_t count,
                      std::uint32_t* result) override {
        auto* found = begun(result, 1);
        if (count > 0) launch_max_abs(values, count, found, stream_.get());
        fetch(found, 1);
    }
    void count_nonfinite(const std::uint16_t* values, std::int64_t count,
                         NonfiniteCounts* result) override {
        auto* found = begun(result, 1);
        launch_count_nonfinite(values, count, found, stream_.get());
        fetch(found, 1);
    }

    void wait() override {
        use_device();
        stream_.wait();
        for (const Pending& one : pending_) std::memcpy(one.to, one.host, one.bytes);
        pending_.clear();
        drawers_.clear();
    }

    void abandon() noexcept override {
        (void)cudaStreamSynchronize(stream_.get());
        pending_.clear();
        drawers_.clear();
    }

    [[nodiscard]] const DeviceTraffic& traffic() const override { return traffic_; }

 private:
    /// A result on its way, or arrived, in locked memory.
    struct Pending {
        void* to = nullptr;
        const std::byte* host = nullptr;
        std::size_t bytes = 0;
    };

    static bool is_multiple(const void* pointer, std::uintptr_t of) {
        return reinterpret_cast<std::uintptr_t>(pointer) % of == 0;
    }

    static std::int64_t tiles_of(const DeviceBand& one) {
        const TileGrid grid = tile_grid(one.scaling, one.band.rows, one.band.cols);
        return touched_grid_rows(grid, one.band) * grid.grid_cols;
    }
    void clear_amax(const DeviceBand& one) {
        set_bytes(one.amax_bits, 0, static_cast<std::size_t>(tiles_of(one)) * 4);
    }
    static Job job_of(const DeviceBand& one) {
        const TileGrid grid = tile_grid(one.scaling, one.band.rows, one.band.cols);
        Job job = job_of_band(one.scaling, one.band, grid);
        job.source = one.band.data;
        job.codes = one.codes;
        job.code_stride = one.code_stride;
        job.amax_bits = one.amax_bits;
        job.scale_inv = one.scale_inv;
        job.wide_loads = is_multiple(one.band.data, 16) && one.band.row_stride % kChunk == 0;
        job.wide_stores = is_multiple(one.codes, 8) && one.code_stride % kChunk == 0;
        return job;
    }

    /// A block of threads takes a row: one without gaps is cut into rows of a few KiB.
    static void add_in_short_rows(const PlacedRectangle& one, std::vector<PlacedRectangle>& list) {
        const std::int64_t bytes = one.rows * one.row_bytes;
        const bool flat =
            one.rows == 1 || (one.from_stride == one.row_bytes && one.to_stride == one.row_bytes);
        if (!flat || bytes <= kPlacedRowBytes) {
            list.push_back(one);
            return;
        }
        const std::int64_t whole = bytes / kPlacedRowBytes;
        const std::int64_t rest = bytes % kPlacedRowBytes;
        list.push_back(
            {one.from, kPlacedRowBytes, one.to, kPlacedRowBytes, whole, kPlacedRowBytes, 0});
        if (rest == 0) return;
        list.push_back({one.from + whole * kPlacedRowBytes, rest, one.to + whole * kPlacedRowBytes,
                        rest, 1, rest, 0});
    }

    void count(std::size_t bytes, Purpose purpose) {
        (purpose == Purpose::weights ? traffic_.weights : traffic_.control) += bytes;
    }

    void copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, Purpose purpose) {
        if (bytes == 0) return;
        use_device();
        check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream_.get()), "cudaMemcpyAsync");
        count(bytes, purpose);
        wait();
    }

    /// Scratch memory of the stream. What is under way in it ends before it grows.
    void* grown(DeviceBuffer& buffer, std::size_t bytes) {
        if (bytes > buffer.size()) stream_.wait();
        return buffer.reserve(bytes);
    }

    static std::vector<ValueRectangle> numbered(std::span<const ValueRectangle> rectangles,
                                                std::int64_t& values) {
        std::vector<ValueRectangle> list(rectangles.begin(), rectangles.end());
        for (ValueRectangle& one : list)
            one.first = std::exchange(values, values + one.rows * one.cols);
        return list;
    }

    /// A list of work on the device.
    template <class Item>
    const Item* sent(const std::vector<Item>& list) {
        use_device();
        const std::size_t bytes = list.size() * sizeof(Item);
        const Drawers::Part part = drawers_.take(bytes);
        std::memcpy(part.host, list.data(), bytes);
        check_cuda(
            cudaMemcpyAsync(part.device, part.host, bytes, cudaMemcpyHostToDevice, stream_.get()),
            "cudaMemcpyAsync of a list of work");
        count(bytes, Purpose::control);
        return reinterpret_cast<const Item*>(part.device);
    }

    /// Room for results on the device, to be fetched by fetch().
    template <class Result>
    Result* results_of(Result* to, std::size_t count) {
        use_device();
        const Drawers::Part part = drawers_.take(count * sizeof(Result));
        pending_.push_back({to, part.host, count * sizeof(Result)});
        return reinterpret_cast<Result*>(part.device);
    }
    /// The same, set to what a count begins with.
    template <class Result>
    Result* begun(Result* to, std::size_t count) {
        auto* const found = results_of(to, count);
        const std::vector<Result> first(count);
        const Drawers::Part part = drawers_.take(count * sizeof(Result));
        std::memcpy(part.host, first.data(), count * sizeof(Result));
        check_cuda(cudaMemcpyAsync(found, part.host, count * sizeof(Result), cudaMemcpyHostToDevice,
                                   stream_.get()),
                   "cudaMemcpyAsync");
        this->count(count * sizeof(Result), Purpose::control);
        return found;
    }
    template <class Result>
    void fetch(const Result* found, std::size_t count) {
        const Pending& last = pending_.back();
        check_cuda(cudaMemcpyAsync(const_cast<std::byte*>(last.host), found, count * sizeof(Result),
                                   cudaMemcpyDeviceToHost, stream_.get()),
                   "cudaMemcpyAsync of results");
        this->count(count * sizeof(Result), Purpose::control);
    }

    Stream stream_;
    Drawers drawers_;
    std::vector<Pending> pending_;
    DeviceBuffer secret_, sums_, operands_;
    DeviceTraffic traffic_;
};

}  // namespace

std::unique_ptr<DeviceQueue> make_device_queue() {
    if (!cuda_row().viable) return nullptr;
    use_device();
    return std::make_unique<Queue>();
}

}  // namespace refit::kernels::cuda
