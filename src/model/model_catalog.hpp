// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// THE list of built-in models.
#pragma once

#include <string>
#include <vector>

#include "model/model_config.hpp"

namespace refit::model {

struct CatalogRow {
    ModelConfig config;
    std::int64_t published_parameters =
        0;               ///< total elements, a tied head once; what the row is tested against
    std::string source;  ///< where the figures were read
};

[[nodiscard]] const std::vector<CatalogRow>& model_catalog();
[[nodiscard]] std::vector<std::string> model_names();
/// Throws UsageError that lists the nearest names.
[[nodiscard]] const CatalogRow& find_model(const std::string& name);
/// The first `layers` decoder layers of `config`, dense or with experts as they are there. Layers
/// for multi-token prediction stand behind the last decoder layer and only the whole model keeps
/// them. Throws ScenarioError unless 1 <= layers <= config.layers.
[[nodiscard]] ModelConfig slice_layers(ModelConfig config, std::int64_t layers);

}  // namespace refit::model
