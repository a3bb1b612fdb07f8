# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of models with experts: one by one, stacked, incomplete; layers that are not stored."""

import json

import h5py
import numpy
import pytest
from checkpoints import bf16, checkpoint_run, write_safetensors

HIDDEN, EXPERTS, MOE, VOCABULARY = 256, 4, 256, 256
LAYER = "model.layers.0."
EXPERT = LAYER + "mlp.experts."


def qwen_config():
    """config.json as transformers 5 writes it, with its own name for the number of experts."""
    return {
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_size": HIDDEN,
        "intermediate_size": 512, "num_hidden_layers": 1, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2, "moe_intermediate_size": MOE, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "vocab_size": VOCABULARY, "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def deepseek_config():
    return {
        "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
        "hidden_size": HIDDEN, "intermediate_size": 512, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 2, "n_routed_experts": EXPERTS,
        "num_experts_per_tok": 2, "moe_intermediate_size": MOE, "n_shared_experts": 1, "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": 0, "q_lora_rank": 128, "kv_lora_rank": 128,
        "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "num_nextn_predict_layers": 1, "vocab_size": VOCABULARY, "tie_word_embeddings": False,
        "dtype": "bfloat16",
    }


def expert_shapes(at, rows=MOE):
    return {at + "gate_proj.weight": (rows, HIDDEN), at + "up_proj.weight": (rows, HIDDEN),
            at + "down_proj.weight": (HIDDEN, rows)}


def common_shapes():
    shapes = {"model.embed_tokens.weight": (VOCABULARY, HIDDEN), "model.norm.weight": (HIDDEN,),
              "lm_head.weight": (VOCABULARY, HIDDEN), LAYER + "input_layernorm.weight": (HIDDEN,),
              LAYER + "post_attention_layernorm.weight": (HIDDEN,),
              LAYER + "mlp.gate.weight": (EXPERTS, HIDDEN)}
    for expert in range(EXPERTS):
        shapes |= expert_shapes(f"{EXPERT}{expert}.")
    return shapes


def qwen_shapes():
    at = LAYER + "self_attn."
    return common_shapes() | {
        at + "q_proj.weight": (256, HIDDEN), at + "k_proj.weight": (128, HIDDEN),
        at + "v_proj.weight": (128, HIDDEN), at + "o_proj.weight": (HIDDEN, 256),
        at + "q_norm.weight": (64,), at + "k_norm.weight": (64,)}


def deepseek_shapes():
    at = LAYER + "self_attn."
    return common_shapes() | expert_shapes(LAYER + "mlp.shared_experts.") | {
        LAYER + "mlp.gate.e_score_correction_bias": (EXPERTS,),
        at + "q_a_proj.weight": (128, HIDDEN), at + "q_a_layernorm.weight": (128,),
        at + "q_b_proj.weight": (2 * 192, 128), at + "kv_a_proj_with_mqa.weight": (192, HIDDEN),
        at + "kv_a_layernorm.weight": (128,), at + "kv_b_proj.weight": (2 * 256, 128),
        at + "o_proj.weight": (HIDDEN, 256)}


def values_of(shapes):
    random = numpy.random.default_rng(11)
    return {name: bf16(random.normal(0.0, 0.02, shape)) for name, shape in shapes.items()}


def stacked(values):
    """The same values with the experts as transformers 5 holds them: gate rows before up rows."""
    def expert(number, projection):
        return values[f"{EXPERT}{number}.{projection}.weight"]
    result = {name: value for name, value in values.items() if not name.startswith(EXPERT)}
    result[EXPERT + "gate_up_proj"] = numpy.stack(
        [numpy.concatenate([expert(i, "gate_proj"), expert(i, "up_proj")]) for i in range(EXPERTS)])
    result[EXPERT + "down_proj"] = numpy.stack([expert(i, "down_proj") for i in range(EXPERTS)])
    return result


def write(folder, config, values):
    folder.mkdir()
    write_safetensors(folder / "model.safetensors",
                      {name: ("BF16", patterns) for name, patterns in values.items()})
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def digests(refitbench, folder):
    run = refitbench.run(checkpoint_run(folder)).expect(0).json
    with h5py.File(run["record"], "r") as record:
        table = record["cases/000/tensors"][:]
    return dict(zip(table["name"], table["digest"]))


def test_stacked_experts_load_as_those_that_are_stored_one_by_one(refitbench, tmp_path):
    values = values_of(qwen_shapes())
    one_by_one = digests(refitbench, write(tmp_path / "one", qwen_config(), values))
    together = digests(refitbench, write(tmp_path / "stacked", qwen_config(), stacked(values)))

    assert together == one_by_one
    assert len({digest for name, digest in together.items()
                if b".experts." in name and name.endswith(b".weight")}) == 3 * EXPERTS


def findings(refitbench, folder):
    run = refitbench.run(checkpoint_run(folder)).expect(1).json
    return run["cases"][0]["findings"]


def test_a_missing_expert_is_a_finding(refitbench, tmp_path):
    values = values_of(qwen_shapes())
    del values[EXPERT + "2.up_proj.weight"]
    found = findings(refitbench, write(tmp_path / "one", qwen_config(), values))
    assert [(row["check"], row["tensor"]) for row in found] == [("names", EXPERT + "2.up_proj.weight")]


def test_a_transposed_stack_is_a_finding(refitbench, tmp_path):
    values = stacked(values_of(qwen_shapes()))
    values[EXPERT + "gate_up_proj"] = values[EXPERT + "gate_up_proj"].transpose(0, 2, 1).copy()
    found = findings(refitbench, write(tmp_path / "stacked", qwen_config(), values))
    assert [(row["check"], row["tensor"]) for row in found] == [
        ("shape_contract", EXPERT + "gate_up_proj")]


def test_more_experts_than_the_config_says_are_a_finding(refitbench, tmp_path):
    config = qwen_config() | {"num_local_experts": EXPERTS - 1}
    found = findings(refitbench, write(tmp_path / "one", config, values_of(qwen_shapes())))
    assert {EXPERT + f"{EXPERTS - 1}.down_proj.weight", LAYER + "mlp.gate.weight"} == {
        row["tensor"] for row in found}


def test_a_checkpoint_of_save_pretrained_has_no_layer_for_multi_token_prediction(refitbench, tmp_path):
    values = values_of(deepseek_shapes())
    folder = write(tmp_path / "deepseek", deepseek_config(), values)
    case = refitbench.run(checkpoint_run(folder)).expect(0).json["cases"][0]
    assert case["tensors"] == len(values)


def test_a_part_of_a_layer_for_multi_token_prediction_is_a_finding(refitbench, tmp_path):
    values = values_of(deepseek_shapes())
    values["model.layers.1.enorm.weight"] = bf16(numpy.ones(HIDDEN))
    found = findings(refitbench, write(tmp_path / "deepseek", deepseek_config(), values))
    assert "model.layers.1.eh_proj.weight" in {row["tensor"] for row in found}
    assert {row["check"] for row in found} == {"names"}


@pytest.mark.parametrize("change, key", [
    ({"num_experts_per_tok": EXPERTS + 1}, "num_experts_per_tok"),
    ({"moe_intermediate_size": None}, "moe_intermediate_size"),
    ({"num_key_value_heads": 3}, "num_key_value_heads"),
])
def test_impossible_figures_are_refused_by_key_and_file(refitbench, tmp_path, change, key):
    folder = write(tmp_path / "one", qwen_config() | change, values_of(qwen_shapes()))
    refitbench.run(checkpoint_run(folder)).expect(2, 3).expect_said("config.json", key)


@pytest.mark.parametrize("name, experts, mtp", [
    ("qwen3-30b-a3b", 128, None), ("qwen3-235b-a22b", 128, None), ("deepseek-v3", 256, 1),
    ("kimi-k2", 384, None), ("tiny-moe", 8, None), ("tiny-mla", 8, 1), ("qwen3-8b", None, None),
])
def test_the_list_of_models_says_what_has_experts(refitbench, name, experts, mtp):
    rows = refitbench("list", "models", "--json", "-").expect(0).json["rows"]
    row = next(row for row in rows if row["name"] == name)
    assert row.get("experts") == experts
    assert row.get("mtp_layers") == mtp
