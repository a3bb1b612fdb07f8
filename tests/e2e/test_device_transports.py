# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Device transports and backend as a user meets them on a machine without a device.

Whole refits run over the CUDA driver and the NCCL of tests/support/fake_device.cpp.
"""

import json
import os
import subprocess

import pytest
from user_program import BUILD, MPIRUN, REPOSITORY

_RANKS = 2


def _run(tmp_path, *settings, fake=True, plan=None):
    """The smoke scenario on two ranks; returns the exit code, its JSON and what it printed."""
    library = BUILD / "tests" / "librefit_fake_device.so"
    if fake and not library.exists():
        pytest.skip(f"{library} was not built")
    environment = dict(os.environ)
    for name in ("REFIT_CUDA_LIBRARY", "REFIT_NCCL_LIBRARY"):
        environment[name] = str(library) if fake else "libno-such-library.so"
    if plan:
        environment["REFIT_FAKE_NCCL"] = plan
    command = [*MPIRUN, "-np", str(_RANKS), str(BUILD / "refitbench"), "run",
               str(REPOSITORY / "scenarios" / "smoke" / "loopback.yaml"),
               "--output", str(tmp_path), "--json", str(tmp_path / "run.json"), "-n", "1", "-w", "1"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120,
                          check=False)
    report = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    return done.returncode, report, done.stdout + done.stderr


@pytest.mark.parametrize("transport", ["nccl", "cuda_ipc"])
def test_a_refit_over_a_device_transport_passes_all_checks(tmp_path, transport):
    code, report, text = _run(tmp_path, f"transport.name={transport}")
    assert code == 0, text
    assert [case["outcome"] for case in report["cases"]] == ["pass"] * 3
    assert {case["transport"] for case in report["cases"]} == {transport}


@pytest.mark.parametrize("plan,remedy", [
    ("duplicate_old", "with NCCL 2.30 or later set NCCL_MULTI_RANK_GPU_ENABLE=1"),
    ("duplicate_new,version_new", "set NCCL_MULTI_RANK_GPU_ENABLE=1")])
def test_ranks_that_share_a_device_make_nccl_not_viable_with_the_remedy(tmp_path, plan, remedy):
    code, report, text = _run(tmp_path, "transport.name=nccl", plan=plan)
    assert code == 77, text
    assert {case["outcome"] for case in report["cases"]} == {"skipped"}
    assert all(remedy in case["skip_reason"] for case in report["cases"])


@pytest.mark.parametrize("transport", ["nccl", "cuda_ipc"])
def test_a_machine_without_a_driver_skips_with_the_reason(tmp_path, transport):
    code, report, text = _run(tmp_path, f"transport.name={transport}", fake=False)
    assert code == 77, text
    assert all("no CUDA driver" in case["skip_reason"] for case in report["cases"])


def test_an_error_of_nccl_ends_the_run_with_its_text(tmp_path):
    code, _, text = _run(tmp_path, "transport.name=nccl", plan="remote_error")
    assert code == 3, text
    assert "the peer closed the connection" in text


def test_the_cuda_backend_runs_or_says_why_not(tmp_path):
    rows = json.loads(subprocess.run(
        [str(BUILD / "refitbench"), "list", "backends", "--json", "-"], text=True,
        capture_output=True, check=True).stdout)["rows"]
    cuda = next(row for row in rows if row["name"] == "cuda")
    code, report, text = _run(tmp_path, "transport.name=mpi", "backend=cuda", fake=False)
    if cuda["viable"]:
        assert code == 0, text
    else:
        assert code == 77, text
        assert all(cuda["reason"] in case["skip_reason"] for case in report["cases"])
