# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""ci/nightly.sh with a program that hands out made records, so that any night can be played."""

import os
import pathlib
import shutil
import subprocess
import time
import types

import h5py
import pytest

import nights

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Stands for build/refitbench: puts the record of the suite into --output and ends as the night wants. A slow suite
# goes on until it is told to end, and leaves its record then; a deaf one until it is killed, and leaves none.
PROGRAM = """#!/bin/sh
while [ $# -gt 0 ]; do case $1 in --output) out=$2 ;; esac; shift; done
suite=$(basename "$out")
mkdir -p "$out"
leave_record() { [ ! -f "$NIGHT/$suite.h5" ] || cp "$NIGHT/$suite.h5" "$out/$suite-1.h5"; }
echo "$suite" >>"$NIGHT/started"
[ ! -f "$NIGHT/$suite.deaf" ] || trap '' TERM
[ ! -f "$NIGHT/$suite.slow" ] || trap 'leave_record; exit 3' TERM
while [ -f "$NIGHT/$suite.deaf" ] || [ -f "$NIGHT/$suite.slow" ]; do sleep 0.2; done
leave_record
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
    """nightly(number, factors, missing, code, change, slow, deaf, edit, options) -> the finished process of one
    night: records that differ from the sample by `factors` and `change`; `missing`, `slow` and `deaf` name
    suites, `edit` is a text that the script becomes while it runs."""

    def run(number, factors=(1.0,), missing=(), code=0, change=None, slow=(), deaf=(), edit=None,
            options=()):
        made = tmp_path / f"night{number}"
        made.mkdir()
        for suite in ("throughput", "accuracy"):
            if suite in missing:
                continue
            half_way = [nights.stopped_after(1)] if suite in slow else []
            nights.make(sample, made / f"{suite}.h5", number, factors,
                        nights.all_of(*([change] if change else []), *half_way))
            with h5py.File(made / f"{suite}.h5", "r+") as file:
                for case in file["cases"].values():
                    case.attrs["scenario"] = suite
        (made / "throughput.code").write_text(str(code))
        for names, ending in ((slow, "slow"), (deaf, "deaf")):
            for suite in names:
                (made / f"{suite}.{ending}").touch()
        environment = dict(os.environ, NIGHT=str(made), PATH=f"{tree}/bin:{os.environ['PATH']}")
        script = tree / "ci/nightly.sh"
        process = subprocess.Popen(
            ["bash", script, "--no-build", "--archive", tmp_path / "archive", *options],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=tmp_path)
        whole = script.read_bytes()
        try:
            if edit is not None:
                while not (made / "started").exists() and process.poll() is None:
                    time.sleep(0.05)
                # In place, as an editor that keeps the file does: bash has it open.
                with open(script, "r+b") as stream:
                    stream.write(edit(whole))
            output, _ = process.communicate()
        finally:
            script.write_bytes(whole)
        started = (made / "started").read_text().split() if (made / "started").exists() else []
        return types.SimpleNamespace(returncode=process.returncode, stdout=output, started=started)

    run.archive = tmp_path / "archive"
    return run


@pytest.mark.slow
def test_nights_from_an_empty_archive_to_a_failed_run(nightly):
    first = nightly(0)
    assert first.returncode == 77, first.stdout
    assert first.stdout.splitlines()[-1] == "verdict: ambiguous"
    assert len(list(nightly.archive.glob("*.h5"))) == 2
    paths = dict(line.split(": ", 1) for line in first.stdout.splitlines()[-4:])
    assert pathlib.Path(paths["report"]).is_file() and pathlib.Path(paths["history"]).is_file()

    second = nightly(1)
    assert second.returncode == 0, second.stdout

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
def test_a_suite_that_takes_too_long_fails_half_way_and_the_next_one_runs(nightly):
    assert nightly(0).returncode == 77
    late = nightly(1, slow=("throughput",), options=("--limit", "3"))
    assert late.returncode == 1 and late.stdout.splitlines()[-1] == "verdict: fail", late.stdout
    assert late.started == ["throughput", "accuracy"]
    assert "throughput: stopped after the 3 s" in late.stdout and "accuracy: stopped" not in late.stdout
    assert "FAIL" in late.stdout and "interrupted" in late.stdout
    # Its record is archived, and what was done before is judged.
    assert len(list(nightly.archive.glob("*.h5"))) == 4
    assert late.stdout.count("SAME      throughput/") == 3 and "SAME      accuracy/" in late.stdout
    # The next night is compared with the whole nights and with what the late one did.
    assert nightly(2).returncode == 0


@pytest.mark.slow
def test_a_suite_that_does_not_end_when_told_is_killed_and_the_next_one_runs(nightly):
    # The minute until it is killed.
    done = nightly(0, deaf=("throughput",), missing=("throughput",), options=("--limit=2",))
    assert done.returncode == 3 and done.stdout.splitlines()[-1] == "verdict: error", done.stdout
    assert "throughput: stopped after the 2 s" in done.stdout
    assert "throughput: the run left no record (exit code 137)" in done.stdout
    assert done.started == ["throughput", "accuracy"]
    assert len(list(nightly.archive.glob("*.h5"))) == 1


@pytest.mark.slow
def test_an_edit_during_the_night_changes_nothing_of_it(nightly):
    done = nightly(0, slow=("throughput",), options=("--limit", "3"),
                   edit=lambda whole: b"echo edited; exit 9\n" * (len(whole) // 20 + 1))
    assert done.returncode == 1 and "edited" not in done.stdout, done.stdout
    assert done.started == ["throughput", "accuracy"]


@pytest.mark.slow
def test_wrong_use_and_an_archive_that_cannot_be_written(tree, tmp_path):
    def run(*arguments):
        return subprocess.run(["bash", tree / "ci/nightly.sh", *arguments], capture_output=True,
                              text=True, cwd=tmp_path)

    assert run("--arhive", "x").returncode == 2
    assert run("--archive").returncode == 2
    for limit in ("", "0", "-1", "ten", "1.5"):
        done = run("--limit", limit)
        assert done.returncode == 2 and "no number of seconds" in done.stderr
    (tmp_path / "file").write_text("")
    done = run("--no-build", "--archive", str(tmp_path / "file"))
    assert done.returncode == 3 and "cannot be written" in done.stderr
