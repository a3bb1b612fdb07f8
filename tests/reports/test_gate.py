# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The gate through its command line: each rule with a planted fault and a clean case."""

import json
import shutil

import h5py
import numpy as np
import pytest

import nights


@pytest.fixture()
def base(sample, tmp_path):
    return nights.make(sample, tmp_path / "base.h5", 0)


@pytest.fixture(scope="session")
def quiet(sample, tmp_path_factory):
    """Sixty quiet nights of three cases."""
    return nights.archive(sample, tmp_path_factory.mktemp("archive") / "quiet", 60, seed=7)


@pytest.fixture()
def gate(command, tmp_path):
    """gate(record, *arguments) -> code, out, err and the JSON verdict; without references."""

    def run(record, *arguments, references=None):
        empty = tmp_path / "no-references"
        empty.mkdir(exist_ok=True)
        done = command("gate", record, *arguments, "--json", tmp_path / "gate.json",
                       "--references", references or empty)
        done.json = None
        if done.code in (0, 1, 77):
            done.json = json.loads((tmp_path / "gate.json").read_text())
            assert done.json["schema"] == "refitbench.gate/1"
            assert done.json["exit_code"] == done.code
            assert done.out.splitlines()[-1] == f"verdict: {done.json['verdict']}"
        done.lines = {m["name"]: m for m in (done.json or {"metrics": []})["metrics"]}
        return done

    return run


def of(done, ending):
    """The metrics whose names end so, in order."""
    return [m for name, m in done.lines.items() if name.endswith(ending)]


THROUGHPUT = "fraction_of_memory_copy"


# Against one baseline ---------------------------------------------------------------------------


def test_a_record_passes_against_itself(base, gate):
    done = gate(base, "--baseline", base)
    assert done.code == 0, done.out
    assert {m["verdict"] for m in done.json["metrics"] if m["kind"] != "run"} == {"SAME"}
    assert [m["gate"] for m in of(done, THROUGHPUT)] == ["pass"] * 3


@pytest.mark.parametrize(
    "factor, code, verdict",
    [(1.02, 0, "SAME"), (1.07, 77, "AMBIGUOUS"), (1.3, 1, "SLOWER"), (0.7, 0, "FASTER")],
)
def test_one_baseline_night_tells_large_steps_only(factor, code, verdict, base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1, (1.0, factor, 1.0))
    done = gate(run, "--baseline", base)
    assert done.code == code, done.out
    assert [m["verdict"] for m in of(done, THROUGHPUT)] == ["SAME", verdict, "SAME"]


def test_a_slower_machine_is_no_slowdown_and_a_faster_one_hides_none(base, gate, tmp_path):
    def ceilings(factor):
        def change(file):
            file["ceilings/memory_copy"][()] *= factor

        return change

    run = nights.make(base, tmp_path / "slow.h5", 1, (1.5,), change=ceilings(1 / 1.5))
    assert gate(run, "--baseline", base).code == 0
    # The ceiling alone rose: nothing became slower, and nothing is said to be the same.
    run = nights.make(base, tmp_path / "ceiling.h5", 1, (1.0,), change=ceilings(1.5))
    done = gate(run, "--baseline", base)
    assert done.code == 77 and "the ceiling moved" in done.out


def test_seconds_of_another_machine_are_not_judged(base, gate, tmp_path):
    def other(file):
        file["environment"].attrs["cpu"] = "another"

    run = nights.make(base, tmp_path / "run.h5", 1, (2.0,), change=other)
    done = gate(run, "--baseline", base)
    assert done.code == 77 and "another machine" in done.out
    assert [m["gate"] for m in of(done, "/digests")] == ["pass"] * 3


def test_figures_come_from_samples_not_from_derived_attributes(base, gate, tmp_path):
    def lie(file):
        for case in list(file["cases"].values())[:3]:
            case["wall_s"].attrs["median"] = 1e-9
            case["accuracy"].attrs["sqnr_db"] = 99.0
            case.attrs["algbw_bytes_per_s"] = 1e15

    run = nights.make(base, tmp_path / "run.h5", 1, change=lie)
    assert gate(run, "--baseline", base).code == 0


def test_better_than_physics_fails(base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1, (1e-4, 1.0, 1.0))
    done = gate(run, "--baseline", base)
    assert done.code == 1 and "better than physics" in of(done, THROUGHPUT)[0]["evidence"]


# Accuracy ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [-0.5, 0.5, -0.06])
def test_a_moved_sqnr_fails_in_both_directions(change, base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1,
                      change=nights.shift_column(1, "sqnr_db", change))
    done = gate(run, "--baseline", base)
    assert done.code == 1
    line = of(done, "/sqnr_db")[0]
    assert line["gate"] == "fail" and line["verdict"] == ("SLOWER" if change < 0 else "FASTER")


def test_one_tensor_is_enough_and_is_named(base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1,
                      change=nights.shift_column(1, "sqnr_db", -0.5, rows=[4]))
    with h5py.File(base) as file:
        table = file["cases/001/tensors"][:]
        name = [n.decode() for n, recipe in zip(table["name"], table["recipe"]) if recipe][4]
    done = gate(run, "--baseline", base)
    assert done.code == 1 and name in of(done, "/sqnr_db")[0]["evidence"]


def test_an_sqnr_that_is_no_number_fails(base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1,
                      change=nights.shift_column(1, "sqnr_db", np.nan, rows=[0]))
    assert gate(run, "--baseline", base).code == 1


def test_a_change_within_the_tolerance_passes(base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1,
                      change=nights.shift_column(1, "sqnr_db", -0.02))
    assert gate(run, "--baseline", base).code == 0


def test_counts_and_bytes_are_exact(base, gate, tmp_path):
    for column, ending in (("flushed", "/flushed"), ("saturated", "/saturated"),
                           ("bytes", "/bytes_wire")):
        run = nights.make(base, tmp_path / f"{column}.h5", 1,
                          change=nights.shift_column(2, column, 1, rows=[0]))
        done = gate(run, "--baseline", base)
        assert done.code == 1 and of(done, ending)[-1]["gate"] == "fail", column


def other_digest(file):
    dataset = file["cases/001/tensors"]
    table = dataset[:]
    table["digest"][2] = "0" * 32
    dataset[:] = table


def other_seed(file):
    text = file.attrs["scenario_text"] + "\nweights: {source: synthetic, seed: 8}\n"
    file.attrs["scenario_text"] = text


def test_the_same_weights_have_the_same_digests(base, gate, tmp_path):
    run = nights.make(base, tmp_path / "run.h5", 1, change=other_digest)
    done = gate(run, "--baseline", base)
    line = of(done, "/digests")[1]
    assert done.code == 1 and line["gate"] == "fail" and "1 of 14" in line["evidence"]


def test_other_weights_are_not_compared(base, gate, tmp_path):
    def change(file):
        other_digest(file)
        other_seed(file)

    run = nights.make(base, tmp_path / "run.h5", 1, change=change)
    done = gate(run, "--baseline", base)
    # Throughput passes, and accuracy is not passed silently with it.
    assert done.code == 77 and done.json["verdict"] == "nothing"
    assert {m["gate"] for m in of(done, "/digests")} == {"nothing"}
    assert {m["gate"] for m in of(done, THROUGHPUT)} == {"pass"}


def test_the_first_night_is_held_against_the_references(base, gate, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    (tmp_path / "archive").mkdir()
    for value, code in ((60.0, 1), (20.0, 1)):
        content = {"machine": {}, "metrics": {"*/sqnr_db": [value, -0.0016, 0.0016, "dB"]}}
        (folder / "any.json").write_text(json.dumps(content))
        assert gate(base, "--history", tmp_path / "archive", references=folder).code == code


# History ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "factors, code, verdicts",
    [((1.0,), 0, ["SAME"] * 3), ((1.0, 1.15, 1.0), 1, ["SAME", "SLOWER", "SAME"])],
)
def test_one_night_against_sixty(factors, code, verdicts, quiet, sample, gate, tmp_path):
    run = nights.make(sample, tmp_path / "run.h5", 60, factors)
    done = gate(run, "--history", quiet)
    assert done.code == code, done.out
    assert [m["verdict"] for m in of(done, THROUGHPUT)] == verdicts


def test_a_small_slowdown_is_found_after_ten_nights_with_night_and_stage(
    quiet, sample, gate, tmp_path
):
    folder = tmp_path / "archive"
    shutil.copytree(quiet, folder)
    random = np.random.default_rng(9)
    for night in range(60, 70):
        factors = np.exp(random.normal(0.0, 0.02, 3)) * [1.0, 1.05, 1.0]
        path = nights.make(sample, folder / f"night-{night:03d}.h5", night, factors, scatter=random)
    done = gate(path, "--history", folder)
    assert done.code == 1, done.out
    line = of(done, THROUGHPUT)[1]
    assert line["verdict"] == "SLOWER" and "the stage that moved most is" in line["evidence"]
    assert "since 2026-03-0" in line["evidence"]


def test_a_half_decibel_is_found_the_first_night_and_the_second(quiet, sample, gate, tmp_path):
    folder = tmp_path / "archive"
    shutil.copytree(quiet, folder)
    worse = nights.shift_column(1, "sqnr_db", -0.5)
    for night in (60, 61):
        path = nights.make(sample, folder / f"night-{night:03d}.h5", night, change=worse)
        assert gate(path, "--history", folder).code == 1


def test_an_accepted_change_starts_anew(quiet, sample, gate, tmp_path):
    folder = tmp_path / "archive"
    shutil.copytree(quiet, folder)
    for night in (60, 61):
        path = nights.make(sample, folder / f"n{night}.h5", night, change=other_digest)
    assert gate(path, "--history", folder).code == 1
    (folder / "since").write_text(nights.utc(60) + "\n")
    assert gate(path, "--history", folder).code == 0
    (folder / "since").write_text("yesterday\n")
    done = gate(path, "--history", folder)
    assert done.code == 3 and "since" in done.err


def test_order_is_that_of_the_times_not_of_the_names(sample, gate, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    nights.make(sample, folder / "a.h5", 5, (2.0,))
    nights.make(sample, folder / "z.h5", 1)
    run = nights.make(sample, tmp_path / "run.h5", 3, (1.001,))
    done = gate(run, "--history", folder)
    assert done.code == 0 and "1 records are later" in done.out


def test_an_empty_archive_is_nothing_to_compare_with(base, gate, tmp_path):
    (tmp_path / "archive").mkdir()
    done = gate(base, "--history", tmp_path / "archive")
    assert done.code == 77 and done.json["verdict"] == "nothing"
    shutil.copy(base, tmp_path / "archive")
    # The run itself, already archived, is no history.
    assert gate(base, "--history", tmp_path / "archive").json["verdict"] == "nothing"


def test_a_bad_night_is_left_out_and_named(base, gate, sample, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    shutil.copy(base, folder / "good.h5")
    (folder / "bad.h5").write_bytes(base.read_bytes()[:-500])
    (folder / "empty.h5").write_bytes(b"")
    (folder / "notes.txt").write_text("no record")
    with h5py.File(nights.make(base, folder / "newer.h5", 1), "r+") as file:
        file.attrs["schema"] = "refitbench.record/2"
    run = nights.make(sample, tmp_path / "run.h5", 2)
    done = gate(run, "--history", folder)
    assert done.code == 0, done.out
    for name in ("bad.h5", "empty.h5", "newer.h5"):
        assert any(name in r for r in done.json["remarks"]) and name in done.out
    assert "notes.txt" not in done.out


def test_a_run_that_failed_half_way_fails(write_sample, base, gate):
    done = gate(write_sample("lost"), "--baseline", base)
    assert done.code == 1 and "rank 2" in done.out


def test_a_case_that_is_missing_now_is_not_passed_silently(base, gate, tmp_path):
    def remove(file):
        del file["cases/002"]

    run = nights.make(base, tmp_path / "run.h5", 1, change=remove)
    done = gate(run, "--baseline", base)
    assert done.code == 77 and "missing now" in done.out


# A run that ended early -------------------------------------------------------------------------


def other_digest_of_the_first_case(file):
    dataset = file["cases/000/tensors"]
    table = dataset[:]
    table["digest"][2] = "0" * 32
    dataset[:] = table


@pytest.mark.parametrize("before, edit, purpose, seeds, digests", [
    (4, None, "what is first?", (1, 2), "pass"),
    (4, other_digest_of_the_first_case, "what is first?", (1, 2), "fail"),
    # The night before ended early as well.
    (1, other_digest_of_the_first_case, "what is first?", (1, 2), "fail"),
    # The seed of the scenario that ran, and of the one that the run did not come to.
    (4, other_digest_of_the_first_case, "what is first?", (3, 2), "nothing"),
    (4, other_digest_of_the_first_case, "what is first?", (1, 3), "fail"),
    # Two texts with one purpose go by position.
    (4, other_digest_of_the_first_case, "what is second?", (1, 2), "fail"),
    (4, other_digest_of_the_first_case, "what is second?", (3, 2), "nothing"),
])
def test_what_a_run_did_before_it_ended_early_is_judged(before, edit, purpose, seeds, digests, sample, gate,
                                                        tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    text = nights.two_scenarios(purpose=purpose)
    early = [nights.stopped_after(before)] if before < 4 else []
    nights.make(sample, folder / "0.h5", 0, change=nights.all_of(text, *early))
    changes = [nights.two_scenarios(*seeds, purpose=purpose), nights.stopped_after(1)]
    run = nights.make(sample, tmp_path / "run.h5", 1,
                      change=nights.all_of(*changes, *([edit] if edit else [])))
    done = gate(run, "--history", folder)
    assert done.code == 1 and done.lines["run"]["gate"] == "fail"
    assert "interrupted" in done.lines["run"]["evidence"]
    assert [line["gate"] for line in of(done, "/digests")] == [digests], done.out
    assert {line["name"].split("/")[0] for line in of(done, THROUGHPUT)} == {"first"}


def test_a_scenario_that_could_not_be_read_does_not_shift_the_texts_of_the_others(sample, gate, tmp_path):
    def skip_one_first(file):
        # The skipped case of the sample goes first; of the second scenario nothing is left.
        del file["cases/002"]
        for old, new in (("001", "002"), ("000", "001"), ("003", "000")):
            file["cases"].move(old, new)
        file["cases/000"].attrs["scenario"], file["cases/000"].attrs["purpose"] = "unreadable", ""

    base = nights.make(sample, tmp_path / "base.h5", 0, change=nights.two_scenarios())
    for seeds, gate_of_digests in (((1, 2), "pass"), ((3, 2), "nothing")):
        run = nights.make(sample, tmp_path / "run.h5", 1,
                          change=nights.all_of(nights.two_scenarios(*seeds), skip_one_first))
        done = gate(run, "--baseline", base)
        assert [line["gate"] for line in of(done, "/digests")] == [gate_of_digests] * 2, done.out


def test_a_case_that_is_missing_shows_although_the_night_before_ended_early(sample, gate, tmp_path):
    def remove(file):
        del file["cases/002"]

    folder = tmp_path / "archive"
    folder.mkdir()
    nights.make(sample, folder / "0.h5", 0)
    nights.make(sample, folder / "1.h5", 1, change=nights.stopped_after(2))
    run = nights.make(sample, tmp_path / "run.h5", 2, change=remove)
    done = gate(run, "--history", folder)
    assert done.code == 77 and "missing now" in done.out
    # The clean case: after a night that ended early a whole one passes.
    assert gate(nights.make(sample, tmp_path / "whole.h5", 2), "--history", folder).code == 0


# References -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lower, upper, code", [(-0.5, 0.5, 0), (-0.5, -0.4, 3), (0.0, 0.0, 1)])
def test_references_bound_both_sides(lower, upper, code, base, gate, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    first = gate(base, "--baseline", base)
    value = of(first, THROUGHPUT)[0]["value"]
    content = {"machine": {"cpu": "Example CPU"},
               "metrics": {f"*bf16/{THROUGHPUT}": [value * 1.01, lower, upper, "1"]}}
    (folder / "example.json").write_text(json.dumps(content))
    assert gate(base, "--baseline", base, references=folder).code == code
    content["metrics"] = {f"*bf16/{THROUGHPUT}": [value * 0.9, -0.05, 0.05, "1"]}
    (folder / "example.json").write_text(json.dumps(content))
    done = gate(base, "--baseline", base, references=folder)
    assert done.code == 1 and "above reference" in done.out
    content["machine"] = {"cpu": "another"}
    (folder / "example.json").write_text(json.dumps(content))
    assert gate(base, "--baseline", base, references=folder).code == 0


def test_references_of_scenarios_as_they_stand_leave_out_what_set_changed(base, gate, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    content = {"machine": {}, "metrics": {f"*/{THROUGHPUT}": [1e-6, -0.1, 0.1, "1"]}}
    (folder / "any.json").write_text(json.dumps(content))
    assert gate(base, "--baseline", base, references=folder).code == 1
    content["scenarios_as_they_stand"] = True
    (folder / "any.json").write_text(json.dumps(content))

    def argv(*settings):
        def change(file):
            file.attrs["argv"] = ["refitbench", "run", "scenario.yaml", *settings]

        return nights.make(base, tmp_path / "run.h5", 1, change=change)

    run = argv("--set", "iterations=3")
    assert gate(run, "--baseline", run, references=folder).code == 1
    run = argv("--set", "model.layers=2")
    assert gate(run, "--baseline", run, references=folder).code == 0


def test_to_be_within_wide_bounds_of_throughput_is_not_to_be_compared(base, gate, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    (tmp_path / "archive").mkdir()
    content = {"machine": {}, "metrics": {f"*/{THROUGHPUT}": [0.01, -1.0, 1000.0, "1"]}}
    (folder / "any.json").write_text(json.dumps(content))
    done = gate(base, "--history", tmp_path / "archive", references=folder)
    assert done.code == 77 and {m["gate"] for m in of(done, THROUGHPUT)} == {"nothing"}


@pytest.mark.parametrize("content", ["{", "[]", '{"machine": {}}',
                                     '{"machine": {}, "metrics": {"x": [1]}}'])
def test_a_malformed_reference_is_refused_by_name(content, base, gate, tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    (folder / "bad.json").write_text(content)
    done = gate(base, "--baseline", base, references=folder)
    assert done.code == 3 and "bad.json" in done.err


def test_the_references_of_the_repository_can_be_read(base, command):
    assert command("gate", base, "--baseline", base).code == 0


# Errors -----------------------------------------------------------------------------------------


def test_what_cannot_be_read_is_exit_code_3(base, gate, command, tmp_path):
    truncated = tmp_path / "truncated.h5"
    truncated.write_bytes(base.read_bytes()[:-1000])
    for arguments in ([truncated, "--baseline", base], [base, "--baseline", truncated],
                      [base, "--history", tmp_path / "nowhere"]):
        done = gate(*arguments)
        assert done.code == 3 and str(tmp_path) in done.err and done.out == ""
    done = command("gate", base, "--baseline", base, "--json", tmp_path / "no" / "gate.json")
    assert done.code == 3 and "cannot write the verdict" in done.err


def test_json_on_standard_output_is_alone_there(base, command):
    done = command("gate", base, "--baseline", base, "--json", "-")
    assert json.loads(done.out)["verdict"] == "pass"
    assert json.loads(done.out)["tool"]["name"] == "refit_reports"
