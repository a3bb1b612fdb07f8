# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The report: one self-contained page, and each picture and its numbers beside it."""

from __future__ import annotations

import base64
import html
import io
import math
import os
import re
from typing import Any

import numpy as np
import pandas as pd

from refit_reports import __version__, figures
from refit_reports.record import Record, wall_by_iteration

_STYLE = """
body { font-family: sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem;
       color: #111; }
table { border-collapse: collapse; margin: 0.6rem 0; font-size: 0.9rem; }
th, td { border: 1px solid #999; padding: 0.2rem 0.5rem; text-align: left; vertical-align: top; }
th { background: #eee; }
td.number { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.verdict { font-size: 1.3rem; font-weight: bold; border: 3px solid #111; display: inline-block;
           padding: 0.3rem 0.8rem; }
.remark { border-left: 5px solid #111; padding: 0.3rem 0.8rem; background: #f4f4f4; }
.wide { overflow-x: auto; }
figure { margin: 1.2rem 0; } figure img { max-width: 100%; border: 1px solid #ccc; }
figcaption { font-size: 0.9rem; max-width: 60rem; }
pre { background: #f4f4f4; padding: 0.6rem; overflow-x: auto; white-space: pre-wrap; }
"""
_PIXELS_PER_INCH = 110
_MOST_FINDINGS_ON_PAGE = 200


def write(records: list[Record], folder: str) -> str:
    """Writes index.html, and PNG and CSV files, into `folder`; returns the page's absolute path.

    Raises OSError where the folder cannot be written to.
    """
    os.makedirs(folder, exist_ok=True)
    parts = [(r, r.of_scenario(s)) for r in records for s in r.scenarios()]
    body = []
    taken: set[str] = set()
    for record in records:
        body.append(_run_header(record, len(records) > 1))
        for scenario in record.scenarios():
            part = record.of_scenario(scenario)
            prefix = _file_prefix(record, scenario, taken) if len(parts) > 1 else ""
            body.append(_scenario(part, folder, prefix))
        body.append(_environment(record))
    titles = list(dict.fromkeys(_purpose(part) for _, part in parts)) or ["refitbench report"]
    page = (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f"<title>{_escaped(titles[0])}</title>\n<style>{_STYLE}</style></head><body>\n"
        + "\n".join(body)
        + f"\n<p>refit_reports {__version__}</p>\n</body></html>\n"
    )
    path = os.path.join(folder, "index.html")
    with open(path, "w", encoding="utf-8", errors="replace") as stream:
        stream.write(page)
    return os.path.abspath(path)


# ---------------------------------------------------------------------------------------------
# Sections


def _run_header(record: Record, with_name: bool) -> str:
    verdict = record.verdict.upper()
    lines = []
    if with_name:
        lines.append(f"<h1>{_escaped(os.path.basename(record.path))}</h1>")
    elif record.scenarios():
        purposes = dict.fromkeys(_purpose(record.of_scenario(s)) for s in record.scenarios())
        lines.append(f"<h1>{_escaped(' / '.join(purposes))}</h1>")
    else:
        lines.append("<h1>A run without cases</h1>")
    lines.append(f'<p class="verdict">{_escaped(verdict)} (exit code {record.exit_code})</p>')
    if record.error is not None:
        rank = record.error["rank"]
        who = f"rank {rank}" if rank >= 0 else "no rank at fault"
        lines.append(
            f"<p><strong>Ended early</strong> in stage {_escaped(record.error['stage'])} "
            f"({who}): {_escaped(record.error['message'])}</p>"
        )
    lines.append(
        f"<p>Run of {_escaped(record.created_utc)} with {record.world['trainers']} trainer and "
        f"{record.world['receivers']} receiver ranks; record <code>{_escaped(record.path)}</code>"
        "</p>"
    )
    return "\n".join(lines)


def _scenario(record: Record, folder: str, prefix: str) -> str:
    lines = [f"<h2>{_escaped(_purpose(record))}</h2>" if prefix else ""]
    lines.append("<h2>Findings</h2>")
    lines.append(_findings(record, prefix))
    _to_csv(record.findings, folder, f"{prefix}findings")
    for number, notes in record.notes.items():
        if "remark" in notes:
            name = _escaped(record.cases.loc[number, "case"])
            lines.append(
                f'<p class="remark">Case {number:03d} {name}: {_escaped(notes["remark"])}</p>'
            )
    lines.append("<h2>Cases</h2>")
    table = case_table(record)
    _to_csv(table, folder, f"{prefix}cases")
    lines.append(_cases(table))
    for module in figures.ALL:
        for drawing in module.draw(record):
            name = prefix + drawing.name
            _to_csv(drawing.numbers, folder, name)
            picture = io.BytesIO()
            drawing.figure.savefig(
                picture, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None}
            )
            with open(os.path.join(folder, f"{name}.png"), "wb") as stream:
                stream.write(picture.getvalue())
            data = base64.b64encode(picture.getvalue()).decode("ascii")
            lines.append(
                f'<figure><img alt="{_escaped(drawing.caption)}" '
                f'src="data:image/png;base64,{data}">\n'
                f"<figcaption>{_escaped(drawing.caption)} Numbers: {_escaped(name)}.csv"
                "</figcaption></figure>"
            )
    return "\n".join(lines)


def _findings(record: Record, prefix: str) -> str:
    outcomes = record.cases["outcome"].value_counts()
    counts = ", ".join(f"{count} {name}" for name, count in outcomes.items())
    summary = f"<p>{len(record.cases)} cases: {_escaped(counts)}.</p>"
    if record.findings.empty:
        return summary + "<p>No findings.</p>"
    columns = [
        "case", "check", "severity", "tensor", "index", "measured", "limit", "rank", "message",
    ]
    # Errors first; within a severity the order of the record.
    rows = record.findings[columns].sort_values("severity", kind="stable")
    shown = rows.head(_MOST_FINDINGS_ON_PAGE)
    text = summary + _table(columns, shown.to_numpy().tolist())
    if len(rows) > len(shown):
        more = len(rows) - len(shown)
        text += f"<p>{more} further findings are in {_escaped(prefix)}findings.csv.</p>"
    return text


def case_table(record: Record) -> pd.DataFrame:
    """One row a case, SI units; wall_over_bf16 is against the BF16 case of the same world and link.

    Wall times are computed again from the samples: the maximum over ranks by iteration.
    """
    rows = []
    for number, row in record.cases.iterrows():
        wall = wall_by_iteration(record.samples[number])
        median = float(np.median(wall)) if wall.size else math.nan
        reference = _bf16_case(record, number)
        bf16 = math.nan
        if reference is not None:
            bf16 = float(np.median(wall_by_iteration(record.samples[reference])))
        rows.append(
            {
                "case": number,
                "name": row["case"],
                "model": row["model"],
                "scheme": row["scheme"],
                "recipe": row["recipe"],
                "engine": row["engine"],
                "tp": row["tp"],
                "transport": row["transport"],
                "outcome": row["outcome"],
                "reason": row["skip_reason"] or record.notes[number].get("error_message", ""),
                "iterations": len(wall),
                "wall_median_s": median,
                "wall_min_s": float(wall.min()) if wall.size else math.nan,
                "wall_max_s": float(wall.max()) if wall.size else math.nan,
                "wall_over_bf16": median / bf16,
                "bf16_case": -1 if reference is None else reference,
                "floor_wall_s": row["floor.wall_s"],
                "wall_over_floor": median / row["floor.wall_s"],
                "bytes_bf16": row["bytes_bf16"],
                "bytes_wire": row["bytes_wire"],
                "byte_ratio": row["byte_ratio"],
                "algbw_bytes_per_s": row["bytes_wire"] / median,
                "link_bytes_per_s": row["link.bytes_per_s"],
                "link_emulated": row["link.emulated"],
                "cpu_s": row["cpu_s.sum"],
                "peak_rss_max_bytes": row["peak_rss_bytes.max"],
                "sqnr_db": row["accuracy.sqnr_db"],
                "max_error_over_bound": row["accuracy.max_error_over_bound"],
                "saturated": row["accuracy.saturated"],
                "flushed": row["accuracy.flushed"],
            }
        )
    return pd.DataFrame(rows)


def _bf16_case(record: Record, number: int) -> int | None:
    """The first measured BF16 case of the same model, world, transport and link."""
    row = record.cases.loc[number]
    if row["scheme"] == "bf16":
        return None
    same = record.cases[record.cases["scheme"] == "bf16"]
    for column in ("model", "tp", "engines"):
        same = same[same[column] == row[column]]
    link = row["link.bytes_per_s"]
    links = same["link.bytes_per_s"]
    same = same[links.isna() if math.isnan(link) else links == link]
    same = same[same["transport"] == row["transport"]]
    for candidate in same.index:
        if wall_by_iteration(record.samples[candidate]).size:
            return int(candidate)
    return None


def _cases(table: pd.DataFrame) -> str:
    header = [
        "case", "name", "model", "scheme, recipe", "engine", "outcome",
        "wall median", "min", "max", "wall / BF16", "floor", "wall / floor",
        "bytes on the wire", "bytes / BF16", "algbw",
        "SQNR", "error / bound", "saturated", "flushed",
    ]
    rows = []
    for row in table.itertuples(index=False):
        outcome = row.outcome + (f": {row.reason}" if row.reason else "")
        measured = row.outcome not in ("skipped", "error") or row.iterations > 0
        link = ""
        if not math.isnan(row.link_bytes_per_s):
            emulated = ", emulated" if row.link_emulated else ""
            link = f" (link {_rate(row.link_bytes_per_s)}{emulated})"
        rows.append(
            [
                f"{row.case:03d}",
                row.name,
                row.model,
                f"{row.scheme} {row.recipe}".strip(),
                f"{row.engine}, TP {row.tp}, {row.transport}{link}" if row.engine else "",
                outcome,
                _seconds(row.wall_median_s),
                _seconds(row.wall_min_s),
                _seconds(row.wall_max_s),
                _fixed(row.wall_over_bf16, 3),
                _seconds(row.floor_wall_s),
                _fixed(row.wall_over_floor, 2),
                _bytes(row.bytes_wire) if measured else "–",
                _fixed(row.byte_ratio, 3),
                _rate(row.algbw_bytes_per_s),
                _fixed(row.sqnr_db, 2, " dB"),
                _fixed(row.max_error_over_bound, 3) if measured else "–",
                f"{row.saturated}" if measured else "–",
                f"{row.flushed}" if measured else "–",
            ]
        )
    return _table(header, rows, numbers_from=6)


def _environment(record: Record) -> str:
    rows = [["refitbench", f"{record.tool['version']}, commit {record.tool['commit']}"
             + (" with local changes" if record.tool["dirty"] else "")]]
    rows += [[key, value] for key, value in sorted(record.environment.items())]
    ceilings = [[n, f"{_rate(c.value)}" if c.unit == "B/s" else f"{c.value:g} {c.unit}", c.how]
                for n, c in record.ceilings.items()]
    lines = ["<h2>Environment</h2>", _table(["what", "value"], rows)]
    if ceilings:
        lines += ["<h3>Ceilings of this machine</h3>", _table(["what", "value", "how"], ceilings)]
    columns = list(record.ranks.columns)
    lines += ["<h3>Ranks</h3>", _table(columns, record.ranks.to_numpy().tolist())]
    lines += [
        "<h3>Command</h3>",
        f"<pre>{_escaped(' '.join(record.argv))}</pre>",
        "<h3>Scenario</h3>",
        f"<pre>{_escaped(record.scenario_text)}</pre>",
    ]
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------
# Text


def _purpose(record: Record) -> str:
    return record.cases["purpose"].iloc[0] or record.cases["scenario"].iloc[0]


def _file_prefix(record: Record, scenario: str, taken: set[str]) -> str:
    """Record and scenario as the start of a file name that is not in `taken`, and adds it there."""
    stem = os.path.splitext(os.path.basename(record.path))[0]
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{stem}.{scenario}")
    prefix, counter = f"{name}.", 1
    while prefix in taken:
        counter += 1
        prefix = f"{name}-{counter}."
    taken.add(prefix)
    return prefix


def _to_csv(table: pd.DataFrame, folder: str, name: str) -> None:
    table.to_csv(os.path.join(folder, f"{name}.csv"), index=False)


def _escaped(value: Any) -> str:
    return html.escape(str(value))


def _table(header: list[str], rows: list[list[Any]], numbers_from: int | None = None) -> str:
    lines = ["<tr>" + "".join(f"<th>{_escaped(name)}</th>" for name in header) + "</tr>"]
    for row in rows:
        cells = []
        for position, value in enumerate(row):
            is_number = numbers_from is not None and position >= numbers_from
            cells.append(f"<td{' class=number' if is_number else ''}>{_escaped(value)}</td>")
        lines.append("<tr>" + "".join(cells) + "</tr>")
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _fixed(value: float, digits: int, unit: str = "") -> str:
    return f"{value:.{digits}f}{unit}" if math.isfinite(value) else "–"


def _seconds(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value:.3f} s" if value >= 1.0 else f"{value * 1e3:.3g} ms"


def _bytes(value: float) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if value >= size:
            return f"{value / size:.2f} {unit}"
    return f"{value:.0f} B"


def _rate(value: float) -> str:
    if not math.isfinite(value):
        return "–"
    return f"{value / 1e9:.3g} GB/s" if value >= 1e9 else f"{value / 1e6:.3g} MB/s"
