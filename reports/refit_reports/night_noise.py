# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How nights differ from each other, learned from the nights themselves; pure functions of numbers.

A series is the logarithms of one figure, a value a night, tonight's last. What is learned is the spread
between nights, how heavy its tails are, and whether neighbouring nights are alike.

Sources of the methods:
- Change points: the two-sample Student t statistic between the nights after and before a split, as
  in D. Hawkins, P. Qiu, C. W. Kang, "The Changepoint Model for Statistical Process Control",
  Journal of Quality Technology 35(4), 2003; Apache Otava (Hunter) accepts its change points by the
  same test (M. Fleming et al., "Hunter: Using Change Point Detection to Hunt for Performance
  Regressions", ICPE 2023). The gate looks at two splits only, for which p values are known.
- Spread of several series at once: the moderated t statistic, G. Smyth, "Linear Models and Empirical
  Bayes Methods for Assessing Differential Expression in Microarray Experiments", Statistical
  Applications in Genetics and Molecular Biology 3(1), 2004, section 6.
- Values far off are drawn in to a limit (winsorized) at a multiple of the median absolute deviation:
  P. Huber, "Robust Statistics", 1981, section 1.6.
- Mean of values that depend on their neighbours: variance of a first-order autoregression, G. Box,
  G. Jenkins, "Time Series Analysis", 1976, section 3.2; bias of the estimated correlation, M. Kendall,
  "Note on Bias in the Estimation of Autocorrelation", Biometrika 41, 1954.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Sequence

import numpy as np
from scipy import special

from refit_reports import statistics

# Nights after the split. One night finds a large step at once, ten find a small one; any further split
# costs more power than it adds (tests/reports/gate_power.py).
SPLITS = (1, 10)
# Nights of the reference at most, and at least for splits of several nights.
REFERENCE_NIGHTS = statistics.REFERENCE_NIGHTS
FEWEST_FOR_LONG_SPLIT = 10
# Spread between nights that is assumed as long as too few nights show it: relative standard deviation.
ASSUMED_NIGHT_SPREAD = 0.02
_ASSUMED_DEGREES = 30
# From so many nights on they say something about tails, neighbours and the spread of other series.
ENOUGH_NIGHTS = 20
# An improvement is the new reference after so many nights, whatever else changed after so many.
_SETTLED_IMPROVEMENT, _SETTLED_CHANGE = 10, 40
# Change points that move the reference are clear ones: also neighbours that are alike bring forth faint ones.
_LEVEL_OF_CHANGES = 1e-6
# Nights that agree to the last bit (a made archive) still differ by what a clock resolves.
RESOLUTION = 1e-4
# Values beyond so many robust deviations count as if they were there; 0.3 % of normal ones.
_TAMED_BEYOND = 3.0
_MAD_TO_DEVIATION = 1.4826
# So far off lies a night that is left out where several are judged, and so many of them are left out at most.
_OUTLIER_BEYOND, _MOST_OUTLIERS = 4.0, 2
# What is left of the variance of 20 to 60 normal values that are drawn in so, by simulation.
_TAMED_VARIANCE = 0.98


@dataclasses.dataclass
class Noise:
    """What all series of one night show together.

    variance, tamed_variance : (degrees of freedom, variance) that the series share; degrees 0: nothing shared,
                  infinite: all series spread alike.
    correlation : of neighbouring nights; 0 unless the nights show it.
    tail        : degrees of the Student t distribution of single nights; infinite: normal.
    """

    variance: tuple[float, float] = (0.0, 0.0)
    tamed_variance: tuple[float, float] = (0.0, 0.0)
    correlation: float = 0.0
    tail: float = math.inf


@dataclasses.dataclass
class Shift:
    """The last `nights` values against the reference; all in units of the logarithm.

    change : mean after minus mean of the reference, of which there are `before` nights.
    spread : standard deviation between nights that was used; `degrees` of freedom (inf: assumed).
    width  : standard deviation of `change` where nothing changed.
    p_down, p_up : one-sided p of a change downwards and upwards; plain_p_down if single nights were normal.
    """

    nights: int
    before: int
    change: float
    spread: float
    degrees: float
    width: float
    p_down: float
    p_up: float
    plain_p_down: float
    is_assumed: bool

    def visible(self, p: float) -> float:
        """The change that a one-sided test at level p would call significant."""
        return -self.width * _quantile(self.degrees, p)


def reference_span(values: np.ndarray) -> tuple[int, int, int]:
    """First and end index of the reference nights, and for how many nights at the end a long split is
    possible (0: for none).

    The reference ends before the last ten nights, so that a slowdown that goes on does not become a part
    of it, and as long as there are few nights, before tonight. It starts at the last change that is settled,
    and recent changes are not in it.
    """
    count = len(values)
    start, end_of_all = 0, count - 1
    for change in reversed(statistics.segments(values[:-1], RESOLUTION, _LEVEL_OF_CHANGES)):
        earlier, later = values[max(0, change - REFERENCE_NIGHTS):change], values[change:-1]
        age = count - 1 - change
        is_faster = median(later) > median(earlier)
        if age >= _SETTLED_CHANGE or (is_faster and age >= _SETTLED_IMPROVEMENT):
            start = change
            break
        end_of_all = min(end_of_all, change)
    longest = max(SPLITS)
    end = min(end_of_all, count - longest)
    if end - start >= FEWEST_FOR_LONG_SPLIT:
        return max(start, end - REFERENCE_NIGHTS), end, longest
    return max(start, end_of_all - REFERENCE_NIGHTS), end_of_all, 0


def median(values: np.ndarray) -> float:
    """numpy.median without what it does for other inputs, which takes ten times as long."""
    ordered = np.sort(values)
    return 0.5 * float(ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2])


def deviation(values: np.ndarray) -> float:
    """Standard deviation, divided by the number of values."""
    centred = values - values.sum() / values.size
    return math.sqrt(float(centred @ centred) / values.size)


def tamed(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """`values` drawn in to the reference's median and three robust deviations around it."""
    middle = median(reference)
    robust = _MAD_TO_DEVIATION * median(np.abs(reference - middle))
    if robust < RESOLUTION:
        return values
    reach = _TAMED_BEYOND * robust
    return np.minimum(np.maximum(values, middle - reach), middle + reach)


def _without_outliers(values: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Without nights that are far off, as long as they are the exception: a slowdown is no exception, and
    the first nights of a large one are found one by one."""
    middle = median(reference)
    reach = _OUTLIER_BEYOND * _MAD_TO_DEVIATION * median(np.abs(reference - middle))
    near = np.abs(values - middle) <= max(reach, RESOLUTION)
    return values[near] if near.sum() >= len(values) - _MOST_OUTLIERS else values


def learn(references: Sequence[np.ndarray], common: float = 0.0) -> Noise:
    """The noise of several series from their reference nights; series with few nights say nothing.

    `common`: correlation between the series of one night; ones that move together are no independent
    witnesses of how neighbouring nights are related.
    """
    known = [r for r in references if len(r) >= ENOUGH_NIGHTS and deviation(r) > RESOLUTION]
    if not known:
        return Noise()
    drawn_in = [tamed(r, r) for r in known]
    return Noise(
        _shared_variance(known), _shared_variance(drawn_in, _TAMED_VARIANCE), _correlation(drawn_in, common),
        _tail(known))


def shift(values: np.ndarray, nights: int, span: tuple[int, int], assumed_spread: float,
          noise: Noise) -> Shift:
    """The change between the last `nights` of `values` and the reference values[span[0]:span[1]].

    Where fewer than 31 nights show the spread, `assumed_spread` takes the place of the missing degrees
    of freedom, but never makes the spread smaller than what was seen.
    """
    reference = values[span[0]:span[1]]
    drawn_in = tamed(reference, reference)
    # One night is judged as it is. Of several, one that is far off must not speak for the others.
    after = values[-nights:] if nights == 1 else tamed(_without_outliers(values[-nights:], reference),
                                                       reference)
    shared = noise.variance if nights == 1 else noise.tamed_variance
    spread, degrees, is_assumed = _spread(
        reference if nights == 1 else drawn_in, 1.0 if nights == 1 else _TAMED_VARIANCE,
        assumed_spread, shared, noise.correlation)
    width = spread * math.sqrt(_of_mean(after.size, noise.correlation)
                               + _of_mean(reference.size, noise.correlation))
    change = float(after.mean() - drawn_in.mean())
    plain = _probability(degrees, change / width)
    if nights == 1 and math.isfinite(noise.tail):
        # A t distribution of unit variance.
        width *= math.sqrt((noise.tail - 2.0) / noise.tail)
        degrees = min(degrees, noise.tail)
    score = change / width
    return Shift(nights, int(reference.size), change, spread, degrees, width,
                 _probability(degrees, score), _probability(degrees, -score), plain, is_assumed)


def _spread(reference: np.ndarray, left: float, assumed: float, shared: tuple[float, float],
            correlation: float) -> tuple[float, float, bool]:
    """Standard deviation between nights, its degrees of freedom, and whether it is only assumed."""
    seen = reference.size - 1
    squares = float(np.sum((reference - reference.mean()) ** 2)) / left
    if seen and correlation > 0.0:
        # Neighbours that are alike lie closer to their own mean than they spread.
        squares /= max(0.2, 1.0 - (reference.size * _of_mean(reference.size, correlation) - 1.0) / seen)
    missing = max(0, _ASSUMED_DEGREES - seen)
    variance = (squares + missing * assumed**2) / (seen + missing)
    if missing and seen:
        variance = max(variance, squares / seen)
    degrees = math.inf if seen == 0 else float(seen + missing)
    shared_degrees, shared_variance = shared
    if reference.size >= ENOUGH_NIGHTS and shared_degrees > 0.0:
        if math.isinf(shared_degrees):
            variance, degrees = shared_variance, math.inf
        else:
            variance = (shared_degrees * shared_variance + degrees * variance) / (
                shared_degrees + degrees)
            degrees += shared_degrees
    return max(math.sqrt(variance), RESOLUTION), degrees, seen == 0


def _shared_variance(references: Sequence[np.ndarray], left: float = 1.0) -> tuple[float, float]:
    """Degrees of freedom and variance of Smyth's prior; degrees 0 with fewer than three series. `left`: the
    share of the variance that the values still have."""
    if len(references) < 3:
        return 0.0, 0.0
    degrees = np.array([r.size - 1.0 for r in references])
    logs = np.log([deviation(r) ** 2 / left * r.size / (r.size - 1.0) for r in references])
    logs = logs - special.digamma(degrees / 2.0) + np.log(degrees / 2.0)
    mean = float(logs.mean())
    excess = float(np.var(logs, ddof=1) - np.mean(special.polygamma(1, degrees / 2.0)))
    if excess <= 0.0:
        return math.inf, math.exp(mean)
    prior = 2.0 * _inverse_trigamma(excess)
    return prior, math.exp(mean + float(special.digamma(prior / 2.0)) - math.log(prior / 2.0))


def _inverse_trigamma(value: float) -> float:
    """x with trigamma(x) = value, by Newton's iteration of Smyth 2004, appendix."""
    if value > 1e7:
        return 1.0 / math.sqrt(value)
    if value < 1e-6:
        return 1.0 / value
    x = 0.5 + 1.0 / value
    for _ in range(50):
        trigamma = float(special.polygamma(1, x))
        step = trigamma * (1.0 - trigamma / value) / float(special.polygamma(2, x))
        x += step
        if -step / x < 1e-8:
            break
    return x


def _correlation(references: Sequence[np.ndarray], common: float) -> float:
    """Correlation of neighbouring nights, the mean of all series; 0 where it could be chance."""
    found = []
    for values in references:
        residuals = values - values.mean()
        lagged = float(np.sum(residuals[1:] * residuals[:-1]) / np.sum(residuals**2))
        found.append((values.size * lagged + 1.0) / (values.size - 4.0))
    count = len(found)
    witnesses = count / (1.0 + (count - 1) * max(0.0, common))
    chance = 1.645 / math.sqrt(witnesses * float(np.mean([r.size for r in references])))
    mean = float(np.mean(found))
    return min(mean, 0.9) if mean > chance else 0.0


def _tail(references: Sequence[np.ndarray]) -> float:
    """Degrees of a t distribution with the nights' kurtosis; infinite where it could be chance."""
    squares = np.concatenate([((r - r.mean()) / deviation(r)) ** 2 for r in references])
    excess = float(np.mean(squares**2)) - 3.0
    # Standard error of the excess of normal values: sqrt(24 / n).
    if excess <= 2.0 * math.sqrt(24.0 / squares.size):
        return math.inf
    # The excess of a t distribution is 6 / (degrees - 4). That of few values falls short of it, and by three
    # instead of four the level holds (gate_power.heavy_tails).
    return 3.0 + 6.0 / excess


def _of_mean(count: int, correlation: float) -> float:
    """Variance of the mean of `count` neighbours, that of one being 1."""
    if correlation <= 0.0:
        return 1.0 / count
    rest = 1.0 - correlation
    return ((1.0 + correlation) / rest
            - 2.0 * correlation * (1.0 - correlation**count) / (count * rest**2)) / count


def _probability(degrees: float, score: float) -> float:
    return float(special.stdtr(degrees, score) if math.isfinite(degrees) else special.ndtr(score))


def _quantile(degrees: float, p: float) -> float:
    return float(special.stdtrit(degrees, p) if math.isfinite(degrees) else special.ndtri(p))


def level_needed(found: Shift, change: float, power: float = 0.95) -> float:
    """The level at which a one-sided test finds a change of that size with that probability."""
    return _probability(found.degrees, _quantile(math.inf, power) - change / found.width)
