// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Models, manifests and pieces made by hand for the receiver's tests.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "model/model_config.hpp"
#include "receiver/engine_contract.hpp"
#include "receiver/weight_loader.hpp"
#include "wire/manifest.hpp"
#include "wire/piece.hpp"

namespace refit::receiver_test {

/// The figures of a model; llama unless changed.
[[nodiscard]] model::ModelConfig dense(std::int64_t hidden, std::int64_t intermediate,
                                       std::int64_t layers, std::int64_t heads,
                                       std::int64_t kv_heads, std::int64_t head_dim,
                                       std::int64_t vocabulary, bool tied);
/// The models of tests/golden/contracts.
[[nodiscard]] model::ModelConfig named_model(const std::string& name);

/// The contract of an engine applied with its default config for a scheme.
[[nodiscard]] receiver::ContractInstance instance_of(const std::string& engine,
                                                     quant::Scheme scheme,
                                                     const model::ModelConfig& model, int tp,
                                                     int ep = 1);
/// The same with a config of its own.
[[nodiscard]] receiver::ContractInstance instance_with(const std::string& engine,
                                                       const std::string& json,
                                                       const model::ModelConfig& model, int tp);

/// A manifest that sends exactly what `instance` wants, without buckets.
[[nodiscard]] wire::RefitManifest list_of(const receiver::ContractInstance& instance);

/// Findings whose tensor and check are the ones named.
[[nodiscard]] std::vector<core::Finding> findings_of(const core::Findings& findings,
                                                     const std::string& check,
                                                     const std::string& tensor);

/// Tensors with known bytes, and the pieces that carry them.
class Refit {
 public:
    /// Every tensor of `instance` as `scale_dtype` scales, in one bucket a parameter group of
    /// `per_bucket`, its rows over `trainers` in shards of a third, a third, the rest; with
    /// `by_columns` the columns of matrices that have that many.
    Refit(const receiver::ContractInstance& instance, std::uint32_t trainers,
          std::size_t per_bucket, core::DType scale_dtype = core::DType::f32,
          bool by_columns = false);

    [[nodiscard]] const wire::RefitManifest& manifest() const { return manifest_; }
    wire::RefitManifest& manifest() { return manifest_; }
    /// Row-major bytes of one tensor as sent.
    std::vector<std::byte>& tensor(const std::string& name) { return tensors_.at(name); }
    /// The piece, with digests computed by the xxHash library over the cells.
    [[nodiscard]] std::vector<std::byte> piece(
        std::uint32_t bucket, std::uint32_t trainer, std::uint64_t version,
        wire::PieceState state = wire::PieceState::complete) const;
    /// Feeds every piece to the loader.
    void stream(receiver::WeightLoader& loader, std::uint64_t version) const;

 private:
    wire::RefitManifest manifest_;
    std::map<std::string, std::vector<std::byte>> tensors_;
};

}  // namespace refit::receiver_test
