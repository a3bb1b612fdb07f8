// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// One NCCL communicator that never blocks this rank: every wait calls on_wait, and an error or an
// exception ends in ncclCommAbort. Private to src/transport.
#pragma once

#include <cstddef>
#include <cstdint>

#include "transport/nccl/nccl_library.hpp"
#include "transport/transport.hpp"

namespace refit::transport {

class NcclGroup {
 public:
    /// Starts to join; collective over the members, member 0 broadcasts. Throws ResourceError with
    /// NCCL's own text. finish_init() ends it.
    NcclGroup(int member, int members, const NcclUniqueId& id);
    ~NcclGroup() { (void)end(); }
    NcclGroup(const NcclGroup&) = delete;
    NcclGroup& operator=(const NcclGroup&) = delete;

    /// Waits until all members have joined.
    void finish_init(const Endpoint& endpoint) { wait_while_in_progress("joining", endpoint); }

    /// Enqueues a broadcast from member 0 on the stream, in place. Waits only until NCCL has taken
    /// it, not until it is done.
    void broadcast(void* device_memory, std::uint64_t bytes, void* stream,
                   const Endpoint& endpoint);
    /// Throws ResourceError where NCCL has met an error since: a lost peer, a failed link.
    void poll();

    /// Lets NCCL move this memory without a copy of its own. All members must do it, or none.
    /// Null where NCCL declines: that costs speed, not correctness.
    [[nodiscard]] void* register_memory(void* device_memory, std::uint64_t bytes);
    void deregister(void* handle) noexcept;

    /// Ends the communicator: in order where nothing went wrong and every member ends within two
    /// seconds, else by an abort. Returns whether it was in order.
    bool end() noexcept;
    /// From here on the end is an abort.
    void give_up() { failed_ = true; }

 private:
    void check(int code, const char* call);
    void wait_while_in_progress(const char* what, const Endpoint& endpoint);
    [[noreturn]] void fail(int code, const char* call);

    const NcclLibrary& library_;
    NcclComm comm_ = nullptr;
    bool failed_ = false;
};

}  // namespace refit::transport
