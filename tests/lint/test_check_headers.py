# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
import json

import check_headers


def compile_commands(root, *sources):
    entries = [{"directory": str(root), "file": str(root / source),
                "command": f"/usr/bin/ccache /usr/bin/c++ -I{root}/src -std=c++20 -Wall -Werror "
                           f"-o out/{source}.o -c {root / source}"} for source in sources]
    (root / "build").mkdir()
    (root / "build" / "compile_commands.json").write_text(json.dumps(entries), encoding="utf-8")
    return ["--build", str(root / "build")]


def test_finds_a_header_that_leans_on_its_includer(tree, capsys):
    root = tree({
        "src/core/good.hpp": "#pragma once\n#include <string>\nstd::string name();\n",
        "src/core/leaning.hpp": "#pragma once\nstd::string other_name();\n",
        "src/core/good.cpp": '#include "core/good.hpp"\n#include "core/leaning.hpp"\n',
    })

    code = check_headers.main([str(root), *compile_commands(root, "src/core/good.cpp")])

    said = capsys.readouterr().out
    assert code == 1
    assert "src/core/leaning.hpp: does not compile alone" in said
    assert "src/core/good.hpp:" not in said


def test_accepts_headers_that_compile_alone(tree, capsys):
    root = tree({
        "src/core/good.hpp": "#pragma once\ninline int one() { return 1; }\n",
        "src/core/good.cpp": '#include "core/good.hpp"\n',
        "kernels/cuda/device.cuh": "#error needs another compiler\n",
        "kernels/cuda/device.hpp": "#error needs another compiler\n",
    })

    code = check_headers.main([str(root), *compile_commands(root, "src/core/good.cpp")])

    assert (code, capsys.readouterr().out) == (0, "")


def test_leaves_to_the_build_only_what_a_source_includes_before_all_else(tree, capsys):
    leaning = "#pragma once\nstd::string name();\n"
    root = tree({
        "src/core/first.hpp": leaning, "src/core/first.cpp": '#include "core/first.hpp"\n',
        "src/core/second.hpp": leaning,
        "src/core/second.cpp": '#include <string>\n\n#include "core/second.hpp"\n',
        "src/core/guarded.hpp": leaning,
        "src/core/guarded.cpp": '#define NAME 1\n#include "core/guarded.hpp"\n',
        "tests/shared.hpp": leaning, "tests/shared_test.cpp": '#include "shared.hpp"\n',
    })

    code = check_headers.main([str(root), *compile_commands(
        root, "src/core/first.cpp", "src/core/second.cpp", "src/core/guarded.cpp",
        "tests/shared_test.cpp")])

    said = capsys.readouterr().out
    failing = {line.split(":")[0] for line in said.splitlines() if "compile alone" in line}
    assert code == 1
    assert failing == {"src/core/second.hpp", "src/core/guarded.hpp", "tests/shared.hpp"}


def test_asks_the_compiler_without_launchers_and_shared_headers(tree):
    root = tree({"src/core/good.cpp": ""})
    entry = {"directory": str(root), "file": str(root / "src/core/good.cpp"),
             "command": "/usr/bin/cmake -E env CCACHE_SLOPPINESS=pch_defines /usr/bin/ccache c++ "
                        "-DX=1 -Winvalid-pch -include /b/cmake_pch.hxx -MD -MF a.d -o a.o "
                        f"-c {root}/src/core/good.cpp"}
    (root / "build").mkdir()
    (root / "build" / "compile_commands.json").write_text(json.dumps([entry]), encoding="utf-8")

    commands = check_headers.load_commands(root / "build", root)

    assert commands == {"src/core/good.cpp": (str(root), ["c++", "-DX=1"])}


def test_an_empty_build_folder_is_a_failure(tree, capsys):
    root = tree({"src/core/good.hpp": ""})

    assert check_headers.main([str(root), *compile_commands(root)]) == 1
    assert "names no source file" in capsys.readouterr().out


def test_flags_come_from_the_nearest_source():
    sources = ["src/wire/packing.cpp", "src/core/shape.cpp", "kernels/cpu/avx2.cpp",
               "kernels/cpu/avx512_vbmi.cpp", "kernels/backend_list.cpp"]

    assert check_headers.nearest_source("kernels/cpu/avx512_vbmi.hpp", sources) == sources[3]
    assert check_headers.nearest_source("kernels/backend.hpp", sources) == sources[4]
    assert check_headers.nearest_source("src/core/error.hpp", sources) == sources[1]
