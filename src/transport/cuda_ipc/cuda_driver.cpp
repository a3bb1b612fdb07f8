// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/cuda_ipc/cuda_driver.hpp"

#include <dlfcn.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "core/error.hpp"
#include "transport/mpi/mpi_support.hpp"
#include "transport/transport.hpp"

namespace refit::transport {
namespace {

constexpr int kNotReady = 600;              ///< CUDA_ERROR_NOT_READY
constexpr unsigned kNonBlockingStream = 1;  ///< CU_STREAM_NON_BLOCKING
constexpr unsigned kNoTimes = 2;            ///< CU_EVENT_DISABLE_TIMING
constexpr unsigned kLazyPeerAccess = 1;     ///< CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS
constexpr std::uint64_t kAllocationUnit = std::uint64_t{2} << 20;

template <class Function>
void find(void* library, const std::string& path, const char* name, Function& function) {
    void* symbol = dlsym(library, name);
    if (symbol == nullptr) {
        throw core::NotViable(fmt::format(
            "no CUDA driver: {} has no function {}; a driver of CUDA 11 or later is needed", path,
            name));
    }
    function = reinterpret_cast<Function>(symbol);
}

}  // namespace

CudaDriver::CudaDriver(const std::string& path) {
    // Never closed: the driver starts threads of its own.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
        const char* reason = dlerror();
        throw core::NotViable(
            fmt::format("no CUDA driver: {}", reason != nullptr ? reason : path.c_str()));
    }
    const auto get = [&](const char* name, auto& function) { find(library, path, name, function); };
    get("cuInit", calls_.init);
    get("cuDriverGetVersion", calls_.driver_version);
    get("cuDeviceGetCount", calls_.device_count);
    get("cuDeviceGet", calls_.device_get);
    get("cuDeviceGetName", calls_.device_name);
    get("cuGetErrorString", calls_.error_string);
    get("cuDevicePrimaryCtxRetain", calls_.context_retain);
    get("cuCtxSetCurrent", calls_.context_set);
    get("cuMemAlloc_v2", calls_.allocate);
    get("cuMemFree_v2", calls_.free);
    get("cuMemGetAddressRange_v2", calls_.address_range);
    get("cuMemHostAlloc", calls_.allocate_host);
    get("cuMemFreeHost", calls_.free_host);
    get("cuMemcpyHtoDAsync_v2", calls_.to_device);
    get("cuMemcpyDtoHAsync_v2", calls_.to_host);
    get("cuStreamCreate", calls_.stream_create);
    get("cuStreamDestroy_v2", calls_.stream_destroy);
    get("cuEventCreate", calls_.event_create);
    get("cuEventRecord", calls_.event_record);
    get("cuEventQuery", calls_.event_query);
    get("cuEventDestroy_v2", calls_.event_destroy);
    get("cuIpcGetMemHandle", calls_.ipc_get);
    get("cuIpcOpenMemHandle_v2", calls_.ipc_open);
    get("cuIpcCloseMemHandle", calls_.ipc_close);
    try {
        check(calls_.init(0), "cuInit");
        check(calls_.driver_version(&version_), "cuDriverGetVersion");
        check(calls_.device_count(&device_count_), "cuDeviceGetCount");
    } catch (const core::ResourceError& error) {
        throw core::NotViable(fmt::format("no CUDA device: {}", error.what()));
    }
    if (device_count_ < 1) throw core::NotViable("no CUDA device: the driver lists none");
}

const CudaDriver& CudaDriver::instance() {
    static const CudaDriver driver = [] {
        const char* chosen = std::getenv("REFIT_CUDA_LIBRARY");
        return CudaDriver(chosen != nullptr && *chosen != '\0' ? chosen : "libcuda.so.1");
    }();
    return driver;
}

core::Viability CudaDriver::viability() {
    try {
        (void)instance();
        return {true, true, ""};
    } catch (const core::NotViable& error) {
        return {true, false, error.what()};
    }
}

void CudaDriver::check(int code, const char* call) const {
    if (code == 0) return;
    const char* text = nullptr;
    if (calls_.error_string(code, &text) != 0 || text == nullptr) text = "unknown error";
    throw core::ResourceError(fmt::format("{} failed: {} (CUDA error {})", call, text, code));
}

int device_of_rank(int rank, const std::vector<std::string>& hosts, int devices) {
    int before = 0;
    for (int r = 0; r < rank; ++r) {
        if (hosts[static_cast<std::size_t>(r)] == hosts[static_cast<std::size_t>(rank)]) ++before;
    }
    return before % devices;
}

std::string host_identity() {
    char name[256] = {};
    (void)gethostname(name, sizeof name - 1);
    // Containers of one machine may share a name, and two machines too; the boot tells machines
    // apart.
    std::string boot;
    std::ifstream file("/proc/sys/kernel/random/boot_id");
    std::getline(file, boot);
    return std::string(name) + "/" + boot;
}

int choose_device(WorldComm& world, const Endpoint& endpoint, int devices,
                  std::vector<std::string>& hosts) {
    hosts = world.all_gather(host_identity(), endpoint);
    int device = device_of_rank(endpoint.rank, hosts, devices);
    std::string error;
    if (const char* chosen = std::getenv("REFIT_CUDA_DEVICE")) {
        char* end = nullptr;
        const long number = std::strtol(chosen, &end, 10);
        if (end == chosen || *end != '\0' || number < 0 || number >= devices) {
            error = fmt::format("REFIT_CUDA_DEVICE is '{}', expected a number from 0 to {}", chosen,
                                devices - 1);
        } else {
            device = static_cast<int>(number);
        }
    }
    const std::vector<std::string> errors = world.all_gather(error, endpoint);
    for (std::size_t r = 0; r < errors.size(); ++r) {
        if (!errors[r].empty()) throw core::NotViable(fmt::format("rank {}: {}", r, errors[r]));
    }
    return device;
}

CudaDevice::CudaDevice(int number) : driver_(CudaDriver::instance()), number_(number) {
    int device = 0;
    driver_.check(driver_.calls().device_get(&device, number), "cuDeviceGet");
    // Retained to the end of the process: the CUDA runtime and NCCL hold the same context.
    driver_.check(driver_.calls().context_retain(&context_, device), "cuDevicePrimaryCtxRetain");
    make_current();
    driver_.check(driver_.calls().stream_create(&stream_, kNonBlockingStream), "cuStreamCreate");
}

CudaDevice::~CudaDevice() {
    if (stream_ == nullptr) return;
    (void)driver_.calls().context_set(context_);
    (void)driver_.calls().stream_destroy(stream_);
}

void CudaDevice::make_current() {
    driver_.check(driver_.calls().context_set(context_), "cuCtxSetCurrent");
}

std::string CudaDevice::name() const {
    char text[256] = {};
    int device = 0;
    driver_.check(driver_.calls().device_get(&device, number_), "cuDeviceGet");
    driver_.check(driver_.calls().device_name(text, sizeof text - 1, device), "cuDeviceGetName");
    return text;
}

CudaPointer CudaDevice::allocate(std::uint64_t bytes) {
    make_current();
    CudaPointer pointer = 0;
    const std::uint64_t whole = (bytes + kAllocationUnit - 1) / kAllocationUnit * kAllocationUnit;
    driver_.check(driver_.calls().allocate(&pointer, whole), "cuMemAlloc");
    return pointer;
}

void CudaDevice::free(CudaPointer pointer) noexcept {
    (void)driver_.calls().context_set(context_);
    (void)driver_.calls().free(pointer);
}

std::shared_ptr<std::byte> CudaDevice::allocate_pinned(std::uint64_t bytes) {
    make_current();
    void* memory = nullptr;
    driver_.check(driver_.calls().allocate_host(&memory, bytes, 0), "cuMemHostAlloc");
    std::memset(memory, 0, bytes);
    return {static_cast<std::byte*>(memory), [this_driver = &driver_, context = context_](auto* p) {
                (void)this_driver->calls().context_set(context);
                (void)this_driver->calls().free_host(p);
            }};
}

void CudaDevice::upload(CudaPointer to, const std::byte* from, std::uint64_t bytes) {
    make_current();
    driver_.check(driver_.calls().to_device(to, from, bytes, stream_), "cuMemcpyHtoDAsync");
}

void CudaDevice::download(std::byte* to, CudaPointer from, std::uint64_t bytes) {
    make_current();
    driver_.check(driver_.calls().to_host(to, from, bytes, stream_), "cuMemcpyDtoHAsync");
}

CudaIpcHandle CudaDevice::handle_of(CudaPointer pointer) {
    make_current();
    CudaPointer base = 0;
    std::size_t bytes = 0;
    driver_.check(driver_.calls().address_range(&base, &bytes, pointer), "cuMemGetAddressRange");
    if (base != pointer) {
        // A handle always names the start of an allocation; the other side would read elsewhere.
        throw core::ResourceError(
            "cuMemAlloc gave memory inside a larger allocation, which CUDA IPC cannot hand over; "
            "use transport nccl or mpi");
    }
    CudaIpcHandle handle{};
    driver_.check(driver_.calls().ipc_get(&handle, pointer), "cuIpcGetMemHandle");
    return handle;
}

CudaPointer CudaDevice::open(const CudaIpcHandle& handle) {
    make_current();
    CudaPointer pointer = 0;
    driver_.check(driver_.calls().ipc_open(&pointer, handle, kLazyPeerAccess),
                  "cuIpcOpenMemHandle");
    return pointer;
}

void CudaDevice::close(CudaPointer pointer) noexcept {
    (void)driver_.calls().context_set(context_);
    (void)driver_.calls().ipc_close(pointer);
}

CudaMark::CudaMark(CudaDevice& device) : device_(device) {
    device_.make_current();
    const CudaDriver& driver = CudaDriver::instance();
    driver.check(driver.calls().event_create(&event_, kNoTimes), "cuEventCreate");
}

CudaMark::~CudaMark() {
    (void)CudaDriver::instance().calls().event_destroy(event_);
}

void CudaMark::record() {
    device_.make_current();
    const CudaDriver& driver = CudaDriver::instance();
    driver.check(driver.calls().event_record(event_, device_.stream()), "cuEventRecord");
    under_way_ = true;
}

bool CudaMark::reached() {
    if (!under_way_) return true;
    device_.make_current();
    const CudaDriver& driver = CudaDriver::instance();
    const int code = driver.calls().event_query(event_);
    if (code == kNotReady) return false;
    driver.check(code, "cuEventQuery");
    under_way_ = false;
    return true;
}

}  // namespace refit::transport
