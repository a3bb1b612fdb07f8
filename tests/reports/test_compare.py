# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""compare: medians and verdicts against numpy on the records' own samples, and what moved."""

import csv

import h5py
import numpy as np
import pytest

import nights


@pytest.fixture()
def base(sample, tmp_path):
    return nights.make(sample, tmp_path / "a.h5", 0)


def rows(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_a_record_is_the_same_as_itself(base, command):
    done = command("compare", base, base)
    assert done.code == 0, done.err
    assert "SLOWER" not in done.out and "FASTER" not in done.out
    assert "AMBIGUOUS" not in done.out
    assert "all 14 have the same digest and accuracy  SAME" in done.out


def test_medians_ratios_and_verdicts(base, command, tmp_path):
    slower = nights.make(base, tmp_path / "b.h5", 1, (1.5, 1.0, 0.6))
    done = command("compare", base, slower, "--csv", tmp_path / "out")
    assert done.code == 0, done.err
    table = rows(tmp_path / "out" / "timings.csv")
    walls = [row for row in table if row["metric"] == "wall"]
    assert [row["verdict"] for row in walls] == ["SLOWER", "SAME", "FASTER"]
    for number, row in enumerate(walls):
        with h5py.File(base) as a, h5py.File(slower) as b:
            for file, column in ((a, "median_a"), (b, "median_b")):
                wall = np.nanmax(file[f"cases/{number:03d}/samples/wall"][:], axis=1)
                assert float(row[column]) == np.median(wall)
        assert float(row["low"]) <= float(row["ratio"]) <= float(row["high"])
    fractions = [row for row in table if row["metric"].startswith("fraction_of")]
    assert [row["verdict"] for row in fractions] == ["SLOWER", "SAME", "FASTER"]


def test_a_machine_twice_as_fast_has_the_same_fractions(base, command, tmp_path):
    def ceiling(file):
        file["ceilings/memory_copy"][()] *= 2.0

    fast = nights.make(base, tmp_path / "b.h5", 1, (0.5,), change=ceiling)
    command("compare", base, fast, "--csv", tmp_path / "out")
    table = rows(tmp_path / "out" / "timings.csv")
    assert {r["verdict"] for r in table if r["metric"] == "wall"} == {"FASTER"}
    fractions = [r for r in table if r["metric"] == "fraction_of_memory_copy"]
    assert fractions and {r["verdict"] for r in fractions} == {"SAME"}


def test_names_the_first_tensor_that_moved(base, command, tmp_path):
    moved = nights.make(base, tmp_path / "b.h5", 1,
                        change=nights.shift_column(1, "sqnr_db", -0.5, rows=[3, 5]))
    with h5py.File(base) as file:
        table = file["cases/001/tensors"][:]
        names = [n.decode() for n, recipe in zip(table["name"], table["recipe"]) if recipe]
    done = command("compare", base, moved, "--csv", tmp_path / "out")
    assert f"2 of 14 moved; first {names[3]}" in done.out
    table = rows(tmp_path / "out" / "tensors.csv")
    assert [row["tensor"] for row in table] == [names[3], names[5]]
    assert float(table[0]["sqnr_db_change"]) == pytest.approx(-0.5)


def test_records_without_a_common_case_are_nothing_to_compare(base, write_sample, command):
    done = command("compare", base, write_sample("empty"))
    assert done.code == 77 and "nothing to compare" in done.out
