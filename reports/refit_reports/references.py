# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Expected figures of a machine: `[value, lower, upper, unit]` as ReFrame writes them.

A file is JSON: {"machine": {environment key: value}, "metrics": {glob: [value, lower, upper, unit]}}.
It holds for a record whose /environment has all the values of "machine"; {} holds for every machine. With
"scenarios_as_they_stand": true it holds only for cases that --set did not change.
lower and upper are fractions of value (-0.1: ten percent below); null: no bound on that side.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import json
import math
import os

from refit_reports.record import Record, RecordError


@dataclasses.dataclass
class Reference:
    """Bounds of one metric; low or high is infinite where there is none."""

    value: float
    low: float
    high: float
    unit: str
    source: str
    as_it_stands: bool = False


class References:
    """The references of one machine; the first file, in the order of names, that knows a metric wins."""

    def __init__(self, entries: list[tuple[str, Reference]]):
        self._entries = entries

    def of(self, metric: str, is_changed: bool = False) -> Reference | None:
        """`is_changed`: --set changed what the case measured."""
        for pattern, reference in self._entries:
            if fnmatch.fnmatchcase(metric, pattern) and not (is_changed and reference.as_it_stands):
                return reference
        return None


def default_folder() -> str | None:
    """scenarios/references of the checkout that this package lies in; None where there is none."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    folder = os.path.join(root, "scenarios", "references")
    return folder if os.path.isdir(folder) else None


def load(folder: str | None, record: Record) -> References:
    """The references in `folder` that hold for the record's machine. RecordError for a bad file."""
    specific, general = [], []
    if folder is None:
        return References([])
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".json"))
    except OSError as error:
        raise RecordError(f"{folder}: folder of references cannot be read: {error.strerror}") from None
    for name in names:
        path = os.path.join(folder, name)
        machine, entries = _file(path)
        if all(str(record.environment.get(k, "")) == str(v) for k, v in machine.items()):
            (specific if machine else general).extend(entries)
    return References(specific + general)


def _file(path: str) -> tuple[dict, list[tuple[str, Reference]]]:
    try:
        with open(path, encoding="utf-8") as stream:
            content = json.load(stream)
        machine, metrics = dict(content["machine"]), dict(content["metrics"])
        as_it_stands = content.get("scenarios_as_they_stand", False) is True
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordError(
            f"{path}: no file of references: {type(error).__name__}: {error}; expected JSON with the "
            f"objects 'machine' and 'metrics'"
        ) from None
    entries = []
    for pattern, row in metrics.items():
        try:
            value, lower, upper, unit = row
            value = float(value)
            low = -math.inf if lower is None else value + abs(value) * float(lower)
            high = math.inf if upper is None else value + abs(value) * float(upper)
            if not isinstance(unit, str) or not low <= value <= high:
                raise ValueError("bounds out of order, or the unit is no text")
        except (TypeError, ValueError) as error:
            raise RecordError(
                f"{path}: reference of {pattern!r} is {row!r} ({error}); expected [value, lower, upper, "
                f"unit] with lower <= 0 <= upper as fractions of value, or null for no bound"
            ) from None
        entries.append((pattern, Reference(value, low, high, unit, os.path.basename(path),
                                             as_it_stands)))
    return machine, entries
