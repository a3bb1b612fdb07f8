// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels' per-thread functions played on the host, block by block and thread by thread,
// against the portable backend. Finds wrong indices, edges, reductions and flavours without a
// device; what it cannot find is a compiler or a device that computes otherwise (tests/device).
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "kernels/backend.hpp"
#include "kernels/cuda/decode_program.hpp"
#include "kernels/cuda/element_program.hpp"
#include "kernels/cuda/job_setup.hpp"
#include "kernels/cuda/scan_program.hpp"
#include "kernels/cuda/tile_program.hpp"
#include "quant/recipe.hpp"
#include "support/check_sums.hpp"
#include "support/tile_emulator.hpp"

namespace refit::kernels::cuda {
namespace {

using numerics::TileScaling;

/// Memory as a device would hold it: rows at a stride, guard bytes behind every output.
struct Matrix {
    std::int64_t rows = 0;
    std::int64_t cols = 0;
    std::int64_t stride = 0;
    std::int64_t offset = 0;  ///< elements in front of the first: 0 is aligned
    std::vector<std::uint16_t> values;

    [[nodiscard]] const std::uint16_t* first() const { return values.data() + offset; }
    [[nodiscard]] Band band(std::int64_t begin, std::int64_t count) const {
        Band result;
        result.data = first() + begin * stride;
        result.row_stride = stride;
        result.row_begin = begin;
        result.row_count = count;
        result.rows = rows;
        result.cols = cols;
        result.last_element_bits =
            rows * cols == 0 ? 0U : numerics::abs_bits(first()[(rows - 1) * stride + cols - 1]);
        return result;
    }
};

enum class Fill { gaussian, bit_patterns, special, zeros };

Matrix make_matrix(std::int64_t rows, std::int64_t cols, Fill fill, std::uint32_t seed,
                   std::int64_t stride = 0, std::int64_t offset = 0) {
    Matrix matrix{rows, cols, stride == 0 ? cols : stride, offset, {}};
    // What lies between the rows must enter nothing: it is NaN.
    matrix.values.assign(static_cast<std::size_t>(offset + rows * matrix.stride + 16), 0x7fc1);
    std::mt19937 random(seed);
    std::normal_distribution<float> gaussian(0.0F, 0.02F);
    for (std::int64_t r = 0; r < rows; ++r) {
        for (std::int64_t c = 0; c < cols; ++c) {
            auto& value = matrix.values[static_cast<std::size_t>(offset + r * matrix.stride + c)];
            const auto bits = static_cast<std::uint16_t>(random());
            value = numerics::f32_to_bf16(gaussian(random));
            if (fill == Fill::bit_patterns)
                value = (bits & 0x7f80U) == 0x7f80U ? std::uint16_t{0x1234} : bits;
            if (fill == Fill::special && random() % 512 == 0) value = bits | 0x7f80U;
            if (fill == Fill::zeros) value = bits & 0x8000U;
        }
    }
    return matrix;
}

constexpr std::uint32_t kGuard = 0x5a5a5a5aU;

struct Result {
    std::vector<std::uint32_t> amax;
    std::vector<std::uint32_t> scale_bits;
    std::vector<std::uint8_t> codes;
    bool operator==(const Result&) const = default;
};

Job job_of(const TileScaling& scaling, const Band& band, const TileGrid& grid) {
    Job job = job_of_band(scaling, band, grid);
    job.source = band.data;
    job.wide_loads =
        reinterpret_cast<std::uintptr_t>(band.data) % 16 == 0 && band.row_stride % kChunk == 0;
    return job;
}

/// One pass where the tiles have one, else (or with `three_steps`) amax, factors and codes, over
/// bands that begin at the given rows.
Result emulate(const TileScaling& scaling, const Matrix& matrix, bool three_steps = false,
               std::vector<std::int64_t> cuts = {}, Fault fault = Fault::none) {
    const TileGrid grid = tile_grid(scaling, matrix.rows, matrix.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    const std::int64_t code_stride = (matrix.cols + 7) / 8 * 8 + 8;
    std::vector<std::uint32_t> amax(tiles + 4, kGuard);
    std::vector<float> scale(tiles + 4, std::bit_cast<float>(kGuard));
    std::vector<float> operands(tiles + 4, std::bit_cast<float>(kGuard));
    std::fill(amax.begin(), amax.begin() + static_cast<std::ptrdiff_t>(tiles), 0U);
    std::vector<std::uint8_t> codes(static_cast<std::size_t>(matrix.rows * code_stride + 64), 0x5a);
    cuts.insert(cuts.begin(), 0);
    cuts.push_back(matrix.rows);
    for (const bool encoding : {false, true}) {
        for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
            const Band band = matrix.band(cuts[i], cuts[i + 1] - cuts[i]);
            Job job = job_of(scaling, band, grid);
            const auto first = job.first_grid_row * grid.grid_cols;
            const std::int64_t count = touched_grid_rows(grid, band) * grid.grid_cols;
            job.amax_bits = amax.data() + first;
            job.scale_inv = scale.data() + first;
            job.operands = operands.data() + first;
            job.codes = codes.data() + cuts[i] * code_stride;
            job.code_stride = code_stride;
            job.wide_stores = reinterpret_cast<std::uintptr_t>(job.codes) % 8 == 0;
            const bool any = three_steps || program_of(job) == Program::any;
            with_flavour(job, fault, [&](auto emulator) {
                if (!encoding && !any) emulator.quantize();
                if (!encoding && any) emulator.tile_amax(count);
                if (encoding && any) {
                    emulator.factors(count);
                    emulator.encode();
                }
            });
        }
    }
    for (std::size_t i = tiles; i < tiles + 4; ++i) {
        EXPECT_EQ(amax[i], kGuard) << "written behind the amax";
        EXPECT_EQ(std::bit_cast<std::uint32_t>(scale[i]), kGuard) << "written behind the scales";
        EXPECT_EQ(std::bit_cast<std::uint32_t>(operands[i]), kGuard) << "and the operands";
    }
    Result result;
    for (std::size_t i = 0; i < codes.size(); ++i) {
        const auto row = static_cast<std::int64_t>(i) / code_stride;
        const auto col = static_cast<std::int64_t>(i) % code_stride;
        if (row < matrix.rows && col < matrix.cols) {
            result.codes.push_back(codes[i]);
        } else {
            EXPECT_EQ(codes[i], 0x5a) << "written beside the codes of row " << row;
        }
    }
    result.amax.assign(amax.begin(), amax.begin() + static_cast<std::ptrdiff_t>(tiles));
    for (std::size_t i = 0; i < tiles; ++i)
        result.scale_bits.push_back(std::bit_cast<std::uint32_t>(scale[i]));
    return result;
}

Result portable(const TileScaling& scaling, const Matrix& matrix) {
    const TileGrid grid = tile_grid(scaling, matrix.rows, matrix.cols);
    const auto tiles = static_cast<std::size_t>(grid.grid_rows * grid.grid_cols);
    Result result;
    std::vector<float> scale(tiles);
    result.amax.resize(tiles);
    result.codes.resize(static_cast<std::size_t>(matrix.rows * matrix.cols));
    find_backend("portable")
        ->quantize(scaling, matrix.band(0, matrix.rows), result.amax, scale, result.codes.data(),
                   matrix.cols, {});
    for (const float one : scale) result.scale_bits.push_back(std::bit_cast<std::uint32_t>(one));
    return result;
}

void expect_equal(const Result& found, const Result& expected, const std::string& what) {
    ASSERT_EQ(found.amax, expected.amax) << what;
    ASSERT_EQ(found.scale_bits, expected.scale_bits) << what;
    const auto at =
        std::mismatch(found.codes.begin(), found.codes.end(), expected.codes.begin()).first -
        found.codes.begin();
    ASSERT_EQ(static_cast<std::size_t>(at), expected.codes.size())
        << what << ": code " << at << " is " << int{found.codes[static_cast<std::size_t>(at)]}
        << ", expected " << int{expected.codes[static_cast<std::size_t>(at)]};
}

TEST(CudaTileProgram, EqualsPortableForEveryRecipeShapeAndFill) {
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        std::uint32_t seed = 1;
        for (const auto& [rows, cols] : {std::pair<std::int64_t, std::int64_t>{1, 1},
                                         {3, 7},
                                         {128, 128},
                                         {129, 257},
                                         {131, 40},
                                         {17, 1000}}) {
            for (const Fill fill :
                 {Fill::gaussian, Fill::bit_patterns, Fill::special, Fill::zeros}) {
                const Matrix matrix = make_matrix(rows, cols, fill, seed++);
                expect_equal(emulate(recipe.scaling, matrix), portable(recipe.scaling, matrix),
                             recipe.name + " " + std::to_string(rows) + "x" + std::to_string(cols) +
                                 " fill " + std::to_string(static_cast<int>(fill)));
            }
        }
    }
}

TEST(CudaTileProgram, EqualsPortableWhereRowsAreNotAlignedToAChunk) {
    const Matrix wide = make_matrix(130, 264, Fill::gaussian, 1, 272);
    const Matrix narrow = make_matrix(130, 264, Fill::gaussian, 1, 267, 3);
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        const Result expected = portable(recipe.scaling, wide);
        expect_equal(emulate(recipe.scaling, wide), expected, recipe.name + " aligned");
        expect_equal(emulate(recipe.scaling, narrow), expected, recipe.name + " not aligned");
    }
}

TEST(CudaTileProgram, GivesTheSameBitsInThreeStepsOverBandsThatCutTiles) {
    const Matrix matrix = make_matrix(389, 259, Fill::special, 3);
    for (const quant::Recipe& recipe : quant::recipe_catalog()) {
        expect_equal(emulate(recipe.scaling, matrix, true, {1, 100, 128, 200, 385}),
                     portable(recipe.scaling, matrix), recipe.name);
    }
}

TEST(CudaTileProgram, EqualsPortableForTilesThatNoRecipeHas) {
    // Rows and columns that are no multiple of a patch or a chunk, and tiles larger than a patch.
    for (const auto& [tile_rows, tile_cols] : {std::pair<std::int64_t, std::int64_t>{1, 128},
                                               {64, 64},
                                               {3, 5},
                                               {256, 128},
                                               {128, 384},
                                               {100, 0},
                                               {0, 12},
                                               {1, 24},
                                               {128, 8}}) {
        for (const numerics::Edge edge :
             {numerics::Edge::true_extent, numerics::Edge::pad_last_element}) {
            TileScaling scaling;
            scaling.tile_rows = tile_rows;
            scaling.tile_cols = tile_cols;
            scaling.edge = edge;
            const Matrix matrix = make_matrix(300, 413, Fill::gaussian, 8);
            const std::string what = std::to_string(tile_rows) + "x" + std::to_string(tile_cols);
            expect_equal(emulate(scaling, matrix), portable(scaling, matrix), what);
            expect_equal(emulate(scaling, matrix, true, {7, 130}), portable(scaling, matrix),
                         what + " in bands");
        }
    }
}

TEST(CudaTileProgram, KeepsRowsOfEveryLengthAndReadsAgainWhatIsBeyondTheRegisters) {
    for (const std::int64_t cols : {4096, 4097, 8192, 10'000, 40'003}) {
        const Matrix matrix = make_matrix(3, cols, Fill::gaussian, 4);
        for (const char* name : {"modelopt-pc-pt", "compressed-tensors-channel"}) {
            const TileScaling scaling = quant::find_recipe(name).scaling;
            expect_equal(emulate(scaling, matrix), portable(scaling, matrix),
                         std::string(name) + " " + std::to_string(cols));
        }
    }
}

TEST(CudaTileProgram, TheEmulationSeesAMissingBarrierAHalfGroupAndAMissingPadding) {
    Matrix matrix = make_matrix(129, 257, Fill::gaussian, 5);
    // The last element is the largest, so that padding with it shows in every ragged tile.
    matrix.values[static_cast<std::size_t>(128 * 257 + 256)] = 0x4000;
    const auto differs = [&](const char* name, Fault fault) {
        const TileScaling scaling = quant::find_recipe(name).scaling;
        return emulate(scaling, matrix, false, {}, fault) != portable(scaling, matrix);
    };
    EXPECT_TRUE(differs("prime-rl-blockwise", Fault::no_barrier));
    EXPECT_TRUE(differs("modelopt-pc-pt", Fault::no_barrier));
    EXPECT_TRUE(differs("tensorwise", Fault::no_barrier));
    EXPECT_TRUE(differs("mxfp8", Fault::half_group));
    EXPECT_TRUE(differs("nemo-rl-linear", Fault::no_padding));
    EXPECT_FALSE(differs("nemo-rl-linear", Fault::none));
}

TEST(CudaPtx, DividesAsIeeeDoesAndFusesNothingUnaskedAndFlushesNothing) {
#if defined(REFIT_CUDA_OBJECT)
    for (const char* name :
         {REFIT_CUDA_OBJECT, REFIT_CUDA_ELEMENT_OBJECT, REFIT_CUDA_DIGEST_OBJECT}) {
        SCOPED_TRACE(name);
        std::ifstream file(name, std::ios::binary);
        if (!file) GTEST_SKIP() << name << " is not on this machine";
        const std::string object((std::istreambuf_iterator<char>(file)),
                                 std::istreambuf_iterator<char>());
        const auto holds = [&](const char* text) { return object.find(text) != std::string::npos; };
        ASSERT_TRUE(holds(".entry _Z")) << "the object holds no PTX that can be read";
        // The check of elements divides doubles, the quantizing kernels F32, digests nothing.
        const bool divides = std::string_view(name) != REFIT_CUDA_DIGEST_OBJECT;
        EXPECT_EQ(holds("div.rn.f32") || holds("div.rn.f64"), divides);
        for (const char* forbidden :
             {"div.full.f32", "div.approx", "rcp.approx", "fma.rn.f64", ".ftz"}) {
            EXPECT_FALSE(holds(forbidden)) << forbidden << " gives other bits than the host";
        }
        // The check asks for it by name, on the host too; elsewhere it was a product and a sum.
        EXPECT_EQ(holds("fma.rn.f32"), std::string_view(name) == REFIT_CUDA_ELEMENT_OBJECT);
    }
#else
    GTEST_SKIP() << "built without CUDA";
#endif
}

TEST(CudaTileProgram, DequantizesAsOneProductAndOneRounding) {
    const std::vector<std::uint8_t> codes = {0x38, 0xb8, 0x7e, 0x7f, 0x01, 0x80};
    const std::vector<float> scales = {0.5F, 3.0F};  // [1, 2] tiles of 1 x 3
    std::vector<float> wide(6);
    std::vector<std::uint16_t> narrow(6);
    DequantizeJob job{codes.data(), scales.data(), nullptr, wide.data(), 1, 6, 1, 3, 2};
    for (std::int64_t i = 0; i < 6; ++i) dequantize_element(job, i);
    job.bf16 = narrow.data();
    for (std::int64_t i = 0; i < 6; ++i) dequantize_element(job, i);
    EXPECT_EQ(wide[0], 0.5F);
    EXPECT_EQ(wide[1], -0.5F);
    EXPECT_EQ(wide[2], 224.0F);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(wide[3]), 0x7fc00000U);
    EXPECT_EQ(wide[4], 0.001953125F * 3.0F);
    EXPECT_EQ(std::bit_cast<std::uint32_t>(wide[5]), 0x80000000U);
    EXPECT_EQ(narrow, (std::vector<std::uint16_t>{0x3f00, 0xbf00, 0x4360, 0x7fc0, 0x3bc0, 0x8000}));
}

TEST(CudaTileProgram, DecodesEveryCodeExactly) {
    for (std::uint32_t code = 0; code < 256; ++code) {
        const float value = numerics::e4m3_to_f32(static_cast<std::uint8_t>(code));
        EXPECT_EQ(std::bit_cast<std::uint32_t>(decoded(code)), std::bit_cast<std::uint32_t>(value));
    }
}

TEST(CudaTileProgram, DequantizesPatchesAsItDoesSingleElements) {
    // Whole chunks, ragged edges, tiles that chunks cut, and rows that are not aligned.
    std::mt19937 random(7);
    for (const auto& [rows, cols, tile_rows, tile_cols] :
         {std::array<std::int64_t, 4>{130, 264, 128, 128},
          std::array<std::int64_t, 4>{3, 259, 1, 259}, std::array<std::int64_t, 4>{140, 40, 2, 12},
          std::array<std::int64_t, 4>{17, 64, 1, 32}}) {
        const std::int64_t across = (cols + tile_cols - 1) / tile_cols;
        const std::int64_t down = (rows + tile_rows - 1) / tile_rows;
        std::vector<std::uint8_t> codes(static_cast<std::size_t>(rows * cols));
        for (std::uint8_t& code : codes) code = static_cast<std::uint8_t>(random());
        std::vector<float> scales(static_cast<std::size_t>(across * down));
        for (float& scale : scales) scale = static_cast<float>(random() % 1000 + 1) * 1e-4F;
        std::vector<Chunk> memory(codes.size() / 4 + 1);  // aligned, and room for F32
        for (const bool wide : {false, true}) {
            DequantizeJob job{codes.data(), scales.data(), nullptr,   nullptr, rows,
                              cols,         tile_rows,     tile_cols, across};
            std::vector<std::uint32_t> found;
            for (const bool by_patch : {false, true}) {
                std::fill(memory.begin(), memory.end(), Chunk{{1, 2, 3, 4}});
                if (wide) {
                    job.f32 = reinterpret_cast<float*>(memory.data());
                } else {
                    job.bf16 = reinterpret_cast<std::uint16_t*>(memory.data());
                }
                for (std::int64_t i = 0; i < rows * cols && !by_patch; ++i)
                    dequantize_element(job, i);
                for (std::int64_t r = 0; r * kPatchRows < rows && by_patch; ++r) {
                    for (std::int64_t c = 0; c * kPatchCols < cols; ++c) {
                        for (int t = 0; t < kBlockThreads; ++t) dequantize_patch(job, r, c, t);
                    }
                }
                const auto* words = reinterpret_cast<const std::uint32_t*>(memory.data());
                const std::vector<std::uint32_t> here(words, words + 4 * memory.size());
                if (by_patch) {
                    EXPECT_EQ(here, found) << rows << " x " << cols << " wide " << wide;
                } else {
                    found = here;
                }
            }
        }
    }
}

TEST(CudaScanProgram, LooksAtEveryValueOnceWhateverTheAlignment) {
    std::vector<Chunk> memory(64);
    auto* const bytes = reinterpret_cast<std::uint8_t*>(memory.data());
    auto* const values = reinterpret_cast<std::uint16_t*>(memory.data());
    for (const std::int64_t threads : {1, 3, 40}) {
        for (std::int64_t offset = 0; offset < 17; ++offset) {
            for (const std::int64_t count : {0, 1, 15, 16, 33, 400}) {
                std::vector<int> seen(static_cast<std::size_t>(count), 0);
                for (std::int64_t t = 0; t < threads; ++t) {
                    scan_range(
                        bytes + offset, count, t, threads,
                        [&](const Chunk&, std::int64_t index) {
                            for (std::int64_t i = index; i < index + 16; ++i)
                                ++seen.at(static_cast<std::size_t>(i));
                        },
                        [&](std::int64_t i) { ++seen.at(static_cast<std::size_t>(i)); });
                }
                EXPECT_EQ(seen, std::vector<int>(seen.size(), 1)) << threads << " " << offset;
            }
        }
    }
    // One special value after the other, at every place: each is counted, and nothing else is.
    const auto reset = [&] {
        std::fill(memory.begin(), memory.end(), Chunk{{0x7e7e7e7e, 0xfefefefe, 0, 0x7f7e80}});
    };
    reset();
    EXPECT_EQ(scan_nan_codes(bytes, 1024, 0, 1), 64U);  // the 0x7f of each last word
    for (std::int64_t i = 0; i < 1024; ++i) {
        reset();
        const bool counted = numerics::e4m3_is_nan(bytes[i]);
        bytes[i] = 0xff;
        EXPECT_EQ(scan_nan_codes(bytes, 1024, 0, 1), counted ? 64U : 65U) << i;
    }
    for (std::int64_t i = 1; i < 512; ++i) {
        for (const int bits : {0x7f80, 0xff80, 0x7f81, 0xffff}) {
            const auto special = static_cast<std::uint16_t>(bits);
            std::fill(memory.begin(), memory.end(), Chunk{{0xff7f7f7f, 0x7f7fff7f, 0, 1}});
            EXPECT_EQ(scan_max_abs(values + 1, 511, 0, 1), 0x7f7f0000U);
            values[i] = special;
            std::vector<std::int64_t> found;
            scan_nonfinite(values + 1, 511, 0, 1, [&](std::int64_t at) { found.push_back(at); });
            EXPECT_EQ(found, std::vector<std::int64_t>{i - 1});
            EXPECT_EQ(scan_max_abs(values + 1, 511, 0, 1), numerics::abs_bits(special));
        }
    }
}

/// A patch of 128 x 128 that is one tile: what patches say of it, and single elements in doubles.
class CheckedPatch {
 public:
    static constexpr std::int64_t kSide = 128;

    /// `value(i)` gives the source; codes are the nearest ones for `scale`.
    template <class Value>
    CheckedPatch(float scale, const Value& value) : scale_(scale) {
        float amax = 0.0F;
        for (std::int64_t i = 0; i < kSide * kSide; ++i) {
            source()[i] = numerics::f32_to_bf16(value(i));
            const float x = numerics::bf16_to_f32(source()[i]);
            amax = std::max(amax, std::abs(x));
            codes()[i] = numerics::f32_to_e4m3(x / scale);
        }
        own_ = static_cast<double>(amax) / 448.0;
    }

    [[nodiscard]] std::uint16_t* source() {
        return reinterpret_cast<std::uint16_t*>(source_.data());
    }
    [[nodiscard]] std::uint8_t* codes() { return reinterpret_cast<std::uint8_t*>(codes_.data()); }

    /// The threads one after the other; with `sharing` each knows what those before it have seen.
    [[nodiscard]] CheckSums by_patch(double known, bool sharing) {
        CheckSums all;
        double reached = known;
        for (int t = 0; t < kBlockThreads; ++t) {
            CheckSums one;
            if (!sharing) reached = known;
            check_patch(
                job(), 0, 0, t, reached, [](double r) { return r; }, one);
            merge(all, one);
        }
        return all;
    }

    [[nodiscard]] CheckSums by_elements() {
        CheckSums all;
        for (std::int64_t i = 0; i < kSide * kSide; ++i)
            check_element(job(), i / kSide, i % kSide, all);
        return all;
    }

 private:
    [[nodiscard]] CheckJob job() {
        return {source(), kSide, codes(), kSide, &scale_, &own_,
                kSide,    kSide, kSide,   kSide, 1,       1e-5};
    }

    std::vector<Chunk> source_ = std::vector<Chunk>(kSide * kSide / 8);
    std::vector<Chunk> codes_ = std::vector<Chunk>(kSide * kSide / 16);
    float scale_;
    double own_ = 0.0;
};

TEST(CudaCheckProgram, FindsTheSameWhateverIsKnownOfTheLargestRatio) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0.0F, 0.02F);
    std::vector<float> values(CheckedPatch::kSide * CheckedPatch::kSide);
    float amax = 0.0F;
    for (float& value : values) {
        value = numerics::bf16_to_f32(numerics::f32_to_bf16(normal(random)));
        amax = std::max(amax, std::abs(value));
    }
    CheckedPatch patch(amax / 448.0F,
                       [&](std::int64_t i) { return values[static_cast<std::size_t>(i)]; });
    const CheckSums clean = patch.by_elements();
    EXPECT_GT(clean.worst, 0.9);
    EXPECT_EQ(clean.beyond, 0);
    for (const int planted : {0, 1, 2}) {
        if (planted == 1) patch.codes()[77 * CheckedPatch::kSide + 5] ^= 0x10U;
        if (planted == 2) {  // a small value, one code beside the nearest
            patch.source()[9000] = numerics::f32_to_bf16(0.3F * 0x1p-9F * amax / 448.0F);
            patch.codes()[9000] = 0x01;
        }
        const CheckSums expected = patch.by_elements();
        EXPECT_EQ(expected.beyond, planted);
        const CheckSums alone = patch.by_patch(0.0, false);
        expect_found(alone, expected);
        expect_found(patch.by_patch(0.0, true), expected);
        // What was seen elsewhere is larger: the patch need not tell its own, and still counts.
        const CheckSums late = patch.by_patch(std::numeric_limits<double>::infinity(), false);
        expect_found(late, expected, planted != 0);
        // The order of the sums depends on nothing that was seen.
        EXPECT_EQ(late.x2, alone.x2);
        EXPECT_EQ(late.error2, alone.error2);
        EXPECT_EQ(late.x_error, alone.x_error);
    }
}

TEST(CudaCheckProgram, CountsExactlyWhereF32AlmostCannot) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0.0F, 1.0F);
    std::vector<float> noise(CheckedPatch::kSide * CheckedPatch::kSide);
    for (float& value : noise) value = normal(random);
    const auto at = [&](std::int64_t i) { return noise[static_cast<std::size_t>(i)]; };
    const auto expect_case = [&](const char* what, float scale, const auto& value) {
        SCOPED_TRACE(what);
        CheckedPatch patch(scale, value);
        expect_found(patch.by_patch(0.0, true), patch.by_elements());
        expect_found(patch.by_patch(0.0, false), patch.by_elements());
    };
    expect_case("a power of two: many exact, many at the largest ratio", 0x1p-7F, at);
    expect_case("a scale next to a power of two: products next to a source",
                std::nextafter(0x1p-7F, 1.0F), at);
    expect_case("a scale too small: saturated", 0x1p-9F, at);
    expect_case("a scale too large: many zeros", 16.0F, at);
    expect_case("zeros", 1.0F, [](std::int64_t) { return 0.0F; });
    expect_case("zeros under a scale that is subnormal", 0x1p-130F,
                [](std::int64_t) { return 0.0F; });
    expect_case("one value among zeros", 1e-12F,
                [](std::int64_t i) { return i == 4321 ? -1e-10F : 0.0F; });
    expect_case("squares that underflow", 0x1p-70F,
                [&](std::int64_t i) { return at(i) * 0x1p-66F; });
    expect_case("sources that are subnormal", 0x1p-134F,
                [&](std::int64_t i) { return at(i) * 0x1p-127F; });
    expect_case("squares that overflow", 0x1p90F, [&](std::int64_t i) { return at(i) * 0x1p96F; });
    expect_case("products that overflow", 0x1p119F,
                [&](std::int64_t i) { return at(i) * 0x1p120F; });
    expect_case("exact but for one that is flushed", 0x1p-7F, [](std::int64_t i) {
        return i % 2048 == 77 ? 0x1p-80F : 0x1p-7F * static_cast<float>(i % 16);
    });
    expect_case("Inf and NaN among values", 0x1p-7F,
                [&](std::int64_t i) { return i == 99 ? INFINITY : (i == 9999 ? NAN : at(i)); });
}

}  // namespace
}  // namespace refit::kernels::cuda
