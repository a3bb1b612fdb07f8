// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "receiver/weight_loader.hpp"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "core/error.hpp"
#include "receiver/cell_copy.hpp"
#include "receiver/load_clock.hpp"
#include "receiver/loader_findings.hpp"
#include "receiver/loader_state.hpp"

namespace refit::receiver {
namespace {

constexpr std::int64_t kProgressBytes = 512 * 1024;

}  // namespace

WeightLoader::WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest,
                           int tp_rank, CommitMode mode, LoadFaults faults,
                           const std::function<void()>& on_progress)
    : WeightLoader(instance, manifest, tp_rank, mode, std::move(faults),
                   mode == CommitMode::staged ? 2 : 1, on_progress) {}

WeightLoader::WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest,
                           int tp_rank, CommitMode mode, LoadFaults faults, std::size_t host_copies,
                           const std::function<void()>& on_progress)
    : instance_(instance),
      manifest_(manifest),
      tp_rank_(tp_rank),
      mode_(mode),
      faults_(std::move(faults)) {
    if (tp_rank < 0 || tp_rank >= instance.tp) {
        throw core::ShapeError("weight loader of " + instance.engine + ": TP rank " +
                               std::to_string(tp_rank) + " was asked for, expected 0 to " +
                               std::to_string(instance.tp - 1));
    }
    state_ = std::make_shared<State>(instance, manifest, static_cast<std::size_t>(tp_rank),
                                     host_copies, faults_, on_progress);
}

void WeightLoader::begin(std::uint64_t version, const std::function<void()>& on_progress) {
    State& state = *state_;
    findings_.clear();
    state.reported.clear();
    for (auto& ranges : state.written) ranges.clear();
    state.pending = version;
    state.begun = true;
    state.finished = false;
    state.failed = false;
    state.flipped = false;
    state.loaded_bytes = 0;
    state.since_progress = 0;
    if (mode_ == CommitMode::in_place) torn_ = true;
    poison(on_progress);
}

void WeightLoader::poison(const std::function<void()>& on_progress) {
    state_->target().poison(instance_, on_progress);
}

void WeightLoader::zero_padding(std::size_t destination, std::size_t from) {
    const std::span<std::byte> bytes = state_->target().bytes(destination);
    if (from < bytes.size()) std::memset(bytes.data() + from, 0, bytes.size() - from);
}

const wire::PiecePlan& WeightLoader::plan_of(std::uint32_t bucket, std::uint32_t trainer) const {
    if (!state_->begun || bucket >= manifest_.buckets.size() ||
        trainer >= manifest_.buckets[bucket].pieces.size()) {
        throw core::ShapeError(
            "weight loader: bucket " + std::to_string(bucket) + " of trainer " +
            std::to_string(trainer) +
            " came outside of a refit or is not in the manifest; call begin first");
    }
    return manifest_.buckets[bucket].pieces[trainer];
}

LoaderFindings WeightLoader::reported_findings() {
    return {findings_, state_->reported, state_->failed, instance_.own_format};
}

std::optional<wire::PieceView> WeightLoader::opened(std::uint32_t bucket, std::uint32_t trainer,
                                                    std::span<const std::byte> bytes,
                                                    std::size_t piece_bytes) {
    const wire::PiecePlan& plan = plan_of(bucket, trainer);
    LoaderFindings report = reported_findings();
    const std::string place = piece_name(bucket, trainer);
    const std::string first_tensor =
        plan.entries.empty() ? std::string()
                             : manifest_.parameters[plan.entries.front().parameter].name;
    if (bytes.size() >= sizeof(wire::PieceHeader)) {
        wire::PieceHeader header;
        std::memcpy(&header, bytes.data(), sizeof header);
        if (header.magic == wire::kPieceMagic && header.version != state_->pending) {
            report.other_refit(first_tensor, place, header.version, state_->pending);
            return std::nullopt;
        }
    }
    std::optional<wire::PieceView> view;
    try {
        view.emplace(manifest_, bucket, trainer, state_->pending, bytes, piece_bytes);
    } catch (const core::Error& error) {
        report.damaged_header(first_tensor, error.what());
        return std::nullopt;
    }
    if (view->aborted()) {
        report.aborted(place);
        return std::nullopt;
    }
    return view;
}

void WeightLoader::load_piece(std::uint32_t bucket, std::uint32_t trainer,
                              std::span<const std::byte> piece,
                              const std::function<void()>& on_progress, LoadTimes& times) {
    const wire::PiecePlan& plan = plan_of(bucket, trainer);
    if (plan.entries.empty() && piece.empty()) return;
    LoadClock clock(times);
    const std::optional<wire::PieceView> view = opened(bucket, trainer, piece, piece.size());
    if (!view) return;
    const std::string place = piece_name(bucket, trainer);
    for (const IncomingCell& cell : state_->cells_of(plan, view->digests())) {
        if (overlaps_any(cell.region, state_->written[cell.span])) {
            reported_findings().rows_came_twice(cell, place);
            continue;
        }
        load_cell(cell, piece, place, on_progress, clock);
    }
}

void WeightLoader::load_cell(const IncomingCell& cell, std::span<const std::byte> piece,
                             const std::string& place, const std::function<void()>& on_progress,
                             LoadClock& clock) {
    State& state = *state_;
    const bool copies = !state.failed && !cell.skip;
    if (copies) state.written[cell.span].push_back(cell.region);
    std::byte* const destination = state.target().bytes(cell.destination).data();
    CellCopy copy(cell, piece.data(), destination, copies);
    state.digest.reset();
    while (!copy.done()) {
        copy.copy_stripe();
        clock.loaded();
        state.since_progress += copy.hash_stripe(state.digest);
        clock.checked();
        if (state.since_progress < kProgressBytes) continue;
        state.since_progress = 0;
        if (on_progress) on_progress();
        clock.leave_out();
    }
    const wire::Digest found = state.digest.value();
    if (!cell.is_recorded_as(found)) {
        reported_findings().other_digest(cell, found, place);
    } else if (copy.bad_scales().count > 0) {
        reported_findings().unusable_scales(cell, copy.bad_scales(), place);
    }
    if (!copies) return;
    state.loaded_bytes += cell.traffic_bytes();
    if (cell.flip && !state.flipped) {
        // The planted bit is in the most significant byte of the first element, where every kind
        // of element changes by more than a rounding.
        state.flipped = true;
        destination[cell.to_offset + cell.to_element() - 1] ^= std::byte{0x10};
    }
}

void WeightLoader::finish_stream() {
    State& state = *state_;
    if (!state.begun) {
        throw core::ShapeError("weight loader: finish_stream without begin; begin a refit first");
    }
    // After an error nothing more is copied, so that gaps say nothing about the stream.
    if (!state.failed) report_missing();
    std::vector<std::int64_t> covered(instance_.destinations.size(), 0);
    for (const LoadSpan& span : state.spans) {
        covered[span.destination] =
            std::max(covered[span.destination], span.dest_row + span.source.rows);
    }
    for (std::size_t i = 0; i < instance_.destinations.size(); ++i) {
        const DestinationParameter& parameter = instance_.destinations[i];
        if (parameter.padding_rows == 0) continue;
        zero_padding(i, static_cast<std::size_t>(covered[i] * parameter.cols() *
                                                 core::size_bytes(parameter.dtype)));
    }
    state.finished = true;
}

void WeightLoader::report_missing() {
    LoaderFindings report = reported_findings();
    for (std::size_t i = 0; i < state_->spans.size(); ++i) {
        const LoadSpan& span = state_->spans[i];
        const auto missing = first_missing(span.source, state_->written[i]);
        if (!missing) continue;
        const auto& [row, col] = *missing;
        report.missing(instance_.wanted[span.wanted], span, tp_rank_, row, col);
    }
}

bool WeightLoader::commit(bool allowed) {
    State& state = *state_;
    if (!allowed || !state.begun || !state.finished || state.failed) return false;
    state.begun = false;
    if (faults_.forget_commit) return true;
    if (mode_ == CommitMode::staged) state.visible = 1 - state.visible;
    const bool derives = !instance_.latent.empty() || !state.host.copies().empty();
    if (derives && (!faults_.stale_derived || !state.has_derived)) derive();
    state.has_derived = true;
    version_ = state.pending;
    torn_ = false;
    return true;
}

void WeightLoader::derive() {
    state_->derived.update(loaded());
    state_->host.update(loaded());
}

const LoadedParameters& WeightLoader::loaded() const {
    return state_->copies[state_->visible];
}

const void* WeightLoader::address() const {
    return loaded().bytes(0).data();
}

const DerivedWeights& WeightLoader::derived() const {
    return state_->derived;
}

const HostScales& WeightLoader::host_scales() const {
    return state_->host;
}

std::uint64_t WeightLoader::loaded_bytes() const {
    return state_->loaded_bytes;
}

}  // namespace refit::receiver
