# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Judges the throughput of all cases of one night; the rules are in reports/gate.md.

The unit of the test is the night: nights differ more than the iterations of one night, so iterations
cannot show a slowdown.
"""

from __future__ import annotations

import collections
import dataclasses
import math

import numpy as np

from refit_reports import archive, night_noise, statistics
from refit_reports.judgement import (AMBIGUOUS_GATE, FAIL, NOTHING, PASS, Judgement, percent,
                                     seconds)
from refit_reports.metrics import CaseFigures
from refit_reports.night_noise import Noise, Shift
from refit_reports.statistics import AMBIGUOUS, FASTER, SAME, SLOWER

# Sum of the levels of all tests of a night: fewer quiet nights than the promised 1 % fail, with room for what is
# estimated from the same nights (reports/docs/gate_noise.csv).
FALSE_ALARMS_A_NIGHT = 0.0087
# What is to be found: nights after the split -> size of the change. A test needs no more of the false alarms
# than finds this in nearly every case; what it does not need goes to the noisier ones.
PROMISED_CHANGES = {1: math.log(1.10), 10: math.log(1.03)}
# From this many nights on, a quiet night is SAME or an alarm; before, AMBIGUOUS lies between.
_ENOUGH_NIGHTS = night_noise.ENOUGH_NIGHTS
_FEWEST_NIGHTS_BY_DATE = 8
# Where nights spread so much that a step of this size in one night would go unseen, SAME says nothing.
_TOO_NOISY = math.log(1.25)
# From this many cases on, all of them together are a series of their own.
_FEWEST_CASES_FOR_POOL = 4
# What a night does to all cases is taken out of each one where the others show so much of it.
_FEWEST_CORRELATION = 0.5
# An earlier night was as bad as tonight if it was that much of tonight's change, and so many spreads off (of
# 60 normal nights, one in 70 has such a night by chance).
_AS_BAD_AS_TONIGHT = 0.7
_FAR_OFF = 3.5
_BETTER_THAN_PHYSICS = 1.0


@dataclasses.dataclass
class Claim:
    """One test of one series: its shift, and its share of the false alarms; shares sum to 1."""

    shift: Shift
    share: float = 0.0
    is_slower: bool = False
    is_faster: bool = False


@dataclasses.dataclass
class Series:
    """A throughput metric with its nights: logarithms, the last is tonight's.

    values  : of the metric.
    seconds : logarithm of 1 / wall, the same nights; ceilings do not enter.
    judged  : `values` without what the night did to the other cases as well.
    span, longest : as night_noise.reference_span.
    spread  : between the reference nights, values far off drawn in.
    tonight, before : None and empty for all cases together.
    """

    name: str
    unit: str
    tonight: CaseFigures | None
    before: list[CaseFigures]
    values: np.ndarray
    seconds: np.ndarray
    judged: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0))
    span: tuple[int, int] = (0, 0)
    longest: int = 0
    spread: float = 0.0
    claims: list[Claim] = dataclasses.field(default_factory=list)

    def __post_init__(self) -> None:
        self.judged = self.values
        first, last, self.longest = night_noise.reference_span(self.values)
        self.span = (first, last)
        self.spread = max(night_noise.deviation(night_noise.tamed(self.reference, self.reference)),
                          night_noise.RESOLUTION)

    @property
    def reference(self) -> np.ndarray:
        return self.judged[self.span[0]:self.span[1]]

    @property
    def one_night(self) -> Claim:
        return self.claims[0]

    def strongest(self, slower: bool) -> Claim:
        return min(self.claims, key=lambda c: (
            c.shift.p_down if slower else c.shift.p_up) / max(c.share, 1e-12))


def series_of(case: CaseFigures, alike: list[CaseFigures], is_baseline: bool) -> Series | Judgement:
    """The nights of a case, or the line that says why there is nothing to test. `alike`: the same case of
    earlier nights, ascending, with the same settings."""
    name = f"{case.name}/{case.metric}"
    here = [n for n in alike if n.machine == case.machine]
    if here:
        nights = here if is_baseline else _nights(case, here)
        values = [math.log(n.value) for n in nights] + [math.log(case.value)]
        walls = [-math.log(float(np.median(n.wall))) for n in [*nights, case]]
        return Series(name, case.unit, case, nights, np.array(values), np.array(walls))
    if alike:
        other = alike[-1]
        ratio = case.value / other.value
        same = abs(math.log(ratio)) <= math.log1p(statistics.SMALLEST_CHANGE)
        return Judgement(
            name, "throughput", case.unit, case.value, other.value, math.nan, math.nan,
            SAME if same else AMBIGUOUS, PASS if same else AMBIGUOUS_GATE,
            f"all earlier nights are of another machine ({', '.join(filter(None, other.machine))}; "
            f"now {', '.join(filter(None, case.machine))}); ratio of the fractions {ratio:.3f}")
    return Judgement(name, "throughput", case.unit, case.value, math.nan, math.nan, math.nan,
                     AMBIGUOUS, NOTHING,
                     f"nothing to compare with; wall {seconds(float(np.median(case.wall)))}")


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


def judge(cases: list[Series], night_spread: float, is_baseline: bool) -> list[Judgement]:
    """A line a case, and one for all cases together where there are enough of them and of nights."""
    if not cases:
        return []
    pool = None if is_baseline else _pool(cases)
    common = 0.0
    if pool:
        together = float(np.var(pool.reference))
        common = (len(cases) * together - 1.0) / (len(cases) - 1.0)
        _without_the_night(cases)
    noise = night_noise.learn([s.reference for s in cases], common) if not is_baseline else Noise()
    everything = [(series, noise) for series in cases]
    if pool:
        # In units of its cases' spreads: back to a relative change.
        pool.values = pool.judged = pool.values * pool_scale(cases)
        everything.append((pool, dataclasses.replace(
            night_noise.learn([pool.reference]), correlation=noise.correlation)))
    for series, its_noise in everything:
        nights = [1] + ([series.longest] if series.longest else [])
        series.claims = [Claim(night_noise.shift(series.judged, n, series.span, night_spread, its_noise))
                         for n in nights]
    _decide([claim for series, _ in everything for claim in series.claims])
    return [_line(series, is_baseline) for series, _ in everything]


def _decide(claims: list[Claim]) -> None:
    """Shares out the false alarms, and says which claims hold with them."""
    needs = [night_noise.level_needed(c.shift, PROMISED_CHANGES[c.shift.nights]) for c in claims]
    for claim, share in zip(claims, shares_of(needs, FALSE_ALARMS_A_NIGHT)):
        claim.share = share
    shares = [c.share for c in claims]
    slower = statistics.significant([c.shift.p_down for c in claims], shares, FALSE_ALARMS_A_NIGHT)
    faster = statistics.significant([c.shift.p_up for c in claims], shares, FALSE_ALARMS_A_NIGHT)
    for claim, is_slower, is_faster in zip(claims, slower, faster):
        claim.is_slower, claim.is_faster = is_slower, is_faster


def shares_of(needs: list[float], level: float) -> list[float]:
    """Shares of `level`, which sum to 1: each claim gets what it needs, but where that is too much
    together, none more than the same limit; what is left over goes to all in proportion."""
    floor = level * 1e-4 / len(needs)
    needs = [max(need, floor) for need in needs]
    granted = list(needs)
    if sum(needs) > level:
        left = level
        waiting = sorted(range(len(needs)), key=lambda i: needs[i])
        for position, i in enumerate(waiting):
            granted[i] = min(needs[i], left / (len(waiting) - position))
            left -= granted[i]
    total = sum(granted)
    return [share / total for share in granted]


# -------------------------------------------------------------------------------------------------
# All cases together


def pool_scale(cases: list[Series]) -> float:
    """What one unit of the pool is as a logarithm: the harmonic mean of the cases' spreads."""
    return len(cases) / sum(1.0 / s.spread for s in cases)


def _pool(cases: list[Series]) -> Series | None:
    """All cases together: the mean of the cases' values, each in units of its spread between nights.

    Nights in which one of the cases is missing are left out. None where that leaves too few.
    """
    if len(cases) < _FEWEST_CASES_FOR_POOL:
        return None
    shared = set.intersection(*({n.record.path for n in s.before} for s in cases))
    if len(shared) < _ENOUGH_NIGHTS:
        return None
    rows, walls = [], []
    for series in cases:
        kept = [i for i, n in enumerate(series.before) if n.record.path in shared] + [-1]
        rows.append(series.values[kept] / series.spread)
        walls.append(series.seconds[kept] / series.spread)
    return Series("all cases/throughput", "1", None, [], np.mean(rows, axis=0),
                  np.mean(walls, axis=0) * pool_scale(cases))


def _without_the_night(cases: list[Series]) -> None:
    """Takes out of each case's `judged` what the night did to the others too, where that explains much.

    The machine of a slow night is slow for all cases; one case that is slow alone then stands out. The
    median of the others, so that one that became slower itself does not count.
    """
    columns: dict[str, int] = {}
    for series in cases:
        for night in series.before:
            columns.setdefault(night.record.path, len(columns))
    scaled = np.full((len(cases), len(columns) + 1), math.nan)
    places = [[columns[n.record.path] for n in s.before] + [len(columns)] for s in cases]
    for row, series, place in zip(scaled, cases, places):
        row[place] = (series.values - night_noise.median(series.reference)) / series.spread
    for number, (series, place) in enumerate(zip(cases, places)):
        first, last = series.span
        if last - first < _ENOUGH_NIGHTS:
            continue
        # Nights without any other case tell nothing of the machine.
        others = np.ma.masked_invalid(np.delete(scaled, number, axis=0)[:, place])
        of_others = (np.median(others.data, axis=0) if not others.mask.any()
                     else np.ma.median(others, axis=0).filled(0.0))
        mine = night_noise.tamed(series.reference, series.reference)
        theirs = night_noise.tamed(of_others[first:last], of_others[first:last])
        widths = night_noise.deviation(mine), night_noise.deviation(theirs)
        if min(widths) < night_noise.RESOLUTION:
            continue
        products = (mine - mine.mean()) * (theirs - theirs.mean())
        correlation = float(products.mean()) / (widths[0] * widths[1])
        if correlation >= _FEWEST_CORRELATION:
            series.judged = series.values - correlation * widths[0] / widths[1] * of_others


# -------------------------------------------------------------------------------------------------
# One line


def _line(series: Series, is_baseline: bool) -> Judgement:
    first = series.one_night.shift
    level = FALSE_ALARMS_A_NIGHT * series.one_night.share
    limit = first.visible(level)
    usual = float(np.mean(series.values[series.span[0]:series.span[1]]))
    # What the night did to all cases is no part of the expected value's error.
    center = usual + float(series.values[-1] - series.judged[-1]) - (
        float(np.mean((series.values - series.judged)[series.span[0]:series.span[1]])))
    verdict, gate, parts = _verdict(series, level, limit, is_baseline)
    if verdict in (SLOWER, FASTER) and series.tonight:
        parts += _stage_that_moved(series)
        if len(series.before) >= 3:
            since = [*series.before, series.tonight][statistics.latest_split(series.values)]
            parts.append(f"since {since.record.created_utc}, "
                         f"commit {str(since.record.tool.get('commit', ''))[:12]}")
    if series.tonight:
        parts.append(f"wall {seconds(float(np.median(series.tonight.wall)))}")
    scale = 1.0 if series.tonight else math.exp(-center)  # The pool is told relative to its reference.
    value = float(np.exp(series.values[-1])) * scale
    line = Judgement(
        series.name, "throughput", series.unit, value, math.exp(center) * scale,
        math.exp(center - limit) * scale, math.exp(center + limit) * scale, verdict, gate,
        "; ".join(parts))
    if series.tonight and series.unit == "1" and value > _BETTER_THAN_PHYSICS:
        line.verdict, line.gate = FASTER, FAIL
        line.evidence = (f"{value:.3f} of the ceiling is better than physics: a stage was skipped, or the "
                         f"ceiling is wrong; {line.evidence}")
    return line


def _verdict(series: Series, level: float, limit: float,
             is_baseline: bool) -> tuple[str, str, list[str]]:
    """Verdict, gate and evidence."""
    first = series.one_night.shift
    slower = [c for c in series.claims if c.is_slower]
    faster = [c for c in series.claims if c.is_faster]
    told = (slower or faster or [series.strongest(first.change <= 0.0)])
    strongest = min(told, key=lambda c: min(c.shift.p_down, c.shift.p_up) / c.share).shift
    parts = _evidence(series, strongest, first, limit)
    verdict, gate = SAME, PASS
    if slower:
        verdict, gate, why = _confirmed(series, strongest, is_baseline)
        if verdict == SLOWER and strongest.nights == 1 and not is_baseline:
            verdict, gate, why = _not_seen_before(series, first)
        parts += why
    elif faster:
        verdict = FASTER
    elif first.before < _ENOUGH_NIGHTS and _leans(first, level):
        verdict = AMBIGUOUS
        gate = AMBIGUOUS_GATE if first.change < 0.0 else PASS
        parts.append(f"{first.before} nights are too few to tell this from their spread")
    elif first.plain_p_down <= level:
        verdict, gate, why = _heavy_tail(series, first)
        parts += why
    elif limit > _TOO_NOISY:
        verdict, gate = AMBIGUOUS, AMBIGUOUS_GATE
        parts.append("the nights spread too much to judge this one")
    if is_baseline and series.tonight:
        within = statistics.compare_samples(series.before[-1].rates(), series.tonight.rates(), False)
        parts.append(f"iterations: ratio {within.ratio:.3f} [{within.low:.3f}, {within.high:.3f}], "
                     f"Mann-Whitney p {within.p:.2g}, {within.verdict}")
        if verdict in (SLOWER, FASTER) and within.verdict not in (verdict,):
            verdict, gate = AMBIGUOUS, AMBIGUOUS_GATE if verdict == SLOWER else PASS
            parts.append("the iterations of the two nights do not confirm it")
    return verdict, gate, parts


def _evidence(series: Series, strongest: Shift, first: Shift, limit: float) -> list[str]:
    is_adjusted = series.judged is not series.values
    return [
        (f"{percent(strongest.change)} in the last {strongest.nights} nights"
         if strongest.nights > 1 else f"{percent(first.change)} tonight")
        + (" beside what the other cases show of these nights" if is_adjusted else ""),
        f"against {strongest.before} nights" if strongest.before > 1 else "against one night",
        f"p {min(strongest.p_down, strongest.p_up):.2g}",
        f"spread between nights {strongest.spread:.1%}" + (" assumed" if strongest.is_assumed else ""),
        f"one night shows {math.expm1(limit):.1%} and more",
    ]


def _leans(shift: Shift, level: float) -> bool:
    """Whether a difference that is not significant is too large to be called none."""
    return min(shift.p_down, shift.p_up) <= max(0.025, level)


def _confirmed(series: Series, strongest: Shift, is_baseline: bool) -> tuple[str, str, list[str]]:
    """SLOWER, unless it is not this case that moved: the other cases became faster, or, where ceilings
    vary more than what they are to correct or one baseline cannot tell, the ceiling did."""
    first, last = series.span
    moved = (float(np.mean(series.values[-strongest.nights:]))
             - float(np.mean(series.values[first:last])))
    if series.judged is not series.values and moved > 0.5 * strongest.change:
        return AMBIGUOUS, AMBIGUOUS_GATE, [
            f"but by itself it changed by {percent(moved)} only: the other cases became faster"]
    walls = night_noise.shift(series.seconds, strongest.nights, series.span,
                              max(strongest.spread, 1e-4), Noise())
    few = is_baseline or walls.before < 3
    ceiling_is_noisy = few or walls.spread < 0.8 * strongest.spread
    longer = walls.change <= 0.5 * strongest.change if few else walls.p_down <= 0.05
    if ceiling_is_noisy and not longer:
        return AMBIGUOUS, AMBIGUOUS_GATE, [
            f"but the wall time changed by {percent(-walls.change)} only: the ceiling moved, not the "
            "refit"]
    return SLOWER, FAIL, []


def _second_in_a_row(series: Series, first: Shift) -> bool:
    """Whether the night before was as bad as tonight."""
    change = float(series.judged[-2]) - (float(series.judged[-1]) - first.change)
    return change <= _AS_BAD_AS_TONIGHT * first.change


def _not_seen_before(series: Series, first: Shift) -> tuple[str, str, list[str]]:
    """SLOWER, unless nights as bad as this one came and went before: then the next night tells."""
    center = float(series.judged[-1]) - first.change
    # The robust spread: else the bad nights widen the spread until they seem to be a part of it.
    spread = max(night_noise.deviation(night_noise.tamed(series.reference, series.reference)),
                 night_noise.RESOLUTION)
    limit = min(_AS_BAD_AS_TONIGHT * first.change, -_FAR_OFF * spread)
    # Also those after the reference: the night before tonight was not as bad.
    nights = series.judged[series.span[0]:-1]
    as_bad = int(np.sum(nights - center <= limit))
    if as_bad == 0 or _second_in_a_row(series, first):
        return SLOWER, FAIL, []
    return AMBIGUOUS, AMBIGUOUS_GATE, [
        f"but {as_bad} of {len(nights)} nights were as slow, and the next ones were not: another night tells"]


def _heavy_tail(series: Series, first: Shift) -> tuple[str, str, list[str]]:
    """AMBIGUOUS: significant if nights were normal, which these are not. Two such nights are SLOWER."""
    if _second_in_a_row(series, first):
        return SLOWER, FAIL, ["for the second night in a row"]
    return AMBIGUOUS, AMBIGUOUS_GATE, [
        "these nights have single ones far off more often than normal ones would: another night tells"]


def _stage_that_moved(series: Series) -> list[str]:
    now = series.tonight.stage_medians()
    before: dict[str, list[float]] = collections.defaultdict(list)
    for night in series.before[series.span[0]:series.span[1]]:
        for stage, taken in night.stage_medians().items():
            before[stage].append(taken)
    changes = {s: now[s] - float(np.median(before[s])) for s in now if s in before}
    if not changes:
        return []
    stage = max(changes, key=lambda s: abs(changes[s]))
    return [f"the stage that moved most is {stage}: {seconds(now[stage] - changes[stage])} before, "
            f"{seconds(now[stage])} now"]
