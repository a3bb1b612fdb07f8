# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Consecutive refits in one process world: new values every time, the same memory every time."""

import h5py
import numpy as np
import pytest
from user_program import small_run, text_of


def digests(refitbench, scenario, name, *arguments):
    """{tensor: digest} of the only case of one run."""
    folder = refitbench.folder / name
    run = refitbench("run", refitbench.write(f"{name}.yaml", scenario), "--output", folder, "--json", "-",
                     *arguments, np=4, timeout=300).expect(0).json
    with h5py.File(run["record"], "r") as record:
        table = record["cases/000/tensors"][:]
        samples = {stage: node[:] for stage, node in record["cases/000/samples"].items()}
        addresses = int(text_of(record["cases/000/notes"].attrs["destination_addresses"]))
    return dict(zip(table["name"], table["digest"])), samples, run["cases"][0] | {"addresses": addresses}


@pytest.mark.parametrize("commit", ["staged", "in_place"])
def test_ten_refits_load_ten_steps(refitbench, commit):
    scenario = small_run(2, 2) + "weights: {seed: 3, step: STEP}\n"
    scenario = scenario.replace("tp: 2}", f"tp: 2, commit: {commit}}}")

    ten, samples, case = digests(refitbench, scenario.replace("STEP", "5"), "ten", "--set", "refits=10")
    last, _, _ = digests(refitbench, scenario.replace("STEP", "14"), "last")
    first, _, _ = digests(refitbench, scenario.replace("STEP", "5"), "first")

    # What is loaded after the tenth refit is step 5 + 9, as if it were the first.
    assert ten == last
    assert sum(ten[name] != first[name] for name in ten) > len(ten) / 2
    assert samples["wall"].shape == (10, 4) and np.isfinite(samples["wall"]).all()
    assert case["outcome"] == "pass"
    # Two copies take turns, or the only one stays where it is.
    assert case["addresses"] == (2 if commit == "staged" else 1)


@pytest.mark.slow
@pytest.mark.parametrize("commit", ["staged", "in_place"])
def test_a_thousand_refits_need_no_more_memory_than_ten(refitbench, commit):
    scenario = small_run(2, 2).replace("tp: 2}", f"tp: 2, commit: {commit}}}") + "weights: {seed: 3}\nchecks: [digest, completeness, version, round_trip]\n"

    _, _, ten = digests(refitbench, scenario, "ten", "--set", "refits=10")
    _, samples, thousand = digests(refitbench, scenario, "thousand", "--set", "refits=1000")

    assert samples["wall"].shape == (1000, 4)
    # 1,000 x 4 samples of 9 stages are 0.3 MB; leaking one bucket (256 KiB) a refit would be 250 MB.
    assert thousand["addresses"] == (2 if commit == "staged" else 1)
    assert thousand["peak_rss_bytes"]["max"] < ten["peak_rss_bytes"]["max"] + 16e6
