# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The report through its command line, and the command line itself."""

import base64
import csv
import html.parser
import re

import h5py
import numpy as np
import pytest

PNG = b"\x89PNG\r\n\x1a\n"


def rows(path):
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


class References(html.parser.HTMLParser):
    """Collects everything on a page that a browser would fetch or follow."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        for name, value in attrs:
            if name in ("src", "href", "srcset", "data", "action", "poster"):
                self.found.append((tag, name, value))
        if tag in ("script", "link", "iframe", "object", "embed"):
            self.found.append((tag, "", ""))


def references(page):
    parser = References()
    parser.feed(page)
    return parser.found + re.findall(r"@import|url\(", page)


@pytest.fixture()
def page(report):
    folder, done = report
    assert done.returncode == 0, done.stderr
    return (folder / "index.html").read_text(encoding="utf-8")


def test_last_line_is_the_absolute_path_of_the_page(report):
    folder, done = report
    lines = done.stdout.splitlines()
    assert lines[-1] == f"report: {folder / 'index.html'}"
    assert all(line.startswith("#") for line in lines[:-1])


def test_page_needs_no_other_file(page):
    found = references(page)
    assert found
    for tag, name, value in found:
        assert (tag, name) == ("img", "src")
        assert value.startswith("data:image/png;base64,")
        assert base64.b64decode(value.split(",", 1)[1]).startswith(PNG)


def test_a_reference_to_another_file_would_be_noticed():
    assert references('<a href="http://example.org">x</a>')
    assert references('<style>@import "x.css";</style>')


def test_pictures_on_the_page_are_those_beside_it(report, page):
    folder, _ = report
    inside = {base64.b64decode(value.split(",", 1)[1]) for _, _, value in references(page)}
    beside = {path.read_bytes() for path in folder.glob("*.png")}
    assert inside == beside
    names = {path.stem for path in folder.glob("*.png")}
    assert names == {
        "stage_times", "iterations", "bandwidth", "memory", "accuracy_001", "accuracy_002",
        "histograms_001", "histograms_002",
        "bucket_timeline_000", "bucket_timeline_001", "bucket_timeline_002",
    }
    assert all((folder / f"{name}.csv").is_file() for name in names)


def test_page_shows_verdict_findings_remark_and_skipped_case(page):
    assert "<h1>Is an FP8 refit faster than a BF16 one, &amp; by how much, where a &lt; b?<" in page
    assert "FAIL (exit code 1)" in page
    assert page.index("FAIL") < page.index("<h2>Findings") < page.index("<h2>Cases")
    assert "an element of the source is NaN &lt;here&gt;" in page
    assert "<here>" not in page
    assert "the weights were once 4-bit" in page
    assert "no CUDA device" in page
    assert "Example CPU" in page
    assert "seed=ü" in page


def test_case_numbers_equal_those_of_the_record(report, sample):
    folder, _ = report
    table = rows(folder / "cases.csv")
    assert len(table) == 4
    with h5py.File(sample, "r") as file:
        medians = {}
        for row in table[:3]:
            case = file[f"cases/{int(row['case']):03d}"]
            wall = np.nanmax(case["samples/wall"][:], axis=1)
            medians[row["scheme"]] = np.median(wall)
            assert float(row["wall_median_s"]) == np.median(wall)
            assert float(row["wall_min_s"]) == wall.min()
            assert float(row["wall_max_s"]) == wall.max()
            assert int(row["bytes_wire"]) == case.attrs["bytes_wire"]
            assert float(row["byte_ratio"]) == case.attrs["byte_ratio"]
            assert float(row["floor_wall_s"]) == case["floor"].attrs["wall_s"]
            assert float(row["algbw_bytes_per_s"]) == pytest.approx(
                case.attrs["algbw_bytes_per_s"], rel=1e-15
            )
    ratio = medians["fp8_blockwise"] / medians["bf16"]
    assert float(table[1]["wall_over_bf16"]) == ratio
    assert ratio == pytest.approx(0.7)
    assert table[0]["wall_over_bf16"] == "" and table[0]["sqnr_db"] == ""
    assert table[3]["outcome"] == "skipped" and table[3]["wall_median_s"] == ""


def test_figure_numbers_equal_those_of_the_record(report, sample):
    folder, _ = report
    with h5py.File(sample, "r") as file:
        for row in rows(folder / "stage_times.csv"):
            stage = file[f"cases/{int(row['case']):03d}/stages/{row['stage']}"].attrs
            assert float(row["median_s"]) == pytest.approx(stage["median_s"], rel=1e-15)
            assert int(row["slowest_rank"]) == stage["slowest_rank"]
        for row in rows(folder / "iterations.csv"):
            wall = file[f"cases/{int(row['case']):03d}/samples/wall"][int(row["iteration"])]
            assert float(row["wall_s"]) == np.nanmax(wall)
        buckets = file["cases/001/buckets"][:]
        shown = rows(folder / "bucket_timeline_001.csv")
        present = sum((~np.isnan(buckets[n])).sum() for n in buckets.dtype.names if "_start" in n)
        assert len(shown) == present
        for row in shown:
            match = (buckets["index"] == int(row["bucket"])) & (buckets["rank"] == int(row["rank"]))
            assert float(row["start_s"]) == buckets[match][f"{row['stage']}_start"][0]
            assert float(row["end_s"]) == buckets[match][f"{row['stage']}_end"][0]
        tensors = file["cases/001/tensors"][:]
        shown = rows(folder / "accuracy_001.csv")
        assert [float(row["sqnr_db"]) for row in shown] == tensors["sqnr_db"].tolist()
        assert [row["layer"] for row in shown] == ["0"] * 7 + ["1"] * 7


def test_quantiles_and_bandwidth_equal_those_of_the_samples(report, sample):
    folder, _ = report
    with h5py.File(sample, "r") as file:
        memory_copy = file["ceilings/memory_copy"][()]
        for row in rows(folder / "bandwidth.csv"):
            case = file[f"cases/{int(row['case']):03d}"]
            wall = np.nanmax(case["samples/wall"][:], axis=1)
            wire = case.attrs["bytes_wire"]
            assert float(row["algbw_bytes_per_s"]) == pytest.approx(wire / np.median(wall), rel=1e-15)
            assert float(row["lowest_bytes_per_s"]) == pytest.approx(wire / wall.max(), rel=1e-15)
            assert float(row["highest_bytes_per_s"]) == pytest.approx(wire / wall.min(), rel=1e-15)
            assert float(row["ceiling_memory_copy_bytes_per_s"]) == memory_copy
            shown = [r for r in rows(folder / "iterations.csv") if r["case"] == row["case"]]
            for column, share in (("p50_s", 50), ("p95_s", 95), ("p99_s", 99)):
                assert {float(r[column]) for r in shown} == {np.percentile(wall, share)}
            assert {float(r["min_s"]) for r in shown} == {wall.min()}
    assert [row["case"] for row in rows(folder / "bandwidth.csv")] == ["0", "1", "2"]


def test_histograms_and_memory_equal_those_of_the_record(report, sample):
    folder, _ = report
    with h5py.File(sample, "r") as file:
        group = file["cases/001/histograms"]
        table = rows(folder / "histograms_001.csv")
        codes = [row for row in table if row["kind"] == "code"]
        assert [int(row["count"]) for row in codes] == group["codes"][:].tolist()
        assert group["codes"].dims[0][0][:].tolist() == list(range(256))
        scales = [row for row in table if row["kind"] == "scale"]
        assert [float(row["log2_low"]) for row in scales] == [-13.25, -13.125, -12.875]
        assert [int(row["count"]) for row in scales] == group["scales"][:].tolist() == [20, 60, 4]
        assert {float(row["log2_high"]) - float(row["log2_low"]) for row in scales} == {0.125}
        assert "histograms" not in file["cases/000"]
        for row in rows(folder / "memory.csv"):
            peak = file[f"cases/{int(row['case']):03d}/peak_rss_bytes"].attrs
            assert int(row["peak_rss_sum_bytes"]) == peak["sum"]
            assert int(row["peak_rss_max_bytes"]) == peak["max"]
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(float)
    shown = [float(row["value"] or "nan") for row in codes]
    np.testing.assert_array_equal(shown, values)


def test_a_record_without_the_later_columns_is_reported(sample, command, tmp_path):
    older = tmp_path / "older.h5"
    older.write_bytes(sample.read_bytes())
    later = ["exact", "subnormal", "relative_error", "cosine", "output_snr_db", "expected_output_snr_db"]
    with h5py.File(older, "r+") as file:
        for number in ("000", "002"):
            del file["cases"][number]
        for case in file["cases"].values():
            if "histograms" in case:
                del case["histograms"]
            table = case["tensors"][:]
            attributes = dict(case["tensors"].attrs)
            del case["tensors"]
            kept = [name for name in table.dtype.names if name not in later]
            case.create_dataset("tensors", data=table[kept].astype([(n, table.dtype[n]) for n in kept]))
            for name, value in attributes.items():
                if name == "unit" or name.startswith("unit_") and name[5:] in kept:
                    case["tensors"].attrs[name] = value
    done = command("report", older, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert (tmp_path / "out" / "accuracy_001.png").is_file()
    assert not list((tmp_path / "out").glob("histograms*"))


def test_findings_are_beside_the_page(report):
    table = rows(report[0] / "findings.csv")
    assert [row["check"] for row in table] == ["nonfinite", "sqnr"]


def test_a_lost_run_is_reported_with_rank_and_stage(write_sample, command, tmp_path):
    done = command("report", write_sample("lost"), "-o", tmp_path)
    assert done.code == 0, done.err
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "error: rank 2 ended by signal 9" in page and "stage broadcast (rank 2)" in page


def test_a_run_without_cases_is_reported(write_sample, command, tmp_path):
    assert command("report", write_sample("empty"), "-o", tmp_path).code == 0


def test_several_records_share_a_page_and_no_file(small, command, tmp_path):
    other = tmp_path / "other.h5"
    other.write_bytes(small.read_bytes())
    done = command("report", small, other, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "out").glob("*.csv")}
    assert "run.bf16_against_fp8.cases.csv" in names
    assert "other.bf16_against_fp8.cases.csv" in names


def test_records_of_one_name_share_no_file(small, command, tmp_path):
    copy = tmp_path / "elsewhere" / small.name
    copy.parent.mkdir()
    copy.write_bytes(small.read_bytes())
    done = command("report", small, copy, "-o", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out").glob("*cases.csv"))) == 2


def test_the_same_record_gives_the_same_bytes(sample, report, command, tmp_path):
    assert command("report", sample, "-o", tmp_path).code == 0
    for path in report[0].iterdir():
        assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name


def test_a_folder_that_cannot_be_made_is_exit_code_3(sample, reports, tmp_path):
    (tmp_path / "file").write_text("")
    done = reports("report", sample, "-o", tmp_path / "file" / "out")
    assert done.returncode == 3
    assert "cannot write the report" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [[], ["reprot"], ["report"], ["report", "A.h5"], ["report", "A", "-o", "B", "--x"],
                  ["compare", "A"], ["gate", "A"], ["gate", "A", "--baseline", "B", "--history", "C"],
                  ["history", "A"], ["archive", "A"]]
)
def test_wrong_use_is_exit_code_2(arguments, reports):
    assert reports(*arguments).returncode == 2


def test_help_has_an_example_and_version_a_number(reports):
    for command in ("", "report", "compare", "gate", "history", "archive"):
        done = reports(*([command] if command else []), "--help")
        example = f"example: python -m refit_reports {command or 'report'}"
        assert done.returncode == 0 and example in done.stdout
    assert re.fullmatch(r"refit_reports \d+\.\d+\.\d+\n", reports("--version").stdout)
