# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Time of each stage by case, beside the wall time and its floor."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from refit_reports.figures.drawing import STAGE_STYLE, Drawing, case_label, time_scale, title
from refit_reports.record import STAGES, Record, slowest_rank, wall_by_iteration

_SMALLEST_LABELLED = 0.035  # of the axis; narrower segments have no room for a rank


def numbers(record: Record) -> pd.DataFrame:
    """One row a case and stage; median_s is over iterations of the maximum over ranks."""
    rows = []
    for number, row in record.cases.iterrows():
        samples = record.samples[number]
        wall = wall_by_iteration(samples)
        for stage in STAGES:
            values = wall_by_iteration(samples, stage)
            if not values.size:
                continue
            rows.append(
                {
                    "case": number,
                    "label": row["case"],
                    "scheme": row["scheme"],
                    "stage": stage,
                    "median_s": float(np.median(values)),
                    "slowest_rank": slowest_rank(samples[stage]),
                    "wall_median_s": float(np.median(wall)) if wall.size else np.nan,
                    "floor_wall_s": row["floor.wall_s"],
                }
            )
    return pd.DataFrame(rows)


def draw(record: Record) -> list[Drawing]:
    table = numbers(record)
    if table.empty:
        return []
    cases = list(dict.fromkeys(table["case"]))
    sums = table.groupby("case")["median_s"].sum()
    longest = np.nanmax([sums.max(), table["wall_median_s"].max(), table["floor_wall_s"].max()])
    factor, unit = time_scale(longest)

    figure = Figure(figsize=(10, 1.9 + 0.75 * len(cases)), layout="constrained")
    axes = figure.add_subplot()
    for position, number in enumerate(cases):
        left = 0.0
        rows = table[table["case"] == number]
        for _, row in rows.iterrows():
            width = row["median_s"] * factor
            axes.barh(position, width, left=left, height=0.6, **STAGE_STYLE[row["stage"]])
            if width > _SMALLEST_LABELLED * longest * factor:
                axes.text(
                    left + width / 2,
                    position,
                    f"r{row['slowest_rank']}",
                    ha="center",
                    va="center",
                    fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.0},
                    zorder=5,  # The floor may run through it.
                )
            left += width
        wall = rows["wall_median_s"].iloc[0] * factor
        floor = rows["floor_wall_s"].iloc[0] * factor
        # On the lower edge, where it hides no label.
        axes.plot([wall], [position + 0.3], marker="D", markersize=8, color="black", zorder=4)
        axes.plot([floor] * 2, [position - 0.42, position + 0.42], color="black", lw=2.5, zorder=4)
    axes.set_yticks(range(len(cases)), [case_label(record, n) for n in cases], fontsize=9)
    axes.set_ylim(len(cases) - 0.45, -0.55)
    axes.set_xlim(0, longest * factor * 1.04)
    axes.set_xlabel(f"time [{unit}], median over iterations of the slowest rank")
    axes.grid(axis="x", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(title(record, "Time of each stage"), fontsize=11)
    shown = [stage for stage in STAGES if stage in set(table["stage"])]
    handles = [Patch(label=stage, **STAGE_STYLE[stage]) for stage in shown]
    handles.append(Line2D([], [], marker="D", ls="", color="black", label="wall"))
    if table["floor_wall_s"].notna().any():
        handles.append(Line2D([], [], color="black", lw=2.5, label="floor"))
    axes.legend(
        handles=handles, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, handlelength=2.4,
        handleheight=1.4,
    )
    caption = (
        "Each segment is one stage; rN is the rank that is slowest in it. Stages overlap when the "
        "refit is a pipeline, so that the wall (diamond) may lie left of the bar's end. The floor "
        "(upright line) is the least time in which this machine can move the bytes."
    )
    return [Drawing("stage_times", caption, figure, table)]
