# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Directories that the transformers library wrote: every tensor arrives as it is.

Slow: PyTorch and transformers are installed into the build folder unless REFIT_PEERS_PYTHON names a
Python that has them. What was written is read with the safetensors package.
"""

import json
import os
import pathlib
import subprocess
import sys

import numpy
import pytest
from checkpoints import checkpoint_run, f32_of_bf16, read_safetensors, xxh3_128
from user_program import BUILD, text_of

WRITER = pathlib.Path(__file__).with_name("peers") / "save_pretrained.py"
KINDS = ["llama", "llama-tied", "qwen2", "qwen3", "qwen3-moe", "deepseek-v3"]


@pytest.fixture(scope="session")
def peers_python():
    """A Python with PyTorch and transformers."""
    def has_both(python):
        return subprocess.run([python, "-c", "import torch, transformers"], capture_output=True,
                              check=False).returncode == 0

    chosen = os.environ.get("REFIT_PEERS_PYTHON")
    for python in [chosen] if chosen else [sys.executable, str(BUILD / "peers/bin/python")]:
        if os.path.exists(python) and has_both(python):
            return python
    if chosen:
        pytest.fail(f"REFIT_PEERS_PYTHON={chosen} has no PyTorch or no transformers", pytrace=False)
    subprocess.run([sys.executable, "-m", "venv", BUILD / "peers"], check=True)
    python = str(BUILD / "peers/bin/python")
    install = subprocess.run([python, "-m", "pip", "install", "--quiet", "torch", "transformers"],
                             capture_output=True, text=True, check=False)
    if install.returncode != 0 or not has_both(python):
        pytest.skip("PyTorch and transformers could not be installed: "
                    + (install.stderr.strip().splitlines() or ["no word from pip"])[-1])
    return python


@pytest.fixture(scope="session")
def directories(peers_python, tmp_path_factory):
    """{kind: folder as save_pretrained wrote it}."""
    root = tmp_path_factory.mktemp("save_pretrained")
    for kind in KINDS:
        subprocess.run([peers_python, WRITER, kind, root / kind], check=True, timeout=300)
    return {kind: root / kind for kind in KINDS}


def stored(folder):
    """{name: (dtype, shape, bytes)} of all shards."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        tensors |= read_safetensors(path)
    return tensors


def run(refitbench, folder, receiver, np, trainers):
    outcome = refitbench.run(checkpoint_run(folder, trainers, transport="mpi",
                                            extra=f"receiver: {receiver}\n"), np=np, timeout=300)
    assert outcome.expect(0).json["cases"][0]["outcome"] == "pass", outcome
    with refitbench.record(outcome) as record:
        digests = {text_of(row["name"]): text_of(row["digest"]) for row in record["cases/000/tensors"]}
    for path in refitbench.records.glob("*.h5"):
        path.unlink()
    return digests


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_tensor_arrives_as_it_was_written(refitbench, directories, kind):
    folder = directories[kind]
    tensors = stored(folder)
    assert (folder / "model.safetensors.index.json").exists()

    loaded = run(refitbench, folder, "{engine: vllm-bf16, tp: 2}", 4, 2)

    config = json.loads((folder / "config.json").read_text())
    tied = config["tie_word_embeddings"]
    assert set(loaded) == set(tensors) and ("lm_head.weight" in loaded) == (not tied)
    for name, (dtype, _, content) in tensors.items():
        assert dtype == "BF16"
        if name.endswith("e_score_correction_bias"):  # vLLM holds it in F32
            content = f32_of_bf16(numpy.frombuffer(content, "<u2")).tobytes()
        assert loaded[name] == xxh3_128(content), name


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_block_scales_pass_on_what_was_written(refitbench, directories, kind):
    plain = {name for name, (_, shape, _) in stored(directories[kind]).items() if len(shape) != 2}

    loaded = run(refitbench, directories[kind], "{engine: vllm-fp8, tp: 1}", 3, 2)

    assert plain < set(loaded)
