# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What the gate learns from nights, against scipy, published formulas and series of known noise."""

import math

import numpy as np
import pytest
from scipy import stats

from refit_reports import night_noise
from refit_reports.night_noise import Noise


def shift(values, nights, noise=Noise()):
    return night_noise.shift(values, nights, (0, len(values) - nights), 0.02, noise)


def test_one_night_is_judged_by_students_t():
    random = np.random.default_rng(5)
    values = random.uniform(-0.03, 0.03, 61)  # Nothing of this is drawn in.
    mine = shift(values, 1)
    reference = values[:60]
    # The prediction interval of one more value.
    t = (values[60] - reference.mean()) / (reference.std(ddof=1) * math.sqrt(1.0 + 1.0 / 60.0))
    assert mine.p_down == pytest.approx(stats.t.cdf(t, 59), rel=1e-9)
    assert mine.p_up == pytest.approx(stats.t.sf(t, 59), rel=1e-9)


def test_ten_nights_have_p_values_that_are_evenly_spread_where_nothing_changed():
    random = np.random.default_rng(6)
    for draw in (random.standard_normal, lambda n: random.standard_t(5, n)):
        found = [shift(0.02 * draw(70), 10).p_down for _ in range(2000)]
        assert stats.kstest(found, "uniform").pvalue > 1e-3
        assert np.mean(np.array(found) < 0.01) == pytest.approx(0.01, abs=0.007)


def test_one_night_against_one_uses_the_assumed_spread():
    mine = shift(np.array([0.0, -0.1]), 1)
    assert mine.is_assumed
    assert mine.p_down == pytest.approx(stats.norm.cdf(-0.1 / (0.02 * math.sqrt(2.0))))
    # The change that would be called significant, put in, has just that p.
    again = shift(np.array([0.0, -mine.visible(0.001)]), 1)
    assert again.p_down == pytest.approx(0.001)


def test_few_nights_never_hide_a_spread_that_was_seen():
    values = np.array([0.0, 0.2, -0.2, 0.1, -0.1, 0.0])
    assert shift(values, 1).spread == pytest.approx(np.std(values[:-1], ddof=1))


def test_one_bad_night_of_ten_is_no_slowdown_of_ten():
    values = 0.02 * np.random.default_rng(7).standard_normal(70)
    values[-4] -= 0.5
    assert shift(values, 10).p_down > 1e-3
    values[-10:] -= 0.05
    assert shift(values, 10).p_down < 1e-4


def test_the_shared_variance_is_that_of_smyth():
    random = np.random.default_rng(8)
    alike = [random.normal(0.0, 0.02, 60) for _ in range(200)]
    degrees, variance = night_noise.learn(alike).variance
    assert variance == pytest.approx(4e-4, rel=0.03) and degrees > 300
    # Variances from the scaled inverse chi-square prior with 8 degrees, which is to be found again.
    prior = 4e-4 * 8.0 / random.chisquare(8, 3000)
    unlike = [random.normal(0.0, math.sqrt(v), 60) for v in prior]
    degrees, variance = night_noise.learn(unlike).variance
    assert degrees == pytest.approx(8.0, rel=0.15) and variance == pytest.approx(4e-4, rel=0.05)
    assert night_noise.learn(alike[:2]).variance[0] == 0.0


def test_tails_and_neighbours_are_seen_where_they_are_and_not_where_they_are_not():
    random = np.random.default_rng(9)

    def autoregression(correlation):
        values = random.normal(0.0, 0.02, 60)
        for i in range(1, 60):
            values[i] = correlation * values[i - 1] + math.sqrt(1.0 - correlation**2) * values[i]
        return values

    quiet = [night_noise.learn([random.normal(0.0, 0.02, 60) for _ in range(7)]) for _ in range(200)]
    assert np.mean([n.correlation > 0.0 for n in quiet]) < 0.1
    assert np.mean([math.isfinite(n.tail) for n in quiet]) < 0.1
    alike = [night_noise.learn([autoregression(0.5) for _ in range(7)]) for _ in range(50)]
    assert np.mean([n.correlation for n in alike]) == pytest.approx(0.5, abs=0.05)
    heavy = [night_noise.learn([0.02 * random.standard_t(5, 60) for _ in range(7)]) for _ in range(50)]
    assert np.mean([math.isfinite(n.tail) for n in heavy]) > 0.9


def test_the_mean_of_neighbours_that_are_alike_spreads_as_they_do():
    random = np.random.default_rng(10)
    values = random.standard_normal((20000, 10))
    for i in range(1, 10):
        values[:, i] = 0.5 * values[:, i - 1] + math.sqrt(0.75) * values[:, i]
    measured = float(np.var(values.mean(axis=1)))
    noise = Noise(correlation=0.5)
    wide = night_noise.shift(np.arange(70.0) % 2, 10, (0, 60), 0.02, noise)
    plain = night_noise.shift(np.arange(70.0) % 2, 10, (0, 60), 0.02, Noise())
    # Of ten nights and, nearly, of the sixty before: three times the variance of independent ones.
    assert (wide.width / wide.spread) ** 2 == pytest.approx(measured + 3.0 / 60.0, rel=0.05)
    assert (plain.width / plain.spread) ** 2 == pytest.approx(1.0 / 10.0 + 1.0 / 60.0)


def test_the_reference_starts_at_a_settled_change_and_ends_before_a_recent_one():
    noise = 0.02 * np.random.default_rng(11).standard_normal(120)
    assert night_noise.reference_span(noise) == (50, 110, 10)
    step = np.where(np.arange(120) >= 90, 0.15, 0.0)
    first, last, longest = night_noise.reference_span(noise + step)
    assert abs(first - 90) <= 1 and last == 110 and longest == 10
    # A slowdown of the last 30 nights is not what tonight is compared with; one of 50 nights is.
    first, last, _ = night_noise.reference_span(noise - step)
    assert abs(last - 90) <= 1 and last - first == 60
    first, last, _ = night_noise.reference_span(noise - np.where(np.arange(120) >= 70, 0.15, 0.0))
    assert abs(first - 70) <= 1 and last == 110
    # Few nights: all before tonight.
    assert night_noise.reference_span(noise[:12]) == (0, 11, 0)
