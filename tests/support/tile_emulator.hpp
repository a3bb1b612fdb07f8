// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The threads of the kernels in device_kernels.cu played one after the other on the host.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "kernels/cuda/tile_program.hpp"

namespace refit::kernels::cuda {

/// What a kernel could do wrong that a test must see.
enum class Fault { none, no_barrier, half_group, no_padding };

/// Plays the blocks of the kernels in device_kernels.cu. `kFlavour` as a launch would choose it.
template <Flavour kFlavour>
class Emulator {
 public:
    Emulator(Job job, Fault fault) : job_(job), fault_(fault) {
        if (fault_ == Fault::no_padding) job_.scaling.edge = numerics::Edge::true_extent;
    }

    void quantize() {
        switch (program_of(job_)) {
            case Program::block_tiles:
                block_tiles();
                break;
            case Program::whole_rows:
                whole_rows();
                break;
            case Program::groups_of_4:
                fault_ == Fault::half_group ? groups<4, 2>() : groups<4, 4>();
                break;
            case Program::groups_of_16:
                fault_ == Fault::half_group ? groups<16, 8>() : groups<16, 16>();
                break;
            case Program::any:
                FAIL() << "not one pass";
        }
    }

    void tile_amax(std::int64_t tiles) {
        const Meet meet = meet_of(job_.tile_rows, job_.tile_cols, job_.rows, job_.cols);
        const auto raise = [this](std::int64_t index, std::uint32_t bits) {
            job_.amax_bits[index] = std::max(job_.amax_bits[index], bits);
        };
        for (std::int64_t row = 0; row < aligned_patches_down(job_); ++row) {
            for (std::int64_t col = 0; col < patches_across(job_); ++col) {
                std::uint32_t amax = 0;
                for (int thread = 0; thread < kBlockThreads; ++thread) {
                    const std::uint32_t own = patch_amax(job_, meet, row, col, thread, raise);
                    amax = fault_ == Fault::no_barrier ? own : std::max(amax, own);
                }
                if (meet == Meet::patch) raise(patch_tile(job_, row, col), amax);
            }
        }
        if (job_.scaling.edge == numerics::Edge::pad_last_element) {
            for (std::int64_t i = 0; i < tiles; ++i) pad_tile(job_, i);
        }
    }

    void factors(std::int64_t tiles) {
        for (std::int64_t i = 0; i < tiles; ++i) make_factor(job_, i);
    }

    void encode() {
        const Meet meet = meet_of(job_.tile_rows, job_.tile_cols, job_.rows, job_.cols);
        for (std::int64_t row = 0; row < aligned_patches_down(job_); ++row) {
            for (std::int64_t col = 0; col < patches_across(job_); ++col) {
                for (int thread = 0; thread < kBlockThreads; ++thread)
                    patch_encode<kFlavour>(job_, meet, row, col, thread);
            }
        }
    }

 private:
    [[nodiscard]] std::uint32_t meet(const std::array<std::uint32_t, kBlockThreads>& own,
                                     int thread) const {
        return fault_ == Fault::no_barrier ? own[static_cast<std::size_t>(thread)]
                                           : *std::max_element(own.begin(), own.end());
    }

    void block_tiles() {
        std::vector<BlockTile> tiles(kBlockThreads);
        std::array<std::uint32_t, kBlockThreads> own{};
        for (std::int64_t row = 0; row < patches_down(job_); ++row) {
            for (std::int64_t col = 0; col < patches_across(job_); ++col) {
                for (int t = 0; t < kBlockThreads; ++t) {
                    const auto i = static_cast<std::size_t>(t);
                    own[i] = block_tile_load<kFlavour>(job_, row, col, t, tiles[i]);
                }
                for (int t = 0; t < kBlockThreads; ++t) {
                    block_tile_finish<kFlavour>(job_, row, col, t,
                                                tiles[static_cast<std::size_t>(t)], meet(own, t));
                }
            }
        }
    }

    void whole_rows() {
        switch (kept_chunks(job_.cols)) {
            case 2:
                return rows_with<2>();
            case 4:
                return rows_with<4>();
            default:
                return rows_with<kRowChunks>();
        }
    }

    template <int kKept>
    void rows_with() {
        std::vector<WholeRow<kKept>> kept(kBlockThreads);
        std::array<std::uint32_t, kBlockThreads> own{};
        for (std::int64_t row = 0; row < job_.row_count; ++row) {
            for (int t = 0; t < kBlockThreads; ++t) {
                const auto i = static_cast<std::size_t>(t);
                own[i] = whole_row_load<kFlavour>(job_, row, t, kept[i]);
            }
            for (int t = 0; t < kBlockThreads; ++t) {
                whole_row_finish<kFlavour>(job_, row, t, kept[static_cast<std::size_t>(t)],
                                           meet(own, t));
            }
        }
    }

    template <int kLanes, int kReduced>
    void groups() {
        std::vector<BlockTile> tiles(kBlockThreads);
        std::array<std::uint32_t, kBlockThreads> own{};
        for (std::int64_t row = 0; row < patches_down(job_); ++row) {
            for (std::int64_t col = 0; col < patches_across(job_); ++col) {
                for (int t = 0; t < kBlockThreads; ++t)
                    patch_load(job_, row, col, t, tiles[static_cast<std::size_t>(t)]);
                for (int pass = 0; pass < kPatchPasses; ++pass) {
                    const auto chunk = [&](int t) -> const Chunk& {
                        return tiles[static_cast<std::size_t>(t)].chunks[pass];
                    };
                    for (int t = 0; t < kBlockThreads; ++t) {
                        own[static_cast<std::size_t>(t)] =
                            chunk_amax(as_flavour<kFlavour>(job_.scaling), chunk(t));
                    }
                    for (int t = 0; t < kBlockThreads; ++t) {
                        const int first = t / kReduced * kReduced;
                        const std::uint32_t amax =
                            *std::max_element(own.begin() + first, own.begin() + first + kReduced);
                        group_finish<kFlavour, kLanes>(job_, row, col, t, pass, chunk(t), amax);
                    }
                }
            }
        }
    }

    Job job_;
    Fault fault_;
};

template <class Call>
void with_flavour(const Job& job, Fault fault, const Call& call) {
    switch (flavour_of(job.scaling)) {
        case Flavour::divide_plain:
            return call(Emulator<Flavour::divide_plain>(job, fault));
        case Flavour::multiply_plain:
            return call(Emulator<Flavour::multiply_plain>(job, fault));
        case Flavour::any:
            return call(Emulator<Flavour::any>(job, fault));
    }
}

}  // namespace refit::kernels::cuda
