# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The JUnit files are written by CTest and pytest themselves, not by hand."""

import shutil
import subprocess
import sys

import pytest
import summarize_tests

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(sample LANGUAGES NONE)
enable_testing()
add_test(NAME good COMMAND true)
add_test(NAME bad COMMAND false)
add_test(NAME no_device COMMAND sh -c "echo no device here; exit 77")
set_tests_properties(no_device PROPERTIES SKIP_RETURN_CODE 77)
add_test(NAME quiet_skip COMMAND sh -c "echo 'x.cpp:2: Skipped'; echo 'no GPU'; echo '[  SKIPPED ] A.B'")
set_tests_properties(quiet_skip PROPERTIES SKIP_REGULAR_EXPRESSION "SKIPPED")
add_test(NAME not_there COMMAND /nonexistent/program)
add_test(NAME switched_off COMMAND true)
set_tests_properties(switched_off PROPERTIES DISABLED ON)
add_test(NAME too_slow COMMAND sleep 9)
set_tests_properties(too_slow PROPERTIES TIMEOUT 1)
"""

PYTEST = """
import pytest
def test_good(): pass
def test_bad(): assert False
@pytest.mark.skip(reason="no index")
def test_skipped(): pass
@pytest.fixture
def broken(): raise OSError("no disk")
def test_broken(broken): pass
"""


def summarize(tmp_path, capsys, *lines):
    table = tmp_path / "phases.tsv"
    table.write_text("".join("\t".join(map(str, line)) + "\n" for line in lines), encoding="utf-8")
    code = summarize_tests.main([str(table)])
    printed = capsys.readouterr().out.splitlines()
    return code, printed[-1], "\n".join(printed)


@pytest.mark.skipif(shutil.which("ctest") is None, reason="ctest is not installed")
def test_counts_what_ctest_reports(tmp_path, capsys):
    (tmp_path / "CMakeLists.txt").write_text(PROJECT, encoding="utf-8")
    build = tmp_path / "build"
    subprocess.run(["cmake", "-S", tmp_path, "-B", build], check=True, capture_output=True)
    results = tmp_path / "ctest.xml"
    subprocess.run(["ctest", "--test-dir", build, "--output-junit", results], capture_output=True,
                   check=False)

    code, last, everything = summarize(tmp_path, capsys, ("ctest", 8, 1, results))

    assert (code, last) == (1, "1 passed, 4 failed, 2 skipped")
    assert "FAILED: ctest: bad" in everything
    assert "not_there: did not run" in everything
    assert "switched_off: disabled" in everything
    assert "FAILED: ctest: too_slow" in everything
    assert "skipped: ctest: no_device: no device here" in everything
    assert "skipped: ctest: quiet_skip: no GPU" in everything


def test_counts_what_pytest_reports(tmp_path, capsys):
    (tmp_path / "test_sample.py").write_text(PYTEST, encoding="utf-8")
    results = tmp_path / "pytest.xml"
    subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "/dev/null",
                    "--rootdir", tmp_path, "--junitxml", results, tmp_path / "test_sample.py"],
                   capture_output=True, check=False)

    code, last, everything = summarize(tmp_path, capsys, ("pytest", 1, 1, results))

    assert (code, last) == (1, "1 passed, 2 failed, 1 skipped")
    assert "test_skipped: no index" in everything


def test_a_phase_without_results_is_a_failure(tmp_path, capsys):
    empty = tmp_path / "empty.xml"
    empty.write_text("<testsuite/>", encoding="utf-8")

    code, last, everything = summarize(
        tmp_path, capsys,
        ("format", 0, 2, "-"), ("lint words", 1, 2, "-"),
        ("ctest", 0, 0, tmp_path / "absent.xml"), ("pytest", 0, 0, empty),
        ("asan ctest", "not-run", 0, "because its build failed"))

    assert (code, last) == (1, "1 passed, 4 failed, 0 skipped")
    assert "asan ctest: did not run, because its build failed" in everything


def test_an_error_that_no_test_explains_is_a_failure(tmp_path, capsys):
    results = tmp_path / "some.xml"
    results.write_text('<testsuite><testcase name="a" classname="b"/></testsuite>', encoding="utf-8")

    assert summarize(tmp_path, capsys, ("x", 0, 1, results))[:2] == (0, "1 passed, 0 failed, 0 skipped")
    assert summarize(tmp_path, capsys, ("x", 3, 1, results))[:2] == (1, "1 passed, 1 failed, 0 skipped")


def test_no_phase_at_all_is_a_failure(tmp_path, capsys):
    assert summarize(tmp_path, capsys)[:2] == (1, "0 passed, 1 failed, 0 skipped")
