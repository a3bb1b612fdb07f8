// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>

#include "support/emulated_cuda.hpp"

// The runtime's handles are pointers to types that it leaves open.
struct CUstream_st {
    std::deque<std::function<void()>> work;
};
struct CUevent_st {
    std::chrono::steady_clock::time_point time;
    bool recorded = false;
    bool happened = false;
};

namespace refit::emulated_cuda {
namespace {

constexpr std::size_t kGuardBytes = 64;
constexpr int kGuard = 0x5a;
constexpr int kFresh = 0xa5;  ///< what memory holds before it is written
constexpr std::size_t kTotalBytes = std::size_t{4} << 30;

struct Device {
    std::mutex mutex;
    std::set<cudaStream_t> streams;
    std::map<void*, std::size_t> allocations;
    std::size_t used = 0;
    int overruns = 0;
    std::atomic<bool> faulted{false};
};
Device& device() {
    static auto* const instance = new Device;
    return *instance;
}

bool is_overrun(void* data, std::size_t bytes) {
    const auto* guard = static_cast<const unsigned char*>(data) + bytes;
    return std::any_of(guard, guard + kGuardBytes, [](unsigned char b) { return b != kGuard; });
}

cudaError_t state() {
    return device().faulted.load() ? cudaErrorIllegalAddress : cudaSuccess;
}

void drain(cudaStream_t stream) {
    if (device().faulted.load()) stream->work.clear();
    while (!stream->work.empty()) {
        const std::function<void()> work = std::move(stream->work.front());
        stream->work.pop_front();
        work();
    }
}

cudaError_t allocate(void** data, std::size_t bytes) {
    if (state() != cudaSuccess) return state();
    Device& d = device();
    const std::lock_guard lock(d.mutex);
    if (d.used + bytes > kTotalBytes) return cudaErrorMemoryAllocation;
    const std::size_t size = (bytes + kGuardBytes + 255) / 256 * 256;
    *data = std::aligned_alloc(256, size);
    std::memset(*data, kFresh, bytes);
    std::memset(static_cast<char*>(*data) + bytes, kGuard, kGuardBytes);
    d.allocations[*data] = bytes;
    d.used += bytes;
    return cudaSuccess;
}

cudaError_t release(void* data) {
    if (data == nullptr) return cudaSuccess;
    Device& d = device();
    const std::lock_guard lock(d.mutex);
    const auto found = d.allocations.find(data);
    if (found == d.allocations.end()) return cudaErrorInvalidValue;
    // The real calls wait for all work of the device.
    for (const cudaStream_t stream : d.streams) drain(stream);
    if (is_overrun(data, found->second)) ++d.overruns;
    d.used -= found->second;
    d.allocations.erase(found);
    std::free(data);
    return cudaSuccess;
}

}  // namespace

void enqueue(cudaStream_t stream, std::function<void()> work) {
    stream->work.push_back(std::move(work));
}

void launched(const char* kernel) {
    const char* planted = std::getenv("REFIT_EMULATED_FAULT");
    if (planted == nullptr) return;
    std::istringstream fields(planted);
    std::string rank;
    std::string name;
    int number = 0;
    fields >> rank >> name >> number;
    const char* own = std::getenv("OMPI_COMM_WORLD_RANK");
    if (name != kernel || rank != (own != nullptr ? own : "0")) return;
    static std::atomic<int> count{0};
    if (count.fetch_add(1) == number) device().faulted.store(true);
}

int overrun_allocations() {
    Device& d = device();
    const std::lock_guard lock(d.mutex);
    int overruns = d.overruns;
    for (const auto& [data, bytes] : d.allocations) overruns += is_overrun(data, bytes) ? 1 : 0;
    return overruns;
}

}  // namespace refit::emulated_cuda

using refit::emulated_cuda::device;
using refit::emulated_cuda::drain;
using refit::emulated_cuda::enqueue;
using refit::emulated_cuda::state;

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
    *count = 1;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
    *properties = {};
    std::strcpy(properties->name, "emulated on the host");
    properties->major = 9;
    return cudaSuccess;
}
cudaError_t cudaGetLastError() {
    return cudaSuccess;
}
const char* cudaGetErrorString(cudaError_t code) {
    return code == cudaErrorMemoryAllocation ? "out of memory"
           : code == cudaErrorIllegalAddress ? "an illegal memory access was encountered"
                                             : "emulated error";
}
cudaError_t cudaDriverGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int number) {
    return number == 0 ? state() : cudaErrorInvalidDevice;
}
cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
    const std::lock_guard lock(device().mutex);
    *total = refit::emulated_cuda::kTotalBytes;
    *free = *total - device().used;
    return state();
}

cudaError_t cudaMalloc(void** data, std::size_t bytes) {
    return refit::emulated_cuda::allocate(data, bytes);
}
cudaError_t cudaMallocHost(void** data, std::size_t bytes) {
    return refit::emulated_cuda::allocate(data, bytes);
}
cudaError_t cudaFree(void* data) {
    return refit::emulated_cuda::release(data);
}
cudaError_t cudaFreeHost(void* data) {
    return refit::emulated_cuda::release(data);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind,
                            cudaStream_t stream) {
    enqueue(stream, [=] { std::memcpy(to, from, bytes); });
    return state();
}
// Streams that do not block are not waited for.
cudaError_t cudaMemcpy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind) {
    std::memcpy(to, from, bytes);
    return state();
}
cudaError_t cudaMemsetAsync(void* data, int value, std::size_t bytes, cudaStream_t stream) {
    enqueue(stream, [=] { std::memset(data, value, bytes); });
    return state();
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
    *stream = new CUstream_st;
    const std::lock_guard lock(device().mutex);
    device().streams.insert(*stream);
    return state();
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    drain(stream);
    const std::lock_guard lock(device().mutex);
    device().streams.erase(stream);
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    drain(stream);
    return state();
}
cudaError_t cudaDeviceSynchronize() {
    const std::lock_guard lock(device().mutex);
    for (const cudaStream_t stream : device().streams) drain(stream);
    return state();
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
    *event = new CUevent_st;
    return state();
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
    delete event;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
    event->recorded = true;
    event->happened = false;
    enqueue(stream, [event] {
        event->time = std::chrono::steady_clock::now();
        event->happened = true;
    });
    return state();
}
cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t begin, cudaEvent_t end) {
    if (!begin->happened || !end->happened) return cudaErrorNotReady;
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - begin->time).count();
    return cudaSuccess;
}

}  // extern "C"
