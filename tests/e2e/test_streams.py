# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""A run whose reader leaves, whose streams are closed or full, or whose names are odd."""

import json
import os
import re
import resource
import signal
import subprocess
import time
import xml.etree.ElementTree

import h5py
import pytest
from user_program import small_run, text_of

QUICK = small_run(transport="loopback")
SUBCOMMANDS = ["run", "list", "quantize", "dequantize", "identify", "verify", "export"]
# Options without which the command does not start; and what is repeated or stands for itself.
WITHOUT_DEFAULT = {"--recipe", "--input", "--output", "--model", "--engine", "--reference", "--set"}


def quick_command(refitbench, *arguments, text=QUICK):
    path = refitbench.write("quick.yaml", text)
    return refitbench.command("run", path, "--output", refitbench.records, *arguments)


def records(refitbench):
    """Verdicts of the records; nothing else lies in their folder."""
    found = sorted(refitbench.records.iterdir())
    assert [path.suffix for path in found] == [".h5"] * len(found), found
    verdicts = []
    for path in found:
        with h5py.File(path, "r") as record:
            verdicts.append(text_of(record.attrs["verdict"]))
    return verdicts


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


# ---- readers and streams ----------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--json", "-"]], ids=["table", "json"])
def test_a_reader_that_leaves_costs_no_record(refitbench, arguments):
    reading, writing = os.pipe()
    os.close(reading)

    done = subprocess.run(quick_command(refitbench, *arguments), cwd=refitbench.folder, stdout=writing,
                          stderr=subprocess.PIPE, timeout=60, check=False)
    os.close(writing)

    assert done.returncode == 0, done
    assert records(refitbench) == ["pass"]


def test_closed_streams_take_no_file_of_the_run(refitbench):
    def close_streams():
        for stream in (0, 1, 2):
            os.close(stream)

    done = subprocess.run(quick_command(refitbench, "--json", "run.json"), cwd=refitbench.folder,
                          preexec_fn=close_streams, timeout=60, check=False)

    assert done.returncode == 0
    assert records(refitbench) == ["pass"]
    assert read_json(refitbench.folder / "run.json")["verdict"] == "pass"


@pytest.mark.parametrize("arguments", [["run"], ["run", "--json", "-"], ["list", "recipes"],
                                       ["list", "models", "--json", "-"], ["--help"]],
                         ids=" ".join)
def test_a_full_standard_output_is_3(refitbench, arguments):
    command = (quick_command(refitbench, *arguments[1:]) if arguments[0] == "run"
               else refitbench.command(*arguments))

    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, cwd=refitbench.folder, stdout=full, stderr=subprocess.PIPE,
                              timeout=60, check=False)

    assert done.returncode == 3, done
    assert b"standard output" in done.stderr
    if arguments[0] == "run":
        assert records(refitbench) == ["pass"]


def test_a_record_that_cannot_be_written_leaves_the_json_of_what_was_measured(refitbench):
    def limit_file_size():
        # Ample for the JSON, too little for a record.
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, 1 << 15))

    done = subprocess.run(quick_command(refitbench, "--json", "run.json", "--junit", "run.xml"),
                          cwd=refitbench.folder, preexec_fn=limit_file_size,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, check=False)

    assert done.returncode == 3, done
    assert b"ulimit -f" in done.stderr
    assert records(refitbench) == []
    run = read_json(refitbench.folder / "run.json")
    assert (run["verdict"], run["exit_code"], run["record"]) == ("error", 3, "")
    assert run["error"]["stage"] == "record"
    assert [case["outcome"] for case in run["cases"]] == ["pass"]
    root = xml.etree.ElementTree.parse(refitbench.folder / "run.xml").getroot()
    assert int(root.get("errors")) == 1


def test_a_hangup_that_the_caller_ignores_does_not_end_a_run(refitbench):
    text = QUICK.replace("iterations: 1", "iterations: 150").replace(
        "bucket_bytes: 256KiB", "bucket_bytes: 256KiB, link_bytes_per_s: 512MiB")
    process = subprocess.Popen(
        quick_command(refitbench, text=text), cwd=refitbench.folder, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    time.sleep(1)
    assert process.poll() is None, "the run was over before the hangup"

    process.send_signal(signal.SIGHUP)

    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
    assert records(refitbench) == ["pass"]


# ---- names ------------------------------------------------------------------------------------


def test_a_scenario_with_the_longest_name_leaves_a_record(refitbench):
    stem = "ä" * 124
    path = refitbench.write(stem + ".yaml", QUICK)

    run = refitbench("run", path, "--output", refitbench.records, "--json", "-").expect(0).json

    assert run["cases"][0]["scenario"] == stem
    assert os.path.basename(run["record"]).startswith("ä" * 80)
    assert records(refitbench) == ["pass"]


def test_names_that_are_no_utf8_cost_no_report(refitbench, checkpoint):
    folder = os.fsencode(refitbench.folder) + b"/caf\xe9"
    os.rename(checkpoint, folder)
    source = os.path.join(folder, b"model.safetensors")
    target = os.path.join(folder, b"fp8.safetensors")

    for arguments in ([b"quantize", b"--recipe", b"deepgemm", b"--input", source, b"--output", target],
                      [b"identify", target, b"--reference", source],
                      [b"dequantize", b"--input", target, b"--output", target + b".back"]):
        done = subprocess.run([*refitbench.command(), *arguments, b"--json", b"-"],
                              stdout=subprocess.PIPE, timeout=60, check=False)
        assert done.returncode == 0, done
        assert json.loads(done.stdout)["schema"].startswith("refitbench.")


def test_junit_tells_scenarios_of_one_name_apart(refitbench):
    for folder in ("a", "b"):
        (refitbench.folder / "both" / folder).mkdir(parents=True)
        refitbench.write(f"both/{folder}/same.yaml", QUICK + "checks: [digest]\n")

    refitbench("run", "both", "--output", refitbench.records, "--junit", "junit.xml").expect(0)

    root = xml.etree.ElementTree.parse(refitbench.folder / "junit.xml").getroot()
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(names) == len(set(names)) == 4, names


def test_a_purpose_of_several_lines_stays_behind_its_hash(refitbench):
    text = QUICK.replace("purpose: ", "purpose: |\n  one line,\n  and one more:\n  ")
    path = refitbench.write("lines.yaml", text)

    outcome = refitbench("run", path, "--output", refitbench.records).expect(0)

    data = [line for line in outcome.stdout.splitlines() if not line.startswith("#")]
    assert len(data) == 1 and "prime-rl-blockwise" in data[0], outcome


# ---- wrong use --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--json", "-", "--junit", "-"], ["--json", "x", "--junit", "./x"],
                                       ["--json", "quick.yaml"], ["--junit", "quick.yaml"],
                                       ["--json", ""], ["--junit", ""]], ids=" ".join)
def test_reports_that_would_replace_something_are_2(refitbench, arguments):
    refitbench.write("quick.yaml", QUICK)

    refitbench("run", "quick.yaml", "--output", refitbench.records, *arguments).expect(2).expect_said(
        arguments[0])

    assert (refitbench.folder / "quick.yaml").read_text(encoding="utf-8") == QUICK
    assert not refitbench.records.exists()


def test_a_scenario_with_a_zero_byte_is_2(refitbench):
    refitbench.run(QUICK + "remark: a\0b\n", name="zero.yaml").expect(2).expect_said("zero.yaml:9")


def test_a_report_that_cannot_be_written_is_known_before_the_work(refitbench, checkpoint):
    target = refitbench.folder / "out.safetensors"

    refitbench("quantize", "--recipe", "deepgemm", "--input", checkpoint / "model.safetensors",
               "--output", target, "--json", "nowhere/report").expect(3).expect_said("nowhere/report")

    assert not target.exists()


def test_the_json_of_a_dry_run_says_what_was_asked(refitbench):
    path = refitbench.write("quick.yaml", QUICK)

    outcome = refitbench("run", path, "--dry-run", "--json", "-").expect(0)

    assert outcome.json["argv"] == outcome.command
    assert outcome.json["schema"] == "refitbench.dry_run/1"


@pytest.mark.parametrize("subcommand", SUBCOMMANDS)
def test_help_says_the_default_of_every_option(refitbench, subcommand):
    text = refitbench(subcommand, "--help").expect(0).stdout

    options = re.findall(r"^  (-\S+) [A-Z=]+(?: \.\.\.)?  +(.+)$", text, re.MULTILINE)
    assert options, text
    for name, description in options:
        required = name in WITHOUT_DEFAULT and "default" not in description
        assert "default" in description or required, f"{name}: {description}"
