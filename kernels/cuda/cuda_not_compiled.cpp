// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Stands in for the CUDA backend where the build has none.
#include "kernels/cuda/cuda_backend.hpp"

#include "kernels/cuda/device_matrix.hpp"
#include "kernels/cuda/device_queue.hpp"
#include "refit_cuda_off_reason.hpp"

namespace refit::kernels::cuda {

const BackendRow& cuda_row() {
    static const BackendRow row{"cuda", false, false,
                                "not compiled: " REFIT_CUDA_OFF_REASON "; use auto"};
    return row;
}

std::string device_lost() {
    return {};
}

const Backend* cuda_backend() {
    return nullptr;
}

CudaSeconds cuda_seconds() {
    return {};
}

std::optional<DeviceMemory> device_memory() {
    return std::nullopt;
}

std::unique_ptr<DeviceMatrix> upload_matrix(const std::uint16_t*, std::int64_t, std::int64_t) {
    return nullptr;
}

std::unique_ptr<DeviceQueue> make_device_queue() {
    return nullptr;
}

int cuda_device() {
    return -1;
}

std::string cuda_build() {
    return "not compiled: " REFIT_CUDA_OFF_REASON;
}

std::string cuda_description() {
    return {};
}

}  // namespace refit::kernels::cuda
