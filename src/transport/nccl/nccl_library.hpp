// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// NCCL, found when the program runs. Private to src/transport.
//
// Declared here from the public interface (NCCL user guide, "NCCL API"; nccl.h of 2.14 and later):
// NCCL keeps old declarations valid, and says which one a caller means by the size and version
// inside ncclConfig_t. So one build works with every NCCL from 2.14 on, and where no NCCL is
// installed. tests/unit/transport compares with nccl.h where it is.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace refit::transport {

using NcclComm = void*;  ///< ncclComm_t
struct NcclUniqueId {    ///< ncclUniqueId
    char internal[128];
};
/// ncclConfig_t as it was when it came (2.14); later versions fill what lies behind by themselves.
struct NcclConfig {
    std::size_t size = sizeof(NcclConfig);
    unsigned magic = 0xcafebeefU;
    unsigned version = 21400;
    int blocking = 0;
};
inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;
inline constexpr int kNcclUint8 = 1;  ///< FP8 and everything else crosses as bytes

struct NcclCalls {
    int (*get_version)(int* version);
    int (*get_unique_id)(NcclUniqueId* id);
    int (*init_rank_config)(NcclComm* comm, int ranks, NcclUniqueId id, int rank,
                            NcclConfig* config);
    int (*async_error)(NcclComm comm, int* error);
    int (*abort)(NcclComm comm);
    int (*finalize)(NcclComm comm);
    int (*destroy)(NcclComm comm);
    int (*broadcast)(const void* send, void* receive, std::size_t count, int type, int root,
                     NcclComm comm, void* stream);
    const char* (*error_string)(int code);
    const char* (*last_error)(NcclComm comm);
    int (*comm_register)(NcclComm comm, void* buffer, std::size_t bytes, void** handle);
    int (*comm_deregister)(NcclComm comm, void* handle);  ///< both null before 2.19
};

class NcclLibrary {
 public:
    /// Loads REFIT_NCCL_LIBRARY, else libnccl.so.2, else libnccl.so, once. Throws NotViable with
    /// the reason and the remedy.
    static const NcclLibrary& instance();
    /// The first of `candidates` that can be loaded. Throws as instance() does.
    explicit NcclLibrary(const std::vector<std::string>& candidates);

    [[nodiscard]] const NcclCalls& calls() const { return calls_; }
    /// NCCL_VERSION_CODE: 22809 for 2.28.9.
    [[nodiscard]] int version() const { return version_; }
    [[nodiscard]] const std::string& path() const { return path_; }
    [[nodiscard]] bool can_register() const { return calls_.comm_register != nullptr; }

 private:
    NcclCalls calls_{};
    int version_ = 0;
    std::string path_;
};

/// "2.28.9"; before 2.9 the code had another form ("2.8.4" is 2804).
[[nodiscard]] std::string nccl_version_text(int code);

/// Whether NCCL refused because two ranks share a device: the text up to 2.29 or that since 2.30.
[[nodiscard]] bool says_duplicate_gpu(const std::string& text);
/// What to do about it with this version.
[[nodiscard]] std::string duplicate_gpu_remedy(int version);

}  // namespace refit::transport
