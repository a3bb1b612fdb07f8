// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// Expected values are those that the interface states for the keys; none comes from the parser.
#include "harness/scenario.hpp"

#include <filesystem>
#include <limits>

#include "core/error.hpp"
#include "unit/harness/scenario_texts.hpp"

namespace refit::harness {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

TEST(Scenario, NeedsPurposeModelAndEngineAlone) {
    const Case one = only_case(kLeast);
    EXPECT_EQ(one.scenario, "question");
    EXPECT_EQ(one.name, "");
    EXPECT_EQ(one.purpose, "does it load?");
    EXPECT_EQ(one.model_name, "tiny-llama");
    EXPECT_FALSE(one.model_config);
    EXPECT_FALSE(one.layers);
    EXPECT_EQ(one.weights_source, "synthetic");
    EXPECT_EQ(one.seed, 0U);
    EXPECT_EQ(one.step, 0);
    EXPECT_EQ(one.resident, Resident::automatic);
    EXPECT_EQ(one.trainer_ranks, 1);
    EXPECT_EQ(one.layout, "fsdp");
    EXPECT_EQ(one.engines, 1);
    EXPECT_EQ(one.tp, 1);
    EXPECT_EQ(one.ep, 1);
    EXPECT_EQ(one.commit, "staged");
    EXPECT_EQ(one.scale_shape, "contract");
    EXPECT_EQ(one.transport, "mpi");
    EXPECT_FALSE(one.transport_given);
    EXPECT_EQ(one.bucket_bytes, 67108864U);  // 64 * 2^20
    EXPECT_EQ(one.depth, 2);
    EXPECT_EQ(one.framing, "native");
    EXPECT_EQ(one.link_bytes_per_s, 0U);
    EXPECT_EQ(one.backend, "auto");
    EXPECT_EQ(one.wire, "checkpoint");
    EXPECT_EQ(one.nonfinite, "reject");
    EXPECT_EQ(one.refits, 1);
    EXPECT_EQ(one.iterations, 5);
    EXPECT_EQ(one.warmup, 1);
    EXPECT_EQ(one.timeout_s, 60.0);
    EXPECT_TRUE(one.pipeline);
    EXPECT_EQ(one.expect.outcome, "pass");
    EXPECT_EQ(one.world_size(), 2);
    EXPECT_THAT(one.checks,
                testing::UnorderedElementsAre("shape_contract", "names", "dtype", "completeness",
                                              "nonfinite", "digest", "round_trip", "sqnr",
                                              "byte_identity", "source_unchanged", "version"));
}

TEST(Scenario, NamesTheRequiredKeyThatIsMissing) {
    EXPECT_THAT(error_of("model: tiny-llama\nreceiver: {engine: vllm-fp8}\n"),
                HasSubstr("'purpose' is missing"));
    EXPECT_THAT(error_of("purpose: a?\nreceiver: {engine: vllm-fp8}\n"),
                HasSubstr("'model' is missing"));
    EXPECT_THAT(error_of("purpose: a?\nmodel: tiny-llama\n"),
                HasSubstr("'receiver.engine' is missing"));
    EXPECT_THAT(error_of("purpose: a?\nmodel: tiny-llama\nreceiver: {tp: 2}\n"),
                HasSubstr("'receiver.engine' is missing"));
    EXPECT_THAT(error_of(""), HasSubstr("holds no map of keys"));
    EXPECT_THAT(error_of("- a\n"), HasSubstr("holds no map of keys"));
}

TEST(Scenario, UnknownKeysNameLineAndNearestKey) {
    EXPECT_THAT(error_of(with("iteratons: 3\n")),
                AllOf(HasSubstr("folder/question.yaml:4:"), HasSubstr("'iteratons'"),
                      HasSubstr("iterations")));
    EXPECT_THAT(error_of(with("transport:\n  name: mpi\n  dept: 3\n")),
                AllOf(HasSubstr("question.yaml:6:"), HasSubstr("depth")));
    EXPECT_THAT(error_of(with("sweep: {receiver.tpp: [1, 2]}\n")),
                AllOf(HasSubstr(":4:"), HasSubstr("tpp")));
    EXPECT_THAT(error_of(with("faults: [{name: flip_byte, tensor: a}]\n")),
                HasSubstr("unknown key 'tensor'"));
}

TEST(Scenario, RepeatedKeysNameBothLines) {
    EXPECT_THAT(error_of(with("refits: 1\nwarmup: 0\nrefits: 2\n")),
                AllOf(HasSubstr("question.yaml:6:"), HasSubstr("'refits' is repeated"),
                      HasSubstr("question.yaml:4")));
    EXPECT_THAT(error_of(with("transport: {depth: 1, depth: 2}\n")),
                HasSubstr("'depth' is repeated"));
    EXPECT_THAT(error_of(with("sweep: {receiver.tp: [1, 2], receiver: {tp: [1, 4]}}\n")),
                HasSubstr("set the same key"));
}

TEST(Scenario, BrokenYamlNamesTheLineCountedFromOne) {
    EXPECT_THAT(error_of(with("checks: [digest\nrefits: 2\n")),
                HasSubstr("question.yaml:5: not valid YAML"));
    EXPECT_THAT(error_of(kLeast + "---\n" + kLeast), HasSubstr("2 YAML documents"));
    EXPECT_THAT(error_of(with("remark: &a [*a]\n")),
                AllOf(HasSubstr("question.yaml"), testing::Not(HasSubstr("NO"))));
}

class RefusedNumber : public testing::TestWithParam<const char*> {};
TEST_P(RefusedNumber, IsAnErrorThatShowsWhatWasFound) {
    EXPECT_THAT(error_of(with(std::string(GetParam()) + "\n")),
                AllOf(HasSubstr("question.yaml:4:"), HasSubstr("found")));
}
INSTANTIATE_TEST_SUITE_P(
    Scenario, RefusedNumber,
    testing::Values("iterations: 010", "iterations: 0x10", "iterations: 1e3", "iterations: +5",
                    "iterations: 5.0", "iterations: 0", "iterations: -1", "warmup: -1",
                    "iterations: many", "iterations: [1]", "iterations: 99999999999999999999",
                    "transport: {bucket_bytes: 64MB}", "transport: {bucket_bytes: 0}",
                    "transport: {bucket_bytes: 1.5GiB}", "transport: {bucket_bytes: 010KiB}",
                    "transport: {bucket_bytes: 18446744073709551615KiB}", "transport: {depth: 0}",
                    "timeout_s: 0", "timeout_s: -3", "timeout_s: .inf", "timeout_s: nan",
                    "timeout_s: 010", "weights: {seed: -1}", "weights: {step: -1}", "pipeline: 1",
                    "transport: {link_bytes_per_s: 0}", "weights: {outliers: {share: 1.5}}",
                    "trainer: {ranks: 0}", "trainer: {ranks: 2, shares: [1]}",
                    "trainer: {shares: [0]}"));

TEST(Scenario, SizesTakeBinarySuffixes) {
    EXPECT_EQ(only_case(with("transport: {bucket_bytes: 3KiB}\n")).bucket_bytes, 3072U);
    EXPECT_EQ(only_case(with("transport: {bucket_bytes: 16MiB}\n")).bucket_bytes, 16777216U);
    EXPECT_EQ(only_case(with("transport: {bucket_bytes: 2GiB}\n")).bucket_bytes, 2147483648U);
    EXPECT_EQ(only_case(with("transport: {bucket_bytes: 12345}\n")).bucket_bytes, 12345U);
    EXPECT_EQ(only_case(with("transport: {link_bytes_per_s: 500000000}\n")).link_bytes_per_s,
              500000000U);
    EXPECT_EQ(only_case(with("weights: {seed: 18446744073709551615}\n")).seed,
              18446744073709551615U);
    EXPECT_EQ(only_case(with("timeout_s: 0.25\n")).timeout_s, 0.25);
    EXPECT_EQ(only_case(with("timeout_s: 1e2\n")).timeout_s, 100.0);
}

TEST(Scenario, OnOffAndNoneMeanTrueFalseAndNull) {
    for (const char* off : {"off", "false"}) {
        EXPECT_FALSE(only_case(with("pipeline: " + std::string(off) + "\n")).pipeline) << off;
    }
    for (const char* on : {"on", "true", "none", "null"}) {
        EXPECT_TRUE(only_case(with("pipeline: " + std::string(on) + "\n")).pipeline) << on;
    }
    for (const char* none : {"none", "null", "~", ""}) {
        EXPECT_EQ(only_case(with("transport: {link_bytes_per_s: " + std::string(none) + "}\n"))
                      .link_bytes_per_s,
                  0U);
    }
    EXPECT_EQ(only_case(with("weights: {resident: on}\n")).resident, Resident::yes);
    EXPECT_EQ(only_case(with("weights: {resident: auto}\n")).resident, Resident::automatic);
    EXPECT_EQ(only_case(with("weights: {resident: off}\n")).resident, Resident::no);
    EXPECT_EQ(only_case(with("weights: {resident: false}\n")).resident, Resident::no);
    for (const char* layout : {"fsdp", "tp", "ep"})
        EXPECT_EQ(only_case(with("trainer: {layout: " + std::string(layout) + "}\n")).layout,
                  layout);
}

TEST(Scenario, ModelIsANameOrAMapWithNameOrConfig) {
    const Case one = only_case(
        "purpose: a?\nmodel: {name: tiny-qwen3, layers: 1}\nreceiver: {engine: vllm-fp8}\n");
    EXPECT_EQ(one.model_name, "tiny-qwen3");
    EXPECT_EQ(one.layers, 1);
    const std::string rest = "\npurpose: a?\nreceiver: {engine: vllm-fp8}\n";
    EXPECT_THAT(error_of("model: {layers: 2}" + rest), HasSubstr("found neither name and config"));
    EXPECT_THAT(error_of("model: {name: tiny-llama, config: a.json}" + rest),
                HasSubstr("found both"));
    EXPECT_THAT(error_of("model: {name: tiny-llama, layers: 99}" + rest),
                AllOf(HasSubstr("question.yaml:1"), HasSubstr("99")));
    EXPECT_THAT(error_of("model: tiny-lama" + rest),
                AllOf(HasSubstr("'tiny-lama'"), HasSubstr("tiny-llama")));
    EXPECT_EQ(only_case("model: deepseek-v3" + rest).model_name, "deepseek-v3");
}

TEST(Scenario, ConfigPathsAreRelativeToTheFileAndThoseOfSetToTheWorkingDirectory) {
    const TemporaryFolder folder;
    const std::string llama =
        R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 512,
            "intermediate_size": 1024, "num_hidden_layers": 2, "num_attention_heads": 8,
            "num_key_value_heads": 8, "vocab_size": 1024, "tie_word_embeddings": false})";
    folder.write("models/config.json", llama);
    const auto other =
        folder.write("models/other.json", R"({"architectures": ["MambaForCausalLM"]})");
    const std::string text =
        "purpose: a?\nmodel: {config: models/config.json}\nreceiver: {engine: vllm-fp8}\n"
        "weights: {source: safetensors, path: here}\n";
    const auto file = folder.write("a.yaml", text);
    const Scenario scenario = parse_scenario(file, text, {}, {});
    EXPECT_EQ(scenario.cases.at(0).model_config, folder.path() / "models/config.json");
    EXPECT_EQ(scenario.cases.at(0).weights_path, folder.path() / "here");
    EXPECT_EQ(parse_scenario(file, text, {{"weights.path", "there"}}, {}).cases.at(0).weights_path,
              "there");
    EXPECT_THROW((void)parse_scenario(file, text, {{"model.config", "not-here.json"}}, {}),
                 core::FileError);
    try {
        (void)parse_scenario(file, text, {{"model.config", other.string()}}, {});
        ADD_FAILURE() << "an unknown architecture was taken";
    } catch (const core::ScenarioError& error) {
        EXPECT_THAT(error.what(),
                    AllOf(HasSubstr("MambaForCausalLM"), HasSubstr("not available yet")));
    }
}

TEST(Scenario, PlantsAreACellARowOrACount) {
    const Case one =
        only_case(with("weights:\n  plant:\n"
                       "    - {tensor: '*.up_proj.weight', kind: nan, where: {row: 3, col: 7}}\n"
                       "    - {tensor: a, kind: huge, where: {row: 2}}\n"
                       "    - {tensor: b, kind: subnormal, where: {count: 5}}\n"));
    ASSERT_EQ(one.plants.size(), 3U);
    EXPECT_EQ(one.plants[0].kind, weights::PlantKind::nan);
    EXPECT_EQ(one.plants[0].row, 3);
    EXPECT_EQ(one.plants[0].col, 7);
    EXPECT_EQ(one.plants[1].kind, weights::PlantKind::huge);
    EXPECT_EQ(one.plants[1].col, -1);
    EXPECT_EQ(one.plants[2].kind, weights::PlantKind::subnormal);
    EXPECT_EQ(one.plants[2].count, 5);
    EXPECT_THAT(error_of(with("weights: {plant: [{tensor: a, kind: nan, where: {col: 3}}]}\n")),
                HasSubstr("where"));
    EXPECT_THAT(
        error_of(with("weights: {plant: [{tensor: a, kind: nan, where: {row: 1, count: 3}}]}\n")),
        HasSubstr("where"));
    EXPECT_THAT(error_of(with("weights: {plant: [{tensor: a, kind: nam, where: {row: 1}}]}\n")),
                HasSubstr("nan"));
    EXPECT_THAT(error_of(with("weights: {plant: [{kind: nan, where: {row: 1}}]}\n")),
                HasSubstr("tensor"));
}

TEST(Scenario, KeysOfTheOtherWeightsSourceAreIgnored) {
    const std::string text = with("weights: {source: synthetic, seed: 7, path: unused}\n");
    EXPECT_EQ(only_case(text).seed, 7U);
    const Case read = only_case(with("weights: {seed: 7}\n"),
                                {{"weights.source", "safetensors"}, {"weights.path", "DIR"}});
    EXPECT_EQ(read.weights_source, "safetensors");
    EXPECT_EQ(read.weights_path, "DIR");
    EXPECT_THAT(error_of(kLeast, {{"weights.source", "safetensors"}}),
                HasSubstr("weights.path is missing"));
}

TEST(Scenario, SweepIsCartesianInTheOrderOfTheFile) {
    const Scenario scenario =
        parse(with("sweep: {transport.depth: [1, 2], transport.bucket_bytes: [1MiB, 2MiB]}\n"));
    EXPECT_THAT(case_names(scenario),
                ElementsAre("transport.depth=1, transport.bucket_bytes=1MiB",
                            "transport.depth=1, transport.bucket_bytes=2MiB",
                            "transport.depth=2, transport.bucket_bytes=1MiB",
                            "transport.depth=2, transport.bucket_bytes=2MiB"));
    EXPECT_EQ(scenario.cases[2].depth, 2);
    EXPECT_EQ(scenario.cases[2].bucket_bytes, 1048576U);
    EXPECT_THAT(error_of(with("sweep: {refits: 3}\n")), HasSubstr("a list of values"));
    EXPECT_THAT(error_of(with("sweep: {refits: []}\n")), HasSubstr("a list of values"));
    EXPECT_THAT(error_of(with("sweep: {refits: [1, 1]}\n")), HasSubstr("each value once"));
}

TEST(Scenario, CasesComeOneByOneAndTimesTheSweep) {
    const std::string cases =
        "cases: [{payload.scheme: bf16, receiver: {engine: vllm-bf16}}, {receiver.tp: 2}]\n";
    const Scenario plain = parse(with(cases));
    EXPECT_THAT(case_names(plain),
                ElementsAre("payload.scheme=bf16, receiver.engine=vllm-bf16", "receiver.tp=2"));
    EXPECT_EQ(plain.cases[0].engine, "vllm-bf16");
    EXPECT_EQ(plain.cases[0].tp, 1);
    EXPECT_EQ(plain.cases[1].engine, "vllm-fp8");
    EXPECT_EQ(plain.cases[1].tp, 2);
    const Scenario times = parse(with(cases + "sweep: {refits: [1, 3]}\n"));
    EXPECT_THAT(case_names(times),
                ElementsAre("payload.scheme=bf16, receiver.engine=vllm-bf16, refits=1",
                            "payload.scheme=bf16, receiver.engine=vllm-bf16, refits=3",
                            "receiver.tp=2, refits=1", "receiver.tp=2, refits=3"));
    EXPECT_THAT(error_of(with("cases: [{refits: 2}, {refits: 2}]\n")), HasSubstr("is there twice"));
    EXPECT_THAT(error_of(with("cases: [{refits: 2}]\nsweep: {refits: [1, 2]}\n")),
                HasSubstr("is swept"));
    EXPECT_THAT(error_of(with("cases: [{purpose: b}]\n")),
                HasSubstr("'purpose' is the scenario's"));
    EXPECT_THAT(error_of(with("cases: {refits: 2}\n")), HasSubstr("a list of maps"));
}

TEST(Scenario, ACaseCanReplaceTheModel) {
    const Scenario scenario =
        parse(with("cases: [{model: {name: tiny-qwen3, layers: 1}}, {model: tiny-qwen3}, "
                   "{model.layers: 1}]\n"));
    ASSERT_EQ(scenario.cases.size(), 3U);
    EXPECT_EQ(scenario.cases[0].model_name, "tiny-qwen3");
    EXPECT_EQ(scenario.cases[0].layers, 1);
    EXPECT_EQ(scenario.cases[1].model_name, "tiny-qwen3");
    EXPECT_EQ(scenario.cases[2].model_name, "tiny-llama");
    EXPECT_EQ(scenario.cases[2].layers, 1);
}

TEST(Scenario, ExpectationsAndRemarksOfACaseAreNotInItsName) {
    const Scenario scenario = parse(with(
        "cases: [{receiver.tp: 2, expect: {outcome: error}, remark: slow}, {receiver.tp: 1}]\n"));
    EXPECT_THAT(case_names(scenario), ElementsAre("receiver.tp=2", "receiver.tp=1"));
    EXPECT_EQ(scenario.cases[0].expect.outcome, "error");
    EXPECT_EQ(scenario.cases[0].remark, "slow");
    EXPECT_EQ(scenario.cases[1].expect.outcome, "pass");
}

TEST(ScenarioSet, ReplacesAKeyAndKeepsTheNameOfAPlainModel) {
    const Case one =
        only_case(kLeast, {{"model.layers", "1"}, {"receiver.tp", "2"}, {"trainer.ranks", "2"}});
    EXPECT_EQ(one.model_name, "tiny-llama");
    EXPECT_EQ(one.layers, 1);
    EXPECT_EQ(one.world_size(), 4);
    EXPECT_EQ(one.engine, "vllm-fp8");
    EXPECT_EQ(only_case(kLeast, {{"transport", "{name: mpi_window, depth: 3}"}}).depth, 3);
    EXPECT_EQ(only_case(kLeast, {{"purpose", "b?"}}).purpose, "b?");
    EXPECT_EQ(only_case(kLeast, {{"model", "tiny-qwen3"}}).model_name, "tiny-qwen3");
}

TEST(ScenarioSet, WinsOverSweepAndCases) {
    const std::string swept = with("sweep: {transport.name: [mpi, mpi_window], refits: [1, 2]}\n");
    const Scenario one = parse(swept, {{"transport.name", "loopback"}});
    EXPECT_THAT(case_names(one), ElementsAre("refits=1", "refits=2"));
    EXPECT_EQ(one.cases[0].transport, "loopback");
    EXPECT_THAT(case_names(parse(swept, {{"transport", "{depth: 4}"}})),
                ElementsAre("refits=1", "refits=2"));
    const Scenario cased =
        parse(with("cases: [{refits: 1, warmup: 0}, {refits: 2, warmup: 0}]\n"), {{"refits", "7"}});
    EXPECT_THAT(case_names(cased), ElementsAre("warmup=0"));
    EXPECT_EQ(cased.cases[0].refits, 7);
    const Scenario model =
        parse(with("sweep: {model: [tiny-llama, tiny-qwen3]}\n"), {{"model.layers", "1"}});
    ASSERT_EQ(model.cases.size(), 2U);
    EXPECT_EQ(model.cases[1].model_name, "tiny-qwen3");
    EXPECT_EQ(model.cases[1].layers, 1);
}

TEST(ScenarioSet, EmptyMapEmptiesAKey) {
    const std::string swept = with("sweep: {refits: [1, 2]}\nfaults: [{name: flip_byte}]\n");
    EXPECT_THAT(case_names(parse(swept, {{"sweep", "{}"}})), ElementsAre(""));
    EXPECT_THAT(parse(swept, {{"faults", "{}"}}).cases.at(0).faults, IsEmpty());
    EXPECT_EQ(only_case(with("trainer: {ranks: 3}\n"), {{"trainer", "{}"}}).trainer_ranks, 1);
    EXPECT_EQ(only_case(with("trainer: {ranks: 3}\n"), {{"trainer.ranks", "{}"}}).trainer_ranks, 1);
    EXPECT_THAT(case_names(parse(with("cases: [{refits: 2}]\n"), {{"cases", "{}"}})),
                ElementsAre(""));
    EXPECT_THAT(case_names(parse(kLeast, {{"sweep.refits", "[2, 3]"}})),
                ElementsAre("refits=2", "refits=3"));
    EXPECT_THAT(case_names(parse(swept, {{"sweep.refits", "[4, 5]"}})),
                ElementsAre("refits=4", "refits=5"));
}

TEST(ScenarioSet, MistakesNameTheOption) {
    EXPECT_THAT(error_of(kLeast, {{"receiver.tpp", "2"}}),
                AllOf(HasSubstr("--set 'receiver.tpp=2'"), HasSubstr("tp")));
    EXPECT_THAT(error_of(kLeast, {{"receiver.tp", "two"}}), HasSubstr("--set 'receiver.tp=two'"));
    EXPECT_THAT(error_of(kLeast, {{"receiver.tp", "[2"}}), HasSubstr("not valid YAML"));
    EXPECT_THAT(error_of(kLeast, {{"receiver..tp", "2"}}), HasSubstr("no path of keys"));
    EXPECT_THAT(error_of(with("backend: auto\n"), {{"backend.name", "2"}}),
                HasSubstr("has no keys"));
    EXPECT_THAT(error_of(kLeast, {{"cases.refits", "2"}}), HasSubstr("cases is a list"));
}

TEST(ScenarioFilter, SelectsCasesAndOverridesIterations) {
    const std::string swept = with("sweep: {transport.depth: [1, 2]}\niterations: 9\n");
    EXPECT_THAT(case_names(parse(swept, {}, {{"question/*depth=2"}, {}, {}, {}})),
                ElementsAre("transport.depth=2"));
    EXPECT_THAT(parse(swept, {}, {{"other/*"}, {}, {}, {}}).cases, IsEmpty());
    EXPECT_EQ(parse(kLeast, {}, {{"question"}, {}, {}, {}}).cases.size(), 1U);
    const Case one = parse(swept, {{"iterations", "4"}}, {{}, 2, 0, 7.5}).cases.at(0);
    EXPECT_EQ(one.iterations, 2);
    EXPECT_EQ(one.warmup, 0);
    EXPECT_EQ(one.timeout_s, 7.5);
}

TEST(ScenarioChecks, AnEmptyListIsAnErrorAndUnknownChecksNameTheNearest) {
    EXPECT_THAT(error_of(with("checks: []\n")), HasSubstr("the list is empty"));
    EXPECT_THAT(error_of(kLeast, {{"checks", "{}"}}), HasSubstr("the list is empty"));
    EXPECT_THAT(error_of(with("checks: [round_tripp]\n")), HasSubstr("round_trip"));
    EXPECT_THAT(error_of(with("checks: [digest, digest]\n")), HasSubstr("each check once"));
    EXPECT_THAT(only_case(with("checks: [layer_output]\n")).checks, ElementsAre("layer_output"));
    EXPECT_THAT(only_case(with("checks: [version, digest]\n")).checks,
                ElementsAre("version", "digest"));
}

TEST(Scenario, ExpertsAreSpreadOverAllRanksOfAnEngineOrOverNone) {
    EXPECT_EQ(only_case("purpose: a?\nmodel: tiny-moe\n"
                        "receiver: {engine: vllm-fp8, tp: 4, ep: 4}\n")
                  .ep,
              4);
    EXPECT_THAT(error_of("purpose: a?\nmodel: tiny-moe\n"
                         "receiver: {engine: vllm-fp8, tp: 4, ep: 2}\n"),
                AllOf(HasSubstr("question.yaml:3"), HasSubstr("use 1 or the TP size")));
}

TEST(Scenario, TransportsThatOnlyTheTransportCanRefuseAreTaken) {
    for (const char* name : {"mpi", "mpi_window", "loopback", "nccl", "cuda_ipc"}) {
        const Case one = only_case(with("transport: {name: " + std::string(name) + "}\n"));
        EXPECT_EQ(one.transport, name);
        EXPECT_TRUE(one.transport_given);
    }
    EXPECT_THAT(error_of(with("transport: {name: mpi_windw}\n")), HasSubstr("mpi_window"));
    for (const char* name : {"auto", "portable", "avx2", "avx512", "cuda"}) {
        EXPECT_EQ(only_case(with("backend: " + std::string(name) + "\n")).backend, name);
    }
    EXPECT_THAT(error_of(with("backend: avx1024\n")), HasSubstr("avx512"));
    for (const char* name : {"reject", "recipe", "propagate", "sanitize"}) {
        EXPECT_EQ(only_case(with("nonfinite: " + std::string(name) + "\n")).nonfinite, name);
    }
}

}  // namespace
}  // namespace refit::harness
