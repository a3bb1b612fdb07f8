// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "weights/region_check.hpp"
#include "weights/safetensors_file.hpp"

namespace refit::weights {
namespace {

/// Round to nearest even; any NaN becomes 0x7FC0 as in PyTorch, since truncation could turn one
/// into Inf.
std::uint16_t bf16_of_f32(std::uint32_t bits) {
    if ((bits & 0x7FFFFFFFU) > 0x7F800000U) return 0x7FC0;
    const std::uint32_t half_minus_one_or_half = 0x7FFFU + ((bits >> 16) & 1U);
    return static_cast<std::uint16_t>((bits + half_minus_one_or_half) >> 16);
}

/// Exact: every F16 value is an F32 value.
std::uint32_t f32_of_f16(std::uint16_t bits) {
    const std::uint32_t sign = (bits & 0x8000U) << 16;
    const std::uint32_t exponent = (bits >> 10) & 0x1FU;
    const std::uint32_t mantissa = bits & 0x3FFU;
    if (exponent == 0x1FU) return sign | 0x7F800000U | (mantissa << 13);
    if (exponent != 0) return sign | ((exponent + (127U - 15U)) << 23) | (mantissa << 13);
    // Zero and subnormals are mantissa * 2^-24.
    const float magnitude = std::ldexp(static_cast<float>(mantissa), -24);
    return sign | std::bit_cast<std::uint32_t>(magnitude);
}

template <typename Stored>
Stored load(const std::byte* from) {
    // A header of odd length leaves the data unaligned.
    Stored value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

bool is_readable(core::DType dtype) {
    return dtype == core::DType::bf16 || dtype == core::DType::f16 || dtype == core::DType::f32;
}

class SafetensorsWeights final : public WeightSource {
 public:
    SafetensorsWeights(const std::filesystem::path& directory,
                       const std::vector<model::TensorSpec>& tensors)
        : checkpoint_(directory) {
        for (const model::TensorSpec& tensor : tensors) (void)locate(tensor);
    }

    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        check_region(tensor, region, out_stride);
        const CheckpointDirectory::Location at = locate(tensor);
        const std::int64_t stored_bytes = core::size_bytes(at.tensor->dtype);
        const std::int64_t cols = core::matrix_cols(tensor.shape);
        const std::byte* data = at.file->bytes(*at.tensor).data();
        for (std::int64_t r = 0; r < region.rows; ++r) {
            const std::byte* from = data + ((region.row + r) * cols + region.col) * stored_bytes;
            std::uint16_t* to = out + r * out_stride;
            if (at.tensor->dtype == core::DType::bf16) {
                std::memcpy(to, from, static_cast<std::size_t>(region.cols) * sizeof *to);
            } else if (at.tensor->dtype == core::DType::f16) {
                for (std::int64_t c = 0; c < region.cols; ++c) {
                    to[c] = bf16_of_f32(f32_of_f16(load<std::uint16_t>(from + 2 * c)));
                }
            } else {
                for (std::int64_t c = 0; c < region.cols; ++c) {
                    to[c] = bf16_of_f32(load<std::uint32_t>(from + 4 * c));
                }
            }
        }
    }

    void set_step(std::int64_t) override {}

    [[nodiscard]] std::string description() const override {
        const std::size_t files = checkpoint_.file_count();
        return "safetensors " + checkpoint_.path().string() + " (" + std::to_string(files) +
               (files == 1 ? " file)" : " files)");
    }

 private:
    [[nodiscard]] CheckpointDirectory::Location locate(const model::TensorSpec& tensor) const {
        const CheckpointDirectory::Location at = checkpoint_.find(tensor.name);
        const std::string wanted = "the model's config wants " + core::to_string(tensor.shape);
        if (at.tensor == nullptr) {
            std::string nearest;
            const std::vector<std::string> names = checkpoint_.names();
            for (const std::string& name : core::nearest_names(tensor.name, names)) {
                nearest += (nearest.empty() ? "" : ", ") + name;
            }
            throw core::FileError(checkpoint_.path().string() + ": tensor '" + tensor.name +
                                  "' is missing; " + wanted + "; nearest: " + nearest +
                                  "; check that model and checkpoint belong together");
        }
        const std::string subject = at.file->path().string() + ": tensor '" + tensor.name + "' is ";
        if (at.tensor->shape != tensor.shape) {
            throw core::FileError(subject + core::to_string(at.tensor->shape) + ", " + wanted +
                                  "; check that model and checkpoint belong together");
        }
        if (!is_readable(at.tensor->dtype)) {
            throw core::FileError(subject + std::string(core::safetensors_name(at.tensor->dtype)) +
                                  "; training weights are BF16, F16 or F32: give the "
                                  "checkpoint before its quantization");
        }
        return at;
    }

    CheckpointDirectory checkpoint_;
};

core::Finding mismatch(const char* check, const model::TensorSpec& tensor,
                       const std::string& measured, const std::string& limit,
                       const std::filesystem::path& where) {
    core::Finding finding;
    finding.check = check;
    finding.tensor = tensor.name;
    finding.measured = measured;
    finding.limit = limit;
    finding.message = where.string() + ": tensor '" + tensor.name + "' is " + measured +
                      ", the model's config wants " + limit;
    finding.remedy = "check that model and checkpoint belong together";
    return finding;
}

}  // namespace

core::Findings check_checkpoint(const std::filesystem::path& directory,
                                const std::vector<model::TensorSpec>& tensors) {
    const CheckpointDirectory checkpoint(directory);
    core::Findings findings;
    for (const model::TensorSpec& tensor : tensors) {
        const CheckpointDirectory::Location at = checkpoint.find(tensor.name);
        const std::string wanted = core::to_string(tensor.shape);
        if (at.tensor == nullptr) {
            findings.push_back(mismatch("names", tensor, "missing", wanted, directory));
        } else if (at.tensor->shape != tensor.shape) {
            findings.push_back(mismatch("shape_contract", tensor, core::to_string(at.tensor->shape),
                                        wanted, at.file->path()));
        } else if (!is_readable(at.tensor->dtype)) {
            findings.push_back(mismatch(
                "dtype", tensor, std::string(core::safetensors_name(at.tensor->dtype)),
                "BF16, F16 or F32 (training weights, not quantized ones)", at.file->path()));
        }
    }
    return findings;
}

std::unique_ptr<WeightSource> make_safetensors_weights(
    const std::filesystem::path& directory, const std::vector<model::TensorSpec>& tensors) {
    return std::make_unique<SafetensorsWeights>(directory, tensors);
}

}  // namespace refit::weights
