// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
#include "harness/command_line.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <initializer_list>
#include <limits>
#include <optional>
#include <string_view>
#include <utility>

#include "core/error.hpp"
#include "core/nearest_name.hpp"
#include "harness/command_options.hpp"
#include "harness/scenario_tree.hpp"
#include "receiver/engine_contract.hpp"
#include "record/build_info.hpp"

namespace refit::harness {
namespace {

using Names = std::vector<std::string>;

const Names kKinds = {"scenarios",  "models",   "recipes", "schemes", "engines",
                      "transports", "backends", "checks",  "faults",  "framings"};
const Names kBackends = {"auto", "portable", "avx2", "avx512", "cuda"};
const Names kOutputDtypes = {"bf16", "f32"};
const Names kUnloadable = {"refuse", "bf16"};
const Names kPolicies = {"recipe", "propagate", "sanitize", "reject"};

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
    for (const PlannedCommand& planned : kPlannedCommands) names.emplace_back(planned.name);
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

/// Throws Misuse for the first of `options` that is empty (true).
void require_given(const std::string& command,
                   std::initializer_list<std::pair<const char*, bool>> options) {
    for (const auto& [option, empty] : options) {
        if (!empty) continue;
        std::string all;
        for (std::size_t i = 0; i < options.size(); ++i) {
            all += (i == 0 ? "" : i + 1 == options.size() ? " and " : ", ");
            all += options.begin()[i].first;
        }
        throw Misuse{std::string(option) + " is missing; " + command + " needs " + all};
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
    require_given("quantize", {{"--recipe", quantize.recipe.empty()},
                               {"--input", quantize.input.empty()},
                               {"--output", quantize.output.empty()}});
    require_one_of("--backend", quantize.backend, kBackends);
    require_one_of("--nonfinite", quantize.nonfinite, kPolicies);
    if (!texts.threads.empty()) quantize.threads = strict_count("--threads", texts.threads, 1);
}

void read_dequantize(const DequantizeOptions& dequantize) {
    require_given("dequantize",
                  {{"--input", dequantize.input.empty()}, {"--output", dequantize.output.empty()}});
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
    require_given("export", {{"--model", exporting.model.empty()},
                             {"--recipe", exporting.recipe.empty()},
                             {"--engine", exporting.engine.empty()},
                             {"--output", exporting.output.empty()}});
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
    for (const PlannedCommand& planned : kPlannedCommands) {
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
    add_commands(app, line, texts);
    bool version = false;
    app.add_flag("--version", version, "Print version and commit");
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
