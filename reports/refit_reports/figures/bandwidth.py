# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes on the wire per second of wall time against the bytes, below what the machine can do."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from refit_reports.figures.drawing import MARKERS, Drawing, title
from refit_reports.record import Record, wall_by_iteration

_LINES = ["-", "--", "-.", ":"]


def numbers(record: Record) -> pd.DataFrame:
    """One row a case with measured iterations: bytes_wire over the median wall (and over the longest and
    the shortest), the ceilings of the machine, and the rate of a paced link."""
    rows = []
    for number, row in record.cases.iterrows():
        wall = wall_by_iteration(record.samples[number])
        if not wall.size or not row["bytes_wire"] > 0:
            continue
        rates = row["bytes_wire"] / wall
        entry = {
            "case": number, "label": row["case"], "scheme": row["scheme"],
            "bytes_wire": int(row["bytes_wire"]),
            "algbw_bytes_per_s": float(row["bytes_wire"] / np.median(wall)),
            "lowest_bytes_per_s": float(rates.min()), "highest_bytes_per_s": float(rates.max()),
            "link_bytes_per_s": row["link.bytes_per_s"],
        }
        for name, ceiling in record.ceilings.items():
            if ceiling.unit == "B/s":
                entry[f"ceiling_{name}_bytes_per_s"] = ceiling.value
        rows.append(entry)
    return pd.DataFrame(rows)


def draw(record: Record) -> list[Drawing]:
    table = numbers(record)
    if table.empty:
        return []
    # Tall enough for a line of the legend each.
    figure = Figure(figsize=(10, max(5.0, 1.2 + 0.25 * (len(table) + 3))), layout="constrained")
    axes = figure.add_subplot()
    for position, row in enumerate(table.itertuples(index=False)):
        x = row.bytes_wire / 1e6
        axes.vlines(x, row.lowest_bytes_per_s / 1e9, row.highest_bytes_per_s / 1e9, color="#808080", lw=1.2)
        axes.plot([x], [row.algbw_bytes_per_s / 1e9], ls="", marker=MARKERS[position % len(MARKERS)],
                  markersize=8, markeredgecolor="black",
                  markerfacecolor="white" if position % 2 else "#707070",
                  label=f"{row.case:03d} {row.scheme}")
    for x, y, cases in _clusters(table):
        axes.annotate(", ".join(f"{case:03d}" for case in cases), (x / 1e6, y / 1e9), xytext=(9, 0),
                      textcoords="offset points", fontsize=8, va="center")
    lines = {}
    for name, ceiling in record.ceilings.items():
        if ceiling.unit == "B/s":
            lines[f"{name.replace('_', ' ')}, ceiling"] = ceiling.value
    for rate in sorted(set(table["link_bytes_per_s"].dropna())):
        lines["paced link"] = rate
    for position, (name, value) in enumerate(lines.items()):
        axes.axhline(value / 1e9, color="black", lw=1.3, ls=_LINES[position % len(_LINES)],
                     label=f"{name}: {value / 1e9:.3g} GB/s")
    # Rates that lie decades apart are still read off one axis.
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in "25" else "")
    sizes = table["bytes_wire"]
    if sizes.max() > 20 * sizes.min():
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    else:
        axes.set_xlim(0, sizes.max() / 1e6 * 1.2)
    axes.set_xlabel("payload on the wire, scales included [MB]")
    axes.set_ylabel("payload / wall time [GB/s]")
    axes.grid(color="#d0d0d0", lw=0.5)
    axes.set_axisbelow(True)
    axes.set_title(title(record, "Bandwidth against payload"), fontsize=11)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=8.5, labelspacing=0.8)
    caption = textwrap.dedent(
        "Each mark is a case, with its number: bytes on the wire over the median wall time, from gather to commit; the bar "
        "spans its iterations. The lines are what this machine reaches when it does nothing but copy memory "
        "or broadcast, measured before the first case. The wall has more to do than either: a mark above the line of its "
        "transport says that the machine was busier then."
    )
    return [Drawing("bandwidth", caption, figure, table)]


def _clusters(table: pd.DataFrame) -> list[tuple[float, float, list[int]]]:
    """Marks that hide one another share a label: place (bytes, bytes/s) and case numbers of each label."""
    clusters: list[tuple[float, float, list[int]]] = []
    # Payloads within 3 %, one below the other on the axis, then rates within 6 %.
    columns = (np.log(table["bytes_wire"]) / 0.03).round()
    for _, part in table.groupby(columns):
        for row in part.sort_values("algbw_bytes_per_s").itertuples(index=False):
            joins = clusters and clusters[-1][0] in set(part["bytes_wire"]) and (
                row.algbw_bytes_per_s < 1.06 * clusters[-1][1])
            if joins:
                clusters[-1][2].append(row.case)
            else:
                clusters.append((row.bytes_wire, row.algbw_bytes_per_s, [row.case]))
    return [(x, y, sorted(cases)) for x, y, cases in clusters]
