# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The accuracy scenario on trained weights, SmolLM2-135M, made by ci/real-model.sh."""

import json
import os
import pathlib
import subprocess

import h5py
import pytest
from user_program import BUILD, REPOSITORY

SCENARIO = REPOSITORY / "scenarios" / "accuracy" / "smollm2-135m.yaml"


@pytest.fixture(scope="module")
def model():
    """The checkpoint folder; the tests are skipped with the script's reason where it cannot be had."""
    folder = BUILD / "smollm2-135m"
    made = subprocess.run(["bash", REPOSITORY / "ci" / "real-model.sh", folder], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=600, env={**os.environ})
    if made.returncode == 77:
        pytest.skip(made.stderr.strip().splitlines()[-1])
    assert made.returncode == 0, made.stderr
    return folder


def test_trained_weights_pass_at_tp_1_and_blocks_over_the_fused_rows_are_refused(refitbench, model):
    outcome = refitbench("run", SCENARIO, "--set", f"weights.path={model}", "--output", refitbench.records,
                         "--json", "out.json", np=2, timeout=120).expect(0)

    cases = json.loads((refitbench.folder / "out.json").read_text())["cases"]
    assert [c["outcome"] for c in cases] == ["pass", "pass", "pass", "expected_finding"], outcome
    assert [c["tensors"] for c in cases] == [272] * 4
    refused = {f["tensor"] for f in cases[3]["findings"]}
    assert refused == {f"model.layers.{n}.self_attn.{p}_proj.weight" for n in range(30) for p in "qkv"}
    assert {f["engine_behaviour"] for f in cases[3]["findings"]} == {"silently_wrong"}
    for case in cases[1:3]:
        # A row has its own scale, so the error is a little below that of blocks (31.55 dB).
        assert 31.5 < case["accuracy"]["sqnr_db"] < 31.8


def test_the_record_says_that_the_weights_were_once_4_bit(refitbench, model):
    refitbench("run", SCENARIO, "--set", f"weights.path={model}", "--output", refitbench.records, "--filter",
               "*vllm-bf16*", np=2, timeout=120).expect(0)

    with h5py.File(next(pathlib.Path(refitbench.records).glob("*.h5"))) as record:
        remark = record["cases/000/notes"].attrs["remark"]
        assert "4-bit" in (remark.decode() if isinstance(remark, bytes) else remark)


def test_blocks_without_an_engine_have_the_error_of_the_scheme(refitbench, model):
    outcome = refitbench("quantize", "--recipe", "prime-rl-blockwise", "--input", model / "model.safetensors", "--output",
                         "fp8.safetensors", "--json", "-", timeout=120).expect(0)

    # Pooled over the projections alone; embeddings are matrices of this file too.
    projections = [t["sqnr_db"] for t in outcome.json["tensors"] if "_proj" in t["tensor"]]
    assert len(projections) == 210
    assert 31.50 < sum(projections) / len(projections) < 31.62
