# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics against scipy, published numbers and exact arithmetic."""

import math

import numpy as np
import pytest
from scipy import stats

from refit_reports import statistics
from refit_reports.statistics import AMBIGUOUS, FASTER, SAME, SLOWER


def test_mann_whitney_is_that_of_a_published_example():
    # The tortoise-and-hare ranks of the method's textbook example: U = 11 and 25 of 36 pairs.
    hare, tortoise = np.array([2.0, 3, 4, 5, 6, 12]), np.array([1.0, 7, 8, 9, 10, 11])
    # Exact: counted over all C(12, 6) = 924 orders of the ranks.
    import itertools

    u = sum(a > b for a in tortoise for b in hare)
    assert u == 25
    extreme = 0
    for chosen in itertools.combinations(range(1, 13), 6):
        rest = [x for x in range(1, 13) if x not in chosen]
        other = sum(a > b for a in chosen for b in rest)
        extreme += abs(other - 18) >= abs(u - 18)
    assert statistics.mann_whitney_p(hare, tortoise) == pytest.approx(extreme / 924)


def test_equal_samples_have_p_1_without_a_warning(recwarn):
    assert statistics.mann_whitney_p(np.ones(5), np.ones(4)) == 1.0
    assert not recwarn.list


def test_smallest_p_is_complete_separation():
    assert statistics.smallest_p(3, 3) == pytest.approx(0.1)
    assert statistics.mann_whitney_p(np.arange(5.0), np.arange(5.0) + 9) == pytest.approx(
        statistics.smallest_p(5, 5))


@pytest.mark.parametrize(
    "a, b, verdict",
    [
        ([1.00, 1.01, 0.99, 1.02, 0.98], [1.00, 1.01, 0.99, 1.02, 0.98], SAME),
        ([1.00, 1.01, 0.99, 1.02, 0.98], [1.20, 1.21, 1.19, 1.22, 1.18], SLOWER),
        ([1.20, 1.21, 1.19, 1.22, 1.18], [1.00, 1.01, 0.99, 1.02, 0.98], FASTER),
        # Clearly different, and too small to matter.
        ([1.000, 1.001, 0.999, 1.002, 0.998], [1.010, 1.011, 1.009, 1.012, 1.008], SAME),
        ([1.0, 2.0, 0.5, 1.5, 0.7], [1.1, 2.2, 0.5, 1.4, 0.9], AMBIGUOUS),
        ([1.0], [1.5], AMBIGUOUS),
        ([], [1.0], AMBIGUOUS),
        ([1.0], [1.0], SAME),
    ],
)
def test_four_way_verdict(a, b, verdict):
    assert statistics.compare_samples(np.array(a), np.array(b)).verdict == verdict


def test_a_rate_that_rises_is_faster():
    a, b = np.array([1.0, 1.01, 0.99, 1.02]), np.array([1.5, 1.51, 1.49, 1.52])
    assert statistics.compare_samples(a, b, larger_is_slower=False).verdict == FASTER


def test_interval_of_the_ratio_agrees_with_scipys_bootstrap():
    random = np.random.default_rng(3)
    a, b = random.lognormal(0.0, 0.1, 30), random.lognormal(0.1, 0.1, 30)
    mine = statistics.compare_samples(a, b)
    theirs = stats.bootstrap(
        (a, b), lambda x, y, axis: np.median(y, axis=axis) / np.median(x, axis=axis),
        method="percentile", n_resamples=5000, random_state=1).confidence_interval
    assert mine.low == pytest.approx(theirs.low, rel=0.02)
    assert mine.high == pytest.approx(theirs.high, rel=0.02)


def test_holm_is_that_of_a_hand_computed_example():
    p = [0.01, 0.04, 0.03, 0.005]
    # Equal weights: 0.005 <= 0.05/4, 0.01 <= 0.05/3, 0.03 > 0.05/2: two are refused.
    assert statistics.significant(p, [0.25] * 4, 0.05) == [True, False, False, True]
    # Weight matters: 0.04 is refused where it has nearly all of the level.
    assert statistics.significant([0.04, 0.04], [0.9, 0.1], 0.05) == [True, True]
    assert statistics.significant([0.04, 0.04], [0.5, 0.5], 0.05) == [False, False]


def test_segments_find_planted_steps_and_no_others():
    random = np.random.default_rng(11)
    noise = random.normal(0.0, 0.02, 120)
    steps = np.repeat([0.0, -0.1, 0.05], 40)
    found = statistics.segments(noise + steps, 1e-3)
    assert len(found) == 2 and abs(found[0] - 40) <= 2 and abs(found[1] - 80) <= 2
    assert statistics.segments(np.zeros(50), 1e-3) == []
    assert statistics.segments(np.array([1.0]), 1e-3) == []
    one_bad_night = np.zeros(50)
    one_bad_night[20] = -0.5
    assert statistics.segments(one_bad_night + noise[:50], 1e-3) == []


def test_quiet_series_have_few_false_segments():
    random = np.random.default_rng(12)
    wrong = sum(bool(statistics.segments(random.normal(0.0, 1.0, 60), 1e-3)) for _ in range(300))
    assert wrong <= 3


def test_latest_split_is_where_the_step_is():
    values = np.concatenate([np.zeros(30), np.full(5, -0.2)]) + 0.001 * np.sin(np.arange(35))
    assert statistics.latest_split(values) == 30
