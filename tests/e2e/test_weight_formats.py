# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""`verify` of blocks other than 128 x 128, of groups of several formats, and of experts whose engine holds them unlike
other layers. Each fault stands beside the checkpoint that it was planted in, which passes."""

import copy

import numpy
import pytest
from checkpoints import f32_of_bf16
from fp8_checkpoints import build, is_quantized, quantization_config, quantized, scaled
from loader_verdicts import named
from test_verify_loaders import verify

ATTENTION, EXPERTS = "model.layers.0.self_attn.", "model.layers.0.mlp.experts."


def verdict(checkpoint, folder, engine, tp=1, *more):
    """(passed, findings)."""
    code, root = verify(checkpoint.write(folder), "--engine", engine, "--tp", tp, *more)
    return code == 0, root["findings"]


def requantize(checkpoint, which, scale_of):
    """Other codes and scales for the weights that `which` names; scale_of(values) -> (codes, scales)."""
    for name, patterns in checkpoint.reference.items():
        if is_quantized(name) and which(name):
            codes, scales = scale_of(f32_of_bf16(patterns))
            checkpoint.tensors[name] = ("F8_E4M3", codes)
            checkpoint.tensors[checkpoint.scale_name(name.removesuffix(".weight"))] = ("F32", scales)


def in_blocks(model, scheme, rows, cols):
    """A checkpoint in blocks of rows x cols, whose config says so."""
    checkpoint = build(model, scheme)
    requantize(checkpoint, lambda name: True, lambda values: quantized(values, rows, cols))
    if scheme == "block":
        checkpoint.quantization["weight_block_size"] = [rows, cols]
    else:
        group = checkpoint.quantization["config_groups"]["group_0"]
        group["weights"]["block_structure"] = [rows, cols]
        group["input_activations"]["group_size"] = cols
    return checkpoint


@pytest.mark.parametrize("engine,model,tp,scheme,size", [
    ("vllm-fp8", "llama", 2, "block", (64, 64)), ("vllm-fp8", "qwen3", 2, "block", (32, 32)), ("sglang-fp8", "qw-kv2", 2, "block", (64, 64)),
    ("sglang-fp8", "qwen3moe", 2, "block", (128, 64)), ("sglang-fp8", "dsv3", 1, "block", (64, 64)),
    ("sglang-fp8", "qwen3", 2, "block", (1, 32)), ("transformers-fp8", "qwen3moe", 1, "block", (64, 64)),
    ("vllm-compressed-tensors", "qwen3moe", 2, "ct-block", (64, 64)),
    ("sglang-compressed-tensors", "qwen3moe", 2, "ct-block", (64, 64))])
def test_other_blocks_load_and_a_scale_of_the_usual_grid_does_not(engine, model, tp, scheme, size, tmp_path):
    checkpoint = in_blocks(model, scheme, *size)
    reference = ["--reference", checkpoint.write_reference(tmp_path / "bf16")]
    passed, findings = verdict(checkpoint, tmp_path / "right", engine, tp, *reference)
    assert passed, findings
    assert not [f for f in findings if f["severity"] == "error"]
    for name in ("o_proj", "q_a_proj" if model == "dsv3" else "q_proj"):
        wrong = copy.copy(checkpoint)
        wrong.tensors = dict(checkpoint.tensors)
        weight = f32_of_bf16(checkpoint.reference[f"{ATTENTION}{name}.weight"])
        codes, scales = quantized(weight)
        wrong.tensors[f"{ATTENTION}{name}.weight"] = ("F8_E4M3", codes)
        wrong.tensors[wrong.scale_name(ATTENTION + name)] = ("F32", scales)
        passed, findings = verdict(wrong, tmp_path / name, engine, tp)
        # transformers takes the size of blocks from the shapes, whatever the config says.
        assert named(findings, f"*0.self_attn.{name}*", ("error", "warning")), findings


@pytest.mark.parametrize("model", ["qwen3moe", "dsv3"])
def test_experts_of_vllm_are_in_blocks_of_128(model, tmp_path):
    assert verdict(build(model, "block"), tmp_path / "right", "vllm-fp8")[0]
    passed, findings = verdict(in_blocks(model, "block", 64, 64), tmp_path / "wrong", "vllm-fp8")
    assert not passed and any("No FP8 MoE backend" in f["engine_message"] for f in findings), findings


def test_smaller_blocks_allow_a_tensor_parallel_size_that_cuts_those_of_128(tmp_path):
    assert verdict(in_blocks("llama-kv2", "block", 64, 64), tmp_path / "64", "vllm-fp8", 2)[0]
    assert not verdict(build("llama-kv2", "block"), tmp_path / "128", "vllm-fp8", 2)[0]
    passed, findings = verdict(in_blocks("llama-kv2", "block", 96, 96), tmp_path / "96", "vllm-fp8", 2)
    assert not passed and any("block_k = 96" in f["engine_message"] for f in findings), findings


def test_a_code_that_was_damaged_shows_in_blocks_of_64(tmp_path):
    checkpoint = in_blocks("llama", "block", 64, 64)
    reference = checkpoint.write_reference(tmp_path / "bf16")
    name = ATTENTION + "o_proj"
    scales = checkpoint.tensors[checkpoint.scale_name(name)][1].copy()
    scales[1, 2] *= 2
    checkpoint.tensors[checkpoint.scale_name(name)] = ("F32", scales)
    passed, findings = verdict(checkpoint, tmp_path / "wrong", "vllm-fp8", 1, "--reference", reference)
    assert not passed and named(findings, "*0.self_attn.o_proj*", ("error",)), findings


def test_blocks_that_are_not_square_are_told_of_where_inputs_follow_the_rows(tmp_path):
    passed, findings = verdict(in_blocks("llama", "block", 128, 64), tmp_path / "a", "vllm-fp8")
    assert passed and any("groups of the rows" in f["message"] for f in findings), findings


def test_modelopt_keeps_its_blocks_of_128(tmp_path):
    checkpoint = build("llama", "pbwo")
    assert verdict(checkpoint, tmp_path / "right", "vllm-modelopt")[0]
    codes, scales = quantized(f32_of_bf16(checkpoint.reference[ATTENTION + "o_proj.weight"]), 64, 64)
    checkpoint.tensors[ATTENTION + "o_proj.weight"] = ("F8_E4M3", codes)
    checkpoint.tensors[ATTENTION + "o_proj.weight_scale"] = ("F32", scales[:, None, :, None])
    passed, findings = verdict(checkpoint, tmp_path / "wrong", "vllm-modelopt")
    assert not passed and named(findings, "*0.self_attn.o_proj*", ("error",)), findings


def group(scheme, targets):
    """A group of a compressed-tensors config."""
    return quantization_config(scheme)["config_groups"]["group_0"] | {"targets": targets}


# Every one: attention by channels, experts by blocks.
GROUPS = {
    "linear last": {"experts": group("ct-block", ["re:.*mlp.experts.*"]), "others": group("channel", ["Linear"])},
    "linear first": {"z": group("channel", ["Linear"]), "a": group("ct-block", ["re:.*experts[.].*_proj$"])},
    "names": {"g9": group("ct-block", [f"model.layers.{layer}.mlp.experts.0.{leaf}_proj" for layer in (0, 1)
                                      for leaf in ("gate", "up", "down")]), "g1": group("channel", ["Linear"])},
    "overlap": {"b": group("channel", ["re:.*self_attn.*"]), "a": group("ct-block", ["re:.*", "Linear"])},
}


def mixed(groups):
    """Experts by blocks of 128 and attention by channels."""
    checkpoint = build("qwen3moe", "channel")
    requantize(checkpoint, lambda name: "experts" in name, lambda values: scaled("ct-block", values))
    checkpoint.quantization["config_groups"] = copy.deepcopy(groups)
    return checkpoint


@pytest.mark.parametrize("engine", ["vllm-compressed-tensors", "sglang-compressed-tensors"])
@pytest.mark.parametrize("groups", GROUPS)
def test_each_layer_has_the_format_of_the_group_that_its_engine_finds(engine, groups, tmp_path):
    checkpoint = mixed(GROUPS[groups])
    for tp in (1, 2):
        passed, findings = verdict(checkpoint, tmp_path / f"tp{tp}", engine, tp)
        assert passed, findings
    faults = {EXPERTS + "1.up_proj": "channel", ATTENTION + "o_proj": "ct-block"}
    for module, scheme in faults.items():
        wrong = mixed(GROUPS[groups])
        requantize(wrong, lambda name, of=module: name == of + ".weight",
                   lambda values, form=scheme: scaled(form, values))
        passed, findings = verdict(wrong, tmp_path / module, engine)
        assert not passed and named(findings, module + "*", ("error",)), findings


def test_the_order_of_groups_in_the_file_decides_where_targets_overlap(tmp_path):
    # Either pattern names every layer: the first of the file counts, not the first of the alphabet.
    both = {"z": group("channel", ["re:.*proj"]), "a": group("ct-block", ["re:.*_proj"])}
    checkpoint = build("llama", "channel")
    checkpoint.quantization["config_groups"] = both
    engine = "vllm-compressed-tensors"
    passed, findings = verdict(checkpoint, tmp_path / "right", engine)
    assert passed, findings
    checkpoint.quantization["config_groups"] = {"a": both["a"], "z": both["z"]}
    assert not verdict(checkpoint, tmp_path / "wrong", engine)[0]


def test_a_layer_without_a_group_is_raw_in_vllm_and_refused_by_sglang(tmp_path):
    checkpoint = build("qwen3", "channel")
    checkpoint.quantization["config_groups"] = {"g": group("channel", ["re:.*mlp.*"])}
    for name in [name for name in checkpoint.reference if "self_attn" in name and is_quantized(name)]:
        checkpoint.tensors[name] = ("BF16", checkpoint.reference[name])
        checkpoint.tensors.pop(checkpoint.scale_name(name.removesuffix(".weight")))
    passed, findings = verdict(checkpoint, tmp_path / "a", "vllm-compressed-tensors")
    assert passed, findings
    passed, findings = verdict(checkpoint, tmp_path / "b", "sglang-compressed-tensors")
    assert not passed and any("Unable to find matching target" in f["engine_message"] for f in findings), findings


@pytest.mark.parametrize("engine", ["vllm-compressed-tensors", "sglang-compressed-tensors"])
def test_projections_of_experts_in_two_groups_are_refused(engine, tmp_path):
    groups = {"a": group("channel", ["re:.*down_proj"]), "b": group("ct-block", ["re:.*experts.*"]),
              "c": group("channel", ["Linear"])}
    passed, findings = verdict(mixed(groups), tmp_path / "a", engine)
    assert not passed and any("All MoE projections" in f["engine_message"] for f in findings), findings


@pytest.mark.parametrize("engine", ["vllm-compressed-tensors", "sglang-compressed-tensors"])
def test_experts_by_channels_need_inputs_by_tokens(engine, tmp_path):
    checkpoint = build("qwen3moe", "channel")
    assert verdict(checkpoint, tmp_path / "a", engine)[0]
    checkpoint.quantization["config_groups"]["group_0"]["input_activations"]["strategy"] = "tensor"
    passed, findings = verdict(checkpoint, tmp_path / "b", engine)
    assert not passed and named(findings, "*experts*", ("error",)), findings


def static_modelopt():
    """ModelOpt's algorithm FP8: one scale a weight, and one for the inputs of a layer."""
    checkpoint = build("qwen3moe", "pcpt")
    requantize(checkpoint, lambda name: True, lambda values: scaled("ct-tensor", values))
    for module in checkpoint.modules():
        checkpoint.tensors[module + ".input_scale"] = ("F32", numpy.array([0.01], numpy.float32))
    checkpoint.quantization["quant_algo"] = "FP8"
    return checkpoint


@pytest.mark.parametrize("tp", [1, 2])
def test_experts_of_modelopt_have_one_scale_a_projection_and_one_for_inputs(tp, tmp_path):
    checkpoint = static_modelopt()
    passed, findings = verdict(checkpoint, tmp_path / "right", "vllm-modelopt", tp)
    assert passed, findings
    module = EXPERTS + "2.down_proj"
    faults = {"input_scale": None, "weight_scale": numpy.full(2, 0.01, numpy.float32),
              "weight": checkpoint.tensors[module + ".weight"][1][:, :64]}
    for leaf, array in faults.items():
        wrong = copy.copy(checkpoint)
        wrong.tensors = dict(checkpoint.tensors)
        dtype, _ = wrong.tensors.pop(f"{module}.{leaf}")
        if array is not None:
            wrong.tensors[f"{module}.{leaf}"] = (dtype, array)
        passed, findings = verdict(wrong, tmp_path / leaf, "vllm-modelopt", tp)
        assert not passed and named(findings, f"{module}.{leaf}", ("error",)), findings


@pytest.mark.parametrize("engine,entry", [("vllm-modelopt", "model.layers.*.mlp.experts*"),
                                          ("trtllm-fp8", "*.mlp.experts*")])
def test_experts_by_channels_are_refused_and_pass_where_they_stay_in_bf16(engine, entry, tmp_path):
    checkpoint = build("qwen3moe", "pcpt")
    passed, findings = verdict(checkpoint, tmp_path / "quantized", engine)
    assert not passed and named(findings, "*experts*", ("error",)), findings
    for module in [module for module in checkpoint.modules() if ".experts." in module]:
        checkpoint.skip(module)
    checkpoint.quantization["ignore"] = [entry, "lm_head", "model.layers.0.mlp.gate", "model.layers.1.mlp.gate"]
    passed, findings = verdict(checkpoint, tmp_path / "raw", engine)
    assert passed, findings


ROUTERS = '"model.layers.0.mlp.gate", "model.layers.1.mlp.gate"'


@pytest.mark.parametrize("engine", ["vllm-modelopt", "trtllm-fp8"])
def test_a_refit_takes_experts_only_in_bf16(refitbench, engine):
    text = (f"purpose: are experts left in BF16?\nmodel: tiny-moe\nreceiver: {{engine: {engine}, tp: 2, "
            "quantization_config: {quant_method: modelopt, quant_algo: FP8_PER_CHANNEL_PER_TOKEN, ignore: [%s]}}\n"
            "iterations: 1\nwarmup: 0\nchecks: [shape_contract, names, dtype, completeness, digest, round_trip]\n")
    case = refitbench.run(text % f'"lm_head", "*.mlp.experts*", {ROUTERS}').expect(0).json["cases"][0]
    # The trainer's own rule quantizes experts, which is told of as a warning.
    assert case["outcome"] == "pass" and {f["severity"] for f in case["findings"]} <= {"warning"}
    refused = refitbench.run(text % f'"lm_head", {ROUTERS}')
    if engine == "vllm-modelopt":
        refused.expect(2).expect_said("experts", "input_scale", "ignore")
    else:
        findings = refused.expect(1).json["cases"][0]["findings"]
        assert any("Unsupported quantization mode" in f["engine_message"] for f in findings)


@pytest.mark.parametrize("engine,config,said", [
    ("vllm-fp8", "{quant_method: fp8, activation_scheme: dynamic, weight_block_size: [64, 64]}", "blocks of 128 x 128"),
    ("vllm-compressed-tensors", "{quant_method: compressed-tensors, format: float-quantized, config_groups: {"
     "a: {targets: [Linear], weights: {num_bits: 8, type: float, strategy: channel}}, b: {targets: ['re:.*o_proj'], "
     "weights: {num_bits: 8, type: float, strategy: tensor}}}}", "one recipe")])
def test_a_run_refuses_by_name_what_no_recipe_makes(refitbench, engine, config, said):
    text = (f"purpose: who makes such weights?\nmodel: tiny-qwen3\nreceiver: {{engine: {engine}, "
            f"quantization_config: {config}}}\n")
    refitbench.run(text).expect(2).expect_said(said)
