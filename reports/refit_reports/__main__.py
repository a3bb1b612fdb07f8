# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""python -m refit_reports: the command line. Exit codes are those of refitbench."""

from __future__ import annotations

import argparse
import sys

from refit_reports import __version__

_USAGE = 2
_ENVIRONMENT = 3
_LATER = {
    "compare": "compares two records",
    "gate": "judges a record against a baseline or a history",
    "history": "shows how the records of a folder developed",
}


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
    for name, what in _LATER.items():
        commands.add_parser(name, help=f"{what} (not available yet)", add_help=False)
    return parser


def _report(paths: list[str], folder: str) -> int:
    # Imported here: matplotlib takes a second, and --help needs none of it.
    try:
        from refit_reports import page
        from refit_reports.record import RecordError, load
    except ImportError as error:
        print(
            f"error: {error}; use the Python that the scripts made (build/venv/bin/python) or "
            "install python3-h5py, python3-matplotlib and python3-pandas",
            file=sys.stderr,
        )
        return _ENVIRONMENT
    try:
        records = [load(path) for path in paths]
    except RecordError as error:
        print(f"error: {error}", file=sys.stderr)
        return _ENVIRONMENT
    try:
        index = page.write(records, folder)
    except OSError as error:
        print(
            f"error: cannot write the report to {folder}: {error.strerror or error}; free some "
            "space or choose another folder with -o",
            file=sys.stderr,
        )
        return _ENVIRONMENT
    for record in records:
        print(f"# {record.path}: {record.verdict}, {len(record.cases)} cases, "
              f"{len(record.findings)} findings")
    print(f"report: {index}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    options, rest = _parser().parse_known_args(arguments)
    if options.command in _LATER:
        print(
            f"error: {options.command} is not available yet; `report` is, and every number is in "
            "the record and in the report's CSV files",
            file=sys.stderr,
        )
        return _USAGE
    if rest:
        _parser().error(f"unrecognized arguments: {' '.join(rest)}")
    return _report(options.records, options.output)


if __name__ == "__main__":
    sys.exit(main())
