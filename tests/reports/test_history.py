# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""history: numbers against h5py, planted changes and none, and archives that are not in order."""

import csv

import h5py
import numpy as np
import pytest

import nights

PNG = b"\x89PNG\r\n\x1a\n"


def rows(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def stepped(sample, tmp_path_factory):
    """Thirty nights; case 1 becomes 10 % slower at night 15, case 2 loses 0.5 dB at night 20."""
    folder = tmp_path_factory.mktemp("history") / "archive"
    folder.mkdir()
    random = np.random.default_rng(31)
    for night in range(30):
        factors = np.exp(random.normal(0.0, 0.02, 3))
        factors[1] *= 1.1 if night >= 15 else 1.0

        def change(file, night=night):
            file["tool"].attrs["commit"] = f"{night:040x}"
            if night >= 20:
                nights.shift_column(2, "sqnr_db", -0.5)(file)

        # Names run against time.
        nights.make(sample, folder / f"r{99 - night}.h5", night, factors, change, random)
    return folder


@pytest.fixture(scope="module")
def drawn(stepped, tmp_path_factory):
    from refit_reports.__main__ import main

    out = tmp_path_factory.mktemp("drawn") / "made" / "here"
    assert main(["history", str(stepped), "-o", str(out)]) == 0
    return out


def test_finds_the_planted_changes_with_their_commits_and_no_others(drawn):
    changes = rows(drawn / "changes.csv")
    metrics = {row["metric"].rsplit("/", 1)[1] + ":" + row["commit"].lstrip("0") for row in changes}
    assert metrics == {"fraction_of_memory_copy:f", "wall_s:f", "sqnr_db:14"}
    by_metric = {row["metric"].rsplit("/", 1)[1]: row for row in changes}
    assert float(by_metric["wall_s"]["ratio"]) == pytest.approx(1.1, abs=0.02)
    sqnr = by_metric["sqnr_db"]
    assert float(sqnr["after"]) - float(sqnr["before"]) == pytest.approx(-0.5)


def test_numbers_are_those_of_the_records(drawn, stepped):
    table = [r for r in rows(drawn / "history.csv") if r["kind"] == "wall_s"]
    assert len(table) == 3 * 30
    for row in table[::7]:
        with h5py.File(stepped / row["file"]) as file:
            number = [n for n, c in file["cases"].items() if c.attrs["case"] in row["metric"]][0]
            wall = np.nanmax(file[f"cases/{number}/samples/wall"][:], axis=1)
            assert float(row["value"]) == np.median(wall)
            assert row["created_utc"] == file.attrs["created_utc"]
    times = [r["created_utc"] for r in table if r["metric"] == table[0]["metric"]]
    assert times == sorted(times)


def test_every_metric_has_a_picture_and_its_numbers(drawn):
    pictures = sorted(p.stem for p in drawn.glob("*.png"))
    # Three cases: throughput and wall each, and SQNR for the two that are quantized.
    assert len(pictures) == 8
    for name in pictures:
        assert (drawn / f"{name}.png").read_bytes().startswith(PNG)
        assert len(rows(drawn / f"{name}.csv")) == 30
    page = (drawn / "index.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/png;base64,') == 8 and "http" not in page


def test_bad_nights_are_left_out_and_named(small, command, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    nights.make(small, folder / "good.h5", 0)
    (folder / "bad.h5").write_bytes(small.read_bytes()[:5000])
    done = command("history", folder, "-o", tmp_path / "out")
    assert done.code == 0 and "bad.h5" in done.out and "1 records" in done.out
    assert "bad.h5" in (tmp_path / "out" / "index.html").read_text(encoding="utf-8")


def test_an_empty_or_missing_archive_is_said(command, tmp_path):
    (tmp_path / "empty").mkdir()
    done = command("history", tmp_path / "empty", "-o", tmp_path / "out")
    assert done.code == 77 and "holds no record" in done.out
    done = command("history", tmp_path / "nowhere", "-o", tmp_path / "out")
    assert done.code == 3 and "nowhere" in done.err


def test_only_runs_that_measured_nothing_give_a_page_without_pictures(write_sample, command, tmp_path):
    folder = tmp_path / "archive"
    folder.mkdir()
    (folder / "lost.h5").write_bytes(write_sample("empty").read_bytes())
    done = command("history", folder, "-o", tmp_path / "out")
    assert done.code == 0 and "0 metrics" in done.out
