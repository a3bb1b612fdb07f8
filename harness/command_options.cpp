// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/command_options.hpp"

#include <CLI/CLI.hpp>

namespace refit::harness {
namespace {

constexpr const char* kExitCodes =
    "Exit codes: 0 as expected; 1 a verdict or check failed; 2 wrong use; 3 the environment "
    "failed;\n"
    "77 nothing viable to run.";

constexpr const char* kRunExample =
    "Examples (outside root, --allow-run-as-root can be left out):\n"
    "  mpirun --oversubscribe --allow-run-as-root -np 4 refitbench run "
    "scenarios/smoke/quickstart.yaml\n"
    "  mpirun --oversubscribe --allow-run-as-root -np 4 refitbench run scenarios/faults --summary\n"
    "  refitbench run scenarios/smoke/loopback.yaml --set receiver.engine=vllm-bf16 -n 3 -w 0\n"
    "  refitbench run scenarios/smoke/quickstart.yaml --dry-run\n";

constexpr const char* kListExample =
    "Examples:\n"
    "  refitbench list\n"
    "  refitbench list recipes\n"
    "  refitbench list engines --json -\n";

constexpr const char* kQuantizeExample =
    "Example:\n"
    "  refitbench quantize --recipe prime-rl-blockwise --input bf16.safetensors --output "
    "fp8.safetensors\n";

constexpr const char* kDequantizeExample =
    "Every F8_E4M3 matrix becomes fl32(code * scale), for bf16 rounded once more to the nearest\n"
    "BF16, as the field's own converters do; everything else passes through.\n\n"
    "Example:\n"
    "  refitbench dequantize --input fp8.safetensors --output bf16.safetensors --dtype bf16\n";

constexpr const char* kVerifyExample =
    "Says whether an engine would load the checkpoint and end with the right weights. Without\n"
    "--engine every engine that reads its configuration is asked, and the best verdict counts.\n"
    "Some faults show only against the weights that it was made from: name them by --reference.\n\n"
    "Examples:\n"
    "  refitbench verify checkpoints/fp8\n"
    "  refitbench verify checkpoints/fp8 --engine vllm-fp8 --tp 2 --reference checkpoints/bf16\n";

constexpr const char* kIdentifyExample =
    "Exit code 0 if every F8_E4M3 matrix has a recipe that gives exactly its codes and scales,\n"
    "else 1.\n\n"
    "Example:\n"
    "  refitbench identify fp8.safetensors --reference bf16.safetensors\n";

constexpr const char* kExportExample =
    "Layers stay in BF16, and are listed in the config, where every trainer leaves them so (head,\n"
    "router) or --config-override lists them. Where the engine could not load a layer quantized,\n"
    "nothing is written, unless --unloadable bf16 leaves that layer in BF16 too.\n\n"
    "Example:\n"
    "  refitbench export --model Qwen3-0.6B --recipe prime-rl-blockwise --engine vllm-fp8 --output "
    "Qwen3-0.6B-FP8\n";

/// CLI11 options that are given several times take one value each time, so that what follows is not
/// swallowed.
CLI::Option* add_repeatable(CLI::App& app, const std::string& name, std::vector<std::string>& into,
                            const std::string& help) {
    return app.add_option(name, into, help)->allow_extra_args(false);
}

void add_json(CLI::App& sub, std::string& into) {
    sub.add_option("--json", into,
                   "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
}

void add_run(CLI::App& app, RunOptions& run, Texts& texts) {
    CLI::App* sub = app.add_subcommand("run", "Run scenarios: refit, check, time, record");
    sub->add_option("FILE", texts.files, "scenario files, or folders of them");
    add_repeatable(*sub, "--set", texts.sets,
                   "key=value: replaces a key of the scenario, such as receiver.tp=1")
        ->type_name("KEY=VALUE");
    sub->add_option("--output", run.output, "folder of the record, made if missing (default: here)")
        ->type_name("DIR");
    add_json(*sub, run.json);
    sub->add_option("--junit", run.junit,
                    "result as JUnit XML to this file, - for standard output (default: none)")
        ->type_name("FILE");
    sub->add_option("-n", texts.iterations, "measured iterations (default: the scenario's, else 5)")
        ->type_name("N");
    sub->add_option("-w", texts.warmup, "warm-up iterations (default: the scenario's, else 1)")
        ->type_name("N");
    sub->add_option(
           "--timeout", texts.timeout,
           "longest time without progress of any rank, in seconds (default: the scenario's, "
           "else 60)")
        ->type_name("S");
    add_repeatable(*sub, "--filter", texts.filters,
                   "only cases whose 'scenario/case' matches; repeatable (default: all)")
        ->type_name("GLOB");
    sub->add_flag("--summary", run.summary, "one line a case");
    sub->add_flag("--explain", run.explain,
                  "say with each finding what the engine would do and how to mend it");
    sub->add_flag("--dry-run", run.dry_run, "print cases, ranks and memory; run nothing");
    sub->footer(std::string(kRunExample) + "\n" + kExitCodes);
}

void add_list(CLI::App& app, ListOptions& list) {
    CLI::App* sub = app.add_subcommand("list", "What there is to name in a scenario");
    sub->add_option(
        "KIND", list.kind,
        "scenarios, models, recipes, schemes, engines, transports, backends, checks, faults or "
        "framings; all with their counts where left out");
    add_json(*sub, list.json);
    sub->add_flag("--tp", list.tp, "with models: the tensor-parallel sizes each engine can hold");
    sub->footer(std::string(kListExample) + "\n" + kExitCodes);
}

void add_quantize(CLI::App& app, QuantizeOptions& quantize, Texts& texts) {
    CLI::App* sub = app.add_subcommand("quantize", "A BF16 safetensors file to FP8 by one recipe");
    sub->add_option("--recipe", quantize.recipe, "a name out of 'refitbench list recipes'")
        ->type_name("R");
    sub->add_option("--input", quantize.input, "BF16 safetensors file")->type_name("FILE");
    sub->add_option("--output", quantize.output, "file to write")->type_name("FILE");
    sub->add_option("--backend", quantize.backend,
                    "auto (default: the fastest here), portable, avx2, avx512 or cuda")
        ->type_name("NAME");
    sub->add_option("--nonfinite", quantize.nonfinite,
                    "what to do with NaN and Inf: recipe (default: as its source does), propagate, "
                    "sanitize or reject")
        ->type_name("POLICY");
    sub->add_option("--threads", texts.threads, "threads (default 1)")->type_name("N");
    add_json(*sub, quantize.json);
    sub->footer(std::string(kQuantizeExample) + "\n" + kExitCodes);
}

void add_dequantize(CLI::App& app, DequantizeOptions& dequantize) {
    CLI::App* sub = app.add_subcommand("dequantize", "An FP8 safetensors file to BF16 or F32");
    sub->add_option("--input", dequantize.input, "FP8 safetensors file")->type_name("FILE");
    sub->add_option("--output", dequantize.output, "file to write")->type_name("FILE");
    sub->add_option("--dtype", dequantize.dtype, "bf16 (default) or f32")->type_name("DTYPE");
    add_json(*sub, dequantize.json);
    sub->footer(std::string(kDequantizeExample) + "\n" + kExitCodes);
}

void add_identify(CLI::App& app, IdentifyOptions& identify) {
    CLI::App* sub = app.add_subcommand("identify", "Which recipe made these codes and scales");
    sub->add_option("FILE", identify.file, "FP8 safetensors file");
    sub->add_option("--reference", identify.reference, "BF16 safetensors file it was made from")
        ->type_name("FILE");
    add_json(*sub, identify.json);
    sub->footer(std::string(kIdentifyExample) + "\n" + kExitCodes);
}

void add_export(CLI::App& app, ExportOptions& exporting, Texts& texts) {
    CLI::App* sub =
        app.add_subcommand("export", "A BF16 checkpoint to an FP8 one that an engine loads");
    sub->add_option("--model", exporting.model, "BF16 checkpoint directory")->type_name("DIR");
    sub->add_option("--recipe", exporting.recipe, "a name out of 'refitbench list recipes'")
        ->type_name("R");
    sub->add_option("--engine", exporting.engine, "a name out of 'refitbench list engines'")
        ->type_name("E");
    sub->add_option("--output", exporting.output, "directory to make")->type_name("DIR");
    sub->add_option("--config-override", exporting.config_override,
                    "JSON object merged into config.json; null removes a key, names in its skip "
                    "lists stay in BF16 too (default: none)")
        ->type_name("FILE");
    sub->add_option("--unloadable", exporting.unloadable,
                    "what to do where the engine cannot load a layer quantized: refuse (default), "
                    "or bf16 to leave such layers in BF16")
        ->type_name("WHAT");
    sub->add_option("--tp", texts.tp,
                    "tensor-parallel size at which the engine must be able to load it (default 1)")
        ->type_name("N");
    sub->add_option("--max-shard-size", texts.shard_size,
                    "bytes of a file, with a suffix such as MB, MiB, GB or GiB (default 5GB)")
        ->type_name("SIZE");
    add_json(*sub, exporting.json);
    sub->footer(std::string(kExportExample) + "\n" + kExitCodes);
}

void add_verify(CLI::App& app, VerifyOptions& verify, Texts& texts) {
    CLI::App* sub = app.add_subcommand("verify", "Would an engine load this checkpoint right?");
    sub->add_option("DIR", verify.directory, "checkpoint directory: config.json and safetensors");
    sub->add_option("--engine", verify.engine,
                    "a name out of 'refitbench list engines' (default: by the configuration)")
        ->type_name("E");
    sub->add_option("--tp", texts.tp, "tensor-parallel size (default 1)")->type_name("N");
    sub->add_option("--reference", verify.reference,
                    "BF16 checkpoint directory that DIR was made from (default: none)")
        ->type_name("DIR");
    add_json(*sub, verify.json);
    sub->footer(std::string(kVerifyExample) + "\n" + kExitCodes);
}

}  // namespace

const char* const kMainExample =
    "Examples:\n"
    "  mpirun --oversubscribe --allow-run-as-root -np 4 refitbench run "
    "scenarios/smoke/quickstart.yaml\n"
    "  refitbench run scenarios/smoke/loopback.yaml\n"
    "  refitbench list recipes\n";

void add_commands(CLI::App& app, CommandLine& line, Texts& texts) {
    add_run(app, line.run, texts);
    add_list(app, line.list);
    add_quantize(app, line.quantize, texts);
    add_dequantize(app, line.dequantize);
    add_identify(app, line.identify);
    add_export(app, line.exporting, texts);
    add_verify(app, line.verify, texts);
    std::string planned = "Not available yet:";
    for (const PlannedCommand& row : kPlannedCommands) planned += std::string(" ") + row.name;
    app.footer(planned + "\n\n" + kMainExample + "\n" + kExitCodes);
}

}  // namespace refit::harness
