# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Scales of the KV cache: the same bytes whatever carried them, other ones at every step."""

import h5py
import pytest

SCENARIO = """
purpose: do scales of an FP8 KV cache arrive?
model: tiny-llama
weights: {seed: 11}
receiver: {engine: vllm-fp8, tp: 2, reload: layerwise}
payload: {kv_cache_scales: qkv}
transport: {bucket_bytes: 1MiB}
iterations: 1
warmup: 0
"""
NAMES = {f"model.layers.{layer}.self_attn.{name}"
         for layer in (0, 1) for name in ("k_scale", "v_scale", "attn.q_scale")}


def scales(refitbench, *options, np=None):
    """Digest of each loaded scale by case."""
    path = refitbench.folder / "scales.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    sets = [word for option in options for word in ("--set", option)]
    run = refitbench("run", path, *sets, "--output", refitbench.records, "--json", "-", np=np).expect(0).json
    assert {case["outcome"] for case in run["cases"]} == {"pass"}
    found = {}
    with h5py.File(run["record"], "r") as record:
        for number, case in record["cases"].items():
            rows = [row for row in case["tensors"][()] if row["role"] == b"kv_cache_scale"]
            assert {row["bytes"] for row in rows} == {4} and {row["exact"] for row in rows} == {1}
            found[number] = {row["name"].decode(): row["digest"].decode() for row in rows}
    return found


def test_every_transport_framing_and_layout_loads_the_same_scales(refitbench):
    expected = scales(refitbench)["000"]
    assert set(expected) == NAMES
    assert len(set(expected.values())) == len(NAMES), "layers share scales"
    ways = ("cases=[{transport.name: mpi}, {transport.name: mpi_window}, {transport.framing: vllm-packed},"
            " {transport.framing: prime-rl}, {payload.kv_scale_names: parameter}]")
    for case in scales(refitbench, ways, np=3).values():
        assert case == expected
    ways = "cases=[{trainer.ranks: 2, trainer.layout: tp}, {trainer.ranks: 2}]"
    for case in scales(refitbench, ways).values():
        assert case == expected


def test_a_later_step_has_other_scales(refitbench):
    first = scales(refitbench)["000"]
    second = scales(refitbench, "weights.step=1")["000"]
    assert sum(first[name] != second[name] for name in NAMES) >= 4
    assert scales(refitbench, "refits=2")["000"] == second


@pytest.mark.parametrize("settings, words", [
    (["receiver.engine=transformers-fp8", "receiver.tp=1", "receiver.reload=none"],
     ["payload.kv_cache_scales", "transformers-fp8"]),
    (["model=tiny-mla"], ["payload.kv_cache_scales", "DeepseekV3ForCausalLM"]),
    (["wire=kernel", "receiver.reload=none"], ["wire: kernel", "layerwise"]),
    (["payload.kv_cache_scales=none", "payload.kv_scale_names=layer"], ["payload.kv_scale_names"]),
    (["faults=[{name: cache_scale_value, tensor: '*'}]"], ["value", "zero"]),
    (["faults=[{name: stale_cache_scale, tensor: '*'}]"], ["refits"]),
])
def test_what_cannot_be_sent_is_refused_by_name(refitbench, settings, words):
    path = refitbench.folder / "scales.yaml"
    path.write_text(SCENARIO, encoding="utf-8")
    sets = [word for setting in settings for word in ("--set", setting)]
    refitbench("run", path, *sets, "--output", refitbench.records).expect(2).expect_said(*words)
