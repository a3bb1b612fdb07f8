# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What `export` writes, `verify` passes; and what is changed in it afterwards, `verify` finds."""

import json

import numpy
import pytest
from checkpoints import read_safetensors, write_safetensors
from export_models import CONFIGS, stacked, stored, values_of, write_model

# One recipe a scheme for the ordinary suite; the slow test takes all.
FIRST = {"fp8_blockwise": "prime-rl-blockwise", "fp8_channelwise": "modelopt-pc-pt",
         "fp8_tensorwise": "tensorwise"}
# The engine drops every block scale of a Llama: nothing of it can stay quantized.
IMPOSSIBLE = {("sglang-fp8", "fp8_blockwise", "llama")}
# No contract for the architecture.
ARCHITECTURES = {"trtllm-fp8": {"llama", "qwen2", "qwen3", "qwen3_moe"}}


def engines(refitbench):
    rows = refitbench("list", "engines", "--json", "-").expect(0).json["rows"]
    return {row["name"]: [scheme for scheme in row["schemes"] if scheme in FIRST] for row in rows}


def recipes(refitbench):
    rows = refitbench("list", "recipes", "--json", "-").expect(0).json["rows"]
    return {row["name"]: row["scheme"] for row in rows}


def pass_verify(refitbench, folder, engine, source):
    outcome = refitbench("verify", folder, "--engine", engine, "--reference", source, "--json",
                         "-").expect(0)
    errors = [row for row in outcome.json["findings"] if row["severity"] == "error"]
    assert errors == [], outcome
    return outcome.json


def export_and_verify(refitbench, source, recipe, scheme, engine, model):
    """True where the engine has the pair; the export of any other is refused."""
    outcome = refitbench("export", "--model", source, "--recipe", recipe, "--engine", engine, "--output",
                         f"{engine}-{recipe}", "--unloadable", "bf16")
    possible = model in ARCHITECTURES.get(engine, CONFIGS)
    if not possible or (engine, scheme, model) in IMPOSSIBLE:
        outcome.expect(1, 2)
        return False
    outcome.expect(0)
    found = pass_verify(refitbench, refitbench.folder / f"{engine}-{recipe}", engine, source)
    assert (found["verdict"], found["scheme"]) == ("pass", scheme)
    return True


@pytest.mark.parametrize("model", CONFIGS)
def test_verify_passes_what_export_writes(refitbench, tmp_path, model):
    write_model(tmp_path / "bf16", CONFIGS[model])
    count = 0
    for engine, schemes in engines(refitbench).items():
        for scheme in schemes:
            count += export_and_verify(refitbench, tmp_path / "bf16", FIRST[scheme], scheme, engine, model)
    assert count >= 5


@pytest.mark.slow
@pytest.mark.parametrize("model", CONFIGS)
def test_verify_passes_every_recipe_for_every_engine(refitbench, tmp_path, model):
    write_model(tmp_path / "bf16", CONFIGS[model])
    for engine, schemes in engines(refitbench).items():
        for recipe, scheme in recipes(refitbench).items():
            if scheme in schemes:
                export_and_verify(refitbench, tmp_path / "bf16", recipe, scheme, engine, model)


def as_f32(tensors):
    return {name: ("F32", (array.astype("<u4") << 16).view("<f4") if dtype == "BF16" else array)
            for name, (dtype, array) in tensors.items()}


def with_cache_scales(tensors):
    return tensors | {f"model.layers.{layer}.self_attn.{part}_scale": ("F32", numpy.ones(1, "<f4"))
                      for layer in range(2) for part in "kv"}


SOURCES = {
    "F32": ("qwen3", as_f32, "vllm-fp8", "prime-rl-blockwise"),
    "F32 with experts": ("deepseek_v3", as_f32, "vllm-compressed-tensors", "prime-rl-channelwise"),
    "stacked experts": ("qwen3_moe", lambda tensors: stacked(tensors, CONFIGS["qwen3_moe"]), "sglang-fp8",
                        "deepgemm"),
    "scales of the cache": ("llama", with_cache_scales, "vllm-compressed-tensors", "tensorwise"),
    "scales of the cache for blocks": ("qwen3", with_cache_scales, "sglang-fp8", "deepgemm"),
}


@pytest.mark.parametrize("what", SOURCES)
def test_verify_passes_exports_of_other_sources(refitbench, tmp_path, what):
    model, change, engine, recipe = SOURCES[what]
    write_model(tmp_path / "source", CONFIGS[model], change(stored(values_of(CONFIGS[model]))))
    refitbench("export", "--model", tmp_path / "source", "--recipe", recipe, "--engine", engine, "--output",
               "out").expect(0)

    pass_verify(refitbench, tmp_path / "out", engine, tmp_path / "source")


NAME = "model.layers.1.mlp.down_proj.weight"
SCALE = NAME + "_scale_inv"


def flip(tensors, name, at=100):
    dtype, array = tensors[name]
    changed = array.copy()
    changed.reshape(-1).view("u1")[at % array.nbytes] ^= 0x40
    tensors[name] = (dtype, changed)


def rename(tensors, old, new):
    tensors[new] = tensors.pop(old)


def reshape(tensors, name):
    dtype, array = tensors[name]
    tensors[name] = (dtype, numpy.vstack([array, array[:1]]))


def retype(tensors, name):
    dtype, array = tensors[name]
    tensors[name] = ("F32", array.astype("<f4"))


# What is changed, and the tensor (or "quantization_config") that a finding must name.
CHANGES = {
    "a byte of a weight": (lambda tensors: flip(tensors, NAME), NAME),
    "a byte of a scale": (lambda tensors: flip(tensors, SCALE, 3), SCALE.removesuffix("_scale_inv")),
    "a byte of an unquantized tensor": (lambda tensors: flip(tensors, "model.norm.weight"),
                                        "model.norm.weight"),
    "the name of a weight": (lambda tensors: rename(tensors, NAME, NAME + "s"), NAME),
    "the name of a scale": (lambda tensors: rename(tensors, SCALE, NAME + "_scale"), NAME + "_scale"),
    "the shape of a weight": (lambda tensors: reshape(tensors, NAME), NAME),
    "the shape of a scale": (lambda tensors: reshape(tensors, SCALE), SCALE),
    "the dtype of a weight": (lambda tensors: retype(tensors, NAME), NAME),
}


@pytest.fixture
def exported(refitbench, tmp_path):
    write_model(tmp_path / "bf16", CONFIGS["qwen3"])
    refitbench("export", "--model", tmp_path / "bf16", "--recipe", "prime-rl-blockwise", "--engine",
               "vllm-fp8", "--output", "out").expect(0)
    return tmp_path / "out"


def arrays(folder):
    numbers = {"BF16": "<u2", "F32": "<f4", "F8_E4M3": "u1"}
    return {name: (dtype, numpy.frombuffer(content, numbers[dtype]).reshape(shape))
            for name, (dtype, shape, content) in read_safetensors(folder / "model.safetensors").items()}


@pytest.mark.parametrize("what", CHANGES)
def test_a_change_in_the_export_is_found(refitbench, tmp_path, exported, what):
    change, name = CHANGES[what]
    pass_verify(refitbench, exported, "vllm-fp8", tmp_path / "bf16")
    tensors = arrays(exported)
    change(tensors)
    write_safetensors(exported / "model.safetensors", tensors)
    (exported / "model.safetensors.index.json").unlink()

    found = refitbench("verify", exported, "--engine", "vllm-fp8", "--reference", tmp_path / "bf16",
                       "--json", "-").expect(1).json

    named = {row["tensor"] for row in found["findings"] if row["severity"] == "error"}
    assert any(tensor.startswith(name) for tensor in named), named


@pytest.mark.parametrize("key, value", [("weight_block_size", None), ("activation_scheme", "static"),
                                        ("quant_method", "awq"),
                                        ("modules_to_not_convert", [NAME.removesuffix(".weight")])])
def test_a_change_of_the_config_is_found(refitbench, tmp_path, exported, key, value):
    path = exported / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"][key] = value
    path.write_text(json.dumps(config))

    found = refitbench("verify", exported, "--engine", "vllm-fp8", "--json", "-").expect(1).json

    assert any(row["severity"] == "error" for row in found["findings"])
