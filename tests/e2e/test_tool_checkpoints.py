# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What tools leave in a directory, without the tools: a class of another name, keys that a library no longer writes,
blocks that only config.json knows. test_quantizers.py asks the tools themselves. Each fault stands beside the checkpoint
that it was planted in, which passes."""

import ml_dtypes
import numpy
import pytest
from checkpoints import f32_of_bf16, read_safetensors
from fp8_checkpoints import build
from loader_verdicts import named
from test_verify_loaders import folder, verify  # noqa: F401
from test_weight_formats import in_blocks

BIAS = "model.layers.1.mlp.gate.e_score_correction_bias"
DOWN = "model.layers.0.mlp.down_proj"


@pytest.mark.parametrize("engine,scheme", [("vllm-compressed-tensors", "channel"), ("sglang-compressed-tensors", "channel"),
                                           ("vllm-fp8", "block"), ("vllm-modelopt", "pcpt"), ("transformers-fp8", "block")])
def test_a_mistral_model_is_judged_by_the_loaders_of_llama(engine, scheme, folder):  # noqa: F811
    checkpoint = build("llama", scheme)
    checkpoint.config |= {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": None}
    code, root = verify(checkpoint.write(folder), "--engine", engine)
    assert code == 0, root["findings"]

    checkpoint.tensors.pop(checkpoint.scale_name(DOWN))
    code, root = verify(checkpoint.write(folder), "--engine", engine)
    assert code == 1 and named(root["findings"], DOWN + "*", ("error",))


# Keys left out, whether the biases are stored, {engine: what is named, None where it loads}. vLLM 0.33.0 makes no bias
# without topk_method and then raises KeyError for a stored one; SGLang 0.5.23 raises AttributeError for either key.
LEFT_OUT = [((), True, {"vllm-fp8": None, "sglang-fp8": None}),
            (("topk_method",), True, {"vllm-fp8": BIAS, "sglang-fp8": "config.json"}),
            (("topk_method",), False, {"vllm-fp8": None, "sglang-fp8": "config.json"}),
            (("moe_layer_freq",), True, {"vllm-fp8": None, "sglang-fp8": "config.json"}),
            ((), False, {"vllm-fp8": BIAS, "sglang-fp8": BIAS})]


@pytest.mark.parametrize("keys,stored,expected", LEFT_OUT)
def test_a_config_that_leaves_keys_of_deepseek_out_fails_where_a_class_needs_them(keys, stored, expected,
                                                                                  folder):  # noqa: F811
    checkpoint = build("dsv3", "block")
    for key in keys:
        checkpoint.config.pop(key)
    if not stored:
        checkpoint.tensors = {name: tensor for name, tensor in checkpoint.tensors.items() if name != BIAS}
    checkpoint.write(folder)
    for engine, tensor in expected.items():
        code, root = verify(folder, "--engine", engine)
        assert code == (tensor is not None), (engine, root["findings"])
        assert tensor is None or named(root["findings"], tensor, ("error",)), (engine, root["findings"])


def test_one_scale_a_tensor_may_have_two_dimensions_in_transformers(folder):  # noqa: F811
    """As FineGrainedFP8Config(weight_block_size=None) writes it."""
    checkpoint = build("llama", "tensor")
    checkpoint.quantization["weight_block_size"] = None
    for module in checkpoint.modules():
        dtype, scale = checkpoint.tensors.pop(module + ".weight_scale")
        checkpoint.tensors[module + ".weight_scale_inv"] = (dtype, scale.reshape(1, 1))
    code, root = verify(checkpoint.write(folder), "--engine", "transformers-fp8")
    assert code == 0, root["findings"]

    dtype, scale = checkpoint.tensors[DOWN + ".weight_scale_inv"]
    checkpoint.tensors[DOWN + ".weight_scale_inv"] = (dtype, numpy.repeat(scale, 2, 1))
    code, root = verify(checkpoint.write(folder), "--engine", "transformers-fp8")
    assert code == 1 and named(root["findings"], DOWN + "*", ("error",))


def test_dequantize_takes_the_size_of_blocks_from_the_config_beside_the_file(refitbench, folder):  # noqa: F811
    checkpoint = in_blocks("llama", "block", 64, 64)
    source = checkpoint.write(folder) / "model.safetensors"
    target = refitbench.folder / "values.safetensors"

    refitbench("dequantize", "--input", source, "--output", target, "--dtype", "f32").expect(0)

    found = read_safetensors(target)
    for module in checkpoint.modules():
        codes = checkpoint.tensors[module + ".weight"][1].view(ml_dtypes.float8_e4m3fn).astype(numpy.float32)
        scales = checkpoint.tensors[module + ".weight_scale_inv"][1]
        wanted = codes * scales.repeat(64, 0).repeat(64, 1)
        assert numpy.array_equal(numpy.frombuffer(found[module + ".weight"][2], "<f4").reshape(codes.shape), wanted)

    config = folder / "config.json"
    sizes = config.read_text(encoding="utf-8")
    for beside in (sizes.replace("64", str(2**63 - 1)), sizes.replace("64", str(2**64 - 1)), "a folder", None):
        config.unlink()
        if beside == "a folder":
            config.mkdir()
        elif beside is not None:
            config.write_text(beside, encoding="utf-8")
        refused = refitbench("dequantize", "--input", source, "--output", target)
        assert refused.expect(1) and "weight_scale_inv: found F32 [" in refused.stderr, (beside, refused)
        if beside == "a folder":
            config.rmdir()
            config.touch()


def test_identify_names_the_tool_by_scales_in_bf16(refitbench, folder):  # noqa: F811
    """The bytes are computed here: s = bf16(amax / 448), bf16(x / s), both as PyTorch's BF16 tensors."""
    checkpoint = build("llama", "channel")
    for name, patterns in checkpoint.reference.items():
        module = name.removesuffix(".weight")
        if module + ".weight_scale" not in checkpoint.tensors:
            continue
        values = f32_of_bf16(patterns)
        scale = (numpy.abs(values).max(1, keepdims=True) / numpy.float32(448)).astype(ml_dtypes.bfloat16)
        quotient = (values / scale.astype(numpy.float32)).astype(ml_dtypes.bfloat16).astype(numpy.float32)
        codes = numpy.clip(quotient, -448, 448).astype(ml_dtypes.float8_e4m3fn)
        checkpoint.tensors[name] = ("F8_E4M3", codes.view(numpy.uint8))
        checkpoint.tensors[module + ".weight_scale"] = ("BF16", scale.view(numpy.uint16))
    checkpoint.write(folder)
    reference = checkpoint.write_reference(folder.with_name("bf16"))

    rows = refitbench("identify", folder / "model.safetensors", "--reference", reference / "model.safetensors",
                      "--json", "-").expect(0).json["tensors"]

    assert rows and all(row["exact"] == ["llm-compressor-channel"] for row in rows), rows[0]
    code, root = verify(folder, "--engine", "vllm-compressed-tensors", "--tp", 2, "--reference", reference)
    assert code == 0, root["findings"]
