# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""One metric over the nights, with its change points and the commits at which they appeared."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from refit_reports.figures.drawing import Drawing, wrapped


def draw(name: str, file_name: str, axis: str, table: pd.DataFrame, purpose: str) -> Drawing:
    """`table`: one row a record, ascending: created_utc, value, low, high, level, change, commit, machine.

    low and high: quarters of the night's iterations, NaN where there are none. level: mean of the segment
    between change points. change: true where a segment begins that is not the first.
    """
    times = pd.to_datetime(table["created_utc"], utc=True).dt.tz_localize(None)
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    axes = figure.add_subplot()
    spans = table["low"].notna()
    if spans.any():
        axes.vlines(times[spans], table.loc[spans, "low"], table.loc[spans, "high"], color="#a0a0a0",
                    lw=1.2, label="middle half of the night's iterations")
    # Another machine has another marker: its level is no change of the program.
    machines = list(dict.fromkeys(table["machine"]))
    for machine, marker in zip(machines, "os^vDPX" * (1 + len(machines) // 7)):
        rows = table["machine"] == machine
        label = "night" if len(machines) == 1 else f"night on {machine}"
        axes.plot(times[rows], table.loc[rows, "value"], ls="", marker=marker, markersize=5,
                  markerfacecolor="white", markeredgecolor="black", label=label, zorder=3)
    labelled = False
    for rows in _segments(table):
        axes.plot(times.iloc[rows], table["level"].iloc[rows], color="black", lw=2.0,
                  label=None if labelled else "mean between changes", zorder=2)
        labelled = True
    low, high = _limits(table)
    axes.set_ylim(low, high)
    for number, position in enumerate(np.flatnonzero(table["change"].to_numpy())):
        when = times.iloc[position]
        axes.axvline(when, color="black", lw=1.0, ls="--",
                     label="change point, with its commit" if number == 0 else None)
        before, after = table["level"].iloc[position - 1], table["level"].iloc[position]
        size = f"{after - before:+.3g} dB" if axis.endswith("[dB]") else f"{after / before - 1.0:+.1%}"
        # Above each other in turn, so that the labels of neighbouring changes do not overlap.
        height = 0.97 - 0.13 * (number % 3)
        right = position > 0.75 * len(table)
        axes.annotate(f"{size}\n{str(table['commit'].iloc[position])[:10]}", (when, height),
                      xycoords=("data", "axes fraction"), xytext=(-4 if right else 4, 0),
                      textcoords="offset points", ha="right" if right else "left", va="top", fontsize=8.5,
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0, "alpha": 0.85})
    locator = AutoDateLocator()
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    if len(times) == 1 or times.iloc[0] == times.iloc[-1]:
        axes.set_xlim(times.iloc[0] - pd.Timedelta(hours=12), times.iloc[0] + pd.Timedelta(hours=12))
    axes.set_xlabel("time of the run (UTC)")
    axes.set_ylabel(axis)
    axes.ticklabel_format(axis="y", useOffset=False)
    axes.grid(color="#e0e0e0", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(wrapped(purpose, 115) + "\n" + wrapped(name, 125), fontsize=9)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.17), ncol=4, fontsize=8.5, frameon=False)
    count = int(table["change"].sum())
    caption = f"{name}: {len(table)} records, {count} change points."
    return Drawing(file_name, caption, figure, table)


def _segments(table: pd.DataFrame) -> list[np.ndarray]:
    """Row numbers of each run of rows with one level."""
    numbers = (table["level"].diff().fillna(0.0) != 0.0).cumsum().to_numpy()
    return [np.flatnonzero(numbers == n) for n in dict.fromkeys(numbers)]


def _limits(table: pd.DataFrame) -> tuple[float, float]:
    """All values, and the bars as far as they do not squeeze the values into a line."""
    values = table["value"]
    low, high = float(values.min()), float(values.max())
    width = max(high - low, 0.02 * abs(high), 1e-12)
    bars = table[["low", "high"]].dropna()
    if len(bars):
        low = max(min(low, float(bars["low"].min())), low - width)
        high = min(max(high, float(bars["high"].max())), high + width)
    width = max(high - low, 0.02 * abs(high), 1e-12)
    # Room above for the labels of the changes.
    return low - 0.08 * width, high + 0.35 * width
