# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`refitbench verify` as a command: right checkpoints of public tools, single changed bytes, malformed files,
its text, its JSON and its memory."""

import json
import os
import re
import subprocess
import sys

import numpy
import pytest
from checkpoint_faults import DOWN, GATE, O, Q, build_faulty
from checkpoints import bf16, write_safetensors
from fp8_checkpoints import build, quantized
from loader_verdicts import named
from test_verify_loaders import folder, references, verify  # noqa: F401
from user_program import PROGRAM

LAYERS = [f"model.layers.{layer}" for layer in range(2)]


def spoken(*arguments):
    """One call without --json."""
    return subprocess.run([PROGRAM, "verify", *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, check=False)


def with_mtp(c):
    """DeepSeek's layer for multi-token prediction behind the decoder layers."""
    c.config["num_nextn_predict_layers"] = 1
    at = "model.layers.2."
    for name in [name for name in c.tensors if name.startswith("model.layers.1.")]:
        c.tensors[name.replace(".layers.1.", ".layers.2.")] = c.tensors[name]
    norm = bf16(numpy.ones(256))
    for leaf in ("enorm", "hnorm", "shared_head.norm"):
        c.tensors[f"{at}{leaf}.weight"] = ("BF16", norm)
    c.tensors[at + "eh_proj.weight"] = ("BF16", bf16(numpy.ones((256, 512))))
    c.tensors[at + "embed_tokens.weight"] = c.tensors["model.embed_tokens.weight"]
    c.tensors[at + "shared_head.head.weight"] = c.tensors["lm_head.weight"]


def qwen_moe_fp8():
    """Qwen's own: BF16 scales, and a list that names norms, routers and the head by full path."""
    c = build_faulty("qwen3moe", "block", "scale bf16")
    c.quantization["modules_to_not_convert"] = ["lm_head", "model.norm"] + [
        f"{layer}.{part}" for layer in LAYERS
        for part in ("input_layernorm", "post_attention_layernorm", "mlp.gate", "self_attn.q_norm")]
    c.files = 3
    return c


def listed_experts():
    """The experts of a layer in BF16, each projection on the list by its full path."""
    c = build("qwen3moe", "block")
    for module in c.modules():
        if module.startswith(LAYERS[0] + ".mlp.experts."):
            c.skip(module)
    return c


def deepseek_fp8():
    """DeepSeek's own: ragged kv_a, F32 router bias, layer for multi-token prediction, ue8m0 named."""
    c = build("dsv3", "block")
    with_mtp(c)
    c.quantization["scale_fmt"] = "ue8m0"
    for name, (_, array) in list(c.tensors.items()):
        if name.endswith("e_score_correction_bias"):
            c.tensors[name] = ("F32", numpy.ones(array.shape, numpy.float32))
    return c


def red_hat_dynamic():
    """llm-compressor's FP8_DYNAMIC: BF16 channel scales, a group of another name, a pattern to ignore."""
    c = build_faulty("llama", "channel", "scale bf16")
    group = c.quantization["config_groups"].pop("group_0")
    c.quantization["config_groups"] = {"FP8_DYNAMIC": group | {"format": "float-quantized"}}
    c.quantization.update(ignore=["re:.*lm_head"], sparsity_config={}, transform_config={},
                          version="0.12.2")
    return c


def red_hat_block():
    """llm-compressor's FP8_BLOCK with the block size as the older text."""
    c = build("llama", "ct-block")
    c.quantization["config_groups"]["group_0"]["weights"]["block_structure"] = "128x128"
    return c


def transformers_five():
    """transformers 5: `dtype`, `rope_parameters`, an index with total_parameters."""
    c = build_faulty("qw", "block", "shards")
    del c.config["torch_dtype"]
    c.config |= {"dtype": "bfloat16", "transformers_version": "5.2.0",
                 "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    c.quantization.update(dequantize=False, modules_to_not_convert=["lm_head"], scale_fmt="float")
    return c


def half_precision():
    """A model in F16, unquantized tensors and scales too."""
    c = build_faulty("llama", "channel", "scale f16")
    c.config["torch_dtype"] = "float16"
    for name, (dtype, array) in list(c.tensors.items()):
        if dtype == "BF16":
            c.tensors[name] = ("F16", (array.astype("<u4") << 16).view("<f4").astype("<f2"))
    return c


def single_precision():
    """Norms, embedding and head in F32, as some trainers keep them."""
    c = build("llama", "block")
    for name, (dtype, array) in list(c.tensors.items()):
        if dtype == "BF16":
            c.tensors[name] = ("F32", (array.astype("<u4") << 16).view("<f4"))
    return c


def old_llama():
    """Rotary caches in the checkpoint, which every loader ignores."""
    c = build("llama", "block")
    for layer in LAYERS:
        c.tensors[layer + ".self_attn.rotary_emb.inv_freq"] = ("F32", numpy.ones(32, numpy.float32))
    return c


def kv_cache_scales():
    """Scales of an FP8 KV cache under the names of k_proj and v_proj."""
    c = build("llama", "channel")
    for layer in LAYERS:
        for part in "kv":
            c.tensors[f"{layer}.self_attn.{part}_proj.{part}_scale"] = (
                "F32", numpy.full(1, 0.05, numpy.float32))
    return c


def zero_layer():
    """A projection of nothing but zeros, with the scale that compressed-tensors gives it."""
    c = build("llama", "channel")
    name, scale = DOWN + ".weight", c.scale_name(DOWN)
    c.tensors[name] = ("F8_E4M3", numpy.zeros_like(c.tensors[name][1]))
    c.tensors[scale] = ("F32", numpy.full_like(c.tensors[scale][1], 2.0 ** -23))
    return c


def with_input_scales(c):
    """A calibrated scale of the activations beside every quantized weight."""
    for module in c.modules():
        c.tensors[module + ".input_scale"] = ("BF16", bf16(numpy.full(1, 0.03125)))
    return c


def red_hat_static():
    """llm-compressor's FP8: one scale a tensor, static activations, all in BF16."""
    c = with_input_scales(build_faulty("qw", "ct-tensor", "scale bf16"))
    inputs = c.quantization["config_groups"]["group_0"]["input_activations"]
    inputs.update(dynamic=False, strategy="tensor", observer="minmax")
    return c


def red_hat_experts():
    """Routers named by a pattern."""
    c = build_faulty("qwen3moe", "channel", "scale bf16")
    c.quantization["ignore"] = ["lm_head", "re:.*mlp.gate$"]
    return c


def red_hat_cache():
    """An FP8 KV cache beside the weights."""
    c = kv_cache_scales()
    c.quantization["kv_cache_scheme"] = {"num_bits": 8, "type": "float", "symmetric": True,
                                         "dynamic": False, "strategy": "tensor"}
    return c


def modelopt_per_tensor():
    """ModelOpt's FP8: weight and input scales of one value without dimensions."""
    c = with_input_scales(build_faulty("llama", "tensor", "scales 0d"))
    c.config["quantization_config"] = {"quant_method": "modelopt", "quant_algo": "FP8",
                                       "ignore": ["lm_head"]}
    return c


def autofp8_static():
    """Per-tensor FP8 with static activations, as older tools wrote it."""
    c = with_input_scales(build("llama", "tensor"))
    c.quantization.update(activation_scheme="static", ignored_layers=["lm_head"])
    return c


def plain_block():
    """Nothing special."""
    return build("llama", "block")


def plain_rows():
    """ModelOpt's algorithm of one scale a row."""
    return build("llama", "pcpt")


RIGHT = {"vllm-fp8": [qwen_moe_fp8, deepseek_fp8, single_precision, old_llama, autofp8_static,
                      listed_experts],
         "vllm-compressed-tensors": [red_hat_dynamic, red_hat_block, half_precision, kv_cache_scales,
                                     zero_layer, red_hat_static, red_hat_experts, red_hat_cache],
         "vllm-modelopt": [modelopt_per_tensor],
         "sglang-fp8": [qwen_moe_fp8, deepseek_fp8, transformers_five, listed_experts],
         "sglang-compressed-tensors": [red_hat_static, red_hat_experts],
         "transformers-fp8": [qwen_moe_fp8, transformers_five, old_llama],
         "trtllm-fp8": [plain_rows, red_hat_dynamic], "strict": [plain_block]}


@pytest.mark.parametrize("engine, right", [(e, make) for e, all_ in RIGHT.items() for make in all_])
def test_right_checkpoints_of_public_tools_pass(engine, right, folder):  # noqa: F811
    """With the files that lie beside the weights in a published repository."""
    right().write(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}', encoding="utf-8")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    code, root = verify(folder, "--engine", engine)
    assert code == 0, [f["message"] for f in root["findings"]]


def test_modelopts_own_file_beside_a_bare_config_counts(folder):  # noqa: F811
    """hf_quant_config.json names the algorithm in an object of its own."""
    c = build("llama", "pcpt")
    del c.config["quantization_config"]
    c.write(folder)
    text = {"producer": {"name": "modelopt", "version": "0.40"},
            "quantization": {"quant_algo": "FP8_PER_CHANNEL_PER_TOKEN", "kv_cache_quant_algo": None,
                             "exclude_modules": ["lm_head"]}}
    (folder / "hf_quant_config.json").write_text(json.dumps(text), encoding="utf-8")
    code, root = verify(folder)
    assert (code, root["engine"], root["scheme"]) == (0, "vllm-modelopt", "fp8_channelwise")


def test_without_an_engine_the_configuration_chooses_and_the_best_counts(folder):  # noqa: F811
    """One part of q_proj in BF16: no fused engine loads it; transformers, which fuses nothing, does."""
    build_faulty("llama", "block", "skip q").write(folder)
    code, root = verify(folder)
    verdicts = {row["engine"]: row["verdict"] for row in root["engines"]}
    assert verdicts["vllm-fp8"] == "fail"
    assert root["verdict"] == ("pass" if "pass" in verdicts.values() else "fail")
    assert code == (0 if root["verdict"] == "pass" else 1)
    for row in root["engines"]:
        assert (row["verdict"] == "fail") == bool([f for f in row["findings"]
                                                   if f["severity"] == "error"])


@pytest.mark.parametrize("model, scheme, tp", [("llama", "block", 2), ("llama", "ct-block", 1),
                                               ("qwen3moe", "channel", 1), ("llama", "pbwo", 1)])
def test_an_engine_that_cannot_judge_hides_no_broken_tensor(model, scheme, tp, folder):  # noqa: F811
    """transformers at TP 2, TensorRT-LLM with blocks or experts: one error each, about themselves."""
    c = build(model, scheme)
    broken = c.modules()[:2]
    for module in broken:
        dtype, scales = c.tensors[c.scale_name(module)]
        c.tensors[c.scale_name(module)] = (dtype, numpy.ascontiguousarray(scales[:-1]))
    c.write(folder)
    code, root = verify(folder, "--tp", tp)
    assert code == 1
    for module in broken:
        assert named(root["findings"], c.scale_name(module), ("error",)), root["engine"]


def test_a_refusal_names_the_engines_that_take_static_activations(folder):  # noqa: F811
    """Not those that load the scheme with dynamic activations alone."""
    modelopt_per_tensor().write(folder)
    code, root = verify(folder, "--engine", "trtllm-fp8")
    assert code == 1
    assert "vllm-modelopt" in root["findings"][0]["remedy"]
    assert "transformers-fp8" not in root["findings"][0]["remedy"]


@pytest.mark.parametrize("scheme, engine", [("block", "vllm-fp8"), ("pcpt", "vllm-modelopt"),
                                            ("channel", "vllm-compressed-tensors")])
def test_the_engine_is_found_by_the_method(scheme, engine, folder):  # noqa: F811
    """The first of those that read it, since all load it."""
    build("llama", scheme).write(folder)
    code, root = verify(folder)
    assert (code, root["engine"]) == (0, engine)
    assert engine in [row["engine"] for row in root["engines"]]


@pytest.mark.parametrize("method", ["gptq", "fbgemm_fp8", None])
def test_a_method_that_no_engine_has_is_a_finding(method, folder):  # noqa: F811
    """Nothing is guessed."""
    c = build("llama", "block")
    if method is None:
        del c.quantization["quant_method"]
    else:
        c.quantization["quant_method"] = method
    c.write(folder)
    code, root = verify(folder)
    assert code == 1 and root["engines"][0]["engine"] == "none"
    assert named(root["findings"], "quantization_config", ("error",))


def test_quantized_tensors_without_a_configuration_are_a_finding(folder):  # noqa: F811
    """Every engine would cast the codes to BF16 without a scale."""
    c = build("llama", "block")
    del c.config["quantization_config"]
    c.write(folder)
    code, root = verify(folder)
    assert code == 1 and named(root["findings"], O + ".weight*", ("error",))


# Single changed bytes ------------------------------------------------------------------------------

def _file(folder):  # noqa: F811
    return folder / "model.safetensors"


def _offset(folder, tensor, element, width):  # noqa: F811
    content = _file(folder).read_bytes()
    length = int.from_bytes(content[:8], "little")
    begin = json.loads(content[8:8 + length])[tensor]["data_offsets"][0]
    return 8 + length + begin + element * width


def _change(path, offset, change):
    content = bytearray(path.read_bytes())
    content[offset] = change(content[offset])
    path.write_bytes(content)


def _replace(path, old, new):
    content = path.read_bytes()
    assert content.count(old) >= 1 and len(old) == len(new)
    path.write_bytes(content.replace(old, new, 1))


CHANGES = {
    "weight": lambda f: _change(_file(f), _offset(f, GATE + ".weight", 777, 1), lambda b: b ^ 0x10),
    "sign of a weight": lambda f: _change(_file(f), _offset(f, GATE + ".weight", 9, 1), lambda b: b ^ 0x80),
    "scale": lambda f: _change(_file(f), _offset(f, GATE + ".weight_scale_inv", 1, 4) + 2,
                               lambda b: b ^ 0x40),
    "norm": lambda f: _change(_file(f), _offset(f, "model.norm.weight", 3, 2), lambda b: b ^ 1),
    "name": lambda f: _replace(_file(f), b"0.mlp.gate_proj.weight\"", b"0.mlp.gate_prok.weight\""),
    "dtype": lambda f: _replace(_file(f), b'"F8_E4M3"', b'"F8_E5M2"'),
    "shape": lambda f: _replace(_file(f), b"[512, 256]", b"[256, 512]"),
    "config": lambda f: _replace(f / "config.json", b'"hidden_size": 256', b'"hidden_size": 384'),
    "quantization config": lambda f: _replace(f / "config.json", b"dynamic", b"dynamyc"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_one_changed_byte_is_found(change, folder, references):  # noqa: F811
    """Wherever it stands; and the unchanged checkpoint passes."""
    build("llama", "block").write(folder)
    reference = ["--reference", references("llama", "block")]
    assert verify(folder, "--engine", "vllm-fp8", *reference)[0] == 0
    CHANGES[change](folder)
    code, root = verify(folder, "--engine", "vllm-fp8", *reference)
    assert code == 1 and root["findings"][0]["severity"] == "error"


def test_a_tensor_of_an_earlier_step_is_found_though_no_element_is_far_off(folder,  # noqa: F811
                                                                           references):  # noqa: F811
    """One BF16 value in a hundred moved by its last bit: far below the error of E4M3."""
    c = build("llama", "block")
    patterns = c.reference[DOWN + ".weight"].copy()
    patterns.reshape(-1)[::100] ^= 1
    codes, scales = quantized((patterns.astype("<u4") << 16).view("<f4"))
    c.tensors[DOWN + ".weight"] = ("F8_E4M3", codes)
    c.tensors[c.scale_name(DOWN)] = ("F32", scales)
    assert (codes != build("llama", "block").tensors[DOWN + ".weight"][1]).any()
    c.write(folder)
    code, root = verify(folder, "--engine", "vllm-fp8", "--reference", references("llama", "block"))
    assert code == 1
    assert [f["tensor"] for f in root["findings"]] == [DOWN + ".weight"]


def test_scales_rounded_to_bf16_after_use_are_no_other_weights(folder, references):  # noqa: F811
    """Codes are then not the nearest ones in any matrix: a recipe, not a fault."""
    c = build("llama", "block")
    for module in c.modules():
        dtype, array = c.tensors[c.scale_name(module)]
        c.tensors[c.scale_name(module)] = ("BF16", bf16(array))
    c.write(folder)
    code, root = verify(folder, "--engine", "vllm-fp8", "--reference", references("llama", "block"))
    assert code == 0, [f["message"] for f in root["findings"]]


def test_a_reference_names_the_recipe_and_the_error(folder, references):  # noqa: F811
    """s = amax / 448, Q(x / s): what several public recipes are on this data."""
    build("llama", "block").write(folder)
    code, root = verify(folder, "--reference", references("llama", "block"))
    assert code == 0
    found = root["reference"]
    assert "slime-offline-cpu" in found["recipes"] and "nemo-rl-pow2" not in found["recipes"]
    assert 30 < found["sqnr_db"] < 33  # uniform rounding to 3 bits of mantissa gives 31.5 dB
    assert (found["quantized"], found["raw"], found["not_compared"]) == (14, 7, 0)


def test_a_reference_in_f32_or_f16_serves_too(folder, references, tmp_path):  # noqa: F811
    """Values count where the dtypes differ."""
    c = build("llama", "block")
    c.write(folder)
    values = {name: (array.astype("<u4") << 16).view("<f4") for name, array in c.reference.items()}
    for dtype, kind in (("F32", "<f4"), ("F16", "<f2")):
        reference = tmp_path / dtype
        reference.mkdir()
        write_safetensors(_file(reference), {n: (dtype, a.astype(kind)) for n, a in values.items()})
        code, root = verify(folder, "--engine", "vllm-fp8", "--reference", reference)
        assert code == 0, [f["message"] for f in root["findings"]]


@pytest.mark.parametrize("zeroed", [True, False])
def test_a_zero_scale_is_harmless_only_over_zeros(zeroed, folder):  # noqa: F811
    """Zero times zero is what was meant; zero times anything is not."""
    c = build("llama", "block")
    dtype, array = c.tensors[Q + ".weight"]
    codes = array.copy()
    if zeroed:
        codes[128:256, 128:] = 0x80  # -0
    c.tensors[Q + ".weight"] = (dtype, codes)
    dtype, scales = c.tensors[c.scale_name(Q)]
    scales = scales.copy()
    scales[1, 1] = 0
    c.tensors[c.scale_name(Q)] = (dtype, scales)
    c.write(folder)
    code, root = verify(folder, "--engine", "vllm-fp8")
    assert code == (0 if zeroed else 1)
    finding, = named(root["findings"], c.scale_name(Q))
    assert finding["severity"] == ("warning" if zeroed else "error") and finding["index"] == [1, 1]


# Malformed files and wrong use -----------------------------------------------------------------------

def _shorten(path):
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def _append(path):
    with path.open("ab") as file:
        file.write(b"\0")


def _to_pipe(path):
    path.unlink()
    os.mkfifo(path)


MALFORMED = {
    "no config": lambda f: (f / "config.json").unlink(),
    "config is no JSON": lambda f: (f / "config.json").write_text("{", encoding="utf-8"),
    "config is a list": lambda f: (f / "config.json").write_text("[]", encoding="utf-8"),
    "unknown architecture": lambda f: _replace(f / "config.json", b"LlamaForCausalLM", b"LlamoForCausalLM"),
    "no weights": lambda f: _file(f).unlink(),
    "one byte short": lambda f: _shorten(_file(f)),
    "one byte more": lambda f: _append(_file(f)),
    "empty file": lambda f: _file(f).write_bytes(b""),
    "a pipe": lambda f: _to_pipe(_file(f)),
    "header is no JSON": lambda f: _replace(_file(f), b'{"__metadata__"', b'x"__metadata__"'),
    "unknown dtype": lambda f: _replace(_file(f), b'"F8_E4M3"', b'"F9_E4M3"'),
    "offsets overlap": lambda f: _replace(_file(f), b'"data_offsets": [0,', b'"data_offsets": [1,'),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_input_ends_with_3_and_names_the_file(name, folder):  # noqa: F811
    """We cannot look, which is no verdict on the weights."""
    build("llama", "block").write(folder)
    MALFORMED[name](folder)
    done = spoken(folder, "--json", "-")
    assert done.returncode == 3 and done.stdout == ""
    assert str(folder) in done.stderr


def test_a_missing_shard_ends_with_3(folder):  # noqa: F811
    """The index names it."""
    build_faulty("llama", "block", "shards").write(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    done = spoken(folder)
    assert done.returncode == 3 and "model-00002-of-00002.safetensors" in done.stderr


def test_an_index_that_places_a_tensor_elsewhere_is_a_finding(folder):  # noqa: F811
    """The files are sound: a tensor that none of them has is missing, one that the index lacks is there."""
    build_faulty("llama", "block", "shards").write(folder)
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    index["weight_map"]["model.layers.7.mlp.gate.weight"] = index["weight_map"].pop("model.norm.weight")
    path.write_text(json.dumps(index), encoding="utf-8")
    code, root = verify(folder, "--engine", "vllm-fp8")
    assert named(root["findings"], "model.norm.weight", ("warning",))
    assert named(root["findings"], "model.layers.7.mlp.gate.weight") and code in (0, 1)


def test_wrong_use_ends_with_2(folder):  # noqa: F811
    """And says what there is."""
    build("llama", "block").write(folder)
    for arguments, word in (([], "DIR"), ([folder, "--engine", "vllm"], "vllm-fp8"),
                            ([folder, "--tp", "0"], "--tp"), ([folder, "--tp", "two"], "--tp"),
                            ([folder, "--refrence", "x"], "--reference")):
        done = spoken(*arguments)
        assert done.returncode == 2 and word in done.stderr, done.stderr
    assert spoken(folder / "config.json").returncode == 3
    assert spoken(folder / "nowhere").returncode == 3
    assert spoken(folder, "--reference", folder / "nowhere").returncode == 3
    quantized_reference = spoken(folder, "--reference", folder)
    assert quantized_reference.returncode == 3 and "before quantization" in quantized_reference.stderr


# Output ----------------------------------------------------------------------------------------------

def test_the_first_line_has_verdict_tensor_and_remedy(folder):  # noqa: F811
    """So that the head of a log is enough."""
    build_faulty("llama", "block", "scale name").write(folder)
    done = spoken(folder, "--engine", "vllm-fp8")
    lines = done.stdout.splitlines()
    assert done.returncode == 1 and done.stderr == ""
    verdict, tensor, remedy = lines[0].split("  ")
    assert (verdict, tensor) == ("fail", DOWN + ".weight_scale")
    assert DOWN + ".weight_scale_inv" in remedy
    assert all(re.match(r"(error|warning)  |#", line) for line in lines[1:])
    assert spoken(folder, "--engine", "vllm-fp8", "--json", "-").stdout.startswith("{")


def test_the_json_has_the_keys_of_the_interface(folder, references, tmp_path):  # noqa: F811
    """As a file and on standard output."""
    c = build_faulty("llama", "block", "code 7f")
    c.write(folder)
    path = tmp_path / "result.json"
    done = spoken(folder, "--engine", "vllm-fp8", "--tp", "2", "--json", path)
    root = json.loads(path.read_text(encoding="utf-8"))
    assert done.returncode == 1 and done.stdout.startswith("fail  ")
    assert root["schema"] == "refitbench.verify/1" and root["verdict"] == "fail"
    assert root["tool"]["name"] == "refitbench" and root["argv"][1] == "verify"
    assert (root["engine"], root["tp"], root["scheme"]) == ("vllm-fp8", 2, "fp8_blockwise")
    assert "vLLM" in root["engine_version"] and "engines" not in root
    assert root["tensors"] == len(c.reference)
    assert root["bytes"] == sum(array.nbytes for _, array in c.tensors.values())
    finding, = root["findings"]
    assert finding["tensor"] == GATE + ".weight" and finding["index"] == [256, 5]
    assert (finding["check"], finding["severity"], finding["measured"]) == ("nonfinite", "error", "NaN")
    assert finding["engine_behaviour"] == "silently_wrong" and finding["remedy"] and finding["limit"]


def test_no_progress_is_shown_where_standard_error_is_no_terminal(folder):  # noqa: F811
    """A log must not fill with it."""
    build("llama", "block").write(folder)
    done = spoken(folder)
    assert done.returncode == 0 and done.stderr == "" and "\r" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("with_reference", [False, True])
def test_a_large_checkpoint_needs_little_memory(with_reference, folder, tmp_path):  # noqa: F811
    """600 MB in one file, sparse on disk, and a reference of 1.2 GB: a few hundred MB would not hold them."""
    config = build("llama", "block").config
    config |= {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
               "intermediate_size": 16384, "vocab_size": 4096}

    def sparse(path, tensors):
        header, begin = {}, 0
        for name, (dtype, shape) in tensors.items():
            size = int(numpy.prod(shape)) * {"BF16": 2, "F8_E4M3": 1, "F32": 4}[dtype]
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, begin + size]}
            begin += size
        text = json.dumps(header).encode()
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for name, (dtype, shape) in tensors.items():
                at = 8 + len(text) + header[name]["data_offsets"][0]
                if dtype == "F32":
                    file.seek(at)
                    file.write(numpy.ones(shape, numpy.float32).tobytes())
            file.truncate(8 + len(text) + begin)

    from fp8_checkpoints import is_quantized, shapes_of
    stored, reference = {}, {}
    for name, shape in shapes_of(config).items():
        reference[name] = ("BF16", list(shape))
        stored[name] = ("F8_E4M3" if is_quantized(name) else "BF16", list(shape))
        if is_quantized(name):
            stored[name + "_scale_inv"] = ("F32", [-(-shape[0] // 128), -(-shape[1] // 128)])
    sparse(_file(folder), stored)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    sparse(_file(tmp_path / "reference"), reference)
    assert _file(folder).stat().st_size > 600e6
    extra = ["--reference", str(tmp_path / "reference")] if with_reference else []
    # A process begins with the peak of the one that it was forked from, and this one may be large: a small one
    # lies between them.
    launch = ("import resource, subprocess, sys; done = subprocess.run(sys.argv[1:]); "
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr); "
              "sys.exit(done.returncode)")
    done = subprocess.run([sys.executable, "-S", "-c", launch, PROGRAM, "verify", folder, "--engine", "vllm-fp8",
                           "--json", "-", *extra], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[:2000] + done.stderr
    peak_kib = int(done.stderr.splitlines()[-1])
    assert peak_kib * 1024 < 250e6, f"{peak_kib} KiB"
