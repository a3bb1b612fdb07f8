# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The engine's own format loads the bits that checkpoint tensors load; what does not fit is refused."""

import h5py
import pytest
from user_program import text_of

SCENARIO = """\
purpose: do fused shards hold what the checkpoint's tensors hold?
model: MODEL
receiver: {engine: ENGINE, tp: TP, commit: in_place}
transport: {bucket_bytes: 1MiB}
iterations: 1
warmup: 0
timeout_s: 30
"""


def scenario(model="tiny-llama", tp=2, engine="vllm-fp8", extra=""):
    text = SCENARIO.replace("MODEL", model).replace("TP", str(tp)).replace("ENGINE", engine)
    return text + extra


def rows(record, index):
    return {text_of(row["name"]): (text_of(row["digest"]), int(row["bytes"]), text_of(row["recipe"]))
            for row in record[f"cases/{index:03d}/tensors"]}


ONE, TWO, SAME = (2, ["mpi"]), (3, ["mpi", "mpi_window"]), (None, ["loopback"])


@pytest.mark.parametrize("world, model, engine", [
    (TWO, "tiny-llama", "vllm-fp8"),
    (SAME, "tiny-mla", "vllm-fp8"),
    *(pytest.param(world, model, engine, marks=pytest.mark.slow)
      for world, model, engine in [(ONE, "tiny-moe", "vllm-bf16"), (ONE, "tiny-llama", "vllm-fp8"), (SAME, "tiny-llama", "vllm-fp8"),
                                   (ONE, "tiny-mla", "vllm-fp8"), (TWO, "tiny-mla", "vllm-fp8"),
                                   (TWO, "tiny-moe", "vllm-bf16"), (SAME, "tiny-moe", "vllm-fp8")]),
])
def test_shards_load_what_checkpoint_tensors_load(refitbench, world, model, engine):
    np, transports = world
    tp = 2 if np is None else np - 1
    extra = ("cases: [{wire: checkpoint}, {wire: kernel}, {wire: kernel, transport.bucket_bytes: 1KiB}]\n"
             f"sweep: {{transport.name: [{', '.join(transports)}]}}\n")
    outcome = refitbench.run(scenario(model, tp, engine, extra), np=np).expect(0)
    with h5py.File(outcome.json["record"], "r") as record:
        expected = rows(record, 0)
        assert len(outcome.json["cases"]) == 3 * len(transports)
        for k, case in enumerate(outcome.json["cases"]):
            assert case["outcome"] == "pass"
            found = rows(record, k)
            assert {name: row[0] for name, row in found.items()} == {n: r[0] for n, r in expected.items()}
            if tp == 1:
                # Nothing is replicated and nothing fused is larger than its parts.
                assert {n: r[2] for n, r in found.items()} == {n: r[2] for n, r in expected.items()}


def test_every_refit_brings_the_new_weights_in_place(refitbench):
    run = refitbench.run(scenario("tiny-mla", 2, extra="wire: kernel\nrefits: 3\n"), np=3).expect(0).json
    assert run["cases"][0]["outcome"] == "pass"


@pytest.mark.parametrize("settings, words", [
    (["payload.scheme=fp8_tensorwise"], ["vLLM transposes", "fp8_tensorwise"]),
    (["receiver.engine=vllm-compressed-tensors", "payload.scheme=fp8_channelwise"], ["vLLM transposes"]),
    (["model=tiny-qwen3", "receiver.engine=sglang-fp8", "receiver.block_kernel=deepgemm"],
     ["Blackwell", "int32"]),
    (["receiver.engine=sglang-fp8", "payload.scheme=fp8_tensorwise"], ["SGLang replaces"]),
    (["receiver.engine=trtllm-fp8"], ["takes no parameters in its own format"]),
    (["receiver.block_kernel=deepgemm"], ["DeepGEMM", "power-of-two", "cutlass"]),
    (["trainer.ranks=2"], ["one trainer"]),
    (["weights.resident=false"], ["weights.resident"]),
    (["transport.framing=vllm-packed"], ["checkpoint names"]),
    (["transport.framing=nemo-packed"], ["checkpoint names"]),
    (["receiver.reload=layerwise"], ["goes past"]),
    (["faults=[{name: rename_scale, tensor: '*'}]"], ["drop_parameter"]),
    (["receiver.tp=1", "faults=[{name: wrong_shard, tensor: '*'}]"], ["receiver.tp is 1"]),
])
def test_contradictions_are_wrong_use_and_say_why(refitbench, settings, words):
    arguments = [word for setting in settings for word in ("--set", setting)]
    refitbench.run(scenario(extra="wire: kernel\n"), *arguments).expect(2).expect_said(*words)


def test_a_stream_that_is_quantized_already_is_known_by_its_names(refitbench):
    for engine, marks in [("vllm-fp8", True), ("vllm-bf16", False)]:
        outcome = refitbench.run(scenario(engine=engine, tp=1), np=2, name=f"{engine}.yaml").expect(0)
        with h5py.File(outcome.json["record"], "r") as record:
            note = text_of(record["cases/000/notes"].attrs["stream_quantized_already"])
        assert (int(note.split()[0]) > 0) == marks


LAYER = "model.layers.1."
ATTENTION = [LAYER + f"self_attn.{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "o_proj")]
MLP = [LAYER + f"mlp.{name}.weight" for name in ("gate_proj", "up_proj", "down_proj")]
EXPERTS = [LAYER + f"mlp.experts.{expert}.{name}.weight" for expert in (0, 3, 7)
           for name in ("gate_proj", "up_proj", "down_proj")]
LATENT = [LAYER + f"self_attn.{name}.weight" for name in ("q_a_proj", "kv_a_proj_with_mqa", "q_b_proj")]


@pytest.mark.parametrize("model, struck", [
    ("tiny-llama", ATTENTION + MLP),
    pytest.param("tiny-moe", ATTENTION + EXPERTS, marks=pytest.mark.slow),
    pytest.param("tiny-mla", LATENT + EXPERTS, marks=pytest.mark.slow)])
def test_findings_name_the_checkpoints_tensor_and_its_global_index(refitbench, model, struck):
    # A NaN makes the scale of its tile NaN: row 150 lies in the second row of tiles, column 140 in the second column.
    plants = ", ".join(f"{{tensor: {name}, kind: nan, where: {{row: 150, col: 140}}}}" for name in struck)
    extra = ("wire: kernel\nnonfinite: propagate\nsweep: {receiver.tp: [1, 2, 4]}\n"
             "expect: {outcome: finding, check: nonfinite}\n"
             f"weights: {{plant: [{plants}]}}\n")
    outcome = refitbench.run(scenario(model, 1, extra=extra)).expect(0)
    expected = {(name + "_scale_inv", (1, 1)) for name in struck}
    assert len(outcome.json["cases"]) == 3
    for case in outcome.json["cases"]:
        found = {(f["tensor"], tuple(f["index"])) for f in case["findings"]}
        assert found == expected, case["case"]
        for finding in case["findings"]:
            assert "the engine's" in finding["message"] or case["tp"] == 1
    with h5py.File(outcome.json["record"], "r") as record:
        rows = record["cases/002/findings"][()]
        assert {(text_of(row["tensor"]), text_of(row["index"])) for row in rows} == {
            (name, "[1, 1]") for name, _ in expected}


def test_a_parameter_that_never_comes_is_said_once_with_the_tensors_it_is_made_of(refitbench):
    extra = ("wire: kernel\nfaults: [{name: drop_parameter, tensor: '*.layers.1.mlp.gate_up_proj.weight'}]\n"
             "expect: {outcome: finding, check: names}\n")
    case = refitbench.run(scenario(tp=4, extra=extra)).expect(0).json["cases"][0]
    assert [finding["tensor"] for finding in case["findings"]] == [LAYER + "mlp.gate_proj.weight"]
    for word in ("gate_up_proj.weight", "up_proj.weight", "TP ranks 0, 1, 2, 3"):
        assert word in case["findings"][0]["message"]
