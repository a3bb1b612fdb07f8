// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Every row of every contract with the right payload and with each kind of wrong one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <nlohmann/json.hpp>
#include <set>

#include "receiver/contract_check.hpp"
#include "unit/receiver/refit_fixture.hpp"

namespace refit::receiver_test {
namespace {

using core::DType;
using quant::Scheme;

struct Row {
    std::string engine;
    Scheme scheme = Scheme::bf16;
    std::string model;
    int tp = 1;
};

std::vector<Row> every_row() {
    std::vector<Row> rows;
    for (const receiver::EngineContract& contract : receiver::engine_catalog()) {
        for (const Scheme scheme : contract.schemes) {
            for (const char* model : {"qwen3-0.6b", "qwen2.5-0.5b", "tiny-moe", "tiny-mla"}) {
                const auto& unread = contract.unread_architectures;
                if (std::count(unread.begin(), unread.end(), named_model(model).architecture) > 0) {
                    continue;
                }
                // Layers of 192 rows are no whole blocks.
                const bool whole = contract.block_rule == receiver::BlockRule::exact_tiles &&
                                   scheme == Scheme::fp8_blockwise;
                if (whole && std::string(model) == "tiny-mla") continue;
                // Half of 7 blocks is no block: this model is for one rank.
                const int tp = contract.layout.tensor_parallel && model[4] != '2' ? 2 : 1;
                rows.push_back({contract.name, scheme, model, tp});
            }
        }
    }
    return rows;
}

/// The default config, and experts in BF16 where the engine holds no others of a refit.
receiver::ContractInstance instance_for(const Row& row) {
    const receiver::EngineContract& contract = receiver::find_engine(row.engine);
    if (contract.layout.expert_format == receiver::ExpertFormat::as_config) {
        return instance_of(row.engine, row.scheme, named_model(row.model), row.tp);
    }
    auto config =
        nlohmann::json::parse(receiver::default_quantization_config(row.engine, row.scheme, ""));
    config["ignore"].push_back("*.mlp.experts*");
    return instance_with(row.engine, config.dump(), named_model(row.model), row.tp);
}

class EveryRow : public testing::TestWithParam<Row> {
 protected:
    EveryRow()
        : contract_(receiver::find_engine(GetParam().engine)),
          instance_(instance_for(GetParam())),
          right_(list_of(instance_)) {
        // The rows of a profile itself; its members are tested by their own.
        instance_.members.clear();
    }

    /// The first wanted parameter of every row of the contract that the model uses.
    [[nodiscard]] std::vector<std::size_t> one_of_each_row() const {
        std::set<std::size_t> seen;
        std::vector<std::size_t> result;
        for (std::size_t i = 0; i < instance_.wanted.size(); ++i) {
            if (seen.insert(instance_.rows.at(i)).second) result.push_back(i);
        }
        return result;
    }

    /// Findings beyond those of the right payload.
    [[nodiscard]] core::Findings after(
        const std::function<void(wire::RefitManifest&)>& change) const {
        wire::RefitManifest wrong = right_;
        change(wrong);
        core::Findings findings = receiver::check_manifest(wrong, instance_);
        findings.erase(findings.begin(),
                       findings.begin() + static_cast<std::ptrdiff_t>(instance_.refusals.size()));
        return findings;
    }

    /// One error that names the tensor, its behaviour and the row's source.
    void expect_error(const core::Findings& findings, const std::string& tensor,
                      const std::string& what) const {
        ASSERT_EQ(findings.size(), 1U) << what << " " << tensor;
        const core::Finding& finding = findings.front();
        EXPECT_EQ(finding.tensor, tensor) << what;
        EXPECT_EQ(finding.severity, core::Severity::error) << what << " " << tensor;
        EXPECT_THAT(finding.engine_behaviour,
                    testing::AnyOf("raises", "silently_wrong", "keeps_sentinel", "warns"))
            << what << " " << tensor;
        EXPECT_THAT(finding.message, testing::HasSubstr(contract_.snapshot));
        EXPECT_FALSE(finding.remedy.empty());
    }

    const receiver::EngineContract& contract_;
    receiver::ContractInstance instance_;
    wire::RefitManifest right_;
};

TEST_P(EveryRow, PassesTheRightPayloadInEveryDtypeOfTheRow) {
    EXPECT_FALSE(core::has_error(instance_.refusals));
    EXPECT_TRUE(after([](wire::RefitManifest&) {}).empty());
    for (const std::size_t i : one_of_each_row()) {
        for (const DType dtype : instance_.wanted[i].dtypes) {
            const core::Findings findings =
                after([&](wire::RefitManifest& manifest) { manifest.parameters[i].dtype = dtype; });
            EXPECT_FALSE(core::has_error(findings)) << instance_.wanted[i].name;
        }
    }
}

TEST_P(EveryRow, NamesATensorThatIsMissing) {
    for (const std::size_t i : one_of_each_row()) {
        const std::string& name = instance_.wanted[i].name;
        const core::Findings findings = after([&](wire::RefitManifest& manifest) {
            manifest.parameters.erase(manifest.parameters.begin() + static_cast<std::ptrdiff_t>(i));
        });
        expect_error(findings, name, "missing");
        EXPECT_EQ(findings[0].engine_behaviour, contract_.rows[instance_.rows[i]].on_missing);
    }
}

TEST_P(EveryRow, NamesATensorOfAnotherDtype) {
    for (const std::size_t i : one_of_each_row()) {
        const wire::WantedParameter& wanted = instance_.wanted[i];
        for (const DType dtype : {DType::f8_e5m2, DType::i32, DType::f64}) {
            const core::Findings findings =
                after([&](wire::RefitManifest& manifest) { manifest.parameters[i].dtype = dtype; });
            expect_error(findings, wanted.name, "dtype");
        }
    }
}

TEST_P(EveryRow, NamesATensorThatIsLongerOrShorterInAnyDimension) {
    for (const std::size_t i : one_of_each_row()) {
        const wire::WantedParameter& wanted = instance_.wanted[i];
        for (std::size_t d = 0; d < wanted.shape.size(); ++d) {
            for (const std::int64_t factor : {2, 3}) {
                const core::Findings findings = after([&](wire::RefitManifest& manifest) {
                    manifest.parameters[i].shape[d] *= factor;
                });
                expect_error(findings, wanted.name, "long");
            }
            if (wanted.shape[d] < 2) continue;
            const core::Findings findings =
                after([&](wire::RefitManifest& manifest) { manifest.parameters[i].shape[d] -= 1; });
            expect_error(findings, wanted.name, "short");
        }
    }
}

TEST_P(EveryRow, NamesATensorOfAnotherRank) {
    for (const std::size_t i : one_of_each_row()) {
        const wire::WantedParameter& wanted = instance_.wanted[i];
        if (core::element_count(wanted.shape) == 1) continue;
        const core::Findings more = after(
            [&](wire::RefitManifest& manifest) { manifest.parameters[i].shape.push_back(2); });
        expect_error(more, wanted.name, "more dimensions");
        const core::Findings none =
            after([&](wire::RefitManifest& manifest) { manifest.parameters[i].shape.clear(); });
        expect_error(none, wanted.name, "no dimensions");
    }
}

TEST_P(EveryRow, SaysWhatTheEngineDoesWithAnUnknownName) {
    const core::Findings findings = after([&](wire::RefitManifest& manifest) {
        wire::ParameterMeta extra = manifest.parameters[0];
        extra.name = "model.layers.0.mlp.router_z_loss.weight";
        manifest.parameters.push_back(extra);
    });
    ASSERT_EQ(findings.size(), 1U);
    const bool raises = findings[0].engine_behaviour == "raises";
    EXPECT_EQ(findings[0].severity, raises ? core::Severity::error : core::Severity::warning);
    EXPECT_EQ(raises, contract_.unknown_names == receiver::UnknownNames::vllm ||
                          contract_.unknown_names == receiver::UnknownNames::raises);
}

TEST_P(EveryRow, FindsATensorThatCameTwice) {
    for (const std::size_t i : one_of_each_row()) {
        const core::Findings findings = after([&](wire::RefitManifest& manifest) {
            const wire::ParameterMeta again = manifest.parameters[i];
            manifest.parameters.push_back(again);
        });
        expect_error(findings, instance_.wanted[i].name, "twice");
    }
}

INSTANTIATE_TEST_SUITE_P(Contracts, EveryRow, testing::ValuesIn(every_row()), [](const auto& row) {
    std::string name = row.param.engine + "_" + std::string(quant::scheme_name(row.param.scheme)) +
                       "_" + row.param.model;
    std::replace_if(
        name.begin(), name.end(), [](char c) { return c == '-' || c == '.'; }, '_');
    return name;
});

TEST(EveryRowOfTheCatalog, IsUsedByAModel) {
    for (const receiver::EngineContract& contract : receiver::engine_catalog()) {
        std::set<std::size_t> used;
        for (const Row& row : every_row()) {
            if (row.engine != contract.name) continue;
            const auto instance = instance_for(row);
            used.insert(instance.rows.begin(), instance.rows.end());
        }
        for (std::size_t i = 0; i < contract.rows.size(); ++i) {
            const receiver::ContractRow& row = contract.rows[i];
            // Rows of weights that a skip list leaves raw, of calibrated scales, of the KV cache
            // and of kernel layouts need another config or payload.
            if (row.after_load || row.suffix == "input_scale" || row.suffix == "cache_scale" ||
                (row.suffix == "weight" && row.scheme == "bf16")) {
                continue;
            }
            const bool other_format = contract.name == "strict" && row.suffix == "weight_scale" &&
                                      row.scheme == "fp8_blockwise";
            // Experts of TensorRT-LLM stay in BF16, those of ModelOpt want calibrated scales.
            const bool calibrated = contract.name == "vllm-modelopt" &&
                                    (row.scheme == "fp8_tensorwise" ||
                                     (row.tp_rule == "experts" && row.scheme == "any"));
            if (other_format || calibrated) continue;
            EXPECT_TRUE(used.count(i))
                << contract.name << ": " << row.suffix << ", " << row.scheme << ", " << row.tp_rule;
        }
    }
}

}  // namespace
}  // namespace refit::receiver_test
