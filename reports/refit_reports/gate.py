# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Judges one record against a baseline record or a history; the rules are in reports/gate.md.

All figures are recomputed from samples and tensors.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from refit_reports import accuracy_gate, archive, metrics, night_noise, references, throughput_gate
from refit_reports.judgement import AMBIGUOUS_GATE, FAIL, NOTHING, PASS, Judgement
from refit_reports.metrics import CaseFigures
from refit_reports.record import Record
from refit_reports.statistics import AMBIGUOUS, FASTER, SAME, SLOWER

EXIT_CODES = {PASS: 0, FAIL: 1, AMBIGUOUS_GATE: 77, NOTHING: 77}
# The first iteration pays for memory that is touched for the first time.
_FEWEST_ITERATIONS = 2


@dataclasses.dataclass
class Outcome:
    verdict: str
    judgements: list[Judgement]
    remarks: list[str]

    @property
    def exit_code(self) -> int:
        return EXIT_CODES[self.verdict]


def against_history(
    run: Record,
    history: list[Record],
    expected: references.References,
    night_spread: float = night_noise.ASSUMED_NIGHT_SPREAD,
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
    night_spread: float = night_noise.ASSUMED_NIGHT_SPREAD,
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
    series: list[throughput_gate.Series] = []
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
            lines += accuracy_gate.judge(case, alike)
            continue
        found = throughput_gate.series_of(case, alike, is_baseline)
        if isinstance(found, Judgement):
            lines.append(found)
        else:
            series.append(found)
        lines += accuracy_gate.judge(case, alike)
    lines += throughput_gate.judge(series, night_spread, is_baseline)
    changed = {name for name, case in tonight.items() if case.settings}
    lines = [_with_reference(line, expected.of(line.name, line.name.rsplit("/", 1)[0] in changed))
             for line in lines]
    order = {name: position for position, name in enumerate(tonight)}
    lines.sort(key=lambda l: (l.kind == "accuracy", order.get(l.name.rsplit("/", 1)[0], -1)))
    return Outcome(_overall(lines), lines, remarks)


def _overall(lines: list[Judgement]) -> str:
    found = {line.gate for line in lines}
    if FAIL in found:
        return FAIL
    if AMBIGUOUS_GATE in found:
        return AMBIGUOUS_GATE
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
            gate = AMBIGUOUS_GATE if case.outcome == "skipped" else FAIL
            ran = any(name in p and p[name].sound for p in past)
            if case.outcome == "skipped" and not ran:
                gate = NOTHING
            first = run.findings[run.findings["case"] == case.number] if len(run.findings) else []
            what = f"; first finding: {first.iloc[0]['message']}" if len(first) else ""
            lines.append(Judgement(f"{name}/outcome", "run", "1", nan, nan, nan, nan, AMBIGUOUS, gate,
                                   f"the case ended as {case.outcome!r}{what}"))
        elif case.outcome == "pass" and not case.measured:
            lines.append(Judgement(f"{name}/outcome", "run", "1", nan, nan, nan, nan, AMBIGUOUS,
                                   AMBIGUOUS_GATE, "the case has no measured iteration"))
    scenarios = set(run.scenarios())
    for earlier in reversed(past):
        shared = [c for c in earlier.values() if str(c.name).split("/")[0] in scenarios]
        # What a run that ended early does not have was not left out on purpose.
        if not shared or shared[0].record.error is not None:
            continue
        for case in shared:
            if case.sound and case.name not in tonight:
                lines.append(Judgement(
                    f"{case.name}/outcome", "run", "1", nan, nan, nan, nan, AMBIGUOUS,
                    AMBIGUOUS_GATE,
                    f"the case ran at {case.record.created_utc} and is missing now"))
        break
    return lines


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
        # Bounds of times are wide: to be within them is less than to be compared.
        if line.gate == NOTHING and line.kind == "accuracy":
            line.gate, line.verdict = PASS, SAME
    if reference.low <= line.value <= reference.high:
        return dataclasses.replace(line, evidence=f"{line.evidence}; within {text}")
    low = line.value < reference.low
    side = "below" if low else "above"
    return dataclasses.replace(line, verdict=SLOWER if low else FASTER, gate=FAIL,
                               evidence=f"{side} {text}; {line.evidence}")
