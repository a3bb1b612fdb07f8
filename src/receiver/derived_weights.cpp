// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/derived_weights.hpp"

#include <algorithm>
#include <cstring>

#include "core/error.hpp"
#include "quant/element_values.hpp"

namespace refit::receiver {
namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::int64_t kElement = 2;
/// Columns of kv_b_proj transposed together, so that both sides stay in the cache.
constexpr std::int64_t kTile = 64;

/// Bytes of so many elements, with the room to the next matrix.
std::size_t aligned(std::int64_t elements) {
    const auto bytes = static_cast<std::size_t>(elements * kElement);
    return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// Rows of a loaded weight in BF16.
class RowReader {
 public:
    RowReader(const ContractInstance& instance, const LoadedParameters& loaded, std::size_t weight)
        : weight_(instance.destinations.at(weight)), codes_(loaded.bytes(weight)) {
        if (weight_.granularity == Granularity::none) return;
        const auto scale = static_cast<std::size_t>(weight_.scale);
        scale_cols_ = instance.destinations.at(scale).cols();
        scales_ = loaded.bytes(scale);
    }

    void read(std::int64_t row, std::vector<std::uint16_t>& out) {
        const std::int64_t cols = weight_.cols();
        out.resize(static_cast<std::size_t>(cols));
        if (weight_.granularity == Granularity::none) {
            std::memcpy(out.data(), codes_.data() + row * cols * kElement,
                        static_cast<std::size_t>(cols * kElement));
            return;
        }
        values_.resize(static_cast<std::size_t>(cols));
        quant::read_values(weight_.dtype, codes_.data() + row * cols, cols, values_.data());
        const std::int64_t step = weight_.block_cols;
        for (std::int64_t first = 0; first < cols; first += step) {
            const float scale = scale_at(row, first);
            const std::int64_t end = std::min(cols, first + step);
            for (std::int64_t col = first; col < end; ++col)
                values_[static_cast<std::size_t>(col)] *= scale;
        }
        quant::write_values(core::DType::bf16, values_.data(), cols,
                            reinterpret_cast<std::byte*>(out.data()));
    }

 private:
    [[nodiscard]] float scale_at(std::int64_t row, std::int64_t col) const {
        std::int64_t index = 0;
        if (weight_.granularity == Granularity::block) {
            index = weight_.block_row(row) * scale_cols_ + col / weight_.block_cols;
        } else if (weight_.granularity == Granularity::channel) {
            index = row;
        }
        float value = 0.0F;
        std::memcpy(&value, scales_.data() + index * static_cast<std::int64_t>(sizeof value),
                    sizeof value);
        return value;
    }

    const DestinationParameter& weight_;
    std::span<const std::byte> codes_;
    std::span<const std::byte> scales_;
    std::int64_t scale_cols_ = 1;
    std::vector<float> values_;  ///< of one row
};

}  // namespace

std::uint64_t DerivedWeights::bytes_of(const ContractInstance& instance) {
    std::uint64_t size = 0;
    for (const LatentProjection& latent : instance.latent) {
        for (const std::int64_t rows : {latent.v_dim, latent.nope_dim}) {
            size += aligned(latent.heads * rows * latent.kv_lora_rank);
        }
    }
    return size;
}

DerivedWeights::DerivedWeights(const ContractInstance& instance) : instance_(instance) {
    std::size_t size = 0;
    for (const LatentProjection& latent : instance.latent) {
        const std::vector<DerivedParameter> both = {
            {latent.module + ".W_UV",
             DerivedKind::w_uv,
             {latent.heads, latent.kv_lora_rank, latent.v_dim},
             latent},
            {latent.module + ".W_UK_T",
             DerivedKind::w_uk_t,
             {latent.heads, latent.nope_dim, latent.kv_lora_rank},
             latent}};
        for (const DerivedParameter& parameter : both) {
            offsets_.push_back(size);
            size += aligned(core::element_count(parameter.shape));
            parameters_.push_back(parameter);
        }
    }
    memory_ = core::AlignedBuffer(size);
    if (size > 0) std::memset(memory_.data(), 0xFF, size);
}

std::uint16_t* DerivedWeights::begin(std::size_t parameter) {
    return reinterpret_cast<std::uint16_t*>(memory_.data() + offsets_.at(parameter));
}

std::span<const std::uint16_t> DerivedWeights::values(std::size_t parameter) const {
    const auto count =
        static_cast<std::size_t>(core::element_count(parameters_.at(parameter).shape));
    return {reinterpret_cast<const std::uint16_t*>(memory_.data() + offsets_[parameter]), count};
}

std::span<const std::uint16_t> DerivedWeights::values(const std::string& name) const {
    std::string names;
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        if (parameters_[i].name == name) return values(i);
        names += (names.empty() ? "" : ", ") + parameters_[i].name;
    }
    throw core::ShapeError("derived weights of " + instance_.engine + ": there is no '" + name +
                           "', expected one of: " + (names.empty() ? "none" : names));
}

void DerivedWeights::update(const LoadedParameters& loaded) {
    std::vector<std::vector<std::uint16_t>> rows(kTile);
    for (std::size_t i = 0; i < parameters_.size(); ++i) {
        const DerivedParameter& parameter = parameters_[i];
        const LatentProjection& latent = parameter.source;
        RowReader reader(instance_, loaded, latent.destination);
        const std::int64_t per_head = latent.nope_dim + latent.v_dim;
        const std::int64_t lora = latent.kv_lora_rank;
        std::uint16_t* const out = begin(i);
        for (std::int64_t head = 0; head < latent.heads; ++head) {
            if (parameter.kind == DerivedKind::w_uk_t) {
                for (std::int64_t p = 0; p < latent.nope_dim; ++p) {
                    reader.read(head * per_head + p, rows[0]);
                    std::copy(rows[0].begin(), rows[0].end(),
                              out + (head * latent.nope_dim + p) * lora);
                }
                continue;
            }
            for (std::int64_t first = 0; first < latent.v_dim; first += kTile) {
                const std::int64_t count = std::min(kTile, latent.v_dim - first);
                for (std::int64_t v = 0; v < count; ++v) {
                    reader.read(head * per_head + latent.nope_dim + first + v,
                                rows[static_cast<std::size_t>(v)]);
                }
                for (std::int64_t l = 0; l < lora; ++l) {
                    std::uint16_t* const at = out + (head * lora + l) * latent.v_dim + first;
                    for (std::int64_t v = 0; v < count; ++v) {
                        at[v] = rows[static_cast<std::size_t>(v)][static_cast<std::size_t>(l)];
                    }
                }
            }
        }
    }
}

}  // namespace refit::receiver
