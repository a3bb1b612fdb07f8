# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Keys of a scenario, --set, sweep and cases, as they show in the cases that a run reports."""

import pytest
from user_program import small_run

MINIMAL = "purpose: what are the defaults?\nmodel: tiny-qwen3\nreceiver: {engine: vllm-fp8}\n"
LOOPBACK = small_run(transport="loopback")


def cases_of(refitbench, text, *arguments, np=None):
    return refitbench.run(text, *arguments, np=np).expect(0).json["cases"]


def names_of(refitbench, text, *arguments):
    """Names of the cases, without running them."""
    path = refitbench.write("names.yaml", text)
    plan = refitbench("run", path, *arguments, "--dry-run", "--json", "-").expect(0).json
    return [case["case"] for case in plan["cases"]]


@pytest.mark.parametrize("np, transport", [(None, "loopback"), (2, "mpi")])
def test_three_keys_are_enough(refitbench, np, transport):
    case = cases_of(refitbench, MINIMAL, np=np)[0]

    assert (case["transport"], case["tp"], case["engines"]) == (transport, 1, 1)
    assert (case["scheme"], case["recipe"]) == ("fp8_blockwise", "prime-rl-blockwise")
    assert case["iterations"] == 5
    assert case["link"] == {"bytes_per_s": None, "emulated": False}


@pytest.mark.parametrize("key", ["purpose", "model", "receiver"])
def test_a_required_key_that_is_missing_is_2(refitbench, key):
    text = "".join(line for line in MINIMAL.splitlines(True) if not line.startswith(key))

    refitbench.run(text).expect(2).expect_said(key)


@pytest.mark.parametrize(
    "scheme, engine, recipe",
    [("fp8_blockwise", "vllm-fp8", "prime-rl-blockwise"),
     ("fp8_channelwise", "vllm-modelopt", "modelopt-pc-pt"),
     ("fp8_channelwise", "vllm-compressed-tensors", "prime-rl-channelwise"),
     ("fp8_tensorwise", "vllm-fp8", "tensorwise")])
def test_each_scheme_has_its_default_recipe(refitbench, scheme, engine, recipe):
    text = LOOPBACK.replace("vllm-fp8", engine) + f"payload: {{scheme: {scheme}}}\n"

    assert cases_of(refitbench, text)[0]["recipe"] == recipe


def test_n_and_w_win_over_the_file_and_set(refitbench):
    case = cases_of(refitbench, LOOPBACK, "--set", "iterations=7", "-n", "2", "-w", "0")[0]

    assert case["iterations"] == len(case["wall_s"]["samples"]) == 2


def test_refits_are_all_measured(refitbench):
    case = cases_of(refitbench, LOOPBACK + "refits: 3\n", "-n", "2")[0]

    assert case["outcome"] == "pass"
    assert len(case["wall_s"]["samples"]) == 6


@pytest.mark.parametrize("word", ["on", "off", "false"])
@pytest.mark.parametrize("np, transport", [(None, "loopback"), (2, "mpi"), (3, "mpi_window")])
def test_a_run_of_several_buckets_passes_with_the_pipeline_on_and_off(refitbench, word, np, transport):
    text = small_run((np or 2) - 1, 1, transport) + f"pipeline: {word}\n"

    assert cases_of(refitbench, text, np=np)[0]["outcome"] == "pass"


@pytest.mark.parametrize("word", ["none", "null", "~"])
def test_none_and_null_mean_no_pacing(refitbench, word):
    case = cases_of(refitbench, LOOPBACK, "--set", f"transport.link_bytes_per_s={word}")[0]

    assert case["link"] == {"bytes_per_s": None, "emulated": False}


def test_a_paced_link_is_marked_emulated(refitbench):
    case = cases_of(refitbench, LOOPBACK, "--set", "transport.link_bytes_per_s=64MiB")[0]

    assert case["link"] == {"bytes_per_s": 64 * 2**20, "emulated": True}


@pytest.mark.parametrize("size", ["1MiB", "1024KiB", "1048576"])
def test_sizes_take_suffixes(refitbench, size):
    path = refitbench.write("size.yaml", LOOPBACK)
    plans = [refitbench("run", path, "--set", f"transport.bucket_bytes={written}", "--dry-run", "--json",
                        "-").expect(0).json["cases"][0]["buckets"] for written in (size, "1048576")]

    assert plans[0] == plans[1] > 1


@pytest.mark.parametrize("size", ["1.5MiB", "64KB", "0", "-1", "1e6", "MiB"])
def test_other_sizes_are_2(refitbench, size):
    refitbench.run(LOOPBACK, "--set", f"transport.bucket_bytes={size}").expect(2).expect_said(
        "transport.bucket_bytes")


# ---- sweep and cases ------------------------------------------------------------------------------


def test_a_sweep_is_the_product_of_its_axes(refitbench):
    text = LOOPBACK + ("sweep: {payload.recipe: [prime-rl-blockwise, nemo-rl-linear], "
                       "transport.bucket_bytes: [256KiB, 1MiB]}\n")

    names = names_of(refitbench, text)

    assert len(names) == len(set(names)) == 4
    for recipe in ("prime-rl-blockwise", "nemo-rl-linear"):
        for size in ("256KiB", "1MiB"):
            assert sum(recipe in name and size in name for name in names) == 1


def test_nested_keys_name_the_same_paths(refitbench):
    dotted = names_of(refitbench, LOOPBACK + "sweep: {payload.recipe: [deepgemm, nemo-rl-linear]}\n")
    nested = names_of(refitbench, LOOPBACK + "sweep: {payload: {recipe: [deepgemm, nemo-rl-linear]}}\n")

    assert dotted == nested


def test_cases_run_one_by_one_in_their_order(refitbench):
    text = LOOPBACK + ("cases: [{payload.scheme: bf16, receiver.engine: vllm-bf16}, "
                       "{payload.scheme: fp8_blockwise}]\n")

    cases = cases_of(refitbench, text)

    assert [case["scheme"] for case in cases] == ["bf16", "fp8_blockwise"]
    assert [case["engine"] for case in cases] == ["vllm-bf16", "vllm-fp8"]


def test_set_wins_over_sweep_and_cases(refitbench):
    sweep = LOOPBACK + "sweep: {payload.recipe: [prime-rl-blockwise, nemo-rl-linear]}\n"
    cases = LOOPBACK + ("cases: [{payload.recipe: prime-rl-blockwise}, "
                        "{payload.recipe: nemo-rl-linear}]\n")

    for text in (sweep, cases):
        found = cases_of(refitbench, text, "--set", "payload.recipe=deepgemm")
        assert [case["recipe"] for case in found] == ["deepgemm"]


def test_set_replaces_a_sweep_and_empties_it(refitbench):
    text = LOOPBACK + "sweep: {payload.recipe: [prime-rl-blockwise, nemo-rl-linear]}\n"

    assert len(names_of(refitbench, text, "--set", "sweep={}")) == 1
    assert len(names_of(refitbench, text, "--set", "sweep.transport.depth=[1, 2, 3]")) == 6


def test_set_of_a_key_below_a_plain_model_keeps_its_name(refitbench):
    case = cases_of(refitbench, LOOPBACK, "--set", "model.layers=1")[0]

    assert case["model"].startswith("tiny-qwen3")
    # One layer of 11 tensors, embeddings, final norm; the head is tied or stands alone.
    assert case["tensors"] in (13, 14)


def test_empty_braces_empty_a_node(refitbench):
    text = LOOPBACK.replace("loopback,", "loopback, link_bytes_per_s: 64MiB,")

    assert cases_of(refitbench, text)[0]["link"]["emulated"]
    assert not cases_of(refitbench, text, "--set", "transport={}")[0]["link"]["emulated"]


def test_a_filter_matches_scenario_and_case(refitbench):
    text = LOOPBACK + "sweep: {payload.recipe: [prime-rl-blockwise, nemo-rl-linear, deepgemm]}\n"

    assert len(names_of(refitbench, text, "--filter", "names/*nemo*")) == 1
    assert len(names_of(refitbench, text, "--filter", "*nemo*", "--filter", "*deepgemm*")) == 2
    assert len(names_of(refitbench, text, "--filter", "names*")) == 3
    path = refitbench.write("names.yaml", text)
    refitbench("run", path, "--filter", "other/*").expect(2).expect_said("filter")


def test_a_folder_runs_all_its_scenarios_in_one_record(refitbench):
    folder = refitbench.folder / "several"
    (folder / "below").mkdir(parents=True)
    (folder / "a.yaml").write_text(LOOPBACK, encoding="utf-8")
    (folder / "below" / "b.yaml").write_text(LOOPBACK, encoding="utf-8")
    (folder / "notes.txt").write_text("no scenario", encoding="utf-8")

    outcome = refitbench("run", folder, "--output", refitbench.records, "--json", "-").expect(0)

    assert [case["scenario"] for case in outcome.json["cases"]] == ["a", "b"]
    with refitbench.record(outcome) as record:
        assert len(record["cases"]) == 2


def test_only_the_checks_that_are_asked_are_made(refitbench):
    fault = "faults: [{name: scale_doubled, tensor: 'model.layers.0.mlp.down_proj.weight*'}]\n"

    refitbench.run(LOOPBACK + fault + "checks: [digest, version]\n").expect(0)
    for check in ("round_trip", "sqnr"):
        run = refitbench.run(LOOPBACK + fault + f"checks: [{check}]\n").expect(1).json
        assert {finding["check"] for finding in run["cases"][0]["findings"]} == {check}


def test_an_algo_of_an_engine_without_any_is_2(refitbench):
    refitbench.run(LOOPBACK, "--set", "receiver.algo=FP8").expect(2).expect_said("algo", "vllm-fp8")


def test_an_expectation_of_another_check_is_not_met(refitbench):
    text = LOOPBACK + ("faults: [{name: flip_byte, receiver: 0, bucket: 1}]\n"
                       "expect: {outcome: finding, check: CHECK}\n")

    met = refitbench.run(text.replace("CHECK", "digest")).expect(0).json
    other = refitbench.run(text.replace("CHECK", "names")).expect(1).json

    assert met["cases"][0]["outcome"] == "expected_finding"
    assert other["cases"][0]["outcome"] != "expected_finding"


def test_nothing_viable_is_77_with_the_reason(refitbench):
    outcome = refitbench.run(MINIMAL, "--set", "transport.name=nccl").expect(77)

    assert outcome.json["verdict"] == "skipped"
    assert "nccl" in outcome.json["cases"][0]["skip_reason"]


@pytest.mark.parametrize("np", [None, 2])
def test_two_engines_hold_the_same(refitbench, np):
    text = LOOPBACK.replace("tp: 1", "tp: 1, engines: 2")
    if np is not None:
        text, np = text.replace("loopback", "mpi"), 3

    case = cases_of(refitbench, text, np=np)[0]

    assert (case["engines"], case["outcome"]) == (2, "pass")


@pytest.mark.parametrize("commit", ["staged", "in_place"])
def test_both_ways_to_commit_pass(refitbench, commit):
    text = LOOPBACK.replace("tp: 1", f"tp: 1, commit: {commit}") + "refits: 2\n"

    assert cases_of(refitbench, text)[0]["outcome"] == "pass"


def test_a_contradictory_quantization_config_is_2(refitbench):
    text = LOOPBACK.replace(
        "tp: 1", "tp: 1, quantization_config: {quant_method: modelopt, quant_algo: FP8_PB_WO}")

    refitbench.run(text).expect(2).expect_said("quant")


def test_quantization_config_decides_the_scheme(refitbench):
    text = LOOPBACK.replace("tp: 1", "tp: 1, quantization_config: {quant_method: fp8, "
                            "activation_scheme: dynamic}")

    assert cases_of(refitbench, text)[0]["scheme"] == "fp8_tensorwise"
