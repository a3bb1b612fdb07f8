# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Adds up the phases of ci/test.sh.

Input: a table, one phase a line, separated by tabs: name, exit code (or "not-run"), seconds, and the
JUnit file of the phase ("-" for a phase that counts as one test by itself; the reason for "not-run").
Output: failed and skipped tests by name, the phases, and as the last line "N passed, N failed,
N skipped". Exit code: 0 when nothing failed, else 1.

A phase that was to leave a JUnit file and left none, or one without tests, counts as one failure, and
so does one that ended with an error which none of its tests explains.
"""

import dataclasses
import pathlib
import re
import sys
import xml.etree.ElementTree

# What CTest writes beside a test that decided itself to skip. Every other reason for not running
# (program not built, not found, a fixture that failed) is a failure.
_CTEST_SKIPS = ("SKIP_RETURN_CODE", "SKIP_REGULAR_EXPRESSION_MATCHED")


@dataclasses.dataclass
class Phase:
    """Counts of one phase; `failures` and `skips` are lines to print."""

    name: str
    seconds: float = 0.0
    passed: int = 0
    failures: list = dataclasses.field(default_factory=list)
    skips: list = dataclasses.field(default_factory=list)


def _skip_reason(case, skipped):
    """The reason a test gave: pytest's message, or the lines that GoogleTest printed."""
    message = skipped.get("message") or ""
    if message and not message.startswith(_CTEST_SKIPS):
        return message
    lines = [line.strip() for line in (case.findtext("system-out") or "").splitlines()]
    # GoogleTest prints "FILE:LINE: Skipped", then the reason, then "[  SKIPPED ] Suite.Name".
    for index, line in enumerate(lines):
        if re.search(r"\bSkipped$", line) and index + 1 < len(lines) and lines[index + 1]:
            return lines[index + 1]
    said = [line for line in lines if line and not line.startswith("[") and "SKIP" not in line.upper()]
    return said[-1] if said else "no reason given"


def count_junit(phase, path):
    """Adds the test cases of the JUnit file `path` to `phase`; returns their number."""
    root = xml.etree.ElementTree.parse(path).getroot()
    cases = list(root.iter("testcase"))
    for case in cases:
        name = case.get("name", "?")
        group = case.get("classname", "")
        if group and group != name:
            name = f"{group}::{name}"
        failure = case.find("failure")
        if failure is None:
            failure = case.find("error")
        skipped = case.find("skipped")
        status = case.get("status", "run")  # only CTest writes it
        if failure is not None or status == "fail":
            phase.failures.append(name)
        elif skipped is not None and status == "run":
            phase.skips.append(f"{name}: {_skip_reason(case, skipped)}")
        elif status == "disabled":
            phase.failures.append(f"{name}: disabled")
        elif skipped is not None:
            message = skipped.get("message") or ""
            if message.startswith(_CTEST_SKIPS):
                phase.skips.append(f"{name}: {_skip_reason(case, skipped)}")
            else:
                phase.failures.append(f"{name}: did not run ({message or 'no reason given'})")
        else:
            phase.passed += 1
    return len(cases)


def read_phase(line):
    """One line of the table as a Phase."""
    name, code, seconds, junit = line.split("\t")
    phase = Phase(name, float(seconds))
    if code == "not-run":
        phase.failures.append(f"did not run, {junit}")
        return phase
    if junit == "-":
        if code == "0":
            phase.passed = 1
        else:
            phase.failures.append(f"exit code {code}")
        return phase
    try:
        number = count_junit(phase, junit)
    except (OSError, xml.etree.ElementTree.ParseError) as error:
        phase.failures.append(f"left no readable results ({error}), exit code {code}")
        return phase
    if number == 0:
        phase.failures.append(f"ran no test, exit code {code}")
    elif code != "0" and not phase.failures:
        phase.failures.append(f"exit code {code}, although none of its tests failed")
    return phase


def main(arguments):
    """Prints the summary of the table named by the only argument."""
    text = pathlib.Path(arguments[0]).read_text(encoding="utf-8")
    phases = [read_phase(line) for line in text.splitlines() if line]
    if not phases:
        phases = [Phase("ci/test.sh", failures=["no phase ran"])]
    for phase in phases:
        for skip in phase.skips:
            print(f"# skipped: {phase.name}: {skip}")
    for phase in phases:
        print(
            f"# {phase.name}: {phase.passed} passed, {len(phase.failures)} failed, "
            f"{len(phase.skips)} skipped, {phase.seconds:.0f} s"
        )
    for phase in phases:
        for failure in phase.failures:
            print(f"# FAILED: {phase.name}: {failure}")
    passed = sum(phase.passed for phase in phases)
    failed = sum(len(phase.failures) for phase in phases)
    skipped = sum(len(phase.skips) for phase in phases)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
