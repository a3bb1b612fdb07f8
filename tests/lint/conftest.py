# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The lints are scripts; their tests import them from ci/ and run them on trees made for the test."""

import pathlib
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(REPOSITORY / "ci" / "lint"), str(REPOSITORY / "ci")]

LICENCE = "// SPDX-License-Identifier: Apache-2.0\n"


@pytest.fixture
def tree(tmp_path):
    """Writes {path: text} below a folder of its own, each file with a licence line, returns the folder."""

    def write(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(LICENCE + text, encoding="utf-8")
        return tmp_path

    return write
