// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/handshake.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "harness/case_outcome.hpp"
#include "harness/rank_agreement.hpp"
#include "harness/rank_report.hpp"
#include "harness/stream_check.hpp"
#include "harness/stream_options.hpp"
#include "receiver/framing_check.hpp"

namespace refit::harness {
namespace {

/// What `text()` gives on `rank`; called there alone.
template <class Text>
std::string said_by(World& world, int rank, const Text& text) {
    const std::string mine = world.rank() == rank ? text() : std::string();
    return world.allgather(mine)[static_cast<std::size_t>(rank)];
}

/// What this trainer will send, as the receivers' list or layout asks for.
Agreement planned(const Case& c, const CaseSetup& setup, const std::string& wanted_text,
                  const std::string& layout) {
    const wire::WantedList wanted = wire::wanted_list_from_json(wanted_text);
    Agreement agreed;
    if (c.wire == "kernel") {
        agreed.kernel_plan = trainer::make_kernel_plan(
            setup.tensors, wanted, wire::kernel_layout_from_json(layout), setup.payload,
            setup.sharding, setup.trainer_faults, setup.kernel_faults);
        agreed.manifest = agreed.kernel_plan.manifest;
        return agreed;
    }
    agreed.plan = trainer::make_plan(setup.tensors, wanted, setup.payload, setup.sharding,
                                     setup.trainer_faults);
    agreed.manifest = agreed.plan.manifest;
    return agreed;
}

void note_stream(const Case& c, const CaseSetup& setup, const wire::RefitManifest& manifest,
                 record::CaseRecord& record) {
    record.bytes_wire = static_cast<std::int64_t>(manifest.payload_bytes());
    record.notes["framing"] = c.framing;
    record.notes["bytes_wire_leaves_out"] = wire::framing_row(setup.payload.framing).uncounted;
    record.notes["wire"] = c.wire;
    record.notes["stream_quantized_already"] =
        std::to_string(receiver::count_prequantized_marks(manifest)) +
        " names that end in _scale_inv";
}

}  // namespace

Agreement shake_hands(World& world, RankStatus& status, const Case& c, const CaseSetup& setup,
                      record::CaseRecord& record) {
    status.enter(Stage::handshake);
    const bool trainer = world.rank() < c.trainer_ranks;
    const int first_receiver = c.trainer_ranks;
    const bool kernel = c.wire == "kernel";
    const std::string wanted =
        said_by(world, first_receiver, [&] { return wire::to_json(setup.instance.wanted); });
    std::string layout;
    if (kernel)
        layout = said_by(world, first_receiver, [&] { return wire::to_json(setup.layout); });
    Agreement agreed;
    std::string manifest_text;
    together(world, [&] {
        if (!trainer) return;
        agreed = planned(c, setup, wanted, layout);
        if (world.rank() == 0) manifest_text = wire::to_json(agreed.manifest);
    });
    manifest_text = broadcast_text(world, manifest_text);

    std::string found;
    std::int64_t open_layers = 0;  // of a receiver with layerwise reload
    together(world, [&] {
        core::Findings findings;
        bool tells = world.rank() == 0;
        if (trainer) {
            findings = kernel ? agreed.kernel_plan.checkpoint.findings : agreed.plan.findings;
        } else {
            const int receiver = world.rank() - c.trainer_ranks;
            agreed.manifest = wire::manifest_from_json(manifest_text);
            StreamCheck stream = check_stream(c, setup, agreed.manifest, receiver);
            open_layers = stream.most_open_layers;
            findings = std::move(stream.findings);
            // All receivers hold the same contract against the same manifest: one of them speaks,
            // and one whose own buffer is another.
            tells =
                receiver == 0 || receiver_buffer_bytes(c, receiver) != receiver_buffer_bytes(c, 0);
        }
        for (core::Finding& finding : findings) finding.rank = world.rank();
        if (tells) found = findings_to_json(findings);
    });
    for (const std::string& one : world.allgather(found)) {
        if (!one.empty()) add_findings(record, findings_from_json(one));
    }
    note_stream(c, setup, agreed.manifest, record);
    if (c.reload != "none") {
        record.notes["reload"] =
            c.reload + ", at most " +
            said_by(world, first_receiver, [&] { return std::to_string(open_layers); }) +
            " layers begun at one time";
    }
    return agreed;
}

}  // namespace refit::harness
