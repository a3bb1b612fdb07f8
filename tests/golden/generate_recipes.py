# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the recipes, computed with numpy and ml_dtypes from the written formulas.

Independent of the C++ code: each recipe is a function that follows the order of operations of the
recipe table, on whole tiles, in numpy float32; the cast to E4M3FN and BF16 is that of ml_dtypes.

    pip install numpy==2.4.6 ml_dtypes==0.6.0
    python tests/golden/generate_recipes.py            # rewrites the files below tests/golden
    python tests/golden/generate_recipes.py --check    # compares instead, exit 1 on a difference

Files (all numbers are hexadecimal bit patterns, so no decimal conversion stands between):
    recipes/inputs.hex    the BF16 matrices, shared by all recipes
    recipes/NAME.hex      scales (F32) and codes (E4M3FN) of recipe NAME for each of them
    e4m3/bf16_all.hex     the saturating cast of all 65,536 BF16 patterns
NaN is written as 0x7f in codes and as 0x7fc00000 in scales.
"""

import argparse
import pathlib
import sys

import ml_dtypes
import numpy as np

F32 = np.float32
E4M3 = ml_dtypes.float8_e4m3fn
BF16 = ml_dtypes.bfloat16
FOLDER = pathlib.Path(__file__).resolve().parent
VERSIONS = f"numpy {np.__version__}, ml_dtypes {ml_dtypes.__version__}"
HEADER = [
    "# SPDX-FileCopyrightText: 2026 The refitbench authors",
    "# SPDX-License-Identifier: Apache-2.0",
    f"# Made by tests/golden/generate_recipes.py with {VERSIONS}.",
]


def cast(x):
    """Nearest-even cast to E4M3FN codes; values beyond 448 saturate, NaN is 0x7f."""
    codes = np.clip(x, F32(-448), F32(448)).astype(E4M3).view(np.uint8).copy()
    codes[np.isnan(x)] = 0x7F
    return codes


def over_448(amax, device):
    """amax / 448 as PyTorch computes it on that device."""
    if device == "cuda":
        return amax * (F32(1) / F32(448))
    return amax / F32(448)


# Each function: tile (float32, true extent), amax (float32), device -> (scale, quotient).


def prime_rl(x, amax, device):
    s = np.maximum(over_448(amax, device), F32(1e-12))
    return s, x / s


def nemo_linear(x, amax, _):
    f = (F32(1) / amax) * F32(448)
    if amax == 0 or np.isposinf(amax):
        f = F32(1)
    return F32(1) / f, x * f


def nemo_pow2(x, amax, _):
    exponent = np.ceil(np.log2(over_448(amax, "cpu")))
    byte = 0 if np.isnan(exponent) else int(np.clip(exponent, -127, 127)) + 127
    f = F32(1) if byte == 0 else F32(2.0 ** (127 - byte))
    return F32(1) / f, x * f


def areal_torch(x, amax, _):
    f = F32(448) / np.maximum(amax, F32(1e-10))
    if amax == 0 or np.isposinf(amax):
        f = F32(1)
    return F32(1) / f, x * f


def verl_torch(x, amax, _):
    f = F32(448) / amax
    if amax == 0 or np.isposinf(amax):
        f = F32(1)
    return F32(1) / f, x * f


def slime_offline(x, amax, device):
    s = over_448(np.maximum(amax, F32(BF16(1e-12))), device)
    return s, x / s


def slime_tensorwise(x, amax, device):
    s, quotient = slime_offline(x, amax, device)
    return s, quotient.astype(BF16).astype(F32)


def modelopt(x, amax, device):
    if amax == 0 or np.isnan(amax):
        amax = F32(448)
    amax = np.clip(amax, F32(np.finfo(np.float32).tiny), F32(ml_dtypes.finfo(BF16).max))
    s = over_448(amax, device)
    return s, x / s


def deepgemm(x, amax, device):
    s = over_448(np.maximum(amax, F32(1e-4)), device)
    return s, x * (F32(1) / s)


def deepgemm_ue8m0(x, amax, device):
    s = over_448(np.maximum(amax, F32(1e-4)), device)
    if not np.isfinite(s):
        exponent = 127
    else:
        # s = mantissa * 2^exponent with the mantissa in [0.5, 1).
        mantissa, exponent = np.frexp(np.float64(s))
        if mantissa == 0.5:
            exponent -= 1
    s = F32(2.0 ** int(np.clip(exponent, -126, 127)))
    return s, x * (F32(1) / s)


def compressed_tensors(x, amax, device):
    s = over_448(amax, device)
    if s == 0:
        s = F32(np.finfo(np.float32).eps)
    return s, x / s + F32(0)


BLOCK, ROW, TENSOR = "block", "row", "tensor"
TWINS = ("cuda", "cpu")
# name: function, tiles, devices, edge tiles see the last element
RECIPES = {
    "prime-rl-blockwise": (prime_rl, BLOCK, TWINS, False),
    "prime-rl-channelwise": (prime_rl, ROW, TWINS, False),
    "nemo-rl-linear": (nemo_linear, BLOCK, ("cuda",), True),
    "nemo-rl-pow2": (nemo_pow2, BLOCK, ("cuda",), True),
    "areal-torch": (areal_torch, BLOCK, ("cuda",), False),
    "verl-torch": (verl_torch, BLOCK, ("cuda",), False),
    "slime-offline": (slime_offline, BLOCK, TWINS, False),
    "slime-offline-channel": (slime_offline, ROW, TWINS, False),
    "modelopt-pb-w8a8": (modelopt, BLOCK, TWINS, False),
    "modelopt-pb-wo": (modelopt, BLOCK, TWINS, False),
    "modelopt-pc-pt": (modelopt, ROW, TWINS, False),
    "deepgemm": (deepgemm, BLOCK, TWINS, False),
    "deepgemm-ue8m0": (deepgemm_ue8m0, BLOCK, ("cuda",), False),
    "compressed-tensors-channel": (compressed_tensors, ROW, TWINS, False),
    "tensorwise": (compressed_tensors, TENSOR, TWINS, False),
    "slime-tensorwise": (slime_tensorwise, TENSOR, TWINS, False),
}


def quantize(matrix, recipe, device):
    """matrix: BF16 [rows, cols] -> scales F32 [grid rows, grid cols], codes uint8 [rows, cols]."""
    function, tiles, _, pads = RECIPES[recipe]
    rows, cols = matrix.shape
    tile_rows, tile_cols = {BLOCK: (128, 128), ROW: (1, cols), TENSOR: (rows, cols)}[tiles]
    x = matrix.astype(F32)
    codes = np.zeros((rows, cols), np.uint8)
    scales = []
    for r in range(0, rows, tile_rows):
        for c in range(0, cols, tile_cols):
            tile = x[r : r + tile_rows, c : c + tile_cols]
            seen = tile
            if pads and tile.shape != (tile_rows, tile_cols):
                seen = np.full((tile_rows, tile_cols), x[-1, -1], F32)
                seen[: tile.shape[0], : tile.shape[1]] = tile
            amax = np.max(np.abs(seen))
            scale, quotient = function(tile, F32(amax), device)
            scales.append(F32(scale))
            codes[r : r + tile_rows, c : c + tile_cols] = cast(quotient.astype(F32))
    bits = np.array(scales, F32).view(np.uint32).copy()
    bits[np.isnan(np.array(scales, F32))] = 0x7FC00000
    return bits, codes


def bf16(values):
    return np.asarray(values, np.float64).astype(F32).astype(BF16)


def patterns(bits):
    return np.asarray(bits, np.uint16).view(BF16)


def make_inputs():
    """Matrices by name; each is one thing that a recipe can get wrong."""
    random = np.random.Generator(np.random.PCG64(20260))
    gaussian = random.standard_normal
    cases = {}
    zero = np.zeros((3, 9), np.uint16)
    zero[1, ::2] = 0x8000
    cases["zero"] = patterns(zero)
    mixed = bf16(gaussian((4, 12)) * 0.02)
    mixed[2] = bf16(np.zeros(12))
    cases["zero_row"] = mixed
    for exponent in (-13, -11, -6, -30, -36):
        cases[f"tiny_1e{exponent}"] = bf16(gaussian((3, 11)) * 10.0**exponent)
    signs = np.arange(13) % 2 << 15
    cases["bf16_subnormal"] = patterns(random.integers(0, 0x80, (3, 13)) | signs)
    cases["smallest_subnormal"] = patterns([[1, 0x8001, 0, 0x8000]])
    cases["subnormal_codes"] = bf16(
        np.sign(gaussian((6, 40))) * 2.0 ** random.uniform(-22, 0, (6, 40))
    )
    plain = gaussian((4, 10)) * 0.02
    for name, value in (("nan", np.nan), ("inf", np.inf), ("minus_inf", -np.inf)):
        broken = plain.copy()
        broken[1, 3] = value
        cases[name] = bf16(broken)
    both = plain.copy()
    both[1, 3], both[2, 5] = np.inf, np.nan
    cases["nan_and_inf"] = bf16(both)
    negative_nan = bf16(plain)
    negative_nan.view(np.uint16)[0, 2] = 0xFFC1
    cases["negative_nan"] = negative_nan
    huge = bf16(plain)
    huge.view(np.uint16)[2, 7] = 0xFF7F
    cases["huge"] = huge
    cases["all_equal"] = bf16(np.full((5, 9), -0.3))
    cases["all_224"] = bf16(np.full((2, 9), 224.0 / 1024))
    # Row m: an amax with significand m above elements of every size. Each row is another scale.
    significands = bf16(gaussian((128, 9)) * 0.25)
    significands[:, 4] = patterns((0x3F80 | np.arange(128)).astype(np.uint16))
    cases["amax_significands"] = significands
    # One element of the tile for each significand, all below the amax. These two amax significands
    # tell every pair of operation orders apart that any of the 128 does; division by s and
    # multiplication by fl32(1/s) give the same codes for all BF16 where s = amax * fl32(1/448).
    for significand in (68, 10):
        below = (0x3E80 | np.arange(128)).astype(np.uint16)
        amax = np.full(2, 0x3F80 | significand, np.uint16)
        tile = np.concatenate([below, amax]).reshape(2, 65)
        cases[f"significands_{significand}"] = patterns(tile)
    ragged = gaussian((129, 130)) * 0.02
    ragged[128, 129] = 0.5  # above every other element: visible where a recipe pads with it
    ragged[5, 7] = -0.0
    cases["ragged"] = bf16(ragged)
    return cases


def matrix_lines(bits, digits):
    return ["".join(f"{int(v):0{digits}x}" for v in row) for row in bits]


def make_files():
    files = {}
    cases = make_inputs()
    lines = list(HEADER)
    for name, matrix in cases.items():
        lines.append(f"case {name} {matrix.shape[0]} {matrix.shape[1]}")
        lines += matrix_lines(matrix.view(np.uint16), 4)
    files["recipes/inputs.hex"] = lines
    for recipe, (_, _, devices, _) in RECIPES.items():
        for device in devices:
            name = recipe + ("-cpu" if device == "cpu" else "")
            lines = [*HEADER, f"recipe {name}"]
            for case, matrix in cases.items():
                scales, codes = quantize(matrix, recipe, device)
                lines.append(f"case {case} {len(scales)}")
                lines.append("".join(f"{int(v):08x}" for v in scales))
                lines += matrix_lines(codes, 2)
            files[f"recipes/{name}.hex"] = lines
    every = np.arange(65536, dtype=np.uint16).view(BF16).astype(F32)
    files["e4m3/bf16_all.hex"] = HEADER + matrix_lines(cast(every).reshape(1024, 64), 2)
    return files


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the files, write nothing"
    )
    arguments = parser.parse_args()
    differing = []
    with np.errstate(all="ignore"):
        files = make_files()
    for name, lines in files.items():
        path = FOLDER / name
        text = "\n".join(lines) + "\n"
        if arguments.check:
            found = path.read_text().splitlines() if path.exists() else []
            # The header names versions; the numbers are what must agree.
            if found[len(HEADER) :] != lines[len(HEADER) :]:
                differing.append(name)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    for name in differing:
        print(
            f"{name}: differs from what {VERSIONS} give; run without --check and look at the diff",
            file=sys.stderr,
        )
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
