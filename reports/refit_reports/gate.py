# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Judges one record against a baseline record or a history; the rules are in reports/gate.md.

All figures are recomputed from samples and tensors. The unit of the throughput test is the night:
nights differ more than the iterations of one night, so iterations cannot show a slowdown.
"""

from __future__ import annotations

import collections
import dataclasses
import math
from typing import Any

import numpy as np

from refit_reports import archive, metrics, references, statistics
from refit_reports.metrics import CaseFigures
from refit_reports.record import Record
from refit_reports.statistics import AMBIGUOUS, FASTER, SAME, SLOWER

PASS, FAIL, NOTHING = "pass", "fail", "nothing"
_AMBIGUOUS_GATE = "ambiguous"
EXIT_CODES = {PASS: 0, FAIL: 1, _AMBIGUOUS_GATE: 77, NOTHING: 77}

SQNR_TOLERANCE_DB = 0.05
_BOUND_TOLERANCE = 0.01
# From this many nights on, a quiet night is SAME or an alarm; before, AMBIGUOUS lies between.
_ENOUGH_NIGHTS = 20
_FEWEST_NIGHTS_BY_DATE = 8
# Where nights spread so much that a step of this size in one night would go unseen, SAME says nothing.
_TOO_NOISY = math.log(1.25)
# From this many cases on, half of the false alarms are spent on all cases together.
_FEWEST_CASES_FOR_POOL = 4
_BETTER_THAN_PHYSICS = 1.0
# The first iteration pays for memory that is touched for the first time.
_FEWEST_ITERATIONS = 2


@dataclasses.dataclass
class Judgement:
    """One line of the gate. `gate`: pass, fail, ambiguous or nothing; low and high bound `value`."""

    name: str
    kind: str
    unit: str
    value: float
    reference: float
    low: float
    high: float
    verdict: str
    gate: str
    evidence: str

    def as_json(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        for key in ("value", "reference", "low", "high"):
            row[key] = row[key] if math.isfinite(row[key]) else None
        return row


@dataclasses.dataclass
class Outcome:
    verdict: str
    judgements: list[Judgement]
    remarks: list[str]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


@dataclasses.dataclass
class _Test:
    """A throughput metric with its nights: logarithms, the last is tonight's.

    seconds : logarithm of 1 / wall, the same nights; ceilings do not enter.
    """

    name: str
    unit: str
    tonight: CaseFigures | None
    before: list[CaseFigures]
    values: np.ndarray
    seconds: np.ndarray
    weight: float = 1.0
    shifts: list[tuple[statistics.Shift, float]] = dataclasses.field(default_factory=list)
    remark: str = ""

    def p(self, slower: bool) -> float:
        return min(1.0, min((s.p_down if slower else s.p_up) / share for s, share in self.shifts))

    def strongest(self, slower: bool) -> statistics.Shift:
        return min(self.shifts, key=lambda s: (s[0].p_down if slower else s[0].p_up) / s[1])[0]


def against_history(
    run: Record,
    history: list[Record],
    expected: references.References,
    night_spread: float = statistics.ASSUMED_NIGHT_SPREAD,
) -> Outcome:
    """`history` ascends by time; records later than the run, and the run itself, are not looked at."""
    remarks = []
    earlier = [r for r in history if archive.created(r) <= archive.created(run)
               and not _is_same(r, run)]
    later = len(history) - len(earlier) - sum(_is_same(r, run) for r in history)
    if later:
        remarks.append(f"{later} records are later than the run and were not looked at")
    remarks.append(f"{len(earlier)} earlier records")
    return _judge(run, earlier, expected, night_spread, False, remarks)


def against_baseline(
    run: Record,
    baseline: Record,
    expected: references.References,
    night_spread: float = statistics.ASSUMED_NIGHT_SPREAD,
) -> Outcome:
    """One night against one: the spread between nights is not seen but assumed."""
    remarks = [f"one baseline shows no spread between nights; {night_spread:.1%} is assumed "
               "(--night-spread)"]
    return _judge(run, [baseline], expected, night_spread, True, remarks)


def _is_same(a: Record, b: Record) -> bool:
    if a.created_utc != b.created_utc or a.samples.keys() != b.samples.keys():
        return False
    for number, stages in a.samples.items():
        other = b.samples[number]
        if stages.keys() != other.keys() or not all(
            np.array_equal(stages[s], other[s], equal_nan=True) for s in stages
        ):
            return False
    same = ["name", "sqnr_db", "digest"]
    return len(a.tensors) == len(b.tensors) and (
        a.tensors.empty or a.tensors[same].equals(b.tensors[same]))


def _judge(run: Record, before: list[Record], expected: references.References, night_spread: float,
           is_baseline: bool, remarks: list[str]) -> Outcome:
    tonight = metrics.cases(run)
    past = [metrics.cases(record) for record in before]
    lines = _of_the_run(run, tonight, past)
    tests: list[_Test] = []
    for name, case in tonight.items():
        if not case.measured:
            continue
        nights = [p[name] for p in past if name in p and p[name].measured]
        alike = [n for n in nights if n.identity == case.identity and n.metric == case.metric]
        if nights and not alike:
            remarks.append(f"{name}: {len(nights)} earlier nights ran other settings under this name "
                           "and were not compared")
        if case.wall.size < _FEWEST_ITERATIONS:
            remarks.append(f"{name}: one iteration, so its time is not judged")
            lines += _accuracy(case, alike)
            continue
        line_or_test = _throughput_test(case, alike, is_baseline)
        if isinstance(line_or_test, _Test):
            tests.append(line_or_test)
        else:
            lines.append(line_or_test)
        lines += _accuracy(case, alike)
    lines += _throughput(tests, night_spread, is_baseline)
    lines = [_with_reference(line, expected.of(line.name)) for line in lines]
    order = {name: position for position, name in enumerate(tonight)}
    lines.sort(key=lambda l: (l.kind == "accuracy", order.get(l.name.rsplit("/", 1)[0], -1)))
    return Outcome(_overall(lines), lines, remarks)


def _overall(lines: list[Judgement]) -> str:
    found = {line.gate for line in lines}
    if FAIL in found:
        return FAIL
    if _AMBIGUOUS_GATE in found:
        return _AMBIGUOUS_GATE
    # Neither throughput nor accuracy passes unjudged because the other one was.
    kinds = {line.kind for line in lines} - {"run"}
    compared = {line.kind for line in lines if line.gate == PASS and math.isfinite(line.reference)}
    return PASS if kinds and kinds == compared else NOTHING


def _of_the_run(run: Record, tonight: dict[str, CaseFigures],
                past: list[dict[str, CaseFigures]]) -> list[Judgement]:
    """What no figure can excuse: the run's own verdict, and cases that ran before and did not now."""
    nan = math.nan
    lines = []
    if run.error is not None:
        lines.append(Judgement(
            "run", "run", "1", nan, nan, nan, nan, AMBIGUOUS, FAIL,
            f"the run ended with an error in stage {run.error['stage']}, rank {run.error['rank']}: "
            f"{run.error['message']}"))
    elif run.verdict == "fail":
        lines.append(Judgement("run", "run", "1", nan, nan, nan, nan, AMBIGUOUS, FAIL,
                               f"the run's own verdict is fail, with {len(run.findings)} findings"))
    for name, case in tonight.items():
        if not case.sound:
            gate = _AMBIGUOUS_GATE if case.outcome == "skipped" else FAIL
            ran = any(name in p and p[name].sound for p in past)
            if case.outcome == "skipped" and not ran:
                gate = NOTHING
            first = run.findings[run.findings["case"] == case.number] if len(run.findings) else []
            what = f"; first finding: {first.iloc[0]['message']}" if len(first) else ""
            lines.append(Judgement(f"{name}/outcome", "run", "1", nan, nan, nan, nan, AMBIGUOUS, gate,
                                   f"the case ended as {case.outcome!r}{what}"))
        elif case.outcome == "pass" and not case.measured:
            lines.append(Judgement(f"{name}/outcome", "run", "1", nan, nan, nan, nan, AMBIGUOUS,
                                   _AMBIGUOUS_GATE, "the case has no measured iteration"))
    scenarios = set(run.scenarios())
    for earlier in reversed(past):
        shared = [c for c in earlier.values() if str(c.name).split("/")[0] in scenarios]
        if not shared:
            continue
        for case in shared:
            if case.sound and case.name not in tonight:
                lines.append(Judgement(
                    f"{case.name}/outcome", "run", "1", nan, nan, nan, nan, AMBIGUOUS,
                    _AMBIGUOUS_GATE,
                    f"the case ran at {case.record.created_utc} and is missing now"))
        break
    return lines


# -------------------------------------------------------------------------------------------------
# Throughput


def _throughput_test(case: CaseFigures, alike: list[CaseFigures],
                     is_baseline: bool) -> _Test | Judgement:
    name = f"{case.name}/{case.metric}"
    here = [n for n in alike if n.machine == case.machine]
    if here:
        nights = here if is_baseline else _nights(case, here)
        values = [math.log(n.value) for n in nights] + [math.log(case.value)]
        seconds = [-math.log(float(np.median(n.wall))) for n in [*nights, case]]
        return _Test(name, case.unit, case, nights, np.array(values), np.array(seconds))
    if alike:
        other = alike[-1]
        ratio = case.value / other.value
        same = abs(math.log(ratio)) <= math.log1p(statistics.SMALLEST_CHANGE)
        return Judgement(
            name, "throughput", case.unit, case.value, other.value, math.nan, math.nan,
            SAME if same else AMBIGUOUS, PASS if same else _AMBIGUOUS_GATE,
            f"all earlier nights are of another machine ({', '.join(filter(None, other.machine))}; "
            f"now {', '.join(filter(None, case.machine))}); ratio of the fractions {ratio:.3f}")
    return Judgement(name, "throughput", case.unit, case.value, math.nan, math.nan, math.nan,
                     AMBIGUOUS, NOTHING,
                     f"nothing to compare with; wall {_seconds(float(np.median(case.wall)))}")


def _nights(case: CaseFigures, earlier: list[CaseFigures]) -> list[CaseFigures]:
    """One measurement a night, its middle one. As long as there are few nights, each record is one."""
    times = [archive.created(n.record) for n in [*earlier, case]]
    numbers = archive.by_night(times)
    groups: dict[int, list[CaseFigures]] = collections.defaultdict(list)
    for number, night in zip(numbers, earlier):
        if number != numbers[-1]:
            groups[number].append(night)
    if len(groups) < _FEWEST_NIGHTS_BY_DATE:
        return earlier
    return [sorted(group, key=lambda n: n.value)[len(group) // 2] for group in groups.values()]


def _pool(tests: list[_Test]) -> _Test | None:
    """All cases together: the mean of the cases' values, each in units of its spread between nights.

    Nights in which one of the cases is missing are left out. None where that leaves too few.
    """
    if len(tests) < _FEWEST_CASES_FOR_POOL:
        return None
    shared = None
    for test in tests:
        keys = {night.record.path for night in test.before}
        shared = keys if shared is None else shared & keys
    if shared is None or len(shared) < statistics.FEWEST_FOR_LONG_SPLIT:
        return None
    weights, rows, seconds = [], [], []
    for test in tests:
        kept = [i for i, n in enumerate(test.before) if n.record.path in shared] + [-1]
        values = test.values[kept]
        rows.append(values)
        seconds.append(test.seconds[kept])
        # Differences of neighbours show the spread whether or not the level changed.
        spread = float(np.std(np.diff(values[:-1]))) / math.sqrt(2.0)
        weights.append(1.0 / max(spread, 1e-4))
    share = np.array(weights) / sum(weights)
    return _Test("all cases/throughput", "1", None, [], share @ np.array(rows),
                 share @ np.array(seconds))


def _throughput(tests: list[_Test], night_spread: float, is_baseline: bool) -> list[Judgement]:
    if not tests:
        return []
    pool = None if is_baseline else _pool(tests)
    for test in tests:
        test.weight = (0.5 if pool else 1.0) / len(tests)
    everything = tests + ([pool] if pool else [])
    if pool:
        pool.weight = 0.5
    for test in everything:
        test.shifts = statistics.shifts(test.values, night_spread)
    weights = [test.weight for test in everything]
    level = statistics.FALSE_ALARMS_A_NIGHT
    slow = statistics.significant([t.p(True) for t in everything], weights, level)
    fast = statistics.significant([t.p(False) for t in everything], weights, level)
    return [_throughput_line(test, is_slow, is_fast, level * test.weight, is_baseline)
            for test, is_slow, is_fast in zip(everything, slow, fast)]


def _throughput_line(test: _Test, is_slow: bool, is_fast: bool, level: float,
                     is_baseline: bool) -> Judgement:
    first = test.shifts[0][0]
    limit = first.visible(level * test.shifts[0][1])
    center = float(np.mean(test.values[:-1][-statistics.REFERENCE_NIGHTS:]))
    scale = 1.0 if test.tonight else math.exp(-center)  # The pool is told relative to its reference.
    strongest = test.strongest(first.change <= 0.0 if not (is_slow or is_fast) else is_slow)
    parts = [
        f"{_percent(strongest.change)} in the last {strongest.nights} nights"
        if strongest.nights > 1 else f"{_percent(first.change)} tonight",
        f"against {strongest.before} nights" if strongest.before > 1 else "against one night",
        f"p {min(strongest.p_down, strongest.p_up):.2g}",
        f"spread between nights {strongest.spread:.1%}"
        + (" assumed" if math.isinf(strongest.degrees) else ""),
        f"one night shows {math.expm1(limit):.1%} and more",
    ]
    verdict, gate = SAME, PASS
    if is_slow:
        verdict, gate, why = _confirmed(test, strongest, is_baseline)
        parts += why
    elif is_fast:
        verdict = FASTER
    elif first.before < _ENOUGH_NIGHTS and _leans(first, level):
        verdict = AMBIGUOUS
        gate = _AMBIGUOUS_GATE if first.change < 0.0 else PASS
        parts.append(f"{first.before} nights are too few to tell this from their spread")
    elif limit > _TOO_NOISY:
        verdict, gate = AMBIGUOUS, _AMBIGUOUS_GATE
        parts.append("the nights spread too much to judge this one")
    if is_baseline and test.tonight:
        within = statistics.compare_samples(test.before[-1].rates(), test.tonight.rates(), False)
        parts.append(f"iterations: ratio {within.ratio:.3f} [{within.low:.3f}, {within.high:.3f}], "
                     f"Mann-Whitney p {within.p:.2g}, {within.verdict}")
        if verdict in (SLOWER, FASTER) and within.verdict not in (verdict,):
            verdict, gate = AMBIGUOUS, _AMBIGUOUS_GATE if verdict == SLOWER else PASS
            parts.append("the iterations of the two nights do not confirm it")
    if verdict in (SLOWER, FASTER) and test.tonight:
        parts += _stage_that_moved(test)
        if len(test.before) >= 3:
            split = statistics.latest_split(test.values)
            since = [*test.before, test.tonight][split]
            parts.append(f"since {since.record.created_utc}, "
                         f"commit {str(since.record.tool.get('commit', ''))[:12]}")
    if test.tonight:
        parts.append(f"wall {_seconds(float(np.median(test.tonight.wall)))}")
    value = float(np.exp(test.values[-1])) * scale
    line = Judgement(
        test.name, "throughput", test.unit, value, math.exp(center) * scale,
        math.exp(center - limit) * scale, math.exp(center + limit) * scale, verdict, gate,
        "; ".join(parts))
    if test.tonight and test.unit == "1" and value > _BETTER_THAN_PHYSICS:
        line.verdict, line.gate = FASTER, FAIL
        line.evidence = (f"{value:.3f} of the ceiling is better than physics: a stage was skipped, or the "
                         f"ceiling is wrong; {line.evidence}")
    return line


def _leans(shift: statistics.Shift, level: float) -> bool:
    """Whether a difference that is not significant is too large to be called none."""
    return min(shift.p_down, shift.p_up) <= max(0.025, level)


def _confirmed(test: _Test, strongest: statistics.Shift, is_baseline: bool) -> tuple[str, str, list[str]]:
    """SLOWER, unless it is the ceiling that moved: where ceilings vary more than what they are to
    correct, or one baseline cannot tell, the seconds must have become longer too."""
    seconds = statistics.shift(test.seconds, strongest.nights, max(strongest.spread, 1e-4))
    ceiling_is_noisy = is_baseline or seconds.before < 3 or seconds.spread < 0.8 * strongest.spread
    longer = seconds.change <= 0.5 * strongest.change if is_baseline or seconds.before < 3 else (
        seconds.p_down <= 0.05)
    if ceiling_is_noisy and not longer:
        return AMBIGUOUS, _AMBIGUOUS_GATE, [
            f"but the wall time changed by {_percent(-seconds.change)} only: the ceiling moved, not the "
            "refit"]
    return SLOWER, FAIL, []


def _stage_that_moved(test: _Test) -> list[str]:
    now = test.tonight.stage_medians()
    before: dict[str, list[float]] = collections.defaultdict(list)
    for night in test.before[-statistics.REFERENCE_NIGHTS:]:
        for stage, seconds in night.stage_medians().items():
            before[stage].append(seconds)
    changes = {s: now[s] - float(np.median(before[s])) for s in now if s in before}
    if not changes:
        return []
    stage = max(changes, key=lambda s: abs(changes[s]))
    usual = now[stage] - changes[stage]
    return [f"the stage that moved most is {stage}: {_seconds(usual)} before, "
            f"{_seconds(now[stage])} now"]


# -------------------------------------------------------------------------------------------------
# Accuracy


def _accuracy(case: CaseFigures, alike: list[CaseFigures]) -> list[Judgement]:
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
    window = same_data[-statistics.REFERENCE_NIGHTS:]
    usual = collections.Counter(n.digests for n in window)
    most = max(usual.values())
    # Of equally common ones the latest.
    reference = [n for n in window if usual[n.digests] == most][-1]
    moved = metrics.moved_tensors(reference, case)
    if metrics.from_files(case) and _all_raw_differ(reference, case):
        lines.append(Judgement(
            name, "accuracy", "tensors", count, float(len(reference.digests)), math.nan, math.nan,
            AMBIGUOUS, _AMBIGUOUS_GATE,
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


# -------------------------------------------------------------------------------------------------
# References


def _with_reference(line: Judgement, reference: references.Reference | None) -> Judgement:
    """Bounds of a reference fail on both sides, whatever the nights say."""
    if reference is None or not math.isfinite(line.value):
        return line
    text = (f"reference {reference.value:g} [{reference.low:g}, {reference.high:g}] {reference.unit} of "
            f"{reference.source}")
    if reference.unit != line.unit:
        return dataclasses.replace(
            line, gate=FAIL, evidence=f"{line.evidence}; {text} has another unit than the metric's "
            f"{line.unit!r}: mend the reference")
    # A bound on one side, such as a physical limit, is no expected value.
    is_expected = math.isfinite(reference.low) and math.isfinite(reference.high)
    if is_expected and not math.isfinite(line.reference):
        line = dataclasses.replace(line, reference=reference.value, low=reference.low,
                                   high=reference.high)
        if line.gate == NOTHING:
            line.gate, line.verdict = PASS, SAME
    if reference.low <= line.value <= reference.high:
        return dataclasses.replace(line, evidence=f"{line.evidence}; within {text}")
    low = line.value < reference.low
    side = "below" if low else "above"
    return dataclasses.replace(line, verdict=SLOWER if low else FASTER, gate=FAIL,
                               evidence=f"{side} {text}; {line.evidence}")


def _percent(change: float) -> str:
    return f"{math.expm1(change):+.1%}"


def _seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 1.0 else f"{value * 1e3:.3g} ms"
