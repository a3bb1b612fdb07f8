# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What a run writes, and what it leaves where it cannot write."""

import json
import os
import subprocess
import xml.etree.ElementTree

import h5py
import pytest
from user_program import REPOSITORY, small_run, text_of

QUICK = small_run(transport="loopback")


def test_json_goes_to_a_file_and_the_table_to_standard_output(refitbench):
    path = refitbench.write("quick.yaml", QUICK)

    outcome = refitbench("run", path, "--output", refitbench.records, "--json", "run.json").expect(0)

    run = json.loads((refitbench.folder / "run.json").read_text(encoding="utf-8"))
    assert run["schema"] == "refitbench.run/1"
    assert f"# record: {run['record']}" in outcome.stdout
    assert os.path.isabs(run["record"]) and os.path.exists(run["record"])
    assert run["argv"] == outcome.command


@pytest.mark.parametrize("np", [None, 2])
def test_json_and_record_say_the_same(refitbench, np):
    outcome = refitbench.run(small_run(transport="loopback" if np is None else "mpi"), "-n", "3", "-w",
                             "1", np=np).expect(0)

    case = outcome.json["cases"][0]
    with refitbench.record(outcome) as record:
        node = record["cases/000"]
        for key in ("scenario", "purpose", "case", "model", "scheme", "recipe", "engine", "transport",
                    "backend", "outcome"):
            assert text_of(node.attrs[key]) == case[key], key
        for key in ("tensors", "bytes_bf16", "bytes_wire", "iterations", "tp", "engines", "cores"):
            assert int(node.attrs[key]) == case[key], key
        assert float(node["accuracy"].attrs["sqnr_db"]) == pytest.approx(case["accuracy"]["sqnr_db"])
        assert case["iterations"] == 3
        slowest = node["samples/wall"][:].max(axis=1)
        assert sorted(slowest) == pytest.approx(sorted(case["wall_s"]["samples"]))
        assert sum(int(row["bytes"]) for row in node["tensors"]) == case["bytes_wire"]
        assert int(record.attrs["exit_code"]) == outcome.json["exit_code"] == 0


def test_junit_counts_what_it_lists(refitbench):
    plant = ("weights: {plant: [{tensor: '*.0.mlp.down_proj.weight', kind: nan, "
             "where: {row: 3, col: 7}}]}\n")
    for text, code, failures in ((QUICK, 0, 0), (QUICK + plant, 1, None)):
        refitbench.run(text, "--junit", "junit.xml").expect(code)

        root = xml.etree.ElementTree.parse(refitbench.folder / "junit.xml").getroot()
        cases = list(root.iter("testcase"))
        failed = [case for case in cases if case.find("failure") is not None]
        assert root.tag == "testsuites" and int(root.get("tests")) == len(cases) > 1
        assert int(root.get("failures")) == len(failed)
        assert len(failed) == 0 if failures == 0 else "nonfinite" in {c.get("name") for c in failed}


def test_summary_is_one_line_a_case(refitbench):
    path = refitbench.write("two.yaml", QUICK + "sweep: {transport.depth: [1, 2]}\n")

    outcome = refitbench("run", path, "--output", refitbench.records, "--summary").expect(0)

    data = [line for line in outcome.stdout.splitlines() if not line.startswith("#")]
    assert len(data) == 2, outcome


def test_explain_names_the_checks_and_their_truth(refitbench):
    path = refitbench.write("quick.yaml", QUICK + "checks: [digest, round_trip]\n")

    outcome = refitbench("run", path, "--output", refitbench.records, "--explain").expect(0)

    outcome.expect_said("check digest", "check round_trip", "truth")
    assert "check sqnr" not in outcome.stdout


@pytest.mark.parametrize("np", [None, 2])
@pytest.mark.parametrize("where", ["below a file", "below /proc"])
def test_an_output_folder_that_cannot_be_made_is_3(refitbench, where, np):
    path = refitbench.write("quick.yaml", small_run(transport="loopback" if np is None else "mpi"))
    folder = "/proc/refitbench" if where == "below /proc" else path / "records"

    refitbench("run", path, "--output", folder, np=np).expect(3).expect_said(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write into any folder")
def test_an_output_folder_without_permission_is_3(refitbench):
    refitbench.records.mkdir(mode=0o500)

    refitbench.run(QUICK).expect(3).expect_said(refitbench.records)

    assert not list(refitbench.records.iterdir())


@pytest.mark.parametrize("option", ["--json", "--junit"])
def test_a_report_that_cannot_be_written_is_3(refitbench, option):
    path = refitbench.write("quick.yaml", QUICK)

    outcome = refitbench("run", path, "--output", refitbench.records, option, "nowhere/report")

    outcome.expect(3).expect_said("nowhere/report")


@pytest.fixture
def full_disk(tmp_path):
    """A file system of 1 MB that is nearly full; mounting one needs root."""
    folder = tmp_path / "full"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
                             capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        with open(folder / "ballast", "wb") as ballast:
            ballast.write(bytes((1 << 20) - (8 << 10)))
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("np", [None, 2])
def test_a_full_disk_is_3_and_leaves_no_part_of_a_record(refitbench, full_disk, np):
    path = refitbench.write("quick.yaml", small_run(transport="loopback" if np is None else "mpi"))

    outcome = refitbench("run", path, "--output", full_disk, np=np)

    outcome.expect(3).expect_said(full_disk)
    assert [entry.name for entry in full_disk.iterdir()] == ["ballast"]


def test_a_full_disk_leaves_no_part_of_a_checkpoint(refitbench, full_disk, checkpoint):
    outcome = refitbench("quantize", "--recipe", "tensorwise", "--input",
                         checkpoint / "model.safetensors", "--output", full_disk / "out.safetensors")

    outcome.expect(3).expect_said("out.safetensors")
    assert [entry.name for entry in full_disk.iterdir()] == ["ballast"]


@pytest.mark.parametrize("np", [None, 2])
def test_runs_at_once_do_not_overwrite_each_other(refitbench, np):
    path = refitbench.write("same.yaml", small_run(transport="loopback" if np is None else "mpi"))

    started = [refitbench.start("run", path, "--output", refitbench.records, "--json", "-", np=np)
               for _ in range(3)]
    runs = [refitbench.finish(process, 60).expect(0).json for process in started]

    names = {run["record"] for run in runs}
    assert len(names) == 3
    assert {str(entry) for entry in refitbench.records.iterdir()} == names
    for name in names:
        with h5py.File(name, "r") as record:
            assert text_of(record.attrs["verdict"]) == "pass"


def test_a_dry_run_says_ranks_and_memory_and_writes_nothing(refitbench):
    path = refitbench.write("dry.yaml", small_run(trainers=2, tp=2)
                            + "sweep: {payload.recipe: [prime-rl-blockwise, nemo-rl-linear]}\n")

    table = refitbench("run", path, "--dry-run", "--output", refitbench.records).expect(0)
    plan = refitbench("run", path, "--dry-run", "--output", refitbench.records, "--json",
                      "-").expect(0).json
    launched = refitbench("run", path, "--dry-run", "--output", refitbench.records, np=4).expect(0)

    assert {case["np"] for case in plan["cases"]} == {4}
    assert all(case["memory_bytes"] > 0 for case in plan["cases"])
    for outcome in (table, launched):
        rows = [line for line in outcome.stdout.splitlines() if not line.startswith("#")]
        assert [f"dry/{case['case']}" in row for case, row in zip(plan["cases"], rows)] == [True, True]
    assert not refitbench.records.exists()


def test_a_dry_run_of_all_scenarios_with_models_at_hand_is_0(refitbench):
    for folder in ("smoke", "faults", "contracts", "throughput"):
        refitbench("run", REPOSITORY / "scenarios" / folder, "--dry-run").expect(0)
