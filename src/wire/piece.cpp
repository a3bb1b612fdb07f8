// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "wire/piece.hpp"

#include <algorithm>
#include <cstring>

#include "core/error.hpp"

namespace refit::wire {
namespace {

[[noreturn]] void bad_header(std::uint32_t bucket, std::uint32_t trainer, const std::string& field,
                             std::uint64_t found, std::uint64_t expected) {
    throw core::Error(core::ExitCode::environment,
                      "bucket " + std::to_string(bucket) + " of trainer " +
                          std::to_string(trainer) + ": the piece header's " + field + " is " +
                          std::to_string(found) + ", expected " + std::to_string(expected) +
                          "; the transport delivered other bytes than were sent");
}

}  // namespace

std::uint32_t digest_count(const RefitManifest& manifest, const std::vector<PieceEntry>& entries) {
    std::uint32_t count = 0;
    for (const PieceEntry& entry : entries) {
        count += static_cast<std::uint32_t>(
            cells_in_region(manifest.parameters[entry.parameter],
                            entry.region(manifest.parameters[entry.parameter]))
                .size());
    }
    return count;
}

std::uint64_t entries_offset(std::uint32_t digest_count) {
    const std::uint64_t end =
        sizeof(PieceHeader) + std::uint64_t{digest_count} * sizeof(DigestRecord);
    return (end + kParameterAlignment - 1) / kParameterAlignment * kParameterAlignment;
}

PieceHeader piece_header(const RefitManifest& manifest, std::size_t bucket, std::size_t trainer,
                         std::uint64_t version, bool aborted) {
    const PiecePlan& plan = manifest.buckets.at(bucket).pieces.at(trainer);
    PieceHeader header;
    header.version = version;
    header.bucket = static_cast<std::uint32_t>(bucket);
    header.trainer = static_cast<std::uint32_t>(trainer);
    header.digest_count = digest_count(manifest, plan.entries);
    header.state = aborted ? PieceState::aborted : PieceState::complete;
    header.piece_bytes = plan.bytes;
    header.last_bucket = bucket + 1 == manifest.buckets.size() ? 1 : 0;
    return header;
}

PieceView::PieceView(const RefitManifest& manifest, std::uint32_t bucket, std::uint32_t trainer,
                     std::uint64_t version, std::span<const std::byte> bytes,
                     std::size_t piece_bytes)
    : bytes_(bytes) {
    const PiecePlan& plan = manifest.buckets.at(bucket).pieces.at(trainer);
    if (piece_bytes != plan.bytes || piece_bytes < sizeof(PieceHeader)) {
        bad_header(bucket, trainer, "size", piece_bytes, plan.bytes);
    }
    const std::uint64_t head = entries_offset(digest_count(manifest, plan.entries));
    if (bytes.size() < std::min<std::uint64_t>(head, piece_bytes))
        bad_header(bucket, trainer, "bytes at hand", bytes.size(), head);
    PieceHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    const std::uint32_t digests = digest_count(manifest, plan.entries);
    if (header.magic != kPieceMagic)
        bad_header(bucket, trainer, "magic", header.magic, kPieceMagic);
    if (header.version != version) bad_header(bucket, trainer, "version", header.version, version);
    if (header.bucket != bucket) bad_header(bucket, trainer, "bucket", header.bucket, bucket);
    if (header.trainer != trainer) bad_header(bucket, trainer, "trainer", header.trainer, trainer);
    if (header.piece_bytes != plan.bytes)
        bad_header(bucket, trainer, "piece_bytes", header.piece_bytes, plan.bytes);
    if (header.digest_count != digests)
        bad_header(bucket, trainer, "digest_count", header.digest_count, digests);
    const std::uint32_t last = bucket + 1 == manifest.buckets.size() ? 1 : 0;
    if (header.last_bucket != last)
        bad_header(bucket, trainer, "end marker", header.last_bucket, last);
    if (header.state != PieceState::complete && header.state != PieceState::aborted) {
        bad_header(bucket, trainer, "state", static_cast<std::uint64_t>(header.state),
                   static_cast<std::uint64_t>(PieceState::complete));
    }
    aborted_ = header.state != PieceState::complete;
    digests_ = {reinterpret_cast<const DigestRecord*>(bytes.data() + sizeof(PieceHeader)), digests};
}

std::span<const std::byte> PieceView::entry(const PieceEntry& entry) const {
    return bytes_.subspan(entry.offset, entry.bytes);
}

void write_piece_header(std::span<std::byte> piece, const PieceHeader& header,
                        std::span<const DigestRecord> digests) {
    std::memcpy(piece.data(), &header, sizeof header);
    if (!digests.empty())
        std::memcpy(piece.data() + sizeof header, digests.data(), digests.size_bytes());
}

}  // namespace refit::wire
