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


def _run(tmp_path, backend, *settings):
    """The MPI smoke scenario on four ranks, one iteration: exit code, its JSON, its record, its words."""
    for built in (_PROGRAM, _DRIVER):
        if not built.exists():
            pytest.skip(f"{built} was not built: there is no nvcc, or it was left out")
    environment = dict(os.environ, REFIT_CUDA_LIBRARY=str(_DRIVER))
    folder = tmp_path / backend
    folder.mkdir()
    command = [*MPIRUN, "-np", "4", str(_PROGRAM), "run",
               str(REPOSITORY / "scenarios" / "smoke" / "mpi.yaml"), "--output", str(folder),
               "--json", str(folder / "run.json"), "-n", "1", "-w", "0", "--set", f"backend={backend}"]
    for setting in settings:
        command += ["--set", setting]
    done = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=120,
                          check=False)
    report = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return done.returncode, report, next(folder.glob("*.h5")), done.stdout + done.stderr


def test_a_refit_passes_and_staging_is_a_stage_that_the_cpu_does_not_have(tmp_path):
    # The sweep chooses among the MPI transports; this one lies between device memories.
    code, report, path, text = _run(tmp_path, "cuda", "transport.name=cuda_ipc")
    assert code == 0, text
    with h5py.File(path) as file:
        for number, case in enumerate(report["cases"]):
            assert case["outcome"] == "pass" and case["backend"] == "cuda"
            assert case["stages"]["staging"]["median_s"] > 0
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
