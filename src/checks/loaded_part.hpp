// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One span of loaded bytes, seen as the engine's kernels see it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

#include "core/dtype.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/loaded_parameters.hpp"
#include "wire/checksum.hpp"

namespace refit::checks {

/// The bytes of one destination as a matrix.
class DestinationView {
 public:
    /// Throws ShapeError when the bytes do not fit the parameter's shape.
    DestinationView(const receiver::ContractInstance& instance,
                    const receiver::LoadedParameters& loaded, std::size_t destination);

    [[nodiscard]] const receiver::DestinationParameter& parameter() const { return *parameter_; }
    [[nodiscard]] std::int64_t rows() const { return rows_; }
    [[nodiscard]] std::int64_t cols() const { return cols_; }
    [[nodiscard]] const std::byte* at(std::int64_t row, std::int64_t col) const {
        return bytes_.data() + (row * cols_ + col) * element_bytes_;
    }
    [[nodiscard]] std::int64_t element_bytes() const { return element_bytes_; }
    /// Throws ShapeError when the span leaves the destination.
    void require_inside(const receiver::LoadSpan& span) const;
    /// Value of a scale element; NaN outside the matrix, so that no comparison passes.
    [[nodiscard]] double scale_value(std::int64_t row, std::int64_t col) const;
    /// Whether an element holds what LoadedParameters::poison writes: 0xFF bytes, lowest value in
    /// scales.
    [[nodiscard]] bool poisoned(std::int64_t row, std::int64_t col) const;

 private:
    const receiver::DestinationParameter* parameter_;
    std::span<const std::byte> bytes_;
    std::int64_t rows_;
    std::int64_t cols_;
    std::int64_t element_bytes_;
};

/// Whether `value` is what the loader leaves in a scale of this dtype that was not written.
[[nodiscard]] bool is_scale_poison(core::DType dtype, double value);

/// How an engine's kernel finds the scale of an element of a fused weight.
class EngineScales {
 public:
    /// weight : the fused destination whose elements are asked for; slot : flat index of the scale
    /// of this part, for per-tensor scales. Both references must outlive this object.
    EngineScales(const DestinationView& scales, const receiver::DestinationParameter& weight,
                 std::int64_t slot)
        : scales_(scales), weight_(weight), slot_(slot) {}
    /// Scale of element (row, col) of the destination.
    [[nodiscard]] double at(std::int64_t row, std::int64_t col) const;
    /// Columns from `col` on that share the scale.
    [[nodiscard]] std::int64_t same_scale_columns(std::int64_t col) const;
    [[nodiscard]] const DestinationView& view() const { return scales_; }

 private:
    const DestinationView& scales_;
    const receiver::DestinationParameter& weight_;
    std::int64_t slot_;
};

/// XXH3-128 of the span's bytes, row by row. `on_progress` is called once per few MiB.
[[nodiscard]] wire::Digest part_digest(const DestinationView& view, const receiver::LoadSpan& span,
                                       const std::function<void()>& on_progress);

}  // namespace refit::checks
