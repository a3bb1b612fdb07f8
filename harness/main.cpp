// SPDX-FileCopyrightText: 2026 The refitbench authors
// SPDX-License-Identifier: Apache-2.0
// refitbench: one MPI world, one command, one exit code.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <vector>

#include "harness/command_line.hpp"
#include "harness/dequantize_command.hpp"
#include "harness/export_command.hpp"
#include "harness/identify_command.hpp"
#include "harness/lost_rank_monitor.hpp"
#include "harness/quantize_command.hpp"
#include "harness/run_command.hpp"
#include "harness/verify_command.hpp"
#include "harness/world.hpp"

namespace {

/// A file that the program opens must not get the number of a standard stream that the caller has
/// closed: what is printed would end in it.
void open_closed_streams() {
    for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        if (fcntl(stream, F_GETFD) >= 0 || errno != EBADF) continue;
        if (open("/dev/null", stream == STDIN_FILENO ? O_RDONLY : O_WRONLY) < 0) return;
    }
}

/// Commands that leave something to clean up or to record look for signals themselves. Any other
/// is ended by them.
bool looks_for_signals(const refit::harness::CommandLine& line) {
    if (line.finished) return false;
    if (line.subcommand == "run") return !line.run.dry_run;
    return line.subcommand == "quantize" || line.subcommand == "dequantize" ||
           line.subcommand == "export";
}

/// False where something printed did not reach standard output. A reader that has seen enough
/// (`| head`) has lost nothing.
bool output_is_whole() {
    if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return true;
    struct stat what {};
    return fstat(STDOUT_FILENO, &what) == 0 && (S_ISFIFO(what.st_mode) || S_ISSOCK(what.st_mode));
}

int run(const refit::harness::CommandLine& line, refit::harness::World* world) {
    const bool speaks = world == nullptr || world->rank() == 0;
    if (line.finished) {
        if (speaks) std::fputs(line.text.c_str(), line.text_is_error ? stderr : stdout);
        return line.exit_code;
    }
    if (line.subcommand == "run") return refit::harness::run_command(line.run, line.argv, world);
    // The rest is work for one process.
    if (!speaks) return 0;
    if (line.subcommand == "list") return refit::harness::run_list(line.list, line.argv);
    if (line.subcommand == "quantize")
        return refit::harness::quantize_command(line.quantize, line.argv);
    if (line.subcommand == "dequantize")
        return refit::harness::dequantize_command(line.dequantize, line.argv);
    if (line.subcommand == "identify")
        return refit::harness::identify_command(line.identify, line.argv);
    if (line.subcommand == "export")
        return refit::harness::export_command(line.exporting, line.argv);
    if (line.subcommand == "verify") return refit::harness::verify_command(line.verify, line.argv);
    std::fprintf(stderr, "refitbench: error: '%s' is not available yet\n", line.subcommand.c_str());
    return 2;
}

int checked_run(const refit::harness::CommandLine& line, refit::harness::World* world) {
    const int code = run(line, world);
    if (output_is_whole()) return code;
    std::fprintf(stderr,
                 "refitbench: error: standard output cannot be written; is its disk full?\n");
    return code == 0 ? 3 : code;
}

}  // namespace

int main(int argc, char** argv) {
    open_closed_streams();
    // A file beyond `ulimit -f` is an error of the write, with a message and nothing left behind.
    signal(SIGXFSZ, SIG_IGN);
    const refit::harness::CommandLine line = refit::harness::parse_command_line(argc, argv);
    if (looks_for_signals(line)) {
        // Before any thread and before MPI_Init, so that every thread inherits it.
        refit::harness::block_signals();
        // A reader of the table that leaves early must not cost the record.
        signal(SIGPIPE, SIG_IGN);
    }
    try {
        if (!refit::harness::launched_by_mpi()) return checked_run(line, nullptr);
        std::unique_ptr<refit::harness::World> world = refit::harness::make_mpi_world();
        const int code = checked_run(line, world.get());
        const bool first = world->rank() == 0;
        world.reset();
        refit::harness::finalize_mpi();
        // Another rank's non-zero code would make the launcher kill a rank that is still writing.
        return first ? code : 0;
    } catch (const std::exception& error) {
        std::fprintf(stderr, "refitbench: error: %s\n", error.what());
        return 3;
    }
}
