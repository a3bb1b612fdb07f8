# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""ci/device.sh run over programs of our own: what it calls passed, failed and skipped, and its exit code."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time

import pytest
from user_program import REPOSITORY

_NO_DEVICE = "echo 'no CUDA device: the driver lists none'; echo '[  PASSED  ] 0 tests.'"


@pytest.fixture
def folder(tmp_path):
    """A packed folder whose programs are one-line scripts that succeed."""
    root = tmp_path / "packed"
    for name in ("bin", "lib", "scenarios", "peers"):
        (root / name).mkdir(parents=True)
    shutil.copy(REPOSITORY / "ci" / "device.sh", root)
    (root / "COMMIT").write_text("none\n", encoding="utf-8")
    for name in ("refitbench", "device_test", "kernels_test", "quant_test", "transport_conformance"):
        program(root, name, "exit 0")
    # orterun --oversubscribe -np N PROGRAM ...
    program(root, "orterun", 'shift 3; exec "$@"')
    return root


def program(root, name, text):
    """Writes one of the folder's programs."""
    path = pathlib.Path(root) / "bin" / name
    path.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
    path.chmod(0o755)


def run(root, *more):
    """Runs all parts; returns the exit code, {part: (state, reason)} and what was printed."""
    done = subprocess.run(["bash", str(root / "device.sh"), "run", "--output", str(root / "out"), *more],
                          text=True, capture_output=True, timeout=120, check=False)
    lines = (root / "out" / "parts.tsv").read_text(encoding="utf-8").splitlines()
    parts = {part: (state, reason) for state, part, reason in (x.split("\t") for x in lines)}
    return done.returncode, parts, done.stdout + done.stderr


@pytest.mark.parametrize("arguments,code,words", [
    (["--dry-run"], 77, "skipped: no PyTorch"), (["--fast"], 2, "known: --dry-run")])
def test_the_speed_of_peers_says_why_it_does_not_run(tmp_path, arguments, code, words):
    # A module of that name that cannot be imported, whatever this Python has.
    (tmp_path / "torch.py").write_text("raise ImportError\n", encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "ci" / "device" / "peer_speed.py"), *arguments], text=True,
        capture_output=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == code
    assert words in done.stdout + done.stderr


def test_all_parts_that_can_run_pass_and_the_results_are_one_archive(folder):
    code, parts, text = run(folder)
    assert code == 0, text
    assert parts["bytes-device"][0] == parts["bytes-golden"][0] == parts["ipc-np4"][0] == "passed"
    assert parts["microbench"][0] == "skipped" and "not built" in parts["microbench"][1]
    assert " passed, 0 failed, " in text.splitlines()[-1]
    with tarfile.open(folder / "out" / "results.tar.gz") as archive:
        assert "out/bytes-device.log" in archive.getnames()


def test_a_machine_without_a_device_ends_with_77_and_every_reason(folder):
    program(folder, "device_test", _NO_DEVICE)
    program(folder, "transport_conformance", _NO_DEVICE + "; exit 77")
    code, parts, text = run(folder)
    assert code == 77, text
    assert parts["bytes-device"] == ("skipped", "no CUDA device: the driver lists none")
    assert parts["ipc-np2"] == ("skipped", "no CUDA device: the driver lists none")
    assert parts["bytes-golden"][0] == "skipped"


def test_a_part_that_fails_is_named_with_its_log_and_makes_the_exit_code_1(folder):
    program(folder, "device_test", "echo '[  FAILED  ] DeviceBackend.EqualsPortable'; exit 1")
    code, parts, text = run(folder)
    assert code == 1, text
    state, reason = parts["bytes-device"]
    assert state == "failed" and "exit code 1" in reason and "EqualsPortable" in reason
    assert parts["host-loopback"][0] == "passed"


def test_one_part_that_never_ends_costs_its_own_limit_and_not_the_others(folder):
    # The bytes come before it, and what comes after it finds no time left.
    program(folder, "quant_test", "sleep 600")
    script = (folder / "device.sh").read_text(encoding="utf-8")
    assert "part host-loopback 60 " in script and "on_device bytes-golden 120 " in script
    script = script.replace("on_device bytes-golden 120 ", "on_device bytes-golden 2 ")
    (folder / "device.sh").write_text(script, encoding="utf-8")
    code, parts, text = run(folder)
    assert code == 1, text
    assert parts["bytes-golden"][0] == "failed" and "no end after 2 s" in parts["bytes-golden"][1]
    assert parts["bytes-device"][0] == parts["ipc-np2"][0] == parts["bytes-random"][0] == "passed"


def test_a_run_that_is_ended_from_outside_leaves_the_archive_of_what_it_has(folder):
    program(folder, "quant_test", "touch \"$REFIT_GOLDEN_DIR.begun\"; sleep 600")
    with subprocess.Popen(["bash", str(folder / "device.sh"), "run", "--output", str(folder / "out")],
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        for _ in range(600):
            if (folder / "golden.begun").exists():
                break
            time.sleep(0.05)
        process.terminate()
        process.communicate(timeout=60)
    with tarfile.open(folder / "out" / "results.tar.gz") as archive:
        assert "out/bytes-device.log" in archive.getnames()


def test_what_does_not_fit_the_time_is_skipped_and_says_so(folder):
    script = (folder / "device.sh").read_text(encoding="utf-8")
    assert "60 * minutes" in script
    (folder / "device.sh").write_text(script.replace("60 * minutes", "minutes"), encoding="utf-8")
    code, parts, text = run(folder, "--minutes", "10")
    assert code == 77, text
    assert set(state for state, _ in parts.values()) == {"skipped"}
    assert "--minutes" in parts["bytes-device"][1]
    done = subprocess.run(["bash", str(folder / "device.sh"), "run", "--minutes", "soon"], text=True,
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 2 and "--minutes is 'soon'" in done.stderr
