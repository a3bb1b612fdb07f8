# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Every engine takes a refit of every tiny model in each of its schemes, at every TP size that it has."""

import json

import h5py
import pytest
from user_program import text_of

SCHEMES = {
    "vllm-bf16": ["bf16"],
    "sglang-bf16": ["bf16"],
    "vllm-fp8": ["fp8_blockwise", "fp8_tensorwise"],
    "sglang-fp8": ["fp8_blockwise", "fp8_tensorwise"],
    "transformers-fp8": ["fp8_blockwise", "fp8_tensorwise"],
    "vllm-compressed-tensors": ["fp8_channelwise", "fp8_tensorwise", "fp8_blockwise"],
    "sglang-compressed-tensors": ["fp8_channelwise", "fp8_tensorwise", "fp8_blockwise"],
    "vllm-modelopt": ["fp8_channelwise", "fp8_blockwise"],
    "trtllm-fp8": ["fp8_channelwise"],
    "strict": ["fp8_blockwise", "fp8_channelwise", "fp8_tensorwise"],
}
ONE_RANK = {"transformers-fp8"}
UNREAD = {("trtllm-fp8", "tiny-mla")}  # its loader of this family was not read


def engine_cases(model, tp):
    return [(engine, scheme) for engine, schemes in SCHEMES.items() for scheme in schemes
            if not (engine in ONE_RANK and tp > 1) and (engine, model) not in UNREAD]


def sizes():
    for model in ("tiny-llama", "tiny-qwen3", "tiny-moe", "tiny-mla"):
        for tp in (1, 2, 4):
            # Between them these two have every kind of tensor, whole and cut.
            usual = (model, tp) in (("tiny-qwen3", 1), ("tiny-mla", 2))
            yield pytest.param(model, tp, marks=() if usual else pytest.mark.slow)


@pytest.mark.parametrize("model, tp", sizes())
def test_every_engine_takes_every_scheme(refitbench, model, tp):
    cases = engine_cases(model, tp)
    text = (f"purpose: does every engine take what the trainers make?\nmodel: {model}\n"
            f"receiver: {{engine: vllm-fp8, tp: {tp}}}\niterations: 1\nwarmup: 0\n"
            "checks: [shape_contract, names, dtype, completeness, digest, round_trip]\ncases: ["
            + ", ".join(f"{{receiver.engine: {e}, payload.scheme: {s}}}" for e, s in cases) + "]\n")
    # SGLang's Llama loader drops block scales; that is a finding of its own.
    lossy = model == "tiny-llama"

    run = refitbench.run(text, timeout=300).expect(1 if lossy else 0).json

    outcomes = {(case["engine"], case["scheme"]): case for case in run["cases"]}
    assert set(outcomes) == set(cases)
    for (engine, scheme), case in outcomes.items():
        if lossy and (engine, scheme) == ("sglang-fp8", "fp8_blockwise"):
            assert case["outcome"] == "fail"
            assert "weight_scale_inv" in case["findings"][0]["tensor"]
            continue
        assert case["outcome"] == "pass", (engine, scheme, case["findings"][:1])
        assert not [finding for finding in case["findings"] if finding["severity"] == "error"]


def test_an_engine_of_one_rank_is_refused_at_two(refitbench):
    text = ("purpose: how many ranks?\nmodel: tiny-qwen3\nreceiver: {engine: transformers-fp8, tp: 2}\n")

    refused = refitbench.run(text).expect(2).expect_said("transformers-fp8", "plan of each model class", "tp: 1")
    # The transport is that of one process, as it is of a case that runs.
    assert [case["transport"] for case in refused.json["cases"]] == ["loopback"]


@pytest.mark.parametrize("model, raw", [("tiny-llama", []), ("tiny-moe", ["*.mlp.experts*"])])
def test_what_an_engine_cannot_hold_travels_in_bf16_unless_a_config_says_otherwise(refitbench, model, raw):
    text = (f"purpose: what is left out?\nmodel: {model}\nreceiver: {{engine: vllm-modelopt}}\n"
            "iterations: 1\nwarmup: 0\n")
    outcome = refitbench.run(text).expect(0)
    with h5py.File(outcome.json["record"], "r") as record:
        config = json.loads(text_of(record["cases/000/notes"].attrs["quantization_config"]))
        assert config["ignore"] == ["lm_head"] + raw
        for row in record["cases/000/tensors"]:
            if ".mlp.experts." in text_of(row["name"]):
                assert text_of(row["recipe"]) == "" and row["bytes"] == 2 * row["rows"] * row["cols"]


def test_tp_sizes_are_listed_for_the_engines_with_block_rules(refitbench):
    rows = refitbench("list", "models", "--tp", "--json", "-").expect(0).json["rows"]

    passes = {(row["engine"], row["name"]): {size["tp"] for size in row["sizes"] if size["passes"] and size["ep"] == 1}
              for row in rows}
    # As an emulation of both loaders gave them; SGLang's Llama loader drops block scales at every size.
    for engine in ("vllm-fp8", "sglang-fp8"):
        assert passes[engine, "qwen3-0.6b"] == {1, 2, 4, 8}
        assert passes[engine, "qwen2.5-7b"] == {1, 2, 4}
        assert passes[engine, "qwen3-30b-a3b"] == {1, 2}
    assert passes["vllm-fp8", "llama-3.1-8b"] == {1, 2, 4, 8, 16}
    assert passes["sglang-fp8", "llama-3.1-8b"] == set()
