// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The bytes of a piece: header, one digest a cell, then the entries at aligned offsets.
//
//   [PieceHeader][DigestRecord x digest_count][padding to 64][entry 0][padding][entry 1] ...
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "wire/checksum.hpp"
#include "wire/manifest.hpp"

namespace refit::wire {

inline constexpr std::uint64_t kPieceMagic = 0x3143505446455221;  // arbitrary, byte-order revealing

enum class PieceState : std::uint32_t {
    complete = 1,
    /// The trainer met an error: the stream goes on so that nobody waits, but nothing in this piece
    /// may be loaded.
    aborted = 2,
};

struct PieceHeader {
    std::uint64_t magic = kPieceMagic;
    std::uint64_t version = 0;  ///< of the refit
    std::uint32_t bucket = 0;
    std::uint32_t trainer = 0;
    std::uint32_t digest_count = 0;
    PieceState state = PieceState::complete;
    std::uint64_t piece_bytes = 0;
    std::uint32_t last_bucket = 0;  ///< 1 in the last bucket: the end marker
    std::uint32_t reserved = 0;
    std::uint64_t padding[2] = {0, 0};
};
static_assert(sizeof(PieceHeader) == 64);

/// Digest of one cell's bytes as this trainer sends them (row by row, its own rectangle only).
struct DigestRecord {
    std::uint32_t parameter = 0;
    std::uint32_t cell = 0;
    Digest digest;
};
static_assert(sizeof(DigestRecord) == 24);

/// Number of digest records of a piece with these entries.
[[nodiscard]] std::uint32_t digest_count(const RefitManifest& manifest,
                                         const std::vector<PieceEntry>& entries);
/// Offset of the first entry for that many digests.
[[nodiscard]] std::uint64_t entries_offset(std::uint32_t digest_count);

/// The header of a trainer's piece as the manifest plans it.
[[nodiscard]] PieceHeader piece_header(const RefitManifest& manifest, std::size_t bucket,
                                       std::size_t trainer, std::uint64_t version, bool aborted);

/// A received piece whose header was checked against the manifest.
class PieceView {
 public:
    /// Throws Error naming bucket, trainer, field, found and expected where the header does not
    /// fit.
    PieceView(const RefitManifest& manifest, std::uint32_t bucket, std::uint32_t trainer,
              std::uint64_t version, std::span<const std::byte> bytes)
        : PieceView(manifest, bucket, trainer, version, bytes, bytes.size()) {}
    /// Of a piece of `piece_bytes` bytes that lie elsewhere: `head` holds at least its first
    /// entries_offset() bytes, and entries can be taken only where it holds them.
    PieceView(const RefitManifest& manifest, std::uint32_t bucket, std::uint32_t trainer,
              std::uint64_t version, std::span<const std::byte> head, std::size_t piece_bytes);
    [[nodiscard]] bool aborted() const { return aborted_; }
    [[nodiscard]] std::span<const DigestRecord> digests() const { return digests_; }
    [[nodiscard]] std::span<const std::byte> entry(const PieceEntry& entry) const;

 private:
    std::span<const std::byte> bytes_;
    std::span<const DigestRecord> digests_;
    bool aborted_ = false;
};

/// Writes header and digests in front of the entries of a piece.
void write_piece_header(std::span<std::byte> piece, const PieceHeader& header,
                        std::span<const DigestRecord> digests);

}  // namespace refit::wire
