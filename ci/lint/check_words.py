# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Names and words that do not belong in the tree.

    check_words.py ROOT

- Folders and files named after no purpose: the worst file of a repository ends up in them.
- Paths of one machine: they work nowhere else.
- Markers of unfinished work: unfinished work is listed as a limit in README.md, or it is finished.
- A missing licence line in a source file or script.

One line a violation; exit code 1 when there is one.
"""

import pathlib
import re
import sys

import source_tree

_EMPTY_NAMES = {"util", "utils", "common", "misc", "helper", "helpers"}
# Put together from parts, so that this file does not contain what it looks for.
_MACHINE_PATH = re.compile(r"(?<![\w.$}\])])/(?:" + "work|root" + r")/")
_UNFINISHED = re.compile(r"\b(?:" + "TO" + "DO|FIX" + "ME|X" + "XX" + r")\b")
_LICENCE = "SPDX-License-Identifier: Apache-2.0"
_LICENSED_ENDINGS = (".hpp", ".cpp", ".cu", ".cuh", ".py", ".sh", ".cmake")
_BINARY_ENDINGS = (".png", ".h5", ".safetensors", ".npy", ".npz", ".bin")
# The golden hexadecimal files are large and hold no words.
_SKIPPED = ("tests/golden/",)


def check_name(path):
    """The reason why the path `path` is badly named, as a list of at most one line."""
    for part in pathlib.PurePosixPath(path).parts:
        words = set(re.split(r"[_\-.]", part.lower()))
        if words & _EMPTY_NAMES:
            return [f"{path}: a name says the purpose; '{part}' says none"]
    return []


def check_text(path, text):
    """The violations in the text of the file `path`."""
    problems = []
    for number, line in enumerate(text.splitlines(), start=1):
        if _MACHINE_PATH.search(line):
            problems.append(f"{path}:{number}: a path of one machine: {line.strip()}")
        if _UNFINISHED.search(line):
            problems.append(f"{path}:{number}: unfinished work: {line.strip()}")
    licensed = path.endswith(_LICENSED_ENDINGS) or path.endswith("CMakeLists.txt")
    if licensed and text.strip() and _LICENCE not in "\n".join(text.splitlines()[:4]):
        problems.append(f"{path}:1: the first lines must contain '{_LICENCE}'")
    return problems


def check_tree(root):
    """All violations below `root` as printable lines."""
    problems = []
    for path in source_tree.source_files(root):
        problems += check_name(path)
        if path.endswith(_BINARY_ENDINGS) or path.startswith(_SKIPPED):
            continue
        try:
            text = (pathlib.Path(root) / path).read_text(encoding="utf-8")
        except UnicodeDecodeError:
            problems.append(f"{path}: neither UTF-8 text nor a known binary ending")
            continue
        problems += check_text(path, text)
    return problems


def main(arguments):
    """Prints the violations below the folder named by the only argument."""
    problems = check_tree(arguments[0])
    print("\n".join(problems), end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
