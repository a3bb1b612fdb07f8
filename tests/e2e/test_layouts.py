# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The trainers' layout and the memory of weights change neither the loaded bits nor the verdict."""

import json

import h5py
import pytest
from checkpoints import llama_config
from user_program import text_of

# Fused rows are whole blocks, as the engine wants them, and nothing else: parts of 64 columns of
# o_proj, of 320 and 160 columns of down_proj cut blocks; 2 KV heads are replicated on 4 ranks.
RAGGED = llama_config(hidden=257, heads=4, kv_heads=2, ffn=640, layers=2, vocabulary=200)

SCENARIO = """\
purpose: do the loaded bits depend on how the trainers hold their weights?
model: {config: config.json}
receiver: {engine: ENGINE, tp: TP}
trainer: {ranks: RANKS, layout: LAYOUT}
weights: {resident: RESIDENT}
transport: {bucket_bytes: 256KiB}
iterations: 1
warmup: 0
timeout_s: 30
"""


def scenario(engine, layout, ranks, resident="true", tp=1):
    text = SCENARIO.replace("ENGINE", engine).replace("RANKS", str(ranks)).replace("TP", str(tp))
    return text.replace("LAYOUT", layout).replace("RESIDENT", resident)


def digests(outcome):
    with h5py.File(outcome.json["record"], "r") as record:
        return {text_of(row["name"]): text_of(row["digest"])
                for row in record["cases/000/tensors"]}


@pytest.mark.parametrize("engine", ["vllm-fp8", "vllm-bf16"])
def test_every_layout_loads_the_same_bits(refitbench, engine):
    refitbench.write("config.json", json.dumps(RAGGED))
    seen = {}
    for layout, ranks, resident in [("fsdp", 1, "true"), ("fsdp", 3, "false"), ("tp", 2, "true"),
                                    ("tp", 4, "false"), ("ep", 2, "auto")]:
        outcome = refitbench.run(scenario(engine, layout, ranks, resident), np=ranks + 1).expect(0)
        assert outcome.json["cases"][0]["outcome"] == "pass", outcome
        seen[layout, ranks] = digests(outcome)
    assert all(found == seen["fsdp", 1] for found in seen.values())


def test_a_layout_that_does_not_divide_is_wrong_use_and_names_the_tensor(refitbench):
    refitbench.write("config.json", json.dumps(RAGGED))
    outcome = refitbench.run(scenario("vllm-fp8", "tp", 3), np=4)
    outcome.expect(2).expect_said("embed_tokens.weight", "200 rows", "trainer.layout=fsdp")


def test_source_unchanged_is_not_applicable_where_no_weights_stay_in_memory(refitbench):
    refitbench.write("config.json", json.dumps(RAGGED))
    outcome = refitbench.run(scenario("vllm-fp8", "fsdp", 1, "false"), np=2).expect(0)
    with refitbench.record(outcome) as record:
        notes = record["cases/000/notes"].attrs
        assert "source_unchanged" in text_of(notes["checks_not_applicable"]).split(",")
        assert "false" in text_of(notes["weights_resident"])
        source = record["cases/000/samples/source"][...]
        assert (source[:, 0] > 0).all()
        assert not (source[:, 1:] > 0).any()  # receivers read nothing


MEMORY_CASES = [("fsdp", "in_place", "mpi"), ("fsdp", "staged", "mpi"), ("tp", "in_place", "mpi"),
                ("fsdp", "in_place", "mpi_window")]


def test_no_rank_holds_more_than_two_buckets_and_a_layer_beyond_its_part(refitbench):
    """All checks on, the audit included; weights made when they are wanted."""
    mib = 1 << 20
    config = llama_config(hidden=1024, heads=8, ffn=4096, layers=4, vocabulary=4096)
    layer = 2 * (4 * 1024 * 1024 + 3 * 1024 * 4096)
    matrices = config["num_hidden_layers"] * layer // 2
    raw = 2 * 2 * 4096 * 1024  # embedding and head

    def peak(shape, layout, commit, transport, resident="false"):
        refitbench.write("config.json", json.dumps(shape))
        text = scenario("vllm-fp8", layout, 2, resident, tp=2).replace("256KiB", "8MiB")
        text = text.replace("tp: 2}", f"tp: 2, commit: {commit}}}")
        text = text.replace("transport: {", f"transport: {{name: {transport}, ")
        outcome = refitbench.run(text, np=4).expect(0)
        return outcome.json["cases"][0]["peak_rss_bytes"]

    idle = peak(llama_config(), "fsdp", "in_place", "mpi")
    beyond = 2 * 8 * mib + layer
    peaks = {}
    for layout, commit, transport in MEMORY_CASES:
        found = peaks[layout, commit, transport] = peak(config, layout, commit, transport)
        destinations = (matrices + raw) // 2 * (2 if commit == "staged" else 1)
        # The allowance is the program itself on a model of a few hundred kB, and a tenth for
        # scales, padding and the allocator.
        allowed = 1.1 * (4 * idle["max"] + 4 * beyond + 2 * destinations)
        where = f"{layout}, {commit}, {transport}: {found}"
        assert found["max"] <= 1.1 * (idle["max"] + beyond + destinations), where
        assert found["sum"] <= allowed, where
    # What the bound must catch: weights that stay in memory, a second copy.
    by_bucket = peaks["fsdp", "in_place", "mpi"]["sum"]
    resident = peak(config, "fsdp", "in_place", "mpi", "true")["sum"]
    assert resident - by_bucket > (2 * matrices + raw) // 2
    assert peaks["fsdp", "staged", "mpi"]["sum"] - by_bucket > 0.7 * (matrices + raw)


@pytest.mark.parametrize("engine", ["vllm-fp8", "vllm-bf16"])
def test_tensor_parallel_over_sixteen_ranks_loads_every_shard(refitbench, engine):
    """Seventeen ranks in one process; four KV heads are replicated four times each."""
    config = llama_config(hidden=256, heads=16, kv_heads=4, head_dim=128, ffn=2048, layers=1,
                          vocabulary=1024)
    refitbench.write("config.json", json.dumps(config))
    text = scenario(engine, "fsdp", 1, tp=16)
    text = text.replace("transport: {", "transport: {name: loopback, ")
    outcome = refitbench.run(text, timeout=120).expect(0)
    alone = digests(outcome)
    assert outcome.json["world"]["receivers"] == 16
    assert outcome.json["cases"][0]["outcome"] == "pass"
    # The shards together are the tensors that one rank holds.
    assert alone == digests(refitbench.run(scenario(engine, "fsdp", 1), np=2).expect(0))
