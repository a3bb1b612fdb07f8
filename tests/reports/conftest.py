# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Records written by the C++ writer (refit_sample_record), found in REFIT_BUILD_DIR or build/."""

import os
import pathlib
import subprocess
import sys
import types

import h5py
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "reports"))


@pytest.fixture(scope="session")
def write_sample(tmp_path_factory):
    """write_sample(kind, *options) -> path of a record; kinds: "", lost, large, empty."""
    build = pathlib.Path(os.environ.get("REFIT_BUILD_DIR", ROOT / "build"))
    programs = sorted(p for p in build.rglob("refit_sample_record") if p.is_file())
    if not programs:
        pytest.fail(
            f"no refit_sample_record below {build}; build that target, or set REFIT_BUILD_DIR"
        )

    def write(kind="", *options):
        path = tmp_path_factory.mktemp("record") / "run.h5"
        command = [str(programs[0]), str(path)] + ([kind] if kind else [])
        subprocess.run(command + [str(o) for o in options], check=True, capture_output=True)
        return path

    return write


@pytest.fixture(scope="session")
def sample(write_sample):
    return write_sample()


@pytest.fixture(scope="session")
def small(sample, tmp_path_factory):
    """A record with the first case of the sample alone: its report takes a third of the time."""
    path = tmp_path_factory.mktemp("small") / sample.name
    path.write_bytes(sample.read_bytes())
    with h5py.File(path, "r+") as file:
        for name in list(file["cases"])[1:]:
            del file["cases"][name]
    return path


@pytest.fixture(scope="session")
def reports():
    """reports(*arguments) -> the finished process of `python -m refit_reports ...`."""

    def run(*arguments):
        environment = dict(os.environ)
        environment["PYTHONPATH"] = str(ROOT / "reports")
        return subprocess.run(
            [sys.executable, "-m", "refit_reports", *map(str, arguments)],
            capture_output=True,
            text=True,
            env=environment,
        )

    return run


@pytest.fixture(scope="session")
def report(sample, reports, tmp_path_factory):
    """Folder of the report on the sample record, and the process that made it."""
    folder = tmp_path_factory.mktemp("report") / "made" / "here"
    return folder, reports("report", sample, "-o", folder)


@pytest.fixture()
def command(capsys):
    """command(*arguments) -> code, out and err of the command line, run in this process: an exception
    that it let through fails the test, and no interpreter has to start."""

    def run(*arguments):
        from refit_reports.__main__ import main

        capsys.readouterr()
        code = main([str(a) for a in arguments])
        output = capsys.readouterr()
        return types.SimpleNamespace(code=code, out=output.out, err=output.err)

    return run
