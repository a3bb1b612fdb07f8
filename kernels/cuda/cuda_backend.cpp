// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The Backend interface over the kernels. Its callers hold host memory, so rows are staged: copied
// into locked memory, to the device, quantized there, and the codes back; two slots overlap.
#include "kernels/cuda/cuda_backend.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <stdexcept>

#include "kernels/cpu/tile_walk.hpp"
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/job_setup.hpp"
#include "kernels/cuda/staging_plan.hpp"

namespace refit::kernels::cuda {
namespace {

/// Device code is built for compute 9.0, and as PTX for 8.0 and later.
constexpr int kLeastMajor = 8;

/// The rank's number on its node as the usual launchers tell it; 0 without one.
int local_rank() {
    for (const char* name :
         {"OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID", "PMI_LOCAL_RANK"}) {
        if (const char* text = std::getenv(name)) return std::max(0, std::atoi(text));
    }
    return 0;
}

struct Device {
    int number = 0;
    int count = 0;        ///< devices that the driver lists
    std::string why_not;  ///< empty when the device is usable
    std::string description;
};

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// The first error that stuck; see device_lost().
struct Loss {
    std::mutex mutex;
    std::string text;
};
Loss& loss() {
    static auto* const instance = new Loss;
    return *instance;
}

/// A kernel that runs is the only proof that driver, device and compiled code fit.
void try_kernel(int number) {
    check_cuda(cudaSetDevice(number), "cudaSetDevice");
    DeviceBuffer memory;
    void* data = memory.reserve(256);
    const Stream stream;
    check_cuda(cudaMemsetAsync(data, 0, 256, stream.get()), "cudaMemsetAsync");
    launch_max_abs(memory.as<std::uint16_t>() + 64, 64, memory.as<std::uint32_t>(), stream.get());
    check_cuda(cudaStreamSynchronize(stream.get()), "cudaStreamSynchronize");
    load_tile_kernels();
    load_element_kernels();
    load_digest_kernels();
}

Device look_for_device() {
    Device device;
    int count = 0;
    const cudaError_t code = cudaGetDeviceCount(&count);
    if (code != cudaSuccess || count == 0) {
        (void)cudaGetLastError();
        // Without any driver the runtime calls itself too new for it.
        int driver = 0;
        const bool no_driver = cudaDriverGetVersion(&driver) == cudaSuccess && driver == 0;
        device.why_not =
            std::string("no CUDA device: ") + (no_driver             ? "no CUDA driver is installed"
                                               : code == cudaSuccess ? "the driver lists none"
                                                                     : cudaGetErrorString(code));
        return device;
    }
    device.count = count;
    if (const char* chosen = std::getenv("REFIT_CUDA_DEVICE")) {
        char* end = nullptr;
        const long number = std::strtol(chosen, &end, 10);
        if (end == chosen || *end != '\0' || number < 0 || number >= count) {
            device.why_not = std::string("no CUDA device: REFIT_CUDA_DEVICE is '") + chosen +
                             "', expected a number from 0 to " + std::to_string(count - 1);
            return device;
        }
        device.number = static_cast<int>(number);
    } else {
        device.number = local_rank() % count;
    }
    cudaDeviceProp properties{};
    int driver = 0;
    int runtime = 0;
    try {
        check_cuda(cudaGetDeviceProperties(&properties, device.number), "cudaGetDeviceProperties");
        (void)cudaDriverGetVersion(&driver);
        (void)cudaRuntimeGetVersion(&runtime);
        device.description = std::string(properties.name) + ", compute " +
                             std::to_string(properties.major) + "." +
                             std::to_string(properties.minor) + ", driver " + version_text(driver) +
                             ", runtime " + version_text(runtime);
        if (properties.major < kLeastMajor) {
            device.why_not = "no CUDA device that fits: " + device.description +
                             "; the kernels are built for compute 8.0 and later";
            return device;
        }
        try_kernel(device.number);
    } catch (const CudaError& error) {
        device.why_not = "no CUDA device that works: " + device.description + ": " + error.what();
    }
    return device;
}

const Device& the_device() {
    static const Device device = look_for_device();
    return device;
}

}  // namespace

void fail_cuda(cudaError_t code, const char* call) {
    std::string text =
        std::string("CUDA backend: ") + call + " failed: " + cudaGetErrorString(code);
    if (code == cudaErrorMemoryAllocation)
        text += "; close other programs that use the device, or use backend auto";
    (void)cudaGetLastError();
    std::size_t free = 0;
    std::size_t total = 0;
    if (cudaMemGetInfo(&free, &total) != cudaSuccess) {
        (void)cudaGetLastError();
        const std::lock_guard lock(loss().mutex);
        if (loss().text.empty()) loss().text = text;
        text +=
            "; this process cannot use the device any more: start the run again, with "
            "CUDA_LAUNCH_BLOCKING=1 or under compute-sanitizer to see which kernel it was";
    }
    throw CudaError(text);
}

void use_device() {
    check_cuda(cudaSetDevice(the_device().number), "cudaSetDevice");
}

namespace {

/// What one staged stripe needs. Its events bound the three parts of its way.
struct Slot {
    Stream stream;
    PinnedBuffer host_source, host_codes;
    DeviceBuffer source, codes, amax, scale, operands;
    PinnedBuffer host_amax, host_scale;
    Event begin, uploaded, computed, done;
    bool busy = false;
    std::int64_t row = 0;  ///< local rows [row, row + rows) of the band
    std::int64_t rows = 0;
    std::int64_t first_tile = 0;  ///< amax and scales of the stripe, in the spans of the call
    std::int64_t tiles = 0;
};

/// One set of slots; calls of several threads take turns, since they share the device anyway.
struct Workspace {
    std::mutex mutex;
    std::array<Slot, kStagingSlots> slots;
    CudaSeconds seconds;
};

Workspace& workspace() {
    // Never destroyed: the runtime may be gone when static objects are.
    static auto* const space = new Workspace;
    return *space;
}

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
    return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Of the calling thread, whose stages these seconds belong to.
thread_local double staging_seconds_of_thread = 0.0;

/// The time of one call that has the device to itself: what was neither kernel nor callback is
/// staging, also when the call throws.
class CallClock {
 public:
    explicit CallClock(const Workspace& space)
        : space_(space), kernels_before_(space.seconds.kernels) {}
    ~CallClock() {
        staging_seconds_of_thread += staging_of(seconds_since(start_), callbacks_s_,
                                                space_.seconds.kernels - kernels_before_);
    }
    CallClock(const CallClock&) = delete;
    CallClock& operator=(const CallClock&) = delete;
    void add_callback(double seconds) { callbacks_s_ += seconds; }

 private:
    const Workspace& space_;
    double kernels_before_;
    double callbacks_s_ = 0.0;
    Clock::time_point start_ = Clock::now();
};

template <class Element>
void to_device(Element* to, const Element* from, std::int64_t count, const Stream& stream) {
    check_cuda(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(Element),
                               cudaMemcpyHostToDevice, stream.get()),
               "cudaMemcpyAsync to the device");
}

template <class Element>
void to_host(Element* to, const Element* from, std::int64_t count, const Stream& stream) {
    check_cuda(cudaMemcpyAsync(to, from, static_cast<std::size_t>(count) * sizeof(Element),
                               cudaMemcpyDeviceToHost, stream.get()),
               "cudaMemcpyAsync to the host");
}

/// One call of the interface: a band, and where its results go. Absent outputs are null.
struct Staging {
    const numerics::TileScaling& scaling;
    const Band& band;
    TileGrid grid;
    std::uint32_t* amax_out = nullptr;       ///< written (quantize) or raised (tile_amax)
    const std::uint32_t* amax_in = nullptr;  ///< encode
    float* scale_out = nullptr;
    std::uint8_t* codes = nullptr;
    std::int64_t code_stride = 0;
    const StripeDone* stripe_done = nullptr;

    [[nodiscard]] std::int64_t first_grid_row_of(std::int64_t local_row) const {
        return (band.row_begin + local_row) / grid.tile_rows - first_grid_row(grid, band);
    }
    /// Tiles that the local rows [row, row + rows) touch, counted from the band's first.
    void set_tiles(Slot& slot) const {
        const std::int64_t first = first_grid_row_of(slot.row);
        const std::int64_t last = first_grid_row_of(slot.row + slot.rows - 1);
        slot.first_tile = first * grid.grid_cols;
        slot.tiles = (last - first + 1) * grid.grid_cols;
    }
    [[nodiscard]] Job job_of(Slot& slot) const {
        const std::int64_t stride = device_stride(band.cols);
        const auto elements = static_cast<std::size_t>(slot.rows * stride);
        const auto tiles = static_cast<std::size_t>(slot.tiles);
        Band rows = band;
        rows.row_begin += slot.row;
        rows.row_count = slot.rows;
        rows.row_stride = stride;
        Job job = job_of_band(scaling, rows, grid);
        job.source = static_cast<const std::uint16_t*>(slot.source.reserve(elements * 2));
        job.codes = static_cast<std::uint8_t*>(slot.codes.reserve(elements));
        job.code_stride = stride;
        job.amax_bits = static_cast<std::uint32_t*>(slot.amax.reserve(tiles * 4));
        job.scale_inv = static_cast<float*>(slot.scale.reserve(tiles * 4));
        job.operands = static_cast<float*>(slot.operands.reserve(tiles * 4));
        job.wide_loads = true;
        job.wide_stores = true;
        (void)slot.host_amax.reserve(tiles * 4);
        (void)slot.host_scale.reserve(tiles * 4);
        return job;
    }
};

/// Copies rows into locked memory at the device's stride and sends them.
void upload(const Staging& staging, Slot& slot, const Job& job) {
    const auto count = slot.rows * job.source_stride;
    auto* host = static_cast<std::uint16_t*>(
        slot.host_source.reserve(static_cast<std::size_t>(count) * sizeof(std::uint16_t)));
    for (std::int64_t r = 0; r < slot.rows; ++r) {
        std::memcpy(host + r * job.source_stride,
                    staging.band.data + (slot.row + r) * staging.band.row_stride,
                    static_cast<std::size_t>(job.cols) * sizeof(std::uint16_t));
    }
    to_device(const_cast<std::uint16_t*>(job.source), static_cast<const std::uint16_t*>(host),
              count, slot.stream);
}

void report(const Staging& staging, std::int64_t row, std::int64_t end) {
    if (staging.stripe_done == nullptr || !*staging.stripe_done) return;
    row += staging.band.row_begin;
    end += staging.band.row_begin;
    while (row < end) {
        const std::int64_t next = std::min(end, (row / kReportedRows + 1) * kReportedRows);
        (*staging.stripe_done)(row, next);
        row = next;
    }
}

/// Waits for the slot and hands its results over.
void drain(const Staging& staging, Slot& slot, CudaSeconds& seconds, CallClock& clock) {
    if (!slot.busy) return;
    slot.stream.wait();
    slot.busy = false;
    seconds.to_device += slot.uploaded.seconds_since(slot.begin);
    seconds.kernels += slot.computed.seconds_since(slot.uploaded);
    seconds.from_device += slot.done.seconds_since(slot.computed);
    const auto tiles = static_cast<std::size_t>(slot.tiles);
    if (staging.amax_out != nullptr) {
        const auto* amax = slot.host_amax.as<std::uint32_t>();
        // Raised, not written: two stripes may share a tile, and so may two calls.
        for (std::size_t i = 0; i < tiles; ++i) {
            std::uint32_t& out = staging.amax_out[static_cast<std::size_t>(slot.first_tile) + i];
            out = std::max(out, amax[i]);
        }
    }
    if (staging.scale_out != nullptr) {
        std::memcpy(staging.scale_out + slot.first_tile, slot.host_scale.as<float>(),
                    tiles * sizeof(float));
    }
    if (staging.codes != nullptr) {
        const std::int64_t stride = device_stride(staging.band.cols);
        for (std::int64_t r = 0; r < slot.rows; ++r) {
            std::memcpy(staging.codes + (slot.row + r) * staging.code_stride,
                        slot.host_codes.as<std::uint8_t>() + r * stride,
                        static_cast<std::size_t>(staging.band.cols));
        }
        const auto start = Clock::now();
        report(staging, slot.row, slot.row + slot.rows);
        clock.add_callback(seconds_since(start));
    }
}

enum class Work { amax, encode, quantize };

void start(const Staging& staging, Slot& slot, Work work) {
    staging.set_tiles(slot);
    const Job job = staging.job_of(slot);
    const std::int64_t tiles = slot.tiles;
    slot.begin.record(slot.stream);
    upload(staging, slot, job);
    if (work == Work::encode) {
        auto* host = slot.host_amax.as<std::uint32_t>();
        std::memcpy(host, staging.amax_in + slot.first_tile,
                    static_cast<std::size_t>(tiles) * sizeof(std::uint32_t));
        to_device(job.amax_bits, static_cast<const std::uint32_t*>(host), tiles, slot.stream);
    } else {
        check_cuda(cudaMemsetAsync(job.amax_bits, 0, static_cast<std::size_t>(tiles) * 4,
                                   slot.stream.get()),
                   "cudaMemsetAsync");
    }
    slot.uploaded.record(slot.stream);
    if (work == Work::quantize) {
        launch_quantize(job, slot.stream.get());
    } else if (work == Work::amax) {
        launch_tile_amax(job, tiles, slot.stream.get());
    } else {
        launch_factors(job, tiles, slot.stream.get());
        launch_encode(job, slot.stream.get());
    }
    slot.computed.record(slot.stream);
    if (work != Work::encode) {
        to_host(slot.host_amax.as<std::uint32_t>(), job.amax_bits, tiles, slot.stream);
    }
    if (work == Work::quantize) {
        to_host(slot.host_scale.as<float>(), job.scale_inv, tiles, slot.stream);
    }
    if (work != Work::amax) {
        const std::int64_t bytes = slot.rows * job.code_stride;
        to_host(
            static_cast<std::uint8_t*>(slot.host_codes.reserve(static_cast<std::size_t>(bytes))),
            job.codes, bytes, slot.stream);
    }
    slot.done.record(slot.stream);
    slot.busy = true;
}

void run(const Staging& staging, Work work) {
    const std::int64_t rows = staging.band.row_count;
    if (rows <= 0 || staging.band.cols <= 0) {
        report(staging, 0, rows);
        return;
    }
    Workspace& space = workspace();
    const std::lock_guard lock(space.mutex);
    CallClock clock(space);
    use_device();
    try {
        const std::int64_t step = stripe_rows(staging.grid, staging.band.cols);
        std::size_t turn = 0;
        for (std::int64_t row = 0; row < rows; ++turn) {
            Slot& slot = space.slots[turn % space.slots.size()];
            drain(staging, slot, space.seconds, clock);
            slot.row = row;
            slot.rows = rows_of_stripe(staging.band.row_begin, row, rows, step);
            start(staging, slot, work);
            row += slot.rows;
        }
        for (std::size_t i = 0; i < space.slots.size(); ++i, ++turn) {
            drain(staging, space.slots[turn % space.slots.size()], space.seconds, clock);
        }
    } catch (...) {
        // Nothing of this call may be under way in the memory of the next one.
        for (Slot& slot : space.slots) {
            (void)cudaStreamSynchronize(slot.stream.get());
            slot.busy = false;
        }
        throw;
    }
}

class Cuda final : public Backend {
 public:
    [[nodiscard]] std::string_view name() const override { return "cuda"; }

    void tile_amax(const numerics::TileScaling& scaling, const Band& band,
                   std::span<std::uint32_t> amax_bits) const override {
        cpu::require_band(band);
        Staging staging{scaling, band, tile_grid(scaling, band.rows, band.cols)};
        cpu::require_span("amax_bits", amax_bits.size(), tiles(staging));
        staging.amax_out = amax_bits.data();
        run(staging, Work::amax);
    }

    void scales(const numerics::TileScaling& scaling, std::span<const std::uint32_t> amax_bits,
                std::span<float> scale_inv) const override {
        cpu::require_span("scale_inv", scale_inv.size(),
                          static_cast<std::int64_t>(amax_bits.size()));
        const auto count = static_cast<std::int64_t>(amax_bits.size());
        if (count == 0) return;
        Workspace& space = workspace();
        const std::lock_guard lock(space.mutex);
        const CallClock clock(space);
        use_device();
        Slot& slot = space.slots[0];
        Job job;
        job.scaling = scaling;
        job.amax_bits = static_cast<std::uint32_t*>(slot.amax.reserve(amax_bits.size_bytes()));
        job.scale_inv = static_cast<float*>(slot.scale.reserve(amax_bits.size_bytes()));
        job.operands = static_cast<float*>(slot.operands.reserve(amax_bits.size_bytes()));
        to_device(job.amax_bits, amax_bits.data(), count, slot.stream);
        slot.uploaded.record(slot.stream);
        launch_factors(job, count, slot.stream.get());
        slot.computed.record(slot.stream);
        to_host(scale_inv.data(), job.scale_inv, count, slot.stream);
        slot.stream.wait();
        space.seconds.kernels += slot.computed.seconds_since(slot.uploaded);
    }

    void encode(const numerics::TileScaling& scaling, const Band& band,
                std::span<const std::uint32_t> amax_bits, std::uint8_t* codes,
                std::int64_t code_stride, const StripeDone& stripe_done) const override {
        cpu::require_band(band);
        Staging staging{scaling, band, tile_grid(scaling, band.rows, band.cols)};
        cpu::require_span("amax_bits", amax_bits.size(), tiles(staging));
        staging.amax_in = amax_bits.data();
        staging.codes = codes;
        staging.code_stride = code_stride;
        staging.stripe_done = &stripe_done;
        run(staging, Work::encode);
    }

    void quantize(const numerics::TileScaling& scaling, const Band& band,
                  std::span<std::uint32_t> amax_bits, std::span<float> scale_inv,
                  std::uint8_t* codes, std::int64_t code_stride,
                  const StripeDone& stripe_done) const override {
        cpu::require_band(band);
        Staging staging{scaling, band, tile_grid(scaling, band.rows, band.cols)};
        const std::int64_t touched = tiles(staging);
        cpu::require_span("amax_bits", amax_bits.size(), touched);
        cpu::require_span("scale_inv", scale_inv.size(), touched);
        cpu::require_whole_tiles(staging.grid, band);
        const auto used = amax_bits.first(static_cast<std::size_t>(touched));
        std::fill(used.begin(), used.end(), 0U);
        Job shape;
        shape.tile_rows = staging.grid.tile_rows;
        shape.tile_cols = staging.grid.tile_cols;
        shape.grid_cols = staging.grid.grid_cols;
        if (program_of(shape) == Program::any) {
            // The rows go to the device twice: no code can be made before the last row is seen.
            tile_amax(scaling, band, used);
            scales(scaling, used, scale_inv);
            encode(scaling, band, used, codes, code_stride, stripe_done);
            return;
        }
        staging.amax_out = amax_bits.data();
        staging.scale_out = scale_inv.data();
        staging.codes = codes;
        staging.code_stride = code_stride;
        staging.stripe_done = &stripe_done;
        run(staging, Work::quantize);
    }

    [[nodiscard]] double staging_seconds() const override { return staging_seconds_of_thread; }

    [[nodiscard]] std::uint32_t max_abs_bits(const std::uint16_t* values,
                                             std::int64_t count) const override {
        return scanned<std::uint32_t>(values, count, launch_max_abs);
    }

    [[nodiscard]] std::int64_t count_nan_codes(const std::uint8_t* codes,
                                               std::int64_t count) const override {
        return static_cast<std::int64_t>(
            scanned<unsigned long long>(codes, count, launch_count_nan));
    }

 private:
    static std::int64_t tiles(const Staging& staging) {
        return touched_grid_rows(staging.grid, staging.band) * staging.grid.grid_cols;
    }

    /// One number over a flat range, in pieces of a stripe.
    template <class Result, class Element>
    static Result scanned(const Element* values, std::int64_t count,
                          void (*launch)(const Element*, std::int64_t, Result*, cudaStream_t)) {
        if (count <= 0) return 0;
        Workspace& space = workspace();
        const std::lock_guard lock(space.mutex);
        const CallClock clock(space);
        use_device();
        Slot& slot = space.slots[0];
        auto* result = static_cast<Result*>(slot.amax.reserve(sizeof(Result)));
        check_cuda(cudaMemsetAsync(result, 0, sizeof(Result), slot.stream.get()),
                   "cudaMemsetAsync");
        constexpr auto kPiece = kStripeBytes / static_cast<std::int64_t>(sizeof(Element));
        auto* piece = static_cast<Element*>(slot.source.reserve(
            static_cast<std::size_t>(std::min(count, kPiece)) * sizeof(Element)));
        for (std::int64_t done = 0; done < count; done += kPiece) {
            const std::int64_t here = std::min(kPiece, count - done);
            to_device(piece, values + done, here, slot.stream);
            launch(piece, here, result, slot.stream.get());
        }
        Result found = 0;
        to_host(&found, static_cast<const Result*>(result), 1, slot.stream);
        slot.stream.wait();
        return found;
    }
};

}  // namespace

const BackendRow& cuda_row() {
    static const BackendRow row{"cuda", true, the_device().why_not.empty(), the_device().why_not};
    if (!row.viable || device_lost().empty()) return row;
    static const BackendRow lost{
        "cuda", true, false,
        "the CUDA device was lost to this process: " + device_lost() + "; start the run again"};
    return lost;
}

std::string device_lost() {
    const std::lock_guard lock(loss().mutex);
    return loss().text;
}

const Backend* cuda_backend() {
    static const Cuda backend;
    return cuda_row().viable ? &backend : nullptr;
}

int cuda_device() {
    return cuda_row().viable ? the_device().number : -1;
}

CudaSeconds cuda_seconds() {
    if (!cuda_row().viable) return {};
    Workspace& space = workspace();
    const std::lock_guard lock(space.mutex);
    return space.seconds;
}

std::optional<DeviceMemory> device_memory() {
    if (!cuda_row().viable) return std::nullopt;
    Workspace& space = workspace();
    const std::lock_guard lock(space.mutex);
    use_device();
    std::size_t free = 0;
    std::size_t total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    DeviceMemory memory{free, total, 0, the_device().count};
    for (const Slot& slot : space.slots) {
        for (const DeviceBuffer* buffer :
             {&slot.source, &slot.codes, &slot.amax, &slot.scale, &slot.operands}) {
            memory.held_bytes += buffer->size();
        }
    }
    return memory;
}

std::string cuda_build() {
    return "runtime " + version_text(CUDART_VERSION);
}

std::string cuda_description() {
    return cuda_row().viable ? the_device().description : std::string();
}

}  // namespace refit::kernels::cuda
