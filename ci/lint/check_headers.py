# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Every header compiles alone: the build shows it, or the compiler is asked.

A source file that includes a header before anything else shows it for that header when it is
compiled. Each other header is compiled with the flags of a source file near it.

    check_headers.py ROOT --build FOLDER [--jobs N]

FOLDER holds compile_commands.json. Headers of kernels/cuda need the CUDA toolkit and are left
out. Prints the compiler's first lines for each header that fails; exit code 1 when one does.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

import source_tree

_LEFT_OUT = ("kernels/cuda/",)


def load_commands(build, root):
    """{source path relative to `root`: (folder, compiler and flags)} from compile_commands.json."""
    text = (pathlib.Path(build) / "compile_commands.json").read_text(encoding="utf-8")
    commands = {}
    for entry in json.loads(text):
        source = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
        words = entry.get("arguments") or shlex.split(entry["command"])
        launchers = [i for i, word in enumerate(words) if word.split("/")[-1] == "ccache"]
        flags = []
        skip = False
        for word in words[launchers[-1] + 1 if launchers else 0:]:
            if skip:
                skip = False
            elif word in ("-o", "-MF", "-MT", "-MQ", "-include"):
                skip = True
            elif word not in ("-c", "-MD", "-MMD", "-Winvalid-pch", entry["file"]):
                flags.append(word)
        if not source.startswith("..") and source.endswith(".cpp"):
            commands[source] = (entry["directory"], flags)
    return commands


def nearest_source(header, sources):
    """The source file whose flags fit `header`: the same name, then the nearest folder."""
    path = pathlib.PurePosixPath(header)

    def distance(source):
        other = pathlib.PurePosixPath(source)
        shared = 0
        for ours, theirs in zip(path.parts[:-1], other.parts[:-1]):
            if ours != theirs:
                break
            shared += 1
        return (-shared, other.stem != path.stem, len(other.parts), source)

    return min(sources, key=distance)


def headers_compiled_first(root, sources):
    """Headers that a file of `sources` (compiled with nothing before them) includes first."""
    first = set()
    for source in sources:
        text = pathlib.Path(root, source).read_text(encoding="utf-8", errors="replace")
        found = re.search(r"^[ \t]*#[ \t]*(?:include[ \t]+\"([^\"]+)\"|\w+)", text, re.MULTILINE)
        if found and found.group(1):
            beside = pathlib.PurePosixPath(source).parent / found.group(1)
            for header in (str(beside), found.group(1), f"src/{found.group(1)}"):
                if pathlib.Path(root, header).is_file():
                    first.add(os.path.normpath(header))
                    break
    return first


def compile_alone(root, header, command):
    """What the compiler says about a file that includes only `header`; "" when it is content."""
    folder, flags = command
    include = os.path.join(os.path.abspath(root), header)
    result = subprocess.run(
        [*flags, "-fsyntax-only", "-x", "c++", "-"],
        input=f'#include "{include}"\n', text=True, capture_output=True, cwd=folder, check=False)
    if result.returncode == 0:
        return ""
    lines = (result.stderr or "the compiler ended with an error and said nothing").splitlines()
    return "\n".join([f"{header}: does not compile alone", *lines[:12]])


def main(arguments):
    """Parses the arguments, checks all headers, returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root")
    parser.add_argument("--build", required=True)
    parser.add_argument("--jobs", type=int, default=1)
    options = parser.parse_args(arguments)
    commands = load_commands(options.build, os.path.abspath(options.root))
    if not commands:
        print(f"{options.build}/compile_commands.json names no source file of {options.root}")
        return 1
    # Tests are compiled after the headers that they share, so they show nothing of their own.
    shown = headers_compiled_first(
        options.root, [path for path in commands if not path.startswith("tests/")])
    headers = [path for path in source_tree.source_files(options.root)
               if path.endswith(".hpp") and not path.startswith(_LEFT_OUT) and path not in shown]
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        problems = pool.map(
            lambda header: compile_alone(
                options.root, header, commands[nearest_source(header, commands)]), headers)
        problems = [problem for problem in problems if problem]
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
