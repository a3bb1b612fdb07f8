// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The few calls of the CUDA driver that the device transports need, found when the program runs.
// The driver's library is there exactly where a driver is, so neither a toolkit nor a device is
// needed to build, and a test can put a library of its own in its place (REFIT_CUDA_LIBRARY).
// Private to src/transport.
//
// Declared here from the public interface (CUDA Driver API reference, "Device Management" to
// "Unified Addressing"; the exported names of CUDA 11 to 13): handles are opaque pointers,
// CUdeviceptr is 64 bits wide, enumerators are int. tests/unit/transport compares with cuda.h where
// it is installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/viability.hpp"

namespace refit::transport {

class WorldComm;
struct Endpoint;

using CudaPointer = unsigned long long;  ///< CUdeviceptr
/// What another process of the node needs to map an allocation (CUipcMemHandle).
struct CudaIpcHandle {
    char reserved[64];
};

/// The library's functions by their exported names.
struct CudaCalls {
    int (*init)(unsigned flags);
    int (*driver_version)(int* version);
    int (*device_count)(int* count);
    int (*device_get)(int* device, int ordinal);
    int (*device_name)(char* name, int length, int device);
    int (*error_string)(int code, const char** text);
    int (*context_retain)(void** context, int device);
    int (*context_set)(void* context);
    int (*allocate)(CudaPointer* pointer, std::size_t bytes);
    int (*free)(CudaPointer pointer);
    int (*address_range)(CudaPointer* base, std::size_t* bytes, CudaPointer pointer);
    int (*allocate_host)(void** pointer, std::size_t bytes, unsigned flags);
    int (*free_host)(void* pointer);
    int (*to_device)(CudaPointer to, const void* from, std::size_t bytes, void* stream);
    int (*to_host)(void* to, CudaPointer from, std::size_t bytes, void* stream);
    int (*stream_create)(void** stream, unsigned flags);
    int (*stream_destroy)(void* stream);
    int (*event_create)(void** event, unsigned flags);
    int (*event_record)(void* event, void* stream);
    int (*event_query)(void* event);
    int (*event_destroy)(void* event);
    int (*ipc_get)(CudaIpcHandle* handle, CudaPointer pointer);
    int (*ipc_open)(CudaPointer* pointer, CudaIpcHandle handle, unsigned flags);
    int (*ipc_close)(CudaPointer pointer);
};

/// The loaded driver.
class CudaDriver {
 public:
    /// Loads REFIT_CUDA_LIBRARY, else libcuda.so.1, once. Throws NotViable with the reason.
    static const CudaDriver& instance();
    /// The library at `path`. Throws as instance() does.
    explicit CudaDriver(const std::string& path);
    /// The same as a row of the catalogue: always compiled, viable where a device is.
    static core::Viability viability();

    [[nodiscard]] const CudaCalls& calls() const { return calls_; }
    [[nodiscard]] int device_count() const { return device_count_; }
    /// 13000 for CUDA 13.0.
    [[nodiscard]] int version() const { return version_; }
    /// Throws ResourceError with the call and the driver's own text unless `code` is 0.
    void check(int code, const char* call) const;

 private:
    CudaCalls calls_{};
    int device_count_ = 0;
    int version_ = 0;
};

/// Position of a rank among the ranks of its host, modulo the devices there. hosts: one name a
/// rank.
[[nodiscard]] int device_of_rank(int rank, const std::vector<std::string>& hosts, int devices);
/// Name of this machine as the ranks compare it: host name and boot.
[[nodiscard]] std::string host_identity();

/// One device with one stream, for one thread. All calls throw ResourceError.
class CudaDevice {
 public:
    /// Makes the device's primary context current: the one that NCCL and the CUDA runtime use.
    explicit CudaDevice(int number);
    ~CudaDevice();
    CudaDevice(const CudaDevice&) = delete;
    CudaDevice& operator=(const CudaDevice&) = delete;

    [[nodiscard]] int number() const { return number_; }
    [[nodiscard]] void* stream() const { return stream_; }
    [[nodiscard]] std::string name() const;

    /// Device memory, at least `bytes`, a whole number of 2 MiB: an allocation of its own, which
    /// an IPC handle needs.
    [[nodiscard]] CudaPointer allocate(std::uint64_t bytes);
    void free(CudaPointer pointer) noexcept;
    /// Host memory that copies run from and to without a detour, zeroed.
    [[nodiscard]] std::shared_ptr<std::byte> allocate_pinned(std::uint64_t bytes);

    /// Enqueue on the stream and return.
    void upload(CudaPointer to, const std::byte* from, std::uint64_t bytes);
    void download(std::byte* to, CudaPointer from, std::uint64_t bytes);

    [[nodiscard]] CudaIpcHandle handle_of(CudaPointer pointer);
    [[nodiscard]] CudaPointer open(const CudaIpcHandle& handle);
    void close(CudaPointer pointer) noexcept;

    /// Makes this device's context current again; the transports do so before each group of calls,
    /// because another library may have chosen another device in between.
    void make_current();

 private:
    const CudaDriver& driver_;
    int number_;
    void* context_ = nullptr;
    void* stream_ = nullptr;
};

/// A place in the stream of a device.
class CudaMark {
 public:
    explicit CudaMark(CudaDevice& device);
    ~CudaMark();
    CudaMark(const CudaMark&) = delete;
    CudaMark& operator=(const CudaMark&) = delete;
    /// Everything enqueued so far.
    void record();
    /// True when all of it is done; also before the first record(). Does not wait.
    [[nodiscard]] bool reached();

 private:
    CudaDevice& device_;
    void* event_ = nullptr;
    bool under_way_ = false;
};

/// Collective: the device of this rank, number REFIT_CUDA_DEVICE or by its position on its host.
/// `hosts` gets the identities of all ranks' hosts. Throws NotViable where a rank's variable names
/// no device.
[[nodiscard]] int choose_device(WorldComm& world, const Endpoint& endpoint, int devices,
                                std::vector<std::string>& hosts);

}  // namespace refit::transport
