# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The scenarios that come with the program give what they say they expect."""

import shutil

import pytest
from user_program import REPOSITORY, text_of

SCENARIOS = REPOSITORY / "scenarios"


def stems(folder):
    return sorted(path.stem for path in (SCENARIOS / folder).glob("*.yaml"))


def test_the_lists_below_are_not_empty():
    assert stems("faults") and stems("contracts")
    assert set(stems("lost-rank")) == {"kill", "stop"}


# Those for framings have one sender and two receivers; a scenario of another world size is skipped.
@pytest.mark.parametrize("folder, worlds", [("faults", [4]), ("contracts", [4, 3])])
def test_a_folder_of_scenarios_gives_what_each_expects(refitbench, folder, worlds):
    copies = refitbench.folder / folder
    copies.mkdir()
    expected = {}
    for stem in stems(folder):
        path = shutil.copy(SCENARIOS / folder / f"{stem}.yaml", copies)
        expected[stem] = next((word for word in ("finding", "error")
                               if f"outcome: {word}" in open(path, encoding="utf-8").read()), "pass")

    for extra in (SCENARIOS / folder).glob("*.json"):
        shutil.copy(extra, copies)

    found = {}
    for np in worlds:
        run = refitbench("run", copies, "--output", refitbench.records, "--json", "-", np=np,
                         timeout=180).expect(0).json
        for case in run["cases"]:
            if case["outcome"] != "skipped":
                found.setdefault(case["scenario"], set()).add(case["outcome"])
    names = {"finding": "expected_finding", "error": "expected_error", "pass": "pass"}
    for stem, outcome in expected.items():
        assert names[outcome] in found.get(stem, set()), f"{stem}: {found.get(stem)}"
        assert found[stem] <= {"pass", names[outcome]}, f"{stem}: {found[stem]}"


@pytest.mark.parametrize("stem, rank, stage", [("kill", 3, None), ("stop", 1, "broadcast")])
def test_a_rank_that_a_scenario_loses_is_named(refitbench, stem, rank, stage):
    outcome = refitbench("run", SCENARIOS / "lost-rank" / f"{stem}.yaml", "--output", refitbench.records,
                         "--timeout", "3", np=4)

    outcome.expect(137, 3)
    with refitbench.record(outcome) as record:
        assert text_of(record.attrs["verdict"]) == "error"
        text = text_of(record.attrs["scenario_text"])
        assert f"rank: {record.attrs['error_rank']}" in text
        assert f"stage: {text_of(record.attrs['error_stage'])}" in text


@pytest.mark.parametrize("stem, np", [("loopback", None), ("mpi", 4)])
def test_a_smoke_scenario_passes(refitbench, stem, np):
    run = refitbench("run", SCENARIOS / "smoke" / f"{stem}.yaml", "--output", refitbench.records,
                     "--json", "-", "-n", "1", "-w", "0", np=np).expect(0).json

    assert {case["outcome"] for case in run["cases"]} == {"pass"}
