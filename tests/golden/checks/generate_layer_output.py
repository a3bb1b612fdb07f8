# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes layer_output.txt with ml_dtypes (pip) and numpy: activations, and sums over outputs of a small weight.

activation SEED TENSOR TOKEN CHANNEL VALUE
codes ROW HEX           : what was loaded, E4M3 of w / 2^-10, two digits a column
case GROUP POWER COL COLS Y2 ERROR2 EXPECTED2 : activations quantized per token in groups of GROUP columns
                          (0: all of the part), with scales that are powers of two where POWER is 1; part of
                          all rows and COLS columns from COL on; expected: weights quantized in tiles of all
                          rows and 128 columns with scale amax / 448.
Numbers are float.hex(). The weight is w[r, c] = ((131 r + 71 c) mod 251 - 125) / 1024, [3, 300].
"""

import pathlib

import ml_dtypes
import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent
MASK = (1 << 64) - 1
TENSOR = "model.layers.0.mlp.down_proj.weight"
SEED = 7
ROWS, COLS, TOKENS = 3, 300, 16


def mix1(x: int) -> int:
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def mix2(a: int, b: int) -> int:
    return mix1(mix1(a) ^ b)


def key_of(seed: int, name: str) -> int:
    value = 0xCBF29CE484222325
    for byte in name.encode():
        value = ((value ^ byte) * 0x100000001B3) & MASK
    return mix2(seed, value)


def activation(key: int, token: int, channel: int) -> float:
    column = mix2(key, channel)
    words = [mix2(column, 3 * token + draw) for draw in range(3)]
    total = sum((word >> (16 * part)) & 0xFFFF for word in words for part in range(4))
    normal = (2 * total - 12 * 65535) / 131072.0
    times = 20.0 if column % 256 == 0 else 1.0
    return float(np.float64(times * normal).astype(ml_dtypes.bfloat16))


def e4m3(values: np.ndarray) -> np.ndarray:
    return np.clip(values, -448.0, 448.0).astype(ml_dtypes.float8_e4m3fn)


def quantized(values: np.ndarray, power_of_two: bool) -> np.ndarray:
    """values : [count, tokens]; one scale a token."""
    scale = np.abs(values).max(axis=0) / 448.0
    if power_of_two:
        scale = 2.0 ** np.ceil(np.log2(scale))
    return e4m3(values / scale).astype(np.float64) * scale


def main() -> None:
    key = key_of(SEED, TENSOR)
    rows, cols = np.meshgrid(np.arange(ROWS), np.arange(COLS), indexing="ij")
    weight = ((131 * rows + 71 * cols) % 251 - 125) / 1024.0
    codes = e4m3(weight * 1024.0)
    loaded = codes.astype(np.float64) / 1024.0
    x = np.array([[activation(key, t, c) for t in range(TOKENS)] for c in range(COLS)])
    lines = [f"# ml_dtypes {ml_dtypes.__version__}, numpy {np.__version__}; made by generate_layer_output.py"]
    for token, channel in ((0, 0), (15, 299), (3, 128), (7, 77)):
        lines.append(f"activation {SEED} {TENSOR} {token} {channel} {x[channel, token].hex()}")
    # Two channels of outliers.
    other = key_of(0, "lm_head.weight")
    for channel in [c for c in range(5000) if mix2(other, c) % 256 == 0][:2]:
        lines.append(f"activation 0 lm_head.weight 5 {channel} {activation(other, 5, channel).hex()}")
    for row in range(ROWS):
        lines.append(f"codes {row} {codes[row].tobytes().hex()}")
    for group, power, first, count in ((128, 0, 0, 300), (0, 0, 0, 300), (32, 1, 0, 300), (128, 0, 128, 172),
                                       (0, 0, 128, 172)):
        part = slice(first, first + count)
        step = group or count
        xq = np.concatenate([quantized(x[c:min(c + step, first + count)], bool(power))
                             for c in range(first, first + count, step)])
        expected = np.empty_like(weight)
        for c in range(0, COLS, 128):
            tile = weight[:, c:c + 128]
            scale = np.abs(tile).max() / 448.0
            expected[:, c:c + 128] = e4m3(tile / scale).astype(np.float64) * scale
        y = weight[:, part] @ x[part]
        sums = [np.sum(y**2), np.sum((loaded[:, part] @ xq - y) ** 2), np.sum((expected[:, part] @ xq - y) ** 2)]
        lines.append(f"case {group} {power} {first} {count} " + " ".join(float(s).hex() for s in sums))
    (FOLDER / "layer_output.txt").write_text("\n".join(lines) + "\n", encoding="ascii")


if __name__ == "__main__":
    main()
