// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/nccl/nccl_group.hpp"

#include <fmt/format.h>

#include <chrono>
#include <string>
#include <thread>

#include "core/error.hpp"
#include "transport/wait.hpp"

namespace refit::transport {
namespace {

/// An orderly end needs every member; one that is gone must not keep the others.
constexpr std::chrono::seconds kLongestEnd{2};

}  // namespace

NcclGroup::NcclGroup(int member, int members, const NcclUniqueId& id)
    : library_(NcclLibrary::instance()) {
    NcclConfig config;
    const int code = library_.calls().init_rank_config(&comm_, members, id, member, &config);
    if (code == kNcclSuccess || code == kNcclInProgress) return;
    // The destructor does not run after an exception here.
    const char* last = library_.calls().last_error(comm_);
    const std::string text = last != nullptr ? last : "";
    if (comm_ != nullptr) (void)library_.calls().abort(comm_);
    throw core::ResourceError(fmt::format("ncclCommInitRankConfig failed: {}: {}",
                                          library_.calls().error_string(code), text));
}

bool NcclGroup::end() noexcept {
    if (comm_ == nullptr) return true;
    int state = failed_ ? kNcclInProgress : library_.calls().finalize(comm_);
    if (!failed_ && (state == kNcclSuccess || state == kNcclInProgress)) {
        const auto latest = std::chrono::steady_clock::now() + kLongestEnd;
        do {
            if (library_.calls().async_error(comm_, &state) != kNcclSuccess) break;
            if (state != kNcclInProgress) break;
            std::this_thread::sleep_for(std::chrono::milliseconds(1));
        } while (std::chrono::steady_clock::now() < latest);
    }
    const bool in_order = !failed_ && state == kNcclSuccess;
    (void)(in_order ? library_.calls().destroy(comm_) : library_.calls().abort(comm_));
    comm_ = nullptr;
    return in_order;
}

void NcclGroup::fail(int code, const char* call) {
    failed_ = true;
    const char* last = library_.calls().last_error(comm_);
    throw core::ResourceError(fmt::format(
        "{} failed: {}: {}; NCCL_DEBUG=INFO tells more, transport mpi does without NCCL", call,
        library_.calls().error_string(code), last != nullptr ? last : ""));
}

void NcclGroup::check(int code, const char* call) {
    if (code != kNcclSuccess && code != kNcclInProgress) fail(code, call);
}

void NcclGroup::wait_while_in_progress(const char* what, const Endpoint& endpoint) {
    Backoff backoff;
    for (;;) {
        int state = kNcclSuccess;
        check(library_.calls().async_error(comm_, &state), "ncclCommGetAsyncError");
        if (state == kNcclSuccess) return;
        if (state != kNcclInProgress) fail(state, what);
        try {
            on_wait(endpoint);
        } catch (...) {
            failed_ = true;
            throw;
        }
        backoff.pause();
    }
}

void NcclGroup::broadcast(void* device_memory, std::uint64_t bytes, void* stream,
                          const Endpoint& endpoint) {
    check(library_.calls().broadcast(device_memory, device_memory, bytes, kNcclUint8, 0, comm_,
                                     stream),
          "ncclBroadcast");
    // What is enqueued after it must come after it in the stream, so NCCL must have enqueued it.
    wait_while_in_progress("ncclBroadcast", endpoint);
}

void NcclGroup::poll() {
    int state = kNcclSuccess;
    check(library_.calls().async_error(comm_, &state), "ncclCommGetAsyncError");
    if (state != kNcclSuccess && state != kNcclInProgress) fail(state, "a broadcast of NCCL");
}

void* NcclGroup::register_memory(void* device_memory, std::uint64_t bytes) {
    void* handle = nullptr;
    if (!library_.can_register() ||
        library_.calls().comm_register(comm_, device_memory, bytes, &handle) != kNcclSuccess) {
        return nullptr;
    }
    return handle;
}

void NcclGroup::deregister(void* handle) noexcept {
    if (handle != nullptr) (void)library_.calls().comm_deregister(comm_, handle);
}

}  // namespace refit::transport
