# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What the figures share: the type they return, labels, and a style that survives grey printers."""

from __future__ import annotations

import dataclasses
import textwrap

import matplotlib

matplotlib.use("Agg")  # A report is made on machines without a display.
matplotlib.rcParams["text.parse_math"] = False  # "$" in a purpose is a dollar.

import pandas as pd  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402

from refit_reports.record import STAGES, Record  # noqa: E402


@dataclasses.dataclass
class Drawing:
    """name: file name without suffix; numbers: exactly what is plotted."""

    name: str
    caption: str
    figure: Figure
    numbers: pd.DataFrame


# Fills from light to dark and a hatch each: told apart without colour. Neighbours differ in both.
_FILLS = ["#f2f2f2", "#9ecae1", "#fee0d2", "#e0e0e0", "#fdae6b", "#c7e9c0", "#bcbddc", "#ffffff"]
_HATCHES = ["", "//", "++", "....", "\\\\", "xx", "--", "||"]
STAGE_STYLE = {
    stage: {"facecolor": fill, "hatch": hatch, "edgecolor": "#303030", "linewidth": 0.6}
    for stage, fill, hatch in zip(STAGES, _FILLS, _HATCHES)
}
MARKERS = ["o", "s", "^", "v", "D", "P", "X", "<", ">", "*", "h", "p"]


def wrapped(text: str, width: int) -> str:
    """Lines of about one length, no more of them than `width` characters a line need: the last one is no
    single word. Words are never cut."""
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    fewest = len(lines)
    while fewest > 1 and width > 10:
        narrower = textwrap.wrap(text, width - 2, break_long_words=False, break_on_hyphens=False)
        if len(narrower) > fewest:
            break
        lines, width = narrower, width - 2
    return "\n".join(lines)


def case_label(record: Record, number: int, width: int = 40) -> str:
    """Number, name and scheme of a case, wrapped."""
    row = record.cases.loc[number]
    name = row["case"] or row["scenario"]
    if row["scheme"] and row["scheme"] not in name:
        name = f"{name} ({row['scheme']})"
    return textwrap.fill(f"{number:03d} {name}", width, break_long_words=False, break_on_hyphens=False)


def title(record: Record, what: str) -> str:
    """What is drawn, below the scenario's own question."""
    purpose = record.cases["purpose"].iloc[0] if len(record.cases) else ""
    return wrapped(purpose, 90) + "\n" + wrapped(what, 100)


def time_scale(longest_s: float) -> tuple[float, str]:
    """Factor and unit in which times up to `longest_s` seconds have two or three digits."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if longest_s * factor >= 1.0:
            return factor, unit
    return 1e6, "µs"
