# SPDX-FileCopyrightText: 2026 The refitbench authors
# SPDX-License-Identifier: Apache-2.0
"""The archive: whole or not at all, never over another record, with two writers and after a crash."""

import concurrent.futures
import csv
import os
import subprocess
import sys
import time

import h5py
import pytest

import nights
from refit_reports import archive
from refit_reports.archive import ArchiveError
from refit_reports.record import RecordError


@pytest.fixture()
def base(sample, tmp_path):
    return nights.make(sample, tmp_path / "base.h5", 0)


def index(folder):
    with open(folder / "index.csv", newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def records(folder):
    return sorted(p.name for p in folder.glob("*.h5"))


def test_archives_and_indexes_in_the_order_of_time(base, command, tmp_path):
    later = nights.make(base, tmp_path / "a.h5", 3)
    done = command("archive", later, base, "-o", tmp_path / "new" / "archive")
    assert done.code == 0, done.err
    assert done.out.splitlines() == [str(tmp_path / "new" / "archive" / n) for n in ("a.h5", "base.h5")]
    assert [row["file"] for row in index(tmp_path / "new" / "archive")] == ["base.h5", "a.h5"]
    with h5py.File(base) as file:
        assert index(tmp_path / "new" / "archive")[0]["created_utc"] == file.attrs["created_utc"]
        assert index(tmp_path / "new" / "archive")[0]["commit"] == file["tool"].attrs["commit"]


def test_the_index_has_records_that_its_caller_did_not_know(base, tmp_path):
    folder = tmp_path / "archive"
    archive.add(str(folder), str(base))
    known, _ = archive.read(str(folder))
    archive.add(str(folder), str(nights.make(base, tmp_path / "later.h5", 3)))
    archive.write_index(str(folder), known)
    assert [row["file"] for row in index(folder)] == ["base.h5", "later.h5"]
    # What says nothing about other nights is not read, what does is.
    assert len(known[0].tensors) and known[0].buckets.empty and known[0].findings.empty


def test_never_overwrites(base, tmp_path):
    folder = tmp_path / "archive"
    assert archive.add(folder, base) == archive.add(folder, base)
    assert records(folder) == ["base.h5"]
    first = (folder / "base.h5").read_bytes()
    nights.make(base, base.with_name("other.h5"), 1)
    os.replace(base.with_name("other.h5"), base)
    assert archive.add(folder, base).endswith("base-1.h5")
    assert (folder / "base.h5").read_bytes() == first


def test_what_is_no_record_is_not_archived(base, command, tmp_path):
    base.write_bytes(base.read_bytes()[:-100])
    done = command("archive", base, "-o", tmp_path / "archive")
    assert done.code == 3 and str(base) in done.err
    assert not (tmp_path / "archive").exists()
    with pytest.raises(RecordError):
        archive.add(tmp_path / "archive", base)


def test_writers_at_the_same_time_lose_nothing(base, tmp_path):
    folder = tmp_path / "archive"
    program = ("import sys; from refit_reports import archive\n"
               "for path in sys.argv[2:]: archive.add(sys.argv[1], path); archive.write_index(sys.argv[1])")
    paths = [nights.make(base, tmp_path / f"night{n}.h5", n) for n in range(8)]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))

    def write(chosen):
        return subprocess.run([sys.executable, "-c", program, folder, *chosen], env=environment,
                              capture_output=True, text=True)

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        for done in pool.map(write, [paths[:4], paths[4:]]):
            assert done.returncode == 0, done.stderr
    assert records(folder) == sorted(p.name for p in paths)
    assert [row["file"] for row in index(folder)] == sorted(p.name for p in paths)


@pytest.mark.parametrize("step", ["link", "fsync", "replace"])
def test_a_crash_in_the_middle_leaves_a_usable_archive(step, base, tmp_path, command):
    folder = tmp_path / "archive"
    archive.add(folder, base)
    archive.write_index(folder)
    before = (folder / "index.csv").read_bytes()
    night = nights.make(base, tmp_path / "night1.h5", 1)
    # os._exit at the step: no handler and no finally runs, as with a kill.
    program = (f"import os, sys; os.{step} = lambda *a, **k: os._exit(9)\n"
               "from refit_reports import archive\n"
               "archive.add(sys.argv[1], sys.argv[2]); archive.write_index(sys.argv[1])")
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run([sys.executable, "-c", program, folder, night], env=environment)
    assert done.returncode == 9
    whole = ["base.h5", "night1.h5"] if step == "replace" else ["base.h5"]
    assert records(folder) == whole
    assert (folder / "index.csv").read_bytes() == before
    assert [os.path.basename(r.path) for r in archive.read(folder)[0]] == whole
    # The lock of the dead process does not stop the next one.
    assert command("archive", night, "-o", folder).code == 0
    assert records(folder) == ["base.h5", "night1.h5"]
    assert len(index(folder)) == 2


def test_a_lock_that_is_held_is_waited_for_and_then_named(base, tmp_path, monkeypatch):
    folder = tmp_path / "archive"
    archive.add(folder, base)
    monkeypatch.setattr(archive, "_LOCK_WAIT_S", 0.2)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys, time; f = open(sys.argv[1], 'r+')\n"
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(60)", folder / ".lock"],
        stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(ArchiveError, match="lock"):
            archive.write_index(folder)
    finally:
        holder.kill()
        holder.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            archive.write_index(folder)
            break
        except ArchiveError:
            continue
    assert len(index(folder)) == 1


def test_nights_are_told_apart_by_a_pause(base):
    times = [archive.parse_time(t, "test") for t in (
        "2026-01-01T02:00:00Z", "2026-01-01T02:30:00Z", "2026-01-02T02:00:00Z",
        "2026-01-02T23:00:00+00:00")]
    assert archive.by_night(times) == [0, 0, 1, 2]
