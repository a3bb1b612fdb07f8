# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Accuracy of every quantized tensor against its layer: noise, bound, output, and what was cut off or lost."""

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
    """One row a quantized tensor of one case. The shares are of its elements; columns that an older record
    lacks are left out."""
    table = record.tensors[record.tensors["case"] == number]
    if table.empty:
        return table
    table = table[table["sqnr_db"].notna()]
    columns = ["case", "name", "role", "recipe", "sqnr_db", "expected_sqnr_db",
               "max_error_over_bound", "saturated", "flushed"]
    optional = ["exact", "subnormal", "relative_error", "cosine", "output_snr_db",
                "expected_output_snr_db"]
    elements = table["rows"] * table["cols"]
    shares = {f"{name}_share": table[name] / elements
              for name in ("saturated", "flushed", "subnormal") if name in table}
    table = table[columns + [name for name in optional if name in table]].assign(**shares)
    table = table.reset_index(drop=True)
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
    with_output = "output_snr_db" in table and table["output_snr_db"].notna().any()
    columns = 3 if with_output else 2
    layers = table["layer"].nunique()
    # Wide enough that the roles of a layer stay apart in a model of many layers.
    width = min(max(11.0, 0.5 * layers), 30.0) * columns / 2
    figure = Figure(figsize=(width, 8.2), layout="constrained")
    grid = figure.subplots(2, columns)
    noise, bound, saturated, flushed = grid[0, 0], grid[0, 1], grid[1, 0], grid[1, 1]

    roles = list(dict.fromkeys(table["role"]))
    _against_expected(noise, table, roles, "sqnr_db", "expected_sqnr_db")
    noise.set_ylabel("signal to quantization noise [dB]")
    noise.set_title("of the weights: measured, and expected (bars; dashed: their median)", fontsize=9)
    _points(bound, table, roles, "max_error_over_bound")
    bound.axhline(1.0, color="black", ls="--", lw=1.0)
    bound.set_ylabel("largest error / legal bound [1]")
    bound.set_ylim(0, max(1.1, 1.05 * _largest(table["max_error_over_bound"])))
    bound.set_title("dashed: the bound", fontsize=9)
    for axes, name in ((saturated, "saturated"), (flushed, "flushed")):
        _points(axes, table, roles, f"{name}_share")
        axes.set_ylabel(f"{name} elements, share [1]")
        axes.set_ylim(0, 1.2 * _largest(table[f"{name}_share"]) or 1.0)
        axes.set_title(f"{int(table[name].sum())} elements {name} in all tensors", fontsize=9)
    shown = [noise, bound, saturated, flushed]
    beside = bound
    if with_output:
        output, beside = grid[0, 2], grid[0, 2]
        _against_expected(output, table, roles, "output_snr_db", "expected_output_snr_db")
        output.set_ylabel("signal to noise of the layer's output [dB]")
        output.set_title("of the output y: measured, and expected", fontsize=9)
        subnormal = grid[1, 2]
        _points(subnormal, table, roles, "subnormal_share")
        subnormal.set_ylabel("subnormal codes, share [1]")
        subnormal.set_ylim(0, 1.2 * _largest(table["subnormal_share"]) or 1.0)
        subnormal.set_title(f"{int(table['subnormal'].sum())} subnormal codes in all tensors", fontsize=9)
        shown += [output, subnormal]
    for axes in shown:
        _layer_axis(axes, table)
    handles, labels = noise.get_legend_handles_labels()
    beside.legend(handles, labels, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
    figure.suptitle(
        title(record, f"Accuracy of each tensor: {case_label(record, number, 200)}"), fontsize=11
    )
    caption = (
        f"Case {number:03d}. Above: signal to quantization noise of each tensor, where the short bar is what an "
        "independent double-precision quantization of the same data gives; and the largest error of an "
        "element over the largest that the format allows, above 1 is an error. "
        + ("The noise of the layer's output has that of quantized activations too; their few loud channels "
           "decide it, so that tensors differ by decibels. " if with_output else "")
        + "Below: elements beyond the largest code (saturated) and elements that became zero (flushed)"
        + (", and subnormal codes" if with_output else "") + ", as shares of each tensor."
    )
    return Drawing(f"accuracy_{number:03d}", caption, figure, table)


def _largest(values: pd.Series) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.max()) if len(finite) else 0.0


def _points(axes, table: pd.DataFrame, roles: list[str], column: str) -> None:
    """One mark a tensor. Roles of one layer stand beside each other, for equal values would hide one another."""
    for position, role in enumerate(roles):
        rows = table[table["role"] == role].sort_values("layer")
        # An exact tensor has an infinite ratio, which no axis holds; it is in the numbers.
        values = rows[column].replace([np.inf, -np.inf], np.nan)
        axes.plot(
            rows["layer"] + _shift(position, len(roles)), values, ls="",
            marker=MARKERS[position % len(MARKERS)], markersize=5.5, markeredgecolor="black",
            markeredgewidth=0.7, markerfacecolor="white" if position % 2 else "#707070", label=role,
        )


def _against_expected(axes, table: pd.DataFrame, roles: list[str], measured: str, expected: str) -> None:
    _points(axes, table, roles, measured)
    for position, role in enumerate(roles):
        rows = table[table["role"] == role]
        x = rows["layer"] + _shift(position, len(roles))
        axes.hlines(rows[expected].replace([np.inf, -np.inf], np.nan), x - 0.06, x + 0.06,
                    color="black", lw=1.6, zorder=3)
    middle = table[expected].median()
    if np.isfinite(middle):
        axes.axhline(middle, color="black", ls="--", lw=1.0)


def _shift(position: int, roles: int) -> float:
    return -0.3 + 0.6 * position / (roles - 1) if roles > 1 else 0.0


def _layer_axis(axes, table: pd.DataFrame) -> None:
    axes.set_xlabel("layer" + (" (-1: outside the layers)" if _NO_LAYER in set(table["layer"]) else ""))
    axes.set_xlim(table["layer"].min() - 0.6, table["layer"].max() + 0.6)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(axis="y", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    axes.ticklabel_format(axis="y", useOffset=False)
