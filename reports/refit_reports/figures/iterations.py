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


def numbers(record: Record) -> pd.DataFrame:
    """One row a case and iteration: wall_s, the maximum over ranks."""
    rows = [
        {"case": number, "label": record.cases.loc[number, "case"], "iteration": i, "wall_s": value}
        for number in record.cases.index
        for i, value in enumerate(wall_by_iteration(record.samples[number]))
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
        values = table.loc[table["case"] == number, "wall_s"].to_numpy() * factor
        # The first iteration lies highest, so that a drift shows as a slant.
        heights = position + np.linspace(-0.26, 0.26, len(values)) if len(values) > 1 else position
        axes.hlines(position, values.min(), values.max(), color="#808080", lw=1.2)
        axes.vlines(np.median(values), position - 0.36, position + 0.36, color="black", lw=2.2)
        axes.plot(values, np.broadcast_to(heights, values.shape), ls="", marker="o",
                  markerfacecolor="white", markeredgecolor="black", markersize=6)
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
                   label="iteration\n(first one highest)"),
            Line2D([], [], color="black", lw=2.2, label="median"),
            Line2D([], [], color="#808080", lw=1.2, label="minimum\nto maximum"),
        ],
        loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5,
    )
    caption = "Each circle is one measured iteration (warm-up excluded), no outlier removed."
    return [Drawing("iterations", caption, figure, table)]
