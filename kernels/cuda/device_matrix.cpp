// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/device_matrix.hpp"

#include <stdexcept>
#include <string>

#include "kernels/cuda/cuda_backend.hpp"
#include "kernels/cuda/cuda_call.hpp"
#include "kernels/cuda/device_kernels.hpp"
#include "kernels/cuda/job_setup.hpp"

namespace refit::kernels::cuda {
namespace {

class Matrix final : public DeviceMatrix {
 public:
    Matrix(const std::uint16_t* values, std::int64_t rows, std::int64_t cols)
        : rows_(rows), cols_(cols) {
        const auto bytes = static_cast<std::size_t>(elements()) * sizeof(std::uint16_t);
        source_.reserve(bytes);
        copy_now(source_.as<void>(), values, bytes, cudaMemcpyHostToDevice);
        band_.row_stride = cols;
        band_.row_count = rows;
        band_.rows = rows;
        band_.cols = cols;
        band_.last_element_bits = numerics::abs_bits(values[elements() - 1]);
    }

    double quantize(const numerics::TileScaling& scaling) override {
        const Job job = prepare(scaling);
        const double seconds = timed([&] {
            if (program_of(job) != Program::any) {
                launch_quantize(job, stream_.get());
                return;
            }
            raise_amax(job);
            launch_factors(job, tiles_, stream_.get());
            launch_encode(job, stream_.get());
        });
        has_codes_ = true;
        return seconds;
    }

    double tile_amax(const numerics::TileScaling& scaling) override {
        has_codes_ = false;
        const Job job = prepare(scaling);
        return timed([&] { raise_amax(job); });
    }

    double dequantize() override {
        need_codes("dequantize");
        DequantizeJob job;
        job.codes = codes_.as<std::uint8_t>();
        job.scale_inv = scale_.as<float>();
        job.bf16 = static_cast<std::uint16_t*>(
            decoded_.reserve(static_cast<std::size_t>(elements()) * sizeof(std::uint16_t)));
        job.rows = rows_;
        job.cols = cols_;
        job.tile_rows = grid_.tile_rows;
        job.tile_cols = grid_.tile_cols;
        job.grid_cols = grid_.grid_cols;
        return timed([&] { launch_dequantize(job, stream_.get()); });
    }

    double max_abs_bits(std::uint32_t& bits) override {
        auto* result = cleared<std::uint32_t>();
        const double seconds = timed([&] {
            launch_max_abs(source_.as<std::uint16_t>(), elements(), result, stream_.get());
        });
        copy_now(&bits, result, sizeof bits, cudaMemcpyDeviceToHost);
        return seconds;
    }

    double count_nan_codes(std::int64_t& count) override {
        need_codes("count_nan_codes");
        auto* result = cleared<unsigned long long>();
        const double seconds = timed([&] {
            launch_count_nan(codes_.as<std::uint8_t>(), elements(), result, stream_.get());
        });
        count = fetched(result);
        return seconds;
    }

    double compare_codes(const std::uint8_t* expected, std::int64_t& differing) override {
        need_codes("compare_codes");
        const auto bytes = static_cast<std::size_t>(elements());
        copy_now(other_.reserve(bytes), expected, bytes, cudaMemcpyHostToDevice);
        auto* result = cleared<unsigned long long>();
        const double seconds = timed([&] {
            launch_compare(codes_.as<std::uint8_t>(), other_.as<std::uint8_t>(), elements(), result,
                           result + 1, stream_.get());
        });
        differing = fetched(result);
        return seconds;
    }

    double check(std::span<const double> own_scale, double slack, CheckSums& sums) override {
        need_codes("check");
        if (static_cast<std::int64_t>(own_scale.size()) != tiles_) {
            throw std::invalid_argument("CUDA backend: check got " +
                                        std::to_string(own_scale.size()) + " own scales for " +
                                        std::to_string(tiles_) + " tiles");
        }
        CheckJob job;
        job.source = source_.as<std::uint16_t>();
        job.source_stride = cols_;
        job.codes = codes_.as<std::uint8_t>();
        job.code_stride = cols_;
        job.scale_inv = scale_.as<float>();
        void* own = own_scale_.reserve(own_scale.size_bytes());
        copy_now(own, own_scale.data(), own_scale.size_bytes(), cudaMemcpyHostToDevice);
        job.own_scale = static_cast<const double*>(own);
        job.rows = rows_;
        job.cols = cols_;
        job.tile_rows = grid_.tile_rows;
        job.tile_cols = grid_.tile_cols;
        job.grid_cols = grid_.grid_cols;
        job.slack = slack;
        const std::int64_t patches = patches_down(job) * patches_across(job);
        auto* results = static_cast<CheckSums*>(
            sums_.reserve(static_cast<std::size_t>(patches) * sizeof(CheckSums)));
        const double seconds = timed([&] { launch_check(job, results, stream_.get()); });
        sums = {};
        for (const CheckSums& one : downloaded<CheckSums>(sums_, patches)) merge(sums, one);
        return seconds;
    }

    double count_nonfinite(NonfiniteCounts& counts) override {
        counts = {};
        auto* result = static_cast<NonfiniteCounts*>(result_.reserve(sizeof counts));
        copy_now(result, &counts, sizeof counts, cudaMemcpyHostToDevice);
        const double seconds = timed([&] {
            launch_count_nonfinite(source_.as<std::uint16_t>(), elements(), result, stream_.get());
        });
        copy_now(&counts, result, sizeof counts, cudaMemcpyDeviceToHost);
        return seconds;
    }

    double copy(std::int64_t bytes) override {
        const auto count = static_cast<std::size_t>(bytes);
        void* from = copy_from_.reserve(count);
        void* to = copy_to_.reserve(count);
        return timed([&] {
            check_cuda(cudaMemcpyAsync(to, from, count, cudaMemcpyDeviceToDevice, stream_.get()),
                       "cudaMemcpyAsync on the device");
        });
    }

    [[nodiscard]] Quantized quantized() const override {
        need_codes("quantized");
        return {downloaded<std::uint32_t>(amax_, tiles_), downloaded<float>(scale_, tiles_),
                downloaded<std::uint8_t>(codes_, elements())};
    }
    [[nodiscard]] std::vector<std::uint16_t> dequantized() const override {
        return downloaded<std::uint16_t>(decoded_, elements());
    }
    void set_code(std::int64_t index, std::uint8_t code) override {
        need_codes("set_code");
        copy_now(codes_.as<std::uint8_t>() + index, &code, 1, cudaMemcpyHostToDevice);
    }

 private:
    [[nodiscard]] std::int64_t elements() const { return rows_ * cols_; }

    void need_codes(const char* call) const {
        if (has_codes_) return;
        throw std::invalid_argument(std::string("CUDA backend: ") + call +
                                    " of a matrix that has no codes; quantize it first");
    }

    /// Memory and job of a call with this scaling.
    Job prepare(const numerics::TileScaling& scaling) {
        grid_ = tile_grid(scaling, rows_, cols_);
        tiles_ = grid_.grid_rows * grid_.grid_cols;
        const auto tiles = static_cast<std::size_t>(tiles_);
        Job job = job_of_band(scaling, band_, grid_);
        job.source = source_.as<std::uint16_t>();
        job.codes =
            static_cast<std::uint8_t*>(codes_.reserve(static_cast<std::size_t>(elements())));
        job.code_stride = cols_;
        job.amax_bits = static_cast<std::uint32_t*>(amax_.reserve(tiles * 4));
        job.scale_inv = static_cast<float*>(scale_.reserve(tiles * 4));
        job.operands = static_cast<float*>(operands_.reserve(tiles * 4));
        // Memory of the device begins at multiples of 256 bytes.
        job.wide_loads = cols_ % kChunk == 0;
        job.wide_stores = cols_ % kChunk == 0;
        return job;
    }

    void raise_amax(const Job& job) {
        check_cuda(
            cudaMemsetAsync(job.amax_bits, 0, static_cast<std::size_t>(tiles_) * 4, stream_.get()),
            "cudaMemsetAsync");
        launch_tile_amax(job, tiles_, stream_.get());
    }

    template <class Work>
    double timed(const Work& work) {
        use_device();
        begin_.record(stream_);
        work();
        end_.record(stream_);
        stream_.wait();
        return end_.seconds_since(begin_);
    }

    /// Room for a result and what stands behind it: zero, and all ones.
    template <class Result>
    Result* cleared() {
        auto* result = static_cast<Result*>(result_.reserve(2 * sizeof(Result)));
        check_cuda(cudaMemsetAsync(result, 0, sizeof(Result), stream_.get()), "cudaMemsetAsync");
        check_cuda(cudaMemsetAsync(result + 1, 0xff, sizeof(Result), stream_.get()),
                   "cudaMemsetAsync");
        return result;
    }
    [[nodiscard]] std::int64_t fetched(const unsigned long long* result) const {
        unsigned long long found = 0;
        copy_now(&found, result, sizeof found, cudaMemcpyDeviceToHost);
        return static_cast<std::int64_t>(found);
    }
    /// On the stream of the kernels: one that does not block is not ordered with cudaMemcpy, whose
    /// last bytes may arrive after it has returned.
    void copy_now(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) const {
        check_cuda(cudaMemcpyAsync(to, from, bytes, kind, stream_.get()), "cudaMemcpyAsync");
        check_cuda(cudaStreamSynchronize(stream_.get()), "cudaStreamSynchronize");
    }
    template <class Element>
    [[nodiscard]] std::vector<Element> downloaded(const DeviceBuffer& buffer,
                                                  std::int64_t count) const {
        std::vector<Element> values(static_cast<std::size_t>(count));
        copy_now(values.data(), buffer.as<Element>(), values.size() * sizeof(Element),
                 cudaMemcpyDeviceToHost);
        return values;
    }

    std::int64_t rows_;
    std::int64_t cols_;
    std::int64_t tiles_ = 0;
    bool has_codes_ = false;
    Band band_;  ///< without data: the matrix is on the device
    TileGrid grid_;
    Stream stream_;
    Event begin_, end_;
    DeviceBuffer source_, codes_, amax_, scale_, operands_, decoded_, other_, result_;
    DeviceBuffer own_scale_, sums_;
    DeviceBuffer copy_from_, copy_to_;
};

}  // namespace

std::unique_ptr<DeviceMatrix> upload_matrix(const std::uint16_t* values, std::int64_t rows,
                                            std::int64_t cols) {
    if (!cuda_row().viable) return nullptr;
    if (rows < 1 || cols < 1) {
        throw std::invalid_argument("CUDA backend: a matrix of " + std::to_string(rows) + " x " +
                                    std::to_string(cols) + " has no elements to upload");
    }
    use_device();
    return std::make_unique<Matrix>(values, rows, cols);
}

}  // namespace refit::kernels::cuda
