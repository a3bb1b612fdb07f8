# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""Drives the built program as a user would: a command line, its exit code, its streams, its files.

REFIT_BUILD_DIR names the build folder (default: build/ of the repository). Nothing here imports code of
the project; what the program wrote is read with h5py, json and the safetensors package.
"""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import time

import h5py
import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("REFIT_BUILD_DIR", REPOSITORY / "build")).resolve()
PROGRAM = BUILD / "refitbench"
MPIRUN = ["mpirun", "--oversubscribe"] + (["--allow-run-as-root"] if os.geteuid() == 0 else [])

# One MB-sized model, small buckets so that there are several, one iteration.
SMALL_RUN = """\
purpose: does the program do what its description says?
model: tiny-qwen3
receiver: {engine: vllm-fp8, tp: TP}
trainer: {ranks: TRAINERS}
transport: {name: TRANSPORT, bucket_bytes: 256KiB}
iterations: 1
warmup: 0
timeout_s: 20
"""


def small_run(trainers=1, tp=1, transport="mpi", extra=""):
    """The text of a scenario of `trainers + tp` ranks (`loopback`: one process)."""
    text = SMALL_RUN.replace("TRAINERS", str(trainers)).replace("TP", str(tp))
    return text.replace("TRANSPORT", transport) + extra


def _tail(text, lines=25):
    kept = text.splitlines()[-lines:]
    return "\n".join("    " + line for line in kept) or "    (nothing)"


@dataclasses.dataclass
class Outcome:
    """A finished command."""

    command: list
    code: int
    stdout: str
    stderr: str
    seconds: float

    def __str__(self):
        return (f"\n  command: {' '.join(map(str, self.command))}\n  exit code: {self.code} after "
                f"{self.seconds:.1f} s\n  standard output ends with:\n{_tail(self.stdout)}\n"
                f"  standard error ends with:\n{_tail(self.stderr)}")

    def expect(self, *codes):
        """Fails, showing everything, unless the exit code is one of `codes`; returns self."""
        assert self.code in codes, f"expected exit code {' or '.join(map(str, codes))}{self}"
        return self

    def expect_said(self, *words):
        """Fails unless standard error or output contains each of `words`; returns self."""
        for word in words:
            assert str(word) in self.stderr + self.stdout, f"expected '{word}' in the output{self}"
        return self

    @property
    def json(self):
        """Standard output as one JSON value."""
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            pytest.fail(f"standard output is not JSON ({error}){self}")


class Refitbench:
    """Runs the program in a folder of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.records = folder / "records"
        self._started = []

    def write(self, name, text):
        """Writes a scenario or other text file into the folder and returns its path."""
        path = self.folder / name
        path.write_text(text, encoding="utf-8")
        return path

    def command(self, *arguments, np=None, mca=()):
        """The command line as a list; `np` ranks under mpirun, or the bare program."""
        launcher = [] if np is None else [*MPIRUN, *mca, "-np", str(np)]
        return [*launcher, str(PROGRAM), *map(str, arguments)]

    def __call__(self, *arguments, np=None, mca=(), timeout=60):
        """Runs the program to its end; a run longer than `timeout` seconds fails the test."""
        process = self.start(*arguments, np=np, mca=mca)
        return self.finish(process, timeout)

    def start(self, *arguments, np=None, mca=()):
        """Starts the program; `finish` waits for it."""
        command = self.command(*arguments, np=np, mca=mca)
        # Files, not pipes: a rank that outlives the launcher must not keep the reader waiting.
        index = len(self._started)
        with open(self.folder / f"stdout.{index}", "wb") as out, \
                open(self.folder / f"stderr.{index}", "wb") as err:
            process = subprocess.Popen(command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=out,
                                       stderr=err, start_new_session=True)
        process.started_s = time.monotonic()
        process.index = index
        self._started.append(process)
        return process

    def finish(self, process, timeout):
        """Waits for a started program and returns its Outcome."""
        try:
            process.wait(timeout)
            late = False
        except subprocess.TimeoutExpired:
            late = True
            self.end(process)
        texts = [(self.folder / f"{stream}.{process.index}").read_text(encoding="utf-8", errors="replace")
                 for stream in ("stdout", "stderr")]
        outcome = Outcome(process.args, process.returncode, *texts,
                          time.monotonic() - process.started_s)
        if late:
            pytest.fail(f"the program did not end within {timeout} s{outcome}")
        return outcome

    def ranks_of(self, process, np, timeout=20):
        """{rank: pid} of the `np` program processes below the launcher, once all are there."""
        deadline = time.monotonic() + timeout
        found = {}
        while time.monotonic() < deadline and process.poll() is None:
            found = {rank: pid for pid, rank in _program_processes(process.pid)}
            if len(found) == np:
                return found
            time.sleep(0.05)
        pytest.fail(f"expected {np} ranks, found {found}{self.finish(process, 0.1)}")

    def end(self, process):
        """Ends a launcher and its ranks, by their process ids, stopped ones too."""
        pids = [pid for pid, _ in _program_processes(process.pid)]
        for pid in [process.pid, *pids]:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        process.wait()

    def end_all(self):
        """Ends whatever a failed test left running."""
        for process in self._started:
            if process.poll() is None:
                self.end(process)

    def run(self, text, *arguments, np=None, mca=(), timeout=60, name="scenario.yaml"):
        """Runs a scenario given as text with `--json -`; the record goes to `self.records`."""
        path = self.write(name, text)
        return self("run", path, "--output", self.records, "--json", "-", *arguments, np=np, mca=mca,
                    timeout=timeout)

    def record(self, outcome):
        """The only record that was written, open for reading."""
        found = sorted(self.records.glob("*.h5")) if self.records.is_dir() else []
        assert len(found) == 1, f"expected one record in {self.records}, found {found}{outcome}"
        return h5py.File(found[0], "r")


def _program_processes(launcher):
    """(pid, rank) of each program process whose ancestor is `launcher`; rank from its environment."""
    parents = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # The name in parentheses may hold blanks; the fields after it do not.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = int(fields[1])
            except (OSError, ValueError, IndexError):
                continue
    for pid in parents:
        above = parents.get(pid)
        while above not in (None, 0, launcher):
            above = parents.get(above)
        if above != launcher:
            continue
        try:
            if os.readlink(f"/proc/{pid}/exe") != str(PROGRAM.resolve()):
                continue
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        except OSError:
            continue
        for variable in environment:
            if variable.startswith(b"OMPI_COMM_WORLD_RANK="):
                yield pid, int(variable.partition(b"=")[2])


def text_of(value):
    """An HDF5 string attribute, however h5py hands it over."""
    return value.decode() if isinstance(value, bytes) else str(value)
