// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The digests of an entry of a piece as work for a device: what EntryDigests makes on the host.
#pragma once

#include <cstdint>
#include <vector>

#include "core/dtype.hpp"
#include "kernels/cuda/digest_program.hpp"
#include "wire/manifest.hpp"
#include "wire/piece.hpp"

namespace refit::trainer {

/// Appends a job and a record without digest for each cell of the entry, in step. `data` : device
/// address of the entry's first byte.
inline void append_digest_jobs(const wire::ParameterMeta& meta, const wire::PieceEntry& entry,
                               const std::uint8_t* data,
                               std::vector<kernels::cuda::DigestJob>& jobs,
                               std::vector<wire::DigestRecord>& records) {
    const core::Region sent = entry.region(meta);
    const std::int64_t size = core::size_bytes(meta.dtype);
    for (const wire::Cell& cell : wire::cells_in_region(meta, sent)) {
        const core::Region& region = cell.region;
        kernels::cuda::DigestJob job;
        job.stride = sent.cols * size;
        job.data = data + (region.row - sent.row) * job.stride + (region.col - sent.col) * size;
        job.rows = region.rows;
        job.row_bytes = region.cols * size;
        jobs.push_back(job);
        records.push_back({entry.parameter, cell.index, {}});
    }
}

}  // namespace refit::trainer
