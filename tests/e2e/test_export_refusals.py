# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What `refitbench export` refuses, with which exit code, and that it leaves nothing behind."""

import json
import os
import resource
import signal
import subprocess
import time

import numpy
import pytest
from checkpoints import bf16, write_safetensors
from export_models import CONFIGS, shapes_of, stored, values_of, write_model

BLOCKWISE = ("--recipe", "prime-rl-blockwise", "--engine", "vllm-fp8")


@pytest.fixture
def source(tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["llama"])
    return tmp_path / "bf16"


def refuse(refitbench, code, *arguments):
    before = sorted(path.name for path in refitbench.folder.iterdir())
    outcome = refitbench("export", *arguments).expect(code)
    after = sorted(path.name for path in refitbench.folder.iterdir() if not path.name.startswith("std"))
    assert after == [name for name in before if not name.startswith("std")]
    assert outcome.stdout == ""
    return outcome


WRONG = {
    "no model": ((*BLOCKWISE, "--output", "out"), ["--model"]),
    "no output": (("--model", "bf16", *BLOCKWISE), ["--output"]),
    "no engine": (("--model", "bf16", "--recipe", "deepgemm", "--output", "out"), ["--engine"]),
    "an unknown recipe": (("--model", "bf16", "--recipe", "deepgem", "--engine", "vllm-fp8", "--output",
                           "out"), ["deepgemm"]),
    "an unknown engine": (("--model", "bf16", "--recipe", "deepgemm", "--engine", "vllm-fp", "--output",
                           "out"), ["vllm-fp8"]),
    "a scheme that the engine lacks": (
        ("--model", "bf16", "--recipe", "prime-rl-channelwise", "--engine", "vllm-fp8", "--output", "out"),
        ["fp8_channelwise", "vllm-compressed-tensors", "vllm-modelopt", "deepgemm"]),
    "an engine without quantization": (
        ("--model", "bf16", "--recipe", "deepgemm", "--engine", "vllm-bf16", "--output", "out"),
        ["fp8_blockwise", "vllm-fp8"]),
    "the input as output": (("--model", "bf16", *BLOCKWISE, "--output", "./bf16/"), ["--model", "bf16"]),
    "a shard size of nothing": (
        ("--model", "bf16", *BLOCKWISE, "--output", "out", "--max-shard-size", "0GB"), ["--max-shard-size"]),
    "a way out that there is not": (
        ("--model", "bf16", *BLOCKWISE, "--output", "out", "--unloadable", "f32"), ["refuse", "bf16"]),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_use_is_refused(refitbench, source, what):
    arguments, words = WRONG[what]
    refuse(refitbench, 2, *arguments).expect_said(*words)


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_what_exists_is_not_overwritten(refitbench, source, kind):
    taken = refitbench.folder / "out"
    if kind == "folder":
        taken.mkdir()
        (taken / "keep.txt").write_text("mine")
    else:
        taken.write_text("mine")
    refuse(refitbench, 2, "--model", source, *BLOCKWISE, "--output", taken).expect_said("out")
    assert (taken / "keep.txt" if kind == "folder" else taken).read_text() == "mine"


def test_an_empty_directory_is_taken(refitbench, source):
    (refitbench.folder / "out").mkdir()
    refitbench("export", "--model", source, *BLOCKWISE, "--output", "out/").expect(0)
    assert (refitbench.folder / "out" / "model.safetensors").exists()


MISSING = {
    "no directory": ("nowhere", ["nowhere"]),
    "no weights": ("empty", ["empty"]),
}


@pytest.mark.parametrize("what", MISSING)
def test_a_source_that_cannot_be_read_is_3(refitbench, source, what):
    name, words = MISSING[what]
    if name == "empty":
        (refitbench.folder / "empty").mkdir()
        (refitbench.folder / "empty" / "config.json").write_text((source / "config.json").read_text())
    refuse(refitbench, 3, "--model", name, *BLOCKWISE, "--output", "out").expect_said(*words)


def test_a_missing_output_folder_is_3(refitbench, source):
    refuse(refitbench, 3, "--model", source, *BLOCKWISE, "--output", "no/where").expect_said("no/where")


def rewrite(source, change):
    tensors = stored(values_of(CONFIGS["llama"]))
    change(tensors)
    write_safetensors(source / "model.safetensors", tensors)


K_PROJ = "model.layers.0.self_attn.k_proj.weight"


def test_a_quantized_source_is_refused(refitbench, source):
    refitbench("export", "--model", source, *BLOCKWISE, "--output", "fp8").expect(0)
    refuse(refitbench, 1, "--model", "fp8", *BLOCKWISE, "--output", "again").expect_said(
        "quantization_config", "quantized already")
    # The tensors say it as well where the config does not.
    (refitbench.folder / "fp8" / "config.json").write_text((source / "config.json").read_text())
    refuse(refitbench, 1, "--model", "fp8", *BLOCKWISE, "--output", "again").expect_said(
        K_PROJ, "F8_E4M3", "quantized already")


TENSORS = {
    "a missing tensor": (lambda tensors: tensors.pop(K_PROJ), [K_PROJ, "missing"]),
    "another shape": (lambda tensors: tensors.update({K_PROJ: ("BF16", bf16(numpy.ones((64, 256))))}),
                      [K_PROJ, "[64, 256]", "[128, 256]"]),
    "an unknown tensor": (lambda tensors: tensors.update({"model.extra.weight": ("BF16", bf16([1.0]))}),
                          ["model.extra.weight"]),
    "a bias that the config has not": (
        lambda tensors: tensors.update({K_PROJ.replace("weight", "bias"): ("BF16", bf16(numpy.ones(128)))}),
        ["k_proj.bias"]),
}


@pytest.mark.parametrize("what", TENSORS)
def test_a_source_that_is_not_the_model_is_refused(refitbench, source, what):
    change, words = TENSORS[what]
    rewrite(source, change)
    refuse(refitbench, 1, "--model", source, *BLOCKWISE, "--output", "out").expect_said(*words)


@pytest.mark.parametrize("name", [K_PROJ, "model.norm.weight", "model.embed_tokens.weight"])
@pytest.mark.parametrize("pattern", [0x7FC0, 0xFF80])
def test_a_value_that_is_not_finite_is_refused(refitbench, source, name, pattern):
    def plant(tensors):
        tensors[name][1].reshape(-1)[300 % tensors[name][1].size] = pattern
    rewrite(source, plant)
    refuse(refitbench, 1, "--model", source, *BLOCKWISE, "--output", "out").expect_said(
        name, "1 NaN" if pattern == 0x7FC0 else "1 Inf")


def test_a_scale_of_zero_is_refused(refitbench, source):
    # verl's fallback has no floor: this block's scale would be 0.
    def plant(tensors):
        tensors[K_PROJ][1][:] = 1
    rewrite(source, plant)
    refuse(refitbench, 1, "--model", source, "--recipe", "verl-torch", "--engine", "vllm-fp8", "--output",
           "out").expect_said(K_PROJ, "verl-torch")
    refitbench("export", "--model", source, *BLOCKWISE, "--output", "out").expect(0)


OVERRIDES = {
    "no JSON": ("{", 3, ["override.json", "JSON"]),
    "no object": ("[1]", 3, ["override.json", "object"]),
    "other shapes": ('{"hidden_size": 512}', 2, ["--config-override", "shapes"]),
    "another size of layers": ('{"num_hidden_layers": 1}', 2, ["--config-override"]),
    "an unknown architecture": ('{"architectures": ["MambaForCausalLM"]}', 2, ["MambaForCausalLM"]),
    "no quantization": ('{"quantization_config": null}', 2, ["quantization_config"]),
    "another scheme": ('{"quantization_config": {"weight_block_size": null}}', 2, ["fp8_tensorwise"]),
    "another method": ('{"quantization_config": {"quant_method": "awq"}}', 2, ["awq"]),
    "a skip list that is none": ('{"quantization_config": {"ignored_layers": "lm_head"}}', 2,
                                 ["ignored_layers"]),
    "half of a fused layer": (
        '{"quantization_config": {"ignored_layers": ["model.layers.0.self_attn.q_proj"]}}', 1,
        ["Detected some but not all shards"]),
}


@pytest.mark.parametrize("what", OVERRIDES)
def test_an_override_that_cannot_be_meant_is_refused(refitbench, source, what):
    text, code, words = OVERRIDES[what]
    refitbench.write("override.json", text)
    refuse(refitbench, code, "--model", source, *BLOCKWISE, "--output", "out", "--config-override",
           "override.json").expect_said(*words)


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model whose export takes long enough to be met in the middle."""
    config = CONFIGS["llama"] | {"hidden_size": 1024, "vocab_size": 32000, "num_hidden_layers": 4}
    patterns = numpy.random.default_rng(3).integers(0x3C00, 0x3D00, 1 << 20).astype("<u2")
    folder = tmp_path_factory.mktemp("large") / "bf16"
    write_model(folder, config, {name: ("BF16", numpy.resize(patterns, shape))
                                 for name, shape in shapes_of(config).items()})
    return folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_an_interrupted_export_leaves_no_directory(refitbench, large, number):
    process = refitbench.start("export", "--model", large, *BLOCKWISE, "--output", "out")
    partial = refitbench.folder / f"out.partial-{process.pid}"
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        if partial.exists() and any(partial.glob("*.safetensors*")):
            os.kill(process.pid, number)
            break
        time.sleep(0.001)
    outcome = refitbench.finish(process, 30)

    assert not (refitbench.folder / "out").exists(), outcome
    if number == signal.SIGKILL:
        assert outcome.code == -number
    else:
        outcome.expect(3).expect_said("interrupted")
        assert not partial.exists()


def test_a_full_disk_leaves_nothing(refitbench, source):
    # A limit on the size of files stands for a full disk.
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    done = subprocess.run(refitbench.command("export", "--model", source, *BLOCKWISE, "--output", "out"),
                          cwd=refitbench.folder, preexec_fn=limit, capture_output=True, text=True,
                          check=False)
    assert done.returncode == 3 and "model.safetensors" in done.stderr, done
    assert not any(path.name.startswith("out") for path in refitbench.folder.iterdir())


def test_json_goes_to_its_file(refitbench, source):
    outcome = refitbench("export", "--model", source, *BLOCKWISE, "--output", "out", "--json",
                         "result.json").expect(0)
    result = json.loads((refitbench.folder / "result.json").read_text())
    assert result["schema"] == "refitbench.export/1"
    assert {"tool", "argv", "tensors", "bytes", "recipe", "engine", "files", "left_in_bf16"} <= set(result)
    assert result["output"] == str(refitbench.folder / "out")
    assert all(line.startswith("#") for line in outcome.stdout.splitlines())
