// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A CUDA device played by the host: the calls of the runtime that kernels/cuda makes, and its
// launches. Linked in place of both, it lets the host's side of the backend run without a GPU.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace refit::emulated_cuda {

/// Work of a stream. It is done when somebody waits for the stream, as late as the rules allow: a
/// result that is read without waiting, or memory that is written again too early, is wrong.
void enqueue(cudaStream_t stream, std::function<void()> work);

/// A kernel of this name is launched. REFIT_EMULATED_FAULT="RANK NAME N" plants a fault in launch N
/// (from 0) of the world rank: from there on every call of the runtime in that process fails, as
/// after an illegal access to memory, and what was enqueued is not done.
void launched(const char* kernel);

/// Allocations of this process whose guard bytes, behind their end, were overwritten so far.
[[nodiscard]] int overrun_allocations();

}  // namespace refit::emulated_cuda
