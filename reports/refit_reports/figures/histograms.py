# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How often each E4M3 code and each size of scale was loaded."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from refit_reports.figures.drawing import Drawing, case_label, title
from refit_reports.record import Record

_BAR = {"facecolor": "#b0b0b0", "edgecolor": "#303030"}
# Magnitude codes that the axis names: zero, the smallest normal number, powers of two, the largest.
_NAMED = [0x08, 0x18, 0x28, 0x38, 0x48, 0x58, 0x68, 0x7E]


def value_of(code: int) -> float:
    """Value of an E4M3FN code (OCP OFP8, section 5); NaN for 0x7f and 0xff."""
    exponent, mantissa = (code >> 3) & 0xF, code & 0x7
    if exponent == 0xF and mantissa == 0x7:
        return float("nan")
    magnitude = mantissa * 2.0**-9 if exponent == 0 else (8 + mantissa) * 2.0 ** (exponent - 10)
    return -magnitude if code & 0x80 else magnitude


def numbers(record: Record, number: int) -> pd.DataFrame:
    """One row a code and a bin of scales: case, kind ("code", "scale"), code, value, log2_low, log2_high,
    count. Scales: `value` is empty, log2 of the bin's edges is given."""
    found = record.histograms.get(number)
    columns = ["case", "kind", "code", "value", "log2_low", "log2_high", "count"]
    if found is None:
        return pd.DataFrame(columns=columns)
    nan = float("nan")
    rows = [(number, "code", code, value_of(code), nan, nan, int(count))
            for code, count in enumerate(found.codes)]
    rows += [(number, "scale", -1, nan, low, low + found.scale_bin_width, int(count))
             for low, count in zip(found.scale_log2, found.scales)]
    return pd.DataFrame(rows, columns=columns)


def draw(record: Record) -> list[Drawing]:
    drawings = []
    for number in record.cases.index:
        table = numbers(record, number)
        if not table.empty and table["count"].sum() > 0:
            drawings.append(_draw_case(record, number, table))
    return drawings


def _draw_case(record: Record, number: int, table: pd.DataFrame) -> Drawing:
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1.0])
    _draw_codes(left, table[table["kind"] == "code"])
    _draw_scales(right, table[table["kind"] == "scale"])
    figure.suptitle(
        title(record, f"Codes and scales as loaded: {case_label(record, number, 200)}"), fontsize=11
    )
    caption = (
        f"Case {number:03d}, all quantized tensors. Left: how often each code was loaded, in the order of its "
        "value; between the dotted lines lie zero and the subnormal numbers, at the ends the saturated ones. "
        "Right: how many scales lie in each eighth of an octave."
    )
    return Drawing(f"histograms_{number:03d}", caption, figure, table)


def _draw_codes(axes, table: pd.DataFrame) -> None:
    # Negative codes from the largest magnitude to zero, then positive ones: the order of the values.
    order = list(range(0xFF, 0x7F, -1)) + list(range(0x00, 0x80))
    counts = table.set_index("code")["count"].reindex(order).to_numpy()
    place = {code: i for i, code in enumerate(order)}
    axes.bar(range(256), np.maximum(counts, 0), width=1.0, linewidth=0.2, **_BAR)
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda count, _: f"{count:g}" if count < 1e5 else f"{count:.0e}")
    axes.set_ylim(0.5, max(10.0, 2.0 * counts.max()))
    named = [c | 0x80 for c in reversed(_NAMED)] + [0x00] + _NAMED
    axes.set_xticks([place[c] for c in named], [_short(value_of(c)) for c in named], fontsize=7.5,
                    rotation=60)
    for edge in (place[0x87] - 0.5, place[0x07] + 0.5):
        axes.axvline(edge, color="black", lw=0.9, ls=":")
    axes.set_xlim(-1, 256)
    axes.set_xlabel("value of the code, before the scale [1]")
    axes.set_ylabel("elements")
    axes.grid(axis="y", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    nan_codes = int(table.loc[table["code"].isin([0x7F, 0xFF]), "count"].sum())
    axes.set_title(f"{int(counts.sum())} codes, {nan_codes} of them NaN", fontsize=9)


def _draw_scales(axes, table: pd.DataFrame) -> None:
    width = table["log2_high"] - table["log2_low"]
    axes.bar(table["log2_low"], table["count"], width=width, align="edge", linewidth=0.6, **_BAR)
    axes.set_xlabel("log2 of the scale")
    axes.set_ylabel("scales")
    if len(table) and table["log2_high"].max() - table["log2_low"].min() < 1.0:
        middle = (table["log2_high"].max() + table["log2_low"].min()) / 2
        axes.set_xlim(middle - 0.6, middle + 0.6)
    axes.ticklabel_format(axis="x", useOffset=False)
    axes.grid(axis="y", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(f"{int(table['count'].sum())} scales", fontsize=9)


def _short(value: float) -> str:
    if value == 0 or abs(value) >= 1:
        return f"{value:g}"
    return f"{'-' if value < 0 else ''}1/{1 / abs(value):g}"
