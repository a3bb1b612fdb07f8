# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The figures of a record that are compared over nights, recomputed from samples and tensors.

Of the attributes of a case only the settings are used (what was run), never a derived figure.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

import numpy as np
import pandas as pd

from refit_reports.record import STAGES, Record, wall_by_iteration

FRACTION_OF_MEMORY_COPY = "fraction_of_memory_copy"
FRACTION_OF_LINK = "fraction_of_link"
RATE = "algbw_bytes_per_s"

FORMULAS = {
    FRACTION_OF_MEMORY_COPY: "2 x bytes on the wire (read and written once) / median wall / memory "
    "copy ceiling of the same run",
    FRACTION_OF_LINK: "bytes on the wire / median wall / rate of the paced link",
    RATE: "bytes on the wire / median wall; the run measured no ceiling",
    "sqnr_db": "-10 log10 of the mean over quantized elements of the tensors' noise to signal ratio",
}

# Settings that change how long a run measures, not what it measures.
_NEUTRAL_SETTINGS = ("iterations", "warmup", "timeout_s", "weights.path")
_GOOD_OUTCOMES = ("pass", "expected_finding", "expected_error")


@dataclasses.dataclass
class CaseFigures:
    """One case of one record.

    name       : scenario/case, the same every night.
    identity   : what was run; only equal ones are compared.
    data       : settings that decide the weights' values; only equal ones have equal digests.
    machine    : what decides the speed; only equal ones have comparable seconds.
    wall       : seconds by iteration, maximum over ranks.
    stages     : stage -> seconds by iteration, maximum over ranks.
    bytes_wire : sum over the tensors, each once.
    metric     : FRACTION_OF_MEMORY_COPY, FRACTION_OF_LINK or RATE; its denominator is `ceiling`.
    tensors    : index = name; columns of the record's table.
    """

    name: str
    record: Record
    number: int
    outcome: str
    identity: tuple
    data: tuple
    machine: tuple
    wall: np.ndarray
    stages: dict[str, np.ndarray]
    bytes_wire: int
    metric: str
    ceiling: float
    tensors: pd.DataFrame

    @property
    def measured(self) -> bool:
        """Whether the case ended as it should, with at least one iteration."""
        return self.outcome == "pass" and self.wall.size > 0 and float(np.median(self.wall)) > 0.0

    @property
    def settings(self) -> tuple:
        """Of --set, those that change what was measured."""
        return self.identity[-1]

    @property
    def sound(self) -> bool:
        return self.outcome in _GOOD_OUTCOMES

    def rates(self) -> np.ndarray:
        """The throughput metric of each iteration."""
        return self.bytes_wire / self.wall / self.ceiling

    @property
    def value(self) -> float:
        """The throughput metric of the night."""
        return self.bytes_wire / float(np.median(self.wall)) / self.ceiling

    @property
    def unit(self) -> str:
        return "B/s" if self.metric == RATE else "1"

    @property
    def quantized(self) -> pd.DataFrame:
        return self.tensors[self.tensors["recipe"] != ""]

    @property
    def sqnr_db(self) -> float:
        """Pooled over quantized elements (FORMULAS); NaN where nothing was quantized or known."""
        rows = self.quantized
        rows = rows[np.isfinite(rows["sqnr_db"])]
        elements = (rows["rows"] * rows["cols"]).to_numpy(dtype=float)
        if elements.sum() == 0.0:
            return math.nan
        noise = 10.0 ** (-rows["sqnr_db"].to_numpy(dtype=float) / 10.0)
        return float(-10.0 * np.log10(np.average(noise, weights=elements)))

    @property
    def digests(self) -> tuple:
        """Names and digests of the tensors that have one, in the order of names."""
        column = self.tensors["digest"]
        return tuple(sorted((n, d) for n, d in column.items() if d))

    def stage_medians(self) -> dict[str, float]:
        return {name: float(np.median(values)) for name, values in self.stages.items()
                if values.size}


def cases(record: Record) -> dict[str, CaseFigures]:
    """The cases of a record by name, in the record's order."""
    result: dict[str, CaseFigures] = {}
    documents = _documents(record)
    machine = machine_of(record)
    for number, row in record.cases.iterrows():
        name = f"{row['scenario']}/{row['case']}" if row["case"] else str(row["scenario"])
        counter = 1
        while name in result:
            counter += 1
            name = f"{row['scenario']}/{row['case']}#{counter}"
        samples = record.samples[number]
        tensors = record.tensors[record.tensors["case"] == number].set_index("name")
        bytes_wire = int(tensors["bytes"].sum()) if len(tensors) else 0
        link = float(row.get("link.bytes_per_s", math.nan))
        memory = record.ceilings.get("memory_copy")
        if math.isfinite(link) and link > 0.0:
            metric, ceiling = FRACTION_OF_LINK, link
        elif memory is not None and memory.value > 0.0:
            metric, ceiling = FRACTION_OF_MEMORY_COPY, memory.value / 2.0
        else:
            metric, ceiling = RATE, 1.0
        settings = _settings(record)
        result[name] = CaseFigures(
            name=name,
            record=record,
            number=int(number),
            outcome=str(row["outcome"]),
            identity=(
                *(str(row.get(key, "")) for key in (
                    "model", "scheme", "recipe", "engine", "tp", "engines", "transport")),
                record.world.get("trainers"), record.world.get("receivers"),
                None if math.isnan(link) else link,
                tuple(s for s in settings if not s.startswith(_NEUTRAL_SETTINGS)),
            ),
            data=(
                _weights_of(documents.get(str(row["scenario"]), "")),
                tuple(s for s in settings if s.startswith(("weights", "refits", "nonfinite"))),
            ),
            machine=(*machine, str(row.get("backend", ""))),
            wall=wall_by_iteration(samples),
            stages={s: seconds for s in STAGES
                    if (seconds := wall_by_iteration(samples, s)).size},
            bytes_wire=bytes_wire,
            metric=metric,
            ceiling=ceiling,
            tensors=tensors,
        )
    return result


def machine_of(record: Record) -> tuple:
    """What tells one machine from another; not the host name, which containers change each night."""
    environment = record.environment
    return tuple(str(environment.get(key, "")) for key in ("cpu", "cores"))


def from_files(figures: CaseFigures) -> bool:
    """Whether the weights were read from a checkpoint, whose content the settings do not tell."""
    text = " ".join(map(str, (figures.data[0], *figures.data[1])))
    return "safetensors" in text


def moved_tensors(before: CaseFigures, after: CaseFigures) -> pd.DataFrame:
    """Tensors whose accuracy, bytes or digest differ, in the record's order: one row each, with the
    differences after minus before, "present" = both, before or after, and "digest_same"."""
    rows = []
    names = list(dict.fromkeys([*before.tensors.index, *after.tensors.index]))
    known_before, known_after = set(before.tensors.index), set(after.tensors.index)
    for name in names:
        if name not in known_before or name not in known_after:
            rows.append({"tensor": name, "present": "before" if name in known_before else "after",
                         "sqnr_db_before": math.nan, "sqnr_db_after": math.nan,
                         "sqnr_db_change": math.nan, "max_error_over_bound_change": math.nan,
                         "saturated_change": 0, "flushed_change": 0, "bytes_change": 0,
                         "digest_same": False})
            continue
        a, b = before.tensors.loc[name], after.tensors.loc[name]
        row = {
            "tensor": name,
            "present": "both",
            "sqnr_db_before": float(a["sqnr_db"]),
            "sqnr_db_after": float(b["sqnr_db"]),
            "sqnr_db_change": _difference(a["sqnr_db"], b["sqnr_db"]),
            "max_error_over_bound_change": _difference(
                a["max_error_over_bound"], b["max_error_over_bound"]),
            "saturated_change": int(b["saturated"]) - int(a["saturated"]),
            "flushed_change": int(b["flushed"]) - int(a["flushed"]),
            "bytes_change": int(b["bytes"]) - int(a["bytes"]),
            "digest_same": a["digest"] == b["digest"],
        }
        changes = [row[key] for key in row if key.endswith("_change")]
        if not row["digest_same"] or any(c != 0 for c in changes):
            rows.append(row)
    return pd.DataFrame(rows, columns=[
        "tensor", "present", "sqnr_db_before", "sqnr_db_after", "sqnr_db_change",
        "max_error_over_bound_change", "saturated_change", "flushed_change", "bytes_change",
        "digest_same"])


def _difference(a: float, b: float) -> float:
    """b - a; 0 where neither is a number, infinite where one is and the other is not."""
    a, b = float(a), float(b)
    if math.isnan(a) and math.isnan(b) or a == b:
        return 0.0
    if not (math.isfinite(a) and math.isfinite(b)):
        return math.inf if math.isnan(a) or b > a else -math.inf
    return b - a


def _settings(record: Record) -> list[str]:
    """The values of --set on the command line, sorted."""
    found = []
    arguments = [str(a) for a in record.argv]
    for position, argument in enumerate(arguments):
        if argument == "--set" and position + 1 < len(arguments):
            found.append(arguments[position + 1])
        elif argument.startswith("--set="):
            found.append(argument[len("--set="):])
    return sorted(found)


def _documents(record: Record) -> dict[str, str]:
    """Scenario -> its text, found by the purpose, which text and cases both state: a run that ended early has
    more texts than scenarios, and scenarios that could not be read have none.

    Scenarios whose purpose no text or more than one has go by position where that is possible; else each has
    all texts.
    """
    texts = re.split(r"^---\s*$", record.scenario_text, flags=re.MULTILINE)
    texts = [text for text in texts if re.search(r"^\s*[^\s#]", text, flags=re.MULTILINE)]
    scenarios = record.scenarios()
    by_purpose = collections.defaultdict(list)
    for text in texts:
        by_purpose[_purpose_of(text)].append(text)
    ended_early = record.error is not None and len(texts) > len(scenarios)
    by_position = dict(zip(scenarios, texts)) if len(texts) == len(scenarios) or ended_early else {}
    result = {}
    for scenario in scenarios:
        rows = record.cases[record.cases["scenario"] == scenario]
        purpose = _on_one_line(str(rows.iloc[0].get("purpose", "")))
        matching = by_purpose.get(purpose, []) if purpose else []
        result[scenario] = matching[0] if len(matching) == 1 else (
            by_position.get(scenario, record.scenario_text))
    return result


def _purpose_of(text: str) -> str:
    found = re.search(r"^purpose:[ \t]*(.*)$", text, flags=re.MULTILINE)
    value = found.group(1).strip() if found else ""
    quoted = re.match(r"(['\"])(.*)\1\s*(#.*)?$", value)
    return _on_one_line(quoted.group(2) if quoted else re.sub(r"\s#.*$", "", value))


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _weights_of(text: str) -> str:
    """The lines of a scenario that decide the weights' values, without comments and spaces."""
    kept = []
    inside = False
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).rstrip()
        if not line:
            continue
        if not line[0].isspace() and not line.startswith("-"):
            inside = line.split(":")[0] in ("weights", "refits", "nonfinite")
        if inside:
            kept.append(re.sub(r"\s+", "", line))
    return "".join(kept)
