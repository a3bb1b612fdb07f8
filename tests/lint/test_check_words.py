# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
import subprocess

import check_words
import pytest

MACHINE_PATH = "/" + "work" + "/main/build"
MARKER = "TO" + "DO"


@pytest.mark.parametrize(
    "path, text, said",
    [
        ("src/core/util.hpp", "", "says none"),
        ("src/common/shape.hpp", "", "says none"),
        ("src/core/string_helpers.cpp", "", "says none"),
        ("ci/misc/x.sh", "", "says none"),
        ("docs.md", f"see {MACHINE_PATH}\n", "a path of one machine"),
        ("src/core/a.cpp", f"// {MARKER}: later\n", "unfinished work"),
    ],
)
def test_finds_a_planted_word(tree, path, text, said):
    root = tree({path: text})

    problems = check_words.check_tree(root)

    assert len(problems) == 1
    assert said in problems[0]
    assert check_words.main([str(root)]) == 1


@pytest.mark.parametrize("path", ["src/core/a.cpp", "ci/a.sh", "reports/a.py", "src/CMakeLists.txt"])
def test_finds_a_missing_licence_line(tmp_path, path):
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text("content\n", encoding="utf-8")

    assert check_words.check_tree(tmp_path) == [
        f"{path}:1: the first lines must contain 'SPDX-License-Identifier: Apache-2.0'"]


def test_accepts_ordinary_names_and_text(tree):
    root = tree({
        "src/core/utility_of_rank.hpp": "// A method of todor, under $HOME/work/ and ../root/ of it.\n",
        "README.md": "ci/test.sh --allow-run-as-root\n",
    })

    assert check_words.check_tree(root) == []


def test_leaves_ignored_and_build_files_alone(tree):
    root = tree({"src/a.cpp": "", "build/common/a.cpp": MARKER, "skipped/util.cpp": MARKER})
    (root / ".gitignore").write_text("build/\nskipped/\n", encoding="utf-8")
    subprocess.run(["git", "init", "--quiet", str(root)], check=True)

    assert check_words.check_tree(root) == []
