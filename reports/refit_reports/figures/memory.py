# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Peak memory of every case beside the size of the weights and of what was sent."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from refit_reports.figures.drawing import Drawing, case_label, title
from refit_reports.record import Record

_SUM = {"facecolor": "#e0e0e0", "edgecolor": "#303030", "linewidth": 0.6}
_MAX = {"facecolor": "#808080", "hatch": "//", "edgecolor": "#303030", "linewidth": 0.6}


def numbers(record: Record) -> pd.DataFrame:
    """One row a case that ran: peak_rss_sum_bytes and peak_rss_max_bytes over ranks, bytes_bf16, bytes_wire."""
    table = pd.DataFrame({
        "case": record.cases.index,
        "label": record.cases["case"].to_numpy(),
        "scheme": record.cases["scheme"].to_numpy(),
        "peak_rss_sum_bytes": record.cases["peak_rss_bytes.sum"].to_numpy(),
        "peak_rss_max_bytes": record.cases["peak_rss_bytes.max"].to_numpy(),
        "bytes_bf16": record.cases["bytes_bf16"].to_numpy(),
        "bytes_wire": record.cases["bytes_wire"].to_numpy(),
    })
    return table[table["peak_rss_sum_bytes"] > 0].reset_index(drop=True)


def draw(record: Record) -> list[Drawing]:
    if record.cases.empty:
        return []
    table = numbers(record)
    if table.empty:
        return []
    factor, unit = (1e-9, "GB") if table["peak_rss_sum_bytes"].max() >= 1e9 else (1e-6, "MB")
    figure = Figure(figsize=(10, 1.9 + 0.7 * len(table)), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(table.itertuples(index=False)):
        axes.barh(position - 0.17, row.peak_rss_sum_bytes * factor, height=0.34, **_SUM)
        axes.barh(position + 0.17, row.peak_rss_max_bytes * factor, height=0.34, **_MAX)
        axes.plot([row.bytes_bf16 * factor], [position], ls="", marker="D", markersize=7,
                  markerfacecolor="white", markeredgecolor="black", zorder=4)
        axes.plot([row.bytes_wire * factor], [position], ls="", marker="|", markersize=16,
                  markeredgewidth=2.4, color="black", zorder=4)
    axes.set_yticks(range(len(table)), [case_label(record, n) for n in table["case"]], fontsize=9)
    axes.set_ylim(len(table) - 0.45, -0.55)
    largest = float(table[["peak_rss_sum_bytes", "bytes_bf16", "bytes_wire"]].to_numpy().max())
    axes.set_xlim(0, largest * factor * 1.05)
    axes.set_xlabel(f"memory [{unit}]")
    axes.grid(axis="x", color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(title(record, "Peak memory"), fontsize=11)
    axes.legend(
        handles=[
            Patch(label="all ranks together", **_SUM),
            Patch(label="the largest rank", **_MAX),
            Line2D([], [], ls="", marker="D", markerfacecolor="white", markeredgecolor="black",
                   label="weights in BF16"),
            Line2D([], [], ls="", marker="|", markersize=14, markeredgewidth=2.4, color="black",
                   label="bytes on the wire"),
        ],
        loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, handleheight=1.4,
    )
    caption = (
        "Largest resident memory of the processes during a case (VmHWM; pages that ranks share count once "
        "in the sum), the audit included. The diamond is one copy of the model in BF16, the upright "
        "stroke what was sent."
    )
    return [Drawing("memory", caption, figure, table)]
