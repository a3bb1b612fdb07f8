# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Made nights: copies of a real record whose samples and tensors are changed by h5py."""

import datetime
import shutil

import h5py
import numpy as np

START = datetime.datetime(2026, 1, 1, 2, 0, 0, tzinfo=datetime.timezone.utc)
NIGHT_SPREAD, ITERATION_SPREAD = 0.02, 0.01


def utc(night):
    return (START + datetime.timedelta(days=night)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def make(source, target, night, factors=(1.0,), change=None, scatter=None):
    """A record of night `night`, passed, whose times are those of `source` times factors[case]
    (the last factor holds for all further cases). `scatter`: generator for noise of the iterations.
    `change(file)`: any further edit. Returns target."""
    shutil.copyfile(source, target)
    with h5py.File(target, "r+") as file:
        file.attrs["created_utc"] = utc(night)
        file.attrs["verdict"], file.attrs["exit_code"] = "pass", 0
        for number, case in enumerate(file["cases"].values()):
            if case.attrs["outcome"] == "skipped":
                continue
            case.attrs["outcome"] = "pass"
            factor = factors[min(number, len(factors) - 1)]
            for stage in case["samples"].values():
                values = stage[:] * factor
                if scatter is not None:
                    values *= np.exp(scatter.normal(0.0, ITERATION_SPREAD, (len(values), 1)))
                stage[:] = values
        if change:
            change(file)
    return target


def archive(source, folder, count, seed, cases=3):
    """`count` quiet nights, 0 .. count - 1, each case with its own spread between nights."""
    random = np.random.default_rng(seed)
    folder.mkdir(exist_ok=True)
    for night in range(count):
        factors = np.exp(random.normal(0.0, NIGHT_SPREAD, cases))
        make(source, folder / f"night-{night:03d}.h5", night, factors, scatter=random)
    return folder


def shift_column(case, column, by, rows=None):
    """An edit for make(): adds `by` to a numeric column of the tensors that were quantized."""

    def change(file):
        dataset = file[f"cases/{case:03d}/tensors"]
        table = dataset[:]
        chosen = [i for i, recipe in enumerate(table["recipe"]) if recipe]
        chosen = chosen if rows is None else [chosen[i] for i in rows]
        table[column][chosen] += by
        dataset[:] = table

    return change


TWO_SCENARIOS = """# A comment before the first document.
---
purpose: {purpose}
weights: {{seed: {seed}}}  # of the first
---
purpose: 'what is second?'
weights: {{seed: {second}}}
"""


def two_scenarios(seed=1, second=2, purpose="what is first?"):
    """An edit for make(): the first two cases are one scenario, the others another one, each with its text."""

    def change(file):
        file.attrs["scenario_text"] = TWO_SCENARIOS.format(purpose=purpose, seed=seed, second=second)
        for number, case in enumerate(file["cases"].values()):
            name, text = ("first", purpose) if number < 2 else ("second", "what is second?")
            case.attrs["scenario"], case.attrs["purpose"] = name, text

    return change


def stopped_after(cases):
    """An edit for make(): the run was stopped from outside when so many cases were done."""

    def change(file):
        file.attrs["verdict"], file.attrs["exit_code"] = "error", 3
        file.attrs["error_rank"], file.attrs["error_stage"] = -1, "broadcast"
        file.attrs["error_message"] = "interrupted"
        for name in list(file["cases"])[cases:]:
            del file["cases"][name]

    return change


def all_of(*changes):
    """One edit of several, in order."""

    def change(file):
        for one in changes:
            one(file)

    return change
