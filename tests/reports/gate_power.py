# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How often the gate is right, on made nights: after 60 quiet ones, with 2 % between nights and 1 % between
the iterations of one. Every verdict is that of the gate's own code.

    PYTHONPATH=reports python tests/reports/gate_power.py FOLDER [SIMULATIONS]

writes gate_power.png, gate_power.csv and gate_noise.csv (4000 simulations a figure, ten minutes).
"""

import dataclasses
import sys
from typing import Callable

import numpy as np

from refit_reports import judgement, night_noise, throughput_gate

QUIET_NIGHTS, NIGHT_SPREAD, ITERATION_SPREAD, ITERATIONS = 60, 0.02, 0.01, 5


# Noise between nights: functions of (generator, cases, nights) to standard deviations of 1 --------------


def normal(random, cases, count):
    """Independent for each of the cases."""
    return random.normal(0.0, 1.0, (cases, count))


def common(random, cases, count):
    """Nine tenths of the variance is the machine's night, the same for all cases."""
    return np.sqrt(0.9) * random.normal(0.0, 1.0, (1, count)) + (
        np.sqrt(0.1) * random.normal(0.0, 1.0, (cases, count)))


def heavy_tails(random, cases, count):
    """Student t of five degrees."""
    return random.standard_t(5, (cases, count)) / np.sqrt(5.0 / 3.0)


def neighbours_alike(random, cases, count):
    """First-order autoregression with correlation 0.5."""
    values = random.normal(0.0, 1.0, (cases, count))
    for night in range(1, count):
        values[:, night] = 0.5 * values[:, night - 1] + np.sqrt(0.75) * values[:, night]
    return values


def outlier_nights(random, cases, count):
    """Normal, but one night in thirty is 10 % slower for all cases, and the next one is not."""
    values = random.normal(0.0, 1.0, (cases, count))
    return values - np.log1p(0.1) / NIGHT_SPREAD * (random.random((1, count)) < 1.0 / 30.0)


def uneven(random, cases, count):
    """The first case spreads twice as much as the others."""
    values = random.normal(0.0, 1.0, (cases, count))
    values[0] *= 2.0
    return values


Noise = Callable[[np.random.Generator, int, int], np.ndarray]


def nights(random, count, cases, noise: Noise = normal):
    """Logarithms of the nights' medians, [case, night]."""
    iterations = random.normal(0.0, ITERATION_SPREAD, (cases, count, ITERATIONS))
    return NIGHT_SPREAD * noise(random, cases, count) + np.median(iterations, axis=2)


def gates(values):
    """The gates of all lines on the last night of `values` [case, night]."""
    series = [throughput_gate.Series(f"case {i}/fraction", "1", None, _before(row), row, row)
              for i, row in enumerate(values)]
    return {line.gate for line in throughput_gate.judge(series, night_noise.ASSUMED_NIGHT_SPREAD, False)}


def fails(values):
    return judgement.FAIL in gates(values)


@dataclasses.dataclass
class _Record:
    path: str


@dataclasses.dataclass
class _Night:
    """Stands for the case of a night: the gate asks which record it is from."""

    record: _Record


_NIGHTS = [_Night(_Record(str(n))) for n in range(200)]


def _before(row):
    return _NIGHTS[: len(row) - 1]


def false_alarms(simulations, cases, seed, noise: Noise = normal):
    """Share of quiet nights on which the gate fails, over all metrics together."""
    random = np.random.default_rng(seed)
    return np.mean([fails(nights(random, QUIET_NIGHTS + 10, cases, noise)) for _ in range(simulations)])


def found_within(simulations, slowdown, longest, cases, seed, slow_cases=1, noise: Noise = normal):
    """[night] -> share of simulations in which the gate failed on that night or before, the slowdown of
    the first `slow_cases` cases having come on night 0."""
    random = np.random.default_rng(seed)
    found = np.zeros(longest)
    for _ in range(simulations):
        values = nights(random, QUIET_NIGHTS + longest, cases, noise)
        values[:slow_cases, QUIET_NIGHTS:] -= np.log1p(slowdown)
        for night in range(longest):
            if fails(values[:, : QUIET_NIGHTS + night + 1]):
                found[night:] += 1
                break
    return found / simulations
