# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How often the gate is right, on made nights: after 60 quiet ones, with 2 % between nights and 1 % between
the iterations of one, independent for each of the cases. Every verdict is that of the gate's own code.

    PYTHONPATH=reports python tests/reports/gate_power.py FOLDER

writes gate_power.png and gate_power.csv (4000 simulations a curve, two minutes).
"""

import sys

import numpy as np

from refit_reports import gate, statistics

QUIET_NIGHTS, NIGHT_SPREAD, ITERATION_SPREAD, ITERATIONS = 60, 0.02, 0.01, 5


def nights(random, count, cases):
    """Logarithms of the nights' medians, [case, night]."""
    iterations = random.normal(0.0, ITERATION_SPREAD, (cases, count, ITERATIONS))
    return random.normal(0.0, NIGHT_SPREAD, (cases, count)) + np.median(iterations, axis=2)


def fails(values):
    """Whether the gate fails on the last night of `values` [case, night]."""
    tests = [gate._Test(f"case {i}/fraction", "1", None, _before(row), row, row)
             for i, row in enumerate(values)]
    lines = gate._throughput(tests, statistics.ASSUMED_NIGHT_SPREAD, False)
    return any(line.gate == gate.FAIL for line in lines)


class _Night:
    """Stands for the case of a night: the gate asks which record it is from."""

    def __init__(self, number):
        self.record = self
        self.path = str(number)


_NIGHTS = [_Night(n) for n in range(200)]


def _before(row):
    return _NIGHTS[: len(row) - 1]


def false_alarms(simulations, cases, seed):
    """Share of quiet nights on which the gate fails, over all metrics together."""
    random = np.random.default_rng(seed)
    return np.mean([fails(nights(random, QUIET_NIGHTS + 10, cases)) for _ in range(simulations)])


def found_within(simulations, slowdown, longest, cases, seed, slow_cases=1):
    """[night] -> share of simulations in which the gate failed on that night or before, the slowdown of
    the first `slow_cases` cases having come on night 0."""
    random = np.random.default_rng(seed)
    found = np.zeros(longest)
    for _ in range(simulations):
        values = nights(random, QUIET_NIGHTS + longest, cases)
        values[:slow_cases, QUIET_NIGHTS:] -= np.log1p(slowdown)
        for night in range(longest):
            if fails(values[:, : QUIET_NIGHTS + night + 1]):
                found[night:] += 1
                break
    return found / simulations


def draw(folder, simulations=4000):
    import csv
    import pathlib

    from refit_reports.figures.drawing import MARKERS, Figure

    rows, figure = [], Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    styles = {0.03: ("-", "o"), 0.05: ("--", MARKERS[1]), 0.1: (":", MARKERS[2])}
    quiet = false_alarms(simulations, 3, seed=1)
    for slowdown, (line, marker) in styles.items():
        found = found_within(simulations, slowdown, 10, 3, seed=2)
        axes.plot(range(1, 11), 100 * found, ls=line, marker=marker, color="black",
                  markerfacecolor="white", label=f"one of three cases {slowdown:.0%} slower")
        rows += [(slowdown, night + 1, share) for night, share in enumerate(found)]
    axes.axhline(90, color="#808080", lw=1.0)
    axes.text(3.5, 90.8, "90 %", ha="center", fontsize=9, color="#404040")
    axes.axhline(100 * quiet, color="black", lw=1.0, ls="-.",
                 label=f"false alarms: {quiet:.2%} of quiet nights, all metrics together")
    axes.set_xlabel("nights since the slowdown")
    axes.set_ylabel("found by then [% of simulations]")
    axes.set_xticks(range(1, 11))
    axes.set_ylim(-2, 103)
    axes.grid(color="#e0e0e0", lw=0.5)
    axes.set_title(f"How soon does the gate find a slowdown?\n{QUIET_NIGHTS} quiet nights before, 2 % between "
                   f"nights, 1 % between iterations, {simulations} simulations a curve", fontsize=10)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncol=2, fontsize=9, frameon=False)
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "gate_power.png", dpi=110, metadata={"Software": None})
    with open(folder / "gate_power.csv", "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["slowdown", "night", "found_by_then"])
        writer.writerows([(0.0, 1, quiet), *rows])


if __name__ == "__main__":
    draw(sys.argv[1], *map(int, sys.argv[2:]))
