# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""ci/compare_pytorch.py: its formulas, its refusals, and its arithmetic on a program of known speed."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from fractions import Fraction

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "ci" / "compare_pytorch.py"

_SPEC = importlib.util.spec_from_file_location("compare_pytorch", SCRIPT)
compare_pytorch = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(compare_pytorch)

torch = compare_pytorch.import_torch()
needs_torch = pytest.mark.skipif(torch is None, reason="PyTorch with float8_e4m3fn is not installed")


def fake_micro(folder, rate):
    """A program that answers as refitbench-micro does, always with the same rate."""
    path = folder / "micro"
    row = {"benchmarks": [{"elements_per_s": rate, "of_limit": 0.5}]}
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{json.dumps(row)}\nEND\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_says_so_where_pytorch_is_not_installed(tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('planted')\n", encoding="utf-8")
    done = subprocess.run([sys.executable, str(SCRIPT), "--micro", "none"], capture_output=True,
                          text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 77
    assert "PyTorch with float8_e4m3fn is not installed" in done.stdout


def test_decodes_every_code_as_ml_dtypes_does():
    numpy = pytest.importorskip("numpy")
    ml_dtypes = pytest.importorskip("ml_dtypes")
    values = numpy.arange(256, dtype=numpy.uint8).view(ml_dtypes.float8_e4m3fn)
    for code in range(256):
        if code & 0x7F != 0x7F:
            assert compare_pytorch.decode_e4m3(code) == Fraction(float(values[code]))


def test_names_the_program_that_gave_no_result(tmp_path):
    path = tmp_path / "micro"
    path.write_text("#!/bin/sh\necho nothing; exit 3\n", encoding="utf-8")
    path.chmod(0o755)
    with pytest.raises(SystemExit) as stopped:
        compare_pytorch.time_micro(path, "prime-rl-blockwise-cpu", "avx2", (4096, 4096))
    assert "exit code 3" in str(stopped.value) and str(path) in str(stopped.value)


def test_finds_its_benchmarks_in_the_program():
    micro = pathlib.Path(os.environ.get("REFIT_BUILD_DIR", ROOT / "build")) / "refitbench-micro"
    if not micro.exists():
        pytest.skip(f"{micro} is not built")
    done = subprocess.run([str(micro), "--benchmark_list_tests=true"], capture_output=True, text=True,
                          check=True)
    for recipe in compare_pytorch.RECIPES:
        for rows, cols in compare_pytorch.SHAPES:
            assert f"quantize/{recipe}/portable/{rows}x{cols}/manual_time" in done.stdout.split()


def test_prints_the_median_and_the_spread_of_the_ratio():
    ratio = compare_pytorch.spread([30.0, 20.0, 25.0])
    assert ratio == {"median": 25.0, "min": 20.0, "max": 30.0}
    line = compare_pytorch.line_of({
        "recipe": "r", "shape": [2, 3], "backend": "avx2", "of_limit": {"median": 0.75},
        "torch_elements_per_s": {"median": 1e8}, "elements_per_s": {"median": 2.5e9},
        "ratio": ratio})
    assert "ratio 25.0 (20.0 to 30.0)" in line and "0.75 of the limit" in line


@needs_torch
@pytest.mark.parametrize("recipe", compare_pytorch.RECIPES)
def test_accepts_the_formulas_and_refuses_a_changed_one(recipe):
    quantizer = compare_pytorch.QUANTIZERS[recipe]
    assert compare_pytorch.problem_of(torch, recipe, quantizer) is None

    def half_scale(module, weight):
        codes, scale = quantizer(module, weight)
        return codes, scale / 2

    def next_code(module, weight):
        codes, scale = quantizer(module, weight)
        changed = codes.view(module.uint8).clone()
        changed[0, 0] ^= 1
        return changed.view(module.float8_e4m3fn), scale

    assert recipe in compare_pytorch.problem_of(torch, recipe, half_scale)
    assert "[0, 0]" in compare_pytorch.problem_of(torch, recipe, next_code)


@needs_torch
def test_divides_the_rates_of_one_run(tmp_path, capsys):
    micro = fake_micro(tmp_path, 4e9)
    out = tmp_path / "rows.json"
    assert compare_pytorch.main(["--micro", str(micro), "--rounds", "3", "--shape", "256x256",
                                 "--json", str(out)]) == 0
    rows = json.loads(out.read_text(encoding="utf-8"))["rows"]
    assert [row["recipe"] for row in rows] == list(compare_pytorch.RECIPES)
    for row in rows:
        assert row["elements_per_s"]["median"] == 4e9
        assert row["ratio"]["min"] == pytest.approx(4e9 / row["torch_elements_per_s"]["max"])
    assert capsys.readouterr().out.count("ratio") == 2
