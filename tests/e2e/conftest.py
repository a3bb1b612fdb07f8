# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the tests that drive the built program; see user_program.py."""

import os
import shutil

import pytest
from user_program import BUILD, PROGRAM, Refitbench


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
