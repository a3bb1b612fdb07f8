# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What the gate promises, by simulation with fixed seeds: few simulations always, many with --slow."""

import math

import numpy as np
import pytest

import gate_power

MANY = pytest.mark.slow


def simulated(function, simulations, *arguments, **options):
    """Few on this core, many on all of them."""
    if simulations < 1000:
        return function(simulations, *arguments, **options)
    return gate_power.in_parts(function, simulations, *arguments, **options)


def at_most(share, simulations):
    """What so few simulations can tell: two standard deviations above the promise."""
    return share + 2.0 * math.sqrt(share * (1.0 - share) / simulations)


@pytest.mark.parametrize("cases", [1, 3, 7])
def test_quiet_nights_fail_in_few_cases(cases):
    simulations = 400
    assert gate_power.false_alarms(simulations, cases, seed=21) <= at_most(0.01, simulations)


@pytest.mark.slow
@pytest.mark.parametrize("cases", [1, 3, 7])
def test_quiet_nights_fail_in_less_than_one_percent(cases):
    assert simulated(gate_power.false_alarms, 40000, cases, seed=26) < 0.01


@pytest.mark.parametrize("simulations", [200, pytest.param(10000, marks=MANY)])
def test_three_percent_in_one_of_three_cases_are_found_within_ten_nights(simulations):
    found = simulated(gate_power.found_within, simulations, 0.03, 10, 3, seed=22)
    assert found[-1] >= (0.90 if simulations > 1000 else 1.0 - at_most(0.10, simulations))


@pytest.mark.parametrize("simulations", [400, pytest.param(10000, marks=MANY)])
@pytest.mark.parametrize("cases", [3, 7])
def test_ten_percent_in_one_case_are_found_the_first_night(simulations, cases):
    assert simulated(gate_power.found_within, simulations, 0.10, 1, cases, seed=23)[0] >= (
        0.90 if simulations > 1000 else 1.0 - at_most(0.10, simulations))


@pytest.mark.parametrize("simulations", [50, pytest.param(4000, marks=MANY)])
@pytest.mark.parametrize("noise", [gate_power.normal, gate_power.common])
def test_a_slowdown_of_all_of_seven_cases_is_found(simulations, noise):
    options = {"slow_cases": 7, "noise": noise}
    assert simulated(gate_power.found_within, simulations, 0.03, 10, 7, seed=24, **options)[-1] >= 0.90
    assert simulated(gate_power.found_within, simulations, 0.10, 1, 7, seed=25, **options)[0] >= 0.90


def test_one_slow_case_stands_out_where_nights_are_slow_for_all_cases_together():
    assert gate_power.found_within(100, 0.10, 1, 7, 27, 1, gate_power.common)[0] >= 0.95


@pytest.mark.slow
@pytest.mark.parametrize("noise, bound", [
    (gate_power.common, 0.01), (gate_power.uneven, 0.01), (gate_power.heavy_tails, 0.02),
    (gate_power.neighbours_alike, 0.02), (gate_power.outlier_nights, 0.02)])
@pytest.mark.parametrize("cases", [1, 3, 7])
def test_nights_of_another_noise_fail_seldom(noise, bound, cases):
    simulations = 4000
    assert simulated(gate_power.false_alarms, simulations, cases, seed=28, noise=noise) <= (
        at_most(bound, simulations))


def test_parts_on_several_cores_are_the_simulations_of_their_seeds():
    parts = [gate_power.found_within(20, 0.05, 3, 1, seed=[5, part]) for part in range(3)]
    assert len({tuple(part) for part in parts}) > 1
    assert np.array_equal(gate_power.in_parts(gate_power.found_within, 60, 0.05, 3, 1, parts=3, seed=5),
                          np.mean(parts, axis=0))


def test_an_outlier_that_was_seen_before_is_ambiguous_until_the_second_night():
    values = gate_power.nights(np.random.default_rng(29), 70, 3)
    values[1, -1] -= np.log1p(0.15)
    assert gate_power.fails(values)
    seen = values.copy()
    seen[1, [20, 40]] = values[1, -1] - 0.01
    assert gate_power.gates(seen) == {"ambiguous", "pass"}
    twice = np.concatenate([seen, seen[:, -1:]], axis=1)
    assert gate_power.fails(twice)


def test_a_case_beside_others_that_became_faster_is_no_slowdown():
    random = np.random.default_rng(30)
    values = gate_power.nights(random, 70, 7, gate_power.common)
    values[1:, -1] += 0.10
    assert "fail" not in gate_power.gates(values)
    values[0, -1] -= 0.25
    assert gate_power.fails(values)
