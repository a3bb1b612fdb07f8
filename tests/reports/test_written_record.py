# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The file that the C++ writer leaves, judged by h5py alone; its numbers: sample_record.hpp."""

import json

import h5py
import numpy as np
import pytest

STAGES = {"gather", "quantize", "pack", "broadcast", "check", "load", "commit"}


@pytest.fixture()
def file(sample):
    with h5py.File(sample, "r") as opened:
        yield opened


def datasets(file):
    found = []
    file.visititems(lambda _, o: found.append(o) if isinstance(o, h5py.Dataset) else None)
    assert found
    return found


def without_unit(file):
    return [d.name for d in datasets(file) if not isinstance(d.attrs.get("unit"), str)]


def without_scale(file):
    missing = []
    for dataset in datasets(file):
        # A scale needs none of its own.
        if h5py.h5ds.is_scale(dataset.id):
            continue
        for axis in range(dataset.ndim):
            scales = list(dataset.dims[axis].values())
            if len(scales) != 1 or scales[0].shape != (dataset.shape[axis],):
                missing.append(f"{dataset.name}[{axis}]")
    return missing


def test_every_dataset_has_a_unit(file):
    assert without_unit(file) == []


def test_every_dimension_has_a_scale_of_its_length(file):
    assert without_scale(file) == []


def test_a_dataset_without_unit_or_scale_would_be_noticed(sample, tmp_path):
    copy = tmp_path / "copy.h5"
    copy.write_bytes(sample.read_bytes())
    with h5py.File(copy, "r+") as file:
        file["planted"] = np.zeros(3)
        assert without_unit(file) == ["/planted"]
        assert without_scale(file) == ["/planted[0]"]


def test_numeric_columns_of_tables_have_units(file):
    for dataset in datasets(file):
        for name in dataset.dtype.names or ():
            if dataset.dtype[name] != object:
                assert f"unit_{name}" in dataset.attrs, (dataset.name, name)
    assert file["cases/001/tensors"].attrs["unit_sqnr_db"] == "dB"
    assert file["cases/001/buckets"].attrs["unit_broadcast_end"] == "s"


def test_root_attributes(file):
    assert file.attrs["schema"] == "refitbench.record/1"
    assert file.attrs["created_utc"] == "2026-01-02T03:04:05.678901Z"
    assert list(file.attrs["argv"])[-1] == "seed=ü"
    assert file.attrs["scenario_text"].startswith("purpose: Is an FP8 refit faster?\n")
    assert file.attrs["verdict"] == "fail"
    assert file.attrs["exit_code"] == 1
    assert not [name for name in file.attrs if name.startswith("error")]


def test_strings_are_variable_utf8(file):
    kind = h5py.check_string_dtype(file.attrs.get_id("schema").dtype)
    assert (kind.encoding, kind.length) == ("utf-8", None)
    kind = h5py.check_string_dtype(file["cases/001/tensors"].dtype["name"])
    assert (kind.encoding, kind.length) == ("utf-8", None)


def test_environment_names_what_it_was_built_with(file):
    environment = file["environment"].attrs
    for key in ("commit", "dirty", "compiler", "flags", "hdf5", "cpu", "mpi", "hostname"):
        assert environment[key], key
    assert environment["hdf5"] == h5py.version.hdf5_version
    assert "-ffp-contract=off" in environment["flags"]


def test_ranks_and_ceilings(file):
    ranks = file["ranks"][:]
    assert ranks["rank"].tolist() == [0, 1, 2, 3]
    assert ranks["role"].tolist() == [b"trainer 0", b"trainer 1", b"receiver 0.0", b"receiver 0.1"]
    assert file["ceilings/memory_copy"][()] == 9.0e9
    assert file["ceilings/memory_copy"].attrs["unit"] == "B/s"


def test_cases_are_numbered_with_three_digits(file):
    assert list(file["cases"]) == ["000", "001", "002", "003"]


def test_samples_are_iterations_by_ranks(file):
    samples = file["cases/000/samples"]
    assert set(samples) == (STAGES - {"quantize"}) | {"wall"}
    gather = samples["gather"]
    assert gather.dtype == np.float64
    iteration = np.arange(6)
    expected = np.stack(
        [0.0075 * (1 + 0.02 * iteration), 0.010 * (1 + 0.02 * iteration)], axis=1
    )
    np.testing.assert_allclose(gather[:, :2], expected, rtol=1e-15)
    assert np.isnan(gather[:, 2:]).all()
    assert gather.dims[0][0].name.endswith("/iteration")
    assert gather.dims[1][0].name.endswith("/rank")


def test_derived_numbers_follow_from_the_samples(file):
    for number in ("000", "001", "002"):
        case = file["cases"][number]
        wall = np.nanmax(case["samples/wall"][:], axis=1)
        assert case["wall_s"].attrs["median"] == pytest.approx(np.median(wall), rel=1e-15)
        assert case["wall_s"].attrs["min"] == wall.min()
        assert case["wall_s"].attrs["max"] == wall.max()
        bandwidth = case.attrs["bytes_wire"] / np.median(wall)
        assert case.attrs["algbw_bytes_per_s"] == pytest.approx(bandwidth, rel=1e-15)
        for stage in STAGES & set(case["samples"]):
            values = case["samples"][stage][:]
            summary = case["stages"][stage].attrs
            longest = np.median(np.nanmax(values, axis=1))
            assert summary["median_s"] == pytest.approx(longest, rel=1e-15)
            present = np.flatnonzero(~np.isnan(values[0]))
            medians = np.median(values[:, present], axis=0)
            assert summary["slowest_rank"] == present[np.argmax(medians)]


def test_stages_without_a_part_are_groups_without_attributes(file):
    assert set(file["cases/000/stages"]) == STAGES
    assert len(file["cases/000/stages/quantize"].attrs) == 0


def test_tensor_table(file):
    table = file["cases/001/tensors"][:]
    assert len(table) == 14
    assert table["name"][13] == b"model.layers.1.mlp.down_proj.weight"
    assert table["bytes"].tolist() == [512 * 256 + 32] * 14
    assert table["digest"][0] == b"0123456789abcdef0123456789abcdef"
    assert table["expected_sqnr_db"][0] == 31.5
    assert np.isnan(file["cases/000/tensors"]["sqnr_db"]).all()
    assert table["exact"].tolist() == [100] * 14
    assert table["subnormal"].tolist() == [3] * 14
    np.testing.assert_allclose(table["relative_error"], 10.0 ** (-table["sqnr_db"] / 20.0), rtol=1e-15)
    assert table["cosine"].tolist() == [0.9996] * 14
    assert table["output_snr_db"][0] == table["expected_output_snr_db"][0] == 28.5
    assert np.isnan(file["cases/000/tensors"]["output_snr_db"]).all()


def test_histograms_hold_every_code_and_the_bins_of_scales(file):
    group = file["cases/001/histograms"]
    assert group["codes"].shape == (256,)
    assert group["codes"][:2].tolist() == [1000, 993] and group["codes"][0x7F] == 0
    assert group["scales"][:].tolist() == [20, 60, 4]
    assert group["scales"].dims[0][0][:].tolist() == [-13.25, -13.125, -12.875]
    assert group.attrs["scale_bin_width"] == 0.125
    assert "histograms" not in file["cases/000"]


def test_bucket_table_has_start_and_end_of_every_stage(file):
    table = file["cases/001/buckets"]
    for stage in STAGES:
        assert {f"{stage}_start", f"{stage}_end"} <= set(table.dtype.names)
    trainer = table[:][table["rank"] == 0]
    assert (trainer["gather_end"] > trainer["gather_start"]).all()
    assert np.isnan(trainer["load_start"]).all()


def test_findings_keep_text_and_index(file):
    table = file["cases/002/findings"][:]
    assert table["index"].tolist() == [b"[3, 7]", b"[]"]
    assert table["severity"].tolist() == [b"error", b"warning"]
    assert table["limit"][1].decode("utf-8") == "31.5 dB ± 0.05 dB"


def same(json_value, attribute):
    if json_value is None:
        return np.isnan(attribute)
    if isinstance(json_value, list):
        return json_value == list(attribute)
    return json_value == attribute


def test_json_and_record_say_the_same(write_sample, tmp_path):
    """Every attribute of a case is the JSON's value; nested objects are groups of that name."""
    text = tmp_path / "run.json"
    path = write_sample("", "--json", text)
    run = json.loads(text.read_text(encoding="utf-8"))
    with h5py.File(path, "r") as file:
        for number, case in enumerate(run["cases"]):
            group = file[f"cases/{number:03d}"]
            for key, value in case.items():
                if key in ("findings", "stages"):
                    continue
                if isinstance(value, dict):
                    for inner, inner_value in value.items():
                        assert same(inner_value, group[key].attrs[inner]), (key, inner)
                else:
                    assert same(value, group.attrs[key]), key
            for stage, values in case["stages"].items():
                assert dict(group["stages"][stage].attrs) == values


def test_error_attributes_stand_with_the_verdict_error(write_sample):
    with h5py.File(write_sample("lost"), "r") as file:
        assert file.attrs["verdict"] == "error"
        assert file.attrs["error_rank"] == 2
        assert file.attrs["error_stage"] == "broadcast"
        assert file.attrs["error_message"] == "rank 2 ended by signal 9"
        assert without_unit(file) == []
        assert without_scale(file) == []


def test_a_long_command_line_is_kept_whole(write_sample):
    with h5py.File(write_sample("large"), "r") as file:
        assert len(file.attrs["argv"]) == 10_000


def test_a_run_without_cases_is_a_record(write_sample):
    with h5py.File(write_sample("empty"), "r") as file:
        assert len(file["cases"]) == 0
        assert without_scale(file) == []
