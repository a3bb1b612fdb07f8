# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""When each rank worked on which bucket, in the last iteration of a case."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from refit_reports.figures.drawing import STAGE_STYLE, Drawing, case_label, time_scale, title
from refit_reports.record import STAGES, Record

_SMALLEST_LABELLED = 0.02  # of the axis


def numbers(record: Record, number: int) -> pd.DataFrame:
    """One row a bucket, rank and stage of one case; seconds since the start of the refit."""
    table = record.buckets[record.buckets["case"] == number]
    parts = []
    for stage in STAGES:
        if f"{stage}_start" not in table.columns:
            continue
        part = table[["case", "index", "rank", "bytes"]].rename(columns={"index": "bucket"})
        start, end = table[f"{stage}_start"], table[f"{stage}_end"]
        part = part.assign(stage=stage, start_s=start, end_s=end)
        parts.append(part.dropna(subset=["start_s", "end_s"]))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def draw(record: Record) -> list[Drawing]:
    drawings = []
    for number in record.cases.index:
        table = numbers(record, number)
        if not table.empty:
            drawings.append(_draw_case(record, number, table))
    return drawings


def _draw_case(record: Record, number: int, table: pd.DataFrame) -> Drawing:
    # A lane for each stage of each rank: stages of one rank overlap when buckets are in flight.
    lanes = [
        (rank, stage)
        for rank in sorted(table["rank"].unique())
        for stage in STAGES
        if ((table["rank"] == rank) & (table["stage"] == stage)).any()
    ]
    position = {lane: i for i, lane in enumerate(lanes)}
    longest = float(table["end_s"].max())
    factor, unit = time_scale(longest)

    figure = Figure(figsize=(10, 1.4 + 0.27 * len(lanes)), layout="constrained")
    axes = figure.add_subplot()
    for row in table.itertuples(index=False):
        y = position[(row.rank, row.stage)]
        left, width = row.start_s * factor, (row.end_s - row.start_s) * factor
        axes.barh(y, width, left=left, height=0.82, **STAGE_STYLE[row.stage])
        if width > _SMALLEST_LABELLED * longest * factor:
            axes.text(
                left + width / 2, y, str(row.bucket), ha="center", va="center", fontsize=7,
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6},
            )
    roles = dict(zip(record.ranks["rank"], record.ranks["role"]))
    axes.set_yticks(range(len(lanes)), [stage for _, stage in lanes], fontsize=8)
    last = None
    for y, (rank, _) in enumerate(lanes):
        if rank != last:
            axes.axhline(y - 0.5, color="black", lw=0.8)
            count = sum(lane[0] == rank for lane in lanes)
            axes.annotate(
                f"rank {rank}\n{roles.get(rank, '')}",
                xy=(0, y + (count - 1) / 2), xycoords=("axes fraction", "data"),
                xytext=(-66, 0), textcoords="offset points",
                ha="right", va="center", fontsize=8,
            )
        last = rank
    axes.set_ylim(len(lanes) - 0.5, -0.5)
    axes.set_xlim(min(0.0, float(table["start_s"].min()) * factor), longest * factor * 1.01)
    axes.set_xlabel(f"time since the start of the refit [{unit}]")
    axes.grid(axis="x", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    what = f"Buckets over ranks, last iteration: {case_label(record, number, 200)}"
    axes.set_title(title(record, what), fontsize=11)
    caption = (
        f"Case {number:03d}: when each rank worked on which bucket (the number in the bar). Bars "
        "above each other at one time are work that overlaps; gaps are waiting."
    )
    return Drawing(f"bucket_timeline_{number:03d}", caption, figure, table)
