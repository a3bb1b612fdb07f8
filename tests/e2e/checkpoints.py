# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as the tests write and read them: config.json and model.safetensors, BF16.

The container is simple enough to be written here: eight bytes with the length of a JSON header, the
header, the tensors one after the other. `test_quantize.py` and `test_checkpoints.py` hold the program
against the safetensors package as well, where it is installed.
"""

import ctypes
import ctypes.util
import json

import numpy
import pytest


def bf16(values):
    """The upper halves of F32 values: their BF16 patterns, truncated."""
    return (numpy.ascontiguousarray(values, numpy.float32).view(numpy.uint32) >> 16).astype("<u2")


def f32_of_bf16(patterns):
    """The exact F32 values of BF16 patterns."""
    return (numpy.asarray(patterns, numpy.uint32) << 16).view(numpy.float32)


def write_safetensors(path, tensors):
    """Writes `{name: (dtype name, array)}` in the order of the names."""
    header, data = {"__metadata__": {"format": "pt"}}, []
    begin = 0
    for name in sorted(tensors):
        dtype, array = tensors[name]
        content = numpy.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape),
                        "data_offsets": [begin, begin + len(content)]}
        begin += len(content)
        data.append(content)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data))


def read_safetensors(path):
    """`{name: (dtype name, shape, bytes)}` of a file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    data = content[8 + length:]
    return {name: (row["dtype"], tuple(row["shape"]), data[slice(*row["data_offsets"])])
            for name, row in header.items()}


def llama_config(hidden=512, heads=8, kv_heads=4, head_dim=64, ffn=1024, layers=2, vocabulary=640):
    """A config.json as the transformers library writes it for a Llama model."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head_dim,
        "intermediate_size": ffn, "num_hidden_layers": layers, "vocab_size": vocabulary,
        "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "torch_dtype": "bfloat16",
    }


def llama_shapes(config):
    """{name: shape} of the checkpoint of a config, as the transformers library names them."""
    hidden, ffn = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden),
              "model.norm.weight": (hidden,), "lm_head.weight": (config["vocab_size"], hidden)}
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        shapes |= {
            prefix + "input_layernorm.weight": (hidden,),
            prefix + "post_attention_layernorm.weight": (hidden,),
            prefix + "self_attn.q_proj.weight": (queries, hidden),
            prefix + "self_attn.k_proj.weight": (keys, hidden),
            prefix + "self_attn.v_proj.weight": (keys, hidden),
            prefix + "self_attn.o_proj.weight": (hidden, queries),
            prefix + "mlp.gate_proj.weight": (ffn, hidden),
            prefix + "mlp.up_proj.weight": (ffn, hidden),
            prefix + "mlp.down_proj.weight": (hidden, ffn),
        }
    return shapes


def write_checkpoint(folder, config, seed=7):
    """Writes config.json and model.safetensors with Gaussian values; returns `{name: patterns}`."""
    random = numpy.random.default_rng(seed)
    values = {name: bf16(random.normal(0.0, 0.02, shape)) for name, shape in
              llama_shapes(config).items()}
    folder.mkdir()
    write_safetensors(folder / "model.safetensors",
                      {name: ("BF16", patterns) for name, patterns in values.items()})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return values


def checkpoint_run(folder, trainers=1, tp=1, transport="loopback", extra=""):
    """The text of a scenario that refits the checkpoint in `folder`; `extra` names the engine too."""
    if "receiver:" not in extra and "receiver.engine" not in extra:
        extra = f"receiver: {{engine: vllm-fp8, tp: {tp}}}\n" + extra
    return (f"purpose: does this checkpoint arrive as it is?\nmodel: {{config: {folder}/config.json}}\n"
            f"weights: {{source: safetensors, path: {folder}}}\ntrainer: {{ranks: {trainers}}}\n"
            f"transport: {{name: {transport}, bucket_bytes: 64KiB}}\niterations: 1\nwarmup: 0\n"
            f"timeout_s: 20\n{extra}")


class _Hash128(ctypes.Structure):
    _fields_ = [("low", ctypes.c_uint64), ("high", ctypes.c_uint64)]


def xxh3_128(content):
    """XXH3-128 as 32 hexadecimal digits, by the xxhash package or the system's libxxhash."""
    try:
        import xxhash
        return xxhash.xxh3_128_hexdigest(content)
    except ImportError:
        pass
    name = ctypes.util.find_library("xxhash")
    if name is None:
        pytest.skip("neither the xxhash package nor libxxhash is installed")
    function = ctypes.CDLL(name).XXH3_128bits
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    function.restype = _Hash128
    value = function(content, len(content))
    return f"{value.high:016x}{value.low:016x}"
