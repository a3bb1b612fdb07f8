// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "weights/synthetic_weights.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>

#include "core/error.hpp"
#include "weights/hash.hpp"
#include "weights/region_check.hpp"

// Drawing a Gaussian an element is far slower than quantizing it. So the values come from pools
// that are drawn once: a row is a window of one pool, and making a row is a copy. Which pool and
// where its window starts follows from seed, tensor and row, without a repetition within a tensor;
// the pool decides the row's standard deviation.

namespace refit::weights {
namespace {

constexpr unsigned kPoolBits = 16;
constexpr unsigned kPoolCountBits = 4;
constexpr std::uint64_t kPoolSize = std::uint64_t{1} << kPoolBits;
constexpr std::uint64_t kPoolCount = std::uint64_t{1} << kPoolCountBits;
/// Different rows that one tensor can have; the largest vocabulary in use has a sixth of this.
constexpr std::uint64_t kRowCount = kPoolSize * kPoolCount;

constexpr double kDeviation = 0.02;
constexpr double kNormDeviation = 0.1;
/// 2^(1/16): the deviations of the 16 pools span a factor of 2 around kDeviation.
constexpr double kSpreadRatio = 1.0442737824274138;

/// A value moves once in this many steps, at a phase of its own: 1 % of the values a step.
constexpr std::uint64_t kStepsPerMove = 100;

// Labels that keep the draws apart.
enum : std::uint64_t { kLabelValue = 1, kLabelPhase, kLabelMove, kLabelRow, kLabelOutlier };

/// Natural logarithm of x in (0, 1). Only operations that IEEE 754 rounds one way: libm's differs
/// between machines, and ranks on two machines must draw the same bits. Error below 1e-16 relative
/// to 1.
double portable_log(double x) {
    constexpr double kLn2 = 0.69314718055994530942;
    constexpr double kSqrtHalf = 0.70710678118654752440;
    int exponent = 0;
    double mantissa = std::frexp(x, &exponent);  // [1/2, 1)
    if (mantissa < kSqrtHalf) {
        mantissa *= 2.0;
        --exponent;
    }
    // ln m = 2 atanh((m - 1) / (m + 1)); |t| < 0.172, so that 11 terms reach 1e-17.
    const double t = (mantissa - 1.0) / (mantissa + 1.0);
    const double t2 = t * t;
    double sum = 0.0;
    for (int k = 10; k >= 0; --k) sum = sum * t2 + 1.0 / (2 * k + 1);
    return exponent * kLn2 + 2.0 * t * sum;
}

/// Uniform in (-1, 1), never 0.
double symmetric_unit(std::uint64_t bits) {
    constexpr double kScale = 1.0 / 9007199254740992.0;          // 2^-53
    const auto odd = static_cast<double>((bits >> 12) * 2 + 1);  // below 2^53
    return odd * kScale * 2.0 - 1.0;
}

/// Gaussian number `index` of a stream, by Marsaglia's polar method (1964).
double gaussian(std::uint64_t stream, std::uint64_t index) {
    for (std::uint64_t attempt = 0;; ++attempt) {
        const std::uint64_t bits = mix(stream + attempt, index);
        const double u = symmetric_unit(bits);
        const double v = symmetric_unit(mix(bits));
        const double s = u * u + v * v;
        if (s < 1.0) return u * std::sqrt(-2.0 * portable_log(s) / s);
    }
}

/// Round to nearest even; finite input.
std::uint16_t to_bf16(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value);
    return static_cast<std::uint16_t>((bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16);
}

float from_bf16(std::uint16_t bits) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
}

/// The draws of one seed.
struct Draws {
    struct Stream {
        std::uint64_t stream = 0;
        std::vector<std::uint16_t> base;
    };
    std::vector<Stream> weights;  ///< kPoolCount
    Stream norms;
};

Draws::Stream draw(std::uint64_t stream, double mean, double deviation) {
    Draws::Stream drawn{stream, std::vector<std::uint16_t>(kPoolSize)};
    const std::uint64_t draws = mix(stream, kLabelValue);
    for (std::uint64_t i = 0; i < kPoolSize; ++i) {
        drawn.base[i] = to_bf16(static_cast<float>(mean + deviation * gaussian(draws, i)));
    }
    return drawn;
}

std::shared_ptr<const Draws> draw_all(std::uint64_t seed) {
    auto draws = std::make_shared<Draws>();
    draws->norms = draw(mix(seed, kPoolCount), 1.0, kNormDeviation);
    double deviation = kDeviation / std::sqrt(2.0) * std::sqrt(kSpreadRatio);
    for (std::uint64_t k = 0; k < kPoolCount; ++k) {
        draws->weights.push_back(draw(mix(seed, k), 0.0, deviation));
        deviation *= kSpreadRatio;
    }
    return draws;
}

/// draw_all, remembering the last seed: the cases of a run and the ranks of a process mostly share
/// one, and a million Gaussian draws take longer than the refit of a small model.
std::shared_ptr<const Draws> draws_of(std::uint64_t seed) {
    static std::mutex mutex;
    static std::shared_ptr<const Draws> last;
    static std::uint64_t last_seed = 0;
    const std::lock_guard lock(mutex);
    if (last == nullptr || last_seed != seed) {
        last = draw_all(seed);
        last_seed = seed;
    }
    return last;
}

/// Values at step 0 without their moves, and at the step asked for.
class Pool {
 public:
    explicit Pool(const Draws::Stream& drawn) : stream_(drawn.stream), base_(drawn.base) {
        values_.resize(kPoolSize);
    }

    /// A value's moves number floor((step + phase) / kStepsPerMove). It stands 1 unit in the last
    /// place above its base after an odd number, and 0 or 2, by hash, after an even one: every move
    /// changes it by one unit, it stays near its base for ever, and no step before it has to be
    /// computed.
    void set_step(std::uint64_t step) {
        const std::uint64_t phases = mix(stream_, kLabelPhase);
        const std::uint64_t moves = mix(stream_, kLabelMove);
        for (std::uint64_t i = 0; i < kPoolSize; ++i) {
            const std::uint64_t phase = mix(phases, i) % kStepsPerMove;
            const std::uint64_t count = (step + phase) / kStepsPerMove;
            const std::uint64_t above = (count & 1U) != 0 ? 1 : 2 * (mix(moves + count, i) & 1U);
            values_[i] = static_cast<std::uint16_t>(base_[i] + above);
        }
    }

    /// The window [start, start + count) of the pool, which is a ring.
    void copy(std::uint64_t start, std::uint64_t count, std::uint16_t* out) const {
        start %= kPoolSize;
        while (count > 0) {
            const std::uint64_t part = std::min(count, kPoolSize - start);
            std::memcpy(out, values_.data() + start, part * sizeof *out);
            out += part;
            count -= part;
            start = 0;
        }
    }

    [[nodiscard]] std::uint16_t at(std::uint64_t position) const {
        return values_[position % kPoolSize];
    }

 private:
    std::uint64_t stream_;
    const std::vector<std::uint16_t>& base_;
    std::vector<std::uint16_t> values_;
};

std::uint64_t checked_step(std::int64_t step) {
    if (step < 0) {
        throw core::ScenarioError("synthetic weights: step " + std::to_string(step) +
                                  " is asked for; steps start at 0");
    }
    return static_cast<std::uint64_t>(step);
}

class SyntheticWeights final : public WeightSource {
 public:
    SyntheticWeights(std::uint64_t seed, std::int64_t step, Outliers outliers)
        : seed_(seed),
          step_(checked_step(step)),
          outliers_(outliers),
          draws_(draws_of(seed)),
          norm_pool_(draws_->norms) {
        if (!(outliers.share >= 0.0 && outliers.share <= 1.0)) {
            throw core::ScenarioError("weights.outliers.share is " +
                                      std::to_string(outliers.share) + "; it must be from 0 to 1");
        }
        // 1e6 * 0.03 * 6 stays far below the largest BF16, and 1e-6 far above the subnormal ones.
        if (!(outliers.times >= 1e-6 && outliers.times <= 1e6)) {
            throw core::ScenarioError("weights.outliers.times is " +
                                      std::to_string(outliers.times) +
                                      "; it must be from 1e-6 to 1e6");
        }
        // The share as a threshold of 32 hash bits; 2^32 makes every element one.
        outlier_below_ = static_cast<std::uint64_t>(std::llround(outliers.share * 4294967296.0));
        for (const Draws::Stream& drawn : draws_->weights) pools_.emplace_back(drawn);
        move_pools();
    }

    void read(const model::TensorSpec& tensor, const core::Region& region, std::uint16_t* out,
              std::int64_t out_stride) const override {
        check_region(tensor, region, out_stride);
        if (region.rows == 0 || region.cols == 0) return;
        const Layout layout(seed_, tensor.name);
        if (tensor.shape.size() < 2) {
            read_vector(tensor, layout, region, out, out_stride);
            return;
        }
        // Rows are those of the last dimension, so that a stack of matrices has as many as its
        // matrices together.
        const auto width = static_cast<std::uint64_t>(tensor.shape.back());
        const auto cols = static_cast<std::uint64_t>(core::matrix_cols(tensor.shape));
        for (std::int64_t r = 0; r < region.rows; ++r) {
            std::uint64_t position = static_cast<std::uint64_t>(region.row + r) * cols +
                                     static_cast<std::uint64_t>(region.col);
            auto left = static_cast<std::uint64_t>(region.cols);
            std::uint16_t* to = out + r * out_stride;
            while (left > 0) {
                const std::uint64_t row = position / width;
                const std::uint64_t col = position % width;
                const std::uint64_t count = std::min(left, width - col);
                const Window window = layout.window(row);
                pools_[window.pool].copy(window.start + col, count, to);
                add_outliers(tensor.name, row, col, count, to);
                position += count;
                to += count;
                left -= count;
            }
        }
    }

    void set_step(std::int64_t step) override {
        const std::uint64_t wanted = checked_step(step);
        if (wanted == step_) return;
        step_ = wanted;
        move_pools();
    }

    [[nodiscard]] std::string description() const override {
        std::string text =
            "synthetic seed " + std::to_string(seed_) + " step " + std::to_string(step_);
        if (outlier_below_ > 0) {
            text += " outliers " + std::to_string(outliers_.share) + " x " +
                    std::to_string(outliers_.times);
        }
        return text;
    }

 private:
    struct Window {
        std::size_t pool;
        std::uint64_t start;
    };

    /// Where the rows of one tensor lie. Row r is number (base + r * stride) mod kRowCount of all
    /// windows; an odd stride visits each of them once.
    class Layout {
     public:
        Layout(std::uint64_t seed, const std::string& name) {
            std::uint64_t hash = hash_name(mix(seed, kLabelRow), name);
            base_ = hash % kRowCount;
            // Rows 16 apart share a pool and start stride mod kPoolSize apart: not nearly the same
            // window.
            std::uint64_t apart = 0;
            do {
                hash = mix(hash);
                stride_ = hash % kRowCount | 1U;
                apart = stride_ % kPoolSize;
            } while (apart < kPoolSize / 16 || apart > kPoolSize - kPoolSize / 16);
        }
        [[nodiscard]] Window window(std::uint64_t row) const {
            const std::uint64_t number = (base_ + row * stride_) % kRowCount;
            return {static_cast<std::size_t>(number % kPoolCount), number / kPoolCount};
        }

     private:
        std::uint64_t base_ = 0;
        std::uint64_t stride_ = 1;
    };

    /// Vectors are one window: of values near 1 for norms, of small ones for biases.
    void read_vector(const model::TensorSpec& tensor, const Layout& layout,
                     const core::Region& region, std::uint16_t* out,
                     std::int64_t out_stride) const {
        const Window window = layout.window(0);
        const Pool& pool = tensor.role == model::Role::norm ? norm_pool_ : pools_[window.pool];
        for (std::int64_t r = 0; r < region.rows; ++r) {
            out[r * out_stride] =
                pool.at(window.start + static_cast<std::uint64_t>(region.row + r));
        }
    }

    void add_outliers(const std::string& name, std::uint64_t row, std::uint64_t col,
                      std::uint64_t count, std::uint16_t* values) const {
        if (outlier_below_ == 0) return;
        const std::uint64_t stream = mix(hash_name(mix(seed_, kLabelOutlier), name), row);
        const auto times = static_cast<float>(outliers_.times);
        for (std::uint64_t i = 0; i < count; ++i) {
            if ((mix(stream + col + i) >> 32) < outlier_below_) {
                values[i] = to_bf16(from_bf16(values[i]) * times);
            }
        }
    }

    void move_pools() {
        for (Pool& pool : pools_) pool.set_step(step_);
        norm_pool_.set_step(step_);
    }

    std::uint64_t seed_;
    std::uint64_t step_;
    Outliers outliers_;
    std::uint64_t outlier_below_ = 0;
    std::shared_ptr<const Draws> draws_;
    std::vector<Pool> pools_;
    Pool norm_pool_;
};

}  // namespace

std::unique_ptr<WeightSource> make_synthetic_weights(std::uint64_t seed, std::int64_t step,
                                                     Outliers outliers) {
    return std::make_unique<SyntheticWeights>(seed, step, outliers);
}

}  // namespace refit::weights
