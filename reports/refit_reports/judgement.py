# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""One line of the gate, and how its numbers are told."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

PASS, FAIL, AMBIGUOUS_GATE, NOTHING = "pass", "fail", "ambiguous", "nothing"


@dataclasses.dataclass
class Judgement:
    """One line of the gate. `gate`: pass, fail, ambiguous or nothing; low and high bound `value`."""

    name: str
    kind: str
    unit: str
    value: float
    reference: float
    low: float
    high: float
    verdict: str
    gate: str
    evidence: str

    def as_json(self) -> dict[str, Any]:
        row = dataclasses.asdict(self)
        for key in ("value", "reference", "low", "high"):
            row[key] = row[key] if math.isfinite(row[key]) else None
        return row


def percent(change: float) -> str:
    """A change of a logarithm."""
    return f"{math.expm1(change):+.1%}"


def seconds(value: float) -> str:
    return f"{value:.3f} s" if value >= 1.0 else f"{value * 1e3:.3g} ms"
