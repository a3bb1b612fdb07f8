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

/// Allocations of this process whose guard bytes, behind their end, were overwritten so far.
[[nodiscard]] int overrun_allocations();

}  // namespace refit::emulated_cuda
