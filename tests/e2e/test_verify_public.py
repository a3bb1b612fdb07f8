# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench verify` met with directories as the Hub and other tools leave them: weight files beside the
checkpoint's own, links into a cache, texts that only Python takes for JSON, lists under the other key."""

import json
import math
import os
import shutil

import numpy
import pytest
from checkpoints import bf16, write_safetensors
from fp8_checkpoints import build
from loader_verdicts import named
from test_verify import spoken, with_input_scales
from test_verify_loaders import folder, verify  # noqa: F401

EXTRA = {"base_model.model.lora_A.weight": ("F32", numpy.ones((2, 2), numpy.float32))}
INDEX = "model.safetensors.index.json"


# Files beside the checkpoint's own -----------------------------------------------------------------------

def changed(c):
    """The norms of a checkpoint, one of them with other values."""
    tensors = {name: c.tensors[name] for name in c.tensors if "norm" in name}
    return tensors | {"model.norm.weight": ("BF16", bf16(numpy.full(256, 0.5)))}


# name: (shards, name of the file beside them, what it holds, {engine: exit code}, whether it is mentioned)
FILES = {
    "a part under the usual name": (2, "model.safetensors",
                                    lambda c: dict(list(c.tensors.items())[:3]),
                                    {"vllm-fp8": 0, "sglang-fp8": 0, "transformers-fp8": 1, "strict": 1}, True),
    "the whole under the usual name": (2, "model.safetensors", lambda c: c.tensors,
                                       {"vllm-fp8": 0, "transformers-fp8": 0, "strict": 0}, False),
    "a file that the index does not name": (2, "adapter_model.safetensors", lambda c: EXTRA,
                                            {"vllm-fp8": 0, "transformers-fp8": 0}, False),
    "an adapter": (1, "adapter_model.safetensors", lambda c: EXTRA,
                   {"vllm-fp8": 1, "sglang-fp8": 0, "transformers-fp8": 0, "strict": 1}, True),
    "the same tensors": (1, "copy.safetensors", lambda c: dict(list(c.tensors.items())[:5]),
                         {"vllm-fp8": 0, "sglang-fp8": 0, "strict": 0}, False),
    "other values": (1, "older.safetensors", changed,
                     {"vllm-fp8": 1, "sglang-fp8": 1, "transformers-fp8": 0, "strict": 1}, True),
    "what another system leaves": (1, "._model.safetensors", lambda c: EXTRA,
                                   {"vllm-fp8": 0, "sglang-fp8": 0, "strict": 0}, False),
    "Mistral's own format": (1, "consolidated.safetensors", lambda c: EXTRA,
                             {"vllm-fp8": 0, "sglang-fp8": 0}, True),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_beside_the_checkpoint_counts_for_the_engines_that_load_it(case, folder):  # noqa: F811
    shards, name, make, codes, mentioned = FILES[case]
    c = build("qw", "block")
    c.files = shards
    c.write(folder)
    write_safetensors(folder / name, make(c))
    for engine, expected in codes.items():
        code, root = verify(folder, "--engine", engine)
        assert code == expected, (engine, [f["message"] for f in root["findings"]])
        assert bool(named(root["findings"], name)) == mentioned, engine


def test_a_file_beside_the_checkpoint_that_cannot_be_read_stops_who_reads_it(folder):  # noqa: F811
    build("qw", "block").write(folder)
    (folder / "pointer.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n", encoding="utf-8")
    assert verify(folder, "--engine", "vllm-fp8")[0] == 1
    assert verify(folder, "--engine", "transformers-fp8")[0] == 0


def test_a_snapshot_of_links_into_a_cache_is_a_directory_as_any_other(folder, tmp_path):  # noqa: F811
    """As huggingface_hub lays it out, with what else a repository holds."""
    c = build("qw", "block")
    c.files, c.index_extra = 3, {"total_size": 17, "total_parameters": 5}
    c.write(folder)
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        shutil.move(path, blobs / f"{number:064x}")
        path.symlink_to(os.path.relpath(blobs / f"{number:064x}", folder))
    (folder / "original").mkdir()
    (folder / "original" / "consolidated.00.pth").write_bytes(b"\0")
    (folder / "pytorch_model.bin").write_bytes(b"\0")
    for engine in ("vllm-fp8", "sglang-fp8", "transformers-fp8"):
        code, root = verify(folder, "--engine", engine)
        assert (code, root["findings"], root["files"]) == (0, [], 3)


# Texts ------------------------------------------------------------------------------------------------------

def test_a_config_with_numbers_that_only_python_writes_is_read(folder):  # noqa: F811
    """json.dumps writes NaN and Infinity unless it is told not to."""
    c = build("qw", "block")
    c.config |= {"initializer_range": math.nan, "time_step_limit": [0.0, math.inf, -math.inf]}
    assert "-Infinity" in json.dumps(c.config)
    assert verify(c.write(folder))[0] == 0
    c.config["hidden_size"] = math.nan
    done = spoken(c.write(folder))
    assert done.returncode == 3 and "hidden_size" in done.stderr


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
def test_a_config_in_another_encoding_is_refused_as_the_engines_do(encoding, folder):  # noqa: F811
    c = build("qw", "block")
    c.config["_name_or_path"] = "modèle"
    c.write(folder)
    text = (folder / "config.json").read_text(encoding="utf-8").replace("mod\\u00e8le", "modèle")
    (folder / "config.json").write_bytes(text.encode("utf-8"))
    assert verify(folder)[0] == 0
    (folder / "config.json").write_bytes(text.encode(encoding))
    with pytest.raises(ValueError), open(folder / "config.json", encoding="utf-8") as file:
        json.load(file)
    done = spoken(folder)
    assert done.returncode == 3 and "config.json" in done.stderr


def test_an_unknown_architecture_is_no_verdict(folder):  # noqa: F811
    c = build("llama", "block")
    c.config |= {"architectures": ["GptOssForCausalLM"], "model_type": "gpt_oss"}
    done = spoken(c.write(folder))
    assert done.returncode == 3 and done.stdout == ""
    assert "GptOssForCausalLM" in done.stderr and "nothing of it was judged" in done.stderr


# Configurations ---------------------------------------------------------------------------------------------

@pytest.mark.parametrize("method", ["awq", "gptq", "bitsandbytes", "mxfp4", "mxfp8", "quark", "fbgemm_fp8", "w8a8_fp8"])
def test_a_method_without_a_contract_is_named_and_no_engine_is_blamed(method, folder):  # noqa: F811
    c = build("llama", "block")
    c.quantization["quant_method"] = method
    code, root = verify(c.write(folder))
    finding, = named(root["findings"], "quantization_config", ("error",))
    assert code == 1 and method in finding["message"] and "no contract" in finding["message"]
    assert "engine_behaviour" not in finding
    code, root = verify(folder, "--engine", "vllm-fp8")
    finding, = named(root["findings"], "quantization_config", ("error",))
    assert code == 1 and "engine_behaviour" not in finding


@pytest.mark.parametrize("list_, code", [({"ignore": ["lm_head"]}, 0), ({"ignore": ["lm_head*"]}, 0),
                                         ({"ignore": ["model.layers.9"]}, 1), ({}, 1),
                                         ({"exclude_modules": ["lm_head"]}, 1)], ids=str)
def test_modelopt_in_vllm_wants_the_head_on_the_list_that_it_reads(list_, code, folder):  # noqa: F811
    c = build("llama", "pcpt")
    del c.quantization["ignore"]
    c.quantization.update(list_)
    result, root = verify(c.write(folder), "--engine", "vllm-modelopt")
    assert result == code
    assert bool(named(root["findings"], "lm_head.weight", ("error",))) == (code == 1)
    assert bool(named(root["findings"], "quantization_config")) == ("exclude_modules" in list_)
    assert verify(folder, "--engine", "trtllm-fp8")[0] == 0


@pytest.mark.parametrize("list_, code", [([], 0), (["lm_head"], 1)], ids=str)
def test_a_quantized_head_is_for_an_engine_that_holds_it_so(list_, code, folder):  # noqa: F811
    c = build("llama", "pcpt")
    c.quantization["ignore"] = list_
    rows, columns = c.tensors["lm_head.weight"][1].shape
    c.tensors["lm_head.weight"] = ("F8_E4M3", numpy.full((rows, columns), 0x38, "u1"))
    c.tensors["lm_head.weight_scale"] = ("F32", numpy.full(rows, 0.01, "f4"))
    result, root = verify(c.write(folder), "--engine", "vllm-modelopt")
    assert result == code
    told = [f["message"] for f in named(root["findings"], "lm_head.weight", ("warning",))]
    assert any("were not judged" in text for text in told) == (code == 0)


def with_cache(c, ends, shape):
    """Scales of the KV cache in every layer."""
    for layer in range(2):
        for end in ends:
            c.tensors[f"model.layers.{layer}.self_attn.{end}"] = ("BF16", bf16(numpy.full(shape, 0.05)))
    return c


@pytest.mark.parametrize("strategy, shape, code", [("tensor", (1,), 0), ("tensor", (4, 1, 1), 1),
                                                   ("attn_head", (4, 1, 1), 0), ("attn_head", (4,), 0),
                                                   ("attn_head", (3, 1, 1), 1), ("attn_head", (2, 2), 1)])
def test_scales_of_the_cache_are_one_a_layer_or_one_a_head(strategy, shape, code, folder):  # noqa: F811
    """llm-compressor stores those of heads as [heads, 1, 1]."""
    c = with_cache(build("llama", "channel"), ["k_scale", "v_scale"], shape)
    c.quantization["kv_cache_scheme"] = {"num_bits": 8, "type": "float", "symmetric": True,
                                         "dynamic": False, "strategy": strategy}
    result, root = verify(c.write(folder), "--engine", "vllm-compressed-tensors")
    assert result == code
    assert bool(named(root["findings"], "*.self_attn.*_scale")) == bool(code)


@pytest.mark.parametrize("ends, fp8, compressed", [
    (["k_proj.output_scale", "v_proj.output_scale", "q_proj.output_scale"], 0, 1), (["kv_scale"], 0, 0),
    (["attn.k_scale", "attn.v_scale"], 0, 0), (["prob_output_scale"], 0, 1), (["k_cache.scale", "v_cache.scale"], 0, 0),
    (["qkqkv_proj.k_scale", "qkqkv_proj.v_scale"], 0, 0), (["k_zero_point"], 0, 0), (["o_proj.weight_zero_point"], 1, 1)], ids=str)
def test_names_of_scales_load_where_the_method_maps_them(ends, fp8, compressed, folder):  # noqa: F811
    """AutoFP8 and Quark write output scales, which quant_method fp8 alone maps."""
    for scheme, engine, code in (("tensor", "vllm-fp8", fp8), ("ct-tensor", "vllm-compressed-tensors", compressed)):
        c = with_cache(build("llama", scheme), ends, (1,))
        result, root = verify(c.write(folder), "--engine", engine)
        assert result == code, (engine, [f["message"] for f in root["findings"]])


@pytest.mark.parametrize("ends, alone", [(["k_scale", "v_scale"], False), (["k_scale"], True), (["v_scale"], True),
                                         (["kv_scale"], False), (["q_scale", "k_scale", "v_scale"], False)], ids=str)
def test_a_scale_of_keys_without_one_of_values_is_told_of(ends, alone, folder):  # noqa: F811
    """Whether it matters is known only where the cache is."""
    for scheme, engine in (("tensor", "vllm-fp8"), ("ct-tensor", "vllm-compressed-tensors")):
        c = with_cache(build("llama", scheme), ends, (1,))
        code, root = verify(c.write(folder), "--engine", engine)
        assert code == 0
        told = [f for f in root["findings"] if "comes without the scale" in f["message"]]
        assert len(told) == (2 if alone else 0), engine
        assert all("where the KV cache is FP8" in f["message"] for f in told)


@pytest.mark.parametrize("value, compressed, told", [(0.03125, 0, False), (0.0312576, 0, False), (0.0625, 1, True)])
def test_input_scales_of_an_expert_that_the_engine_holds_as_one_must_agree(value, compressed, told,
                                                                          folder):  # noqa: F811
    """Within 1e-5; quant_method fp8 keeps either, ModelOpt both."""
    for scheme, engine, code in (("ct-tensor", "vllm-compressed-tensors", compressed),
                                 ("ct-tensor", "sglang-compressed-tensors", compressed),
                                 ("tensor", "vllm-fp8", 0), ("tensor", "vllm-modelopt", 0)):
        c = with_input_scales(build("qwen3moe", scheme))
        name = "model.layers.1.mlp.experts.2.up_proj.input_scale"
        c.tensors[name] = ("F32", numpy.full(1, value, numpy.float32))
        if engine == "vllm-modelopt":
            c.config["quantization_config"] = {
                "quant_method": "modelopt", "quant_algo": "FP8",
                "ignore": ["lm_head", *(f"model.layers.{layer}.mlp.gate" for layer in range(2))]}
        elif scheme == "tensor":
            c.quantization["activation_scheme"] = "static"
        else:
            c.quantization["config_groups"]["group_0"]["input_activations"]["dynamic"] = False
        result, root = verify(c.write(folder), "--engine", engine)
        assert result == code, (engine, [f["message"] for f in root["findings"]])
        assert bool(named(root["findings"], name)) == (told and engine != "vllm-modelopt"), engine


@pytest.mark.parametrize("engine", ["vllm-fp8", "sglang-fp8"])
def test_projections_that_are_fused_on_disk_are_said_to_be_unjudged(engine, folder):  # noqa: F811
    c = build("qw", "block")
    for leaf in ("weight", "weight_scale_inv"):
        parts = [c.tensors.pop(f"model.layers.0.self_attn.{part}_proj.{leaf}") for part in "qkv"]
        c.tensors["model.layers.0.self_attn.qkv_proj." + leaf] = (
            parts[0][0], numpy.concatenate([array for _, array in parts]))
    code, root = verify(c.write(folder), "--engine", engine)
    told = named(root["findings"], "model.layers.0.self_attn.qkv_proj.*", ("error",))
    assert code == 1 and len(told) == 2
    for finding in told:
        assert "was not run" in finding["message"] and "engine_message" not in finding
        assert "engine_behaviour" not in finding
