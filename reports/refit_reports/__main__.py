# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""python -m refit_reports: the command line. Exit codes are those of refitbench."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys

from refit_reports import __version__

_USAGE = 2
_ENVIRONMENT = 3
_NOTHING = 77


class _UsageError(Exception):
    """An option has a value that means nothing; the message is printed and the exit code is 2."""


class _EnvironmentError(Exception):
    """Something outside failed; the message is printed and the exit code is 3."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m refit_reports",
        description="Reads the records of refitbench; never reruns anything.",
        epilog="example: python -m refit_reports report results/RUN.h5 -o report",
    )
    parser.add_argument("--version", action="version", version=f"refit_reports {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    report = commands.add_parser(
        "report",
        help="one page with verdict, findings, tables and figures",
        description="Writes DIR/index.html, which needs no other file, and each picture as PNG "
        "and its numbers as CSV beside it. The last line of the output names the page.",
        epilog="example: python -m refit_reports report results/RUN.h5 -o report",
    )
    report.add_argument("records", nargs="+", metavar="RUN.h5", help="record of a run")
    report.add_argument("-o", "--output", required=True, metavar="DIR", help="made if missing")
    report.set_defaults(run=_report)

    compare = commands.add_parser(
        "compare",
        help="two records side by side",
        description="Per case and metric the medians, the ratio B / A with a bootstrap interval, "
        "Mann-Whitney p and SAME, FASTER, SLOWER or AMBIGUOUS; per tensor what moved. It compares two "
        "nights and judges nothing: exit 0, or 77 where the records have no case in common.",
        epilog="example: python -m refit_reports compare before.h5 after.h5 --csv difference",
    )
    compare.add_argument("a", metavar="A.h5", help="the record to compare with")
    compare.add_argument("b", metavar="B.h5", help="the record that is compared")
    compare.add_argument("--csv", metavar="DIR", help="writes timings.csv and tensors.csv there")
    compare.set_defaults(run=_compare)

    gate = commands.add_parser(
        "gate",
        help="judges a record against a baseline or a history",
        description="One line a metric. Exit 0: pass; 1: a metric, or the run itself, failed; 77: "
        "ambiguous, or nothing to compare with; 3: the record or the archive cannot be read.",
        epilog="example: python -m refit_reports gate results/RUN.h5 --history archive --json gate.json",
    )
    gate.add_argument("record", metavar="RUN.h5", help="record of a run")
    against = gate.add_mutually_exclusive_group(required=True)
    against.add_argument("--baseline", metavar="FILE", help="one record")
    against.add_argument("--history", metavar="DIR", help="a folder of records")
    gate.add_argument("--json", metavar="FILE", help="the verdict as JSON; - is standard output")
    gate.add_argument("--references", metavar="DIR",
                      help="expected figures of machines; default: scenarios/references of the checkout")
    gate.add_argument("--since", metavar="TIME",
                      help="nights before this time (ISO 8601) are not compared; default: the first line of "
                      "DIR/since, if it exists")
    gate.add_argument("--night-spread", type=_fraction, metavar="FRACTION",
                      help="spread between nights that is assumed until nights show it; default 0.02")
    gate.set_defaults(run=_gate)

    history = commands.add_parser(
        "history",
        help="how the records of a folder developed",
        description="Writes a picture and a CSV a metric, with change points and their commits, "
        "history.csv, changes.csv and index.html. The last line of the output names the page.",
        epilog="example: python -m refit_reports history archive -o history",
    )
    history.add_argument("archive", metavar="DIR", help="a folder of records; needs no index")
    history.add_argument("-o", "--output", required=True, metavar="DIR", help="made if missing")
    history.set_defaults(run=_history)

    archive = commands.add_parser(
        "archive",
        help="adds records to an archive",
        description="Copies each record whole or not at all, never over another one, and makes the index "
        "anew. Prints the path of each copy.",
        epilog="example: python -m refit_reports archive results/RUN.h5 -o archive",
    )
    archive.add_argument("records", nargs="+", metavar="RUN.h5", help="record of a run")
    archive.add_argument("-o", "--output", required=True, metavar="DIR", help="made if missing")
    archive.set_defaults(run=_archive)
    return parser


def _fraction(text: str) -> float:
    value = float(text)
    if not 0.0 < value < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1; 0.02 is two percent")
    return value


def _report(options: argparse.Namespace) -> int:
    from refit_reports import page
    from refit_reports.record import load

    records = [load(path) for path in options.records]
    with _writing("the report", options.output):
        index = page.write(records, options.output)
    for record in records:
        print(f"# {record.path}: {record.verdict}, {len(record.cases)} cases, "
              f"{len(record.findings)} findings")
    print(f"report: {index}")
    return 0


def _compare(options: argparse.Namespace) -> int:
    from refit_reports import compare
    from refit_reports.record import load

    a, b = load(options.a), load(options.b)
    print("\n".join(compare.lines(a, b)))
    times = compare.timings(a, b)
    if options.csv:
        with _writing("the comparison", options.csv):
            os.makedirs(options.csv, exist_ok=True)
            times.to_csv(os.path.join(options.csv, "timings.csv"), index=False)
            compare.accuracy(a, b).to_csv(os.path.join(options.csv, "tensors.csv"), index=False)
    return 0 if len(times) else _NOTHING


def _gate(options: argparse.Namespace) -> int:
    from refit_reports import archive, gate, night_noise, references
    from refit_reports.record import load

    run = load(options.record)
    expected = references.load(options.references or references.default_folder(), run)
    spread = options.night_spread or night_noise.ASSUMED_NIGHT_SPREAD
    skipped: list[str] = []
    if options.baseline is not None:
        outcome = gate.against_baseline(run, load(options.baseline), expected, spread)
    else:
        records, skipped = archive.read(options.history)
        since = _since(options.since) if options.since is not None else archive.since(options.history)
        if since is not None:
            records = [r for r in records if archive.created(r) >= since]
            skipped.append(f"nights before {since.isoformat()} are not compared")
        outcome = gate.against_history(run, records, expected, spread)
    if options.json:
        document = {
            "schema": "refitbench.gate/1",
            "tool": {"name": "refit_reports", "version": __version__, "commit": _commit()},
            "argv": sys.argv,
            "verdict": outcome.verdict,
            "exit_code": outcome.exit_code,
            "record": options.record,
            "remarks": skipped + outcome.remarks,
            "metrics": [line.as_json() for line in outcome.judgements],
        }
        text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        if options.json == "-":
            sys.stdout.write(text)
            return outcome.exit_code
        with _writing("the verdict", options.json):
            with open(options.json, "w", encoding="utf-8") as stream:
                stream.write(text)
    for remark in skipped + outcome.remarks:
        print(f"# {remark}")
    for line in outcome.judgements:
        print(f"{line.gate.upper():<9} {line.verdict:<9} {line.name}: {_value(line)}; {line.evidence}")
    print(f"verdict: {outcome.verdict}")
    return outcome.exit_code


def _since(text: str):
    from refit_reports import archive

    try:
        return archive.parse_time(text, "--since")
    except archive.ArchiveError as error:
        raise _UsageError(str(error)) from None


def _value(line) -> str:
    if line.value != line.value:
        return "no value"
    digits = ".0f" if line.unit in ("B", "tensors", "elements") else ".5g"
    unit = "" if line.unit == "1" else f" {line.unit}"
    text = f"{line.value:{digits}}{unit}"
    if line.reference == line.reference:
        text += f", reference {line.reference:{digits}}"
        if line.low == line.low and line.low != line.high:
            text += f" [{line.low:{digits}}, {line.high:{digits}}]"
    return text


def _history(options: argparse.Namespace) -> int:
    from refit_reports import archive, history

    records, skipped = archive.read(options.archive)
    for line in skipped:
        print(f"# {line}")
    if not records:
        print(f"# {options.archive} holds no record")
        return _NOTHING
    try:
        archive.write_index(options.archive, records)
    except archive.ArchiveError as error:
        # The pictures need no index, and an archive may be read only.
        print(f"# no index: {error}")
    with _writing("the history", options.output):
        page, table = history.write(records, skipped, options.output)
    for row in table[table["change"]].itertuples(index=False) if len(table) else []:
        print(f"# change: {row.metric} at {row.created_utc}, commit {row.commit[:12]}")
    metrics = len(set(table["metric"]))
    print(f"# {len(records)} records, {metrics} metrics")
    print(f"history: {page}")
    return 0


def _archive(options: argparse.Namespace) -> int:
    from refit_reports import archive

    for path in options.records:
        print(archive.add(options.output, path))
    archive.write_index(options.output)
    return 0


class _writing:
    """Turns an OSError in its block into one that says what could not be written where."""

    def __init__(self, what: str, where: str):
        self._what, self._where = what, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, OSError):
            raise _EnvironmentError(
                f"cannot write {self._what} to {self._where}: {error.strerror or error}; free some space "
                "or choose another place"
            ) from None


def _commit() -> str:
    """The commit of the checkout that this package lies in; empty where there is none."""
    folder = os.path.dirname(os.path.abspath(__file__))
    try:
        done = subprocess.run(
            ["git", "-c", "safe.directory=*", "-C", folder, "rev-parse", "HEAD"],
            capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def main(arguments: list[str] | None = None) -> int:
    # Kept until the end, so that a reader who leaves early (| head) changes no verdict.
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            code = _run(arguments)
    except SystemExit as end:  # of argparse, after --help or wrong use
        code = end.code
    except KeyboardInterrupt:
        _complain("interrupted")
        code = _ENVIRONMENT
    return code if _print(printed.getvalue()) else code or _ENVIRONMENT


def _print(text: str) -> bool:
    """Prints the text; False, and a message, where standard output cannot be written."""
    if sys.stdout is None:
        return True
    # A path may hold what the terminal's encoding has no character for.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
        return True
    except OSError as error:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return True
        _complain(f"standard output cannot be written: {error.strerror or error}; is its disk full?")
        return False


def _complain(text: str) -> None:
    print(f"error: {text}", file=sys.stderr)


def _run(arguments: list[str] | None) -> int:
    options = _parser().parse_args(arguments)
    # Imported here: matplotlib and scipy take a second, and --help needs none of it.
    try:
        from refit_reports.archive import ArchiveError
        from refit_reports.record import RecordError

        return options.run(options)
    except ImportError as error:
        _complain(f"{error}; use the Python that the scripts made (build/venv/bin/python) or "
                  "install python3-h5py, python3-matplotlib, python3-pandas and python3-scipy")
        return _ENVIRONMENT
    except _UsageError as error:
        _complain(str(error))
        return _USAGE
    except (RecordError, ArchiveError, _EnvironmentError, OSError) as error:
        _complain(str(error))
        return _ENVIRONMENT


if __name__ == "__main__":
    sys.exit(main())
