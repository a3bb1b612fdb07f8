# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Golden vectors of the recipes, computed with numpy and ml_dtypes from the written formulas.

Independent of the C++ code: each recipe is a function that follows the order of operations of the
recipe table, on whole tiles, in numpy float32; the cast to E4M3FN and BF16 is that of ml_dtypes.

    python -m pip install numpy ml_dtypes
    python tests/golden/generate_recipes.py            # rewrites the files below tests/golden
    python tests/golden/generate_recipes.py --check    # compares instead, exit 1 on a difference

Files (all numbers are hexadecimal bit patterns, so no decimal conversion stands between):
    recipes/inputs.hex    the BF16 matrices, shared by all recipes
    recipes/NAME.hex      scales (F32, BF16 or E8M0: the line "recipe NAME DTYPE" says which) and
                          codes (E4M3FN) of recipe NAME for each of them
    e4m3/bf16_all.hex     the saturating cast of all 65,536 BF16 patterns
and the table of special values in kernels/README.md, between its two marks.
NaN is written as 0x7f in codes and as 0x7fc00000, 0x7fc0 or 0xff in scales. A clamp that drops NaN
gives -448, code 0xfe, before the cast.
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
    s, _ = slime_offline(x, amax, device)
    return s, by_a_scalar(x, s, device)


def modelopt_scalar(x, amax, device):
    s, _ = modelopt(x, amax, device)
    return s, by_a_scalar(x, s, device)


def by_a_scalar(x, s, device):
    """BF16 by an F32 scalar tensor, as PyTorch divides: CUDA rounds the scalar to BF16 first."""
    divisor = s.astype(BF16).astype(F32) if device == "cuda" else s
    return (x / divisor).astype(BF16).astype(F32)


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


def llm_compressor(x, amax, _):
    """PyTorch's BF16 tensors: each operation in F32, its result in BF16."""
    s = (amax / F32(448)).astype(BF16)
    if s == 0:
        s = ml_dtypes.finfo(BF16).eps
    quotient = (x / F32(s)).astype(BF16) + BF16(0)
    return F32(s), quotient.astype(F32)


def llm_compressor_mx(x, amax, _):
    # From 1.75 * 2^k on, the exponent is one more: amax ends below 448. BF16 has no 2^128.
    mantissa, exponent = np.frexp(np.float64(amax))
    if not np.isfinite(amax) or amax >= 1.75 * 2.0**127:
        return F32(np.nan), np.full(x.shape, np.nan, F32)
    exponent = -127 if amax == 0 else max(int(exponent) + int(mantissa >= 0.875) - 9, -127)
    s = F32(2.0**exponent)
    return s, ((x / s).astype(BF16) + BF16(0)).astype(F32)


def transformers(x, amax, _):
    f = (F32(1) / amax) * F32(448) if amax > 0 else F32(1)
    return F32(1) / f, x * f


def triton(x, amax, _):
    # max.f32 and min.f32 return the operand that is a number, as C's fmax and fmin do.
    amax = np.fmax(np.fmax.reduce(np.abs(x), axis=None), F32(1e-10))
    s = amax / F32(448)
    return s, np.fmin(np.fmax(x * (F32(1) / s), F32(-448)), F32(448))


def ocp_mx(x, amax, _):
    if np.isnan(amax):
        return F32(np.nan), np.full(x.shape, np.nan, F32)
    # amax = mantissa * 2^exponent with the mantissa in [0.5, 1): floor(log2) is one less.
    exponent = 127 if np.isposinf(amax) else int(np.frexp(np.float64(amax))[1]) - 1 - 8
    s = F32(2.0 ** (-127 if amax == 0 else min(max(exponent, -127), 127)))
    return s, x / s


def modelopt_mx(x, amax, _):
    exponent = np.ceil(np.log2(over_448(amax, "cpu")))
    byte = 0 if np.isnan(exponent) else int(np.clip(exponent, -127, 127)) + 127
    return F32(2.0 ** (byte - 127)), x * F32(2.0 ** (127 - byte))


def nan_to_num(matrix):
    """NaN -> 0, Inf -> 448 with its sign."""
    return np.nan_to_num(matrix, nan=0.0, posinf=448.0, neginf=-448.0)


BLOCK, ROW, TENSOR, GROUP = "block", "row", "tensor", "group of 32"
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
    "modelopt-fp8": (modelopt_scalar, TENSOR, TWINS, False),
    "llm-compressor-channel": (llm_compressor, ROW, ("cuda",), False),
    "llm-compressor-block": (llm_compressor, BLOCK, ("cuda",), False),
    "llm-compressor-tensor": (llm_compressor, TENSOR, ("cuda",), False),
    "llm-compressor-mxfp8": (llm_compressor_mx, GROUP, ("cuda",), False),
    "transformers-blockwise": (transformers, BLOCK, ("cuda",), False),
    "nemo-rl-2037-linear": (nemo_linear, BLOCK, ("cuda",), True),
    "nemo-rl-2037-pow2": (nemo_pow2, BLOCK, ("cuda",), True),
    "areal-triton": (triton, BLOCK, ("cuda",), False),
    "slime-online": (triton, BLOCK, ("cuda",), False),
    "verl-triton": (triton, BLOCK, ("cuda",), False),
    "areal-megatron": (triton, BLOCK, ("cuda",), False),
    "mxfp8": (ocp_mx, GROUP, ("cuda",), False),
    "mxfp8-ceil": (modelopt_mx, GROUP, ("cuda",), False),
}
REPLACES_NONFINITE = ("nemo-rl-2037-linear", "nemo-rl-2037-pow2")
SCALE_DTYPES = {  # else f32
    "areal-megatron": "bf16",
    "llm-compressor-channel": "bf16",
    "llm-compressor-block": "bf16",
    "llm-compressor-tensor": "bf16",
    "llm-compressor-mxfp8": "e8m0",
    "mxfp8": "e8m0",
    "mxfp8-ceil": "e8m0",
}
# Hexadecimal digits of a scale.
DIGITS = {"f32": 8, "bf16": 4, "e8m0": 2}


def names():
    """Every recipe name -> (row of RECIPES, device)."""
    return {
        recipe + ("-cpu" if device == "cpu" else ""): (recipe, device)
        for recipe, (_, _, devices, _) in RECIPES.items()
        for device in devices
    }


def stored(scales, recipe):
    """F32 scales as the integers that the recipe's scale tensor holds."""
    dtype = SCALE_DTYPES.get(recipe, "f32")
    if dtype == "f32":
        return np.where(np.isnan(scales), 0x7FC00000, scales.view(np.uint32))
    if dtype == "bf16":
        return np.where(np.isnan(scales), 0x7FC0, scales.astype(BF16).view(np.uint16))
    # A power of two 2^k is 0.5 * 2^(k + 1).
    exponents = np.frexp(np.where(np.isnan(scales), 1, scales).astype(np.float64))[1] - 1
    return np.where(np.isnan(scales), 255, exponents + 127)


def quantize(matrix, recipe, device):
    """matrix: BF16 [rows, cols] -> scales as stored, flat over the tile grid, and codes uint8
    [rows, cols]."""
    function, tiles, _, pads = RECIPES[recipe]
    rows, cols = matrix.shape
    extents = {BLOCK: (128, 128), ROW: (1, cols), TENSOR: (rows, cols), GROUP: (1, 32)}
    tile_rows, tile_cols = extents[tiles]
    x = matrix.astype(F32)
    if recipe in REPLACES_NONFINITE:
        x = nan_to_num(x)
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
    return stored(np.array(scales, F32), recipe), codes


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
    # Both sides of 448 * 2^k, where a power-of-two scale steps, and of 2^k, where log2 steps.
    for exponent in (-118, -20, 110):
        for value in (446.0, 448.0, 450.0, 510.0, 512.0, 516.0):
            tile = bf16(np.sign(gaussian((2, 9))) * random.uniform(0, 1, (2, 9)) * value)
            tile[1, 3] = BF16(value)
            scaled = tile.astype(np.float64) * 2.0**exponent
            cases[f"amax_{int(value)}_2e{exponent}"] = bf16(scaled)
    cases["one"] = bf16([[-0.7]])
    for rows, cols in ((1, 127), (1, 129), (129, 1), (2, 32), (2, 33)):
        cases[f"shape_{rows}_{cols}"] = bf16(gaussian((rows, cols)) * 0.02)
    cases["all_nan"] = patterns(np.full((2, 5), 0x7FC0))
    cases["minus_zero"] = patterns(np.where(np.arange(18).reshape(2, 9) % 3, 0x3C12, 0x8000))
    # Four tiles, one with NaN and one with Inf: the other two must not notice.
    tiles = gaussian((129, 130)) * 0.02
    tiles[7, 9], tiles[20, 128] = np.nan, -np.inf
    cases["nan_and_inf_of_four_tiles"] = bf16(tiles)
    for name, value in (("nan", np.nan), ("inf", -np.inf)):
        last = gaussian((2, 130)) * 0.02
        last[-1, -1] = value
        cases[f"last_{name}"] = bf16(last)
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
    for name, (recipe, device) in names().items():
        dtype = SCALE_DTYPES.get(recipe, "f32")
        lines = [*HEADER, f"recipe {name} {dtype}"]
        for case, matrix in cases.items():
            scales, codes = quantize(matrix, recipe, device)
            lines.append(f"case {case} {len(scales)}")
            lines.append("".join(f"{int(v):0{DIGITS[dtype]}x}" for v in scales))
            lines += matrix_lines(codes, 2)
        files[f"recipes/{name}.hex"] = lines
    every = np.arange(65536, dtype=np.uint16).view(BF16).astype(F32)
    files["e4m3/bf16_all.hex"] = HEADER + matrix_lines(cast(every).reshape(1024, 64), 2)
    return files


README = FOLDER.parents[1] / "kernels" / "README.md"
MARKS = ("<!-- special values: begin -->", "<!-- special values: end -->")
COLUMNS = ("zero tile", "amax 1e-30", "amax 1e-37", "one Inf", "one NaN", "-0", "ragged edge")


def scale_text(bits, recipe):
    dtype = SCALE_DTYPES.get(recipe, "f32")
    if dtype == "e8m0":
        return "NaN" if bits == 255 else f"2^{int(bits) - 127}"
    wide = int(bits) << (16 if dtype == "bf16" else 0)
    return f"{np.uint32(wide).view(F32):.3g}".replace("nan", "NaN").replace("inf", "Inf")


def special_cells(recipe, device):
    """What a tile of 0.5 and -0.25 becomes with each special value, by the formulas."""

    def run(values):
        scales, codes = quantize(bf16(values), recipe, device)
        return scale_text(scales[-1], recipe), [f"{int(code):02x}" for code in codes[-1]]

    cells = []
    scale, codes = run([[0.0, 0.0]])
    cells.append(f"{scale}; {codes[0]}")
    for exponent in (-30, -37):
        scale, codes = run([[10.0**exponent, 0.0, -(10.0**exponent)]])
        cells.append(f"{scale}; {' '.join(codes)}")
    for special in (np.inf, np.nan):
        scale, codes = run([[0.5, -0.25, special]])
        cells.append(f"{scale}; {' '.join(codes)}")
    cells.append(run([[0.5, -0.0]])[1][1])
    # Every tile of this matrix is ragged; the first row and the first columns are far below the
    # last element.
    edge = np.full((129, 161), 0.001)
    edge[-1, -1] = 100.0
    scales, _ = quantize(bf16(edge), recipe, device)
    alone, _ = quantize(bf16(edge[:1, :]), recipe, device)
    tiles = RECIPES[recipe][1]
    if tiles == BLOCK:
        # Tile (0, 1): 128 rows, 33 columns, without the last element of the matrix.
        cells.append("own elements" if scales[1] == alone[1] else "and `W[-1,-1]`")
    elif tiles == GROUP:
        # The last group of the first row has one column.
        cells.append("own elements" if scales[5] == alone[5] else "and `W[-1,-1]`")
    else:
        cells.append("no edge")
    return cells


def special_table():
    rows = {}
    for name, (recipe, device) in names().items():
        rows.setdefault(tuple(special_cells(recipe, device)), []).append(name)
    lines = ["| recipe | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for cells, same in rows.items():
        labels = [f"`{n}`" for n in same if not (n.endswith("-cpu") and n[:-4] in same)]
        lines.append(f"| {', '.join(labels)} | " + " | ".join(cells) + " |")
    return lines


def with_table(text):
    begin, end = (text.index(mark) for mark in MARKS)
    table = "\n".join(special_table())
    return text[: begin + len(MARKS[0])] + "\n" + table + "\n" + text[end:]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--check", action="store_true", help="compare with the files, write nothing"
    )
    arguments = parser.parse_args()
    differing = []
    with np.errstate(all="ignore"):
        files = make_files()
        readme = README.read_text()
        wanted = with_table(readme)
    if arguments.check and readme != wanted:
        differing.append("../../kernels/README.md")
    if not arguments.check:
        README.write_text(wanted)
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
