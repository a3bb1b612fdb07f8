// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/environment.hpp"

#include <fmt/core.h>
#include <sched.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "harness/preflight.hpp"
#include "harness/world.hpp"
#include "kernels/cuda/cuda_backend.hpp"
#include "record/build_info.hpp"
#include "record/hdf5_writer.hpp"

namespace refit::harness {
namespace {

std::string cpu_model() {
    std::ifstream file("/proc/cpuinfo");
    std::string line;
    while (std::getline(file, line)) {
        if (line.starts_with("model name")) {
            const std::size_t colon = line.find(':');
            if (colon != std::string::npos && colon + 2 <= line.size())
                return line.substr(colon + 2);
        }
    }
    return "unknown";
}

}  // namespace

std::string utc_now() {
    timeval now{};
    gettimeofday(&now, nullptr);
    tm parts{};
    gmtime_r(&now.tv_sec, &parts);
    char text[64];
    std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
    return fmt::format("{}.{:06d}Z", text, static_cast<int>(now.tv_usec));
}

std::string host_name() {
    char text[256] = {};
    return gethostname(text, sizeof text - 1) == 0 ? text : "unknown";
}

std::string cpu_list() {
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof set, &set) != 0) return "unknown";
    std::string text = "cpu ";
    bool first = true;
    for (int cpu = 0; cpu < CPU_SETSIZE;) {
        if (!CPU_ISSET(cpu, &set)) {
            ++cpu;
            continue;
        }
        int last = cpu;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
        text += (first ? "" : ",") + std::to_string(cpu) +
                (last > cpu ? "-" + std::to_string(last) : "");
        first = false;
        cpu = last + 1;
    }
    return text;
}

std::map<std::string, std::string> environment(bool is_mpi) {
    std::map<std::string, std::string> map;
    map["version"] = record::tool_version();
    map["commit"] = record::tool_commit();
    map["dirty"] = record::tool_dirty() ? "true" : "false";
    map["compiler"] = record::compiler();
    map["flags"] = record::compiler_flags();
    map["cpu"] = cpu_model();
    map["cores"] = std::to_string(std::thread::hardware_concurrency());
    map["mpi"] = is_mpi ? mpi_version() : "none (one process plays all ranks)";
    map["hdf5"] = record::hdf5_version();
    map["cuda"] = kernels::cuda::cuda_build();
    map["nccl"] = "looked for when a case uses it; then its version is noted there";
    map["hostname"] = host_name();
    map["memory_available_bytes"] = std::to_string(available_memory_bytes());
    const char* yield = std::getenv("OMPI_MCA_mpi_yield_when_idle");
    map["mpi_yield_when_idle"] = yield != nullptr ? yield : "unset";
    return map;
}

}  // namespace refit::harness
