// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "checks/loaded_part.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "checks/decode.hpp"
#include "core/error.hpp"

namespace refit::checks {

namespace {

template <typename Bits>
Bits load_bits(const std::byte* address) {
    Bits bits{};
    std::memcpy(&bits, address, sizeof(bits));
    return bits;
}

/// Value of an IEEE binary16 pattern; exact.
double decode_f16(std::uint16_t bits) {
    const int exponent = (bits >> 10) & 0x1f;
    const int mantissa = bits & 0x3ff;
    double magnitude = 0.0;
    if (exponent == 0x1f) {
        magnitude = mantissa == 0 ? std::numeric_limits<double>::infinity()
                                  : std::numeric_limits<double>::quiet_NaN();
    } else if (exponent == 0) {
        magnitude = std::ldexp(mantissa, -24);
    } else {
        magnitude = std::ldexp(1024 + mantissa, exponent - 25);
    }
    return (bits & 0x8000U) != 0 ? -magnitude : magnitude;
}

}  // namespace

DestinationView::DestinationView(const receiver::ContractInstance& instance,
                                 const receiver::LoadedParameters& loaded, std::size_t destination)
    : parameter_(&instance.destinations.at(destination)),
      bytes_(loaded.bytes(destination)),
      rows_(parameter_->rows()),
      cols_(parameter_->cols()),
      element_bytes_(core::size_bytes(parameter_->dtype)) {
    const auto expected = static_cast<std::size_t>(rows_ * cols_ * element_bytes_);
    if (bytes_.size() < expected) {
        throw core::ShapeError(fmt::format(
            "audit of destination {}: {} bytes are held, its shape {} wants {}", parameter_->name,
            bytes_.size(), core::to_string(parameter_->shape), expected));
    }
}

void DestinationView::require_inside(const receiver::LoadSpan& span) const {
    if (span.dest_row >= 0 && span.dest_col >= 0 && span.source.rows >= 0 &&
        span.source.cols >= 0 && span.dest_row + span.source.rows <= rows_ &&
        span.dest_col + span.source.cols <= cols_) {
        return;
    }
    throw core::ShapeError(fmt::format(
        "audit of destination {}: a span of [{}, {}] elements at [{}, {}] leaves its shape {}; the "
        "contract of the engine places it wrongly",
        parameter_->name, span.source.rows, span.source.cols, span.dest_row, span.dest_col,
        core::to_string(parameter_->shape)));
}

double DestinationView::scale_value(std::int64_t row, std::int64_t col) const {
    if (row < 0 || col < 0 || row >= rows_ || col >= cols_) {
        return std::numeric_limits<double>::quiet_NaN();
    }
    const std::byte* address = at(row, col);
    switch (parameter_->dtype) {
        case core::DType::f32:
            return static_cast<double>(load_bits<float>(address));
        case core::DType::bf16:
            return decode_bf16(load_bits<std::uint16_t>(address));
        case core::DType::f16:
            return decode_f16(load_bits<std::uint16_t>(address));
        case core::DType::f8_e8m0:
        case core::DType::u8:
            return decode_e8m0(load_bits<std::uint8_t>(address));
        default:
            throw core::ShapeError(
                fmt::format("audit of scale {}: dtype {} is not known to the checks; F32, BF16, "
                            "F16 and E8M0 are",
                            parameter_->name, core::safetensors_name(parameter_->dtype)));
    }
}

bool DestinationView::poisoned(std::int64_t row, std::int64_t col) const {
    if (parameter_->is_scale) return is_scale_poison(parameter_->dtype, scale_value(row, col));
    const std::byte* address = at(row, col);
    for (std::int64_t i = 0; i < element_bytes_; ++i) {
        if (address[i] != std::byte{0xff}) return false;
    }
    return true;
}

bool is_scale_poison(core::DType dtype, double value) {
    switch (dtype) {
        case core::DType::f32:
            return value == static_cast<double>(std::numeric_limits<float>::lowest());
        case core::DType::bf16:
            return value == decode_bf16(0xff7fU);  // lowest finite BF16
        case core::DType::f16:
            return value == -65504.0;  // lowest finite F16
        default:
            return false;  // E8M0 has no negative values; what is left there reads as NaN
    }
}

double EngineScales::at(std::int64_t row, std::int64_t col) const {
    switch (weight_.granularity) {
        case receiver::Granularity::block:
            return scales_.scale_value(weight_.block_row(row), col / weight_.block_cols);
        case receiver::Granularity::channel:
            return scales_.cols() == 1 ? scales_.scale_value(row, 0)
                                       : std::numeric_limits<double>::quiet_NaN();
        case receiver::Granularity::tensor:
            return scales_.cols() == 0
                       ? std::numeric_limits<double>::quiet_NaN()
                       : scales_.scale_value(slot_ / scales_.cols(), slot_ % scales_.cols());
        case receiver::Granularity::none:
            break;
    }
    return std::numeric_limits<double>::quiet_NaN();
}

std::int64_t EngineScales::same_scale_columns(std::int64_t col) const {
    if (weight_.granularity != receiver::Granularity::block) {
        return std::numeric_limits<std::int64_t>::max() / 2;
    }
    return weight_.block_cols - col % weight_.block_cols;
}

wire::Digest part_digest(const DestinationView& view, const receiver::LoadSpan& span,
                         const std::function<void()>& on_progress) {
    constexpr std::int64_t kBytesBetweenCalls = std::int64_t{4} << 20;
    wire::DigestStream stream;
    const core::Region& part = span.source;
    const std::int64_t row_bytes = part.cols * view.element_bytes();
    const std::int64_t step =
        std::max<std::int64_t>(1, kBytesBetweenCalls / std::max<std::int64_t>(1, row_bytes));
    for (std::int64_t begin = 0; begin < part.rows; begin += step) {
        const std::int64_t rows = std::min(step, part.rows - begin);
        // Rows that lie side by side are one range; the digest is the same.
        const std::int64_t at_once = part.cols == view.cols() ? rows : 1;
        for (std::int64_t r = 0; r < rows; r += at_once) {
            stream.update(view.at(span.dest_row + begin + r, span.dest_col),
                          static_cast<std::size_t>(row_bytes * at_once));
        }
        on_progress();
    }
    return stream.value();
}

}  // namespace refit::checks
