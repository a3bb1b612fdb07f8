// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// The errors of refitbench by reason: inability to look is an exception, findings about weights are
// values.
#pragma once

#include <stdexcept>
#include <string>

namespace refit::core {

/// Exit codes of the program; users script against them.
enum class ExitCode : int {
    as_expected = 0,
    verdict = 1,      ///< a verdict, check or gate failed
    usage = 2,        ///< wrong use: unknown option, key, recipe; malformed scenario
    environment = 3,  ///< the environment failed: unreadable file, lost rank, no memory, disk full
    nothing = 77,     ///< nothing viable to run
};

/// Base of all errors. The message says what was attempted, on which file, tensor or rank, what was
/// found, what was expected, and what to do.
class Error : public std::runtime_error {
 public:
    Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
    [[nodiscard]] ExitCode code() const noexcept { return code_; }

 private:
    ExitCode code_;
};

/// Unknown option, name or value on the command line.
struct UsageError : Error {
    explicit UsageError(const std::string& message) : Error(ExitCode::usage, message) {}
};
/// A scenario that cannot be meant: unknown or repeated key, wrong type, contradiction.
struct ScenarioError : Error {
    explicit ScenarioError(const std::string& message) : Error(ExitCode::usage, message) {}
};
/// A caller broke a documented shape; a defect of refitbench, not of the weights.
struct ShapeError : Error {
    explicit ShapeError(const std::string& message) : Error(ExitCode::environment, message) {}
};
/// A file is missing, unreadable or malformed.
struct FileError : Error {
    explicit FileError(const std::string& message) : Error(ExitCode::environment, message) {}
};
/// Memory, shared memory or disk does not suffice.
struct ResourceError : Error {
    explicit ResourceError(const std::string& message) : Error(ExitCode::environment, message) {}
};
/// An MPI call failed.
struct MpiError : Error {
    explicit MpiError(const std::string& message) : Error(ExitCode::environment, message) {}
};
/// The record could not be written.
struct RecordError : Error {
    explicit RecordError(const std::string& message) : Error(ExitCode::environment, message) {}
};
/// Something exists but cannot be used on this machine or in this world.
struct NotViable : Error {
    explicit NotViable(const std::string& message) : Error(ExitCode::nothing, message) {}
};

}  // namespace refit::core
