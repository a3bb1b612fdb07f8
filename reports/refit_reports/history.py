# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""How the figures of an archive developed: pictures, numbers and change points; no verdict."""

from __future__ import annotations

import html
import io
import math
import os
import re

import numpy as np
import pandas as pd

from refit_reports import __version__, metrics, statistics
from refit_reports.metrics import CaseFigures
from refit_reports.record import Record

_AXES = {
    metrics.FRACTION_OF_MEMORY_COPY: "throughput as a fraction of memory copy",
    metrics.FRACTION_OF_LINK: "throughput as a fraction of the link",
    metrics.RATE: "throughput [B/s]",
    "wall_s": "wall time of one refit [s]",
    "sqnr_db": "SQNR, pooled [dB]",
}
_PIXELS_PER_INCH = 110
# The least standard deviations that are believed: of a logarithm of times, and of an SQNR in dB.
_TIME_RESOLUTION = 1e-3
_SQNR_RESOLUTION_DB = 1e-3


def trends(records: list[Record]) -> pd.DataFrame:
    """One row a record, case and metric, ascending by time: metric, kind, case, created_utc, commit, dirty,
    machine, file, value, low, high (quarters of the iterations), level, change, purpose.

    Cases that did not pass, and nights with other settings than the latest of the same name, are left
    out. Change points are searched within one machine.
    """
    series: dict[str, list[CaseFigures]] = {}
    for record in records:
        for name, case in metrics.cases(record).items():
            if case.measured:
                series.setdefault(name, []).append(case)
    parts = []
    for name, nights in series.items():
        latest = nights[-1]
        alike = [n for n in nights if n.identity == latest.identity and n.metric == latest.metric]
        for kind in (latest.metric, "wall_s", "sqnr_db"):
            table = _trend(name, kind, alike)
            if len(table):
                parts.append(table)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["metric"])


def _trend(name: str, kind: str, nights: list[CaseFigures]) -> pd.DataFrame:
    rows = []
    for night in nights:
        samples = {"wall_s": night.wall, "sqnr_db": np.array([])}.get(kind)
        if samples is None:
            samples = night.rates()
        value = night.sqnr_db if kind == "sqnr_db" else float(np.median(samples))
        if not math.isfinite(value):
            continue
        several = samples.size > 1
        rows.append({
            "metric": f"{name}/{kind}",
            "kind": kind,
            "case": name,
            "created_utc": night.record.created_utc,
            "commit": str(night.record.tool.get("commit", "")),
            "dirty": bool(night.record.tool.get("dirty", False)),
            "machine": ", ".join(filter(None, night.machine)),
            "file": os.path.basename(night.record.path),
            "value": value,
            "low": float(np.quantile(samples, 0.25)) if several else math.nan,
            "high": float(np.quantile(samples, 0.75)) if several else math.nan,
            "purpose": str(night.record.cases.loc[night.number, "purpose"]),
        })
    table = pd.DataFrame(rows)
    if table.empty:
        return table
    table["level"] = math.nan
    table["change"] = False
    for machine in dict.fromkeys(table["machine"]):
        index = table.index[table["machine"] == machine]
        values = table.loc[index, "value"].to_numpy(dtype=float)
        is_sqnr = kind == "sqnr_db"
        searched = values if is_sqnr else np.log(values)
        starts = statistics.segments(searched, _SQNR_RESOLUTION_DB if is_sqnr else _TIME_RESOLUTION)
        for first, last in zip([0, *starts], [*starts, len(values)]):
            table.loc[index[first:last], "level"] = float(np.mean(values[first:last]))
        table.loc[index[starts], "change"] = True
    return table


def write(records: list[Record], skipped: list[str], folder: str) -> tuple[str, pd.DataFrame]:
    """Writes a picture and a CSV a metric, history.csv, changes.csv and index.html; returns the page's
    absolute path and the table of trends. Raises OSError where the folder cannot be written to."""
    # Imported here: only this command draws trends, and matplotlib takes a second.
    from refit_reports.figures import trend

    os.makedirs(folder, exist_ok=True)
    table = trends(records)
    table.to_csv(os.path.join(folder, "history.csv"), index=False)
    changes = _changes(table)
    changes.to_csv(os.path.join(folder, "changes.csv"), index=False)
    sections = []
    taken: set[str] = set()
    for metric in dict.fromkeys(table["metric"]):
        rows = table[table["metric"] == metric].reset_index(drop=True)
        file_name = _file_name(metric, taken)
        drawing = trend.draw(metric, file_name, _AXES[rows["kind"].iloc[0]], rows,
                             rows["purpose"].iloc[-1])
        rows.to_csv(os.path.join(folder, f"{file_name}.csv"), index=False)
        picture = io.BytesIO()
        drawing.figure.savefig(picture, format="png", dpi=_PIXELS_PER_INCH, metadata={"Software": None})
        with open(os.path.join(folder, f"{file_name}.png"), "wb") as stream:
            stream.write(picture.getvalue())
        sections.append(_figure(picture.getvalue(), drawing.caption, file_name))
    path = os.path.join(folder, "index.html")
    with open(path, "w", encoding="utf-8", errors="replace") as stream:
        stream.write(_page(records, skipped, changes, sections))
    return os.path.abspath(path), table


def _changes(table: pd.DataFrame) -> pd.DataFrame:
    """One row a change point: metric, created_utc, commit, file, before, after, ratio."""
    rows = []
    for metric in dict.fromkeys(table["metric"]):
        of_metric = table[table["metric"] == metric]
        for machine in dict.fromkeys(of_metric["machine"]):
            part = of_metric[of_metric["machine"] == machine].reset_index(drop=True)
            for i in np.flatnonzero(part["change"].to_numpy(dtype=bool)):
                before, after = part.loc[i - 1, "level"], part.loc[i, "level"]
                rows.append({
                    "metric": metric, "machine": machine, "created_utc": part.loc[i, "created_utc"],
                    "commit": part.loc[i, "commit"], "commit_before": part.loc[i - 1, "commit"],
                    "file": part.loc[i, "file"], "before": before, "after": after,
                    "ratio": after / before,
                })
    return pd.DataFrame(rows, columns=["metric", "machine", "created_utc", "commit", "commit_before",
                                       "file", "before", "after", "ratio"])


def _file_name(metric: str, taken: set[str]) -> str:
    # File systems take 255 bytes; ".png" and a counter must still fit.
    stem = re.sub(r"[^A-Za-z0-9._=-]+", "_", metric)
    stem = stem if len(stem) <= 180 else f"{stem[:120]}_{stem[-59:]}"
    name, counter = stem, 1
    while name in taken:
        counter += 1
        name = f"{stem}-{counter}"
    taken.add(name)
    return name


def _figure(picture: bytes, caption: str, file_name: str) -> str:
    import base64

    data = base64.b64encode(picture).decode("ascii")
    text = html.escape(caption)
    return (f'<figure><img alt="{text}" src="data:image/png;base64,{data}">'
            f"<figcaption>{text} Numbers: {html.escape(file_name)}.csv</figcaption></figure>")


def _page(records: list[Record], skipped: list[str], changes: pd.DataFrame,
          sections: list[str]) -> str:
    lines = [f"<p>{len(records)} records"
             + (f" from {records[0].created_utc} to {records[-1].created_utc}" if records else "")
             + ". Change points: two-sample t test, split by split; they need three nights on either side."
             "</p>"]
    lines += [f"<p><strong>{html.escape(text)}</strong></p>" for text in skipped]
    lines.append("<h2>Change points</h2>")
    if changes.empty:
        lines.append("<p>None.</p>")
    else:
        head = "".join(f"<th>{c}</th>" for c in ("metric", "first night", "commit", "before", "after",
                                                 "ratio"))
        body = "".join(
            f"<tr><td>{html.escape(row.metric)}</td><td>{html.escape(row.created_utc)}</td>"
            f"<td>{html.escape(row.commit[:12])}</td><td>{row.before:.4g}</td><td>{row.after:.4g}</td>"
            f"<td>{row.ratio:.4f}</td></tr>" for row in changes.itertuples(index=False))
        lines.append(f"<table><tr>{head}</tr>{body}</table>")
    style = ("body { font-family: sans-serif; max-width: 75rem; margin: 1.5rem auto; padding: 0 1rem; } "
             "table { border-collapse: collapse; font-size: 0.9rem; } "
             "th, td { border: 1px solid #999; padding: 0.2rem 0.5rem; text-align: left; } "
             "figure { margin: 1.2rem 0; } figure img { max-width: 100%; }")
    return ('<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>refitbench history</title>'
            f"<style>{style}</style></head><body><h1>History</h1>\n" + "\n".join(lines + sections)
            + f"\n<p>refit_reports {__version__}</p></body></html>\n")
