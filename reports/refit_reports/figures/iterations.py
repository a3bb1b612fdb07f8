# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Every measured iteration of every case; nothing is averaged away."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from refit_reports.figures.drawing import Drawing, case_label, time_scale, title
from refit_reports.record import Record, wall_by_iteration


_QUANTILES = {"p50_s": {"lw": 2.4, "ls": "-"}, "p95_s": {"lw": 1.3, "ls": "--"},
              "p99_s": {"lw": 1.3, "ls": ":"}}
_QUANTILE_NAMES = {"p50_s": "median (p50)", "p95_s": "p95", "p99_s": "p99"}


def numbers(record: Record) -> pd.DataFrame:
    """One row a case and iteration: wall_s, the maximum over ranks; beside it the case's min_s, p50_s, p95_s
    and p99_s over all iterations (linear interpolation between order statistics)."""
    rows = []
    for number in record.cases.index:
        wall = wall_by_iteration(record.samples[number])
        if not wall.size:
            continue
        p50, p95, p99 = np.quantile(wall, [0.5, 0.95, 0.99])
        rows += [
            {"case": number, "label": record.cases.loc[number, "case"], "iteration": i, "wall_s": value,
             "min_s": wall.min(), "p50_s": p50, "p95_s": p95, "p99_s": p99}
            for i, value in enumerate(wall)
        ]
    return pd.DataFrame(rows)


def draw(record: Record) -> list[Drawing]:
    table = numbers(record)
    if table.empty:
        return []
    cases = list(dict.fromkeys(table["case"]))
    factor, unit = time_scale(float(table["wall_s"].max()))
    figure = Figure(figsize=(10, 1.7 + 0.6 * len(cases)), layout="constrained")
    axes = figure.add_subplot()
    for position, number in enumerate(cases):
        rows = table[table["case"] == number]
        values = rows["wall_s"].to_numpy() * factor
        summary = rows.iloc[0]
        # The first iteration lies highest, so that a drift shows as a slant.
        heights = position + np.linspace(-0.26, 0.26, len(values)) if len(values) > 1 else position
        axes.hlines(position, values.min(), values.max(), color="#808080", lw=1.2)
        for column, style in _QUANTILES.items():
            axes.vlines(summary[column] * factor, position - 0.38, position + 0.38, color="black", **style)
        heights = np.broadcast_to(heights, values.shape)
        axes.plot(values[1:], heights[1:], ls="", marker="o", markerfacecolor="white",
                  markeredgecolor="black", markersize=6)
        # The first one often pays for what the later ones find done: it stands apart.
        axes.plot(values[:1], heights[:1], ls="", marker="s", markerfacecolor="#505050",
                  markeredgecolor="black", markersize=6.5)
    axes.set_yticks(range(len(cases)), [case_label(record, n) for n in cases], fontsize=9)
    axes.set_ylim(len(cases) - 0.5, -0.5)
    axes.set_xlim(0, table["wall_s"].max() * factor * 1.05)
    axes.set_xlabel(f"wall time of one refit [{unit}], slowest rank")
    axes.grid(axis="x", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(title(record, "Every measured iteration"), fontsize=11)
    axes.legend(
        handles=[
            Line2D([], [], marker="o", ls="", markerfacecolor="white", markeredgecolor="black",
                   label="iteration"),
            Line2D([], [], marker="s", ls="", markerfacecolor="#505050", markeredgecolor="black",
                   label="the first one"),
            *(Line2D([], [], color="black", label=_QUANTILE_NAMES[column], **style)
              for column, style in _QUANTILES.items()),
            Line2D([], [], color="#808080", lw=1.2, label="minimum\nto maximum"),
        ],
        loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, handlelength=2.8,
    )
    caption = (
        "Each mark is one measured iteration (warm-up excluded), no outlier removed; the square is the first. "
        "The upright lines are quantiles over all of them, the first included: of a few iterations p95 and "
        "p99 lie between the two slowest."
    )
    return [Drawing("iterations", caption, figure, table)]
