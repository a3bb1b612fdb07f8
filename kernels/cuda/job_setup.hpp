// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A job from a band and its grid: what every caller of the kernels fills in alike.
#pragma once

#include "kernels/backend.hpp"
#include "kernels/cuda/tile_program.hpp"

namespace refit::kernels::cuda {

/// Scaling, extents and grid of the job; its memory is the caller's to set.
[[nodiscard]] inline Job job_of_band(const numerics::TileScaling& scaling, const Band& band,
                                     const TileGrid& grid) {
    Job job;
    job.scaling = scaling;
    job.source_stride = band.row_stride;
    job.row_begin = band.row_begin;
    job.row_count = band.row_count;
    job.rows = band.rows;
    job.cols = band.cols;
    job.tile_rows = grid.tile_rows;
    job.tile_cols = grid.tile_cols;
    job.grid_cols = grid.grid_cols;
    job.first_grid_row = band.row_begin / grid.tile_rows;
    job.last_element_bits = band.last_element_bits;
    return job;
}

}  // namespace refit::kernels::cuda
