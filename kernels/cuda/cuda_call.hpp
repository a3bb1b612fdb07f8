// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Errors of the CUDA runtime as exceptions, and its objects with an owner. Private to kernels/cuda
// and the tests that need a device.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <stdexcept>
#include <string>
#include <utility>

namespace refit::kernels::cuda {

struct CudaError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Throws CudaError with the call and the runtime's own text. The error is cleared, so that a later
/// call does not report it again; where it comes back all the same, the device is lost to this
/// process, and device_lost() says so from then on.
[[noreturn]] void fail_cuda(cudaError_t code, const char* call);

inline void check_cuda(cudaError_t code, const char* call) {
    if (code != cudaSuccess) fail_cuda(code, call);
}

/// Makes the device of this process (see cuda_backend()) the calling thread's.
void use_device();

/// Memory of the device (`kPinned` false) or of the host, locked for fast copies. Grows, never
/// shrinks; what was in it is lost when it grows.
template <bool kPinned>
class CudaBuffer {
 public:
    CudaBuffer() = default;
    ~CudaBuffer() { release(); }
    CudaBuffer(const CudaBuffer&) = delete;
    CudaBuffer& operator=(const CudaBuffer&) = delete;

    /// At least `bytes` bytes, aligned to 256.
    void* reserve(std::size_t bytes) {
        if (bytes > bytes_) {
            release();
            if constexpr (kPinned) {
                check_cuda(cudaMallocHost(&data_, bytes), "cudaMallocHost");
            } else {
                check_cuda(cudaMalloc(&data_, bytes), "cudaMalloc");
            }
            bytes_ = bytes;
        }
        return data_;
    }
    [[nodiscard]] std::size_t size() const { return bytes_; }
    template <class Element>
    [[nodiscard]] Element* as() const {
        return static_cast<Element*>(data_);
    }

 private:
    void release() {
        if (data_ == nullptr) return;
        if constexpr (kPinned) {
            (void)cudaFreeHost(data_);
        } else {
            (void)cudaFree(data_);
        }
        data_ = nullptr;
        bytes_ = 0;
    }
    void* data_ = nullptr;
    std::size_t bytes_ = 0;
};
using DeviceBuffer = CudaBuffer<false>;
using PinnedBuffer = CudaBuffer<true>;

class Stream {
 public:
    Stream() {
        check_cuda(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking),
                   "cudaStreamCreateWithFlags");
    }
    ~Stream() { (void)cudaStreamDestroy(stream_); }
    Stream(const Stream&) = delete;
    Stream& operator=(const Stream&) = delete;
    [[nodiscard]] cudaStream_t get() const { return stream_; }
    void wait() { check_cuda(cudaStreamSynchronize(stream_), "cudaStreamSynchronize"); }

 private:
    cudaStream_t stream_ = nullptr;
};

class Event {
 public:
    Event() { check_cuda(cudaEventCreate(&event_), "cudaEventCreate"); }
    ~Event() { (void)cudaEventDestroy(event_); }
    Event(const Event&) = delete;
    Event& operator=(const Event&) = delete;
    void record(const Stream& stream) {
        check_cuda(cudaEventRecord(event_, stream.get()), "cudaEventRecord");
    }
    /// Seconds from `earlier` to this one; both have happened.
    [[nodiscard]] double seconds_since(const Event& earlier) const {
        float milliseconds = 0.0F;
        check_cuda(cudaEventElapsedTime(&milliseconds, earlier.event_, event_),
                   "cudaEventElapsedTime");
        return static_cast<double>(milliseconds) * 1e-3;
    }

 private:
    cudaEvent_t event_ = nullptr;
};

}  // namespace refit::kernels::cuda
