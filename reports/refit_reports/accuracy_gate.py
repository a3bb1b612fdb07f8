# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Judges the accuracy of one case against its own data and against the nights before: like with like."""

from __future__ import annotations

import collections
import math
from typing import Any

import numpy as np

from refit_reports import metrics
from refit_reports.judgement import AMBIGUOUS_GATE, FAIL, NOTHING, PASS, Judgement
from refit_reports.metrics import CaseFigures
from refit_reports.statistics import AMBIGUOUS, FASTER, REFERENCE_NIGHTS, SAME, SLOWER

SQNR_TOLERANCE_DB = 0.05
_BOUND_TOLERANCE = 0.01


def judge(case: CaseFigures, alike: list[CaseFigures]) -> list[Judgement]:
    """`alike`: the same case of earlier nights, ascending, with the same settings."""
    lines = _against_own_data(case)
    same_data = [n for n in alike if n.data == case.data]
    name = f"{case.name}/digests"
    count = float(len(case.digests))
    if not same_data:
        why = (f"{len(alike)} earlier nights had other weights (seed, outliers or checkpoint)"
               if alike else "nothing to compare with")
        lines.append(Judgement(name, "accuracy", "tensors", count, math.nan, math.nan, math.nan,
                               AMBIGUOUS, NOTHING, why))
        if math.isfinite(case.sqnr_db):
            lines.append(Judgement(f"{case.name}/sqnr_db", "accuracy", "dB", case.sqnr_db, math.nan,
                                   math.nan, math.nan, AMBIGUOUS, NOTHING, why))
        return lines
    window = same_data[-REFERENCE_NIGHTS:]
    usual = collections.Counter(n.digests for n in window)
    most = max(usual.values())
    # Of equally common ones the latest.
    reference = [n for n in window if usual[n.digests] == most][-1]
    moved = metrics.moved_tensors(reference, case)
    if metrics.from_files(case) and _all_raw_differ(reference, case):
        lines.append(Judgement(
            name, "accuracy", "tensors", count, float(len(reference.digests)), math.nan, math.nan,
            AMBIGUOUS, AMBIGUOUS_GATE,
            "every tensor that is sent as it is differs: the checkpoint is another one, so accuracy was "
            "not compared"))
        return lines
    against = f"against {most} of {len(window)} nights" if len(window) > 1 else "against one night"
    changed = moved[~moved["digest_same"].astype(bool)]
    same = float(len(set(case.tensors.index) - set(changed["tensor"])))
    total = float(len(reference.tensors))
    lines.append(_exact(
        name, "tensors", same, total, changed.empty,
        f"{total:.0f} tensors have the same bytes, {against}" if changed.empty else
        f"{len(changed)} of {total:.0f} tensors have other bytes from the same weights and recipe, "
        f"{against}; first {_moved(changed.iloc[0])}"))
    lines.append(_exact(
        f"{case.name}/bytes_wire", "B", float(case.bytes_wire), float(reference.bytes_wire),
        case.bytes_wire == reference.bytes_wire, f"sum over the tensors, {against}"))
    if len(case.quantized) or len(reference.quantized):
        lines += _sqnr_and_errors(case, reference, moved, against)
    return lines


def _sqnr_and_errors(case: CaseFigures, reference: CaseFigures, moved: Any,
                     against: str) -> list[Judgement]:
    change = moved["sqnr_db_change"].astype(float)
    beyond = moved[change.abs() > SQNR_TOLERANCE_DB]
    pooled = case.sqnr_db - reference.sqnr_db
    worst = float(change.abs().max()) if len(moved) else 0.0
    unknown = math.isnan(pooled) and not (math.isnan(case.sqnr_db) and math.isnan(reference.sqnr_db))
    good = beyond.empty and not unknown and not abs(pooled) > SQNR_TOLERANCE_DB
    lower = unknown or (float(beyond.iloc[0]["sqnr_db_change"]) if len(beyond) else pooled) < 0.0
    lines = [Judgement(
        f"{case.name}/sqnr_db", "accuracy", "dB", case.sqnr_db, reference.sqnr_db,
        reference.sqnr_db - SQNR_TOLERANCE_DB, reference.sqnr_db + SQNR_TOLERANCE_DB,
        SAME if good else SLOWER if lower else FASTER, PASS if good else FAIL,
        f"pooled {pooled:+.4f} dB, largest change of a tensor {worst:.4f} dB, {against}" if good else
        f"pooled {pooled:+.4f} dB, {len(beyond)} tensors beyond +-{SQNR_TOLERANCE_DB} dB, {against}"
        + (f"; first {_moved(beyond.iloc[0])}" if len(beyond) else ""))]
    counts = [(key, int(case.quantized[key].sum()), int(reference.quantized[key].sum()))
              for key in ("saturated", "flushed")]
    for key, now, usual in counts:
        moved_rows = moved[moved[f"{key}_change"] != 0]
        lines.append(_exact(
            f"{case.name}/{key}", "elements", float(now), float(usual), moved_rows.empty,
            against if moved_rows.empty else
            f"{len(moved_rows)} tensors differ, {against}; first {moved_rows.iloc[0]['tensor']}: "
            f"{int(moved_rows.iloc[0][f'{key}_change']):+d}", more_is_worse=True))
    now, usual = (float(c.quantized["max_error_over_bound"].max()) for c in (case, reference))
    good = abs(now - usual) <= _BOUND_TOLERANCE
    lines.append(Judgement(
        f"{case.name}/max_error_over_bound", "accuracy", "1", now, usual, usual - _BOUND_TOLERANCE,
        usual + _BOUND_TOLERANCE, SAME if good else SLOWER if now > usual else FASTER,
        PASS if good else FAIL, f"largest of all quantized tensors, {against}"))
    return lines


def _against_own_data(case: CaseFigures) -> list[Judgement]:
    """Needs no earlier night: what an independent quantization of the same data gives."""
    rows = case.quantized
    rows = rows[np.isfinite(rows["expected_sqnr_db"])] if "expected_sqnr_db" in rows else rows.iloc[:0]
    if rows.empty:
        return []
    difference = (rows["sqnr_db"] - rows["expected_sqnr_db"]).astype(float)
    # An SQNR that is no number beside an expected one that is one is as bad as can be.
    difference = difference.where(np.isfinite(difference), -math.inf)
    worst = str(difference.abs().idxmax())
    value = float(difference.loc[worst])
    good = abs(value) <= SQNR_TOLERANCE_DB
    return [Judgement(
        f"{case.name}/sqnr_minus_expected_db", "accuracy", "dB", value, math.nan, -SQNR_TOLERANCE_DB,
        SQNR_TOLERANCE_DB, SAME if good else SLOWER if value < 0.0 else FASTER,
        PASS if good else FAIL,
        f"{'largest of' if good else 'worst of'} {len(rows)} tensors, {worst}: "
        f"{float(rows.loc[worst, 'sqnr_db']):.3f} dB, an independent quantization of the same data gives "
        f"{float(rows.loc[worst, 'expected_sqnr_db']):.3f} dB")]


def _all_raw_differ(a: CaseFigures, b: CaseFigures) -> bool:
    raw = [n for n in a.tensors.index[a.tensors["recipe"] == ""] if n in set(b.tensors.index)]
    return bool(raw) and all(a.tensors.loc[n, "digest"] != b.tensors.loc[n, "digest"] for n in raw)


def _exact(name: str, unit: str, value: float, reference: float, good: bool, evidence: str,
           more_is_worse: bool = False) -> Judgement:
    better = value < reference if more_is_worse else False
    return Judgement(name, "accuracy", unit, value, reference, reference, reference,
                     SAME if good else FASTER if better else SLOWER, PASS if good else FAIL, evidence)


def _moved(row: Any) -> str:
    if row["present"] != "both":
        return f"{row['tensor']}, which is there {row['in']} only"
    parts = []
    if row["sqnr_db_change"]:
        parts.append(f"SQNR {row['sqnr_db_before']:.3f} dB before, {row['sqnr_db_after']:.3f} dB now")
    if not row["digest_same"]:
        parts.append("other digest")
    return f"{row['tensor']}: {', '.join(parts)}"
