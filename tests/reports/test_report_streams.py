# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What the command line does where its reader leaves, its output is full, or an option means nothing."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def without_reports(tmp_path_factory):
    return tmp_path_factory.mktemp("empty")


def start(*arguments, **streams):
    environment = dict(os.environ, PYTHONPATH=str(ROOT / "reports"))
    return subprocess.run([sys.executable, "-m", "refit_reports", *map(str, arguments)], env=environment,
                          stderr=subprocess.PIPE, text=True, check=False, **streams)


@pytest.mark.parametrize("output", ["gate", "--help"])
def test_a_reader_that_leaves_changes_no_exit_code(output, sample, without_reports):
    # The sample is the record of a run that failed, and a gate must go on saying so.
    arguments = [output, sample, "--history", without_reports] if output == "gate" else [output]
    reading, writing = os.pipe()
    os.close(reading)

    done = start(*arguments, stdout=writing)
    os.close(writing)

    assert done.returncode == (1 if output == "gate" else 0), done.stderr
    assert done.stderr == ""


def test_a_full_standard_output_is_3_without_a_traceback(sample, tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        done = start("report", sample, "-o", tmp_path / "report", stdout=full)

    assert done.returncode == 3
    assert done.stderr.startswith("error: standard output") and "Traceback" not in done.stderr


def test_a_time_that_is_none_is_wrong_use(command, sample, without_reports):
    done = command("gate", sample, "--history", without_reports, "--since", "yesterday")

    assert done.code == 2
    assert "--since" in done.err and "yesterday" in done.err


@pytest.mark.parametrize("option", ["--baseline", "--history"])
def test_an_empty_name_to_compare_with_is_3(command, sample, option):
    done = command("gate", sample, option, "")

    assert done.code == 3
    assert done.err.startswith("error: ")
