# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""backend: cuda in whole runs, over a CUDA device that the host plays (tests/support/emulated_cuda.hpp)."""

import json
import os
import subprocess

import h5py
import numpy as np
import pytest
from user_program import BUILD, MPIRUN, REPOSITORY

_DRIVER = BUILD / "tests" / "librefit_fake_device.so"
_PROGRAM = BUILD / "tests" / "device" / "refitbench_emulated_device"


def _run(tmp_path, backend, *settings, scenario="smoke/mpi.yaml", ranks=4, devices=2, name=None,
         fault=None, plan=None):
    """A scenario, one iteration: exit code, its JSON, its record, its words."""
    for built in (_PROGRAM, _DRIVER):
        if not built.exists():
            pytest.skip(f"{built} was not built: there is no nvcc, or it was left out")
    # The kernels' runtime plays one device; with a second one in the driver's list, transports use both.
    environment = dict(os.environ, REFIT_CUDA_LIBRARY=str(_DRIVER), REFIT_NCCL_LIBRARY=str(_DRIVER),
                       REFIT_FAKE_DEVICES=str(devices))
    if fault is not None:
        environment["REFIT_EMULATED_FAULT"] = fault
    if plan is not None:
        environment["REFIT_FAKE_NCCL"] = plan
    folder = tmp_path / (name or backend)
    folder.mkdir()
    command = [*MPIRUN, "-np", str(ranks), str(_PROGRAM), "run",
               str(REPOSITORY / "scenarios" / scenario), "--output", str(folder),
               "--json", str(folder / "run.json"), "-n", "1", "-w", "0", "--set", f"backend={backend}"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120,
                          check=False)
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return done.returncode, report, next(folder.glob("*.h5")), done.stdout + done.stderr


def _notes(file, number):
    return {key: value.decode() if isinstance(value, bytes) else str(value)
            for key, value in file[f"cases/{number:03d}/notes"].attrs.items()}


def _tensors(path, number=0):
    """Digest and error counts of every tensor, by name."""
    with h5py.File(path) as file:
        rows = file[f"cases/{number:03d}/tensors"][()]
    fields = [f for f in rows.dtype.names if f == "digest" or rows.dtype[f].kind in "iu"]
    return {row["name"]: tuple(row[f] for f in fields) for row in rows}


def test_a_refit_passes_and_staging_is_a_stage_that_the_cpu_does_not_have(tmp_path):
    # The sweep chooses among the MPI transports; this one lies between device memories.
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc")
    assert code == 0, text
    with h5py.File(path) as file:
        for number, case in enumerate(report["cases"]):
            assert case["outcome"] == "pass" and case["backend"] == "cuda"
            assert case["stages"]["staging"]["median_s"] > 0
            assert "a rank's pieces lie on device 1" in _notes(file, number)["device_resident"]
            samples = {name: values[()] for name, values in file[f"cases/{number:03d}/samples"].items()}
            # Trainers stage, receivers do not; and no time is in two stages of a trainer.
            assert (samples["staging"][:, :2] > 0).all()
            assert np.isnan(samples["staging"][:, 2:]).all()
            parts = sum(samples[stage][:, :2] for stage in ("gather", "quantize", "staging", "pack"))
            assert (parts <= samples["wall"][:, :2]).all()
    code, report, path, text = _run(tmp_path, "auto")
    assert code == 0, text
    assert all("staging" not in case["stages"] for case in report["cases"])
    with h5py.File(path) as file:
        assert "staging" not in file["cases/000/samples"]


@pytest.mark.parametrize("transport", ["cuda_ipc", "nccl"])
def test_a_resident_refit_loads_the_hosts_bytes_and_stages_none_of_them(tmp_path, transport):
    settings = ["warmup=1", "payload.recipe=prime-rl-blockwise"]
    code, report, path, text = _run(tmp_path, "cuda", f"transport.name={transport}", *settings, devices=1)
    assert code == 0, text
    assert "staged through the host" not in text
    host_code, _, host_path, host_text = _run(tmp_path, "portable", *settings)
    assert host_code == 0, host_text
    with h5py.File(path) as file:
        notes = _notes(file, 0)
        samples = file["cases/000/samples"]
        # A stage that is there, of trainers, in which nothing was done.
        assert (samples["staging"][()][:, :2] == 0).all()
        assert (samples["quantize"][()][:, :2] > 0).all()
    assert notes["device_resident"] == "true"
    assert notes["device_staged_bytes"] == "0"
    assert 0 < int(notes["device_control_bytes"]) < report["cases"][0]["bytes_wire"] // 50
    digests = _tensors(path)
    assert digests == _tensors(host_path) and len(digests) == report["cases"][0]["tensors"]


@pytest.mark.parametrize("settings", [
    ["receiver.commit=in_place", "refits=2"],
    pytest.param(["payload.scheme=bf16", "receiver.engine=vllm-bf16"], marks=pytest.mark.slow),
    # One tile a tensor, which two trainers share.
    ["payload.scheme=fp8_tensorwise", "receiver.engine=vllm-compressed-tensors"],
])
def test_other_refits_stay_on_the_device_too(tmp_path, settings):
    common = {"scenario": "faults/source_write.yaml"}
    settings = [*settings, "faults=[]", "expect={outcome: pass}"]
    code, _, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc", *settings, devices=1, **common)
    assert code == 0, text
    host_code, _, host_path, host_text = _run(tmp_path, "portable", *settings, **common)
    assert host_code == 0, host_text
    with h5py.File(path) as file:
        notes = _notes(file, 0)
    assert (notes["device_resident"], notes["device_staged_bytes"]) == ("true", "0")
    assert _tensors(path) == _tensors(host_path)


def test_the_engines_own_parameters_are_cut_and_joined_on_the_device(tmp_path):
    common = {"scenario": "contracts/kernel-tp.yaml", "ranks": 3}
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc", devices=1, **common)
    assert code == 0, text
    host_code, _, host_path, host_text = _run(tmp_path, "portable", **common)
    assert host_code == 0, host_text
    resident = []
    with h5py.File(path) as file:
        for number, case in enumerate(report["cases"]):
            assert case["outcome"] == "pass"
            resident.append(_notes(file, number)["device_resident"])
            assert _tensors(path, number) == _tensors(host_path, number)
    assert "true" in resident
    # Latent attention derives matrices after the load; the case says so and is staged.
    assert any("kv_b_proj" in reason for reason in resident)
    assert "staged through the host: false (the engine derives matrices from kv_b_proj" in text


@pytest.mark.parametrize("fault", [
    "flip_byte", "skip_load", "source_write",
    *(pytest.param(name, marks=pytest.mark.slow)
      for name in ("replica_flip", "truncate", "scale_doubled", "swap_tensors"))])
def test_planted_faults_are_found_in_refits_on_the_device(tmp_path, fault):
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc",
                                    scenario=f"faults/{fault}.yaml", devices=1)
    assert code == 0, text
    assert report["cases"][0]["outcome"] == "expected_finding"
    with h5py.File(path) as file:
        assert _notes(file, 0)["device_resident"] == "true"


@pytest.mark.parametrize("rank, kernel, launch", [
    (1, "quantize", 3),   # a trainer, in the middle of its first refit
    (2, "place", 5),     # a receiver, while it writes
    pytest.param(0, "digests", 8, marks=pytest.mark.slow),   # a trainer, in its last bucket
    pytest.param(3, "set_words", 0, marks=pytest.mark.slow),  # a receiver, before the first
])
def test_a_lost_device_fails_its_case_and_later_ones_are_skipped_with_the_reason(
        tmp_path, rank, kernel, launch):
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc", "warmup=1",
                                    "sweep={receiver.commit: [staged, in_place]}", devices=1,
                                    fault=f"{rank} {kernel} {launch}")
    assert code == 3, text
    lost, later = report["cases"]
    assert lost["outcome"] == "error"
    assert f"rank {rank}: CUDA backend" in text and "illegal memory access" in text
    assert "start the run again" in text
    if kernel != "set_words":  # which strikes before there is a refit
        found = [finding for finding in lost["findings"] if finding["severity"] == "error"]
        assert [finding["rank"] for finding in found] == [rank], text
        assert "start the run again" in found[0]["message"]
    assert later["outcome"] == "skipped"
    assert f"rank {rank}: backend cuda: the CUDA device was lost" in later["skip_reason"]
    with h5py.File(path) as file:
        assert len(file["cases"]) == 2


@pytest.mark.parametrize("transport", ["cuda_ipc", "nccl"])
def test_no_rank_waits_for_one_whose_device_does_not_work(tmp_path, transport):
    code, report, _, text = _run(tmp_path, "auto", f"transport.name={transport}", "timeout_s=100",
                                 "sweep={receiver.commit: [staged]}", devices=1, plan="no_stream_1")
    assert code == 3, text
    assert [case["outcome"] for case in report["cases"]] == ["error"]
    assert "rank 1: cuStreamCreate failed: invalid device context" in text


def test_a_device_that_works_until_the_end_is_no_finding(tmp_path):
    # The fault is planted behind the last launch.
    code, report, _, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc",
                                 "sweep={receiver.commit: [staged]}", devices=1, fault="0 place 1000000")
    assert code == 0, text
    assert [case["outcome"] for case in report["cases"]] == ["pass"]


@pytest.mark.parametrize("setting, reason", [
    ("transport.name=mpi", "transport mpi carries host memory"),
    pytest.param("weights.resident=false", "weights.resident is false", marks=pytest.mark.slow),
    pytest.param("nonfinite=propagate", "nonfinite: propagate and sanitize rewrite", marks=pytest.mark.slow),
])
def test_a_refit_that_cannot_stay_on_the_device_is_staged_and_says_why(tmp_path, setting, reason):
    settings = ["transport.name=cuda_ipc", "payload.recipe=prime-rl-blockwise", setting]
    code, report, path, text = _run(tmp_path, "cuda", *settings, devices=1)
    assert code == 0, text
    assert f"# staged through the host: false ({reason}" in " ".join(text.split())
    assert report["cases"][0]["stages"]["staging"]["median_s"] > 0
    with h5py.File(path) as file:
        notes = _notes(file, 0)
    assert reason in notes["device_resident"] and "device_staged_bytes" not in notes
