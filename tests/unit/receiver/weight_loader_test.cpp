// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Loading against the listings' own "load" lines, digests by the xxHash library, and one planted
// fault each.
#include "receiver/weight_loader.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cfloat>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <regex>
#include <set>

#include "core/error.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using quant::Scheme;
using receiver::CommitMode;
using receiver::WeightLoader;
using testing::HasSubstr;

const std::string kQuery = "model.layers.0.self_attn.q_proj.weight";
const std::string kOutput = "model.layers.0.self_attn.o_proj.weight";

std::size_t destination_index(const receiver::ContractInstance& instance, const std::string& name) {
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        if (instance.destinations[i].name == name) return i;
    }
    ADD_FAILURE() << "no destination " << name;
    return 0;
}

/// The value of one scale of the fixture, by the arithmetic of its element type.
double scale_value(const std::byte* at, DType dtype) {
    if (dtype == DType::f32) {
        float value;
        std::memcpy(&value, at, 4);
        return value;
    }
    std::uint16_t bits;
    std::memcpy(&bits, at, 2);
    if (dtype == DType::bf16) return std::ldexp(1.0 + (bits & 0x7F) / 128.0, (bits >> 7) - 127);
    return std::ldexp(1.0 + (bits & 0x3FF) / 1024.0, (bits >> 10) - 15);
}

/// Compares what a rank holds with the listing's load lines, element by element; returns the lines
/// compared.
std::size_t compare_with_listing(const std::string& stem, int rank, Refit& refit,
                                 const WeightLoader& loader) {
    std::ifstream file(std::string(REFIT_SOURCE_DIR) + "/tests/golden/contracts/" + stem + ".txt");
    const std::regex load(
        R"(load (\d+) (\S+)\[(\d+):(\d+), (\d+):(\d+)\] -> (\S+)\[(\d+)(?:, (\d+))?\])");
    std::size_t compared = 0;
    for (std::string line; std::getline(file, line);) {
        std::smatch m;
        if (!std::regex_match(line, m, load) || std::stoi(m[1]) != rank) continue;
        ++compared;
        const auto& instance = loader.instance();
        const std::size_t index = destination_index(instance, m[7]);
        const auto& dest = instance.destinations[index];
        const auto& meta =
            refit.manifest().parameters[static_cast<std::size_t>(refit.manifest().find(m[2]))];
        const std::int64_t row0 = std::stol(m[3]);
        const std::int64_t row1 = std::stol(m[4]);
        const std::int64_t col0 = std::stol(m[5]);
        const std::int64_t col1 = std::stol(m[6]);
        const std::int64_t at = std::stol(m[8]);
        const std::int64_t dest_col = m[9].matched ? std::stol(m[9]) : 0;
        // A stack of matrices is one matrix below the other.
        const std::int64_t dest_cols =
            dest.shape.size() == 3 ? dest.shape[2] : core::matrix_cols(dest.shape);
        const std::byte* source = refit.tensor(meta.name).data();
        const std::byte* found = loader.loaded().bytes(index).data();
        const std::int64_t from = core::size_bytes(meta.dtype);
        const std::int64_t to = core::size_bytes(dest.dtype);
        for (std::int64_t r = row0; r < row1; ++r) {
            const std::byte* a = source + (r * meta.cols() + col0) * from;
            const std::byte* b = found + ((at + r - row0) * dest_cols + dest_col) * to;
            if (dest.is_scale) {
                for (std::int64_t c = 0; c < col1 - col0; ++c) {
                    EXPECT_EQ(scale_value(a + c * from, meta.dtype),
                              scale_value(b + c * 4, DType::f32))
                        << line;
                }
            } else if (meta.dtype != dest.dtype) {
                // Only the router's bias is widened.
                for (std::int64_t c = 0; c < col1 - col0; ++c) {
                    const float wide = static_cast<float>(scale_value(b + c * 4, DType::f32));
                    std::uint32_t bits;
                    std::memcpy(&bits, &wide, 4);
                    EXPECT_EQ(std::memcmp(a + c * from, reinterpret_cast<std::byte*>(&bits) + 2, 2),
                              0)
                        << line;
                }
            } else if (std::memcmp(a, b, static_cast<std::size_t>((col1 - col0) * from)) != 0) {
                ADD_FAILURE() << line << ": row " << r << " differs";
                return compared;
            }
        }
    }
    return compared;
}

void load_and_compare(const std::string& engine, Scheme scheme, const std::string& listing,
                      const std::string& model, int tp, std::uint32_t trainers, DType scale_dtype,
                      int ep = 1) {
    const auto instance = instance_of(engine, scheme, named_model(model), tp, ep);
    Refit refit(instance, trainers, 5, scale_dtype);
    for (int rank = 0; rank < tp; ++rank) {
        WeightLoader loader(instance, refit.manifest(), rank, CommitMode::staged, {});
        loader.begin(3);
        refit.stream(loader, 3);
        EXPECT_TRUE(loader.findings().empty())
            << (loader.findings().empty() ? "" : loader.findings().front().message);
        ASSERT_TRUE(loader.commit(true));
        EXPECT_EQ(loader.version(), 3U);
        EXPECT_FALSE(loader.torn());
        EXPECT_GT(loader.loaded_bytes(), 0U);
        const std::string stem =
            listing + "." + model + ".tp" + std::to_string(tp) + (ep > 1 ? "-ep" : "");
        EXPECT_GT(compare_with_listing(stem, rank, refit, loader), 10U);
    }
}

TEST(WeightLoader, PutsBlockwiseCellsWhereTheEngineDoes) {
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-llama", 1, 1, DType::f32);
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-llama", 4, 3, DType::f32);
}

TEST(WeightLoader, PutsChannelwiseCellsWhereTheEngineDoes) {
    load_and_compare("vllm-modelopt", Scheme::fp8_channelwise, "vllm-modelopt", "tiny-llama", 2, 3,
                     DType::f32);
    load_and_compare("vllm-compressed-tensors", Scheme::fp8_channelwise, "vllm-compressed-tensors",
                     "tiny-llama", 2, 2, DType::f32);
}

TEST(WeightLoader, PutsTensorwiseAndBf16CellsWhereTheEngineDoes) {
    load_and_compare("vllm-fp8", Scheme::fp8_tensorwise, "vllm-fp8-tensorwise", "tiny-llama", 2, 2,
                     DType::f32);
    load_and_compare("vllm-bf16", Scheme::bf16, "vllm-bf16", "padded-llama", 2, 3, DType::f32);
}

TEST(WeightLoader, StacksExpertsWhereTheEngineDoes) {
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-moe", 4, 3, DType::f32);
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-moe", 2, 2, DType::bf16,
                     2);
    load_and_compare("vllm-fp8", Scheme::fp8_tensorwise, "vllm-fp8-tensorwise", "tiny-moe", 2, 2,
                     DType::f32);
    load_and_compare("vllm-compressed-tensors", Scheme::fp8_channelwise, "vllm-compressed-tensors",
                     "tiny-moe", 4, 2, DType::f32, 4);
    load_and_compare("vllm-bf16", Scheme::bf16, "vllm-bf16", "tiny-moe", 2, 2, DType::f32);
}

TEST(WeightLoader, PutsLatentAttentionWhereTheEngineDoes) {
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-mla", 4, 3, DType::f32);
    load_and_compare("vllm-compressed-tensors", Scheme::fp8_channelwise, "vllm-compressed-tensors",
                     "tiny-mla", 2, 2, DType::f32);
}

TEST(WeightLoader, ReplicatesKeyAndValueHeads) {
    load_and_compare("vllm-compressed-tensors", Scheme::fp8_channelwise, "vllm-compressed-tensors",
                     "padded-llama", 4, 2, DType::f32);
}

TEST(WeightLoader, WidensBf16AndF16ScalesExactly) {
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-llama", 2, 2,
                     DType::bf16);
    load_and_compare("vllm-fp8", Scheme::fp8_blockwise, "vllm-fp8", "tiny-llama", 2, 2, DType::f16);
}

TEST(WeightLoader, PutsColumnsTogetherThatCameFromSeveralTrainers) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), 2);
    for (int rank = 0; rank < 2; ++rank) {
        Refit refit(instance, 3, 5, DType::f32, true);
        WeightLoader loader(instance, refit.manifest(), rank, CommitMode::in_place, {});
        loader.begin(1);
        refit.stream(loader, 1);
        EXPECT_TRUE(loader.findings().empty())
            << (loader.findings().empty() ? "" : loader.findings().front().message);
        ASSERT_TRUE(loader.commit(true));
        EXPECT_GT(compare_with_listing("vllm-fp8.tiny-llama.tp2", rank, refit, loader), 10U);
    }
}

TEST(WeightLoader, FillsTheVocabularyPaddingWithZeros) {
    const auto instance = instance_of("vllm-bf16", Scheme::bf16, named_model("padded-llama"), 2);
    const Refit refit(instance, 2, 3);
    WeightLoader loader(instance, refit.manifest(), 1, CommitMode::in_place, {});
    loader.begin(1);
    refit.stream(loader, 1);
    ASSERT_TRUE(loader.commit(true));
    // 1000 rows are padded to 1024: rank 1 holds 488 rows and 24 of padding.
    const auto bytes =
        loader.loaded().bytes(destination_index(instance, "model.embed_tokens.weight"));
    ASSERT_EQ(bytes.size(), 512U * 256U * 2U);
    for (std::size_t i = 488 * 512; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], std::byte{0}) << i;
}

TEST(WeightLoader, PoisonIsFfBytesAndTheLowestScale) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), 1);
    receiver::LoadedParameters loaded(instance);
    loaded.poison(instance);
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
        const auto bytes = loaded.bytes(i);
        sum += bytes.size();
        EXPECT_EQ(reinterpret_cast<std::uintptr_t>(bytes.data()) % 64, 0U);
        if (instance.destinations[i].is_scale) {
            float value;
            std::memcpy(&value, bytes.data() + bytes.size() - 4, 4);
            EXPECT_EQ(value, -FLT_MAX);
        } else {
            EXPECT_EQ(bytes[0], std::byte{0xFF});
            EXPECT_EQ(bytes[bytes.size() - 1], std::byte{0xFF});
        }
    }
    EXPECT_EQ(loaded.size_bytes(), sum);
}

TEST(WeightLoader, CallsBackOncePerMebibyte) {
    const auto instance = instance_of("vllm-bf16", Scheme::bf16, named_model("tiny-llama"), 1);
    const Refit refit(instance, 1, 1000);
    WeightLoader loader(instance, refit.manifest(), 0, CommitMode::in_place, {});
    loader.begin(1);
    const auto piece = refit.piece(0, 0, 1);
    receiver::LoadTimes times;
    std::size_t calls = 0;
    loader.load_piece(
        0, 0, piece, [&] { ++calls; }, times);
    EXPECT_GE(calls, piece.size() >> 20);
    EXPECT_GT(times.check_s, 0.0);
    EXPECT_GT(times.load_s, 0.0);
}

// Versions
// -------------------------------------------------------------------------------------------------------------

struct Loading {
    receiver::ContractInstance instance;
    Refit refit;
    WeightLoader loader;
    explicit Loading(int tp = 2, int rank = 0, CommitMode mode = CommitMode::staged,
                     receiver::LoadFaults faults = {})
        : instance(instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), tp)),
          refit(instance, 2, 6),
          loader(instance, refit.manifest(), rank, mode, std::move(faults)) {}
    Loading(const Loading&) = delete;

    void run(std::uint64_t version) {
        loader.begin(version);
        refit.stream(loader, version);
    }
    std::vector<std::byte> visible() {
        std::vector<std::byte> all;
        for (std::size_t i = 0; i < instance.destinations.size(); ++i) {
            const auto bytes = std::as_const(loader).loaded().bytes(i);
            all.insert(all.end(), bytes.begin(), bytes.end());
        }
        return all;
    }
};

TEST(Commit, StagedKeepsTheOldVersionUntilTheNewOneIsWhole) {
    Loading load;
    load.run(1);
    ASSERT_TRUE(load.loader.commit(true));
    const auto first = load.visible();
    load.refit.tensor(kQuery)[0] ^= std::byte{1};
    load.run(2);
    EXPECT_EQ(load.visible(), first);
    EXPECT_EQ(load.loader.version(), 1U);
    EXPECT_FALSE(load.loader.torn());
    ASSERT_TRUE(load.loader.commit(true));
    EXPECT_NE(load.visible(), first);
    EXPECT_EQ(load.loader.version(), 2U);
}

TEST(Commit, StagedFailureLeavesTheOldVersion) {
    Loading load;
    load.run(1);
    ASSERT_TRUE(load.loader.commit(true));
    const auto first = load.visible();
    load.run(2);
    EXPECT_FALSE(load.loader.commit(false));
    EXPECT_EQ(load.visible(), first);
    EXPECT_EQ(load.loader.version(), 1U);
    load.run(3);
    EXPECT_TRUE(load.loader.commit(true));
    EXPECT_EQ(load.loader.version(), 3U);
}

TEST(Commit, InPlaceIsTornUntilItIsWhole) {
    Loading load(2, 1, CommitMode::in_place);
    load.run(1);
    EXPECT_TRUE(load.loader.torn());
    ASSERT_TRUE(load.loader.commit(true));
    EXPECT_FALSE(load.loader.torn());
    load.run(2);
    EXPECT_FALSE(load.loader.commit(false));
    EXPECT_TRUE(load.loader.torn());
    EXPECT_EQ(load.loader.version(), 1U);
}

TEST(Commit, IsRefusedBeforeTheStreamHasEnded) {
    Loading load;
    load.loader.begin(1);
    EXPECT_FALSE(load.loader.commit(true));
}

TEST(Commit, ForgottenCommitKeepsTheVersion) {
    Loading load(2, 0, CommitMode::staged,
                 {.skip_tensors = {}, .flip_tensors = {}, .forget_commit = true});
    load.run(7);
    EXPECT_TRUE(load.loader.commit(true));
    EXPECT_EQ(load.loader.version(), 0U);
}

// Planted faults
// -------------------------------------------------------------------------------------------------------

/// Streams all pieces after `change` had its way with each.
core::Findings findings_with(
    Loading& load,
    const std::function<void(std::uint32_t, std::uint32_t, std::vector<std::byte>&)>& change) {
    receiver::LoadTimes times;
    load.loader.begin(1);
    const auto& buckets = load.refit.manifest().buckets;
    for (std::uint32_t bucket = 0; bucket < buckets.size(); ++bucket) {
        for (std::uint32_t trainer = 0; trainer < buckets[bucket].pieces.size(); ++trainer) {
            std::vector<std::byte> piece = load.refit.piece(bucket, trainer, 1);
            change(bucket, trainer, piece);
            if (!piece.empty())
                load.loader.load_piece(
                    bucket, trainer, piece, [] {}, times);
        }
    }
    load.loader.finish_stream();
    return load.loader.findings();
}

const wire::PieceEntry* entry_of(const Loading& load, const std::string& name, std::uint32_t bucket,
                                 std::uint32_t trainer) {
    const auto& manifest = const_cast<Loading&>(load).refit.manifest();
    for (const wire::PieceEntry& entry : manifest.buckets[bucket].pieces[trainer].entries) {
        if (manifest.parameters[entry.parameter].name == name) return &entry;
    }
    return nullptr;
}

TEST(PlantedFault, EveryFlippedByteOfAKeptCellIsOneDigestFinding) {
    // Byte 0 of o_proj is in the columns of rank 0, the last byte of the row in those of rank 1.
    for (const int rank : {0, 1}) {
        for (const bool last : {false, true}) {
            Loading load(2, rank);
            const core::Findings findings =
                findings_with(load, [&](auto bucket, auto trainer, auto& piece) {
                    const wire::PieceEntry* entry = entry_of(load, kOutput, bucket, trainer);
                    if (entry != nullptr && trainer == 1)
                        piece[entry->offset + (last ? 511 : 0)] ^= std::byte{0x01};
                });
            EXPECT_EQ(findings.size(), last == (rank == 1) ? 1U : 0U);
            EXPECT_EQ(findings_of(findings, "digest", kOutput).size(), findings.size());
            for (const core::Finding& finding : findings) {
                EXPECT_EQ(finding.measured.size(), 32U);
                EXPECT_NE(finding.measured, finding.limit);
                // A third of 512 rows belongs to trainer 0.
                EXPECT_EQ(finding.index, (std::vector<std::int64_t>{170, rank * 256}));
            }
            EXPECT_EQ(load.loader.commit(true), findings.empty());
        }
    }
}

TEST(PlantedFault, MissingPieceNamesTensorsAndTheFirstMissingRow) {
    Loading load;
    const core::Findings findings =
        findings_with(load, [&](auto bucket, auto trainer, auto& piece) {
            if (entry_of(load, kOutput, bucket, trainer) != nullptr && trainer == 1) piece.clear();
        });
    const auto missing = findings_of(findings, "completeness", kOutput);
    ASSERT_EQ(missing.size(), 1U);
    EXPECT_EQ(missing[0].index, (std::vector<std::int64_t>{170, 0}));
    EXPECT_THAT(missing[0].message, HasSubstr("row 170"));
    EXPECT_FALSE(load.loader.commit(true));
}

TEST(PlantedFault, RepeatedRowsAreFound) {
    Loading load;
    load.loader.begin(1);
    receiver::LoadTimes times;
    const auto piece = load.refit.piece(1, 0, 1);
    load.loader.load_piece(
        1, 0, piece, [] {}, times);
    EXPECT_TRUE(load.loader.findings().empty());
    load.loader.load_piece(
        1, 0, piece, [] {}, times);
    ASSERT_FALSE(load.loader.findings().empty());
    EXPECT_EQ(load.loader.findings()[0].check, "completeness");
    EXPECT_THAT(load.loader.findings()[0].message, HasSubstr("again"));
}

TEST(PlantedFault, ARowInTwoEntriesIsFound) {
    Loading load;
    // Trainer 1 begins one row early, so that this row comes from both.
    auto& manifest = load.refit.manifest();
    for (auto& bucket : manifest.buckets) {
        for (auto& entry : bucket.pieces[1].entries) {
            const auto& meta = manifest.parameters[entry.parameter];
            if (meta.name != "model.norm.weight") continue;
            entry.rows.begin -= 1;
            entry.bytes += 2;
            bucket.pieces[1].bytes += 64;
        }
    }
    const core::Findings findings = findings_with(load, [](auto, auto, auto&) {});
    EXPECT_EQ(findings_of(findings, "completeness", "model.norm.weight").size(), 1U);
}

/// Findings about kQuery when trainer 1 of three sends other columns of it than its third;
/// `change` gets first and last column.
core::Findings findings_of_columns(
    const std::function<void(std::int64_t& begin, std::int64_t& end)>& change) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), 1);
    Refit refit(instance, 3, 1, DType::f32, true);
    for (auto& bucket : refit.manifest().buckets) {
        wire::PiecePlan& piece = bucket.pieces[1];
        for (auto& entry : piece.entries) {
            const wire::ParameterMeta& meta = refit.manifest().parameters[entry.parameter];
            if (meta.name != kQuery) continue;
            change(entry.cols.begin, entry.cols.end);
            entry.offset = wire::entries_offset(wire::digest_count(refit.manifest(), {entry}));
            entry.bytes = static_cast<std::uint64_t>(entry.rows.count() * entry.cols.count());
            piece.bytes = entry.offset + entry.bytes;
        }
    }
    WeightLoader loader(instance, refit.manifest(), 0, CommitMode::staged, {});
    loader.begin(1);
    refit.stream(loader, 1);
    EXPECT_FALSE(loader.commit(true));
    return findings_of(loader.findings(), "completeness", kQuery);
}

TEST(PlantedFault, MissingColumnsAreNamedByTheFirst) {
    // 512 columns in thirds of 170: trainer 1 begins one late.
    const core::Findings findings = findings_of_columns([](auto& begin, auto&) { begin += 1; });
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].index, (std::vector<std::int64_t>{0, 170}));
}

TEST(PlantedFault, AColumnInTwoEntriesIsFound) {
    const core::Findings findings = findings_of_columns([](auto&, auto& end) { end += 1; });
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_THAT(findings[0].message, HasSubstr("again"));
}

TEST(PlantedFault, AbortedPieceIsNeverLoaded) {
    Loading load;
    const core::Findings findings =
        findings_with(load, [&](auto bucket, auto trainer, auto& piece) {
            if (bucket == 0 && trainer == 1)
                piece = load.refit.piece(0, 1, 1, wire::PieceState::aborted);
        });
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_THAT(findings[0].message, HasSubstr("aborted by its trainer"));
    EXPECT_FALSE(load.loader.commit(true));
}

TEST(PlantedFault, UnusableScalesAreNamedWithTheirIndex) {
    for (const float value : {-1.0F, 0.0F, -0.0F, std::numeric_limits<float>::quiet_NaN(),
                              std::numeric_limits<float>::infinity()}) {
        Loading load;
        // Element [1, 2] of the [4, 4] grid of o_proj is in the columns of rank 1.
        std::memcpy(load.refit.tensor(kOutput + "_scale_inv").data() + (4 + 2) * 4, &value, 4);
        load.run(1);
        EXPECT_TRUE(load.loader.findings().empty());

        WeightLoader other(load.instance, load.refit.manifest(), 1, CommitMode::staged, {});
        other.begin(1);
        load.refit.stream(other, 1);
        ASSERT_EQ(other.findings().size(), 1U);
        EXPECT_EQ(other.findings()[0].check, "nonfinite");
        EXPECT_EQ(other.findings()[0].tensor, kOutput + "_scale_inv");
        EXPECT_EQ(other.findings()[0].index, (std::vector<std::int64_t>{1, 2}));
        EXPECT_FALSE(other.commit(true));
    }
}

TEST(PlantedFault, UnusableBf16ScaleIsFoundToo) {
    const auto instance =
        instance_of("vllm-fp8", Scheme::fp8_blockwise, named_model("tiny-llama"), 1);
    Refit refit(instance, 1, 6, DType::bf16);
    const std::uint16_t infinity = 0x7F80;
    std::memcpy(refit.tensor(kQuery + "_scale_inv").data(), &infinity, 2);
    WeightLoader loader(instance, refit.manifest(), 0, CommitMode::staged, {});
    loader.begin(1);
    refit.stream(loader, 1);
    EXPECT_EQ(findings_of(loader.findings(), "nonfinite", kQuery + "_scale_inv").size(), 1U);
}

TEST(PlantedFault, BucketOfAnotherRefitIsAVersionFinding) {
    Loading load;
    const core::Findings findings =
        findings_with(load, [&](auto bucket, auto trainer, auto& piece) {
            if (bucket == 0 && trainer == 0) piece = load.refit.piece(0, 0, 9);
        });
    ASSERT_EQ(findings.size(), 1U);
    EXPECT_EQ(findings[0].check, "version");
    EXPECT_EQ(findings[0].measured, "9");
}

TEST(PlantedFault, DamagedHeaderAndShortPieceAreFindings) {
    for (const bool cut : {false, true}) {
        Loading load;
        const core::Findings findings =
            findings_with(load, [&](auto bucket, auto trainer, auto& piece) {
                if (bucket != 0 || trainer != 0) return;
                if (cut) {
                    piece.resize(piece.size() - 64);
                } else {
                    piece[0] ^= std::byte{0xFF};
                }
            });
        ASSERT_EQ(findings.size(), 1U);
        EXPECT_EQ(findings[0].check, "digest");
        EXPECT_FALSE(load.loader.commit(true));
    }
}

TEST(PlantedFault, SkippedTensorIsIncomplete) {
    Loading load(2, 0, CommitMode::staged,
                 {.skip_tensors = {kQuery}, .flip_tensors = {}, .forget_commit = false});
    load.run(1);
    ASSERT_EQ(load.loader.findings().size(), 1U);
    EXPECT_EQ(load.loader.findings()[0].check, "completeness");
    EXPECT_EQ(load.loader.findings()[0].tensor, kQuery);
}

TEST(PlantedFault, FlippedBitAfterTheDigestIsLoadedWithoutAFinding) {
    Loading clean;
    clean.run(1);
    ASSERT_TRUE(clean.loader.commit(true));
    Loading load(2, 0, CommitMode::staged,
                 {.skip_tensors = {}, .flip_tensors = {kQuery}, .forget_commit = false});
    load.run(1);
    EXPECT_TRUE(load.loader.findings().empty());
    ASSERT_TRUE(load.loader.commit(true));
    const auto right = clean.visible();
    const auto wrong = load.visible();
    std::size_t different = 0;
    for (std::size_t i = 0; i < right.size(); ++i) different += right[i] != wrong[i] ? 1 : 0;
    EXPECT_EQ(different, 1U);
}

TEST(WeightLoaderUse, OutsideOfARefitOrATpSizeIsRefused) {
    Loading load;
    receiver::LoadTimes times;
    EXPECT_THROW(load.loader.load_piece(
                     0, 0, {}, [] {}, times),
                 core::ShapeError);
    EXPECT_THROW(load.loader.finish_stream(), core::ShapeError);
    EXPECT_THROW(WeightLoader(load.instance, load.refit.manifest(), 2, CommitMode::staged, {}),
                 core::ShapeError);
}

}  // namespace
}  // namespace refit::receiver_test
