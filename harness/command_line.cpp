// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "harness/scenario_tree.hpp"
#include "receiver/engine_contract.hpp"
#include "record/build_info.hpp"

namespace refit::harness {
namespace {

using Names = std::vector<std::string>;

struct Planned {
    const char* name;
    const char* what;
};
// Commands of the interface that this version does not have.
constexpr Planned kPlanned[] = {
    {"plan", "predicted stage times at scale"},
};

const Names kKinds = {"scenarios",  "models",   "recipes", "schemes", "engines",
                      "transports", "backends", "checks",  "faults",  "framings"};
const Names kBackends = {"auto", "portable", "avx2", "avx512", "cuda"};
const Names kOutputDtypes = {"bf16", "f32"};
const Names kUnloadable = {"refuse", "bf16"};
const Names kPolicies = {"recipe", "propagate", "sanitize", "reject"};

constexpr const char* kExitCodes =
    "Exit codes: 0 as expected; 1 a verdict or check failed; 2 wrong use; 3 the environment "
    "failed;\n"
    "77 nothing viable to run.";

constexpr const char* kMainExample =
    "Examples:\n"
    "  mpirun --oversubscribe --allow-run-as-root -np 4 refitbench run "
    "scenarios/smoke/quickstart.yaml\n"
    "  refitbench run scenarios/smoke/loopback.yaml\n"
    "  refitbench list recipes\n";

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

CommandLine finish(CommandLine line, core::ExitCode code, std::string text, bool is_error) {
    if (text.empty() || text.back() != '\n') text += '\n';
    line.finished = true;
    line.exit_code = static_cast<int>(code);
    line.text = std::move(text);
    line.text_is_error = is_error;
    return line;
}

/// What one call found wrong; shown with the command it belongs to.
struct Misuse {
    std::string message;
};

CommandLine refuse_line(CommandLine line, const std::string& message) {
    const std::string of = line.subcommand.empty() ? "" : " " + line.subcommand;
    return finish(
        std::move(line), core::ExitCode::usage,
        "refitbench" + of + ": " + message + "\n'refitbench" + of + " --help' shows the options",
        true);
}

Names option_names(const CLI::App& app) {
    Names names;
    for (const CLI::Option* option : app.get_options()) {
        for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
        for (const std::string& name : option->get_snames()) names.push_back("-" + name);
    }
    return names;
}

Names subcommand_names(const CLI::App& app) {
    Names names;
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
        names.push_back(sub->get_name());
    }
    for (const Planned& planned : kPlanned) names.emplace_back(planned.name);
    return names;
}

std::string nearest_three(const std::string& unknown, const Names& known) {
    Names nearest = core::nearest_names(unknown, known);
    if (nearest.size() > 3) nearest.resize(3);
    std::string text;
    for (const std::string& name : nearest) text += (text.empty() ? "" : ", ") + name;
    return text;
}

/// Throws Misuse for the first argument that no option and no position took.
void require_nothing_left(const CLI::App& app, bool is_main) {
    const Names left = app.remaining();
    if (left.empty()) return;
    const std::string first = left.front().substr(0, left.front().find('='));
    if (first.size() > 1 && first.front() == '-') {
        throw Misuse{"unknown option '" + first +
                     "'; nearest: " + nearest_three(first, option_names(app))};
    }
    if (is_main) throw Misuse{core::unknown_name_message("command", first, subcommand_names(app))};
    throw Misuse{"the argument '" + left.front() + "' is one too many"};
}

/// An empty name, as a script's unset variable gives, would mean no report at all.
void require_no_empty_report(const CLI::App& app) {
    for (const char* name : {"--json", "--junit"}) {
        const CLI::Option* option = app.get_option_no_throw(name);
        if (option == nullptr || option->count() == 0 || !option->results().back().empty()) {
            continue;
        }
        throw Misuse{std::string(name) + ": found an empty name; expected a file, or -"};
    }
}

void require_one_of(const std::string& option, const std::string& found, const Names& allowed) {
    if (std::find(allowed.begin(), allowed.end(), found) != allowed.end()) return;
    throw Misuse{option + ": " + core::unknown_name_message("value", found, allowed)};
}

int strict_count(const std::string& option, const std::string& text, int least) {
    const auto value = parse_integer(text);
    if (!value || *value < least || *value > std::numeric_limits<int>::max()) {
        throw Misuse{option + ": found '" + text + "'; expected a decimal integer of at least " +
                     std::to_string(least)};
    }
    return static_cast<int>(*value);
}

/// The options of every command as CLI11 fills them: numbers as text, read strictly afterwards.
struct Texts {
    std::vector<std::string> files, sets, filters;
    std::string iterations, warmup, timeout, threads, tp, shard_size;
};

/// CLI11 options that are given several times take one value each time, so that what follows is not
/// swallowed.
CLI::Option* add_repeatable(CLI::App& app, const std::string& name, std::vector<std::string>& into,
                            const std::string& help) {
    return app.add_option(name, into, help)->allow_extra_args(false);
}

void add_run(CLI::App& app, RunOptions& run, Texts& texts) {
    CLI::App* sub = app.add_subcommand("run", "Run scenarios: refit, check, time, record");
    sub->add_option("FILE", texts.files, "scenario files, or folders of them");
    add_repeatable(*sub, "--set", texts.sets,
                   "key=value: replaces a key of the scenario, such as receiver.tp=1")
        ->type_name("KEY=VALUE");
    sub->add_option("--output", run.output, "folder of the record, made if missing (default: here)")
        ->type_name("DIR");
    sub->add_option("--json", run.json,
                    "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
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
    sub->add_option("--json", list.json,
                    "as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
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
    sub->add_option("--json", quantize.json,
                    "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
    sub->footer(std::string(kQuantizeExample) + "\n" + kExitCodes);
}

void add_dequantize(CLI::App& app, DequantizeOptions& dequantize) {
    CLI::App* sub = app.add_subcommand("dequantize", "An FP8 safetensors file to BF16 or F32");
    sub->add_option("--input", dequantize.input, "FP8 safetensors file")->type_name("FILE");
    sub->add_option("--output", dequantize.output, "file to write")->type_name("FILE");
    sub->add_option("--dtype", dequantize.dtype, "bf16 (default) or f32")->type_name("DTYPE");
    sub->add_option("--json", dequantize.json,
                    "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
    sub->footer(std::string(kDequantizeExample) + "\n" + kExitCodes);
}

void add_identify(CLI::App& app, IdentifyOptions& identify) {
    CLI::App* sub = app.add_subcommand("identify", "Which recipe made these codes and scales");
    sub->add_option("FILE", identify.file, "FP8 safetensors file");
    sub->add_option("--reference", identify.reference, "BF16 safetensors file it was made from")
        ->type_name("FILE");
    sub->add_option("--json", identify.json,
                    "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
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
    sub->add_option("--json", exporting.json,
                    "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
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
    sub->add_option("--json", verify.json,
                    "result as JSON to this file, - for standard output (default: none)")
        ->type_name("FILE");
    sub->footer(std::string(kVerifyExample) + "\n" + kExitCodes);
}

/// Neither report may replace the other or a scenario.
void require_reports_apart(const RunOptions& run) {
    const auto is_same = [](const std::filesystem::path& a, const std::filesystem::path& b) {
        std::error_code ignored;
        return a.lexically_normal() == b.lexically_normal() ||
               std::filesystem::equivalent(a, b, ignored);
    };
    if (!run.json.empty() && !run.junit.empty() && is_same(run.json, run.junit)) {
        throw Misuse{"--json and --junit both name '" + run.json + "'; name two files"};
    }
    for (const auto& [option, target] :
         {std::pair<const char*, std::string>{"--json", run.json}, {"--junit", run.junit}}) {
        for (const std::filesystem::path& file : run.files) {
            std::error_code ignored;
            if (target.empty() || !std::filesystem::is_regular_file(file, ignored)) continue;
            if (is_same(target, file)) {
                throw Misuse{std::string(option) + " is the scenario " + file.string() +
                             "; name another file"};
            }
        }
    }
}

void read_run(const Texts& texts, RunOptions& run) {
    if (texts.files.empty())
        throw Misuse{"no scenario given; name a file or a folder, such as scenarios/smoke"};
    run.files.assign(texts.files.begin(), texts.files.end());
    for (const std::string& set : texts.sets) {
        const std::size_t equals = set.find('=');
        if (equals == std::string::npos || equals == 0) {
            throw Misuse{"--set: found '" + set + "'; expected KEY=VALUE, such as receiver.tp=1"};
        }
        run.overrides.emplace_back(set.substr(0, equals), set.substr(equals + 1));
    }
    run.filter.globs = texts.filters;
    if (!texts.iterations.empty()) run.filter.iterations = strict_count("-n", texts.iterations, 1);
    if (!texts.warmup.empty()) run.filter.warmup = strict_count("-w", texts.warmup, 0);
    if (!texts.timeout.empty()) {
        const auto seconds = parse_decimal(texts.timeout);
        if (!seconds || !(*seconds > 0.0)) {
            throw Misuse{"--timeout: found '" + texts.timeout + "'; expected seconds, more than 0"};
        }
        run.filter.timeout_s = seconds;
    }
    if (run.output.empty()) throw Misuse{"--output: found an empty name; expected a folder"};
    require_reports_apart(run);
}

void read_list(const ListOptions& list) {
    if (!list.kind.empty() && std::find(kKinds.begin(), kKinds.end(), list.kind) == kKinds.end()) {
        throw Misuse{core::unknown_name_message("kind", list.kind, kKinds)};
    }
    if (list.tp && list.kind != "models")
        throw Misuse{"--tp belongs to 'refitbench list models --tp'"};
}

void read_quantize(const Texts& texts, QuantizeOptions& quantize) {
    for (const auto& [option, empty] :
         {std::pair<const char*, bool>{"--recipe", quantize.recipe.empty()},
          {"--input", quantize.input.empty()},
          {"--output", quantize.output.empty()}}) {
        if (empty)
            throw Misuse{std::string(option) +
                         " is missing; quantize needs --recipe, --input and --output"};
    }
    require_one_of("--backend", quantize.backend, kBackends);
    require_one_of("--nonfinite", quantize.nonfinite, kPolicies);
    if (!texts.threads.empty()) quantize.threads = strict_count("--threads", texts.threads, 1);
}

void read_dequantize(const DequantizeOptions& dequantize) {
    for (const auto& [option, empty] :
         {std::pair<const char*, bool>{"--input", dequantize.input.empty()},
          {"--output", dequantize.output.empty()}}) {
        if (empty)
            throw Misuse{std::string(option) +
                         " is missing; dequantize needs --input and --output"};
    }
    require_one_of("--dtype", dequantize.dtype, kOutputDtypes);
}

void read_identify(const IdentifyOptions& identify) {
    if (identify.file.empty()) throw Misuse{"FILE is missing; name the quantized file"};
    if (identify.reference.empty())
        throw Misuse{"--reference is missing; name the BF16 file that FILE was made from"};
}

/// Bytes with a binary suffix, as in scenarios, or a decimal one, as Hugging Face writes them.
std::uint64_t strict_size(const std::string& option, const std::string& text) {
    constexpr std::pair<std::string_view, std::uint64_t> kDecimal[] = {
        {"KB", 1'000}, {"MB", 1'000'000}, {"GB", 1'000'000'000}};
    std::optional<std::uint64_t> size = parse_size(text);
    for (const auto& [suffix, factor] : kDecimal) {
        if (!text.ends_with(suffix)) continue;
        const auto count = parse_integer(text.substr(0, text.size() - suffix.size()));
        constexpr std::int64_t kMost = 1'000'000'000;
        if (count && *count > 0 && *count <= kMost) {
            size = static_cast<std::uint64_t>(*count) * factor;
        }
    }
    if (!size || *size == 0) {
        throw Misuse{option + ": found '" + text +
                     "'; expected bytes, more than 0, such as 500MB, 4GiB or 5GB"};
    }
    return *size;
}

void read_export(const Texts& texts, ExportOptions& exporting) {
    for (const auto& [option, empty] :
         {std::pair<const char*, bool>{"--model", exporting.model.empty()},
          {"--recipe", exporting.recipe.empty()},
          {"--engine", exporting.engine.empty()},
          {"--output", exporting.output.empty()}}) {
        if (empty)
            throw Misuse{std::string(option) +
                         " is missing; export needs --model, --recipe, --engine and --output"};
    }
    require_one_of("--unloadable", exporting.unloadable, kUnloadable);
    if (!texts.tp.empty()) exporting.tp = strict_count("--tp", texts.tp, 1);
    if (!texts.shard_size.empty()) {
        exporting.max_shard_bytes = strict_size("--max-shard-size", texts.shard_size);
    }
}

void read_verify(const Texts& texts, VerifyOptions& verify) {
    if (verify.directory.empty()) throw Misuse{"DIR is missing; name the checkpoint's directory"};
    if (!texts.tp.empty()) verify.tp = strict_count("--tp", texts.tp, 1);
    if (!verify.engine.empty()) {
        require_one_of("--engine", verify.engine, receiver::engine_names());
    }
}

std::string version_text() {
    return "refitbench " + record::tool_version() + " (" + record::tool_commit() +
           (record::tool_dirty() ? ", with changes)" : ")");
}

/// The answer for a command that is planned; none for any other.
std::optional<CommandLine> planned_command(CommandLine line, int argc, char** argv) {
    if (argc < 2) return std::nullopt;
    for (const Planned& planned : kPlanned) {
        if (std::string_view(argv[1]) != planned.name) continue;
        line.subcommand = planned.name;
        const std::string text =
            "refitbench " + line.subcommand + ": " + planned.what + "; not available yet";
        const bool help = std::any_of(argv + 2, argv + argc, [](std::string_view argument) {
            return argument == "--help" || argument == "-h";
        });
        if (!help) return finish(std::move(line), core::ExitCode::usage, text, true);
        return finish(std::move(line), core::ExitCode::as_expected, text + "\n\n" + kMainExample,
                      false);
    }
    return std::nullopt;
}

CommandLine parse(int argc, char** argv, CommandLine line) {
    Texts texts;
    CLI::App app{"MPI-launched test and benchmark harness for FP8 weight refit", "refitbench"};
    add_run(app, line.run, texts);
    add_list(app, line.list);
    add_quantize(app, line.quantize, texts);
    add_dequantize(app, line.dequantize);
    add_identify(app, line.identify);
    add_export(app, line.exporting, texts);
    add_verify(app, line.verify, texts);
    bool version = false;
    app.add_flag("--version", version, "Print version and commit");
    std::string planned = "Not available yet:";
    for (const Planned& row : kPlanned) planned += std::string(" ") + row.name;
    app.footer(planned + "\n\n" + kMainExample + "\n" + kExitCodes);
    app.allow_extras();
    for (CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
        sub->allow_extras();
        sub->add_flag("--version", version, "Print version and commit");
    }
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
        return finish(std::move(line), core::ExitCode::as_expected, app.help(), false);
    } catch (const CLI::ParseError& error) {
        const std::vector<CLI::App*> chosen = app.get_subcommands();
        if (!chosen.empty()) line.subcommand = chosen.front()->get_name();
        return refuse_line(std::move(line), error.what());
    }
    if (version) return finish(std::move(line), core::ExitCode::as_expected, version_text(), false);
    try {
        const std::vector<CLI::App*> chosen = app.get_subcommands();
        if (chosen.size() == 1) line.subcommand = chosen.front()->get_name();
        require_nothing_left(app, true);
        if (chosen.empty()) {
            return finish(std::move(line), core::ExitCode::usage,
                          "refitbench: no command given; nearest: run, list, quantize, dequantize, "
                          "identify, verify, export\n\n" +
                              app.help(),
                          true);
        }
        if (chosen.size() > 1) throw Misuse{"one command at a time"};
        require_nothing_left(*chosen.front(), false);
        require_no_empty_report(*chosen.front());
        if (line.subcommand == "run") read_run(texts, line.run);
        if (line.subcommand == "list") read_list(line.list);
        if (line.subcommand == "quantize") read_quantize(texts, line.quantize);
        if (line.subcommand == "dequantize") read_dequantize(line.dequantize);
        if (line.subcommand == "identify") read_identify(line.identify);
        if (line.subcommand == "export") read_export(texts, line.exporting);
        if (line.subcommand == "verify") read_verify(texts, line.verify);
    } catch (const Misuse& misuse) {
        return refuse_line(std::move(line), misuse.message);
    }
    return line;
}

}  // namespace

CommandLine parse_command_line(int argc, char** argv) {
    CommandLine line;
    line.argv.assign(argv, argv + argc);
    if (auto planned = planned_command(line, argc, argv)) return *planned;
    try {
        return parse(argc, argv, line);
    } catch (const std::exception& error) {
        return refuse_line(line, error.what());
    }
}

}  // namespace refit::harness
