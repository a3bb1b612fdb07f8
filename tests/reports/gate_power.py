# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How often the gate is right, on made nights: after 60 quiet ones, with 2 % between nights and 1 % between
the iterations of one. Every verdict is that of the gate's own code.

    PYTHONPATH=reports python tests/reports/gate_power.py power FOLDER [SIMULATIONS]
    PYTHONPATH=reports python tests/reports/gate_power.py quiet FOLDER NOISE CASES SEED SIMULATIONS

The first writes gate_power.png and gate_power.csv, the second adds a row to gate_noise.csv: how many quiet nights
of that noise failed. Rows of the same noise and cases and other seeds are parts of one experiment.
"""

import concurrent.futures
import csv
import dataclasses
import pathlib
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


def in_parts(function, simulations, *arguments, parts=16, **options):
    """The mean of what `function` gives for so many parts of the simulations, each with a seed of its own, on all
    cores. `seed` is one of the options. The result does not depend on the number of cores."""
    seed = options.pop("seed")
    with concurrent.futures.ProcessPoolExecutor() as pool:
        futures = [pool.submit(function, simulations // parts, *arguments, seed=[seed, part], **options)
                   for part in range(parts)]
        return np.mean([future.result() for future in futures], axis=0)


def add_quiet(folder, noise, cases, seed, simulations):
    """Adds a row to gate_noise.csv: what the seed gave."""
    path = pathlib.Path(folder) / "gate_noise.csv"
    alarms = round(false_alarms(simulations, cases, seed, globals()[noise]) * simulations)
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        if is_new:
            writer.writerow(["noise", "cases", "seed", "simulations", "alarms"])
        writer.writerow([noise, cases, seed, simulations, alarms])


# slowdown, slow cases, cases -> line and marker of the picture
_CURVES = {(0.03, 1, 3): ("-", "o"), (0.03, 1, 7): ("-", "s"), (0.05, 1, 3): ("--", "^"),
           (0.1, 1, 3): (":", "D"), (0.1, 1, 7): (":", "v")}


def draw_power(folder, simulations=1000):
    from refit_reports.figures.drawing import Figure

    rows, figure = [], Figure(figsize=(9, 5.4), layout="constrained")
    axes = figure.add_subplot()
    for (slowdown, slow, cases), (line, marker) in _CURVES.items():
        found = found_within(simulations, slowdown, 10, cases, seed=2, slow_cases=slow)
        axes.plot(range(1, 11), 100 * found, ls=line, marker=marker, color="black",
                  markerfacecolor="white", label=f"one of {cases} cases {slowdown:.0%} slower")
        rows += [(slowdown, slow, cases, simulations, night + 1, share)
                 for night, share in enumerate(found)]
    axes.axhline(90, color="#808080", lw=1.0)
    axes.text(3.5, 90.8, "90 %", ha="center", fontsize=9, color="#404040")
    axes.set_xlabel("nights since the slowdown")
    axes.set_ylabel("found by then [% of simulations]")
    axes.set_xticks(range(1, 11))
    axes.set_ylim(-2, 103)
    axes.grid(color="#e0e0e0", lw=0.5)
    axes.set_title(f"How soon does the gate find a slowdown?\n{QUIET_NIGHTS} quiet nights before, 2 % between "
                   f"nights, 1 % between iterations, {simulations} simulations a curve", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=3, fontsize=9, frameon=False)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "gate_power.png", dpi=110, metadata={"Software": None})
    with open(folder / "gate_power.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["slowdown", "slow_cases", "cases", "simulations", "night", "found_by_then"])
        writer.writerows(rows)


if __name__ == "__main__":
    if sys.argv[1] == "power":
        draw_power(sys.argv[2], *map(int, sys.argv[3:]))
    else:
        add_quiet(sys.argv[2], sys.argv[3], *map(int, sys.argv[4:]))
