// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The CUDA backend as the rest of the program sees it: no CUDA header, no CUDA library to find when
// the program starts.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/backend.hpp"

namespace refit::kernels::cuda {

/// Compiled or not, viable or not, and why not: "not compiled: ..." or "no CUDA device: ...". Asks
/// the driver once; see device_lost().
[[nodiscard]] const BackendRow& cuda_row();
/// What made the device unusable for the rest of this process, empty while nothing did: after a
/// fault in a kernel every later call fails. cuda_row() is not viable from then on, so that what
/// comes next is skipped with this reason.
[[nodiscard]] std::string device_lost();
/// Null where cuda_row() is not viable. The device is number REFIT_CUDA_DEVICE, else the rank's
/// number on its node (as the launcher says) modulo the devices there are.
[[nodiscard]] const Backend* cuda_backend();

/// Number of the device of cuda_backend(); -1 where there is none.
[[nodiscard]] int cuda_device();

/// Seconds by what they went to, summed over all calls of this process since the start.
struct CudaSeconds {
    double to_device = 0.0;    ///< copies of BF16 to the device
    double kernels = 0.0;      ///< kernels, by events of their stream
    double from_device = 0.0;  ///< copies of codes and scales to the host
};
[[nodiscard]] CudaSeconds cuda_seconds();

/// Memory of this process's device.
struct DeviceMemory {
    std::uint64_t free_bytes = 0;
    std::uint64_t total_bytes = 0;
    std::uint64_t held_bytes = 0;  ///< by the slots of this process
    int devices = 1;               ///< on this node, as the driver lists them
};
/// Absent without a device. Throws CudaError.
[[nodiscard]] std::optional<DeviceMemory> device_memory();

/// "runtime 13.0" or "not compiled: ..."; does not ask for a device.
[[nodiscard]] std::string cuda_build();
/// "NVIDIA H100 80GB HBM3, compute 9.0, driver 13.0, runtime 13.0"; empty without a device.
[[nodiscard]] std::string cuda_description();

}  // namespace refit::kernels::cuda
