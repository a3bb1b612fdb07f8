# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Writes e4m3fn_values.txt and e4m3fn_rounding.txt with ml_dtypes (pip) and numpy.

e4m3fn_values.txt   : "code value", hexadecimal code, float.hex() of its value or "nan".
e4m3fn_rounding.txt : "x value", both float.hex(): every midpoint between neighbouring values, and the
                      F32 numbers next to it on both sides, with what ml_dtypes casts them to.
"""

import pathlib

import ml_dtypes
import numpy as np

FOLDER = pathlib.Path(__file__).resolve().parent


def main() -> None:
    head = f"# ml_dtypes {ml_dtypes.__version__}, numpy {np.__version__}; made by generate_e4m3fn.py\n"
    values = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32)
    with open(FOLDER / "e4m3fn_values.txt", "w", encoding="ascii") as out:
        out.write(head)
        for code, value in enumerate(values):
            out.write(f"{code:02x} {'nan' if np.isnan(value) else float(value).hex()}\n")
    finite = np.unique(values[np.isfinite(values)])
    middles = ((finite[:-1] + finite[1:]) / np.float32(2)).astype(np.float32)
    far = np.float32(np.inf)
    points = np.concatenate([middles, np.nextafter(middles, far), np.nextafter(middles, -far)])
    rounded = points.astype(ml_dtypes.float8_e4m3fn).astype(np.float32)
    with open(FOLDER / "e4m3fn_rounding.txt", "w", encoding="ascii") as out:
        out.write(head)
        for x, value in zip(points, rounded):
            out.write(f"{float(x).hex()} {float(value).hex()}\n")


if __name__ == "__main__":
    main()
