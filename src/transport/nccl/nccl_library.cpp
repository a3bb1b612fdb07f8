// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "transport/nccl/nccl_library.hpp"

#include <dlfcn.h>
#include <fmt/format.h>

#include <cstdlib>
#include <vector>

#include "core/error.hpp"

namespace refit::transport {
namespace {

constexpr int kLeastVersion = 21400;      ///< communicators that do not block
constexpr int kSharedGpuVersion = 23000;  ///< NCCL_MULTI_RANK_GPU_ENABLE

template <class Function>
bool find(void* library, const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library, name));
    return function != nullptr;
}

}  // namespace

std::string nccl_version_text(int code) {
    if (code < 10000) return fmt::format("{}.{}.{}", code / 1000, code / 100 % 10, code % 100);
    return fmt::format("{}.{}.{}", code / 10000, code / 100 % 100, code % 100);
}

bool says_duplicate_gpu(const std::string& text) {
    return text.find("Duplicate GPU detected") != std::string::npos ||
           text.find("Multiple Ranks are using the same GPU") != std::string::npos;
}

std::string duplicate_gpu_remedy(int version) {
    if (version >= kSharedGpuVersion) {
        return "set NCCL_MULTI_RANK_GPU_ENABLE=1 (experimental, good for 2 ranks a device), give "
               "each rank a device of its own, or use transport cuda_ipc";
    }
    return fmt::format(
        "NCCL {} cannot share a device between ranks; with NCCL 2.30 or later set "
        "NCCL_MULTI_RANK_GPU_ENABLE=1 (REFIT_NCCL_LIBRARY names another library), give each rank a "
        "device of its own, or use transport cuda_ipc",
        nccl_version_text(version));
}

NcclLibrary::NcclLibrary(const std::vector<std::string>& candidates) {
    void* library = nullptr;
    std::string reasons;
    for (const std::string& candidate : candidates) {
        // Never closed: NCCL starts threads of its own.
        library = dlopen(candidate.c_str(), RTLD_NOW | RTLD_LOCAL);
        if (library != nullptr) {
            path_ = candidate;
            break;
        }
        const char* reason = dlerror();
        reasons += (reasons.empty() ? "" : "; ") + std::string(reason != nullptr ? reason : "");
    }
    if (library == nullptr) {
        throw core::NotViable(fmt::format(
            "no NCCL: {}; install libnccl2, or name one in REFIT_NCCL_LIBRARY", reasons));
    }
    const auto need = [&](const char* name, auto& function) {
        if (!find(library, name, function)) {
            throw core::NotViable(
                fmt::format("NCCL {} has no function {}; NCCL {} or later is needed, name one in "
                            "REFIT_NCCL_LIBRARY",
                            path_, name, nccl_version_text(kLeastVersion)));
        }
    };
    need("ncclGetVersion", calls_.get_version);
    if (calls_.get_version(&version_) != kNcclSuccess || version_ < kLeastVersion) {
        throw core::NotViable(fmt::format(
            "NCCL {} is version {}; {} or later is needed for communicators that do not block, "
            "name one in REFIT_NCCL_LIBRARY",
            path_, nccl_version_text(version_), nccl_version_text(kLeastVersion)));
    }
    need("ncclGetUniqueId", calls_.get_unique_id);
    need("ncclCommInitRankConfig", calls_.init_rank_config);
    need("ncclCommGetAsyncError", calls_.async_error);
    need("ncclCommAbort", calls_.abort);
    need("ncclCommFinalize", calls_.finalize);
    need("ncclCommDestroy", calls_.destroy);
    need("ncclBroadcast", calls_.broadcast);
    need("ncclGetErrorString", calls_.error_string);
    need("ncclGetLastError", calls_.last_error);
    if (!find(library, "ncclCommRegister", calls_.comm_register) ||
        !find(library, "ncclCommDeregister", calls_.comm_deregister)) {
        calls_.comm_register = nullptr;
        calls_.comm_deregister = nullptr;
    }
}

const NcclLibrary& NcclLibrary::instance() {
    static const NcclLibrary library = [] {
        const char* chosen = std::getenv("REFIT_NCCL_LIBRARY");
        if (chosen != nullptr && *chosen != '\0')
            return NcclLibrary(std::vector<std::string>{chosen});
        return NcclLibrary({"libnccl.so.2", "libnccl.so"});
    }();
    return library;
}

}  // namespace refit::transport
