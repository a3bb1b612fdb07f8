# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The check layer_output through the command line: clean runs pass, planted faults are found by it alone."""

import fnmatch
import math
import re

import numpy as np
import pytest
from user_program import text_of

SCENARIO = """
purpose: does a layer compute what quantized weights and activations allow?
model: tiny-llama
weights: {source: synthetic, seed: 7}
trainer: {ranks: 2}
receiver: {engine: vllm-fp8, tp: 2}
transport: {name: loopback}
checks: [layer_output]
iterations: 1
warmup: 0
"""


def test_clean_payloads_of_every_scheme_pass_and_bf16_has_nothing_to_quantize(refitbench):
    text = SCENARIO + """
cases:
  - {payload.scheme: bf16, receiver.engine: vllm-bf16}
  - {payload.scheme: fp8_blockwise}
  - {payload.scheme: fp8_blockwise, weights.outliers.share: 0.001}
  - {payload.scheme: fp8_channelwise, receiver.engine: vllm-compressed-tensors}
  - {payload.scheme: fp8_tensorwise}
"""
    outcome = refitbench.run(text).expect(0)
    cases = outcome.json["cases"]
    assert [case["outcome"] for case in cases] == ["pass"] * 5
    assert cases[0]["accuracy"]["output_snr_db"] is None
    assert cases[0]["notes"]["checks_not_applicable"] == "layer_output"
    assert "BF16 activations" in cases[0]["notes"]["layer_output"]
    for case in cases[1:]:
        accuracy = case["accuracy"]
        assert accuracy["output_snr_db"] == pytest.approx(accuracy["expected_output_snr_db"], abs=0.02)
        # Weights and activations have about 31.5 dB each; together never better than one, and never
        # 3 dB worse than both.
        assert 25.5 < accuracy["output_snr_db"] < accuracy["sqnr_db"]
    with refitbench.record(outcome) as record:
        table = record["cases/001/tensors"][:]
        quantized = np.array([bool(recipe) for recipe in table["recipe"]])
        assert quantized.any() and not quantized.all()
        assert np.isfinite(table["output_snr_db"][quantized]).all()
        assert np.isnan(table["output_snr_db"][~quantized]).all()
        np.testing.assert_allclose(table["relative_error"][quantized],
                                   10.0 ** (-table["sqnr_db"][quantized] / 20.0), rtol=1e-12)
        elements = (table["rows"] * table["cols"])[quantized].sum()
        assert record["cases/001/histograms/codes"][:].sum() == elements
        pooled = -10.0 * math.log10(np.mean(10.0 ** (-table["output_snr_db"][quantized] / 10.0)))
        assert record["cases/001/accuracy"].attrs["output_snr_db"] == pytest.approx(pooled, rel=1e-12)
        assert text_of(record["cases/000/notes"].attrs["checks_not_applicable"]) == "layer_output"


@pytest.mark.parametrize("fault", ["scale_doubled", "swap_tensors"])
def test_a_planted_fault_is_found_by_this_check_alone(refitbench, fault):
    glob = "model.layers.0.mlp.up_proj.weight" if fault == "scale_doubled" else "model.layers.*.mlp.up_proj.weight"
    text = SCENARIO + f"faults: [{{name: {fault}, tensor: '{glob}'}}]\n"
    case = refitbench.run(text).expect(1).json["cases"][0]
    assert {finding["check"] for finding in case["findings"]} == {"layer_output"}
    found = {finding["tensor"] for finding in case["findings"]}
    assert all(fnmatch.fnmatch(tensor, glob) for tensor in found)
    assert len(found) == (1 if fault == "scale_doubled" else 2)
    for finding in case["findings"]:
        assert finding["measured"].endswith(" dB") and "within" in finding["limit"]


def test_the_console_says_what_was_measured_and_expected(refitbench):
    path = refitbench.write("console.yaml", SCENARIO)
    outcome = refitbench("run", path, "--output", refitbench.records).expect(0)
    line = next(line for line in outcome.stdout.splitlines() if "layer output" in line)
    assert line.startswith("#")
    measured, expected = re.fullmatch(
        r"#   layer output: (\d+\.\d\d) dB, expected (\d+\.\d\d) dB, mean over tensors", line).groups()
    assert float(measured) == pytest.approx(float(expected), abs=0.02)
