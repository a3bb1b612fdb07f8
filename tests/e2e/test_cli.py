# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Command line, exit codes, JSON and record of the program, as README.md promises them."""

import re

import h5py
import numpy
import pytest
from user_program import small_run, text_of

KINDS = ["scenarios", "models", "recipes", "schemes", "engines", "transports", "backends", "checks",
         "faults", "framings"]
SUBCOMMANDS = ["run", "list", "quantize"]
RUN_KEYS = {"schema", "tool", "argv", "verdict", "exit_code", "record", "world", "cases"}
CASE_KEYS = {"scenario", "purpose", "case", "model", "scheme", "recipe", "engine", "tp", "engines",
             "transport", "backend", "outcome", "tensors", "bytes_bf16", "bytes_wire", "byte_ratio",
             "iterations", "wall_s", "stages", "audit_s", "cpu_s", "cores", "link", "floor",
             "algbw_bytes_per_s", "peak_rss_bytes", "accuracy", "findings"}
STAGES = {"gather", "quantize", "pack", "broadcast", "check", "load", "commit"}
FINDING_KEYS = {"check", "severity", "tensor", "index", "measured", "limit", "rank", "message"}


# ---- help, version, lists -------------------------------------------------------------------------


@pytest.mark.parametrize("subcommand", ["", *SUBCOMMANDS])
def test_help_says_how_with_an_example(refitbench, subcommand):
    outcome = refitbench(*subcommand.split(), "--help").expect(0)

    assert "refitbench" in outcome.stdout, outcome
    if subcommand:
        assert re.search(r"example", outcome.stdout, re.IGNORECASE), outcome
    for line in outcome.stdout.splitlines():
        if "mpirun" in line and "-np" in line:
            assert "--oversubscribe" in line, f"not pasteable on 2 cores: {line}"


def test_version_names_the_program(refitbench):
    outcome = refitbench("--version").expect(0)

    assert re.search(r"\d+\.\d+\.\d+", outcome.stdout), outcome


@pytest.mark.parametrize("kind", KINDS)
def test_list_has_the_promised_json(refitbench, kind):
    listing = refitbench("list", kind, "--json", "-").expect(0).json

    assert listing["schema"] == "refitbench.list/1"
    assert listing["kind"] == kind
    assert {"name", "version", "commit"} <= set(listing["tool"])
    assert "argv" in listing
    names = [row["name"] for row in listing["rows"]]
    assert names and len(names) == len(set(names))
    for row in listing["rows"]:
        if kind in ("backends", "transports"):
            assert isinstance(row["compiled"], bool) and isinstance(row["viable"], bool), row
            assert row["viable"] or row["reason"], f"not viable without a reason: {row}"


def test_list_without_json_is_for_reading(refitbench):
    outcome = refitbench("list", "recipes").expect(0)

    assert "prime-rl-blockwise" in outcome.stdout
    assert "\x1b" not in outcome.stdout, "colour although the stream is no terminal"


def test_list_knows_the_names_that_users_script_against(refitbench):
    def names(kind):
        return {row["name"] for row in refitbench("list", kind, "--json", "-").expect(0).json["rows"]}

    assert {"tiny-llama", "tiny-qwen3", "qwen3-0.6b", "llama-3.1-8b"} <= names("models")
    assert {"vllm-fp8", "vllm-compressed-tensors", "vllm-modelopt", "vllm-bf16"} <= names("engines")
    assert {"mpi", "mpi_window", "loopback"} <= names("transports")
    assert {"nonfinite", "digest", "round_trip", "completeness"} <= names("checks")


# ---- wrong use: exit code 2 -----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--no-such-option"], ["walk"], ["list", "sausages"],
                                       ["run"], ["plan"]])
def test_wrong_use_is_2(refitbench, arguments):
    outcome = refitbench(*arguments).expect(2)

    assert outcome.stderr.strip(), f"an error without a message{outcome}"
    assert outcome.stdout == "", f"an error belongs on standard error{outcome}"


@pytest.mark.parametrize("np", [None, 2])
@pytest.mark.parametrize(
    "line, words",
    [
        ("transprot: {name: mpi}", ["transprot", "transport"]),
        ("payload: {recipe: prime-rl-blockwize}", ["prime-rl-blockwize", "prime-rl-blockwise"]),
        ("payload: {recip: prime-rl-blockwise}", ["recip", "recipe"]),
        ("iterations: many", ["iterations", "many"]),
        ("backend: avx1024", ["avx1024"]),
        ("checks: []", ["checks"]),
        ("payload: {scheme: fp8_channelwise, recipe: prime-rl-blockwise}", ["prime-rl-blockwise"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_scenario_line_is_2_and_named_once(refitbench, line, words, np):
    text = ("purpose: is a mistake in a scenario named?\nmodel: tiny-qwen3\n"
            f"receiver: {{engine: vllm-fp8}}\n{line}\n")

    outcome = refitbench.run(text, np=np, name="wrong.yaml").expect(2).expect_said(*words)

    places = re.findall(r"wrong\.yaml:(\d+)", outcome.stderr)
    assert places == ["4"], f"expected wrong.yaml:4 exactly once, found lines {places}{outcome}"


def test_a_repeated_key_is_2(refitbench):
    text = small_run() + "iterations: 2\n"

    refitbench.run(text, np=2).expect(2).expect_said("iterations")


def test_an_unknown_key_of_set_is_2(refitbench):
    refitbench.run(small_run(transport="loopback"), "--set", "payload.recip=x").expect(2).expect_said("recip")


def test_the_wrong_number_of_ranks_is_2(refitbench):
    refitbench.run(small_run(trainers=2, tp=2), np=3).expect(2).expect_said("3", "4", "-np")


def test_of_several_scenarios_one_of_another_size_is_skipped(refitbench):
    fits = refitbench.write("fits.yaml", small_run(trainers=1, tp=1))
    other = refitbench.write("other.yaml", small_run(trainers=2, tp=2))

    run = refitbench("run", fits, other, "--output", refitbench.records, "--json", "-", np=2).expect(0).json

    outcomes = {case["scenario"]: case for case in run["cases"]}
    skipped = [case for name, case in outcomes.items() if "other" in name]
    assert len(skipped) == 1 and skipped[0]["outcome"] == "skipped", outcomes
    assert skipped[0]["skip_reason"]


# ---- the environment failed: exit code 3 --------------------------------------


def test_a_missing_scenario_is_3(refitbench):
    refitbench("run", "no-such-file.yaml").expect(3).expect_said("no-such-file.yaml")


def test_a_missing_weights_folder_is_3(refitbench):
    text = small_run(transport="loopback", extra="weights: {source: safetensors, path: nowhere}\n")

    refitbench.run(text).expect(3).expect_said("nowhere")


# ---- streams, JSON, record ---------------------------------------------------------------


def test_a_loopback_run_needs_no_launcher(refitbench):
    run = refitbench.run(small_run(transport="loopback")).expect(0).json

    assert run["verdict"] == "pass"
    assert [case["outcome"] for case in run["cases"]] == ["pass"]
    assert run["cases"][0]["findings"] == []


def test_lines_that_are_not_data_begin_with_a_hash(refitbench):
    path = refitbench.write("plain.yaml", small_run(transport="loopback"))

    outcome = refitbench("run", path, "--output", refitbench.records).expect(0)

    assert any(line.startswith("#") for line in outcome.stdout.splitlines()), outcome
    assert "\x1b" not in outcome.stdout + outcome.stderr, "colour although the stream is no terminal"
    assert "\r" not in outcome.stderr, "a progress line although the stream is no terminal"


def test_run_has_the_promised_json(refitbench):
    run = refitbench.run(small_run(trainers=2, tp=2), np=4).expect(0).json

    assert RUN_KEYS <= set(run), sorted(RUN_KEYS - set(run))
    assert run["schema"] == "refitbench.run/1"
    assert (run["verdict"], run["exit_code"]) == ("pass", 0)
    assert run["world"] == {"size": 4, "trainers": 2, "receivers": 2}
    case = run["cases"][0]
    assert CASE_KEYS <= set(case), sorted(CASE_KEYS - set(case))
    assert STAGES <= set(case["stages"])
    assert (case["model"], case["engine"], case["tp"]) == ("tiny-qwen3", "vllm-fp8", 2)
    assert (case["scheme"], case["recipe"]) == ("fp8_blockwise", "prime-rl-blockwise")
    assert case["iterations"] == len(case["wall_s"]["samples"]) == 1
    assert case["wall_s"]["min"] <= case["wall_s"]["median"] <= case["wall_s"]["max"]
    # Codes are half of BF16; embeddings and norms stay BF16 and scales come on top.
    assert 0.5 < case["byte_ratio"] < 1.0
    assert case["byte_ratio"] == pytest.approx(case["bytes_wire"] / case["bytes_bf16"], rel=1e-3)
    assert case["algbw_bytes_per_s"] == pytest.approx(
        case["bytes_wire"] / case["wall_s"]["median"], rel=0.01)
    # A uniform quantizer with 3 mantissa bits gives 31 to 32 dB on Gaussian data.
    assert 28.0 < case["accuracy"]["sqnr_db"] < 36.0
    assert case["link"] == {"bytes_per_s": None, "emulated": False}


def test_bf16_has_no_sqnr_and_the_bytes_of_the_model(refitbench):
    text = small_run(transport="loopback").replace("vllm-fp8", "vllm-bf16")

    case = refitbench.run(text).expect(0).json["cases"][0]

    assert case["scheme"] == "bf16"
    assert case["accuracy"]["sqnr_db"] is None
    assert case["bytes_wire"] == case["bytes_bf16"]


def test_the_record_has_the_promised_structure(refitbench):
    text = small_run(trainers=2, tp=2).replace("iterations: 1", "iterations: 3").replace(
        "warmup: 0", "warmup: 1")

    outcome = refitbench.run(text, np=4).expect(0)

    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["schema"]) == "refitbench.record/1"
        assert text_of(record.attrs["verdict"]) == "pass"
        assert text_of(record.attrs["scenario_text"]) == text
        assert {"created_utc", "argv"} <= set(record.attrs)
        assert {"environment", "ranks", "ceilings", "cases"} <= set(record)
        assert {"commit", "dirty", "compiler", "flags", "cpu", "mpi", "hdf5", "hostname"} <= set(
            record["environment"].attrs)
        assert len(record["ranks"]) == 4
        case = record["cases/000"]
        assert case["samples/wall"].shape == (3, 4)
        assert case["samples/wall"].dtype == numpy.float64
        assert STAGES <= set(case["samples"])
        for stage in case["samples"]:
            assert text_of(case["samples"][stage].attrs["unit"]) == "s"
        # A stage in which a rank has no part is NaN for it, not zero.
        assert numpy.isnan(case["samples/load"][:, :2]).all()
        assert numpy.isfinite(case["samples/load"][:, 2:]).all()
        assert {"tensors", "buckets", "findings"} <= set(case)
        assert {"name", "role", "rows", "cols", "bytes", "recipe", "sqnr_db", "max_error_over_bound",
                "saturated", "flushed", "digest"} <= set(case["tensors"].dtype.names)
        assert len(case["tensors"]) == outcome.json["cases"][0]["tensors"]
        assert "sqnr_db" in case["accuracy"].attrs
        missing = []
        record.visititems(lambda name, node: missing.append(name) if isinstance(node, h5py.Dataset)
                          and not h5py.h5ds.is_scale(node.id) and "unit" not in node.attrs else None)
        assert missing == [], "datasets without a unit"
        unscaled = []
        record.visititems(lambda name, node: unscaled.append(name) if isinstance(node, h5py.Dataset)
                          and not h5py.h5ds.is_scale(node.id)
                          and any(len(dimension) == 0 for dimension in node.dims) else None)
        assert unscaled == [], "datasets with a dimension without a scale"


def test_records_are_never_overwritten(refitbench):
    text = small_run(transport="loopback")

    names = {refitbench.run(text).expect(0).json["record"] for _ in range(3)}

    assert len(names) == 3
    assert len(list(refitbench.records.glob("*.h5"))) == 3
    assert not [path for path in refitbench.records.iterdir() if path.suffix != ".h5"]


# ---- topologies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("single_copy", ["cma", "none"])
@pytest.mark.parametrize("transport", ["mpi", "mpi_window"])
@pytest.mark.parametrize("trainers, tp", [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2)])
def test_every_topology_passes(refitbench, trainers, tp, transport, single_copy):
    mca = ["--mca", "btl_vader_single_copy_mechanism", "none"] if single_copy == "none" else []

    run = refitbench.run(small_run(trainers, tp, transport), np=trainers + tp, mca=mca).expect(0).json

    case = run["cases"][0]
    assert (run["verdict"], case["outcome"], case["transport"]) == ("pass", "pass", transport)


@pytest.mark.parametrize(
    "engine", ["vllm-fp8", "vllm-compressed-tensors", "vllm-modelopt", "vllm-bf16"])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-qwen3"])
def test_engines_pass_on_the_tiny_models(refitbench, model, engine):
    text = small_run(1, 2).replace("tiny-qwen3", model).replace("vllm-fp8", engine)

    assert refitbench.run(text, np=3).expect(0).json["verdict"] == "pass"


# ---- planted faults -------------------------------------------------------------------------------

PLANTED = "model.layers.0.mlp.down_proj.weight"


@pytest.mark.parametrize("kind", ["nan", "inf"])
@pytest.mark.parametrize("np, trainers, tp, transport", [(None, 1, 1, "loopback"), (4, 2, 2, "mpi")])
def test_a_planted_value_is_found_by_tensor_and_index(refitbench, kind, np, trainers, tp, transport):
    plant = (f"weights: {{source: synthetic, plant: [{{tensor: {PLANTED}, kind: {kind}, "
             "where: {row: 3, col: 7}}]}\n")

    outcome = refitbench.run(small_run(trainers, tp, transport, plant), np=np).expect(1)

    run = outcome.json
    assert (run["verdict"], run["exit_code"]) == ("fail", 1)
    findings = [finding for finding in run["cases"][0]["findings"] if finding["check"] == "nonfinite"]
    assert findings, outcome
    assert FINDING_KEYS <= set(findings[0])
    assert {finding["tensor"] for finding in findings} == {PLANTED}, findings
    assert findings[0]["index"] == [3, 7]
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "fail"
        assert len(record["cases/000/findings"]) >= 1


def test_an_expected_finding_is_0_and_its_absence_is_1(refitbench):
    expect = "expect: {outcome: finding, check: nonfinite}\n"
    plant = f"weights: {{plant: [{{tensor: {PLANTED}, kind: nan, where: {{row: 3, col: 7}}}}]}}\n"

    found = refitbench.run(small_run(transport="loopback", extra=plant + expect)).expect(0).json
    absent = refitbench.run(small_run(transport="loopback", extra=expect)).expect(1).json

    assert found["cases"][0]["outcome"] == "expected_finding"
    assert absent["cases"][0]["outcome"] == "unexpected_pass"
