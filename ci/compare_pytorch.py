#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Quantization in refitbench beside the same formulas in PyTorch, on one CPU core, in one run.

    python3 ci/compare_pytorch.py --micro build/refitbench-micro [--rounds 5] [--json FILE]

Both sides quantize BF16 matrices of the same shapes, in turn, so that a machine under load slows
both. For each pair it prints elements per second of CPU time, the median over the rounds with the
smallest and largest, and the ratio of the rates with its spread. The PyTorch side is what a
trainer without a kernel of its own runs: blocks of 128 x 128 (prime-rl-blockwise-cpu) or rows
(prime-rl-channelwise-cpu), s = max(amax / 448, 1e-12), x / s clamped to +-448 and cast to E4M3FN.
Before anything is timed its codes and scales are compared with the formulas, in exact arithmetic
on a few tiles.

Exit codes: 0, measured; 1, the PyTorch side does not compute the formulas, or refitbench-micro
failed; 77, PyTorch is not installed.
"""

import argparse
import json
import math
import pathlib
import statistics
import subprocess
import sys
import time
from fractions import Fraction

SHAPES = ((4096, 4096), (16384, 8192))
RECIPES = ("prime-rl-blockwise-cpu", "prime-rl-channelwise-cpu")
BLOCK = 128
E4M3_MAX = 448.0
NOT_INSTALLED = 77


def import_torch():
    """The module, or None where it is not installed or lacks the FP8 dtype."""
    try:
        import torch
    except ImportError:
        return None
    return torch if hasattr(torch, "float8_e4m3fn") else None


def quantize_blockwise(torch, weight):
    """Codes [R, C] and scales [cd(R,128), cd(C,128)] of a BF16 matrix; padding is zeros."""
    rows, cols = weight.shape
    down, right = -rows % BLOCK, -cols % BLOCK
    padded = torch.nn.functional.pad(weight, (0, right, 0, down)) if down or right else weight
    tiles = padded.float().reshape(
        (rows + down) // BLOCK, BLOCK, (cols + right) // BLOCK, BLOCK)
    amax = tiles.abs().amax(dim=(1, 3), keepdim=True)
    scale = (amax / E4M3_MAX).clamp(min=1e-12)
    codes = (tiles / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn)
    codes = codes.reshape(rows + down, cols + right)[:rows, :cols].contiguous()
    return codes, scale[:, 0, :, 0].contiguous()


def quantize_channelwise(torch, weight):
    """Codes [R, C] and scales [R, 1] of a BF16 matrix."""
    wide = weight.float()
    scale = (wide.abs().amax(dim=1, keepdim=True) / E4M3_MAX).clamp(min=1e-12)
    return (wide / scale).clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn), scale


QUANTIZERS = {RECIPES[0]: quantize_blockwise, RECIPES[1]: quantize_channelwise}


def decode_e4m3(code):
    """The exact value of a code that is no NaN."""
    magnitude = code & 0x7F
    exponent, mantissa = magnitude >> 3, magnitude & 7
    value = (Fraction(mantissa, 512) if exponent == 0
             else Fraction(8 + mantissa, 8) * Fraction(2) ** (exponent - 7))
    return -value if code & 0x80 else value


def problem_of(torch, recipe, quantizer):
    """What is wrong with the PyTorch side of a recipe, or None. Every code of a small ragged matrix
    must be a nearest one of x / s by exact fractions, and s within a rounding of amax / 448."""
    torch.manual_seed(7)
    weight = (torch.randn(130, 140) * 0.02).to(torch.bfloat16)
    codes, scales = quantizer(torch, weight)
    values = weight.float().tolist()
    bits = codes.view(torch.uint8).tolist()
    by_rows = scales.shape[0] == weight.shape[0]
    legal = sorted({decode_e4m3(code) for code in range(256) if code & 0x7F != 0x7F})
    for row in range(0, weight.shape[0], 3):
        for col in range(0, weight.shape[1], 7):
            scale = Fraction(scales[row, 0].item() if by_rows
                             else scales[row // BLOCK, col // BLOCK].item())
            quotient = Fraction(values[row][col]) / scale
            found = decode_e4m3(bits[row][col])
            nearest = min(abs(value - quotient) for value in legal)
            # The quotient is rounded to F32 once before the cast.
            if abs(found - quotient) > nearest + abs(quotient) / 2**23:
                return (f"{recipe}: element [{row}, {col}] has the value {float(found)} for the "
                        f"quotient {float(quotient)}; expected the nearest E4M3FN value")
    tile = weight[:1] if by_rows else weight[:BLOCK, :BLOCK]
    expected = tile.float().abs().max().item() / E4M3_MAX
    if not math.isclose(scales[0, 0].item(), expected, rel_tol=2.0**-23):
        return f"{recipe}: scale {scales[0, 0].item()}; expected amax / 448 = {expected}"
    return None


def time_torch(torch, quantizer, weight):
    """CPU seconds of one call; the process has one thread."""
    begin = time.process_time()
    quantizer(torch, weight)
    return time.process_time() - begin


def time_micro(micro, recipe, backend, shape):
    """Elements per CPU second that refitbench-micro reports for one round."""
    name = f"quantize/{recipe}/{backend}/{shape[0]}x{shape[1]}"
    done = subprocess.run(
        [str(micro), f"--benchmark_filter=^{name}(/manual_time)?$", "--benchmark_min_time=0.1",
         "--benchmark_format=json"], capture_output=True, text=True, check=False)
    try:
        rows = json.loads(done.stdout)["benchmarks"]
        return rows[0]["elements_per_s"], rows[0]["of_limit"]
    except (ValueError, KeyError, IndexError):
        raise SystemExit(f"compare_pytorch: {micro} gave no result for {name} (exit code "
                         f"{done.returncode}): {done.stdout[-300:]}{done.stderr[-300:]}") from None


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(torch, options, recipe, shape):
    """One row of the result: both rates and their ratio, round by round."""
    torch.manual_seed(1)
    weight = (torch.randn(*shape) * 0.02).to(torch.bfloat16)
    quantizer = QUANTIZERS[recipe]
    time_torch(torch, quantizer, weight)  # the first call pays for fresh memory
    rates, micro_rates, fractions = [], [], []
    for _ in range(options.rounds):
        rates.append(weight.numel() / time_torch(torch, quantizer, weight))
        rate, fraction = time_micro(options.micro, recipe, options.backend, shape)
        micro_rates.append(rate)
        fractions.append(fraction)
    ratios = [mine / theirs for mine, theirs in zip(micro_rates, rates)]
    return {"recipe": recipe, "shape": list(shape), "backend": options.backend,
            "torch_elements_per_s": spread(rates), "elements_per_s": spread(micro_rates),
            "of_limit": spread(fractions), "ratio": spread(ratios)}


def line_of(row):
    return (f"{row['recipe']:26} {row['shape'][0]:>5} x {row['shape'][1]:<5} "
            f"PyTorch {row['torch_elements_per_s']['median'] / 1e6:7.1f} Melem/s  "
            f"{row['backend']} {row['elements_per_s']['median'] / 1e6:7.1f} Melem/s "
            f"({row['of_limit']['median']:.2f} of the limit)  ratio {row['ratio']['median']:.1f} "
            f"({row['ratio']['min']:.1f} to {row['ratio']['max']:.1f})")


def shape_of(text):
    rows, _, cols = text.partition("x")
    return int(rows), int(cols)


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--micro", type=pathlib.Path, required=True,
                        help="refitbench-micro, built in Release mode")
    parser.add_argument("--backend", default="avx2", help="of refitbench (default avx2)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=shape_of, action="append",
                        help="ROWSxCOLS, one that refitbench-micro has; may be repeated")
    parser.add_argument("--json", type=pathlib.Path, help="write the rows here too")
    options = parser.parse_args(arguments)
    torch = import_torch()
    if torch is None:
        print("compare_pytorch: PyTorch with float8_e4m3fn is not installed; nothing was measured")
        return NOT_INSTALLED
    torch.set_num_threads(1)
    for recipe, quantizer in QUANTIZERS.items():
        problem = problem_of(torch, recipe, quantizer)
        if problem:
            print(f"compare_pytorch: {problem}", file=sys.stderr)
            return 1
    print(f"# PyTorch {torch.__version__}, one thread; {options.rounds} rounds in turn; CPU time")
    rows = []
    for recipe in RECIPES:
        for shape in options.shape or SHAPES:
            rows.append(measure(torch, options, recipe, shape))
            print(line_of(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps({"schema": "refitbench.compare_pytorch/1",
                                            "torch": torch.__version__, "rows": rows},
                                           indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
