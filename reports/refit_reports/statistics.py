# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics behind compare, gate and history; pure functions of numbers, no records.

Sources of the methods:
- Mann-Whitney U: scipy.stats.mannwhitneyu.
- Bootstrap of a ratio of medians: percentile interval, B. Efron, R. Tibshirani, "An Introduction to
  the Bootstrap", 1993, chapter 13.
- Change points: binary segmentation by the two-sample Student t statistic; sources in night_noise.py.
- Several tests at once: weighted step-down of S. Holm, "A Simple Sequentially Rejective Multiple
  Test Procedure", Scandinavian Journal of Statistics 6, 1979.
"""

from __future__ import annotations

import dataclasses
import math
import warnings

import numpy as np
from scipy import special

SAME, FASTER, SLOWER, AMBIGUOUS = "SAME", "FASTER", "SLOWER", "AMBIGUOUS"

# Nights before a change that are looked at, at most.
REFERENCE_NIGHTS = 60
# A difference between two runs that is of no interest even where it is significant.
SMALLEST_CHANGE = 0.02

_RESAMPLES = 2000
_SEED = 20260101  # The same records give the same interval.


@dataclasses.dataclass
class Comparison:
    """Two sets of samples. ratio = median B / median A with its 95 % interval; p of Mann-Whitney."""

    median_a: float
    median_b: float
    ratio: float
    low: float
    high: float
    p: float
    verdict: str


def compare_samples(a: np.ndarray, b: np.ndarray, larger_is_slower: bool = True) -> Comparison:
    """Four-way verdict on positive samples (seconds, or rates with larger_is_slower=False).

    FASTER and SLOWER need all three: Mann-Whitney p <= 0.05 (with fewer than four samples on a side,
    the smallest p that is possible), an interval without 1, and a ratio beyond SMALLEST_CHANGE.
    SAME: the ratio is within SMALLEST_CHANGE, since significance is not size. Everything else is
    AMBIGUOUS, and so are fewer than two samples on a side unless the medians are equal.
    """
    a, b = (np.asarray(x, dtype=float) for x in (a, b))
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    if a.size == 0 or b.size == 0:
        return Comparison(*(math.nan,) * 6, AMBIGUOUS)
    median_a, median_b = float(np.median(a)), float(np.median(b))
    if median_a <= 0.0 or median_b <= 0.0:
        ratio = 1.0 if median_a == median_b else math.nan
        return Comparison(median_a, median_b, ratio, math.nan, math.nan, math.nan,
                          SAME if ratio == 1.0 else AMBIGUOUS)
    ratio = median_b / median_a
    if a.size < 2 or b.size < 2:
        return Comparison(median_a, median_b, ratio, math.nan, math.nan, math.nan,
                          SAME if ratio == 1.0 else AMBIGUOUS)
    random = np.random.default_rng(_SEED)
    of_a = np.median(random.choice(a, (_RESAMPLES, a.size)), axis=1)
    of_b = np.median(random.choice(b, (_RESAMPLES, b.size)), axis=1)
    low, high = np.quantile(of_b / of_a, [0.025, 0.975])
    p = mann_whitney_p(a, b)
    significant = p <= max(0.05, smallest_p(a.size, b.size)) and (low > 1.0 or high < 1.0)
    size = abs(math.log(ratio))
    margin = math.log1p(SMALLEST_CHANGE)
    if significant and size > margin:
        verdict = SLOWER if (ratio > 1.0) == larger_is_slower else FASTER
    elif size <= margin:
        verdict = SAME
    else:
        verdict = AMBIGUOUS
    return Comparison(median_a, median_b, ratio, float(low), float(high), p, verdict)


def mann_whitney_p(a: np.ndarray, b: np.ndarray) -> float:
    """Two-sided p; exact without ties up to 8 samples, as scipy decides."""
    if np.all(a == a[0]) and np.all(b == a[0]):
        return 1.0
    # Imported here: scipy.stats takes half a second, and most commands do without it.
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.mannwhitneyu(a, b, alternative="two-sided").pvalue)


def smallest_p(count_a: int, count_b: int) -> float:
    """The two-sided p of complete separation: 2 / C(a + b, a)."""
    return min(1.0, 2.0 / math.comb(count_a + count_b, count_a))


def significant(p_values: list[float], weights: list[float], level: float) -> list[bool]:
    """Weighted step-down of Holm: which hypotheses are refused with family error `level`."""
    refused = [False] * len(p_values)
    left = set(range(len(p_values)))
    while left:
        total = sum(weights[i] for i in left)
        best = min(left, key=lambda i: p_values[i] / weights[i])
        if p_values[best] > level * weights[best] / total:
            break
        refused[best] = True
        left.remove(best)
    return refused


def segments(values: np.ndarray, resolution: float, level: float = 0.001) -> list[int]:
    """Indices at which a new segment of the series starts (0 not included), in order.

    The split with the smallest p of the two-sample t test, times the number of splits, is kept where
    that is at most `level`; both sides are then searched again. A segment has at least three values,
    so that one bad night is no change. `resolution` is the least standard deviation believed.
    """
    found: list[int] = []
    pending = [(0, len(values))]
    while pending:
        first, last = pending.pop()
        split, p = _best_split(values[first:last], resolution)
        if split and p * max(1, last - first - 5) <= level:
            found.append(first + split)
            pending += [(first, first + split), (first + split, last)]
    return sorted(found)


def _best_split(values: np.ndarray, resolution: float) -> tuple[int, float]:
    """The split with the largest t score, three values or more on either side, and its two-sided p."""
    count = len(values)
    if count < 6:
        return 0, 1.0
    centred = values - values.mean()
    left = np.arange(3, count - 2)
    right = count - left
    sum_left = np.cumsum(centred)[2:count - 3]
    sum_right = centred.sum() - sum_left
    squares = np.sum(centred**2) - sum_left**2 / left - sum_right**2 / right
    spread = np.maximum(np.sqrt(np.maximum(squares, 0.0) / (count - 2)), resolution)
    # Scores are compared, not p values: those of clear steps are all 0.
    scores = np.abs(sum_right / right - sum_left / left) / (spread * np.sqrt(1.0 / left + 1.0 / right))
    best = int(np.argmax(scores))
    return int(left[best]), 2.0 * float(special.stdtr(count - 2, -scores[best]))


def latest_split(values: np.ndarray, longest: int = 30) -> int:
    """Where, within the last `longest` values, the series most likely changed: index of the first
    value after it. The series has three values or more."""
    best, best_score = len(values) - 1, -1.0
    for split in range(max(2, len(values) - longest), len(values)):
        left, right = values[:split][-REFERENCE_NIGHTS:], values[split:]
        squares = np.sum((left - left.mean()) ** 2) + np.sum((right - right.mean()) ** 2)
        spread = max(math.sqrt(squares / max(1, left.size + right.size - 2)), 1e-9)
        score = abs(right.mean() - left.mean()) / (
            spread * math.sqrt(1.0 / left.size + 1.0 / right.size)
        )
        if score > best_score:
            best, best_score = split, score
    return best
