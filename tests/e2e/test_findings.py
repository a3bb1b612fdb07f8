# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""One finding a tensor and cause, faults that strike something, and what the console says of a case."""

import pytest
from user_program import small_run

TWO_ENGINES = small_run(transport="loopback").replace("tp: 1", "tp: 2, engines: 2")
PLANTED = "nonfinite: recipe\nweights: {plant: [{kind: nan, tensor: model.norm.weight, where: {row: 200}}]}\n"
UP = "*.layers.0.mlp.up_proj.weight"


def fault(name, tensor):
    return small_run(transport="loopback") + f"faults: [{{name: {name}, tensor: '{tensor}'}}]\n"


def causes(outcome):
    return [(f["check"], f["tensor"], f["index"]) for f in outcome.json["cases"][0]["findings"]]


def test_ranks_that_hold_the_same_find_it_once(refitbench):
    outcome = refitbench.run(TWO_ENGINES + PLANTED).expect(1)

    assert causes(outcome) == [("nonfinite", "model.norm.weight", [200])]


def test_ranks_that_hold_parts_find_a_cause_once_and_a_check_each(refitbench):
    text = TWO_ENGINES + f"faults: [{{name: scale_doubled, tensor: '{UP}'}}]\n"

    found = [check for check, _, _ in causes(refitbench.run(text).expect(1))]

    assert sorted(found) == ["round_trip", "sqnr"]


@pytest.mark.parametrize("name", ["drop_tensor", "skip_load", "replica_flip", "source_write", "wrong_eligibility",
                                  "swap_tensors"])
def test_a_fault_that_strikes_nothing_is_2(refitbench, name):
    refitbench.run(fault(name, "model.nrom.weight")).expect(2).expect_said(name, "model.norm.weight")


@pytest.mark.parametrize("name", ["rename_scale", "scale_dtype", "scale_doubled"])
def test_a_fault_of_scales_needs_a_weight_that_has_one(refitbench, name):
    refitbench.run(fault(name, "model.norm.weight")).expect(2).expect_said(name, "model.norm.weight")


@pytest.mark.parametrize("name, value", [("cache_scale_value", ", value: zero"), ("stale_cache_scale", "")])
def test_a_fault_of_cache_scales_needs_one(refitbench, name, value):
    text = small_run(transport="loopback") + "refits: 2\npayload: {kv_cache_scales: kv}\n"
    text += f"faults: [{{name: {name}, tensor: '{UP}'{value}}}]\n"

    refitbench.run(text).expect(2).expect_said(name, "k_scale")


EXPERT = "model.layers.1.mlp.experts.7.gate_proj.weight"
SHARDED = small_run(transport="loopback").replace("tp: 1", "tp: 2").replace("tiny-qwen3", "tiny-moe")


@pytest.mark.parametrize("text, name, tensor, code", [
    (SHARDED.replace("tp: 2", "tp: 2, ep: 2"), "skip_load", EXPERT, 2),
    (SHARDED.replace("tp: 2", "tp: 2, ep: 2"), "replica_flip", EXPERT.replace("7", "0"), 1),
    (SHARDED + "wire: kernel\n", "skip_load", "*w2_weight@tp1", 2),
    (SHARDED + "wire: kernel\n", "skip_load", "*w2_weight@tp0", 1),
    (SHARDED + "wire: kernel\n", "wrong_shard", "model.norm.weight", 2),
    (SHARDED + "wire: kernel\n", "wrong_shard", "*.layers.0.self_attn.o_proj.weight", 1),
    (SHARDED.replace("ranks: 1", "ranks: 2, layout: ep"), "source_write", EXPERT, 2),
    (SHARDED.replace("ranks: 1", "ranks: 2, layout: ep"), "source_write", EXPERT.replace("7", "0"), 1)])
def test_a_fault_strikes_what_its_rank_holds(refitbench, text, name, tensor, code):
    refitbench.run(text + f"faults: [{{name: {name}, tensor: '{tensor}'}}]\n").expect(code)


def test_nothing_is_of_the_wrong_dtype_where_nothing_is_quantized(refitbench):
    text = fault("wrong_eligibility", UP) + "payload: {scheme: bf16}\n"

    refitbench.run(text.replace("vllm-fp8", "vllm-bf16")).expect(2).expect_said("wrong_eligibility")


@pytest.mark.parametrize("name, check", [("drop_tensor", "names"), ("rename_scale", "names"),
                                         ("scale_dtype", "dtype"), ("scale_doubled", "round_trip")])
def test_faults_of_scales_take_the_names_of_scales(refitbench, name, check):
    found = causes(refitbench.run(fault(name, UP + "_scale_inv")).expect(1))

    assert check in {one for one, _, _ in found}


def test_a_swap_needs_two_tensors_of_one_shape(refitbench):
    refitbench.run(fault("swap_tensors", "lm_head.weight")).expect(2).expect_said("swap_tensors", "two")


@pytest.mark.parametrize("name, check", [("skip_load", "completeness"), ("replica_flip", "round_trip")])
def test_faults_of_a_loader_take_patterns(refitbench, name, check):
    found = causes(refitbench.run(fault(name, UP)).expect(1))

    assert (check, "model.layers.0.mlp.up_proj.weight") in [cause[:2] for cause in found]


@pytest.mark.parametrize("scheme, shape", [("fp8_blockwise", "1d"), ("fp8_tensorwise", "2d")])
def test_a_scale_shape_that_the_recipe_cannot_have_is_2(refitbench, scheme, shape):
    text = small_run(transport="loopback") + f"payload: {{scheme: {scheme}, scale_shape: {shape}}}\n"

    refitbench.run(text).expect(2).expect_said("scale_shape", shape)


def test_the_console_marks_an_emulated_link_and_checks_that_do_not_apply(refitbench):
    text = small_run(transport="loopback").replace("name: loopback", "name: loopback, link_bytes_per_s: 1GiB")
    path = refitbench.write("link.yaml", text + "checks: [digest, source_unchanged]\nweights: {resident: false}\n")

    said = refitbench("run", path).expect(0).stdout

    assert "(link emulated)" in said
    assert "not applicable: source_unchanged" in said
