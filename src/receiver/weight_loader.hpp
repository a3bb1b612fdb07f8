// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Pieces into LoadedParameters: check, slice, fuse, copy, commit.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>

#include "core/finding.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/loaded_parameters.hpp"
#include "wire/manifest.hpp"
#include "wire/piece.hpp"

namespace refit::receiver {

enum class CommitMode { staged, in_place };

/// Seconds spent by purpose while a piece was handled.
struct LoadTimes {
    double check_s = 0.0;
    double load_s = 0.0;
};

/// Damage to plant into the loading, for the fault scenarios.
struct LoadFaults {
    std::set<std::string> skip_tensors;  ///< names that are not loaded
    std::set<std::string> flip_tensors;  ///< one bit of the first loaded element's top byte changes
                                         ///< after its digest was checked
    bool forget_commit = false;          ///< the commit leaves the version as it was
    bool stale_derived = false;  ///< derived weights and host copies of scales are made at the
                                 ///< first commit only
};

class DerivedWeights;
class HostScales;
class LoadClock;
class LoaderFindings;
struct IncomingCell;

/// State of one receiver rank over many refits. The parameters lie in host memory; another loader
/// may keep them elsewhere (device_loader.hpp).
class WeightLoader {
 public:
    /// Allocates the destinations once (two copies when staged). `on_progress` as for
    /// LoadedParameters::poison.
    WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest, int tp_rank,
                 CommitMode mode, LoadFaults faults, const std::function<void()>& on_progress = {});
    virtual ~WeightLoader() = default;

    /// Before the clock starts: poisons the copy that the refit will write. In place: marks the
    /// version torn.
    void begin(std::uint64_t version, const std::function<void()>& on_progress = {});
    /// One piece: header, digests of the cells that this rank keeps, finiteness and sign of scales,
    /// copies into the destinations (fused, converted where the contract allows BF16 or F16 scales
    /// for F32 parameters). `on_progress` is called at least once per MiB. Findings are collected,
    /// not thrown; after an error finding nothing more is copied.
    virtual void load_piece(std::uint32_t bucket, std::uint32_t trainer,
                            std::span<const std::byte> piece,
                            const std::function<void()>& on_progress, LoadTimes& times);
    /// After the last bucket: completeness by coverage (every span of every destination written
    /// once), padding zero-filled.
    void finish_stream();
    [[nodiscard]] const core::Findings& findings() const { return findings_; }
    /// Makes the new version visible and computes the derived weights from it; refused (returns
    /// false) after an error finding or while `allowed` is false.
    bool commit(bool allowed);

    [[nodiscard]] std::uint64_t version() const { return version_; }
    [[nodiscard]] bool torn() const { return torn_; }
    /// The visible copy.
    [[nodiscard]] virtual const LoadedParameters& loaded() const;
    /// Where the visible copy begins; for comparing, never followed.
    [[nodiscard]] virtual const void* address() const;
    /// Computed from the visible copy by the latest commit; one copy in either mode, at a fixed
    /// address.
    [[nodiscard]] virtual const DerivedWeights& derived() const;
    /// The host's copies of KV-cache scales, of the same commit.
    [[nodiscard]] const HostScales& host_scales() const;
    [[nodiscard]] const ContractInstance& instance() const { return instance_; }
    [[nodiscard]] int tp_rank() const { return tp_rank_; }
    /// Bytes read and written by copying, for the floor.
    [[nodiscard]] std::uint64_t loaded_bytes() const;

 protected:
    /// With `host_copies` copies of the destinations in host memory.
    WeightLoader(const ContractInstance& instance, const wire::RefitManifest& manifest, int tp_rank,
                 CommitMode mode, LoadFaults faults, std::size_t host_copies,
                 const std::function<void()>& on_progress);
    /// Poisons the copy that the refit will write.
    virtual void poison(const std::function<void()>& on_progress);
    /// Zeroes a destination of that copy from byte `from` on.
    virtual void zero_padding(std::size_t destination, std::size_t from);
    /// Computes derived weights and the host's copies of scales from the visible copy.
    virtual void derive();
    /// Throws ShapeError outside of a refit and for a piece that is not in the manifest.
    [[nodiscard]] const wire::PiecePlan& plan_of(std::uint32_t bucket, std::uint32_t trainer) const;
    /// Header and digests of a piece of `piece_bytes` bytes, of which `bytes` are at least those;
    /// absent, with a finding, where nothing of it may be loaded.
    [[nodiscard]] std::optional<wire::PieceView> opened(std::uint32_t bucket, std::uint32_t trainer,
                                                        std::span<const std::byte> bytes,
                                                        std::size_t piece_bytes);
    /// Where what is wrong with this refit is reported.
    [[nodiscard]] LoaderFindings reported_findings();

    const ContractInstance& instance_;
    const wire::RefitManifest& manifest_;
    int tp_rank_ = 0;
    CommitMode mode_;
    LoadFaults faults_;
    struct State;
    std::shared_ptr<State> state_;
    core::Findings findings_;
    std::uint64_t version_ = 0;
    bool torn_ = false;

 private:
    /// Copies, hashes and judges one cell of a piece; `place` names the piece.
    void load_cell(const IncomingCell& cell, std::span<const std::byte> piece,
                   const std::string& place, const std::function<void()>& on_progress,
                   LoadClock& clock);
    /// Reports the spans that are not whole.
    void report_missing();
};

}  // namespace refit::receiver
