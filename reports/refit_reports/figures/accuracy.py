# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of every quantized tensor against its layer."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from refit_reports.figures.drawing import MARKERS, Drawing, case_label, title
from refit_reports.record import Record

_NO_LAYER = -1


def layer_of(name: str) -> int:
    """"model.layers.12.mlp.up_proj.weight" -> 12; -1 for tensors outside the layers."""
    match = re.search(r"\blayers\.(\d+)\.", name)
    return int(match.group(1)) if match else _NO_LAYER


def numbers(record: Record, number: int) -> pd.DataFrame:
    """One row a quantized tensor of one case."""
    table = record.tensors[record.tensors["case"] == number]
    if table.empty:
        return table
    table = table[table["sqnr_db"].notna()]
    columns = ["case", "name", "role", "recipe", "sqnr_db", "expected_sqnr_db",
               "max_error_over_bound", "saturated", "flushed"]
    table = table[columns].reset_index(drop=True)
    table.insert(3, "layer", [layer_of(name) for name in table["name"]])
    return table


def draw(record: Record) -> list[Drawing]:
    drawings = []
    for number in record.cases.index:
        table = numbers(record, number)
        if not table.empty:
            drawings.append(_draw_case(record, number, table))
    return drawings


def _draw_case(record: Record, number: int, table: pd.DataFrame) -> Drawing:
    layers = table["layer"].nunique()
    # Wide enough that the roles of a layer stay apart in a model of many layers.
    figure = Figure(figsize=(min(max(11.0, 0.5 * layers), 30.0), 4.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    roles = list(dict.fromkeys(table["role"]))
    # Roles of one layer stand beside each other, for equal values would hide one another.
    shifts = np.linspace(-0.3, 0.3, len(roles)) if len(roles) > 1 else [0.0]
    for position, (role, shift) in enumerate(zip(roles, shifts)):
        rows = table[table["role"] == role].sort_values("layer")
        x = rows["layer"] + shift
        style = {
            "ls": "", "marker": MARKERS[position % len(MARKERS)], "markersize": 5.5,
            "markeredgecolor": "black", "markeredgewidth": 0.7,
            "markerfacecolor": "white" if position % 2 else "#707070", "label": role,
        }
        # An exact tensor has an infinite ratio, which no axis holds; it is in the numbers.
        measured, expected = (
            rows[column].replace([np.inf, -np.inf], np.nan)
            for column in ("sqnr_db", "expected_sqnr_db")
        )
        left.hlines(expected, x - 0.06, x + 0.06, color="black", lw=1.6, zorder=3)
        left.plot(x, measured, **style)
        right.plot(x, rows["max_error_over_bound"], **style)
    middle = table["expected_sqnr_db"].median()
    if np.isfinite(middle):
        left.axhline(middle, color="black", ls="--", lw=1.0)
    left.set_ylabel("signal to quantization noise [dB]")
    right.axhline(1.0, color="black", ls="--", lw=1.0)
    right.set_ylabel("largest error / legal bound [1]")
    right.set_ylim(0, max(1.1, 1.05 * float(table["max_error_over_bound"].max(skipna=True))))
    for axes in (left, right):
        axes.set_xlabel("layer" + (" (-1: outside the layers)" if _NO_LAYER in set(table["layer"])
                                   else ""))
        axes.set_xlim(table["layer"].min() - 0.6, table["layer"].max() + 0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(axis="y", color="#d0d0d0", lw=0.5)
        axes.set_axisbelow(True)
        axes.ticklabel_format(axis="y", useOffset=False)
    left.set_title("measured, and expected (bars; dashed: their median)", fontsize=9)
    right.set_title("dashed: the bound", fontsize=9)
    handles, labels = left.get_legend_handles_labels()
    right.legend(handles, labels, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.suptitle(
        title(record, f"Accuracy of each tensor: {case_label(record, number, 200)}"), fontsize=11
    )
    caption = (
        f"Case {number:03d}. Left: signal to quantization noise of each tensor; the short bar is "
        "what an independent double-precision quantization of the same data gives. Right: the "
        "largest error of an element over the largest that the format allows; above 1 is an error."
    )
    return Drawing(f"accuracy_{number:03d}", caption, figure, table)
