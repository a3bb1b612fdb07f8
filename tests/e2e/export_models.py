# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Small BF16 checkpoint directories of every architecture, for the tests of `export`."""

import json

import numpy
from checkpoints import bf16, write_safetensors

HIDDEN, FFN, VOCABULARY = 256, 512, 320
LINEAR = ("q_proj k_proj v_proj o_proj q_a_proj q_b_proj kv_a_proj_with_mqa kv_b_proj gate_proj up_proj "
          "down_proj").split()


def _dense(name, model_type, **more):
    return {"architectures": [name], "model_type": model_type, "hidden_size": HIDDEN,
            "intermediate_size": FFN, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_key_value_heads": 2, "head_dim": 64, "vocab_size": VOCABULARY,
            "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
            "max_position_embeddings": 512, "hidden_act": "silu", "torch_dtype": "bfloat16"} | more


CONFIGS = {
    "llama": _dense("LlamaForCausalLM", "llama"),
    "qwen2": _dense("Qwen2ForCausalLM", "qwen2"),
    "qwen3": _dense("Qwen3ForCausalLM", "qwen3", head_dim=128, tie_word_embeddings=True),
    "qwen3_moe": _dense("Qwen3MoeForCausalLM", "qwen3_moe", head_dim=128, num_experts=4,
                        num_experts_per_tok=2, moe_intermediate_size=256, mlp_only_layers=[0],
                        decoder_sparse_step=1),
    "deepseek_v3": _dense("DeepseekV3ForCausalLM", "deepseek_v3", num_attention_heads=2, n_routed_experts=4,
                          num_experts_per_tok=2, moe_intermediate_size=256, n_shared_experts=1, n_group=1,
                          topk_group=1, first_k_dense_replace=1, q_lora_rank=128, kv_lora_rank=128,
                          qk_nope_head_dim=128, qk_rope_head_dim=64, v_head_dim=128,
                          num_nextn_predict_layers=1, moe_layer_freq=1, topk_method="noaux_tc"),
}


def _mlp(at, rows, hidden):
    return {at + "gate_proj.weight": (rows, hidden), at + "up_proj.weight": (rows, hidden),
            at + "down_proj.weight": (hidden, rows)}


def _attention(config, at):
    hidden = config["hidden_size"]
    heads, keys = config["num_attention_heads"], config["num_key_value_heads"]
    if "kv_lora_rank" in config:
        queries, latent = config["q_lora_rank"], config["kv_lora_rank"]
        nope, rope, value = (config[key] for key in ("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim"))
        return {at + "q_a_proj.weight": (queries, hidden), at + "q_a_layernorm.weight": (queries,),
                at + "q_b_proj.weight": (heads * (nope + rope), queries),
                at + "kv_a_proj_with_mqa.weight": (latent + rope, hidden),
                at + "kv_a_layernorm.weight": (latent,),
                at + "kv_b_proj.weight": (heads * (nope + value), latent),
                at + "o_proj.weight": (hidden, heads * value)}
    size = config["head_dim"]
    rows = {"q": heads * size, "k": keys * size, "v": keys * size}
    shapes = {f"{at}{part}_proj.weight": (count, hidden) for part, count in rows.items()}
    shapes[at + "o_proj.weight"] = (hidden, heads * size)
    if config["model_type"] == "qwen2":
        shapes |= {f"{at}{part}_proj.bias": (count,) for part, count in rows.items()}
    if config["model_type"].startswith("qwen3"):
        shapes |= {at + "q_norm.weight": (size,), at + "k_norm.weight": (size,)}
    return shapes


def _has_experts(config, layer):
    if config["model_type"] == "qwen3_moe":
        return layer not in config["mlp_only_layers"]
    return config["model_type"] == "deepseek_v3" and layer >= config["first_k_dense_replace"]


def shapes_of(config):
    """{name: shape} as the transformers library and the published DeepSeek checkpoint name them."""
    hidden, words = config["hidden_size"], config["vocab_size"]
    shapes = {"model.embed_tokens.weight": (words, hidden), "model.norm.weight": (hidden,)}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (words, hidden)
    predicted = config.get("num_nextn_predict_layers", 0)
    for layer in range(config["num_hidden_layers"] + predicted):
        at = f"model.layers.{layer}."
        shapes |= {at + "input_layernorm.weight": (hidden,),
                   at + "post_attention_layernorm.weight": (hidden,)}
        shapes |= _attention(config, at + "self_attn.")
        if not _has_experts(config, layer):
            shapes |= _mlp(at + "mlp.", config["intermediate_size"], hidden)
        else:
            experts = config.get("num_experts", config.get("n_routed_experts"))
            shapes[at + "mlp.gate.weight"] = (experts, hidden)
            for expert in range(experts):
                shapes |= _mlp(f"{at}mlp.experts.{expert}.", config["moe_intermediate_size"], hidden)
            if config["model_type"] == "deepseek_v3":
                shapes[at + "mlp.gate.e_score_correction_bias"] = (experts,)
                shapes |= _mlp(at + "mlp.shared_experts.", config["moe_intermediate_size"], hidden)
        if layer >= config["num_hidden_layers"]:
            shapes |= {at + "enorm.weight": (hidden,), at + "hnorm.weight": (hidden,),
                       at + "eh_proj.weight": (hidden, 2 * hidden), at + "shared_head.norm.weight": (hidden,),
                       at + "shared_head.head.weight": (words, hidden),
                       at + "embed_tokens.weight": (words, hidden)}
    return shapes


def values_of(config, seed=5):
    random = numpy.random.default_rng(seed)
    return {name: bf16(random.normal(0.0, 0.02, shape)) for name, shape in shapes_of(config).items()}


def stored(values):
    """`{name: (dtype name, array)}` for write_safetensors; BF16 but for DeepSeek's F32 router bias."""
    return {name: ("F32", (array.astype("<u4") << 16).view("<f4"))
            if name.endswith("e_score_correction_bias") else ("BF16", array)
            for name, array in values.items()}


def stacked(tensors, config):
    """The experts of a layer as two tensors, as newer versions of transformers may store them."""
    result = {name: value for name, value in tensors.items() if ".experts." not in name}
    for at in {name.split(".experts.")[0] + ".experts." for name in tensors if ".experts." in name}:
        def part(number, name, at=at):
            return tensors[f"{at}{number}.{name}.weight"][1]
        numbers = range(config.get("num_experts", config.get("n_routed_experts")))
        result[at + "gate_up_proj"] = ("BF16", numpy.stack(
            [numpy.concatenate([part(i, "gate_proj"), part(i, "up_proj")]) for i in numbers]))
        result[at + "down_proj"] = ("BF16", numpy.stack([part(i, "down_proj") for i in numbers]))
    return result


def write_model(folder, config, tensors=None):
    """Writes config.json, model.safetensors and side files; returns the stored tensors."""
    tensors = stored(values_of(config)) if tensors is None else tensors
    folder.mkdir()
    write_safetensors(folder / "model.safetensors", tensors)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (folder / name).write_text("{}", encoding="utf-8")
    return tensors


def is_quantized(name):
    """Whether trainers quantize the tensor: projections of attention and MLP."""
    return name.endswith(".weight") and name.split(".")[-2] in LINEAR
