# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""ci/nightly.sh with a program that hands out made records, so that any night can be played."""

import os
import pathlib
import shutil
import subprocess

import h5py
import pytest

import nights

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Stands for build/refitbench: puts the record of the suite into --output and ends as the night wants.
PROGRAM = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --output) out=$2 ;; esac; shift; done
suite=$(basename "$out")
mkdir -p "$out"
[ ! -f "$NIGHT/$suite.h5" ] || cp "$NIGHT/$suite.h5" "$out/$suite-1.h5"
exit "$(cat "$NIGHT/$suite.code" 2>/dev/null || echo 0)"
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A checkout with the scripts, the reports package and the program above; mpirun starts it once."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("ci", "reports", "scenarios"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path, text in (("build/refitbench", PROGRAM),
                       ("bin/mpirun", '#!/bin/sh\nwhile [ "$1" != run ]; do last=$1; shift; done\n'
                                      'exec "$last" run "$@"\n')):
        (root / path).parent.mkdir(exist_ok=True)
        (root / path).write_text(text)
        (root / path).chmod(0o755)
    return root


@pytest.fixture()
def nightly(tree, sample, tmp_path):
    """nightly(number, edit=None, missing=(), code=0) -> the finished process of one night."""

    def run(number, factors=(1.0,), missing=(), code=0, change=None):
        made = tmp_path / f"night{number}"
        made.mkdir()
        for suite in ("throughput", "accuracy"):
            if suite in missing:
                continue
            nights.make(sample, made / f"{suite}.h5", number, factors, change)
            with h5py.File(made / f"{suite}.h5", "r+") as file:
                for case in file["cases"].values():
                    case.attrs["scenario"] = suite
        (made / "throughput.code").write_text(str(code))
        environment = dict(os.environ, NIGHT=str(made), PATH=f"{tree}/bin:{os.environ['PATH']}")
        return subprocess.run(
            ["bash", tree / "ci/nightly.sh", "--no-build", "--archive", tmp_path / "archive"],
            capture_output=True, text=True, env=environment, cwd=tmp_path)

    run.archive = tmp_path / "archive"
    return run


@pytest.mark.slow
def test_nights_from_an_empty_archive_to_a_failed_run(nightly):
    first = nightly(0)
    assert first.returncode == 77, first.stdout + first.stderr
    assert first.stdout.splitlines()[-1] == "verdict: ambiguous"
    assert len(list(nightly.archive.glob("*.h5"))) == 2
    paths = dict(line.split(": ", 1) for line in first.stdout.splitlines()[-4:])
    assert pathlib.Path(paths["report"]).is_file() and pathlib.Path(paths["history"]).is_file()

    second = nightly(1)
    assert second.returncode == 0, second.stdout + second.stderr

    slow = nightly(2, factors=(1.5,))
    assert slow.returncode == 1 and "SLOWER" in slow.stdout

    # One suite left no record: the other one is archived, reported and gated all the same.
    half = nightly(3, missing=("throughput",), code=3)
    assert half.returncode == 3 and "the run left no record" in half.stdout
    assert len(list(nightly.archive.glob("*.h5"))) == 7
    assert half.stdout.splitlines()[-1] == "verdict: error"

    def other_machine(file):
        file["environment"].attrs["cpu"] = "another"

    other = nightly(4, factors=(2.0,), change=other_machine)
    assert other.returncode == 77, other.stdout
    assert "another machine" in other.stdout


@pytest.mark.slow
def test_wrong_use_and_an_archive_that_cannot_be_written(tree, tmp_path):
    def run(*arguments):
        return subprocess.run(["bash", tree / "ci/nightly.sh", *arguments], capture_output=True,
                              text=True, cwd=tmp_path)

    assert run("--arhive", "x").returncode == 2
    assert run("--archive").returncode == 2
    (tmp_path / "file").write_text("")
    done = run("--no-build", "--archive", str(tmp_path / "file"))
    assert done.returncode == 3 and "cannot be written" in done.stderr
