# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Two records side by side: times per case and stage, and accuracy per tensor."""

from __future__ import annotations

import math

import pandas as pd

from refit_reports import metrics, statistics
from refit_reports.metrics import CaseFigures
from refit_reports.record import Record


def timings(a: Record, b: Record) -> pd.DataFrame:
    """One row a case and metric: medians, ratio B / A with its 95 % interval, p, verdict.

    Metrics: the throughput as a fraction of the same run's ceiling, the wall, and each stage (maximum
    over ranks), both in seconds and, where both runs measured one, in memory copies of the payload.
    """
    rows = []
    for name, (first, second) in _pairs(a, b).items():
        if not (first.wall.size and second.wall.size):
            continue
        if first.metric == second.metric:
            rows.append(_row(name, first.metric, first.unit, first.rates(), second.rates(), False))
        rows.append(_row(name, "wall", "s", first.wall, second.wall, True))
        for stage in dict.fromkeys([*first.stages, *second.stages]):
            if stage in first.stages and stage in second.stages:
                one, two = first.stages[stage], second.stages[stage]
                rows.append(_row(name, stage, "s", one, two, True))
                if first.metric == second.metric and first.unit == "1" and first.bytes_wire and (
                    second.bytes_wire
                ):
                    rows.append(_row(
                        name, f"{stage} over ceiling", "1",
                        one * first.ceiling / first.bytes_wire,
                        two * second.ceiling / second.bytes_wire, True))
    return pd.DataFrame(rows, columns=["case", "metric", "unit", "median_a", "median_b", "ratio",
                                       "low", "high", "p", "samples_a", "samples_b", "verdict"])


def accuracy(a: Record, b: Record) -> pd.DataFrame:
    """The tensors that moved, with "case" in front; columns of metrics.moved_tensors."""
    parts = []
    for name, (first, second) in _pairs(a, b).items():
        moved = metrics.moved_tensors(first, second)
        moved.insert(0, "case", name)
        parts.append(moved)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def lines(a: Record, b: Record) -> list[str]:
    """What the command prints; lines that are not data begin with '#'."""
    pairs = _pairs(a, b)
    text = [f"# A: {a.path}, {a.created_utc}, commit {a.tool.get('commit', '')}",
            f"# B: {b.path}, {b.created_utc}, commit {b.tool.get('commit', '')}"]
    if metrics.machine_of(a) != metrics.machine_of(b):
        text.append(f"# other machine: A {metrics.machine_of(a)}, B {metrics.machine_of(b)}; compare "
                    "fractions of ceilings, not seconds")
    text.append("# ratio = B / A of the medians, 95 % bootstrap interval of iterations; one night against "
                "one says nothing about the spread between nights")
    times = timings(a, b)
    moved = accuracy(a, b)
    for name, (first, second) in pairs.items():
        text.append(f"# case {name}")
        for title, case in (("A", first), ("B", second)):
            if not case.wall.size:
                text.append(f"# not measured in {title}: outcome {case.outcome!r}")
        if first.identity != second.identity:
            text.append("# other settings: what differs is not the program alone")
        for row in times[times["case"] == name].itertuples(index=False):
            text.append(
                f"{row.metric:<28} {_number(row.median_a, row.unit):>12} "
                f"{_number(row.median_b, row.unit):>12}  x{row.ratio:.3f} "
                f"[{row.low:.3f}, {row.high:.3f}]  p {row.p:<8.2g} {row.verdict}")
        text += _accuracy_lines(first, second, moved[moved["case"] == name])
    for title, one, other in (("A", a, b), ("B", b, a)):
        missing = [n for n in metrics.cases(one) if n not in metrics.cases(other)]
        text += [f"# only in {title}: case {name}" for name in missing]
    if not pairs:
        text.append("# the two records have no case in common: nothing to compare")
    return text


def _accuracy_lines(first: CaseFigures, second: CaseFigures, moved: pd.DataFrame) -> list[str]:
    total = len(set(first.tensors.index) | set(second.tensors.index))
    if not total:
        return []
    if first.data != second.data:
        return ["# other weights (seed, outliers or checkpoint): digests and SQNR are not of the same data"
                ] + _sqnr_line(first, second)
    if moved.empty:
        return _sqnr_line(first, second) + [
            f"{'tensors':<28} all {total} have the same digest and accuracy  SAME"]
    text = _sqnr_line(first, second)
    row = moved.iloc[0]
    text.append(f"{'tensors':<28} {len(moved)} of {total} moved; first {row['tensor']}")
    for row in moved.head(10).itertuples(index=False):
        if row.present != "both":
            text.append(f"  {row.tensor}: only in {'A' if row.present == 'before' else 'B'}")
            continue
        sqnr = (f"SQNR {row.sqnr_db_before:.3f} -> {row.sqnr_db_after:.3f} dB"
                if not math.isnan(row.sqnr_db_before) or not math.isnan(row.sqnr_db_after) else "raw")
        text.append(
            f"  {row.tensor}: {sqnr}, error / bound {row.max_error_over_bound_change:+.3g}, "
            f"saturated {row.saturated_change:+d}, flushed {row.flushed_change:+d}, digest "
            f"{'same' if row.digest_same else 'differs'}")
    if len(moved) > 10:
        text.append(f"# ... and {len(moved) - 10} more; --csv DIR writes all")
    return text


def _sqnr_line(first: CaseFigures, second: CaseFigures) -> list[str]:
    a, b = first.sqnr_db, second.sqnr_db
    if math.isnan(a) and math.isnan(b):
        return []
    verdict = "SAME" if abs(b - a) <= 0.05 else "moved"
    return [f"{'sqnr_db':<28} {a:>9.3f} dB {b:>9.3f} dB  {b - a:+.4f} dB  {verdict}"]


def _pairs(a: Record, b: Record) -> dict[str, tuple[CaseFigures, CaseFigures]]:
    first, second = metrics.cases(a), metrics.cases(b)
    return {name: (first[name], second[name]) for name in first if name in second}


def _row(case, metric, unit, a, b, larger_is_slower):
    result = statistics.compare_samples(a, b, larger_is_slower)
    return {"case": case, "metric": metric, "unit": unit, "median_a": result.median_a,
            "median_b": result.median_b, "ratio": result.ratio, "low": result.low,
            "high": result.high, "p": result.p, "samples_a": len(a), "samples_b": len(b),
            "verdict": result.verdict}


def _number(value: float, unit: str) -> str:
    if math.isnan(value):
        return "-"
    if unit == "s":
        return f"{value:.4f} s" if value >= 1.0 else f"{value * 1e3:.4g} ms"
    return f"{value:.4g}" + ("" if unit == "1" else f" {unit}")
