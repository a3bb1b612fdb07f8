// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Work on weights that stay on the device: quantize, place, convert, digest, look for what is not
// finite. Only verdicts come back. No CUDA header: callers hold addresses of device memory and
// never follow them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "kernels/backend.hpp"
#include "kernels/cuda/digest_program.hpp"
#include "kernels/cuda/element_program.hpp"
#include "kernels/cuda/latent_program.hpp"
#include "kernels/cuda/placement_program.hpp"
#include "kernels/cuda/value_program.hpp"

namespace refit::kernels::cuda {

/// Memory of the device, freed with its owner. Nothing may be under way in it then.
class DeviceBlock {
 public:
    virtual ~DeviceBlock() = default;
    [[nodiscard]] virtual std::byte* data() const = 0;
    [[nodiscard]] virtual std::size_t size() const = 0;
};

/// A band to quantize where it lies. All addresses are of the device.
struct DeviceBand {
    numerics::TileScaling scaling;
    Band band;                           ///< `data` on the device
    std::uint8_t* codes = nullptr;       ///< [row_count, cols]
    std::int64_t code_stride = 0;        ///< bytes
    std::uint32_t* amax_bits = nullptr;  ///< [touched grid rows, grid_cols]
    float* scale_inv = nullptr;          ///< the same
};

/// What went between host and device memory, in bytes.
struct DeviceTraffic {
    std::uint64_t weights = 0;  ///< values, codes, scales: anything of the model
    std::uint64_t control = 0;  ///< lists of work, headers, digests, counts
};

/// One stream of this process's device, for one thread. Calls enqueue and return, but for upload,
/// download and wait. What `result` arguments point to is written by the next wait() and must live
/// until then; memory of the device that a call names must live until then too. All calls throw
/// CudaError.
class DeviceQueue {
 public:
    enum class Purpose { weights, control };

    virtual ~DeviceQueue() = default;
    [[nodiscard]] virtual std::unique_ptr<DeviceBlock> allocate(std::size_t bytes) = 0;
    /// In order with what was enqueued before; done when they return.
    virtual void upload(void* to, const void* from, std::size_t bytes, Purpose purpose) = 0;
    virtual void download(void* to, const void* from, std::size_t bytes, Purpose purpose) = 0;

    virtual void set_bytes(void* to, std::uint8_t value, std::size_t bytes) = 0;
    virtual void set_words(void* to, std::uint32_t value, std::int64_t count) = 0;
    /// amax, scales and codes of a band.
    virtual void quantize(const DeviceBand& band) = 0;
    /// amax alone, of the tiles that a band touches; it may cut them.
    virtual void tile_amax(const DeviceBand& band) = 0;
    /// Scales and codes of a band, which may cut tiles, from their amax.
    virtual void encode(const DeviceBand& band) = 0;
    /// `first_row` is set here.
    virtual void place(std::span<const PlacedRectangle> rectangles) = 0;
    /// `first` is set here.
    virtual void convert(std::span<const ValueRectangle> rectangles) = 0;
    /// scale_inv[i] becomes NaN where amax_bits[i] is that of NaN or Inf.
    virtual void mark_nonfinite(const std::uint32_t* amax_bits, float* scale_inv,
                                std::int64_t count) = 0;
    /// NaN becomes +0 and Inf +-448 in `count` BF16 values, which may begin at any address.
    virtual void replace_nonfinite(std::uint8_t* values, std::int64_t count) = 0;
    /// Rows of every head of a latent projection as BF16 values, as they stand or transposed.
    virtual void derive(const DeriveJob& job) = 0;
    /// XXH3-128 of each rectangle row by row, as wire::digest_of has it; `first_block` is set here.
    virtual void digest(std::span<const DigestJob> jobs, numerics::Xxh128* results) = 0;
    /// Scales of each rectangle that are not finite and above 0; `first` is set here.
    virtual void look_at_scales(std::span<const ValueRectangle> rectangles,
                                UnusableScales* results) = 0;
    /// Largest of `count` words; 0 without any.
    virtual void max_bits(const std::uint32_t* bits, std::int64_t count, std::uint32_t* result) = 0;
    /// Largest |x| of `count` BF16 values as F32 bits; see Backend::max_abs_bits.
    virtual void max_abs_bits(const std::uint16_t* values, std::int64_t count,
                              std::uint32_t* result) = 0;
    /// NaN and Inf among `count` BF16 values, and the first of them.
    virtual void count_nonfinite(const std::uint16_t* values, std::int64_t count,
                                 NonfiniteCounts* result) = 0;
    /// Until everything is done and every result is written.
    virtual void wait() = 0;
    /// After an exception between a call and its wait(): until everything is done, and results that
    /// were to come are dropped, since what they were for may be gone. Throws nothing.
    virtual void abandon() noexcept = 0;

    [[nodiscard]] virtual const DeviceTraffic& traffic() const = 0;
};

/// On the device of cuda_backend(); null where there is none (see cuda_row).
[[nodiscard]] std::unique_ptr<DeviceQueue> make_device_queue();

}  // namespace refit::kernels::cuda
