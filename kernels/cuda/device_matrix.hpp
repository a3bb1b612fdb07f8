// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One BF16 matrix that lives on the device: uploaded once, quantized, decoded and looked at where
// it is. Only verdicts, and what a caller asks for, come back. No CUDA header.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/element_program.hpp"

namespace refit::kernels::cuda {

/// Every call enqueues, waits, and returns the seconds that the kernels took by events of their
/// stream; copies to the host and the memory of first calls are outside. Calls of one matrix do not
/// overlap. Throws CudaError, and std::invalid_argument for a call that needs codes before there
/// are any.
class DeviceMatrix {
 public:
    virtual ~DeviceMatrix() = default;

    /// amax, scales and codes, in one pass over memory where the tile allows it, else in three.
    virtual double quantize(const numerics::TileScaling& scaling) = 0;
    /// The first of the three steps alone.
    virtual double tile_amax(const numerics::TileScaling& scaling) = 0;
    /// The codes of the last quantize as BF16.
    virtual double dequantize() = 0;
    /// Largest |x| of the matrix as F32 bits; see Backend::max_abs_bits.
    virtual double max_abs_bits(std::uint32_t& bits) = 0;
    /// NaN among the codes of the last quantize.
    virtual double count_nan_codes(std::int64_t& count) = 0;
    /// How many bytes of the codes differ from `expected` [rows, cols], which is uploaded first.
    virtual double compare_codes(const std::uint8_t* expected, std::int64_t& differing) = 0;
    /// Compares the codes of the last quantize, decoded, with the matrix, element by element.
    /// own_scale : [grid_rows, grid_cols], from the matrix alone, as the caller's check has it.
    virtual double check(std::span<const double> own_scale, double slack, CheckSums& sums) = 0;
    /// NaN and Inf of the matrix, and the first of them.
    virtual double count_nonfinite(NonfiniteCounts& counts) = 0;
    /// Copies `bytes` from one place of the device to another: the device's own bandwidth is
    /// 2 * bytes over the time, since each byte is read and written.
    virtual double copy(std::int64_t bytes) = 0;

    struct Quantized {
        std::vector<std::uint32_t> amax_bits;
        std::vector<float> scale_inv;
        std::vector<std::uint8_t> codes;  ///< [rows, cols]
    };
    /// What the last quantize made.
    [[nodiscard]] virtual Quantized quantized() const = 0;
    /// What the last dequantize made, [rows, cols].
    [[nodiscard]] virtual std::vector<std::uint16_t> dequantized() const = 0;
    /// Replaces one code of the last quantize: a planted fault.
    virtual void set_code(std::int64_t index, std::uint8_t code) = 0;
};

/// The [rows, cols] matrix at `values` on this process's device; null where there is none (see
/// cuda_row). Rows lie without gaps; both sides are at least 1.
[[nodiscard]] std::unique_ptr<DeviceMatrix> upload_matrix(const std::uint16_t* values,
                                                          std::int64_t rows, std::int64_t cols);

}  // namespace refit::kernels::cuda
