#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes model/*.tsv, model/*.config.json, model/moe_totals.tsv of the models with experts.

The names and shapes are those of the published checkpoints, written out here by formulas and
independently of src/model. The order is that of the modules of `transformers`, which holds the
experts of a layer stacked: here they stand one by one in the place of the stack. Its classes have no
layer for multi-token prediction; that one is listed after the published DeepSeek-V3 checkpoint. The
config.json is what the configuration class of `transformers` writes, PyTorch is not needed.

Usage: pip install transformers && python generate_moe_listings.py

moe_totals.tsv : name, tensors, parameters, matrices that FP8 takes, elements of these.
NAME.tsv : name, role, shape ("576x7168"). Of every layer with experts the first and the last one
    alone are listed, and of the layers those in LISTED.
NAME.config.json : the configuration as `transformers` writes it.
"""

from __future__ import annotations

import json
from pathlib import Path

import transformers
from transformers import DeepseekV3Config, Qwen3MoeConfig

OUT = Path(__file__).resolve().parent / "model"

# Figures of the published config.json files.
QWEN = {
    "qwen3-30b-a3b": dict(hidden=2048, ffn=6144, layers=48, heads=32, kv=4, experts=128, top=8,
                          moe=768, vocabulary=151936),
    "qwen3-235b-a22b": dict(hidden=4096, ffn=12288, layers=94, heads=64, kv=4, experts=128, top=8,
                            moe=1536, vocabulary=151936),
    "tiny-moe": dict(hidden=256, ffn=512, layers=2, heads=8, kv=4, experts=8, top=2, moe=512,
                     vocabulary=512),
}
DEEPSEEK = {
    "deepseek-v3": dict(hidden=7168, ffn=18432, layers=61, heads=128, experts=256, top=8, moe=2048,
                        shared=1, dense=3, vocabulary=129280, q=1536, kv=512, nope=128, rope=64,
                        v=128, groups=8, mtp=1, type="deepseek_v3"),
    "kimi-k2": dict(hidden=7168, ffn=18432, layers=61, heads=64, experts=384, top=8, moe=2048,
                    shared=1, dense=1, vocabulary=163840, q=1536, kv=512, nope=128, rope=64, v=128,
                    groups=1, mtp=0, type="kimi_k2"),
    "tiny-mla": dict(hidden=256, ffn=512, layers=2, heads=8, experts=8, top=2, moe=512, shared=1,
                     dense=1, vocabulary=512, q=256, kv=128, nope=128, rope=64, v=128, groups=1,
                     mtp=1, type="deepseek_v3"),
}
HEAD_DIM = 128  # of all Qwen3-MoE models
# Layers whose tensors are written out; the last one of DeepSeek-V3 is that for multi-token prediction.
LISTED = {
    "qwen3-30b-a3b": {0, 47},
    "qwen3-235b-a22b": {0, 93},
    "tiny-moe": {0, 1},
    "deepseek-v3": {0, 2, 3, 60, 61},
    "kimi-k2": {0, 1, 60},
    "tiny-mla": {0, 1, 2},
}


def mlp(at: str, rows: int, hidden: int):
    """The three projections of a dense MLP, an expert or the shared experts."""
    yield at + "gate_proj.weight", "gate_proj", (rows, hidden)
    yield at + "up_proj.weight", "up_proj", (rows, hidden)
    yield at + "down_proj.weight", "down_proj", (hidden, rows)


def qwen_layer(at: str, f: dict):
    queries, keys = f["heads"] * HEAD_DIM, f["kv"] * HEAD_DIM
    yield at + "self_attn.q_proj.weight", "q_proj", (queries, f["hidden"])
    yield at + "self_attn.k_proj.weight", "k_proj", (keys, f["hidden"])
    yield at + "self_attn.v_proj.weight", "v_proj", (keys, f["hidden"])
    yield at + "self_attn.o_proj.weight", "o_proj", (f["hidden"], queries)
    yield at + "self_attn.q_norm.weight", "norm", (HEAD_DIM,)
    yield at + "self_attn.k_norm.weight", "norm", (HEAD_DIM,)
    for expert in range(f["experts"]):
        yield from mlp(f"{at}mlp.experts.{expert}.", f["moe"], f["hidden"])
    yield at + "mlp.gate.weight", "router", (f["experts"], f["hidden"])
    yield at + "input_layernorm.weight", "norm", (f["hidden"],)
    yield at + "post_attention_layernorm.weight", "norm", (f["hidden"],)


def deepseek_layer(at: str, f: dict, layer: int):
    hidden, heads = f["hidden"], f["heads"]
    yield at + "self_attn.q_a_proj.weight", "q_a_proj", (f["q"], hidden)
    yield at + "self_attn.q_a_layernorm.weight", "norm", (f["q"],)
    yield at + "self_attn.q_b_proj.weight", "q_b_proj", (heads * (f["nope"] + f["rope"]), f["q"])
    yield at + "self_attn.kv_a_proj_with_mqa.weight", "kv_a_proj", (f["kv"] + f["rope"], hidden)
    yield at + "self_attn.kv_a_layernorm.weight", "norm", (f["kv"],)
    yield at + "self_attn.kv_b_proj.weight", "kv_b_proj", (heads * (f["nope"] + f["v"]), f["kv"])
    yield at + "self_attn.o_proj.weight", "o_proj", (hidden, heads * f["v"])
    if layer < f["dense"]:
        yield from mlp(at + "mlp.", f["ffn"], hidden)
    else:
        for expert in range(f["experts"]):
            yield from mlp(f"{at}mlp.experts.{expert}.", f["moe"], hidden)
        yield at + "mlp.gate.weight", "router", (f["experts"], hidden)
        yield at + "mlp.gate.e_score_correction_bias", "bias", (f["experts"],)
        yield from mlp(at + "mlp.shared_experts.", f["shared"] * f["moe"], hidden)
    yield at + "input_layernorm.weight", "norm", (hidden,)
    yield at + "post_attention_layernorm.weight", "norm", (hidden,)


def mtp_layer(at: str, f: dict, layer: int):
    hidden = f["hidden"]
    yield from deepseek_layer(at, f, layer)
    yield at + "enorm.weight", "norm", (hidden,)
    yield at + "hnorm.weight", "norm", (hidden,)
    yield at + "eh_proj.weight", "mtp_proj", (hidden, 2 * hidden)
    yield at + "shared_head.norm.weight", "norm", (hidden,)
    yield at + "shared_head.head.weight", "head", (f["vocabulary"], hidden)
    yield at + "embed_tokens.weight", "embedding", (f["vocabulary"], hidden)


def tensors(name: str):
    """(layer or None, name, role, shape) of a whole model."""
    f = QWEN.get(name) or DEEPSEEK[name]
    yield None, "model.embed_tokens.weight", "embedding", (f["vocabulary"], f["hidden"])
    for layer in range(f["layers"] + f.get("mtp", 0)):
        at = f"model.layers.{layer}."
        if name in QWEN:
            rows = qwen_layer(at, f)
        elif layer < f["layers"]:
            rows = deepseek_layer(at, f, layer)
        else:
            rows = mtp_layer(at, f, layer)
        for row in rows:
            yield layer, *row
    yield None, "model.norm.weight", "norm", (f["hidden"],)
    yield None, "lm_head.weight", "head", (f["vocabulary"], f["hidden"])


def config(name: str) -> dict:
    """config.json as `transformers` writes it."""
    if name in QWEN:
        f = QWEN[name]
        made = Qwen3MoeConfig(
            architectures=["Qwen3MoeForCausalLM"], hidden_size=f["hidden"],
            intermediate_size=f["ffn"], num_hidden_layers=f["layers"],
            num_attention_heads=f["heads"], num_key_value_heads=f["kv"], head_dim=HEAD_DIM,
            num_experts=f["experts"], num_experts_per_tok=f["top"], moe_intermediate_size=f["moe"],
            vocab_size=f["vocabulary"], dtype="bfloat16")
        return json.loads(made.to_json_string(use_diff=True))
    f = DEEPSEEK[name]
    made = DeepseekV3Config(
        architectures=["DeepseekV3ForCausalLM"], hidden_size=f["hidden"], intermediate_size=f["ffn"],
        num_hidden_layers=f["layers"], num_attention_heads=f["heads"],
        num_key_value_heads=f["heads"], n_routed_experts=f["experts"], num_experts_per_tok=f["top"],
        moe_intermediate_size=f["moe"], n_shared_experts=f["shared"], first_k_dense_replace=f["dense"],
        vocab_size=f["vocabulary"], q_lora_rank=f["q"], kv_lora_rank=f["kv"],
        qk_nope_head_dim=f["nope"], qk_rope_head_dim=f["rope"], v_head_dim=f["v"],
        n_group=f["groups"], topk_group=min(f["groups"], 4), num_mtp_layers=f["mtp"],
        dtype="bfloat16")
    written = json.loads(made.to_json_string(use_diff=True))
    written["model_type"] = f["type"]  # the published Kimi-K2 has one of its own
    return written


def is_listed(name: str, layer: int | None, tensor: str) -> bool:
    if layer is not None and layer not in LISTED[name]:
        return False
    _, found, rest = tensor.partition(".experts.")
    last = (QWEN.get(name) or DEEPSEEK[name])["experts"] - 1
    return not found or int(rest.split(".")[0]) in (0, last)


def main() -> None:
    OUT.mkdir(exist_ok=True)
    origin = f"# formulas; order and config.json of transformers {transformers.__version__}\n"
    totals = [origin]
    for name in LISTED:
        lines, count, elements, quantized, quantized_elements = [origin], 0, 0, 0, 0
        for layer, tensor, role, shape in tensors(name):
            size = shape[0] * (shape[1] if len(shape) == 2 else 1)
            count, elements = count + 1, elements + size
            if role.endswith("_proj") and role != "mtp_proj":
                quantized, quantized_elements = quantized + 1, quantized_elements + size
            if is_listed(name, layer, tensor):
                lines.append(f"{tensor}\t{role}\t{'x'.join(str(extent) for extent in shape)}\n")
        totals.append(f"{name}\t{count}\t{elements}\t{quantized}\t{quantized_elements}\n")
        (OUT / f"{name}.tsv").write_text("".join(lines))
        (OUT / f"{name}.config.json").write_text(json.dumps(config(name), indent=2) + "\n")
    (OUT / "moe_totals.tsv").write_text("".join(totals))


if __name__ == "__main__":
    main()
