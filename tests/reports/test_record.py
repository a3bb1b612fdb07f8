# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The reader: values against h5py, and every file that is no record refused by name."""

import h5py
import numpy as np
import pandas
import pytest

import refit_reports
from refit_reports.__main__ import main
from refit_reports.record import RecordError, load, slowest_rank, wall_by_iteration


def test_reads_what_h5py_reads(sample):
    record = load(sample)
    with h5py.File(sample, "r") as file:
        assert record.verdict == file.attrs["verdict"]
        assert record.cases.loc[1, "bytes_wire"] == file["cases/001"].attrs["bytes_wire"]
        assert record.cases.loc[1, "wall_s.median"] == file["cases/001/wall_s"].attrs["median"]
        np.testing.assert_array_equal(
            record.samples[2]["load"], file["cases/002/samples/load"][:]
        )
        tensors = record.tensors[record.tensors["case"] == 1]
        np.testing.assert_array_equal(tensors["sqnr_db"], file["cases/001/tensors"]["sqnr_db"])
    assert record.findings["case"].tolist() == [2, 2]
    assert record.findings["message"][0] == "an element of the source is NaN <here>"
    assert record.notes[1]["remark"] == "the weights were once 4-bit"
    assert record.units["tensors"]["bytes"] == "B"
    assert record.ceilings["transport"].unit == "B/s"
    assert record.error is None


def test_load_gives_tables_and_all_samples(sample):
    record = refit_reports.load(sample)
    for table in (record.cases, record.tensors, record.buckets, record.findings, record.ranks):
        assert isinstance(table, pandas.DataFrame)
    table = record.samples_table()
    with h5py.File(sample, "r") as file:
        total = 0
        for number, case in file["cases"].items():
            for stage, values in case["samples"].items():
                chosen = table[(table["case"] == int(number)) & (table["stage"] == stage)]
                assert np.nansum(values[:]) == pytest.approx(chosen["seconds"].sum())
                total += int((~np.isnan(values[:])).sum())
    assert len(table) == total


def test_xarray_opens_the_samples_of_a_case(sample):
    xarray = pytest.importorskip("xarray", reason="xarray is not installed (ci/pip-test-packages.txt)")
    pytest.importorskip("h5netcdf", reason="h5netcdf is not installed (ci/pip-test-packages.txt)")
    with xarray.open_dataset(sample, group="cases/001/samples", engine="h5netcdf") as samples:
        with h5py.File(sample, "r") as file:
            wall = file["cases/001/samples/wall"]
            np.testing.assert_array_equal(samples["wall"].to_numpy(), wall[:])
        assert samples["wall"].dims == ("iteration", "rank")
        assert samples["wall"].attrs["unit"] == "s"


def test_a_lost_rank_is_named(write_sample):
    assert load(write_sample("lost")).error == {
        "rank": 2, "stage": "broadcast", "message": "rank 2 ended by signal 9",
    }


def test_maximum_over_ranks_leaves_out_what_has_no_number():
    values = np.array([[1.0, np.nan], [np.nan, np.nan], [2.0, 5.0]])
    assert wall_by_iteration({"wall": values}).tolist() == [1.0, 5.0]
    assert wall_by_iteration({}).size == 0
    assert slowest_rank(values) == 1
    assert slowest_rank(np.full((2, 2), np.nan)) == -1


def no_such_file(path, sample):
    pass


def folder(path, sample):
    path.mkdir()


def empty_file(path, sample):
    path.write_bytes(b"")


def text_file(path, sample):
    path.write_text("{}")


def truncated(path, sample):
    path.write_bytes(sample.read_bytes()[:-1000])


def truncated_to_a_kibibyte(path, sample):
    path.write_bytes(sample.read_bytes()[:1024])


def foreign_hdf5(path, sample):
    with h5py.File(path, "w") as file:
        file["x"] = 1


def foreign_schema(path, sample):
    with h5py.File(path, "w") as file:
        file.attrs["schema"] = "else/1"


def newer_schema(path, sample):
    path.write_bytes(sample.read_bytes())
    with h5py.File(path, "r+") as file:
        file.attrs["schema"] = "refitbench.record/2"


def no_cases(path, sample):
    path.write_bytes(sample.read_bytes())
    with h5py.File(path, "r+") as file:
        del file["cases"]


def overwritten_inside(path, sample):
    content = bytearray(sample.read_bytes())
    content[2000:60000] = bytes(58000)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage, reason",
    [
        (no_such_file, "no such file"),
        (folder, "is a folder"),
        (empty_file, "an empty file"),
        (text_file, "not an HDF5 file"),
        (truncated, "truncated"),
        (truncated_to_a_kibibyte, "truncated"),
        (foreign_hdf5, "without the attribute 'schema'"),
        (foreign_schema, "is no record of refitbench"),
        (newer_schema, "newer than the schema 1"),
        (no_cases, "damaged record"),
        (overwritten_inside, "damaged"),
    ],
)
def test_refuses_by_name_and_with_exit_code_3(damage, reason, sample, capsys, tmp_path):
    path = tmp_path / "given.h5"
    damage(path, sample)
    with pytest.raises(RecordError, match=reason) as caught:
        load(path)
    assert str(path) in str(caught.value)
    # In this process: an exception that main() let through would fail the test.
    assert main(["report", str(path), "-o", str(tmp_path / "out")]) == 3
    output = capsys.readouterr()
    assert str(path) in output.err and reason in output.err
    assert output.out == ""
    assert not (tmp_path / "out").exists()
