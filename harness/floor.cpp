// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/floor.hpp"

#include <fmt/core.h>

namespace refit::harness {

Floor floor_of(const Case& c, const receiver::ContractInstance& instance,
               const wire::RefitManifest& manifest, const std::string& transport,
               double memory_copy_bytes_per_s) {
    if (memory_copy_bytes_per_s <= 0.0) return {};
    double quantize = 0.0;
    double pack = 0.0;
    for (const wire::ParameterMeta& parameter : manifest.parameters) {
        const auto elements = static_cast<double>(parameter.rows() * parameter.cols());
        const auto bytes = static_cast<double>(parameter.rows() * parameter.row_bytes());
        if (parameter.kind == wire::ParameterKind::codes) quantize += 2.0 * elements + bytes;
        if (parameter.kind == wire::ParameterKind::scale) quantize += bytes;
        if (parameter.kind == wire::ParameterKind::raw) pack += 2.0 * bytes;
    }
    double load = 0.0;
    for (const auto& spans : instance.spans) {
        for (const receiver::LoadSpan& span : spans) {
            const std::int64_t element =
                core::size_bytes(instance.wanted[span.wanted].dtypes.front());
            load += 2.0 * static_cast<double>(span.source.rows * span.source.cols * element);
        }
    }
    load *= c.engines;
    const auto wire_bytes = static_cast<double>(manifest.payload_bytes());
    // Shared memory is read in place; over MPI every receiver gets a copy of its own.
    const double broadcast = transport == "mpi" ? 2.0 * c.engines * c.tp * wire_bytes : 0.0;
    Floor floor;
    floor.wall_s = (quantize + pack + broadcast + load) / memory_copy_bytes_per_s;
    floor.formula = fmt::format(
        "(quantize {:.4g} + pack {:.4g} + broadcast {:.4g} + load {:.4g} bytes read and written) / "
        "memory_copy {:.4g} B/s",
        quantize, pack, broadcast, load, memory_copy_bytes_per_s);
    const double link_s =
        c.link_bytes_per_s == 0 ? 0.0 : wire_bytes / static_cast<double>(c.link_bytes_per_s);
    if (link_s > floor.wall_s) {
        floor.wall_s = link_s;
        floor.formula = fmt::format("bytes_wire {:.4g} / link_bytes_per_s {:.4g}", wire_bytes,
                                    static_cast<double>(c.link_bytes_per_s));
    }
    return floor;
}

}  // namespace refit::harness
