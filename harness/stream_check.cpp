// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/stream_check.hpp"

#include <utility>

#include "harness/stream_options.hpp"
#include "receiver/cache_scales.hpp"
#include "receiver/checkpoint_names.hpp"
#include "receiver/contract_check.hpp"
#include "receiver/framing_check.hpp"
#include "receiver/kernel_format.hpp"
#include "receiver/layerwise_reload.hpp"

namespace refit::harness {

StreamCheck check_stream(const Case& c, const CaseSetup& setup, const wire::RefitManifest& manifest,
                         int receiver) {
    StreamCheck result;
    const auto append = [&](core::Findings&& findings) {
        for (core::Finding& finding : findings) result.findings.push_back(std::move(finding));
    };
    append(c.wire == "kernel" ? receiver::check_kernel_manifest(manifest, setup.instance)
                              : receiver::check_manifest(manifest, setup.instance));
    append(receiver::check_framing(manifest, setup.instance, setup.payload.framing,
                                   receiver_buffer_bytes(c, receiver)));
    append(receiver::check_cache_scale_update(setup.instance, c.reload != "none"));
    if (c.reload != "none") {
        append(receiver::check_layerwise_reload(manifest, setup.instance, receiver % c.tp,
                                                c.reload == "layerwise_per_bucket",
                                                &result.most_open_layers));
    }
    result.findings = in_checkpoint_names(std::move(result.findings), c, setup);
    return result;
}

core::Findings in_checkpoint_names(core::Findings findings, const Case& c, const CaseSetup& setup) {
    if (c.wire != "kernel" || findings.empty()) return findings;
    return receiver::CheckpointNames(setup.instance).translate(std::move(findings));
}

std::map<std::string, std::int64_t> bytes_in_kernel_format(const CaseSetup& setup) {
    std::map<std::string, std::string> weight_of;
    for (const wire::WantedParameter& wanted : setup.instance.wanted) {
        if (!wanted.scale.empty()) weight_of[wanted.scale] = wanted.name;
    }
    std::map<std::string, std::int64_t> bytes;
    for (const wire::KernelParameter& parameter : setup.layout.parameters) {
        for (const wire::KernelPart& part : parameter.parts) {
            const auto weight = weight_of.find(part.source);
            bytes[weight == weight_of.end() ? part.source : weight->second] +=
                part.region.rows * part.region.cols * core::size_bytes(parameter.dtype);
        }
    }
    return bytes;
}

}  // namespace refit::harness
