// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The command line: which subcommand with which options.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "harness/scenario.hpp"

namespace refit::harness {

struct RunOptions {
    std::vector<std::filesystem::path> files;
    Overrides overrides;
    std::filesystem::path output = ".";  ///< --output DIR, made if missing
    std::string json;                    ///< file, "-" for standard output, "" for none
    std::string junit;
    CaseFilter filter;
    bool summary = false;
    bool explain = false;
    bool dry_run = false;
};

struct ListOptions {
    std::string kind;  ///< "" = every kind with its count
    bool tp = false;
    std::string json;
};

struct QuantizeOptions {
    std::string recipe;
    std::filesystem::path input, output;
    std::string backend = "auto";
    std::string nonfinite = "recipe";
    int threads = 1;
    std::string json;
};

struct DequantizeOptions {
    std::filesystem::path input, output;
    std::string dtype = "bf16";  ///< bf16 | f32
    std::string json;
};

struct IdentifyOptions {
    std::filesystem::path file;       ///< the quantized one
    std::filesystem::path reference;  ///< the BF16 one it was made from
    std::string json;
};

struct ExportOptions {
    std::filesystem::path model;   ///< BF16 checkpoint directory
    std::filesystem::path output;  ///< directory to make
    std::string recipe;
    std::string engine;
    std::filesystem::path config_override;  ///< "" for none
    std::string unloadable = "refuse";      ///< refuse | bf16
    int tp = 1;
    std::uint64_t max_shard_bytes = 5'000'000'000;  ///< Hugging Face's usual limit
    std::string json;
};

struct VerifyOptions {
    std::filesystem::path directory;
    std::string engine;  ///< "" = every engine that reads the checkpoint's configuration
    int tp = 1;
    std::filesystem::path reference;  ///< "" for none
    std::string json;
};

struct CommandLine {
    std::string
        subcommand;  ///< run | list | quantize | dequantize | identify | verify | export | plan
    RunOptions run;
    ListOptions list;
    QuantizeOptions quantize;
    DequantizeOptions dequantize;
    IdentifyOptions identify;
    ExportOptions exporting;  ///< of the command `export`, which is a word of C++
    VerifyOptions verify;
    std::vector<std::string> argv;
    /// Set when the program should print `text` and end with `exit_code` at once (help, version,
    /// usage error).
    bool finished = false;
    int exit_code = 0;
    std::string text;
    bool text_is_error = false;
};

/// Never throws and never exits: under MPI every rank parses the same arguments and rank 0 prints.
[[nodiscard]] CommandLine parse_command_line(int argc, char** argv);

/// `refitbench list`: text or JSON, exit code.
[[nodiscard]] int run_list(const ListOptions& options, const std::vector<std::string>& argv);

}  // namespace refit::harness
