# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""What the gate promises, by simulation with fixed seeds: few simulations always, many with --slow."""

import math

import pytest

import gate_power

FEW, MANY = 500, pytest.param(10000, marks=pytest.mark.slow)


@pytest.mark.parametrize("cases", [1, 3, 7])
def test_quiet_nights_fail_in_few_cases(cases):
    simulations = 1000
    # Two standard deviations above the promise: what so few simulations can tell.
    bound = 0.01 + 2.0 * math.sqrt(0.01 * 0.99 / simulations)
    assert gate_power.false_alarms(simulations, cases, seed=21) <= bound


@pytest.mark.slow
@pytest.mark.parametrize("cases", [1, 3, 7])
def test_quiet_nights_fail_in_less_than_one_percent(cases):
    assert gate_power.false_alarms(40000, cases, seed=26) < 0.01


@pytest.mark.parametrize("simulations", [FEW, MANY])
def test_three_percent_in_one_of_three_cases_are_found_within_ten_nights(simulations):
    found = gate_power.found_within(simulations, 0.03, 10, 3, seed=22)
    assert found[-1] >= 0.90


@pytest.mark.parametrize("simulations", [FEW, MANY])
def test_ten_percent_in_one_of_three_cases_are_found_the_first_night(simulations):
    found = gate_power.found_within(simulations, 0.10, 1, 3, seed=23)
    assert found[0] >= 0.90


@pytest.mark.parametrize("simulations", [200, MANY])
def test_a_slowdown_of_all_of_seven_cases_is_found(simulations):
    assert gate_power.found_within(simulations, 0.03, 10, 7, seed=24, slow_cases=7)[-1] >= 0.90
    assert gate_power.found_within(simulations, 0.10, 1, 7, seed=25, slow_cases=7)[0] >= 0.90
