# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The only reader of a record; its layout is src/record/schema.md, version 1."""

from __future__ import annotations

import dataclasses
import os
import re
from typing import Any, Sequence

import h5py
import numpy as np
import pandas as pd

SCHEMA_VERSION = 1
TABLES = ("tensors", "buckets", "findings")
STAGES = ["gather", "quantize", "staging", "pack", "broadcast", "check", "load", "commit"]

# Groups of a case that hold more than attributes.
_NOT_FLAT = ("samples", "dimensions", "notes", "histograms")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"  # HDF5 file format, section II.A


class RecordError(Exception):
    """A file that cannot be read as a record; the message names it, the reason and the remedy."""


@dataclasses.dataclass
class Ceiling:
    value: float
    unit: str
    how: str


@dataclasses.dataclass
class Histograms:
    """What was loaded in one case.

    codes      : int64 [256], how often each code was loaded.
    scale_log2 : float64 [bins], lower edge of each bin as log2(scale), ascending; empty bins are left out.
    scales     : int64 [bins], scales in each bin.
    """

    codes: np.ndarray
    scale_log2: np.ndarray
    scales: np.ndarray
    scale_bin_width: float


@dataclasses.dataclass
class Record:
    """One record.

    cases    : one row a case, index = case number; nested attributes as "wall_s.median".
    tensors, buckets, findings : all cases below each other, column "case" = case number.
    ranks    : one row a rank.
    samples  : samples[case number][stage] = float64 [iteration, rank], seconds; "wall" included.
    notes    : notes[case number] = {key: text}.
    histograms : histograms[case number], only of cases that loaded codes; none in records made before.
    units    : units[table][column] = unit of the table's column.
    error    : None, or {"rank", "stage", "message"} where the verdict is "error".
    """

    path: str
    created_utc: str
    argv: list[str]
    scenario_text: str
    verdict: str
    exit_code: int
    error: dict[str, Any] | None
    tool: dict[str, Any]
    world: dict[str, int]
    environment: dict[str, str]
    ceilings: dict[str, Ceiling]
    ranks: pd.DataFrame
    cases: pd.DataFrame
    tensors: pd.DataFrame
    buckets: pd.DataFrame
    findings: pd.DataFrame
    samples: dict[int, dict[str, np.ndarray]]
    notes: dict[int, dict[str, str]]
    units: dict[str, dict[str, str]]
    histograms: dict[int, Histograms] = dataclasses.field(default_factory=dict)

    def scenarios(self) -> list[str]:
        """Names of the scenarios in the order of their first case."""
        if self.cases.empty:
            return []
        return list(dict.fromkeys(self.cases["scenario"]))

    def samples_table(self) -> pd.DataFrame:
        """All samples below each other: case, stage ("wall" included), iteration, rank, seconds; without
        the ranks that have no part in a stage."""
        parts = []
        for number, stages in self.samples.items():
            for stage, values in stages.items():
                iteration, rank = np.nonzero(~np.isnan(values))
                parts.append(pd.DataFrame({
                    "case": number, "stage": stage, "iteration": iteration, "rank": rank,
                    "seconds": values[iteration, rank]}))
        columns = ["case", "stage", "iteration", "rank", "seconds"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)

    def of_scenario(self, scenario: str) -> Record:
        """The same record with the cases of one scenario only; case numbers stay."""
        numbers = list(self.cases.index[self.cases["scenario"] == scenario])

        def chosen(table: pd.DataFrame) -> pd.DataFrame:
            return table[table["case"].isin(numbers)].reset_index(drop=True)

        return dataclasses.replace(
            self,
            cases=self.cases.loc[numbers],
            tensors=chosen(self.tensors),
            buckets=chosen(self.buckets),
            findings=chosen(self.findings),
            samples={n: self.samples[n] for n in numbers},
            notes={n: self.notes[n] for n in numbers},
            histograms={n: self.histograms[n] for n in numbers if n in self.histograms},
        )


def wall_by_iteration(samples: dict[str, np.ndarray], stage: str = "wall") -> np.ndarray:
    """Seconds by iteration: the maximum over ranks; iterations without any number are left out."""
    values = samples.get(stage)
    if values is None or values.size == 0:
        return np.empty(0)
    present = values[~np.isnan(values).all(axis=1)]
    return np.nanmax(present, axis=1) if present.size else np.empty(0)


def slowest_rank(values: np.ndarray) -> int:
    """The rank with the largest median over iterations; -1 where no rank has a part."""
    if values.size == 0 or np.isnan(values).all():
        return -1
    with_part = np.flatnonzero(~np.isnan(values).all(axis=0))
    return int(with_part[np.argmax(np.nanmedian(values[:, with_part], axis=0))])


def load(path: str | os.PathLike[str], tables: Sequence[str] = TABLES) -> Record:
    """Reads one record; tables that are not named are left empty. Raises RecordError for every file that is
    none, whatever the reason."""
    path = os.fspath(path)
    _refuse_what_is_no_hdf5(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        if "truncated" in str(error):
            raise RecordError(
                f"{path}: truncated HDF5 file ({error}); copy it again, or run the scenario again"
            ) from None
        raise RecordError(f"{path}: damaged HDF5 file ({error}); copy it again") from None
    with file:
        try:
            _refuse_other_schemas(path, file)
            return _read(path, file, tables)
        except (OSError, KeyError, ValueError, RuntimeError, TypeError, AttributeError) as error:
            raise RecordError(
                f"{path}: damaged record: {type(error).__name__}: {error}; expected the layout of "
                f"src/record/schema.md; copy it again, or run the scenario again"
            ) from None


def _refuse_what_is_no_hdf5(path: str) -> None:
    if os.path.isdir(path):
        raise RecordError(f"{path}: is a folder; name the records in it: {path.rstrip('/')}/*.h5")
    try:
        with open(path, "rb") as stream:
            start = stream.read(len(_SIGNATURE))
    except FileNotFoundError:
        raise RecordError(
            f"{path}: no such file; refitbench run prints the path of its record"
        ) from None
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None
    if start != _SIGNATURE:
        found = "an empty file" if not start else f"a file that starts with {start!r}"
        raise RecordError(
            f"{path}: not an HDF5 file: found {found}, expected the record of a run (.h5)"
        )


def _refuse_other_schemas(path: str, file: h5py.File) -> None:
    schema = file.attrs.get("schema")
    if schema is None:
        raise RecordError(
            f"{path}: HDF5 file without the attribute 'schema', so no record of refitbench; "
            f"expected schema 'refitbench.record/{SCHEMA_VERSION}'"
        )
    match = re.fullmatch(r"refitbench\.record/(\d+)", _text(schema))
    if match is None:
        raise RecordError(
            f"{path}: schema {_text(schema)!r} is no record of refitbench; expected "
            f"'refitbench.record/{SCHEMA_VERSION}'"
        )
    if int(match.group(1)) > SCHEMA_VERSION:
        raise RecordError(
            f"{path}: record of schema {match.group(1)}, newer than the schema {SCHEMA_VERSION} "
            f"that this version reads; use the reports of the refitbench that wrote it"
        )


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _plain(value: Any) -> Any:
    """An attribute as a Python value."""
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value.tolist()]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _attributes(group: h5py.Group) -> dict[str, Any]:
    return {key: _plain(value) for key, value in group.attrs.items()}


def _table(dataset: h5py.Dataset) -> tuple[pd.DataFrame, dict[str, str]]:
    rows = dataset[()]
    columns = {}
    for name in rows.dtype.names:
        column = rows[name]
        columns[name] = (
            np.array([_text(item) for item in column], dtype=object)
            if column.dtype == object
            else column
        )
    units = {
        key[len("unit_") :]: _text(value)
        for key, value in dataset.attrs.items()
        if key.startswith("unit_")
    }
    return pd.DataFrame(columns), units


def _flat(group: h5py.Group) -> dict[str, Any]:
    """Attributes of a case and of the groups below it, "wall_s.median"; formulas are left out."""
    result = {k: v for k, v in _attributes(group).items() if not k.endswith("formula")}
    for name, child in group.items():
        if not isinstance(child, h5py.Group) or name in _NOT_FLAT:
            continue
        for key, value in _flat(child).items():
            result[f"{name}.{key}"] = value
    if "floor" in group:
        result["floor.formula"] = _text(group["floor"].attrs.get("formula", ""))
    return result


def _histograms(group: h5py.Group) -> Histograms:
    return Histograms(
        codes=group["codes"][()],
        scale_log2=group["scale_log2"][()],
        scales=group["scales"][()],
        scale_bin_width=float(group.attrs["scale_bin_width"]),
    )


def _read(path: str, file: h5py.File, wanted: Sequence[str]) -> Record:
    cases: dict[int, dict[str, Any]] = {}
    tables: dict[str, list[pd.DataFrame]] = {name: [] for name in wanted}
    samples: dict[int, dict[str, np.ndarray]] = {}
    notes: dict[int, dict[str, str]] = {}
    units: dict[str, dict[str, str]] = {}
    histograms: dict[int, Histograms] = {}
    for name in sorted(file["cases"], key=int):
        number = int(name)
        group = file["cases"][name]
        cases[number] = _flat(group)
        samples[number] = {key: value[()] for key, value in group["samples"].items()}
        notes[number] = _attributes(group["notes"])
        if "histograms" in group:
            histograms[number] = _histograms(group["histograms"])
        for table, parts in tables.items():
            frame, units[table] = _table(group[table])
            frame.insert(0, "case", np.full(len(frame), number, dtype=np.int64))
            parts.append(frame)
    ranks, units["ranks"] = _table(file["ranks"])

    def joined(table: str) -> pd.DataFrame:
        parts = tables.get(table, [])
        filled = [part for part in parts if len(part)] or parts[:1]
        return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame({"case": []})

    root = _attributes(file)
    error = None
    if root["verdict"] == "error":
        error = {key: root[f"error_{key}"] for key in ("rank", "stage", "message")}
    return Record(
        path=path,
        created_utc=root["created_utc"],
        argv=list(root["argv"]),
        scenario_text=root["scenario_text"],
        verdict=root["verdict"],
        exit_code=root["exit_code"],
        error=error,
        tool=_attributes(file["tool"]),
        world=_attributes(file["world"]),
        environment=_attributes(file["environment"]),
        ceilings={
            name: Ceiling(
                float(dataset[()]), _text(dataset.attrs["unit"]), _text(dataset.attrs["how"])
            )
            for name, dataset in file["ceilings"].items()
        },
        ranks=ranks,
        cases=pd.DataFrame.from_dict(cases, orient="index"),
        tensors=joined("tensors"),
        buckets=joined("buckets"),
        findings=joined("findings"),
        samples=samples,
        notes=notes,
        units=units,
        histograms=histograms,
    )
