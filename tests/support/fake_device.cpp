// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// A CUDA driver and an NCCL for tests on machines without a device. Device memory is shared host
// memory (memfd) that other processes reach by /proc/PID/fd, streams are queues that advance one
// step each time somebody asks for an event, and a communicator is a block of shared memory.
//
// It is strict where the real ones are forgiving or undefined: an operation runs late, memory is
// filled with 0xee when it is freed, a broadcast is enqueued only when its caller has waited for
// it, and a second broadcast before that is refused. REFIT_FAKE_NCCL plans failures, see plan().
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <new>
#include <string>

namespace {

constexpr int kInvalidValue = 1;
constexpr int kInvalidContext = 201;
constexpr int kNotReady = 600;

constexpr int kNcclInvalidArgument = 4;
constexpr int kNcclInvalidUsage = 5;
constexpr int kNcclRemoteError = 6;
constexpr int kNcclInProgress = 7;

std::map<std::string, int>& counts() {
    static auto* const map = new std::map<std::string, int>;
    return *map;
}
void count(const char* what) {
    ++counts()[what];
}

/// Whether REFIT_FAKE_NCCL holds the word: duplicate_old, duplicate_new (init fails with NCCL's
/// text up to 2.29 and since 2.30), hang (init never ends), remote_error (the first broadcast fails
/// later), no_register, version_old (2.8.4), version_new (2.30.7), no_stream_RANK.
bool plan(const char* word) {
    const char* text = std::getenv("REFIT_FAKE_NCCL");
    return text != nullptr && std::strstr(text, word) != nullptr;
}

struct Stream {
    std::deque<std::function<bool()>> operations;  ///< true: done
    std::uint64_t enqueued = 0;
    std::uint64_t done = 0;

    void add(std::function<bool()> operation) {
        operations.push_back(std::move(operation));
        ++enqueued;
    }
    void step() {
        if (operations.empty() || !operations.front()()) return;
        operations.pop_front();
        ++done;
    }
};
struct Event {
    Stream* stream = nullptr;
    std::uint64_t mark = 0;
    int asked = 0;
};
struct Allocation {
    int fd = -1;
    std::size_t bytes = 0;
};
std::map<unsigned long long, Allocation>& allocations() {
    static auto* const map = new std::map<unsigned long long, Allocation>;
    return *map;
}

void* map_shared(int fd, std::size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

void* map_of_process(std::int64_t pid, std::int64_t fd, std::size_t bytes) {
    const std::string path = "/proc/" + std::to_string(pid) + "/fd/" + std::to_string(fd);
    const int opened = open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (opened < 0) return nullptr;
    void* memory = map_shared(opened, bytes);
    (void)close(opened);
    return memory;
}

/// What a handle of either library says: where the shared memory is.
struct Place {
    std::int64_t pid;
    std::int64_t fd;
    std::uint64_t bytes;
    char rest[40];
};
static_assert(sizeof(Place) == 64);

constexpr std::uint64_t kPipeBytes = 512 * 1024;
constexpr int kMostMembers = 16;

/// What the members of a communicator share. Chunks go through one buffer in lockstep.
struct Hall {
    std::atomic<int> joined;
    std::atomic<int> left;
    std::atomic<std::uint64_t> offered;              ///< chunks written by member 0
    std::atomic<std::uint64_t> taken[kMostMembers];  ///< chunks read by each member
    std::atomic<std::uint64_t> operation_bytes;      ///< of the chunk's broadcast
    unsigned char pipe[kPipeBytes];
};

struct Comm {
    Hall* hall = nullptr;
    int member = 0;
    int members = 0;
    int state = kNcclInProgress;
    bool ready = false;
    bool finalizing = false;
    int polls = 0;
    std::uint64_t chunks = 0;  ///< moved so far by this member
    std::function<void()> enqueue;
    std::string last_error;
};

/// One broadcast as far as it has come. Returns true at its end.
struct Broadcast {
    Comm* comm;
    unsigned char* memory;
    std::uint64_t bytes;
    std::uint64_t moved = 0;

    bool operator()() {
        Hall& hall = *comm->hall;
        const std::uint64_t length = std::min(kPipeBytes, bytes - moved);
        if (comm->member == 0) {
            for (int m = 1; m < comm->members; ++m) {
                if (hall.taken[m].load(std::memory_order_acquire) < comm->chunks) return false;
            }
            std::memcpy(hall.pipe, memory + moved, length);
            hall.operation_bytes.store(bytes, std::memory_order_relaxed);
            hall.offered.store(++comm->chunks, std::memory_order_release);
        } else {
            if (hall.offered.load(std::memory_order_acquire) <= comm->chunks) return false;
            if (hall.operation_bytes.load(std::memory_order_relaxed) != bytes) {
                comm->state = kNcclInvalidArgument;
                comm->last_error = "the members broadcast different counts";
                return false;
            }
            std::memcpy(memory + moved, hall.pipe, length);
            hall.taken[comm->member].store(++comm->chunks, std::memory_order_release);
        }
        moved += length;
        return moved == bytes;
    }
};

std::string& global_error() {
    static auto* const text = new std::string;
    return *text;
}

}  // namespace

extern "C" {

/// For the tests: how often something happened in this process.
int fake_count(const char* what) {
    return counts()[what];
}

int cuInit(unsigned) {
    return 0;
}
int cuDriverGetVersion(int* version) {
    *version = 13000;
    return 0;
}
int cuDeviceGetCount(int* devices) {
    const char* text = std::getenv("REFIT_FAKE_DEVICES");
    *devices = text != nullptr ? std::atoi(text) : 2;
    return 0;
}
int cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return 0;
}
int cuDeviceGetName(char* name, int length, int) {
    std::strncpy(name, "host memory that plays a device", static_cast<std::size_t>(length));
    return 0;
}
int cuGetErrorString(int code, const char** text) {
    *text = code == kNotReady         ? "not ready"
            : code == kInvalidContext ? "invalid device context"
                                      : "invalid argument";
    return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
    static char contexts[64];
    *context = contexts + device;
    return 0;
}
int cuCtxSetCurrent(void*) {
    return 0;
}

int cuMemAlloc_v2(unsigned long long* pointer, std::size_t bytes) {
    const int fd = memfd_create("refit_fake_device", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, static_cast<off_t>(bytes)) != 0) return 2;
    void* memory = map_shared(fd, bytes);
    if (memory == nullptr) return 2;
    *pointer = reinterpret_cast<unsigned long long>(memory);
    allocations()[*pointer] = {fd, bytes};
    count("allocate");
    return 0;
}
int cuMemFree_v2(unsigned long long pointer) {
    const auto found = allocations().find(pointer);
    if (found == allocations().end()) return kInvalidValue;
    // A receiver that still reads here must see it.
    std::memset(reinterpret_cast<void*>(pointer), 0xee, found->second.bytes);
    (void)munmap(reinterpret_cast<void*>(pointer), found->second.bytes);
    (void)close(found->second.fd);
    allocations().erase(found);
    count("free");
    return 0;
}
int cuMemGetAddressRange_v2(unsigned long long* base, std::size_t* bytes,
                            unsigned long long pointer) {
    const auto found = allocations().find(pointer);
    if (found == allocations().end()) return kInvalidValue;
    *base = pointer;
    *bytes = found->second.bytes;
    return 0;
}
int cuMemHostAlloc(void** pointer, std::size_t bytes, unsigned) {
    *pointer = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
    return *pointer == nullptr ? 2 : 0;
}
int cuMemFreeHost(void* pointer) {
    std::free(pointer);
    return 0;
}
int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, std::size_t bytes, void* stream) {
    static_cast<Stream*>(stream)->add([=] {
        std::memcpy(reinterpret_cast<void*>(to), from, bytes);
        return true;
    });
    return 0;
}
int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, std::size_t bytes, void* stream) {
    static_cast<Stream*>(stream)->add([=] {
        std::memcpy(to, reinterpret_cast<const void*>(from), bytes);
        return true;
    });
    return 0;
}
int cuStreamCreate(void** stream, unsigned) {
    // no_stream_RANK: the device of that rank does not work.
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    if (rank != nullptr && plan(("no_stream_" + std::string(rank)).c_str())) return kInvalidContext;
    *stream = new Stream;
    return 0;
}
int cuStreamDestroy_v2(void* stream) {
    delete static_cast<Stream*>(stream);
    return 0;
}
int cuEventCreate(void** event, unsigned) {
    *event = new Event;
    return 0;
}
int cuEventRecord(void* event, void* stream) {
    auto* const mark = static_cast<Event*>(event);
    mark->stream = static_cast<Stream*>(stream);
    mark->mark = mark->stream->enqueued;
    mark->asked = 0;
    return 0;
}
int cuEventQuery(void* event) {
    auto* const mark = static_cast<Event*>(event);
    // Never at once, as a copy that was just enqueued.
    if (mark->stream == nullptr) return 0;
    if (mark->asked++ > 0) mark->stream->step();
    return mark->asked > 1 && mark->stream->done >= mark->mark ? 0 : kNotReady;
}
int cuEventDestroy_v2(void* event) {
    delete static_cast<Event*>(event);
    return 0;
}

struct FakeIpcHandle {
    char reserved[64];
};
int cuIpcGetMemHandle(FakeIpcHandle* handle, unsigned long long pointer) {
    const auto found = allocations().find(pointer);
    if (found == allocations().end()) return kInvalidValue;
    const Place place{getpid(), found->second.fd, found->second.bytes, {}};
    std::memcpy(handle, &place, sizeof place);
    count("ipc_get");
    return 0;
}
int cuIpcOpenMemHandle_v2(unsigned long long* pointer, FakeIpcHandle handle, unsigned flags) {
    Place place{};
    std::memcpy(&place, &handle, sizeof place);
    // The real one refuses the process that made the handle, and flags it does not know.
    if (place.pid == getpid() || flags != 1) return kInvalidContext;
    void* memory = map_of_process(place.pid, place.fd, place.bytes);
    if (memory == nullptr) return kInvalidValue;
    *pointer = reinterpret_cast<unsigned long long>(memory);
    allocations()[*pointer] = {-1, place.bytes};
    count("ipc_open");
    return 0;
}
int cuIpcCloseMemHandle(unsigned long long pointer) {
    const auto found = allocations().find(pointer);
    if (found == allocations().end() || found->second.fd >= 0) return kInvalidValue;
    (void)munmap(reinterpret_cast<void*>(pointer), found->second.bytes);
    allocations().erase(found);
    count("ipc_close");
    return 0;
}

struct FakeUniqueId {
    char internal[128];
};
struct FakeConfig {
    std::size_t size;
    unsigned magic;
    unsigned version;
    int blocking;
};

int ncclGetVersion(int* version) {
    *version = plan("version_old") ? 2804 : plan("version_new") ? 23007 : 22809;
    return 0;
}
int ncclGetUniqueId(FakeUniqueId* id) {
    const int fd = memfd_create("refit_fake_nccl", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, sizeof(Hall)) != 0) return 2;
    const Place place{getpid(), fd, sizeof(Hall), {}};
    std::memset(id, 0, sizeof *id);
    std::memcpy(id, &place, sizeof place);
    return 0;
}
int ncclCommInitRankConfig(void** comm, int members, FakeUniqueId id, int member,
                           FakeConfig* config) {
    if (config == nullptr || config->magic != 0xcafebeefU || config->version < 21400 ||
        config->size < 20 || config->blocking != 0 || members > kMostMembers) {
        global_error() = "ncclConfig_t argument not initialized via NCCL_CONFIG_INITIALIZER";
        return kNcclInvalidArgument;
    }
    Place place{};
    std::memcpy(&place, &id, sizeof place);
    auto* const made = new Comm;
    made->hall = static_cast<Hall*>(map_of_process(place.pid, place.fd, place.bytes));
    if (made->hall == nullptr) {
        delete made;
        return 2;
    }
    made->member = member;
    made->members = members;
    made->hall->joined.fetch_add(1);
    *comm = made;
    count("init");
    return kNcclInProgress;
}
int ncclCommGetAsyncError(void* handle, int* state) {
    auto* const comm = static_cast<Comm*>(handle);
    ++comm->polls;
    if (!comm->ready && comm->state == kNcclInProgress) {
        if (plan("duplicate_old") || plan("duplicate_new")) {
            comm->state = kNcclInvalidUsage;
            comm->last_error =
                plan("duplicate_old")
                    ? "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device 1000"
                    : "Multiple Ranks are using the same GPU";
        } else if (!plan("hang") && comm->hall->joined.load() >= comm->members && comm->polls > 2) {
            comm->ready = true;
            comm->state = 0;
        }
    } else if (comm->enqueue && comm->polls > 2) {
        comm->enqueue();
        comm->enqueue = nullptr;
        comm->state = plan("remote_error") ? kNcclRemoteError : 0;
        if (comm->state != 0) comm->last_error = "the peer closed the connection";
    } else if (comm->finalizing && comm->state == kNcclInProgress &&
               comm->hall->left.load() >= comm->members) {
        comm->state = 0;
    }
    *state = comm->state;
    return 0;
}
int ncclBroadcast(const void* send, void* receive, std::size_t bytes, int type, int root,
                  void* handle, void* stream) {
    auto* const comm = static_cast<Comm*>(handle);
    if (comm->state != 0 || comm->enqueue || type != 1 || root != 0 || send != receive) {
        comm->last_error = "a broadcast while the one before is not enqueued, or not as expected";
        return kNcclInvalidUsage;
    }
    comm->polls = 0;
    comm->state = kNcclInProgress;
    comm->enqueue = [=] {
        static_cast<Stream*>(stream)->add(
            Broadcast{comm, static_cast<unsigned char*>(receive), bytes});
    };
    count("broadcast");
    return kNcclInProgress;
}
int ncclCommFinalize(void* handle) {
    auto* const comm = static_cast<Comm*>(handle);
    comm->finalizing = true;
    comm->state = kNcclInProgress;
    comm->hall->left.fetch_add(1);
    return kNcclInProgress;
}
static void end(void* handle, const char* how) {
    auto* const comm = static_cast<Comm*>(handle);
    (void)munmap(comm->hall, sizeof(Hall));
    delete comm;
    count(how);
}
int ncclCommDestroy(void* handle) {
    end(handle, "destroy");
    return 0;
}
int ncclCommAbort(void* handle) {
    end(handle, "abort");
    return 0;
}
const char* ncclGetErrorString(int code) {
    return code == kNcclInvalidUsage  ? "invalid usage"
           : code == kNcclRemoteError ? "remote process exited or there was a network error"
                                      : "invalid argument";
}
const char* ncclGetLastError(void* handle) {
    return handle == nullptr ? global_error().c_str()
                             : static_cast<Comm*>(handle)->last_error.c_str();
}
int ncclCommRegister(void*, void* buffer, std::size_t, void** handle) {
    if (plan("no_register")) return kNcclInvalidArgument;
    *handle = buffer;
    count("register");
    return 0;
}
int ncclCommDeregister(void*, void*) {
    count("deregister");
    return 0;
}

}  // extern "C"
