# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The field's framings load the bits that the native one loads, and their hazards are found."""

import json

import h5py
import pytest
from checkpoints import llama_config
from user_program import text_of

FRAMINGS = ["native", "vllm-packed", "vllm-ipc", "sglang-bucket", "nemo-packed", "prime-rl"]

SCENARIO = """\
purpose: does a framing carry what the trainer made?
model: MODEL
receiver: {engine: vllm-fp8, tp: TP}
transport: {bucket_bytes: 1MiB, trainer_memory_bytes: 50MiB, receiver_memory_bytes: 50MiB}
iterations: 1
warmup: 0
timeout_s: 30
"""


def scenario(model, extra="", tp=1):
    return SCENARIO.replace("MODEL", model).replace("TP", str(tp)) + extra


def digests(record, index):
    return {text_of(row["name"]): text_of(row["digest"])
            for row in record[f"cases/{index:03d}/tensors"]}


# bucket_bytes would reach NeMo's sender alone: it takes 2 % of 50 MiB on both sides instead.
CASES = "cases:\n" + "".join(
    f"  - {{transport.framing: {framing}"
    + (", transport.bucket_bytes: none" if framing == "nemo-packed" else "") + "}\n"
    for framing in FRAMINGS)


@pytest.mark.parametrize("model, resident, transports, np", [
    ("tiny-llama", "true", ["mpi", "mpi_window"], 3),
    ("tiny-mla", "false", ["loopback"], None),
    pytest.param("tiny-mla", "false", ["mpi", "mpi_window"], 3, marks=pytest.mark.slow),
    pytest.param("tiny-llama", "true", ["loopback"], None, marks=pytest.mark.slow),
])
def test_every_framing_loads_the_same_bits(refitbench, model, resident, transports, np):
    extra = f"weights: {{resident: {resident}}}\nsweep: {{transport.name: [{', '.join(transports)}]}}\n"
    outcome = refitbench.run(scenario(model, extra + CASES, tp=2), np=np).expect(0)
    cases = outcome.json["cases"]
    assert len(cases) == len(FRAMINGS) * len(transports)
    assert {case["outcome"] for case in cases} == {"pass"}
    assert len({case["bytes_wire"] for case in cases}) == 1
    with h5py.File(outcome.json["record"], "r") as record:
        first = digests(record, 0)
        assert all(digests(record, k) == first for k in range(1, len(cases)))


def test_a_tensor_of_odd_bytes_before_a_scale_is_found_where_views_are_taken(refitbench):
    # One key head of 65 rows and 257 columns is 16705 codes: its scales begin at an odd byte.
    config = llama_config(hidden=257, heads=4, kv_heads=1, ffn=640, layers=1, vocabulary=200)
    refitbench.write("config.json", json.dumps({**config, "head_dim": 65}))
    extra = CASES + "payload: {scheme: fp8_channelwise}\n"
    text = scenario("{config: config.json}", extra).replace("vllm-fp8", "vllm-compressed-tensors")
    run = refitbench.run(text, np=2).expect(1).json
    by_framing = dict(zip(FRAMINGS, run["cases"]))
    for framing, case in by_framing.items():
        views = framing in ("vllm-packed", "vllm-ipc", "sglang-bucket")
        assert case["outcome"] == ("fail" if views else "pass"), framing
        for finding in case["findings"]:
            assert finding["check"] == "shape_contract"
            assert finding["engine_behaviour"] == "raises"
            assert "self.storage_offset() must be divisible by" in finding["engine_message"]
        if views:
            assert "to view Byte as Float (" in case["findings"][0]["engine_message"]


def test_boundaries_that_disagree_are_found(refitbench):
    cases = ("cases:\n"
             "  - {transport.framing: vllm-packed, faults: [{name: bucket_bytes_disagree, receiver: 1}]}\n"
             "  - {transport.framing: nemo-packed, transport.bucket_bytes: 2MiB}\n"
             "  - {transport.framing: nemo-packed, transport.bucket_bytes: none,"
             " transport.receiver_memory_bytes: 90MiB}\n")
    run = refitbench.run(scenario("tiny-llama", cases, tp=2), np=3).expect(1).json
    for case, rank in zip(run["cases"], [2, 1, 1]):
        assert case["outcome"] == "fail"
        (finding,) = case["findings"]
        assert finding["check"] == "shape_contract" and finding["rank"] == rank
        assert "message 0" in finding["measured"]


def test_a_scalar_is_found_where_the_sender_views_bytes(refitbench):
    extra = "payload: {scheme: fp8_tensorwise, scale_shape: 0d}\n" + CASES
    run = refitbench.run(scenario("tiny-llama", extra), np=2).expect(1).json
    for framing, case in zip(FRAMINGS, run["cases"]):
        refuses = framing in ("vllm-packed", "vllm-ipc", "nemo-packed")
        assert case["outcome"] == ("fail" if refuses else "pass"), framing
        assert all("self.dim() cannot be 0" in f["engine_message"] for f in case["findings"])


def test_damage_that_the_engine_would_not_notice_is_said_so(refitbench):
    extra = "faults: [{name: flip_byte, receiver: 0, bucket: 1}]\n"
    text = scenario("tiny-llama", extra)
    run = refitbench.run(text, "--set", "transport.framing=vllm-packed", np=2).expect(1).json
    (finding,) = run["cases"][0]["findings"]
    assert finding["check"] == "digest" and finding["engine_behaviour"] == "silently_wrong"
    assert "would not notice" in finding["message"]


def test_a_tensor_larger_than_the_ipc_buffer_is_wrong_use_with_the_engines_text(refitbench):
    outcome = refitbench.run(scenario("tiny-llama"), "--set", "transport.framing=vllm-ipc",
                             "--set", "transport.bucket_bytes=4KiB", np=2).expect(2)
    outcome.expect_said("Tensor 'model.embed_tokens.weight' has size 1048576 bytes, which exceeds "
                        "buffer_size_bytes=4096. Increase buffer_size_bytes to at least 1048576")


def test_a_pair_that_sglang_joins_is_found_in_every_cut_that_parts_it(refitbench):
    # q_b_proj alone is 384 KiB and stands between the two.
    sweep = "sweep: {transport.bucket_bytes: [1KiB, 256KiB, 384KiB, 64MiB]}\n"
    text = scenario("tiny-mla", sweep).replace("vllm-fp8", "sglang-fp8")
    run = refitbench.run(text, "--set", "transport.framing=sglang-bucket", np=2).expect(1).json
    assert [case["outcome"] for case in run["cases"]] == ["fail", "fail", "fail", "pass"]
    for case in run["cases"][:3]:
        assert {f["check"] for f in case["findings"]} == {"completeness"}
        assert {f["engine_behaviour"] for f in case["findings"]} == {"silently_wrong"}
        assert all(".q_a_proj.weight" in f["tensor"] for f in case["findings"])
        assert {"model.layers.0.self_attn.q_a_proj.weight", "model.layers.1.self_attn.q_a_proj.weight"} <= {
            f["tensor"] for f in case["findings"]}


def test_the_list_says_rule_hazard_and_source_of_each(refitbench):
    rows = refitbench("list", "framings", "--json", "-").expect(0).json["rows"]
    assert [row["name"] for row in rows] == FRAMINGS
    assert all(row["source"] and row["rule"] and row["hazard"] for row in rows)
    # What travels beside the tensors is in no byte count; the list and the record say what it is.
    uncounted = {row["name"]: row["uncounted"] for row in rows}
    assert all(uncounted.values()) and "pickle" in uncounted["prime-rl"]
    outcome = refitbench.run(
        scenario("tiny-llama", "sweep: {transport.framing: [prime-rl, vllm-packed]}\n")).expect(0)
    sent = set()
    with h5py.File(outcome.json["record"], "r") as record:
        for case in record["cases"].values():
            name = text_of(case["notes"].attrs["framing"])
            assert text_of(case["notes"].attrs["bytes_wire_leaves_out"]) == uncounted[name]
            sent.add(int(case.attrs["bytes_wire"]))
    assert len(sent) == 1
