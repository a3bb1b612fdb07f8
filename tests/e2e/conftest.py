# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that drive the built program; see user_program.py."""

import os
import pathlib
import shutil

import pytest
from checkpoints import llama_config, write_checkpoint
from user_program import BUILD, PROGRAM, Refitbench

SHARED_MEMORY = pathlib.Path("/dev/shm")


@pytest.fixture(scope="session", autouse=True)
def built_program():
    """The tests judge the built program; without one they have nothing to say and fail."""
    if not os.access(PROGRAM, os.X_OK):
        pytest.fail(f"{PROGRAM} is not there; build it first (cmake --build {BUILD}) or set "
                    "REFIT_BUILD_DIR to the build folder", pytrace=False)


@pytest.fixture
def refitbench(tmp_path):
    """The program, in a temporary folder, with nothing left running afterwards."""
    if shutil.which("mpirun") is None:
        pytest.fail("mpirun is not on the path", pytrace=False)
    program = Refitbench(tmp_path)
    yield program
    program.end_all()


@pytest.fixture
def shared_memory():
    """Says which shared-memory objects of the program came since the test began."""
    def ours():
        return {path.name for path in SHARED_MEMORY.glob("refitbench*")}
    before = ours()
    return lambda: ours() - before


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with config.json and model.safetensors of a small Llama model, BF16."""
    folder = tmp_path / "checkpoint"
    write_checkpoint(folder, llama_config())
    return folder
